"""Operators that are given functions: branches, loops, attention with a score function."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reportgen.sections.layers.memory_traffic import tensors_in
from reportgen.sections.layers.operators import name_of

if TYPE_CHECKING:
    from reportgen.sections.layers.op_counter import Meter


def run_higher_order(meter: Meter, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run `func` and let `meter` count what its functions do."""
    if not meter.has_formula(func):
        if func is torch.ops.higher_order.cond:
            return _run_both_branches(meter, *args)
        if any(map(_is_function, args)):
            return _run_loop(meter, func, args, kwargs)
    result = func(*args, **kwargs)
    if getattr(func, "__name__", "") == "flex_attention":
        _note_captured(meter, args[0], args[3])
    meter.write_down(func, func, args, kwargs, result)
    return result


def _run_both_branches(
    meter: Meter, _: Any, yes: Callable[..., Any], no: Callable[..., Any], operands: Any
) -> Any:
    """`torch.cond` counts as its dearer branch, as in torch's counter."""
    meters, results = [], []
    for branch in (yes, no):
        alone = meter.sibling()
        with alone:
            results.append(branch(*operands))
        meters.append(alone)
    meter.absorb(max(meters, key=lambda each: (each.flops.total(), each.bytes)))
    meter.used.update(*(each.used for each in meters))
    return results[0]


def _run_loop(meter: Meter, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The body of `scan` or `map` counts once for every item, however often it ran here."""
    body, calls = meter.sibling(), 0

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*inputs: Any) -> Any:
            nonlocal calls
            calls += function is args[0]
            with body:
                return function(*inputs)

        return run

    meter.loops.add(name_of(func))
    result = func(*(watched(arg) if _is_function(arg) else arg for arg in args), **kwargs)
    items = _items_of_loop(func, args)
    if items is None or not calls or items % calls:
        meter.used |= body.used
        meter.write_down(func, func, args, kwargs, result)
    else:
        meter.note_used([*tensors_in(args), *tensors_in(kwargs)])
        meter.absorb(body, times=items // calls)
    return result


def _note_captured(meter: Meter, query: Tensor, score: Callable[..., Any]) -> None:
    """Parameters in a score function's closure: on shapes alone nobody calls it."""
    alone = meter.sibling()
    places = [torch.zeros(1, dtype=torch.int32, device=query.device) for _ in range(4)]
    with suppress(Exception), alone:  # the user's function, which says so where it counts
        torch.vmap(score)(query.new_zeros(1), *places)
    meter.used |= alone.used


def _is_function(value: object) -> bool:
    """Whether `value` is the body of a loop or a branch."""
    return callable(value) and not isinstance(value, Tensor)


def _items_of_loop(func: Any, args: tuple[Any, ...]) -> int | None:
    """How often a loop runs its body, where the shapes tell."""
    place = {"scan": 2, "map_impl": 1}.get(getattr(func, "__name__", ""))
    over = list(tensors_in(args[place])) if place is not None else []
    return int(over[0].shape[0]) if over else None
