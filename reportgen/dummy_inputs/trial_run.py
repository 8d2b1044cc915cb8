"""Whether a model runs on given inputs: tried once, on a model that comes back as it was."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING

from reportgen.dummy_inputs.candidate import Choice
from reportgen.example_inputs import Examples, make_examples
from reportgen.sources.loaded import quietly
from reportgen.sources.weightless import is_weightless

if TYPE_CHECKING:
    from torch import nn

    from reportgen.manifest import ModelSpec


def with_choice(spec: ModelSpec, choice: Choice) -> ModelSpec:
    """`spec` with the inputs of `choice`."""
    return spec.model_copy(update={"inputs": choice.inputs, "dims": dict(choice.dims)})


def why_not(model: nn.Module, spec: ModelSpec, batch: int) -> Exception | None:
    """What a forward pass of `batch` samples raises; None if it runs.

    The pass is real where shapes alone would believe in every index; a model whose weights have
    no data runs on meta.
    """
    import torch

    device = "meta" if is_weightless(model) else "cpu"
    try:
        examples = make_examples(spec, batch, spec.seed, device=device)
        if _shapes_tell(spec) and _runs_on_shapes(model, examples):
            return None
        with _woken(model), _hushed(), torch.no_grad():
            examples.call(model)
    except Exception as error:  # whatever the model says
        return error
    return None


def _shapes_tell(spec: ModelSpec) -> bool:
    """Whether a model looks nothing up by its inputs: then shapes alone are right or wrong."""
    return spec.source.kind in ("torchvision", "timm")


def _runs_on_shapes(model: nn.Module, examples: Examples) -> bool:
    """Whether a pass with fake tensors ends; a tenth of a real one's time, or less."""
    import torch

    from reportgen.fake_model import twin

    try:
        with (
            _hushed(),
            torch.no_grad(),
            twin(model, (examples.args, examples.kwargs)) as (double, (args, kwargs)),
        ):
            double(*args, **kwargs)
    except Exception:  # a real pass tells whether the inputs or the fake tensors are to blame
        return False
    return True


@contextmanager
def _woken(model: nn.Module) -> Iterator[None]:
    """Put a lazy layer back to sleep: it takes its size from the first input that it sees."""
    from torch.nn.parameter import is_lazy

    from reportgen.model_state import preserve_model_state

    if any(is_lazy(parameter) for parameter in model.parameters()):
        with preserve_model_state(model):
            yield
    else:
        yield


def needs_values(error: Exception) -> bool:
    """Whether a pass on meta ended because it asked for a value, which says nothing of shapes."""
    return " meta " in f" {error} ".replace("'", " ") or "data-dependent" in str(error).lower()


@contextmanager
def trial(model: nn.Module) -> Iterator[None]:
    """Lend `model` for any number of tries; it comes back as it was, a lazy layer asleep."""
    from reportgen.model_state import preserve_model_state

    with preserve_model_state(model), _uncompiled():
        yield


@contextmanager
def _uncompiled() -> Iterator[None]:
    """A compiled model runs as it is written, for compiling takes longer than every try.

    The compiler takes seconds to import; where nothing did, nothing is compiled.
    """
    if "torch._dynamo" not in sys.modules:
        yield
        return
    import torch

    with torch.compiler.set_stance("force_eager"):
        yield


@contextmanager
def _hushed() -> Iterator[None]:
    with quietly(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield
