"""Which dynamic dimensions really are: a file must run at other sizes, and rightly."""

from __future__ import annotations

from collections.abc import Iterable

from reportgen.sections.onnx.result import ParityCase


def proven_dims(dynamic: tuple[str, ...], cases: Iterable[ParityCase]) -> tuple[str, ...]:
    """Those of `dynamic` at which the file agreed with PyTorch at more than one size."""
    passed = [case for case in cases if case.passed]
    batches = {case.batch for case in passed}
    others = {dim for case in passed for dim in case.dims}
    return tuple(dim for dim in dynamic if (len(batches) > 1 if dim == "batch" else dim in others))


def dims_fixed_inside(
    dynamic: tuple[str, ...], cases: Iterable[ParityCase]
) -> tuple[tuple[str, ParityCase], ...]:
    """Dims of which the file takes other sizes, and fails at them; each with a case that fails.

    A file that fails at the usual sizes too is not counted: its fault lies elsewhere. Nor is one
    that runs at a batch size and gives other numbers there: a size in a node stops the run.
    """
    usual, other = list[ParityCase](), list[ParityCase]()
    for case in cases:
        (other if case.dims else usual).append(case)
    found = [
        (dim, case)
        for case in other
        if not case.passed and any(one.passed and one.batch == case.batch for one in usual)
        for dim in case.dims
    ]
    if "batch" in dynamic:
        good = {case.batch for case in usual if case.passed}
        stopped = [case for case in usual if not case.passed and not case.outputs]
        found += [("batch", case) for case in stopped if good - {case.batch}]
    return tuple(dict(reversed(found)).items())
