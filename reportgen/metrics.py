"""A figure that others may use: budgets, tables, comparisons and `publish` work on these."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure of one model.

    Attributes:
        key: unique in the model, with its section first: `training.val/acc.best`.
        label: what a table calls it.
        value: None where it is unknown.
        unit: "" for a bare number.
        direction: which way is better.
        exact: whether it is a count or read from a file, as opposed to measured with a spread.
    """

    key: str
    label: str
    value: float | None
    unit: str = ""
    direction: Literal["lower", "higher", "none"] = "none"
    exact: bool = True
