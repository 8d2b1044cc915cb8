"""One forward pass, written down: what was called, with which shapes, at what cost.

The pass runs on a twin of the model whose tensors are fake (shape, dtype and device without
data): it costs no arithmetic and no memory, and the model itself is not touched. A model whose
course depends on values, or that torch cannot copy, runs for real on the model lent by `loan`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.leaves import tensor_leaves
from reportgen.sections.layers.meter import Choice, Meter, Seen, Work
from reportgen.sections.layers.modules import (
    Hidden,
    hidden,
    is_within,
    parameters_by_name,
    walk,
)
from reportgen.sections.layers.result import Shape, Uncounted, Unregistered
from reportgen.sections.layers.traffic import shape_of, tensor_bytes
from reportgen.twin import Arguments, countable, twin


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call of one module."""

    path: str
    inputs: dict[str, Shape]
    outputs: dict[str, Shape]
    output_dtypes: tuple[str, ...]
    output_bytes: int
    hooked: bool  # False: `.forward()` was called directly, past the hooks


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One forward pass."""

    calls: tuple[Call, ...]  # in the order in which they ended
    flops: dict[str, int]  # by path, without those of the children
    used: frozenset[str]  # names of the parameters that took part
    uncounted: tuple[Uncounted, ...]
    strangers: tuple[Unregistered, ...]  # called, and neither registered in nor held by the model
    outputs: dict[str, Shape]
    output_bytes: int
    complex_products: int
    conventional: tuple[str, ...]  # operators counted by the steps of a classic algorithm
    work: Counter[Work]  # what every operator did, and how often
    choices: frozenset[Choice]
    seen: dict[str, Seen]  # by path: the first operator that read a module's own parameters

    @property
    def operator_bytes(self) -> int:
        """Read and written by all operators."""
        return sum(work.bytes * times for work, times in self.work.items())


def trace_fake(model: nn.Module, arguments: Arguments, *, training: bool = False) -> Trace:
    """Trace a pass of a twin without data; raises whatever the twin raises."""
    with twin(model, arguments) as (double, copied):
        double.train(training)
        return trace(double, copied)


def trace(model: nn.Module, arguments: Arguments) -> Trace:
    """Trace one forward pass of a twin or of a lent model; raises whatever the model raises."""
    args, kwargs = arguments
    watch = _Watch(model)
    meter = Meter(parameters_by_name(walk(model)), watch.place)
    with torch.no_grad(), countable(model, meter.note), watch.watching(), meter:
        output = model(*args, **kwargs)
    leaves = tensor_leaves(output)
    meter.note_used(list(leaves.values()))
    return Trace(
        calls=tuple(watch.calls),
        flops=dict(meter.flops),
        used=frozenset(meter.used),
        uncounted=meter.uncounted,
        strangers=tuple(watch.strangers),
        outputs=_shapes(leaves),
        output_bytes=sum(map(tensor_bytes, leaves.values())),
        complex_products=meter.complex_products,
        conventional=tuple(sorted(meter.conventional)),
        work=meter.work,
        choices=frozenset(meter.choices),
        seen=meter.seen,
    )


def _shapes(leaves: dict[str, Tensor]) -> dict[str, Shape]:
    return {key: shape_of(tensor) for key, tensor in leaves.items()}


class _Watch:
    """Knows at each moment which module is running, under which of its paths."""

    def __init__(self, model: nn.Module) -> None:
        self.calls: list[Call] = []
        self.strangers: list[Unregistered] = []
        self._modules = {id(node.module): node.module for node in walk(model)}
        self._paths: dict[int, list[str]] = {}
        for node in walk(model):
            self._paths.setdefault(id(node.module), []).append(node.path)
        self._known = {id(module) for item in hidden(model) for module in _modules_of(item)}
        self._running: list[str] = []
        self._announced: set[int] = set()  # called by `module(...)`, forward not yet entered
        self._count: Counter[str] = Counter()

    def place(self, parameters: list[str]) -> str:
        """Path of the running module, or of the module below it whose parameter is read."""
        running = self._running[-1] if self._running else ""
        for name in parameters:
            owner = name.rpartition(".")[0]
            if is_within(owner, running):
                return owner
        return running

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Wrap every module's `forward`, by whatever way it is reached; unwrap at the end."""
        hooks = nn.modules.module
        with ExitStack() as undo:
            undo.callback(hooks.register_module_forward_pre_hook(self._announce).remove)
            left = hooks.register_module_forward_hook(
                self._leave, with_kwargs=True, always_call=True
            )
            undo.callback(left.remove)
            for module in self._modules.values():
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # its forward is compiled and cannot be wrapped: hooks alone see it
                attributes = vars(module)
                before = attributes.get("forward", _ABSENT)
                attributes["forward"] = self._wrapped(module, module.forward)
                undo.callback(_put_back, attributes, before)
            yield

    def _announce(self, module: nn.Module, _: Any) -> None:
        if id(module) in self._modules:
            if isinstance(module, torch.jit.ScriptModule):
                self._enter(module)
            else:
                self._announced.add(id(module))
        elif id(module) not in self._known and any(True for _ in module.parameters(False)):
            self._known.add(id(module))
            where = self._running[-1] if self._running else ""
            self.strangers.append(
                Unregistered(
                    path=f"{where or 'the model'}, held elsewhere",
                    type=type(module).__name__,
                    parameters=sum(p.numel() for p in module.parameters(False)),
                )
            )

    def _enter(self, module: nn.Module) -> str:
        path = self._path_of(module)
        self._count[path] += 1
        self._running.append(path)
        return path

    def _leave(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if id(module) in self._modules and isinstance(module, torch.jit.ScriptModule):
            inputs = _shapes(_named(args, kwargs))
            self._note_call(self._running.pop(), inputs, output, hooked=True)

    def _wrapped(self, module: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(forward)
        def watched(*args: Any, **kwargs: Any) -> Any:
            hooked = id(module) in self._announced
            self._announced.discard(id(module))
            inputs = _shapes(_named(args, kwargs))
            path = self._enter(module)
            try:
                output = forward(*args, **kwargs)
            finally:
                self._running.pop()
            self._note_call(path, inputs, output, hooked=hooked)
            return output

        return watched

    def _note_call(self, path: str, inputs: dict[str, Shape], output: Any, *, hooked: bool) -> None:
        leaves = tensor_leaves(output)
        dtypes = {str(tensor.dtype).removeprefix("torch.") for tensor in leaves.values()}
        self.calls.append(
            Call(
                path=path,
                inputs=inputs,
                outputs=_shapes(leaves),
                output_dtypes=tuple(sorted(dtypes)),
                output_bytes=sum(map(tensor_bytes, leaves.values())),
                hooked=hooked,
            )
        )

    def _path_of(self, module: nn.Module) -> str:
        """Under which of its paths a module runs: the nearest below whoever is running.

        Equally near ones take turns, as the items of `Sequential(layer, layer)` do.
        """
        paths = self._paths[id(module)]
        if len(paths) == 1:
            return paths[0]
        for above in reversed(self._running):
            below = [path for path in paths if is_within(path, above)]
            if below:
                return min(below, key=lambda path: (path.count("."), self._count[path]))
        return min(paths, key=lambda path: self._count[path])


def _named(args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Tensor]:
    leaves: dict[str, Tensor] = {}
    for index, value in enumerate(args):
        leaves.update(tensor_leaves(value, str(index)))
    for name, value in kwargs.items():
        leaves.update(tensor_leaves(value, name))
    return leaves


def _modules_of(item: Hidden) -> list[nn.Module]:
    return list(item.value.modules()) if isinstance(item.value, nn.Module) else []


_ABSENT = object()


def _put_back(attributes: dict[str, Any], forward: Any) -> None:
    if forward is _ABSENT:
        attributes.pop("forward", None)
    else:
        attributes["forward"] = forward
