"""How a run went, in one sentence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from reportgen.charts.axes import format_position, format_value
from reportgen.sections.training.curve import Curve, RunCurves
from reportgen.sections.training.diagnosis.trend import Trend, trend_of
from reportgen.sections.training.metric_names import split_words
from reportgen.sections.training.result import Diagnosis, Run, State
from reportgen.sections.training.statistics import median

SENTENCE_DIGITS = 3
"""Significant digits of values in sentences."""
_FEWEST_POINTS = 5
_FEWEST_TO_JUDGE = 20  # below, no rule says that a curve only gets worse
_LONGEST_NAME = 60
# Warnings that a healthy run may have; the sentence must not hide them.
_CAUTIONS = {
    "non-finite-values": "non-finite values",
    "repeated-or-lasting-spikes": "spikes",
    "learning-rate-jump": "a jump of the learning rate",
    "jump-at-resume": "a jump at a resume",
    "slowdown": "a slowdown",
    "vanishing-gradient": "a vanishing gradient",
    "exploding-gradient": "an exploding gradient",
    "unchanged-weight": "unchanged weights",
    "out-of-range": "values out of range",
}


def run_state(run: RunCurves, diagnoses: Sequence[Diagnosis]) -> tuple[State, str]:
    """The state of `run`, and a sentence with the steps and values behind it.

    The most severe diagnosis decides, in this order: non-finite, diverged, not learning,
    overfitting. A run with none of them is healthy if a curve that should improve has at least
    five points; otherwise there is no verdict.
    """
    for kind, state in _STATES.items():
        found = [each for each in diagnoses if each.kind == kind]
        if found:
            first = _of_main(run, found)
            more = f", and {count_of(len(found) - 1, 'more curve')}" if len(found) > 1 else ""
            return state, f"{_sentence(run, first)}{more}"
    # From here on nothing severe was found; whether there was enough to judge is the question.
    main = main_metric(run)
    if main is None:
        return "no verdict", _without_verdict(run)
    if any(each.kind == "not-learning-in-warm-up" for each in diagnoses):
        return "no verdict", f"no verdict: still in warm-up, {_best(run, main)}"
    if len(main) < _FEWEST_TO_JUDGE and int(np.argmin(main.costs)) == 0:
        return "no verdict", f"no verdict on {count_of(len(main), 'point')}: {_best(run, main)}"
    cautions = [words for kind, words in _CAUTIONS.items() if _has(diagnoses, kind)]
    healthy = f"healthy except for {_listed(cautions)}" if cautions else "healthy"
    return "healthy", f"{healthy}: {_best(run, main)}"


def newest_run(runs: Sequence[Run]) -> Run:
    """The run that headline and metrics are about: the newest one with a verdict.

    A run that has only begun replaces no result; if no run has a verdict, it is the newest of all.
    The newest run is the one with the latest wall time; of runs without wall times, the last one.
    Earlier attempts are left out.
    """
    last_attempts = [run for run in runs if run.attempt == run.attempts]
    return max(
        enumerate(last_attempts),
        key=lambda pair: (pair[1].state != "no verdict", _last_time(pair[1]), pair[0]),
    )[1]


def headline(runs: Sequence[Run]) -> str:
    """The summary of the newest run; with several runs, after the number of runs in each state."""
    last_attempts = [run for run in runs if run.attempt == run.attempts]
    if not last_attempts:
        return "no run"
    newest = newest_run(runs)
    if len(last_attempts) == 1:
        return newest.summary
    states = Counter(run.state for run in last_attempts)
    counts = ", ".join(
        f"{states[state]:,} {'without a verdict' if state == 'no verdict' else state}"
        for state in (*_STATES.values(), "healthy", "no verdict")
        if states[state]
    )
    name = newest.name
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 1]}…"
    return f"{len(last_attempts):,} runs: {counts}; newest run '{name}': {newest.summary}"


_STATES: dict[str, State] = {
    "ends-in-non-finite": "non-finite",
    "diverged": "diverged",
    "not-learning": "not learning",
    "overfitting": "overfitting",
}


def main_metric(run: RunCurves) -> Trend | None:
    """The main metric of `run`: a validation score, else a validation loss, else a train metric.

    A score whose tag names neither train nor validation, such as `metrics/mAP50(B)`, counts as a
    validation score. Of several candidates the one with the fewest words in its tag is returned.
    None if no curve that should improve has five finite points.
    """
    trends = [
        (curve, trend_of(run.name, curve)) for curve in run.curves.values() if curve.name.trend
    ]
    usable = [(curve, trend) for curve, trend in trends if len(trend) >= _FEWEST_POINTS]
    return min(usable, key=lambda each: _rank(each[0]), default=(None, None))[1]


def _rank(curve: Curve) -> tuple[int, int, str]:
    score = curve.name.direction == "higher"
    validates = curve.name.role == "validation" or (score and curve.name.role == "none")
    # Of validation curves the score first, as checkpoints are selected by it; of train curves the
    # loss, which is what the optimizer lowers.
    order = {(True, True): 0, (True, False): 1, (False, True): 3, (False, False): 2}
    return order[validates, score], len(split_words(curve.tag)), curve.tag


def _of_main(run: RunCurves, found: Sequence[Diagnosis]) -> Diagnosis:
    # The same order as `main_metric`, so that both sentences are about one curve.
    return min(found, key=lambda each: _rank(run.curves[each.tag]))


def _sentence(run: RunCurves, found: Diagnosis) -> str:
    e, unit = found.evidence, step_unit(run)

    def step(name: str) -> str:
        return f"{unit} {format_position(float(e[name]))}"

    def value(name: str) -> str:
        return format_value(float(e[name]), SENTENCE_DIGITS)

    if found.kind == "ends-in-non-finite":
        return f"non-finite since {step('since_step')}: {found.tag} is NaN or infinite to the end"
    if found.kind == "diverged":
        side = "above" if float(e["last"]) > float(e["best"]) else "below"
        return (
            f"diverged at {step('step')}: {found.tag} is {value('last')}, {side} its best "
            f"{value('best')} at {step('best_step')}"
        )
    if found.kind == "not-learning":
        return (
            f"not learning: {found.tag} is {value('first')} at the start and {value('last')} "
            f"at {step('last_step')}"
        )
    return (
        f"overfitting since {step('step')}: {found.tag} went from {value('best')} to "
        f"{value('last')} while {e['train_tag']} improved to {value('train_last')}"
    )


def _best(run: RunCurves, main: Trend) -> str:
    at = int(np.argmin(main.costs))
    value = format_value(float(main.values[at]), SENTENCE_DIGITS)
    end = float(max(run.planned_steps or 0, main.steps[-1]))
    return (
        f"best {main.tag} {value} at {step_unit(run)} "
        f"{format_position(float(main.steps[at]))} of {format_position(end)}, "
        f"{_tendency(main)}"
    )


# Differences of values such as 1e300 overflow; comparisons with infinity are still right.
@np.errstate(over="ignore", invalid="ignore")
def _tendency(main: Trend) -> str:
    """Whether the last fifth of the points improved, beyond the noise, on the fifth before."""
    part = max(len(main) // 5, 2)
    if len(main) < 2 * part:
        return f"{count_of(len(main), 'point')} so far"
    before, after = median(main.costs[-2 * part : -part]), median(main.costs[-part:])
    slack = max(2 * main.error(part), 0.01 * main.progress)
    if before - after > slack:
        return "still improving"
    return "flat at the end" if after - before <= slack else "worse at the end"


def step_unit(run: RunCurves) -> str:
    """`epoch` where the log counts its steps in epochs, else `step`."""
    # Within 1: epochs are counted from 0 or from 1.
    epochs = [c for c in run.curves.values() if split_words(c.tag)[-1:] in (["epoch"], ["epochs"])]
    counts = any(
        len(c.values) > 1 and np.abs(c.values - c.steps).max(initial=0) <= 1
        for c in epochs
        if c.name.kind == "other"
    )
    return "epoch" if counts else "step"


def _without_verdict(run: RunCurves) -> str:
    points = sum(len(curve.values) for curve in run.curves.values())
    if not points:
        return "no verdict: the run has no scalars"
    if any(curve.name.trend for curve in run.curves.values()):
        return f"no verdict: fewer than {_FEWEST_POINTS} values in every metric"
    none = "none" if len(run.curves) > 1 else "not"
    return f"no verdict: {count_of(len(run.curves), 'curve')}, {none} expected to fall or rise"


def _has(diagnoses: Sequence[Diagnosis], kind: str) -> bool:
    return any(each.kind == kind for each in diagnoses)


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _last_time(run: Run) -> float:
    """The latest wall time of any curve; minus infinity where none is known."""
    return max((s.times[-1] for s in run.scalars.values() if s.times), default=-np.inf)


def count_of(count: int, one: str, many: str = "") -> str:
    """`1 point`, `1,200 points`."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
