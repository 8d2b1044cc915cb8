"""One figure counted in ways that share no code: whether the counts agree, and what differs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from reportgen.metrics import FigureCount
from reportgen.report import Count, CrossCheck

_MOST_NAMES = 3  # of parameters, in a note


def cross_check(counts: Iterable[FigureCount]) -> tuple[CrossCheck, ...]:
    """A check for each figure; its first count is the one that the report states.

    Figures that were counted in one way only are left out: there is nothing to compare.
    """
    by_figure: dict[str, list[FigureCount]] = {}
    for count in counts:
        by_figure.setdefault(count.figure, []).append(count)
    return tuple(
        _check(figure, ways[0], ways[1:]) for figure, ways in by_figure.items() if len(ways) > 1
    )


def _check(figure: str, stated: FigureCount, others: Sequence[FigureCount]) -> CrossCheck:
    counts, notes = [_count(stated)], list[str]()
    agree: bool | None = True
    for other in others:
        if other.batch is not None and other.batch != stated.batch:
            notes.append(f"{other.by}: fixed at batch {other.batch}, not compared")
            continue
        counts.append(_count(other))
        notes += _notes(stated, other)
        difference = other.value + other.accounted - stated.value
        if difference and difference != -_computed_beforehand(stated, other):
            # The lower count is a bound if it has operators without a formula: a larger count does
            # not contradict it.
            lower = other if other.value < stated.value else stated
            agree = None if agree and lower.uncounted else False
    return CrossCheck(figure=figure, counts=tuple(counts), agree=agree, note="; ".join(notes))


def _count(count: FigureCount) -> Count:
    return Count(by=count.by, value=count.value, lower_bound=bool(count.uncounted))


def _notes(stated: FigureCount, other: FigureCount) -> Iterator[str]:
    if difference := other.value + other.accounted - stated.value:
        word = "more" if difference > 0 else "fewer"
        if difference == -_computed_beforehand(stated, other):
            yield f"{other.by}: {-difference:,} fewer, in weights computed beforehand"
            yield from other.notes
            return
        place = _where_counts_differ(stated, other, difference)
        where = f"all of it in {place}" if place else "unexplained"
        yield f"{other.by}: {abs(difference):,} {word}, {where}"
    yield from other.notes
    yield from _absent(other.absent, frozenset(stated.unused))


def _computed_beforehand(stated: FigureCount, other: FigureCount) -> int:
    """What `other` lacks in parametrizations, whose weights an exporter stores as constants."""
    tops = [path for path in stated.by_module if path.split(".")[-1] == "parametrizations"]
    return sum(stated.by_module[path] - _inside(other, path) for path in tops)


def _absent(names: Sequence[str], unused: frozenset[str]) -> Iterator[str]:
    folded = [name for name in names if name not in unused]
    if number := len(names) - len(folded):
        yield f"{number:,} parameter tensors are never used by the forward pass"
    if folded:
        more = f" and {len(folded) - _MOST_NAMES:,} more" if len(folded) > _MOST_NAMES else ""
        yield f"the exporter folded {', '.join(folded[:_MOST_NAMES])}{more} into constants"


def _where_counts_differ(stated: FigureCount, other: FigureCount, difference: int) -> str:
    """Path of the deepest module that holds the whole difference; "" for none."""
    # Down from the root while one child explains all of it; a difference spread over several
    # children stays at their parent.
    place, deeper = "", True
    while deeper:
        deeper = False
        for path, value in stated.by_module.items():
            if _is_child(path, place) and _inside(other, path) - value == difference:
                place, deeper = path, True
                break
    return place


def _is_child(path: str, parent: str) -> bool:
    start = f"{parent}." if parent else ""
    return path.startswith(start) and bool(path[len(start) :]) and "." not in path[len(start) :]


def _inside(count: FigureCount, path: str) -> int:
    return sum(
        value
        for module, value in count.by_module.items()
        if module == path or module.startswith(f"{path}.")
    )
