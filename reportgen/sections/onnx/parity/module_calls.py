"""What every module of a PyTorch model gives in one call, and what every operator in it gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_BYTES = 512 * 2**20  # of outputs kept at a time

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModuleCall:
    """One call of one module: the tensors it gave, as they were then.

    Attributes:
        path: of the module, "" for the model itself.
        kind: its class.
        training: whether it was in train mode.
    """

    path: str
    kind: str
    training: bool
    tensors: tuple[Tensor, ...]


def record_modules(
    model: nn.Module, call: Call, within: str = "", most_bytes: int = MOST_BYTES
) -> tuple[list[ModuleCall], bool]:
    """The calls of all modules below `within`, in the order in which they ended.

    Where their outputs take more than `most_bytes`, the deepest modules are left out until they
    do not; returns whether any was.
    """
    sizes: dict[int, int] = {}

    def weigh(path: str, _: nn.Module, output: Any) -> None:
        depth = path.count(".")
        size = sum(tensor.nbytes for tensor in named_tensors(output).values())
        sizes[depth] = sizes.get(depth, 0) + size

    with _hooked(model, within, weigh):
        call()
    deepest, total = -1, 0
    for depth in sorted(sizes):
        total += sizes[depth]
        if total > most_bytes and deepest >= 0:
            break
        deepest = depth
    calls: list[ModuleCall] = []

    def keep(path: str, module: nn.Module, output: Any) -> None:
        if path.count(".") <= deepest:
            tensors = tuple(t.detach().clone() for t in named_tensors(output).values())
            kind = type(module).__name__
            calls.append(
                ModuleCall(path=path, kind=kind, training=module.training, tensors=tensors)
            )

    with _hooked(model, within, keep):
        call()
    return calls, deepest < max(sizes, default=-1)


@contextmanager
def _hooked(
    model: nn.Module, within: str, told: Callable[[str, nn.Module, Any], None]
) -> Iterator[None]:
    """Tell of the output of every module below `within` while the context lasts."""

    def hook(path: str) -> Callable[..., None]:
        return lambda module, _, output: told(path, module, output)

    below = f"{within}." if within else ""
    handles = [
        module.register_forward_hook(hook(path))
        for path, module in model.named_modules()
        if path.startswith(below)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watch_operators(call: Call, told: Callable[[Tensor], None]) -> None:
    """Tell of every tensor that any operator gives during a call, the moment it is there."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            for tensor in named_tensors(result).values():
                told(tensor)
            return result

    with Watcher():  # type: ignore[no-untyped-call]
        call()
