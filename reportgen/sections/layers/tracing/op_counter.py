"""Counts the operators of one pass: cost, calling module, and the parameters that they read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator
from torch.utils._python_dispatch import TorchDispatchMode

from reportgen.sections.layers.cost.flops import FlopFormulas
from reportgen.sections.layers.cost.memory_traffic import moved_bytes
from reportgen.sections.layers.cost.operators import (
    METADATA_QUERIES,
    SELECTORS,
    SHAPE_QUERIES,
    dtype_of,
    is_decomposable,
    is_view_or_query,
    is_wrapper,
    name_of,
)
from reportgen.sections.layers.cost.zero_cost_ops import counts_as_zero
from reportgen.sections.layers.result import Shape, Uncounted
from reportgen.tracing.tensors import parts_of, shape_of, storage_of, tensor_bytes, tensors_in

_aten = torch.ops.aten
# torch lets cuDNN compute these in TF32 by default, unlike matrix products
_CONVOLUTIONS = (_aten.convolution, _aten._convolution, _aten.convolution_backward)

Place = Callable[[list[str]], str]
"""Maps the names of the parameters that an operator reads to the path of its module."""


class OpWork(NamedTuple):
    """The cost of one operator call, as a roofline needs it."""

    path: str  # of its module
    dtype: str  # in which it computes: "float32"; "tf32" for what may, if the GPU can
    flops: int
    bytes: int


def total_bytes(work: Mapping[OpWork, int]) -> int:
    """Bytes read and written by operators that ran so often."""
    return sum(each.bytes * times for each, times in work.items())


class TopKChoice(NamedTuple):
    """A top-k picked `picked` of `candidates` in the module at `path`."""

    path: str
    candidates: int
    picked: int
    when: int = 0  # how many operators ran before


class FirstRead(NamedTuple):
    """Shapes of the tensors that an operator read and wrote, without parameters."""

    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]


class OpCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operator that runs inside it.

    Operators without a formula are decomposed if possible, as in torch.utils.flop_counter, and
    otherwise counted by the convention in `zero_cost_ops`.

    Args:
        parameters: the model's, by name.
        place: maps an operator to its module.
    """

    supports_higher_order_operators = True

    def __init__(self, parameters: Mapping[str, Tensor], place: Place) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[str] = Counter()  # by module path
        self.work: Counter[OpWork] = Counter()  # calls of each, without views
        self.used: set[str] = set()  # names of the parameters that an operator read
        self.first_read: dict[str, int] = {}  # by parameter: how many operators ran before
        self.copies: dict[int, Tensor] = {}  # of parameters, by storage
        self.seen: dict[str, FirstRead] = {}  # the first operator that read a module's parameters
        self.complex_products = 0
        self.conventional: set[str] = set()  # operators counted by the steps of an algorithm
        self.uncounted_in: set[str] = set()  # paths of modules that ran operators without a formula
        self._uncounted: dict[str, Uncounted] = {}
        self.loops: set[str] = set()  # higher-order operators, whose bodies autograd does not see
        self._ran = 0
        self._choices: list[tuple[TopKChoice, list[Tensor]]] = []
        self._used_choices: set[TopKChoice] = set()  # whose results another operator read
        self._formulas = FlopFormulas()
        self._place = place
        self._parameters = parameters
        self._names: dict[int, list[str]] = {}
        self._alive: list[Tensor] = []  # the address of a freed storage is reused
        for name, parameter in parameters.items():
            for part in parts_of(parameter):
                self._alive.append(part)
                self._names.setdefault(storage_of(part), []).append(name)

    @property
    def bytes(self) -> int:
        """Read and written by all operators."""
        return total_bytes(self.work)

    @property
    def choices(self) -> frozenset[TopKChoice]:
        """The choices whose results another operator read; a classifier only returns its top-k."""
        return frozenset(self._used_choices)

    @property
    def uncounted(self) -> tuple[Uncounted, ...]:
        """Operators without a formula, those that move the most bytes first."""
        return tuple(sorted(self._uncounted.values(), key=lambda u: (-u.bytes, u.operator)))

    def note_used(self, tensors: list[Tensor]) -> list[str]:
        """Mark the parameters behind `tensors` as used; returns their names."""
        parts = (part for tensor in tensors for part in parts_of(tensor))
        names = [name for part in parts for name in self._names.get(storage_of(part), ())]
        for name in names:
            self.first_read.setdefault(name, self._ran)
        self.used.update(names)
        return names

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Else torch wraps `__torch_dispatch__` so that its first call imports dynamo."""
        return False  # compiled parts run eagerly here anyway

    def note(self, read: list[Tensor], written: list[Tensor], flops: int) -> None:
        """Count an operator that did not run, but whose cost is known: a fused layer."""
        path = self._place(self.note_used(read))
        moved = sum(map(tensor_bytes, [*read, *written]))
        self.work[OpWork(path, dtype_of(read, written), flops, moved)] += 1
        self.flops[path] += flops

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run one operator and count it."""
        kwargs = kwargs or {}
        if isinstance(func, HigherOrderOperator):
            return run_higher_order(self, func, args, kwargs)
        if func in SHAPE_QUERIES or any(map(is_wrapper, types)):
            return NotImplemented  # a wrapper unwraps and calls operators on its parts
        packet = func._overloadpacket
        if not self.has_formula(packet) and is_decomposable(func, args):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self.write_down(func, packet, args, kwargs, result)
        return result

    def sibling(self) -> OpCounter:
        """An empty counter for the same parameters, for a part that is counted separately."""
        return OpCounter(self._parameters, self._place)

    def absorb(self, other: OpCounter, times: int = 1) -> None:
        """Add what `other` counted, as if it had run `times` times."""
        self.flops.update({path: flops * times for path, flops in other.flops.items()})
        self.work.update({work: count * times for work, count in other.work.items()})
        self.used |= other.used
        self._used_choices |= {c._replace(when=self._ran) for c in other._used_choices}
        for name in other.first_read:
            self.first_read.setdefault(name, self._ran + 1)
        self.copies.update(other.copies)
        self.loops |= other.loops
        self.seen = {**other.seen, **self.seen}
        self.complex_products += other.complex_products
        self.conventional |= other.conventional
        self.uncounted_in |= other.uncounted_in
        for item in other.uncounted:
            self._add_uncounted(replace(item, calls=item.calls * times, bytes=item.bytes * times))

    def has_formula(self, packet: Any) -> bool:
        """Whether there is a FLOP formula for an operator packet or a higher-order operator."""
        return self._formulas.find(packet) is not None

    def write_down(
        self, func: Any, formula: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any
    ) -> None:
        """Count a call that has run; `formula` is the key of its FLOP formula."""
        if is_view_or_query(func) or formula in METADATA_QUERIES:
            return  # moves nothing; reading the view counts as reading its storage
        read = [*tensors_in(args), *tensors_in(kwargs)]
        written = list(tensors_in(result))
        self._ran += 1
        used = self.note_used(read)
        path = self._place(used)
        if used and formula is _aten.clone:
            self.copies[storage_of(written[0])] = written[0]
        self._note_used_choices(read)
        if used and path not in self.seen:
            self.seen[path] = self._shapes(read, written)
        moved = moved_bytes(func, read, written)
        flops = self._formulas.flops(formula, args, kwargs, result)
        if flops or moved:
            dtype = dtype_of(read, written)
            if dtype == "float32" and formula in _CONVOLUTIONS:
                dtype = "tf32"
            self.work[OpWork(path, dtype, flops or 0, moved)] += 1
        if flops is not None:
            self.flops[path] += flops
            if self._formulas.is_conventional(formula):
                self.conventional.add(name_of(func))
            else:
                self.complex_products += any(tensor.is_complex() for tensor in read)
        elif not counts_as_zero(func, read, written):
            item = Uncounted(operator=name_of(func), calls=1, bytes=moved, where=path)
            self._add_uncounted(item)
            self.uncounted_in.add(path)
        elif formula in SELECTORS:
            self._note_choice(path, args, kwargs, formula, written)

    def _note_used_choices(self, read: list[Tensor]) -> None:
        storages = set(map(storage_of, read)) if self._choices else set()
        for choice, results in self._choices:
            if storages & set(map(storage_of, results)):
                self._used_choices.add(choice)

    def _shapes(self, read: list[Tensor], written: list[Tensor]) -> FirstRead:
        inputs = [t for t in read if storage_of(t) not in self._names]
        return FirstRead(tuple(map(shape_of, inputs)), tuple(map(shape_of, written)))

    def _note_choice(
        self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any], packet: Any,
        written: list[Tensor],
    ) -> None:  # fmt: skip
        scores, *rest = args
        picked = rest.pop(0) if packet is _aten.topk and rest else kwargs.get("k", 1)
        dim = rest[0] if rest else kwargs.get("dim", -1 if packet is _aten.topk else None)
        # routers score the experts along the last dim
        if scores.ndim and dim in (-1, scores.ndim - 1) and scores.is_floating_point():
            choice = TopKChoice(path, int(scores.shape[-1]), int(picked), self._ran)
            self._choices.append((choice, written))

    def _add_uncounted(self, item: Uncounted) -> None:
        seen = self._uncounted.get(item.operator)
        self._uncounted[item.operator] = Uncounted(
            operator=item.operator,
            calls=item.calls + (seen.calls if seen else 0),
            bytes=item.bytes + (seen.bytes if seen else 0),
            where=seen.where if seen else item.where,
        )


def run_higher_order(
    counter: OpCounter, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Run `func`, whose arguments include functions, and count what these do."""
    if not counter.has_formula(func):
        if func is torch.ops.higher_order.cond:
            return _run_both_branches(counter, *args)
        if any(map(_is_function, args)):
            return _run_loop(counter, func, args, kwargs)
    result = func(*args, **kwargs)
    if getattr(func, "__name__", "") == "flex_attention":
        _note_captured(counter, args[0], args[3])
    counter.write_down(func, func, args, kwargs, result)
    return result


def _run_both_branches(
    counter: OpCounter, _: Any, yes: Callable[..., Any], no: Callable[..., Any], operands: Any
) -> Any:
    """`torch.cond` counts as its more expensive branch, as in torch.utils.flop_counter."""
    counters, results = [], []
    for branch in (yes, no):
        alone = counter.sibling()
        with alone:
            results.append(branch(*operands))
        counters.append(alone)
    counter.absorb(max(counters, key=lambda each: (each.flops.total(), each.bytes)))
    counter.used.update(*(each.used for each in counters))  # either branch may run
    return results[0]


def _run_loop(counter: OpCounter, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Count the body of `scan` or `map` once per item; a fake pass may run it only once."""
    body, calls = counter.sibling(), 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            nonlocal calls
            calls += function is args[0]
            with body:
                return function(*inputs)

        return run

    counter.loops.add(name_of(func))
    result = func(*(counted(arg) if _is_function(arg) else arg for arg in args), **kwargs)
    items = _items_of_loop(func, args)
    if items is None or not calls or items % calls:  # a `while_loop`: the length depends on values
        counter.used |= body.used
        counter.write_down(func, func, args, kwargs, result)
    else:
        counter.note_used([*tensors_in(args), *tensors_in(kwargs)])
        counter.absorb(body, times=items // calls)
    return result


def _note_captured(counter: OpCounter, query: Tensor, score: Callable[..., Any]) -> None:
    """Find parameters in the closure of a score function, which a fake pass does not call."""
    alone = counter.sibling()
    # batch, head, query and key index
    indices = [torch.zeros(1, dtype=torch.int32, device=query.device) for _ in range(4)]
    with suppress(Exception), alone:  # from the user's function; the real pass would raise it too
        torch.vmap(score)(query.new_zeros(1), *indices)
    counter.used |= alone.used


def _is_function(value: object) -> bool:
    return callable(value) and not isinstance(value, Tensor)


def _items_of_loop(func: Any, args: tuple[Any, ...]) -> int | None:
    """How often a loop runs its body; None if that is not in the shapes."""
    position = {"scan": 2, "map_impl": 1}.get(getattr(func, "__name__", ""))
    over = list(tensors_in(args[position])) if position is not None else []
    return int(over[0].shape[0]) if over else None
