"""Exported programs in a `.pt2` file: the module and its inputs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.manifest import Constant, InputSpec, Source
from reportgen.sources.loaded import FIXED_MODE_NOTE, Loaded, allow_train_and_eval, quietly
from reportgen.sources.weight_files import check_uncompressed

_WEIGHTS_ONLY = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_DEFAULT_SIZE = 8  # of a dynamic dim, if the file has no example inputs


def load_program(source: Source, arguments: dict[str, Any]) -> Loaded:
    """Load the program in the file `source.target` as a module, with its inputs.

    Raises:
        ModelError: the file is damaged, would run code, or was written by an incompatible torch.
    """
    import torch

    path = Path(source.target)
    if arguments:
        raise ModelError(
            f"{source.text}: an exported program takes no 'arguments'",
            hint="remove them, or use the factory of the exported model as source",
        )
    check_uncompressed(path)
    try:
        with _tensors_only(), quietly():
            program = torch.export.load(path)
            module = program.module()
    except Exception as error:
        raise ModelError(
            f"{path.name} cannot be read as an exported program: {type(error).__name__}: "
            f"{one_line(error)}",
            hint="write it again with torch.export.save(program, path) under this torch, "
            f"{torch.__version__}",
        ) from error
    allow_train_and_eval(module)
    _tie_parameters(module)
    reader = _ProgramInputs(program=program)
    inputs = tuple(reader.inputs())
    return Loaded(
        model=module,
        notes=(FIXED_MODE_NOTE, *reader.notes),
        inputs=inputs,
        dims=tuple(reader.dims.items()),
        batch=reader.batch,
    )


def _tie_parameters(module: Any) -> None:
    """Replace parameters that share memory by one parameter, as before the export."""
    # torch.export.load makes a parameter for each name of a tied weight, though they share memory
    by_storage: dict[Any, Any] = {}
    for name, each in list(module.named_parameters()):
        key = (each.data_ptr(), each.shape, each.stride(), each.dtype, each.requires_grad)
        first = by_storage.setdefault(key, each) if each.numel() and not each.is_meta else each
        if first is not each:
            owner, _, own_name = name.rpartition(".")
            module.get_submodule(owner)._parameters[own_name] = first


@contextmanager
def _tensors_only() -> Iterator[None]:
    # torch.export.load calls it with weights_only=False; only the variable overrides that
    before = os.environ.get(_WEIGHTS_ONLY)
    os.environ[_WEIGHTS_ONLY] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_WEIGHTS_ONLY]
        else:
            os.environ[_WEIGHTS_ONLY] = before


@dataclass(kw_only=True, slots=True)
class _ProgramInputs:
    """The inputs of a program from its placeholders, with the sizes of its example inputs."""

    program: Any
    dims: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    batch: int | None = None
    _symbols: dict[str, str] = field(default_factory=dict)

    def inputs(self) -> Iterator[InputSpec]:
        from torch.utils._pytree import tree_unflatten

        leaves = list(self._leaves())
        args, kwargs = tree_unflatten(leaves, self.program.call_spec.in_spec)
        names = self._names(len(args))
        for name, value in zip(names, args, strict=True):
            yield self._input(value, name, keyword=False)
        for name, value in kwargs.items():
            yield self._input(value, name, keyword=True)

    def _names(self, count: int) -> list[str]:
        import inspect

        signature = list(inspect.signature(self.program.module().forward).parameters)
        plain = [name if name.isidentifier() else f"input{i}" for i, name in enumerate(signature)]
        return (plain + [f"input{i}" for i in range(len(plain), count)])[:count]

    def _leaves(self) -> Iterator[_Leaf]:
        from torch.utils._pytree import tree_leaves

        stored = self.program.example_inputs
        examples = tree_leaves(stored) if stored is not None else []
        nodes = {n.name: n.meta.get("val") for n in self.program.graph.nodes}
        specs = [s for s in self.program.graph_signature.input_specs if s.kind.name == "USER_INPUT"]
        for index, spec in enumerate(specs):
            example = examples[index] if index < len(examples) else None
            value = nodes.get(spec.arg.name)
            yield _Leaf(value=value, example=example)

    def _input(self, value: Any, name: str | None, *, keyword: bool) -> InputSpec:
        outer = {"name": name, "keyword": keyword}
        if isinstance(value, _Leaf):
            return InputSpec.model_validate({**outer, **self._leaf(value, name or "input")})
        if isinstance(value, list | tuple):
            parts = tuple(self._input(part, None, keyword=False) for part in value)
            return InputSpec.model_validate(
                {**outer, "items": parts, "as_tuple": isinstance(value, tuple)}
            )
        if isinstance(value, dict):
            fields = {str(k): self._input(v, None, keyword=False) for k, v in value.items()}
            return InputSpec.model_validate({**outer, "fields": fields})
        raise ModelError(
            f"the program expects a {type(value).__name__} for {name!r}; "
            "a manifest can describe tensors, constants, lists, tuples and dicts only",
            hint="export the model again with inputs of these types",
        )

    def _leaf(self, leaf: _Leaf, name: str) -> dict[str, Any]:
        import torch

        if not isinstance(leaf.value, torch.Tensor):
            # the placeholder of a constant may have no value
            given = leaf.example if leaf.value is None else leaf.value
            plain = given if isinstance(given, str | bool | int | float) else None
            return {"value": Constant(value=plain)}
        example = leaf.example if isinstance(leaf.example, torch.Tensor) else None
        shape = [
            self._dim(size, axis, name, None if example is None else example.shape[axis])
            for axis, size in enumerate(leaf.value.shape)
        ]
        dtype = str(leaf.value.dtype).removeprefix("torch.")
        made: dict[str, Any] = {"shape": shape, "dtype": dtype}
        return made | _range(example)

    def _dim(self, size: Any, axis: int, name: str, example_size: int | None) -> int | str:
        """A fixed size, or the name of a dynamic dim, whose size is then in `dims` or `batch`."""
        # a dynamic size is a SymInt of a sympy expression: s31 for a Dim, 2*s31 for a derived one
        expression = getattr(getattr(size, "node", None), "expr", None)
        if expression is None or expression.is_number:
            return int(size)
        symbol = str(expression)
        if not expression.is_Symbol:
            self.notes.append(
                f"dim {axis} of {name} depends on another dim ({symbol}); its size is fixed here"
            )
            return int(example_size or _DEFAULT_SIZE)
        if symbol not in self._symbols:
            self._name_symbol(symbol, axis, name, int(example_size or self._smallest(expression)))
        return self._symbols[symbol]

    def _name_symbol(self, symbol: str, axis: int, name: str, size: int) -> None:
        # a program has no batch; the first dynamic dim 0 is taken for it
        if axis == 0 and "batch" not in self._symbols.values():
            self._symbols[symbol], self.batch = "batch", size
        else:
            self._symbols[symbol] = f"{name}_dim{axis}"
            self.dims[self._symbols[symbol]] = size

    def _smallest(self, expression: Any) -> int:
        bounds = self.program.range_constraints.get(expression)
        lower = int(bounds.lower) if bounds is not None else 0
        upper = (
            int(bounds.upper) if bounds is not None and bounds.upper.is_finite else _DEFAULT_SIZE
        )
        return max(lower, min(_DEFAULT_SIZE, upper))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Leaf:
    """One leaf of a call: the placeholder's fake value, and the example input in the file."""

    value: Any
    example: Any


def _range(example: Any) -> dict[str, Any]:
    # the range of an integer example: larger values may be out of range as indices
    if example is None or example.is_floating_point() or example.is_complex():
        return {}
    if str(example.dtype) == "torch.bool" or not example.numel():
        return {}
    low = min(0, int(example.min()))
    return {"low": low, "high": max(low + 2, int(example.max()) + 1)}
