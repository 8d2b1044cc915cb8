"""Run a model on candidate inputs, and generalize the inputs that ran."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import Candidate, parts_of, with_part
from reportgen.dummy_inputs.from_layers import table_sizes
from reportgen.errors import ModelError
from reportgen.example_inputs import Examples, make_examples
from reportgen.manifest import InputSpec
from reportgen.pytree import modules_of
from reportgen.sources.loaded import quietly
from reportgen.sources.weightless import is_weightless

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec

_OTHER_BATCH = 3  # `reportgen init` searches inputs at batch 1 or 2
_IMAGE_RANK, _SEQUENCE_RANK = 4, 3
_STEP = 32  # a multiple of the strides of common backbones


def with_candidate(spec: ModelSpec, candidate: Candidate) -> ModelSpec:
    """`spec` with the inputs of `candidate`."""
    return spec.model_copy(update={"inputs": candidate.inputs, "dims": dict(candidate.dims)})


def run_error(model: nn.Module, spec: ModelSpec, batch: int) -> Exception | None:
    """The exception of a forward pass with `batch` samples; None if the pass succeeds.

    torchvision and timm models run on fake tensors first, which is about ten times faster. Other
    models may index with their inputs, and fake tensors do not detect an index out of range.
    A model on meta runs on meta.
    """
    import torch

    device = "meta" if is_weightless(model) else "cpu"
    try:
        examples = make_examples(spec, batch, spec.seed, device=device)
    except (ModelError, RuntimeError) as error:  # torch cannot make a tensor of this candidate
        return error
    if _is_vision_library(spec) and _runs_on_fake_tensors(model, examples):
        return None
    with _lazy_layers_restored(model), _silenced(), torch.no_grad():
        try:
            examples.call(model)
        except Exception as error:  # a model may raise anything
            return error
    return None


def _is_vision_library(spec: ModelSpec) -> bool:
    return spec.source.kind in ("torchvision", "timm")


def _runs_on_fake_tensors(model: nn.Module, examples: Examples) -> bool:
    import torch

    from reportgen.fake_model import fake_copy

    try:
        with (
            _silenced(),
            torch.no_grad(),
            fake_copy(model, (examples.args, examples.kwargs)) as (fake, (args, kwargs)),
        ):
            fake(*args, **kwargs)
    except Exception:  # the real pass decides whether the inputs or the fake tensors are at fault
        return False
    return True


@contextmanager
def _lazy_layers_restored(model: nn.Module) -> Iterator[None]:
    # the first input materializes lazy layers with its size, which the next one may not have
    from torch.nn.parameter import is_lazy

    from reportgen.model_state import preserve_model_state

    if any(is_lazy(parameter) for parameter in model.parameters()):
        with preserve_model_state(model):
            yield
    else:
        yield


def is_meta_failure(error: Exception) -> bool:
    """Whether a pass on meta failed because it read a value, not because of the shapes."""
    # torch raises no specific class: "Tensor.item() cannot be called on meta tensors",
    # "Cannot copy out of meta tensor; no data!"
    return " meta " in f" {error} ".replace("'", " ") or "data-dependent" in str(error).lower()


@contextmanager
def trial_mode(model: nn.Module) -> Iterator[None]:
    """Run any number of trials on `model`, then restore its state and its lazy layers."""
    from reportgen.model_state import preserve_model_state

    with preserve_model_state(model), _uncompiled():
        yield


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Run compiled models eagerly: compilation takes longer than all trials together."""
    # torch._dynamo takes seconds to import, and without it nothing has been compiled
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _silenced() -> Iterator[None]:
    with quietly(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield


def widen_to_vocabulary(
    model: nn.Module, spec: ModelSpec, candidate: Candidate, batch: int
) -> Candidate:
    """`candidate`, on which the model ran, with the ranges of its integers widened.

    For each larger embedding, the index of its last row is tried. If the model runs and looks
    that row up, the range of the input becomes the size of the embedding.
    """
    if is_weightless(model):
        return candidate  # a pass on meta accepts every index
    for place, (_, part) in enumerate(parts_of(candidate.inputs)):
        for size in sorted(table_sizes(model), reverse=True):
            if not _may_grow(part, size):
                continue
            last = _at_place(
                candidate, place, part.model_copy(update={"low": size - 1, "high": size})
            )
            if _looks_up(model, with_candidate(spec, last), batch, size):
                candidate = _at_place(candidate, place, part.model_copy(update={"high": size}))
                break
    return candidate


def _may_grow(part: InputSpec, size: int) -> bool:
    # masks and other constant tensors have high <= 1 or low > 0
    is_range = part.high is not None and part.high > 1 and "int" in part.dtype
    return is_range and not part.low and part.high < size  # type: ignore[operator]


def _at_place(candidate: Candidate, place: int, part: InputSpec) -> Candidate:
    return replace(candidate, inputs=with_part(candidate.inputs, place, part))


def _looks_up(model: nn.Module, spec: ModelSpec, batch: int, size: int) -> bool:
    """Whether the model runs and looks up the last row of an embedding of `size` rows."""
    from torch import nn

    found: list[bool] = []

    def record(_: nn.Module, args: tuple[Any, ...]) -> None:
        found.append(bool(args) and bool((args[0] == size - 1).any()))

    # that the pass succeeds proves nothing: the argument may be a number and no index
    tables = [m for m in modules_of(model) if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    handles = [t.register_forward_pre_hook(record) for t in tables if t.num_embeddings == size]
    try:
        return run_error(model, spec, batch) is None and any(found)
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, kw_only=True, slots=True)
class _DynamicDim:
    """A dim that might be dynamic: its name, its size, a second size, and where it occurs."""

    name: str
    size: int
    other: int
    occurs_at: Callable[[InputSpec, int], bool]


def name_dynamic_dims(model: nn.Module, spec: ModelSpec, candidate: Candidate) -> Candidate:
    """`candidate` with a name for each dim whose second size ran too.

    The batch becomes a number if no other batch size runs. Call within `trial_mode`.
    """
    candidate = _with_checked_batch(model, spec, candidate)
    for dim_to_name in _candidates(candidate.inputs):
        inputs = tuple(_named(item, dim_to_name) for item in candidate.inputs)
        named = replace(
            candidate, inputs=inputs, dims={**candidate.dims, dim_to_name.name: dim_to_name.size}
        )
        other = replace(named, dims={**named.dims, dim_to_name.name: dim_to_name.other})
        if run_error(model, with_candidate(spec, other), 1) is None:
            candidate = named
    return candidate


def has_batch_dim(candidate: Candidate) -> bool:
    """Whether an input has a dim named `batch`."""
    return "batch" in {dim for item in candidate.inputs for dim in item.named_dims()}


def _with_checked_batch(model: nn.Module, spec: ModelSpec, candidate: Candidate) -> Candidate:
    if run_error(model, with_candidate(spec, candidate), _OTHER_BATCH) is None:
        return candidate
    return replace(candidate, inputs=tuple(_fixed(item, spec.batch) for item in candidate.inputs))


def _fixed(item: InputSpec, batch: int) -> InputSpec:
    shape = item.shape and tuple(batch if dim == "batch" else dim for dim in item.shape)
    items = item.items and tuple(_fixed(part, batch) for part in item.items)
    fields = item.fields and {key: _fixed(part, batch) for key, part in item.fields.items()}
    return item.model_copy(update={"shape": shape, "items": items, "fields": fields})


def _candidates(inputs: tuple[InputSpec, ...]) -> Iterator[_DynamicDim]:
    """Dims that may be dynamic: tokens, height and width of images, steps of a sequence."""
    # fewer tokens as the second size: more may exceed the position embedding
    for tokens in sorted({s for item in inputs for s in _token_sizes(item)})[:1]:
        yield _DynamicDim(
            name="tokens", size=tokens, other=max(1, tokens // 2), occurs_at=_is_tokens
        )
    images = [item.shape for item in inputs if item.shape and _is_image(item)]
    for axis, name in ((-2, "height"), (-1, "width")):
        sizes = {shape[axis] for shape in images}
        size = sizes.pop() if len(sizes) == 1 else ""
        if isinstance(size, int):
            yield _DynamicDim(name=name, size=size, other=size + _STEP, occurs_at=_image_side(axis))
    for item in inputs:
        where = _step_axis(item)
        if where is not None and item.shape and isinstance(item.shape[where], int):
            steps = int(item.shape[where])
            yield _DynamicDim(name="steps", size=steps, other=steps + 1, occurs_at=_is_step)
            break


def _token_sizes(item: InputSpec) -> Iterator[int]:
    shape = item.shape or ()
    if item.dtype == "int64" and len(shape) > 1 and isinstance(shape[1], int):
        yield shape[1]


def _is_tokens(item: InputSpec, axis: int) -> bool:
    return item.dtype == "int64" and axis == 1


def _is_image(item: InputSpec) -> bool:
    shape = item.shape or ()
    return len(shape) == _IMAGE_RANK and item.dtype.startswith("float") and shape[0] == "batch"


def _image_side(side: int) -> Callable[[InputSpec, int], bool]:
    return lambda item, axis: _is_image(item) and axis == _IMAGE_RANK + side


def _step_axis(item: InputSpec) -> int | None:
    shape = item.shape or ()
    if len(shape) != _SEQUENCE_RANK or "batch" not in shape[:2] or item.dtype != "float32":
        return None
    return 1 - shape.index("batch")


def _is_step(item: InputSpec, axis: int) -> bool:
    return _step_axis(item) == axis


def _named(item: InputSpec, dim_to_name: _DynamicDim) -> InputSpec:
    if item.shape is None:
        return item
    shape = tuple(
        dim_to_name.name if dim == dim_to_name.size and dim_to_name.occurs_at(item, axis) else dim
        for axis, dim in enumerate(item.shape)
    )
    return item.model_copy(update={"shape": shape})
