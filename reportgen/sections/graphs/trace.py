"""One recorded forward pass: which module called which, and which tensor went where."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from reportgen.pytree import named_tensors
from reportgen.sections.graphs.call_arguments import plain_arguments

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.autograd.graph import Node as Function
    from torch.overrides import TorchFunctionMode

Shape = tuple[int, ...]


class NoBackwardError(RuntimeError):
    """Forward runs a backward pass, and the tensors that it needs were not saved."""


@dataclass(slots=True, eq=False)
class TensorSource:
    """A tensor that no operation made: an input of the model, or a parameter."""

    kind: str
    name: str
    shape: Shape
    dtype: str


@dataclass(slots=True, eq=False)
class Operation:
    """One torch function as it was called.

    `shapes` and `dtypes` are those of its results; `functions` are the autograd nodes that it
    created; `indices` is true if it returned only integers and booleans, as computations of masks
    and positions do; `arguments` are not tensors; `bytes` are those of the results.
    """

    name: str
    call: Call
    sources: list[Operation | TensorSource]
    shapes: list[Shape]
    dtypes: list[str]
    functions: list[Function] = field(default_factory=list)
    indices: bool = False
    arguments: Mapping[str, JsonValue] = field(default_factory=dict)
    bytes: int = 0


@dataclass(slots=True, eq=False)
class Call:
    """One call of a module, with the calls and operations inside, in order."""

    module: nn.Module
    path: str
    parent: Call | None
    members: list[Call | Operation] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)  # of the results
    dtypes: list[str] = field(default_factory=list)
    bytes: int = 0

    @property
    def title(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    @property
    def name(self) -> str:
        """The attribute path relative to the caller's."""
        above = self.parent.path if self.parent is not None else ""
        below = self.path.startswith(above + ".") and above
        return self.path[len(above) + 1 :] if below else self.path

    @property
    def is_leaf(self) -> bool:
        """Whether no other module ran inside; false for the model itself."""
        inside = any(isinstance(member, Call) for member in self.members)
        return self.parent is not None and not inside

    def operations(self) -> Iterator[Operation]:
        """Every operation inside, in order."""
        for member in self.members:
            if isinstance(member, Operation):
                yield member
            else:
                yield from member.operations()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Output:
    """One tensor that the model returned."""

    name: str
    shape: Shape
    dtype: str
    maker: Operation | TensorSource | None
    function: Function | None


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Trace:
    """A forward pass: the tree of calls, its inputs and used parameters, and its outputs."""

    root: Call
    sources: tuple[TensorSource, ...]
    outputs: tuple[Output, ...]
    names: Mapping[int, str]  # id of a parameter that requires a gradient -> its name
    returned: str = ""  # the class of what the model returned


def trace_forward(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any],
                  names: tuple[str, ...] = (), *, gradients: bool = True,
                  backward: bool = False) -> Trace:  # fmt: skip
    """Run `model` once and record it.

    Args:
        model: called once; its modes are not changed. All hooks are removed.
        args: positional arguments, any structure.
        kwargs: keyword arguments.
        names: names of the positional arguments; `input0`, … where there are none.
        gradients: whether autograd records the pass.
        backward: whether forward may call backward itself; takes as much memory as training.

    Raises:
        NoBackwardError: forward calls backward, and `backward` is false.
        Exception: whatever the model's forward raises.
    """
    import torch

    tracer = _Tracer(model)
    for index, value in enumerate(args):
        label = names[index] if index < len(names) else f"input{index}"
        tracer.introduce(named_tensors(value, label))
    tracer.introduce(named_tensors(dict(kwargs)))
    keeping = nullcontext() if backward else _drop_saved_tensors()
    with torch.set_grad_enabled(gradients), keeping, _as_written(), tracer.recording():
        result = model(*args, **kwargs)
    return replace(tracer.trace(named_tensors(result)), returned=type(result).__name__)


@contextmanager
def _drop_saved_tensors() -> Iterator[None]:
    """Record the graph without the tensors for a backward pass: memory as in inference."""
    import torch

    def raise_error(_: object) -> Tensor:
        raise NoBackwardError("this graph was recorded for drawing and cannot be run backwards")

    with torch.autograd.graph.saved_tensors_hooks(lambda _: None, raise_error):
        yield


@contextmanager
def _as_written() -> Iterator[None]:
    """Disable fused attention, which hides the modules inside, and compilation."""
    import torch

    from reportgen.fake_model import compile_nothing

    with ExitStack() as undo:
        before = torch.backends.mha.get_fastpath_enabled()
        undo.callback(torch.backends.mha.set_fastpath_enabled, before)
        torch.backends.mha.set_fastpath_enabled(False)
        compile_nothing(undo)
        yield


class _Tracer:
    def __init__(self, model: nn.Module) -> None:
        from torch.utils.weak import WeakTensorKeyDictionary

        self._paths: dict[int, list[str]] = {}
        # a shared module has several paths; the caller decides which one is meant (`_path`)
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(id(module), []).append(path)
        self._parameters = dict(model.named_parameters())
        self._names = {id(value): name for name, value in self._parameters.items()}
        # weak, so that activations are freed; by identity, because == of tensors is elementwise
        self._makers: Any = WeakTensorKeyDictionary()
        self._inputs: list[TensorSource] = []
        self._used: dict[int, TensorSource] = {}
        self._known: set[Function] = set()
        self._model = model
        self._stack: list[Call] = []
        self._root: Call | None = None
        self._paused = False  # while the tracer itself calls functions on tensors

    def introduce(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            source = TensorSource("input", name, tuple(tensor.shape), dtype_name(tensor))
            self._inputs.append(source)
            self._makers[tensor] = source

    @contextmanager
    def recording(self) -> Iterator[None]:
        from torch.nn.modules import module as hooks

        # global hooks, because modules in a plain list are not among the model's modules
        handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),
        ]
        try:
            with _function_mode(self):
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, _: object) -> None:
        parent = self._stack[-1] if self._stack else None
        call = Call(module, self._path(module, parent), parent)
        if parent is not None:
            parent.members.append(call)
        elif self._root is None:
            self._root = call
        self._stack.append(call)

    def _path(self, module: nn.Module, parent: Call | None) -> str:
        """Of the module's registered paths the one below the caller's, else the first."""
        paths = self._paths.get(id(module), ["(not registered)"])
        above = f"{parent.path}." if parent is not None and parent.path else ""
        return next((path for path in paths if path.startswith(above)), paths[0])

    def _leave(self, _: nn.Module, args: object, *rest: object) -> None:
        # always_call runs this hook after an exception too, but then without keyword arguments
        self._paused = True
        try:
            self._close(self._stack.pop(), (args, rest[:-1]), rest[-1])
        finally:
            self._paused = False

    def _close(self, call: Call, given: object, result: object) -> None:
        """Record the output of a call; tensors of no recorded function get one called `unseen`."""
        tensors = list(named_tensors(result).values())
        call.shapes = [tuple(tensor.shape) for tensor in tensors]
        call.dtypes = [dtype_name(tensor) for tensor in tensors]
        call.bytes = _bytes(tensors)
        unseen = [tensor for tensor in tensors if tensor not in self._makers]
        # a module that returns its input, such as nn.Identity, is drawn too
        passive = not any(True for _ in call.operations()) and call.parent is not None
        if tensors and (passive or unseen):
            inputs = list(named_tensors(given).values())
            name = "unseen" if unseen else "identity"
            sources = self._sources(inputs)
            self._add(Operation(name, call, sources, call.shapes, call.dtypes), tensors)

    def record(
        self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: object
    ) -> None:
        if self._paused or not self._stack:
            return
        name = _name(function)
        made = list(named_tensors(result).values())
        given = list(named_tensors((args, kwargs)).values())
        changed = name == "setitem" or _in_place(function)
        if changed and given and not made:
            made = [given[0]]
        # a function that returns its argument, such as x.to(x.dtype), made nothing
        fresh = made if changed else [t for t in made if not any(t is each for each in given)]
        if fresh:
            sources = self._sources(given)
            shapes = [tuple(tensor.shape) for tensor in fresh]
            dtypes = [dtype_name(tensor) for tensor in fresh]
            operation = Operation(name, self._stack[-1], sources, shapes, dtypes)
            operation.arguments = plain_arguments(args, kwargs)
            self._add(operation, fresh, changed=changed)

    def _add(self, operation: Operation, made: list[Tensor], *, changed: bool = False) -> None:
        operation.call.members.append(operation)
        for tensor in made:
            self._makers[tensor] = operation
            if changed and tensor._base is not None:  # a view: its base changes with it
                self._makers[tensor._base] = operation
        operation.bytes = _bytes(made)
        operation.indices = not any(t.is_floating_point() or t.is_complex() for t in made)
        operation.functions = self._new_functions(made)

    def _new_functions(self, tensors: list[Tensor]) -> list[Function]:
        """The autograd nodes of `tensors` that no earlier operation created, first to last."""
        found: list[Function] = []
        # one function may create several nodes: F.linear on 3-D input adds views
        waiting = [t.grad_fn for t in tensors if t.grad_fn is not None]
        while waiting:
            function = waiting.pop()
            if function in self._known:
                continue
            self._known.add(function)
            found.append(function)
            waiting.extend(next_ for next_, _ in function.next_functions if next_ is not None)
        return found[::-1]

    def _sources(self, tensors: list[Tensor]) -> list[Operation | TensorSource]:
        found: dict[int, Operation | TensorSource] = {}
        for tensor in tensors:
            maker = self._makers.get(tensor) or self._parameter(tensor)
            if maker is not None:
                found.setdefault(id(maker), maker)
        return list(found.values())

    def _parameter(self, tensor: Tensor) -> TensorSource | None:
        name = self._names.get(id(tensor))
        if name is None:
            return None
        source = TensorSource("parameter", name, tuple(tensor.shape), dtype_name(tensor))
        return self._used.setdefault(id(tensor), source)

    def trace(self, result: Mapping[str, Tensor]) -> Trace:
        root = self._root if self._root is not None else Call(self._model, "", None)
        outputs = tuple(
            Output(
                name=name,
                shape=tuple(tensor.shape),
                dtype=dtype_name(tensor),
                maker=self._makers.get(tensor) or self._parameter(tensor),
                function=tensor.grad_fn,
            )
            for name, tensor in result.items()
        )
        return Trace(root=root, sources=(*self._inputs, *self._used.values()),
                     outputs=outputs, names=self._trainable())  # fmt: skip

    def _trainable(self) -> dict[int, str]:
        return {id(p): name for name, p in self._parameters.items() if p.requires_grad}


def dtype_name(tensor: Tensor) -> str:
    """`float32`."""
    return str(tensor.dtype).removeprefix("torch.")


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _function_mode(tracer: _Tracer) -> TorchFunctionMode:
    from torch.overrides import TorchFunctionMode

    class FunctionMode(TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            result = func(*args, **(kwargs or {}))
            tracer.record(func, args, kwargs or {}, result)
            return result

    return FunctionMode()


def _name(function: Any) -> str:
    """The public name of a function: `add` for `Tensor.__iadd__` and `add_`."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name == "__get__":  # a property such as `x.mT`
        name = str(getattr(function.__self__, "__name__", "property"))
    name = name.strip("_").split(".")[0]
    return {"iadd": "add", "radd": "add", "isub": "sub", "imul": "mul", "rmul": "mul"}.get(
        name, name
    )


def _in_place(function: Any) -> bool:
    name = str(getattr(function, "__name__", ""))
    # names such as __iadd__; __index__ and __invert__ begin alike
    in_place_operator = name.startswith("__i") and name not in ("__index__", "__invert__")
    return in_place_operator or (name.endswith("_") and not name.endswith("__"))
