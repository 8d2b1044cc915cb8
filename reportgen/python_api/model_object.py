"""A model object as a context for sections, for the time of a block; afterwards it is as before."""

from __future__ import annotations

import copy
import inspect
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from reportgen.errors import ModelError
from reportgen.manifest import Loss as LossSpec
from reportgen.manifest import ModelSpec, Source, Target
from reportgen.python_api.inputs import Inputs, read_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.context import ModelContext

_LONGEST_NAME = 64
_LOSSES = ("sum", "cross_entropy")

Loss: TypeAlias = "str | Callable[[Any], Tensor]"  # the name is torch's
"""What a training step minimizes: a name, or a function of the output that returns a scalar."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelObject:
    """A model that exists in this process, and its manifest entry.

    Attributes:
        model: the user's own object.
        spec: its entry, with absolute paths.
        loss_function: the loss, if it is a function.
        targets: the GPUs to fit.
    """

    model: nn.Module
    spec: ModelSpec
    loss_function: Callable[[Any], Tensor] | None = None
    targets: tuple[Target, ...] = ()

    @contextmanager
    def context(self, folder: Path, *, timings: bool = False) -> Iterator[ModelContext]:
        """A context for sections, whose files go to `folder`; the model is restored at the end.

        A model that is not on the CPU is copied to it.

        Raises:
            ModelError: its inputs cannot be made, or the model cannot be analyzed at all.
        """
        import torch

        from reportgen.fake_model import set_mode
        from reportgen.model_state import preserve_model_state

        with torch.inference_mode(False), torch.enable_grad():
            on_cpu, notes = _on_cpu(self.model)
            with preserve_model_state(on_cpu):
                set_mode(on_cpu, training=False)
                yield self._context(on_cpu, folder, notes, timings=timings)

    def _context(
        self, model: nn.Module, folder: Path, notes: tuple[str, ...], *, timings: bool
    ) -> ModelContext:
        from reportgen.context import ModelContext
        from reportgen.dummy_inputs import with_dummy_inputs
        from reportgen.sources import Loaded
        from reportgen.sources.overridden_methods import restore_module_methods
        from reportgen.workers.child import with_lazy_layers_materialized

        notes = (*notes, *restore_module_methods(model))
        spec, input_notes = with_dummy_inputs(self.spec, Loaded(model=model))
        context = ModelContext(
            spec=spec,
            model=model,
            loss_function=self.loss_function,
            targets=self.targets,
            folder=folder,
            timings=timings,
            source_notes=(*notes, *input_notes),
        )
        context.examples()  # an error in the inputs fails the call and not each section
        return with_lazy_layers_materialized(context)


@contextmanager
def context_of(model: nn.Module, inputs: Inputs, **options: Any) -> Iterator[ModelContext]:
    """The context of one question about `model`, with a temporary folder; see `describe_model`."""
    described = describe_model(model, inputs, **options)
    with (
        tempfile.TemporaryDirectory(prefix="reportgen-") as folder,
        described.context(Path(folder)) as context,
    ):
        yield context


def describe_model(
    model: nn.Module,
    inputs: Inputs,
    *,
    targets: Sequence[str] = (),
    batch: int | None = None,
    loss: Loss = "sum",
    name: str = "",
    settings: Mapping[str, Any] | None = None,
) -> ModelObject:
    """The manifest entry of a model object.

    Args:
        model: any `torch.nn.Module`.
        inputs: the arguments of `forward`, see `read_inputs`.
        targets: names of GPUs.
        batch: batch size; None for that of `inputs`.
        loss: `sum`, `cross_entropy` or a function of the output.
        name: of the model; "" for that of its class.
        settings: further fields of `ModelSpec`.

    Raises:
        ModelError: it is not a module, or an argument is not valid.
    """
    from torch import nn

    from reportgen.sources.loaded import find_module_cycle

    if not isinstance(model, nn.Module):
        raise ModelError(
            f"expected a torch.nn.Module, got {type(model).__name__}",
            hint="wrap a function in a module whose forward calls it",
        )
    if cycle := find_module_cycle(model):
        raise ModelError(
            f"a module contains itself: {cycle}",
            hint="store the reference in a tuple, self.parent = (module,)",
        )
    read = read_inputs(inputs, model)
    kind = type(model)
    spec = ModelSpec(
        name=safe_name(name or kind.__name__),
        source=Source(
            kind="object",
            target=kind.__module__,
            factory=kind.__qualname__,
            text=f"{kind.__module__}.{kind.__qualname__} in Python",
        ),
        inputs=read.specs,
        batch=_checked_batch(batch, read.batch),
        loss=_loss_spec(loss),
        **(settings or {}),
    )
    return ModelObject(
        model=model,
        spec=spec,
        loss_function=loss if callable(loss) else None,
        targets=tuple(Target(name=_known_gpu(each)) for each in targets),
    )


def _loss_spec(loss: Loss) -> LossSpec:
    if callable(loss):
        require_function_of_output(loss)
        return LossSpec(kind="object", text=_name_of(loss))
    if loss not in _LOSSES:
        raise ModelError(
            f"unknown loss {loss!r}", hint="use 'sum', 'cross_entropy' or a function of the output"
        )
    return LossSpec.model_validate({"kind": loss, "text": loss})


def require_function_of_output(loss: Callable[..., Any]) -> None:
    """Raise a `ModelError` if `loss` requires a target, as `nn.MSELoss()` does."""
    try:
        inspect.signature(getattr(loss, "forward", loss)).bind(None)
    except TypeError:
        raise ModelError(
            f"the loss {_name_of(loss)} must take one argument, the output of the model",
            hint="use 'cross_entropy', or make the target from the output: "
            "lambda output: loss(output, torch.zeros_like(output))",
        ) from None
    except ValueError:  # written in C, without a signature
        return


def _name_of(loss: Callable[..., Any]) -> str:
    return getattr(loss, "__name__", type(loss).__name__)


def _checked_batch(batch: int | None, given: int) -> int:
    if batch is None:
        return max(given, 1)
    if isinstance(batch, bool) or not isinstance(batch, int) or batch < 1:
        raise ModelError(
            f"batch must be a positive whole number, got {batch!r}", hint="use 1 or more"
        )
    return batch


def _known_gpu(name: str) -> str:
    from reportgen.cuda_memory.errors import UnknownGpuError
    from reportgen.cuda_memory.gpus import find_gpu

    try:
        return find_gpu(name).name
    except UnknownGpuError as error:
        raise ModelError(str(error), hint=error.hint) from error


def as_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Several names as they are, and a single one as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


def safe_name(name: str) -> str:
    """`name` with what a model's name in a manifest may contain."""
    return re.sub(r"[^\w.-]", "-", name).strip(".-")[:_LONGEST_NAME] or "model"


def _on_cpu(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """The model itself if it is on the CPU or on meta, else a copy on the CPU, with a note."""
    tensors = [*model.parameters(), *model.buffers()]
    devices = sorted({tensor.device.type for tensor in tensors} - {"cpu", "meta"})
    if not devices:
        return model, ()
    try:
        copied = copy.deepcopy(model).cpu()
    except Exception as error:
        raise ModelError(
            f"the model is on {', '.join(devices)} and cannot be copied to the CPU: {error}",
            hint="analyze model.cpu()",
        ) from error
    return copied, (f"analyzed a copy on the CPU: the model is on {', '.join(devices)}",)
