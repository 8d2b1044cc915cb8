"""Every rule of the training section: runs that break it and runs that must not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.training_curves import make_curve, make_run
from reportgen.findings import Finding, Severity
from reportgen.sections.training.curve import Floats, Resume, RunCurves
from reportgen.sections.training.diagnosis import diagnose
from reportgen.sections.training.headline import (
    headline,
    main_metric,
    newest_run,
    run_state,
    step_unit,
)
from reportgen.sections.training.metrics import metrics_of
from reportgen.sections.training.result import DamagedStretch, Diagnosis, Run, Training
from reportgen.sections.training.rules import RULES
from reportgen.sections.training.rules.logs import repeated_steps
from reportgen.sections.training.scalars import as_scalar, summarize
from reportgen.training_logs.log_run import LoggedHistogram

RNG = np.random.default_rng
T = np.arange(2_000.0)
RESUME_AT_100 = [Resume(step=100, last_step=150, superseded=51)]


def train(values: Any, **fields: Any) -> RunCurves:
    """A run of one train loss, with a validation tag so that none is missing."""
    return make_run(make_curve("train/loss", values, **fields), make_curve("val/loss", [1.0]))


def noisy(values: Floats, share: float = 0.05, seed: int = 0) -> Floats:
    return values * (1 + share * RNG(seed).standard_normal(len(values)))


def decay(steps: Floats = T, scale: float = 300.0, low: float = 0.3, high: float = 3.0) -> Floats:
    return low + (high - low) * np.exp(-steps / scale)


def replaced(values: Floats, at: int | slice, value: float) -> Floats:
    values = values.copy()
    values[at] = value
    return values


def bump(at: float, width: float) -> Floats:
    return np.exp(-(((T - at) / width) ** 2))


def autocorrelated(count: int, sigma: float, seed: int = 0) -> Floats:
    return np.convolve(RNG(seed).standard_normal(count + 9), np.full(10, 0.1), "valid") * sigma


def pair(validation: Any, train_loss: Any = None, tag: str = "val/loss") -> RunCurves:
    """Train and validation curve with equal steps; the train curve falls all the way."""
    falling = 0.1 + 2 * np.exp(-np.linspace(0, 4, len(validation)))
    return make_run(
        make_curve("train/" + tag.split("/")[1], falling if train_loss is None else train_loss),
        make_curve(tag, validation),
    )


def rates(values: Any, resumes: Sequence[Resume] = ()) -> RunCurves:
    return make_run(make_curve("lr", values, resumes=resumes))


def timed(seconds: Any) -> RunCurves:
    times = 1.7e9 + np.cumsum(np.concatenate([[0.0], seconds]))
    return train(1 + 2 / (1 + np.arange(len(times))), times=times)


def histogram(tag: str, step: float, values: Floats) -> LoggedHistogram:
    counts, edges = np.histogram(values, 20)
    return LoggedHistogram(
        tag=tag,
        step=step,
        time=math.nan,
        lefts=tuple(edges[:-1].tolist()),
        rights=tuple(edges[1:].tolist()),
        counts=tuple(counts.astype(float).tolist()),
        minimum=float(values.min()),
        maximum=float(values.max()),
        total=float(values.sum()),
        number=float(len(values)),
    )


def gradients(scales: Sequence[float], tag: str = "layer.weight.grad", zeros: float = 0.0) -> Any:
    def values(seed: int) -> Floats:
        return RNG(seed).standard_normal(500) * (RNG(seed + 1_000).random(500) >= zeros)

    records = [histogram(tag, i, scale * values(i)) for i, scale in enumerate(scales)]
    return make_run(make_curve("lr", np.linspace(1, 0.5, 30)), **{tag: records})


def weights(moving: bool, rate: float = 0.1, tag: str = "fc.weight") -> RunCurves:
    start = RNG(0).standard_normal(100)
    records = [histogram(tag, i, start + 0.01 * moving * i) for i in range(5)]
    return make_run(make_curve("lr", np.linspace(rate, rate / 2, 10)), **{tag: records})


# A real run (Hugging Face's Trainer, every 401 steps), rounded: aigoncharov/trainer_state_viz,
# MIT license, see tests/training_logs/files/README.md.
TRAINER_EVAL_LOSS = [
    5.742,
    1.114,
    1.132,
    1.353,
    1.555,
    1.615,
    1.854,
    1.614,
    1.917,
    1.949,
    2.012,
    2.152,
    2.262,
    2.319,
    2.344,
    2.35,
    2.516,
    2.587,
    2.177,
    2.939,
    2.667,
    2.607,
    2.67,
    2.603,
    2.868,
    2.631,
    2.396,
    2.6,
    2.55,
    2.4,
    2.749,
]
TRAINER_EVAL_ACCURACY = [
    0.708,
    0.678,
    0.671,
    0.668,
    0.666,
    0.648,
    0.633,
    0.641,
    0.641,
    0.646,
    0.638,
    0.613,
    0.594,
    0.626,
    0.628,
    0.621,
    0.621,
    0.603,
    0.596,
    0.554,
    0.603,
    0.594,
    0.594,
    0.576,
    0.581,
    0.576,
    0.586,
    0.603,
    0.608,
    0.571,
    0.594,
]
TRAINER_LOSS = [
    1.107,
    0.597,
    0.312,
    0.204,
    0.15,
    0.116,
    0.094,
    0.082,
    0.075,
    0.072,
    0.069,
    0.068,
    0.065,
    0.064,
    0.063,
    0.064,
    0.06,
    0.06,
    0.06,
    0.059,
    0.058,
    0.057,
    0.057,
    0.056,
    0.056,
    0.056,
    0.055,
    0.055,
    0.053,
    0.055,
]


def trainer_state() -> RunCurves:
    """The real run: its evaluation loss doubles after the second check."""
    steps = 401.0 * np.arange(31)
    return make_run(
        make_curve("loss", TRAINER_LOSS, steps=steps[1:]),
        make_curve("eval_g0_loss", TRAINER_EVAL_LOSS, steps=steps),
        make_curve("eval_g0_accuracy", TRAINER_EVAL_ACCURACY, steps=steps),
    )


VALLEY = np.concatenate([np.linspace(2.0, 1.0, 30), np.linspace(1.0, 1.4, 70)])
COSINE = 0.5 * (1 + np.cos(np.linspace(0, np.pi, 500))) + 1e-3
STEADY = np.exp(0.1 * RNG(3).standard_normal(300))

BAD: dict[str, tuple[str, RunCurves]] = {
    "NaN from step 900 to the end": (
        "ends-in-non-finite",
        train(replaced(decay(), slice(900, None), math.nan)),
    ),
    "NaN at the end of a GAN's loss": (
        "ends-in-non-finite",
        make_run(make_curve("d_loss", [0.7, 0.6, math.nan])),
    ),
    "three infinite norms at the end": (
        "ends-in-non-finite",
        make_run(make_curve("grad_norm", [1.0] * 50 + [math.inf] * 3)),
    ),
    "one infinity at step 400": ("non-finite-values", train(replaced(decay(), 400, math.inf))),
    "NaN in the first point": ("non-finite-values", train(replaced(decay(), 0, math.nan))),
    "a score that never had a value": (
        "non-finite-values",
        make_run(make_curve("val/AP-boat", [math.nan] * 9)),
    ),
    "infinite at epoch 1": (
        "infinity-at-the-start",
        make_run(make_curve("val/cls_loss", [math.inf, *decay(np.arange(1, 80.0))])),
    ),
    "norms infinite until the loss scale is found": (
        "infinity-at-the-start",
        make_run(make_curve("grad_norm", [math.inf] * 12 + [1.0] * 88)),
    ),
    "rises from 60 % on": (
        "diverged",
        train(noisy(decay() + 0.004 * np.maximum(T - 1_200, 0))),
    ),
    "back to ln(classes)": ("diverged", train(noisy(np.where(T > 900, 2.3, decay())))),
    "accuracy back to chance": (
        "diverged",
        make_run(make_curve("train/acc", np.where(T > 900, 0.1, 0.9 - 0.8 * np.exp(-T / 100)))),
    ),
    "constant 2.30 ± 5 %": ("not-learning", train(noisy(np.full(2_000, 2.3)))),
    "constant after step 1": (
        "not-learning",
        train(np.where(T < 1, 3.0, 2.3) + 0.01 * RNG(0).standard_normal(2_000)),
    ),
    "flat in warm-up": (
        "not-learning-in-warm-up",
        make_run(
            make_curve("train/loss", noisy(np.full(200, 2.3))),
            make_curve("lr", np.linspace(0, 1e-4, 200)),
        ),
    ),
    "flat for 90 %": ("plateau", train(noisy(np.exp(-T / 50) + 0.5, 0.02))),
    "accuracy stuck": (
        "plateau",
        make_run(
            make_curve(
                "val/acc",
                np.minimum(0.1 + T / 400, 0.91) + 0.002 * RNG(0).standard_normal(2_000),
            )
        ),
    ),
    "valley": ("overfitting", pair(noisy(VALLEY, 0.01))),
    "best at the first check": ("overfitting", pair(np.linspace(1.0, 2.0, 30))),
    "real: evaluation loss doubles": ("overfitting", trainer_state()),
    "accuracy 0.92, then 0.88": (
        "past-the-best",
        make_run(
            make_curve("val/acc", [*np.linspace(0.4, 0.92, 12), *np.linspace(0.915, 0.88, 28)])
        ),
    ),
    "loss 0.30, then 0.35": (
        "past-the-best",
        make_run(
            make_curve(
                "val/loss",
                [*np.linspace(0.8, 0.3, 20), *np.linspace(0.3, 0.35, 20)]
                + 0.005 * RNG(1).standard_normal(40),
            )
        ),
    ),
    "three spikes of 10 ×": (
        "repeated-or-lasting-spikes",
        train(noisy(decay()) * np.where(np.isin(T, (700, 1_100, 1_800)), 10, 1)),
    ),
    "5 × and 100 points of recovery": (
        "repeated-or-lasting-spikes",
        train(noisy(decay()) * (1 + 4 * (T >= 1_000) * np.exp(-np.maximum(T - 1_000, 0) / 50))),
    ),
    "one spike of 10 ×": ("recovered-spike", train(replaced(noisy(decay()), 1_200, 6.0))),
    "constant rate": ("constant-learning-rate", rates(np.full(50, 3e-4))),
    "one rise at 50 %": ("learning-rate-jump", rates(np.where(np.arange(200) < 100, 1e-4, 1e-2))),
    "peak again at a resume": (
        "learning-rate-jump",
        rates(
            np.concatenate([COSINE[:400], COSINE[:100]]),
            [Resume(step=400, last_step=400, superseded=0)],
        ),
    ),
    "resumed": ("resumed", train(decay(), resumes=RESUME_AT_100)),
    "loss doubles at the resume": (
        "jump-at-resume",
        train(noisy(np.where(T < 100, 1.0, 2.0), 0.02), resumes=RESUME_AT_100),
    ),
    "rate reset, loss +20 %": (
        "jump-at-resume",
        train(
            noisy(np.where(T < 100, 1, 1 + 0.2 * np.exp(-(T - 100) / 300)), 0.01),
            resumes=RESUME_AT_100,
        ),
    ),
    "no validation": ("missing-validation", make_run(make_curve("loss", decay()))),
    "4,000 of 10,000 steps": (
        "ended-before-plan",
        replace(train(decay(), steps=2 * T + 2), planned_steps=10_000),
    ),
    "half the speed at 70 %": (
        "slowdown",
        timed(STEADY * np.where(np.arange(300) < 210, 1, 2)),
    ),
    "from 100 to 55": ("slowdown", timed(STEADY / np.linspace(1, 0.5, 300))),
    "all counts at zero": ("vanishing-gradient", gradients([0.1] * 10 + [0.0] * 5)),
    "largest value 1e-12": ("vanishing-gradient", gradients([0.1] * 10 + [2e-13] * 5)),
    "norm of zero": (
        "vanishing-gradient",
        make_run(make_curve("grad_norm", [1.0] * 80 + [0.0] * 20)),
    ),
    "histogram explodes": ("exploding-gradient", gradients([0.1] * 12 + [100.0])),
    "norm explodes": (
        "exploding-gradient",
        make_run(
            make_curve("grad_norm", noisy(np.ones(300)) * np.where(np.arange(300) < 250, 1, 30))
        ),
    ),
    "weights stand still": ("unchanged-weight", weights(moving=False)),
}
GOOD: dict[str, tuple[str, RunCurves]] = {
    "empty cells": (
        "ends-in-non-finite",
        make_run(make_curve("val_loss", decay(np.arange(20.0) * 50), steps=np.arange(20) * 50)),
    ),
    "single overflows of mixed precision": (
        "non-finite-values",
        make_run(
            make_curve("grad_norm", replaced(np.ones(4_000), slice(1_000, 4_000, 500), math.inf))
        ),
    ),
    "NaN in what is no metric": (
        "ends-in-non-finite",
        make_run(make_curve("time/eta", [3.0, 2.0, math.nan])),
    ),
    "warm-up bump": ("diverged", train(noisy(decay() * (1 + 0.6 * bump(60, 30))))),
    "double descent": ("diverged", train(noisy(decay() + 0.8 * bump(800, 200) - 1e-4 * T))),
    "validation rises": ("diverged", pair(np.linspace(1.0, 3.0, 60))),
    "slow, 20 % noise": ("not-learning", train(noisy(3 - 0.001 * T, 0.2))),
    "fine-tuning": ("not-learning", train(noisy(decay(np.arange(400.0), 20, 0.5, 0.8)))),
    "accuracy near 1 from the start": (
        "not-learning",
        make_run(make_curve("train/acc", RNG(0).binomial(500, 0.99, 200) / 500)),
    ),
    "log begins late": (
        "not-learning",
        train(noisy(np.full(200, 1.0)), steps=100_000 + np.arange(200)),
    ),
    "power law": ("plateau", train((T + 1) ** -0.25)),
    "step decay at 70 %": ("plateau", train(noisy(np.where(T < 1_400, decay(), 0.15), 0.02))),
    "constant gap": (
        "overfitting",
        pair(decay(np.arange(60.0), 10, 1.0), decay(np.arange(60.0), 10)),
    ),
    "noisy after its best": (
        "overfitting",
        pair(np.concatenate([np.linspace(2, 1, 20), 1 + 0.04 * RNG(2).uniform(-1, 1, 40)])),
    ),
    "seven checks": ("overfitting", pair([1.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])),
    "0.300, then 0.302": (
        "past-the-best",
        make_run(make_curve("val/loss", [*np.linspace(0.8, 0.3, 20), 0.301, 0.302])),
    ),
    "best is the last": (
        "past-the-best",
        make_run(make_curve("val/acc", np.linspace(0.1, 0.9, 9))),
    ),
    "log-normal noise": (
        "repeated-or-lasting-spikes",
        train(decay() * np.exp(0.3 * RNG(0).standard_normal(2_000))),
    ),
    "log-normal noise, no spike": (
        "recovered-spike",
        train(decay() * np.exp(0.3 * RNG(0).standard_normal(2_000))),
    ),
    "saw-tooth of epochs": (
        "repeated-or-lasting-spikes",
        train(noisy(decay() * (1 + 0.06 * (T % 200 < 20)), 0.01)),
    ),
    "spikes at restarts of the rate": (
        "repeated-or-lasting-spikes",
        make_run(
            make_curve(
                "train/loss", noisy(decay() * (1 + 2 * (T > 400) * np.exp(-(T % 500) / 30)))
            ),
            make_curve("lr", 0.501 + 0.5 * np.cos(np.pi * (T % 500) / 500)),
        ),
    ),
    "falling rate": ("constant-learning-rate", rates(COSINE)),
    "restarts each 500": (
        "learning-rate-jump",
        rates(0.501 + 0.5 * np.cos(np.pi * (T % 500) / 500)),
    ),
    "one restart": ("learning-rate-jump", rates(np.concatenate([COSINE, COSINE]))),
    "linear warm-up": (
        "learning-rate-jump",
        rates(np.minimum(T / 100, 1) * np.linspace(1, 0.01, 2_000)),
    ),
    "warm-up in one step": ("learning-rate-jump", rates([1e-4] * 5 + [1e-2] * 95)),
    "same loss after a resume": (
        "jump-at-resume",
        train(noisy(decay(), 0.02), resumes=RESUME_AT_100),
    ),
    "second attempt": ("resumed", train(decay())),
    "with validation": ("missing-validation", pair(decay(np.arange(40.0), 10))),
    "reinforcement learning": (
        "missing-validation",
        make_run(make_curve("rollout/ep_rew_mean", T), make_curve("train/loss", T + 1)),
    ),
    "finished": (
        "ended-before-plan",
        replace(train(decay(), steps=5 * T + 5), planned_steps=10_000),
    ),
    "last record before the end": (
        "ended-before-plan",
        replace(train(decay(), steps=5 * T), planned_steps=10_000),
    ),
    "no plan": ("ended-before-plan", train(decay())),
    "evaluation each epoch": ("slowdown", timed(STEADY + 60 * (np.arange(300) % 30 == 29))),
    "compilation": ("slowdown", timed(STEADY * np.where(np.arange(300) < 20, 30, 1))),
    "sparse embedding gradient": (
        "vanishing-gradient",
        gradients([0.03] * 12, "embedding.weight.grad", zeros=0.95),
    ),
    "frozen layer without a gradient": (
        "vanishing-gradient",
        gradients([0.1] * 5, "head.weight.grad"),
    ),
    "weights move": ("unchanged-weight", weights(moving=True)),
    "learning rate of zero": ("unchanged-weight", weights(moving=False, rate=0.0)),
}
CODES = {
    "ends-in-non-finite": ("TRN001", Severity.ERROR),
    "non-finite-values": ("TRN002", Severity.WARNING),
    "infinity-at-the-start": ("TRN003", Severity.NOTE),
    "diverged": ("TRN004", Severity.ERROR),
    "not-learning": ("TRN005", Severity.WARNING),
    "not-learning-in-warm-up": ("TRN006", Severity.NOTE),
    "plateau": ("TRN007", Severity.NOTE),
    "overfitting": ("TRN008", Severity.WARNING),
    "past-the-best": ("TRN009", Severity.NOTE),
    "repeated-or-lasting-spikes": ("TRN010", Severity.WARNING),
    "recovered-spike": ("TRN011", Severity.NOTE),
    "constant-learning-rate": ("TRN012", Severity.NOTE),
    "learning-rate-jump": ("TRN013", Severity.WARNING),
    "resumed": ("TRN014", Severity.NOTE),
    "jump-at-resume": ("TRN015", Severity.WARNING),
    "missing-validation": ("TRN016", Severity.NOTE),
    "ended-before-plan": ("TRN017", Severity.NOTE),
    "slowdown": ("TRN018", Severity.WARNING),
    "vanishing-gradient": ("TRN019", Severity.WARNING),
    "exploding-gradient": ("TRN020", Severity.WARNING),
    "unchanged-weight": ("TRN021", Severity.WARNING),
    "out-of-range": ("TRN022", Severity.WARNING),
    "damaged-log": ("TRN023", Severity.WARNING),
    "repeated-steps": ("TRN024", Severity.NOTE),
    "mixed-units": ("TRN025", Severity.NOTE),
}


def kinds(run: RunCurves) -> set[str]:
    return {diagnosis.kind for diagnosis in diagnose(run)}


def one(run: RunCurves, kind: str, tag: str | None = None) -> Diagnosis:
    """The only diagnosis of `kind` (on `tag`)."""
    (found,) = [d for d in diagnose(run) if d.kind == kind and tag in (None, d.tag)]
    return found


@pytest.mark.parametrize("name", BAD)
def test_a_bad_run_is_found(name: str) -> None:
    kind, run = BAD[name]
    assert kind in kinds(run)


@pytest.mark.parametrize("name", GOOD)
def test_a_good_run_is_left_alone(name: str) -> None:
    kind, run = GOOD[name]
    assert kind not in kinds(run)


def test_every_rule_on_one_run_has_two_bad_or_two_good_examples() -> None:
    tried = {kind for kind, _ in BAD.values()}
    of_the_run = set(CODES) - {"out-of-range", "damaged-log", "repeated-steps", "mixed-units"}
    assert tried == of_the_run


# Evidence


def test_the_end_in_nan_has_its_first_step_and_the_last_value() -> None:
    found = one(train(replaced(decay(), slice(900, None), math.nan)), "ends-in-non-finite")
    assert found.points == 2_000
    assert found.evidence["since_step"] == 900
    assert found.evidence["to_the_end"] == 1_100
    assert found.evidence["nans"] == 1_100
    assert found.evidence["last_finite_value"] == decay()[899]


def test_divergence_has_the_step_where_the_curve_left_its_best() -> None:
    found = one(train(np.where(T > 1_500, 2.3, decay())), "diverged")
    assert abs(float(found.evidence["step"]) - 1_500) <= 101
    assert abs(float(found.evidence["best_step"]) - 1_500) <= 101
    assert found.evidence["last"] == pytest.approx(2.3)
    assert found.evidence["best"] == pytest.approx(0.32, abs=0.005)


def test_divergence_silences_no_learning_and_plateau() -> None:
    run = train(np.where(T > 900, 3.0, decay()))
    assert kinds(run) & {"diverged", "not-learning", "plateau"} == {"diverged"}


def test_evidence_of_a_score_has_its_own_sign() -> None:
    found = one(BAD["accuracy back to chance"][1], "diverged")
    assert found.evidence["best"] == pytest.approx(0.9, abs=0.01)
    assert found.evidence["last"] == pytest.approx(0.1)


def test_overfitting_has_both_curves() -> None:
    found = one(pair(VALLEY), "overfitting")
    assert (found.tag, found.evidence["train_tag"]) == ("val/loss", "train/loss")
    assert abs(float(found.evidence["step"]) - 30) <= 2
    assert found.evidence["last"] == pytest.approx(1.4, abs=0.02)
    assert float(found.evidence["train_last"]) < float(found.evidence["train_at_best"])


def test_an_accuracy_that_still_rises_is_named() -> None:
    run = pair(VALLEY)
    run.curves["val/acc"] = make_curve("val/acc", np.linspace(0.1, 0.9, 100))
    assert one(run, "overfitting").evidence["still_improving"] == "val/acc"
    assert one(pair(VALLEY), "overfitting").evidence["still_improving"] == ""


def test_every_evaluation_set_is_judged_on_its_own() -> None:
    falling = np.linspace(3.0, 1.0, 100)
    sets = {"eval_g0_loss": VALLEY, "eval_g1_loss": VALLEY, "eval_g2_loss": falling}
    run = make_run(
        make_curve("loss", falling), *(make_curve(tag, values) for tag, values in sets.items())
    )
    found = [d.tag for d in diagnose(run) if d.kind == "overfitting"]
    assert found == ["eval_g0_loss", "eval_g1_loss"]


def test_a_validation_loss_that_rises_is_not_a_divergence() -> None:
    run = trainer_state()
    assert "diverged" not in kinds(run)
    found = one(run, "overfitting")
    assert (found.tag, found.evidence["train_tag"]) == ("eval_g0_loss", "loss")


def test_overfitting_is_not_also_past_the_best() -> None:
    assert "past-the-best" not in kinds(pair(VALLEY))
    alone = make_run(make_curve("val/loss", VALLEY))
    assert "past-the-best" in kinds(alone)
    assert "overfitting" not in kinds(alone)


def test_spikes_are_counted_and_measured() -> None:
    found = one(BAD["three spikes of 10 ×"][1], "repeated-or-lasting-spikes", "train/loss")
    assert found.evidence["spikes"] == 3
    assert found.evidence["first_step"] == 700
    assert found.evidence["not_recovered"] == 0
    assert float(found.evidence["height"]) > 8 * float(found.evidence["level"])


def test_a_spike_that_stays_up_is_not_recovered() -> None:
    values = np.where(T < 1_900, noisy(decay()), 1.2)
    found = one(train(values), "repeated-or-lasting-spikes")
    assert found.evidence["not_recovered"] == 1


def test_a_resume_is_named_once_for_all_tags() -> None:
    run = make_run(
        make_curve("train/loss", decay(), resumes=RESUME_AT_100),
        make_curve("val/loss", decay(), resumes=RESUME_AT_100),
    )
    found = one(run, "resumed")
    assert (found.tag, found.evidence["step"], found.evidence["superseded"]) == ("", 100, 51)


def test_a_jump_to_the_better_at_a_resume_is_left_alone() -> None:
    run = train(np.where(T < 100, 2.0, 1.0), resumes=RESUME_AT_100)
    assert "jump-at-resume" not in kinds(run)


def test_frozen_weights_are_one_finding_that_names_them() -> None:
    start = np.linspace(-1, 1, 50)
    tags = [f"layer{i}.weight" for i in range(4)]
    run = make_run(**{tag: [histogram(tag, i, start) for i in range(4)] for tag in tags})
    found = one(run, "unchanged-weight")
    assert (found.evidence["tags"], found.evidence["weights"]) == (4, 4)


def test_values_out_of_range_are_counted() -> None:
    run = make_run(make_curve("val/acc", [0.1, 1.0, 1.2, 0.0, -3.0, math.nan, 0.5]))
    (found,) = [d for d in diagnose(run, {"val/acc": (0.0, 1.0)}) if d.kind == "out-of-range"]
    assert found.evidence == {
        "outside": 2, "first_step": 2, "first_value": 1.2, "worst_step": 4, "worst_value": -3.0,
        "lowest": 0.0, "highest": 1.0,
    }  # fmt: skip


def test_a_range_may_be_open() -> None:
    run = make_run(make_curve("x", [-1.0, 5.0]))
    assert "out-of-range" in {d.kind for d in diagnose(run, {"x": (0.0, None)})}
    assert "out-of-range" not in {d.kind for d in diagnose(run, {"x": (None, 5.0)})}
    assert "out-of-range" not in {d.kind for d in diagnose(run, {"y": (7.0, None)})}


def test_losses_of_reinforcement_learning_have_no_trend() -> None:
    rising = np.linspace(0.1, 5.0, 200)
    run = make_run(
        make_curve("train/loss", rising), make_curve("rollout/ep_rew_mean", 100 * rising)
    )
    assert not kinds(run) & {"diverged", "not-learning"}


# Properties

VALUES = st.lists(st.floats(), max_size=120)


@settings(deadline=None)
@given(values=VALUES, other=VALUES, tag=st.sampled_from(["train/loss", "val/acc", "lr", "x"]))
def test_no_curve_is_too_strange(values: list[float], other: list[float], tag: str) -> None:
    curves = [make_curve(t, v) for t, v in ((tag, values), ("val/loss", other)) if v]
    for found in diagnose(make_run(*curves), {"x": (0.0, 1.0)}):
        assert found.points <= 120
        assert found.kind in CODES
        assert len(findings(found)) == 1


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1_000),
    scale=st.sampled_from([1e-6, 1.0, 1e5]),
    name=st.sampled_from(sorted(BAD)),
)
def test_the_unit_of_a_loss_changes_nothing(seed: int, scale: float, name: str) -> None:
    _, run = BAD[name]
    scaled = {
        tag: replace(curve, values=curve.values * scale) if curve.name.trend else curve
        for tag, curve in run.curves.items()
        if curve.name.direction != "higher"
    }
    plain = {tag: run.curves[tag] for tag in scaled}
    assert kinds(replace(run, curves=scaled)) == kinds(replace(run, curves=plain))


@settings(deadline=None, max_examples=50)
@given(name=st.sampled_from(sorted(BAD)))
def test_a_score_is_judged_as_its_negative_loss(name: str) -> None:
    _, run = BAD[name]
    turned = {
        tag: replace(
            curve,
            values=-curve.values,
            name=replace(
                curve.name, direction="higher" if curve.name.direction == "lower" else "lower"
            ),
        )
        if curve.name.trend
        else curve
        for tag, curve in run.curves.items()
    }
    judged = {"diverged", "plateau", "overfitting", "recovered-spike", "jump-at-resume"}
    assert kinds(replace(run, curves=turned)) & judged == kinds(run) & judged


# Rules


def findings(found: Diagnosis) -> list[Finding]:
    return [finding for rule in RULES for finding in rule.findings(training([found]))]


def training(
    diagnoses: Sequence[Diagnosis], runs: int = 1, damage: Sequence[DamagedStretch] = ()
) -> Training:
    made = tuple(
        Run(
            name=f"run{i}" if i else "run", source="runs", format="tensorboard", attempt=1,
            attempts=1, group="", state="healthy", summary="", sessions=1, scalars={}, images=(),
            images_found=0, histograms=(), texts=(), pr_curves=(), tables=(), charts=(),
            hyperparameters={}, damage=tuple(damage), superseded=(), planned_steps=None,
            not_shown={}, notes=(),
        )
        for i in range(runs)
    )  # fmt: skip
    return Training(
        headline="", points=0, smoothing="", runs=made, plots=(), groups=(),
        diagnoses=tuple(diagnoses), files=(), notes=(),
    )  # fmt: skip


def test_every_rule_has_its_code_and_severity() -> None:
    assert {rule.name: (rule.code, rule.severity) for rule in RULES} == CODES


@pytest.mark.parametrize("name", BAD)
def test_every_diagnosis_becomes_one_finding_of_its_rule(name: str) -> None:
    _, run = BAD[name]
    for found in diagnose(run):
        (finding,) = findings(found)
        assert finding.code == CODES[found.kind][0]
        assert finding.where in (found.tag, "run")
        assert f"{found.points:,}" in finding.message or found.tag == ""


@pytest.mark.parametrize(
    ("kind", "evidence"),
    [
        ("repeated-steps", {"repeats": 10, "first_step": 40.0}),
        ("mixed-units", {"first_step": 500.0, "unit_change_step": 1.0}),
    ],
)
def test_seams_found_elsewhere_become_findings(kind: str, evidence: dict[str, Any]) -> None:
    found = Diagnosis(kind=kind, run="run", tag="loss", points=210, evidence=evidence)
    (finding,) = findings(found)
    assert (finding.code, finding.where) == (CODES[kind][0], "loss")


def test_the_place_names_the_run_where_there_are_several() -> None:
    found = Diagnosis(kind="repeated-steps", run="run1", tag="loss", points=9,
                      evidence={"repeats": 1, "first_step": 0.0})  # fmt: skip
    result = training([found], runs=2)
    assert [f.where for rule in RULES for f in rule.findings(result)] == ["run1 · loss"]


def test_damage_is_one_finding_for_each_file() -> None:
    damage = [
        DamagedStretch(file="a", offset=100, bytes=64, reason="a wrong checksum"),
        DamagedStretch(file="a", offset=900, bytes=36, reason="a wrong length"),
        DamagedStretch(file="b", offset=0, bytes=7, reason="a wrong length"),
    ]
    result = training([], damage=damage)
    found = [f for rule in RULES for f in rule.findings(result)]
    assert [(f.code, f.where) for f in found] == [("TRN023", "a"), ("TRN023", "b")]
    assert found[0].message == (
        "100 bytes skipped in 2 places, the first 64 at offset 100: a wrong checksum"
    )


def test_a_sentence_has_steps_values_and_the_number_of_points() -> None:
    (finding,) = findings(one(train(np.where(T > 1_500, 2.3, decay())), "diverged"))
    assert finding.message.startswith("diverged at step 1,")
    assert "2.3 over the last 100 points, best 0.321 at step" in finding.message
    assert finding.message.endswith("(n = 2,000)")


# The headline


def state_of(run: RunCurves) -> tuple[str, str]:
    return run_state(run, diagnose(run))


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("NaN from step 900 to the end", "non-finite"),
        ("rises from 60 % on", "diverged"),
        ("constant 2.30 ± 5 %", "not learning"),
        ("valley", "overfitting"),
        ("flat for 90 %", "healthy"),
        ("flat in warm-up", "no verdict"),
        ("constant rate", "no verdict"),
    ],
)
def test_the_most_severe_diagnosis_is_the_state(name: str, state: str) -> None:
    assert state_of(BAD[name][1])[0] == state


def test_a_healthy_run_is_said_with_its_best() -> None:
    steps = np.arange(1, 51)
    run = make_run(
        make_curve("train/loss", decay(np.arange(50.0), 20), steps=steps),
        make_curve("val/acc", np.linspace(0.2, 0.912, 50), steps=steps),
        make_curve("epoch", steps, steps=steps),
    )
    assert state_of(run) == (
        "healthy",
        "healthy: best val/acc 0.912 at epoch 50 of 50, still improving",
    )


def test_a_diverged_run_is_said_with_its_steps() -> None:
    run = train(np.where(T > 1_500, 2.31, decay()))
    found = one(run, "diverged")
    at, best = (f"{float(found.evidence[name]):,.0f}" for name in ("step", "best_step"))
    assert state_of(run)[1] == (
        f"diverged at step {at}: train/loss is 2.31, above its best 0.321 at step {best}"
    )


@pytest.mark.parametrize(
    ("tags", "main"),
    [
        (("train/loss", "val/loss", "val/acc", "train/acc"), "val/acc"),
        (("train/loss", "val/loss", "train/acc"), "val/loss"),
        (("train/loss", "train/acc"), "train/loss"),
        (("train/box_loss", "val/box_loss", "metrics/mAP50(B)"), "metrics/mAP50(B)"),
        (("train/loss", "rollout/ep_rew_mean"), "rollout/ep_rew_mean"),
        (("val/top5_acc", "val/acc"), "val/acc"),
    ],
)
def test_the_main_metric_is_what_a_checkpoint_is_picked_by(tags: Sequence[str], main: str) -> None:
    found = main_metric(make_run(*(make_curve(tag, range(10)) for tag in tags)))
    assert found is not None
    assert found.tag == main


def test_steps_are_epochs_where_the_log_says_so() -> None:
    steps = np.arange(20)
    epochs = make_curve("epoch", steps, steps=steps)
    assert step_unit(make_run(make_curve("val/acc", steps), epochs)) == "epoch"
    batches = make_curve("epoch", steps, steps=50 * steps)
    assert step_unit(make_run(make_curve("val/acc", steps), batches)) == "step"


def judged(run: RunCurves) -> Run:
    """The entry of the report for `run`, the only attempt."""
    state, summary = run_state(run, diagnose(run))
    scalars = {
        tag: as_scalar(summarize(curve, 100), csv="", plot="") for tag, curve in run.curves.items()
    }
    entry = training(()).runs[0]
    return replace(entry, name=run.name, state=state, summary=summary, scalars=scalars)


def test_several_runs_are_counted_and_the_newest_is_named() -> None:
    old = train(decay(), times=1e9 + T)
    new = replace(train(noisy(np.full(2_000, 2.3)), times=2e9 + T), name="second")
    sentence = headline([judged(new), judged(old)])
    assert sentence.startswith(
        "2 runs: 1 not learning, 1 healthy; newest run 'second': not learning: "
    )


def test_no_run_and_no_scalar_have_no_verdict() -> None:
    assert headline([]) == "no run"
    assert state_of(make_run()) == ("no verdict", "no verdict: the run has no scalars")
    assert state_of(make_run(make_curve("x", [1.0])))[0] == "no verdict"


def test_equal_notes_of_many_runs_are_one_finding() -> None:
    notes = [
        Diagnosis(kind="repeated-steps", run=f"run {n}", tag="loss", points=10,
                  evidence={"repeats": 3, "first_step": 5.0})
        for n in range(50)
    ]  # fmt: skip
    others = [
        Diagnosis(kind="repeated-steps", run="x", tag=f"tag {n}", points=10,
                  evidence={"repeats": n + 4, "first_step": 5.0})
        for n in range(60)
    ]  # fmt: skip
    hits = list(repeated_steps.check(training([*notes, *others], runs=2)))
    assert hits[0].where == "run 0 · loss and 49 more"
    assert len(hits) == 31
    assert hits[-1].where == "31 more curves"


def test_a_short_curve_that_only_gets_worse_has_no_verdict() -> None:
    state, sentence = run_state(make_run(make_curve("val/loss", np.linspace(0.5, 1, 9))), ())
    assert state == "no verdict"
    assert "0.5 at step 0" in sentence


def test_the_newest_run_with_a_verdict_is_named() -> None:
    good = make_run(make_curve("val/loss", decay(np.arange(100.0))))
    bare = make_run(make_curve("x", [1.0, 2.0], times=[2e9, 2e9 + 1]))
    runs = (judged(good), replace(judged(bare), name="just begun"))
    sentence = headline(runs)
    assert sentence.startswith("2 runs: 1 healthy, 1 without a verdict; newest run 'run': healthy")
    metrics = metrics_of(replace(training(()), runs=runs))
    assert {metric.key for metric in metrics} == {
        "training.val/loss.best",
        "training.val/loss.last",
    }


def test_an_earlier_attempt_is_never_the_newest_run() -> None:
    last = judged(make_run(make_curve("x", [1.0])))
    earlier = replace(judged(train(decay())), attempts=2)
    assert newest_run((replace(last, attempt=2, attempts=2), earlier)).state == "no verdict"
