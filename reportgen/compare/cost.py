"""Which blocks a change of parameters and MACs comes from."""

from __future__ import annotations

from collections.abc import Sequence

from reportgen.compare.result import CostStep, Edit


def cost_steps(edits: Sequence[Edit], parameters: int, macs: int | None) -> tuple[CostStep, ...]:
    """One step for each edit that changes a cost, the largest first; together the whole change.

    Args:
        edits: of the modules.
        parameters: difference of the whole model.
        macs: difference of the whole model; None if unknown.
    """
    steps = [
        CostStep(
            path=(edit.old if edit.new is None else edit.new) or "",
            reason=edit.kind,
            parameters=edit.parameters,
            macs=edit.macs,
        )
        for edit in edits
        if edit.parameters or edit.macs
    ]
    rest = CostStep(
        path="",
        reason="elsewhere",
        parameters=parameters - sum(step.parameters for step in steps),
        macs=None if macs is None else macs - sum(step.macs or 0 for step in steps),
    )
    if rest.parameters or rest.macs:
        steps.append(rest)
    # `sorted` is stable: equal steps stay in the order of the model
    return tuple(sorted(steps, key=lambda s: (-abs(s.macs or 0), -abs(s.parameters))))
