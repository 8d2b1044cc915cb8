"""Figures that others may use: budgets, tables, comparisons, cross-checks and `publish`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from reportgen.units import format_in_unit, format_integer

_ROUNDED = 10_000  # counts from here on are shown rounded as well


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """One figure of one model.

    Attributes:
        key: unique in the model, with its section first: `training.val/acc.best`.
        label: the column or row heading.
        value: None if it is unknown.
        unit: "" for a count, "bytes", "ms", or a word such as "batch".
        direction: which way is better.
        exact: whether it is a count or read from a file, as opposed to measured with a spread.
        text: replaces the formatted value where a number is not enough: "vacuous", "≥ 4,096".
        lower_bound: `value` is the part that could be counted; the whole is at least that.
        quality: how `text` is to be read; "" for neither good nor bad.
        table: heading of the table on the first page that shows it; "" to leave it out.
        note: the setting that it is for: "fp32, adamw".
        definition: what is counted and what is left out, one sentence.
    """

    key: str
    label: str
    value: int | float | None  # JSON keeps the difference
    unit: str = ""
    direction: Literal["lower", "higher", "none"] = "none"
    exact: bool = True
    text: str = ""
    lower_bound: bool = False
    quality: Literal["", "good", "doubt", "bad"] = ""
    table: str = ""
    note: str = ""
    definition: str = ""


def format_metric(metric: Metric) -> str:
    """A metric as a table shows it: `25.6 M`, `≥ 25.6 M` for a lower bound."""
    return metric.text or _bounded(format_in_unit(metric.value, metric.unit), metric)


def metric_label(metric: Metric) -> str:
    """Its label, for a list of several tables: `Safe training batch, T4` where a table says so."""
    return metric.label if metric.table in ("", COMPARISON) else f"{metric.table}, {metric.label}"


def format_in_full(metric: Metric) -> str:
    """All digits of a count that `format_metric` rounds; "" if there are no more of them."""
    value = metric.value
    if not metric.exact or metric.unit or value is None or value < _ROUNDED or value % 1:
        return ""
    return _bounded(format_integer(int(value)), metric)


def _bounded(text: str, metric: Metric) -> str:
    return f"≥ {text}" if metric.lower_bound and metric.value is not None else text


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How a section makes some of its metrics; `Evidence` adds what a section does not know.

    Attributes:
        keys: of the metrics.
        text: the formula or procedure, a sentence without its period.
        tools: the packages that apply it, as `pip` names them.
        batch: samples in a call; None if no call is made, or calls of several sizes.
        inputs: the files that are read, "" for none; None for the model's example inputs.
    """

    keys: tuple[str, ...]
    text: str
    tools: tuple[str, ...]
    batch: int | None = None
    inputs: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evidence:
    """How some metrics of one model were made, and how to make them again.

    Attributes:
        keys: of the metrics.
        method: the formula or procedure, a sentence without its period.
        tools: with their versions: "torch 2.15.0".
        inputs: "x=batch,3,224,224:float32" as in a manifest, or the files read; "" for none.
        batch: samples in a call; None if no call is made, or calls of several sizes.
        seed: of random inputs and weights; None if the figures depend on neither.
        command: makes the figures again in a report of their own, in the manifest's folder.
    """

    keys: tuple[str, ...]
    method: str
    tools: tuple[str, ...]
    inputs: str
    batch: int | None
    seed: int | None
    command: str


COMPARISON = "Comparison"
"""Heading of the first page's main table; its metrics also head the page of each model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FigureCount:
    """One way of counting a figure, for checks against ways that share no code with it.

    Attributes:
        figure: `parameters` or `macs`.
        by: how it was counted.
        value: the count.
        batch: samples that a count of operations is for; None for counts that do not depend on it.
        accounted: what the count leaves out for reasons that `notes` give.
        notes: what it leaves out and why, a clause each.
        uncounted: operators without a formula -> why; not empty for a lower bound.
        by_module: module path -> the part counted there, to locate a difference.
        absent: names of parameters that this way of counting did not find.
        unused: names of parameters that the forward pass never reads.
    """

    figure: Literal["parameters", "macs"]
    by: str
    value: int
    batch: int | None = None
    accounted: int = 0
    notes: tuple[str, ...] = ()
    uncounted: Mapping[str, str] = field(default_factory=dict)
    by_module: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
