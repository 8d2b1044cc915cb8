"""Generated runs, healthy and sick, on which the verdicts on trainings are tried.

Three sets that share no shape, no kind of noise, no schedule and no seed; every run is made from
a seed. What was tuned on which set, `training_verdicts.md` says.
"""

# Shapes and faults share a signature, whether they need all of it or not.
# ruff: noqa: ARG001, ARG005

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reportgen.sections.training.curve import Curve, Floats, Resume, RunCurves
from reportgen.sections.training.metric_names import describe_tag
from reportgen.training_logs.log_run import LoggedHistogram

LENGTHS = (20, 100, 500, 2_000, 20_000)
SEEDS = 5

Rng = np.random.Generator
Shape = Callable[[Floats, Rng], Floats]  # share of the run done -> cost
Noise = Callable[[Floats, Rng], Floats]  # cost -> cost as logged


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run of some `family`.

    Attributes:
        rule: the one that should find its fault; "" for a healthy run.
        expected: rules that are right on it besides.
    """

    family: str
    name: str
    run: RunCurves
    rule: str = ""
    expected: frozenset[str] = frozenset()
    ranges: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)


def make_curve(
    tag: str,
    values: Any,
    *,
    steps: Any = None,
    times: Any = None,
    resumes: Sequence[Resume] = (),
) -> Curve:
    """A curve of `values`, at steps 0, 1, 2 ... without wall times where none are given."""
    values = np.asarray(values, dtype=np.float64)
    count = len(values)
    return Curve(
        tag=tag,
        name=describe_tag(tag),
        steps=np.arange(count, dtype=np.float64) if steps is None else np.asarray(steps, float),
        values=values,
        times=np.full(count, np.nan) if times is None else np.asarray(times, float),
        resumes=tuple(resumes),
    )


def make_run(*curves: Curve, planned: int | None = None, **histograms: Any) -> RunCurves:
    """A run of `curves`."""
    return RunCurves(
        name="run",
        curves={each.tag: each for each in curves},
        histograms=histograms,
        planned_steps=planned,
    )


# Shapes. All take the share of the run that is done, 0 to 1.


def _decay(x: Floats, rate: float = 12, low: float = 0.3, high: float = 3.0) -> Floats:
    return low + (high - low) * np.exp(-rate * x)


def _bump(x: Floats, at: float, width: float) -> Floats:
    return np.exp(-(((x - at) / width) ** 2))


def _step_decay(x: Floats, rng: Rng) -> Floats:
    return np.select([x < 0.4, x < 0.7], [_decay(x, 20, 1.0), _decay(x, 20, 0.6, 1.2)], 0.4)


def _restarts(x: Floats, rng: Rng) -> Floats:
    phase = (x * 4) % 1
    return _decay(x, 6) * (1 + 0.25 * np.exp(-8 * phase) * (x > 0.25))


TUNING_SHAPES: dict[str, Shape] = {
    "exponential": lambda x, rng: _decay(x),
    "power law": lambda x, rng: 3 * (1 + 500 * x) ** -0.25,
    "cosine end": lambda x, rng: 0.4 + 1.5 * np.exp(-10 * x) + 0.55 * (1 + np.cos(np.pi * x)),
    "warm-up bump": lambda x, rng: _decay(x, 8) * (1 + 0.6 * _bump(x, 0.03, 0.015)),
    "step decay": _step_decay,
    "double descent": lambda x, rng: _decay(x, 10, 0.5) + 0.8 * _bump(x, 0.4, 0.1) - 0.3 * x,
    "restarts": _restarts,
    "slow linear": lambda x, rng: 3.0 - 1.2 * x,
    "fine-tuning": lambda x, rng: _decay(x, 30, 0.5, 0.8),
    "epoch saw-tooth": lambda x, rng: _decay(x, 5) * (1 + 0.06 * ((x * 10) % 1 < 0.1)),
}


def _curriculum(x: Floats, rng: Rng) -> Floats:
    """Harder data at 25, 50 and 75 %: the loss steps up and falls again."""
    cost = _decay(x, 14, 0.5)
    for at, height in ((0.25, 0.5), (0.5, 0.4), (0.75, 0.35)):
        cost = cost + np.where(x >= at, height * np.exp(-10 * np.maximum(x - at, 0)), 0)
    return cost


def _mixture(x: Floats, rng: Rng) -> Floats:
    """A mixture of tasks: bursts of batches of a harder one."""
    cost = _decay(x, 7, 0.6)
    length = max(1, len(x) // 100)
    for start in rng.integers(0, len(x), 6):
        cost[start : start + length] *= 1.3
    return cost


def _grokking(x: Floats, rng: Rng) -> Floats:
    return 0.1 + 2.2 / (1 + np.exp((x - rng.uniform(0.4, 0.7)) * 40))


def _two_phases(x: Floats, rng: Rng) -> Floats:
    return 0.2 + 0.8 * np.exp(-20 * x) + 1.9 / (1 + np.exp((x - rng.uniform(0.7, 0.85)) * 60))


def _warmup_stable_decay(x: Floats, rng: Rng) -> Floats:
    return 2.0 + 2 * (1 + 300 * x) ** -0.5 - 0.4 * np.maximum(x - 0.8, 0) / 0.2


HELD_OUT_SHAPES: dict[str, Shape] = {
    "stretched exponential": lambda x, rng: 0.3 + 2.7 * np.exp(-np.sqrt(x / 0.03)),
    "hyperbola 1/(1+kt)": lambda x, rng: 3 / (1 + 40 * x),
    "warm-up, stable, decay": _warmup_stable_decay,
    "cyclic learning rate": lambda x, rng: _decay(x, 5) * (1 + 0.12 * np.sin(2 * np.pi * 8 * x)),
    "grokking": _grokking,
    "plateau, then a drop": _two_phases,
    "curriculum": _curriculum,
    "mixture of tasks": _mixture,
    "distillation": lambda x, rng: 3.0 - 0.12 * np.log1p(300 * x),
    "transfer": lambda x, rng: 0.5 + 0.4 * np.exp(-40 * x) - 0.08 * x,
    "logarithmic": lambda x, rng: 10.8 - 1.2 * np.log1p(1_000 * x),
    "sum of two rates": lambda x, rng: 0.2 + 2 * np.exp(-60 * x) + 1.0 * np.exp(-2.5 * x),
}


def _epochs(x: Floats, rng: Rng) -> Floats:
    """A language model over four epochs: flat inside each, with a drop where the next begins."""
    return np.array([2.1, 1.7, 1.3, 1.0])[np.minimum((4 * x).astype(int), 3)] + np.exp(-60 * x)


def _skills(x: Floats, rng: Rng) -> Floats:
    """Three skills that are learned one after another, each at once."""
    drops = [1 / (1 + np.exp((x - at - rng.uniform(0, 0.1)) * 80)) for at in (0.1, 0.4, 0.7)]
    return 0.3 + 0.9 * sum(drops, np.zeros(len(x)))


def _data_stages(x: Floats, rng: Rng) -> Floats:
    """Easier data in two later stages, as in the annealing of a language model."""
    return 2.2 + 2 * np.exp(-9 * x) - 0.3 * (x > 0.6) - 0.25 * (x > 0.85)


FRESH_SHAPES: dict[str, Shape] = {
    "damped swing": lambda x, rng: _decay(x, 9, 0.5) * (1 + 0.2 * np.cos(40 * x) * np.exp(-4 * x)),
    "Gompertz": lambda x, rng: 3 - 2.6 * np.exp(-5 * np.exp(-8 * x)),
    "two decades": lambda x, rng: 3 * 10 ** (-2 * x),
    "interpolation": lambda x, rng: 2 * np.exp(-14 * x) + 1e-5,
    "flat, then a fall": lambda x, rng: 0.4 + 1.9 * np.exp(-9 * np.maximum(x - 0.12, 0)),
    "slow end": lambda x, rng: 0.5 + 0.4 * (1 - x) ** 2 + 2 * np.exp(-50 * x),
    "contrastive": lambda x, rng: math.log(4_096) * (0.25 + 0.75 / (1 + 25 * x) ** 0.7),
    "skills one by one": _skills,
    "stages of data": _data_stages,
    "drop at each epoch": _epochs,
    "square root": lambda x, rng: 2.5 - 1.4 * np.sqrt(x),
    "small gain": lambda x, rng: 1.0 + 0.25 * np.exp(-15 * x),
}


# Noise.


def _autocorrelated(size: int, rng: Rng, share: float = 0.9) -> Floats:
    """An autoregressive series of unit deviation."""
    white = rng.standard_normal(size) * math.sqrt(1 - share**2)
    series, last = np.empty(size), rng.standard_normal()
    for i, push in enumerate(white):
        last = share * last + push
        series[i] = last
    return series


def pink(size: int, rng: Rng) -> Floats:
    """Noise whose power falls as 1/f, of unit deviation."""
    spectrum = np.fft.rfft(rng.standard_normal(size))
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))
    spectrum[0] = 0
    series = np.fft.irfft(spectrum, size)
    return series / series.std()


def _white(share: float) -> Noise:
    return lambda cost, rng: cost * (1 + share * rng.standard_normal(len(cost)))


TUNING_NOISES: dict[str, Noise] = {
    "5 %": _white(0.05),
    "20 %": _white(0.2),
    "Student t(4)": lambda cost, rng: cost * (1 + 0.07 * rng.standard_t(4, len(cost))),
    "autocorrelated": lambda cost, rng: cost * (1 + 0.06 * _autocorrelated(len(cost), rng)),
    "log-normal 0.3": lambda cost, rng: cost * np.exp(0.3 * rng.standard_normal(len(cost)) - 0.045),
}


def _outlier_batches(cost: Floats, rng: Rng) -> Floats:
    hit = rng.random(len(cost)) < 0.005
    return _white(0.03)(cost, rng) * np.where(hit, rng.uniform(1.5, 2.5, len(cost)), 1)


def _epoch_periodic(cost: Floats, rng: Rng) -> Floats:
    period = max(5, len(cost) // 30)
    wave = 0.06 * np.sin(2 * np.pi * np.arange(len(cost)) / period)
    return cost * (1 + wave + 0.03 * rng.standard_normal(len(cost)))


def _small_batches(cost: Floats, rng: Rng) -> Floats:
    return rng.poisson(np.maximum(cost, 0) * 20) / 20 + 0.01


HELD_OUT_NOISES: dict[str, Noise] = {
    "pink": lambda cost, rng: cost * (1 + 0.06 * pink(len(cost), rng)),
    "shrinking": lambda cost, rng: cost * (
        1 + np.linspace(0.25, 0.02, len(cost)) * rng.standard_normal(len(cost))
    ),
    "outlier batches": _outlier_batches,
    "three digits": lambda cost, rng: np.round(_white(0.01)(cost, rng), 2),
    "periodic in the epoch": _epoch_periodic,
    "Poisson": _small_batches,
}  # fmt: skip


def _running_mean(cost: Floats, rng: Rng) -> Floats:
    """The mean of the last 20 batches, as a progress bar logs it."""
    batches = _white(0.2)(np.concatenate([np.full(19, cost[0]), cost]), rng)
    return np.convolve(batches, np.full(20, 0.05), "valid")


def _two_kinds(cost: Floats, rng: Rng) -> Floats:
    """Batches of two kinds, the harder one in a third of them."""
    hard = np.where(rng.random(len(cost)) < 0.33, 1.25, 0.9)
    return cost * hard * (1 + 0.04 * rng.standard_normal(len(cost)))


def _drift(cost: Floats, rng: Rng) -> Floats:
    return cost * (1 + 0.04 * _autocorrelated(len(cost), rng, 0.99)) * _noise_factor(cost, rng)


def _noise_factor(cost: Floats, rng: Rng) -> Floats:
    return 1 + 0.02 * rng.standard_normal(len(cost))


FRESH_NOISES: dict[str, Noise] = {
    "Laplace": lambda cost, rng: cost * (1 + rng.laplace(0, 0.06, len(cost))),
    "gamma": lambda cost, rng: cost * rng.gamma(30, 1 / 30, len(cost)),
    "two kinds of batches": _two_kinds,
    "half precision": lambda cost, rng: _white(0.03)(cost, rng).astype(np.float16).astype(float),
    "drift": _drift,
    "running mean": _running_mean,
}


@dataclass(frozen=True, kw_only=True)
class CurveSet:
    """Shapes and noises of one set, with the seed that all of its runs are made from."""

    seed: int
    shapes: Mapping[str, Shape]
    noises: Mapping[str, Noise]
    lengths: Sequence[int] = LENGTHS

    def healthy_losses(self) -> Iterator[Case]:
        """A train loss and a validation loss of the same shape in each run."""
        for name, shape, noise, length, rng in self._all():
            x = np.linspace(0, 1, length)
            clean = shape(x, rng)
            yield Case(
                family="losses",
                name=f"{name}, {length} points",
                run=make_run(
                    make_curve("train/loss", noise(clean, rng)),
                    _validation(clean, rng),
                ),
            )

    def healthy_scores(self) -> Iterator[Case]:
        """Accuracies over a few hundred samples, and returns of episodes, that climb."""
        for name, shape, _, length, rng in self._all():
            if rng.random() > 0.34:
                continue
            x = np.linspace(0, 1, length)
            cost = shape(x, rng)
            share = 0.1 + 0.8 * (cost.max() - cost) / np.ptp(cost)
            samples = int(rng.choice((64, 500, 10_000)))
            accuracy = rng.binomial(samples, np.clip(share, 0, 1)) / samples
            returns = 400 * share - 200 + 40 * _autocorrelated(length, rng, 0.7)
            yield Case(
                family="scores",
                name=f"{name}, {length} points",
                run=make_run(
                    make_curve("train/acc", accuracy),
                    make_curve(
                        "val/acc", rng.binomial(samples, np.clip(share - 0.03, 0, 1)) / samples
                    ),
                ),
            )
            yield Case(
                family="scores",
                name=f"{name}, return, {length} points",
                run=make_run(make_curve("rollout/ep_rew_mean", returns)),
            )

    def _all(self) -> Iterator[tuple[str, Shape, Noise, int, Rng]]:
        number = self.seed
        for shape_name, shape in self.shapes.items():
            for noise_name, noise in self.noises.items():
                for length in self.lengths:
                    for _ in range(SEEDS):
                        number += 1
                        rng = np.random.default_rng(number)
                        yield f"{shape_name}, {noise_name}", shape, noise, length, rng


def _validation(clean: Floats, rng: Rng, noise: float = 0.02) -> Curve:
    """The loss of a validation set: a gap above the train loss, that widens and does not turn."""
    checks = int(min(len(clean), rng.choice((10, 30, 100))))
    places = np.unique(np.linspace(0, len(clean) - 1, checks).astype(int))
    gap = rng.uniform(0.02, 0.3) * (1 - np.exp(-5 * places / len(clean)))
    # A gap never outgrows what the shape itself gains: that would be overfitting.
    costs = np.minimum.accumulate(clean)[places] + gap * np.ptp(clean) * 0.1
    costs = costs + (clean - np.minimum.accumulate(clean))[places]
    return make_curve(
        "val/loss", costs * (1 + noise * rng.standard_normal(len(places))), steps=places
    )


# Sick losses and scores. `shape` and `noise` are those of the set.


def sick_curves(of: CurveSet) -> Iterator[Case]:
    """Runs with a fault in a loss or a score, `of` that set's shapes and noises."""
    shapes, noises = list(of.shapes.items()), list(of.noises.items())
    makers = {**_DIVERGED, **_NOT_LEARNING, **_PLATEAU, **_OVERFITTING, **_SPIKES, **_NON_FINITE}
    number = of.seed + 50_000
    for (rule, fault), make in makers.items():
        for i in range(40):
            number += 1
            rng = np.random.default_rng(number)
            length = int((100, 500, 2_000, 20_000)[i % 4])
            shape_name, shape = shapes[i % len(shapes)]
            noise_name, noise = noises[i % len(noises)]
            x = np.linspace(0, 1, length)
            curves = make(x, shape(x, rng), noise, rng)
            yield Case(
                family=fault,
                name=f"{fault} of {shape_name}, {noise_name}, {length} points",
                run=make_run(*curves),
                rule=rule,
                expected=_WITHOUT_VALIDATION if _is_alone(curves) else frozenset(),
            )


_WITHOUT_VALIDATION = frozenset({"missing-validation"})


def _is_alone(curves: Sequence[Curve]) -> bool:
    """Whether no validation curve stands beside the train curve."""
    return all(each.name.role != "validation" for each in curves)


Maker = Callable[[Floats, Floats, Noise, Rng], Sequence[Curve]]


def _train(values: Floats) -> Sequence[Curve]:
    return (make_curve("train/loss", values),)


def _blow_up(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    at = rng.uniform(0.75, 0.88)
    return _train(noise(clean + np.where(x > at, np.ptp(clean) * np.expm1(12 * (x - at)), 0), rng))


def _slow_divergence(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    at = rng.uniform(0.4, 0.6)
    return _train(noise(_decay(x) + 4 * np.maximum(x - at, 0), rng))


def _back_to_chance(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    return _train(noise(np.where(x > 0.45, 2.3, _decay(x, 12, 0.3, 2.3)), rng))


def _oscillation(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    swing = np.abs(np.sin(40 * x)) * np.exp(5 * np.maximum(x - 0.5, 0)) * (x > 0.5)
    return _train(noise(_decay(x) + swing + 1.5 * (x > 0.6), rng))


_DIVERGED: dict[tuple[str, str], Maker] = {
    ("diverged", "late blow-up"): _blow_up,
    ("diverged", "slow divergence"): _slow_divergence,
    ("diverged", "back to chance"): _back_to_chance,
    ("diverged", "growing oscillation"): _oscillation,
}
_NOT_LEARNING: dict[tuple[str, str], Maker] = {
    ("not-learning", "flat"): lambda x, clean, noise, rng: _train(noise(np.full(len(x), 2.3), rng)),
    ("not-learning", "flat after one step"): lambda x, clean, noise, rng: _train(
        noise(np.where(np.arange(len(x)) < 1, 3.0, 2.3), rng)
    ),
    ("not-learning-in-warm-up", "flat in warm-up"): lambda x, clean, noise, rng: (
        make_curve("train/loss", noise(np.full(len(x), 2.3), rng)),
        make_curve("lr", 1e-3 * x),
    ),
    ("not-learning", "accuracy at chance"): lambda x, clean, noise, rng: (
        make_curve("train/acc", rng.binomial(256, 0.1, len(x)) / 256),
    ),
}
_PLATEAU: dict[tuple[str, str], Maker] = {
    ("plateau", "flat after a tenth"): lambda x, clean, noise, rng: _train(
        noise(_decay(x, 60, 0.8), rng)
    ),
    ("plateau", "accuracy stuck"): lambda x, clean, noise, rng: (
        make_curve("val/acc", rng.binomial(5_000, np.minimum(0.1 + 5 * x, 0.91)) / 5_000),
    ),
}


def _pair(x: Floats, train: Floats, validation: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    places = np.unique(np.linspace(0, len(x) - 1, int(rng.choice((12, 30, 100)))).astype(int))
    costs = validation[places] * (1 + 0.02 * rng.standard_normal(len(places)))
    return (
        make_curve("train/loss", noise(train, rng)),
        make_curve("val/loss", costs, steps=places),
    )


def _u_shape(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    falling = 0.1 + 2 * np.exp(-4 * x)
    at = rng.uniform(0.2, 0.5)
    valley = 0.8 + 1.2 * np.exp(-12 * x) + 0.6 * np.maximum(x - at, 0)
    return _pair(x, falling, valley, noise, rng)


def _from_the_start(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    return _pair(x, 0.05 + 2 * np.exp(-5 * x), 1.0 + rng.uniform(0.5, 1.5) * x, noise, rng)


_OVERFITTING: dict[tuple[str, str], Maker] = {
    ("overfitting", "valley"): _u_shape,
    ("overfitting", "worse from the start"): _from_the_start,
    ("past-the-best", "score falls"): lambda x, clean, noise, rng: (
        make_curve(
            "val/acc",
            (0.9 - np.exp(-20 * x) * 0.8 - 0.12 * np.maximum(x - 0.4, 0))[:: max(1, len(x) // 50)]
            + 0.003 * rng.standard_normal(len(x[:: max(1, len(x) // 50)])),
        ),
    ),
}


def _single_spikes(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    values = noise(_decay(x, 6, 0.6), rng)
    places = rng.choice(np.arange(len(x) // 3, len(x)), int(rng.integers(3, 8)), replace=False)
    values[places] *= 10
    return _train(values)


def _lasting_spike(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    at, length = rng.uniform(0.4, 0.8), 0.06
    spike = 4 * (x >= at) * np.exp(-np.maximum(x - at, 0) / (length / 2))
    return _train(noise(_decay(x, 6, 0.6) * (1 + spike), rng))


def _one_spike(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
    values = noise(_decay(x, 6, 0.6), rng)
    values[int(rng.integers(len(x) // 2, len(x) - 5))] *= 10
    return _train(values)


_SPIKES: dict[tuple[str, str], Maker] = {
    ("repeated-or-lasting-spikes", "3 to 7 single spikes of 10 ×"): _single_spikes,
    ("repeated-or-lasting-spikes", "a spike of 5 × that lasts"): _lasting_spike,
    ("recovered-spike", "one single spike of 10 ×"): _one_spike,
}


def _put(share: float, value: float, count: int | None) -> Maker:
    """A loss with `count` values from `share` of the run on replaced, all of them with None."""

    def make(x: Floats, clean: Floats, noise: Noise, rng: Rng) -> Sequence[Curve]:
        values = noise(clean, rng)
        at = int(share * len(x))
        values[at : None if count is None else at + count] = value
        return _train(values)

    return make


_NON_FINITE: dict[tuple[str, str], Maker] = {
    ("ends-in-non-finite", "NaN from 60 % on"): _put(0.6, math.nan, None),
    ("non-finite-values", "one infinity, then fine"): _put(0.4, math.inf, 1),
    ("infinity-at-the-start", "infinite at first"): _put(0.0, math.inf, 1),
}


# Learning rates.

Schedule = Callable[[Floats], Floats]


def _cosine(x: Floats) -> Floats:
    return 0.5 * (1 + np.cos(np.pi * np.clip(x, 0, 1)))


def _warm(x: Floats, share: float = 0.05) -> Floats:
    return np.minimum(1, x / share)


def _one_cycle(x: Floats) -> Floats:
    up = 0.04 + 0.96 * (1 - _cosine(x / 0.3))
    return np.where(x < 0.3, up, 1e-4 + _cosine((x - 0.3) / 0.7))


def _triangle(x: Floats, cycles: float = 6) -> Floats:
    return 0.1 + 0.9 * (1 - np.abs((x * cycles) % 1 * 2 - 1))


def _growing_cycles(x: Floats) -> Floats:
    """Warm restarts, every cycle twice as long as the one before."""
    position = np.clip(x, 0, 0.999999) * 7
    cycle = np.floor(np.log2(position + 1))
    return 1e-3 + _cosine((position + 1 - 2**cycle) / 2**cycle)


TUNING_SCHEDULES: dict[str, Schedule] = {
    "cosine": lambda x: _cosine(x) + 1e-3,
    "linear warm-up, cosine": lambda x: _warm(x) * (_cosine(x) + 1e-3),
    "step decay": lambda x: 0.1 ** np.floor(3 * np.minimum(x, 0.999)),
    "warm restarts": lambda x: 1e-3 + _cosine((5 * x) % 1),
    "one-cycle": _one_cycle,
    "triangular": _triangle,
}
HELD_OUT_SCHEDULES: dict[str, Schedule] = {
    "warm-up, stable, decay": lambda x: _warm(x, 0.02) * np.minimum(1, (1.001 - x) / 0.2),
    "inverse square root": lambda x: np.minimum((x + 1e-3) / 0.04, np.sqrt(0.04 / (x + 1e-3))),
    "polynomial": lambda x: (1.0001 - x) ** 2,
    "exponential": lambda x: np.exp(-9 * x),
    "restarts that double": _growing_cycles,
    "restarts with falling peaks": lambda x: 0.5 ** np.floor(4 * x) * (1e-3 + _cosine(4 * x % 1)),
    "restarts with warm-up": lambda x: 1e-4 + _warm(4 * x % 1, 0.1) * _cosine(4 * x % 1),
    "triangular, halved": lambda x: _triangle(x) * 0.5 ** np.floor(x * 6),
    "one restart at a third": lambda x: 1e-3 + _cosine(np.where(x < 0.33, 3 * x, (x - 0.33) * 1.5)),
    "constant warm-up": lambda x: np.where(x < 0.05, 0.1, 1.0) * (_cosine(x) + 1e-3),
    "falls on plateaus": lambda x: 0.3 ** np.searchsorted([0.3, 0.42, 0.6, 0.8, 0.88], x),
    "linear warm-up from zero": lambda x: _warm(x, 0.3) * (1.001 - x),
    "cosine per epoch": lambda x: 1e-3 + _cosine(np.floor(x * 10) / 10),
}
FRESH_SCHEDULES: dict[str, Schedule] = {
    "exponential warm-up": lambda x: 10 ** (3 * np.minimum(x / 0.1, 1) - 3) * (1.01 - x),
    "cosine to a tenth": lambda x: 0.1 + 0.9 * _cosine(x),
    "grows, then constant": lambda x: 1 - 0.98 * np.exp(-8 * x),
    "cycles that shrink": lambda x: 0.05 + (1 - np.abs((x * 5) % 1 * 2 - 1)) * np.exp(-2 * x),
    "frozen until 30 %": lambda x: np.where(x < 0.3, 0.0, 1.0) * (1.01 - x),
    "restarts with half the peak": lambda x: (
        np.where(x < 0.5, 1, 0.5) * (1e-3 + _cosine(2 * x % 1))
    ),
    "milestones": lambda x: 0.5 ** np.searchsorted([0.5, 0.75, 0.9], x),
    "warm-up in three steps": lambda x: (
        np.select([x < 0.03, x < 0.08], [0.01, 0.1], 1.0) * (1.01 - x)
    ),
    "trapezoid with a floor": lambda x: np.clip(np.minimum(x / 0.1, (1 - x) / 0.4), 0.01, 1),
    "swings of a sine": lambda x: 1.05 + np.sin(2 * np.pi * 9 * x),
}
LR_LENGTHS = (20, 50, 200, 2_000, 20_000)


def healthy_rates(schedules: Mapping[str, Schedule], seed: int) -> Iterator[Case]:
    """Every schedule at several lengths, peaks and intervals of logging."""
    for number, (name, schedule) in enumerate(schedules.items()):
        for length in LR_LENGTHS:
            for draw in range(SEEDS):
                rng = np.random.default_rng(seed + 1_000 * number + 10 * draw + length)
                peak = 10 ** rng.uniform(-5, -1)
                offset = rng.uniform(0, 1 / length) if draw else 0.0
                x = np.linspace(offset, 1, length)
                tags = ("lr/pg0", "lr/pg1") if draw % 2 else ("learning_rate",)
                rates = [
                    make_curve(tag, peak * schedule(x) * scale)
                    for tag, scale in zip(tags, (1, 0.1), strict=False)
                ]
                yield Case(
                    family="learning rates", name=f"{name}, {length} points", run=make_run(*rates)
                )


def sick_rates(schedules: Mapping[str, Schedule], seed: int) -> Iterator[Case]:
    """Constant rates, one large jump, and a schedule that begins anew at a resume."""
    smooth = [s for n, s in schedules.items() if not any(w in n for w in ("restart", "tri"))]
    for number in range(60):
        rng = np.random.default_rng(seed + number)
        length = LR_LENGTHS[number % len(LR_LENGTHS)]
        x = np.linspace(0, 1, length)
        at = int(length * rng.uniform(0.4, 0.7))
        jump = np.where(np.arange(length) < at, 1e-4, 1e-4 * rng.uniform(5, 100))
        yield Case(family="one jump", name=f"jump, {length} points", rule="learning-rate-jump",
                   run=make_run(make_curve("lr", jump)))  # fmt: skip
        rates = smooth[number % len(smooth)](x) * 1e-3
        peak = int(np.argmax(rates))
        late = np.flatnonzero((rates < rates.max() / 4) & (np.arange(length) > peak))
        if len(late) and len(late) < length - 6:
            start = min(int(late[0]) + 1, length - 3)
            again = np.concatenate([rates[:start], rates[peak:][: length - start]])
            resume = Resume(step=float(start), last_step=float(start), superseded=0)
            yield Case(family="reset at a resume", name=f"reset, {length} points",
                       rule="learning-rate-jump", expected=frozenset({"resumed"}),
                       run=make_run(make_curve("lr", again, resumes=[resume])))  # fmt: skip
        flat = np.full(length, 10 ** rng.uniform(-5, -1))
        yield Case(family="constant", name=f"constant, {length} points",
                   rule="constant-learning-rate", run=make_run(make_curve("lr", flat)))  # fmt: skip


# Wall times.

Gaps = Callable[[int, Rng], Floats]


def _jitter(count: int, rng: Rng, sigma: float = 0.2) -> Floats:
    return np.exp(sigma * rng.standard_normal(count))


def _with_pauses(count: int, rng: Rng, factor: float, every: int) -> Floats:
    gaps = _jitter(count, rng)
    gaps[every - 1 :: every] *= factor
    return gaps


def _compiled(count: int, rng: Rng) -> Floats:
    gaps = _jitter(count, rng)
    gaps[: min(20, count // 4)] *= 8
    return gaps


def _overnight(count: int, rng: Rng) -> Floats:
    gaps = _jitter(count, rng)
    gaps[rng.integers(1, count, 3)] += 30_000
    return gaps


TUNING_GAPS: dict[str, Gaps] = {
    "jitter 20 %": _jitter,
    "evaluation of 60 × each 50": lambda n, rng: _with_pauses(n, rng, 60, 50),
    "compilation": _compiled,
    "jitter 50 %": lambda n, rng: _jitter(n, rng, 0.5),
}
HELD_OUT_GAPS: dict[str, Gaps] = {
    "evaluation of 6 × each 20": lambda n, rng: _with_pauses(n, rng, 6, 20),
    "slow loader each 4": lambda n, rng: _with_pauses(n, rng, 5, 4),
    "checkpoints of 9 × each 25": lambda n, rng: _with_pauses(n, rng, 9, 25),
    "nights between": _overnight,
    "Pareto": lambda n, rng: 1 + rng.pareto(2.5, n),
    "whole seconds": lambda n, rng: np.diff(np.floor(np.cumsum(0.3 * _jitter(n + 1, rng)))),
    "autocorrelated": lambda n, rng: np.exp(0.15 * _autocorrelated(n, rng)),
    "a busy machine": lambda n, rng: _jitter(n, rng) * (1 + 0.35 * (rng.random(n) < 0.3)),
}
FRESH_GAPS: dict[str, Gaps] = {
    "evaluation after every other record": lambda n, rng: _with_pauses(n, rng, 3, 2),
    "collection of 15 × each 100": lambda n, rng: _with_pauses(n, rng, 15, 100),
    "gamma": lambda n, rng: rng.gamma(4, 0.25, n),
    "day and night": lambda n, rng: _jitter(n, rng) * (
        1 + 0.15 * np.sin(np.linspace(0, 12, n) + rng.uniform(0, 6))
    ),
    "hundredths of a second": lambda n, rng: np.round(0.05 * _jitter(n, rng), 2) + 0.01,
    "cold caches": lambda n, rng: _jitter(n, rng) * (1 + 3 * np.exp(-np.arange(n) / (0.02 * n))),
    "log-normal 0.8": lambda n, rng: _jitter(n, rng, 0.8),
}  # fmt: skip
TIME_LENGTHS = (45, 100, 500, 5_000)


def _timed(gaps: Floats) -> RunCurves:
    times = 1.7e9 + np.concatenate([[0], np.cumsum(gaps)])
    steps = 50.0 * np.arange(len(times))
    return make_run(make_curve("time/step", np.ones(len(times)), steps=steps, times=times))


def healthy_times(gaps: Mapping[str, Gaps], seed: int) -> Iterator[Case]:
    """Runs of steady speed with pauses and jitter."""
    for number, (name, make) in enumerate(gaps.items()):
        for length in TIME_LENGTHS:
            for draw in range(2 * SEEDS):
                rng = np.random.default_rng(seed + 1_000 * number + 10 * draw + length)
                run = _timed(make(length, rng))
                yield Case(family="wall times", name=f"{name}, {length} gaps", run=run)


def sick_times(gaps: Mapping[str, Gaps], seed: int) -> Iterator[Case]:
    """Runs that become slower, at once or little by little."""
    makers = list(gaps.items())
    factors: dict[str, Callable[[Floats], Floats]] = {
        "half the speed at 70 %": lambda x: np.where(x > 0.7, 2.0, 1.0),
        "100 to 50 % little by little": lambda x: 1 / (1 - 0.5 * x),
        "a third in the last sixth": lambda x: np.where(x > 5 / 6, 3.0, 1.0),
    }
    for fault, factor in factors.items():
        for draw in range(40):
            name, make = makers[draw % len(makers)]
            length = TIME_LENGTHS[draw % len(TIME_LENGTHS)]
            rng = np.random.default_rng(seed + draw + length)
            run = _timed(make(length, rng) * factor(np.linspace(0, 1, length)))
            yield Case(family=fault, name=f"{fault}, {name}, {length} gaps", run=run,
                       rule="slowdown")  # fmt: skip


# Histograms and norms of gradients.


def histogram(tag: str, step: float, values: Floats, bins: int = 30) -> LoggedHistogram:
    """The histogram of `values` as `add_histogram` would write it."""
    counts, edges = np.histogram(values, bins)
    filled = np.flatnonzero(counts)
    kept = slice(int(filled[0]), int(filled[-1]) + 1)
    return LoggedHistogram(
        tag=tag, step=step, time=math.nan,
        lefts=tuple(edges[:-1][kept].tolist()), rights=tuple(edges[1:][kept].tolist()),
        counts=tuple(counts[kept].astype(float).tolist()),
        minimum=float(values.min()), maximum=float(values.max()), total=float(values.sum()),
        number=float(len(values)),
    )  # fmt: skip


def _gradient_run(scales: Sequence[float], draw: Callable[[Rng], Floats], rng: Rng) -> RunCurves:
    records = [histogram("w.grad", i, scale * draw(rng)) for i, scale in enumerate(scales)]
    rates = np.linspace(0.1, 0.01, len(scales))
    return make_run(make_curve("lr", rates), **{"w.grad": records})


def _sparse(rng: Rng) -> Floats:
    return rng.standard_normal(400) * (rng.random(400) < 0.05)


def _heavy(rng: Rng) -> Floats:
    return rng.standard_t(3, 400)


def _normal(rng: Rng) -> Floats:
    return rng.standard_normal(400)


def _scales(kind: str, count: int, rng: Rng) -> Floats:
    x = np.linspace(0, 1, count)
    if kind == "falling":
        return np.exp(-7 * x) * np.exp(0.3 * rng.standard_normal(count))
    if kind == "log-normal":
        return 1e-3 * np.exp(0.7 * rng.standard_normal(count))
    if kind == "rising ten-fold":
        return 10 ** (x - 3)
    if kind == "bursts":
        return 1e-2 * np.where(rng.random(count) < 0.05, 20, 1)
    if kind == "high at first":
        return 1e-2 * (1 + 60 * np.exp(-np.arange(count) / 4))
    if kind == "cyclic":
        return 1e-2 * 10 ** np.sin(2 * np.pi * 5 * x)
    if kind == "rising slowly":
        return 1e-3 * 30**x
    if kind == "Pareto":
        return 1e-3 * (1 + rng.pareto(3, count))
    if kind == "small":
        return 1e-5 * np.exp(0.2 * rng.standard_normal(count))
    return np.full(count, 0.1)


def healthy_gradients(kinds: Sequence[str], seed: int) -> Iterator[Case]:
    """Histograms of gradients, and their norms as scalars."""
    for number, kind in enumerate(kinds):
        for count in (3, 12, 40, 100):
            for draw in range(3 * SEEDS):
                rng = np.random.default_rng(seed + 1_000 * number + 10 * draw + count)
                values = (_normal, _heavy, _sparse)[draw % 3]
                yield Case(family="gradients", name=f"{kind}, {count} records",
                           run=_gradient_run(_scales(kind, count, rng), values, rng))  # fmt: skip
        for length in (50, 500, 5_000):
            for draw in range(2 * SEEDS):
                rng = np.random.default_rng(seed + 1_000 * number + 10 * draw + length)
                norms = _scales(kind, length, rng) * np.exp(0.5 * rng.standard_normal(length))
                run = make_run(make_curve("grad_norm", norms))
                yield Case(family="gradient norms", name=f"{kind}, {length} norms", run=run)


def healthy_weights(seed: int, noise: float) -> Iterator[Case]:
    """Histograms of weights that move, little toward the end."""
    for draw in range(300):
        rng = np.random.default_rng(seed + draw)
        weights, records = rng.standard_normal(300), []
        for i in range(10):
            weights = weights + noise * 0.3**i * rng.standard_normal(300)
            records.append(histogram("layer.weight", i, weights))
        yield Case(family="weights", name=f"weights that move by {noise}",
                   run=make_run(**{"layer.weight": records}))  # fmt: skip


def sick_gradients(seed: int) -> Iterator[Case]:
    """Vanished and exploding gradients, and a frozen weight."""
    for draw in range(20):
        rng = np.random.default_rng(seed + draw)
        count = int(rng.integers(15, 40))
        dead = np.where(np.arange(count) < count - 5, 0.1, 0.0)
        tiny = np.where(np.arange(count) < count - 5, 0.1, 1e-12)
        burst = np.where(np.arange(count) > 0.8 * count, rng.uniform(300, 1_000), 1.0)
        frozen = [histogram("fc.weight", i, np.linspace(-1, 1, 50)) for i in range(5)]
        norms = np.exp(0.3 * rng.standard_normal(1_000))
        stopped, exploded = norms.copy(), norms.copy()
        stopped[700:] = 0.0
        exploded[700:720] *= 60
        for fault, rule, run in (
            ("gradient of zeros", "vanishing-gradient", _gradient_run(dead, _normal, rng)),
            ("gradient of 1e-12", "vanishing-gradient", _gradient_run(tiny, _normal, rng)),
            ("norm of 0", "vanishing-gradient", make_run(make_curve("grad_norm", stopped))),
            ("histogram explodes", "exploding-gradient", _gradient_run(burst, _normal, rng)),
            ("norm explodes", "exploding-gradient", make_run(make_curve("grad_norm", exploded))),
            ("frozen weight", "unchanged-weight", make_run(**{"fc.weight": frozen})),
        ):
            yield Case(family=fault, name=fault, run=run, rule=rule)


# Resumes, plans, ranges.


def resumes(of: CurveSet) -> Iterator[Case]:
    """Runs that were resumed, with and without a jump in the loss there."""
    shapes, noises = list(of.shapes.items()), list(of.noises.items())
    no_validation = make_curve("val/loss", [1.0])
    number = of.seed + 90_000
    for i in range(360):
        number += 1
        rng = np.random.default_rng(number)
        length = int((20, 100, 500, 2_000)[i % 4])
        name, shape = shapes[i % len(shapes)]
        noise_name, noise = noises[(i // len(shapes)) % len(noises)]
        x = np.linspace(0, 1, length)
        at = int(length * rng.uniform(0.3, 0.7))
        resume = Resume(step=float(at), last_step=at + length // 10, superseded=length // 10)
        clean = shape(x, rng)
        yield Case(
            family="resumes",
            name=f"resume in {name}, {noise_name}, {length} points",
            run=make_run(
                make_curve("train/loss", noise(clean, rng), resumes=[resume]), no_validation
            ),
            expected=frozenset({"resumed"}),
        )
        factor, share = ((2.0, 0.05), (1.2, 0.015))[i % 2]
        jumped = _decay(x, 6, 0.6) * np.where(
            x >= x[at], 1 + (factor - 1) * np.exp(-3 * (x - x[at])), 1
        )
        yield Case(
            family=f"resume with loss × {factor}",
            name=f"jump, {length} points",
            rule="jump-at-resume",
            run=make_run(
                make_curve("train/loss", _white(share)(jumped, rng), resumes=[resume]),
                no_validation,
            ),
            expected=frozenset({"resumed"}),
        )


def plans(seed: int) -> Iterator[Case]:
    """Complete and incomplete runs, with and without values outside their range."""
    for draw in range(50):
        rng = np.random.default_rng(seed + draw)
        interval = int(rng.choice((1, 10, 50)))
        steps = np.arange(0, 1_000, interval)
        whole = make_curve("val/acc", rng.uniform(0.2, 0.9, len(steps)), steps=steps)
        cut = make_curve("val/acc", whole.values[: len(steps) // 2], steps=steps[: len(steps) // 2])
        beyond = whole.values.copy()
        beyond[int(rng.integers(len(steps)))] = 1.2
        ranges = {"val/acc": (0.0, 1.0)}
        yield Case(family="plans and ranges", name="complete", ranges=ranges,
                   run=make_run(whole, planned=1_000))  # fmt: skip
        yield Case(family="half of the plan", name="half", rule="ended-before-plan",
                   run=make_run(cut, planned=1_000))  # fmt: skip
        yield Case(family="accuracy of 1.2", name="beyond", rule="out-of-range", ranges=ranges,
                   run=make_run(make_curve("val/acc", beyond, steps=steps)))  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CaseSet:
    """Everything that the runs of one set are made of."""

    curves: CurveSet
    schedules: Mapping[str, Schedule]
    gaps: Mapping[str, Gaps]
    gradients: Sequence[str]
    moves: float  # of weights, between the first two records

    def cases(self) -> Iterator[Case]:
        """All runs of the set, healthy ones and sick ones."""
        seed = self.curves.seed
        yield from self.curves.healthy_losses()
        yield from self.curves.healthy_scores()
        yield from sick_curves(self.curves)
        yield from healthy_rates(self.schedules, seed)
        yield from sick_rates(self.schedules, seed)
        yield from healthy_times(self.gaps, seed)
        yield from sick_times(self.gaps, seed)
        yield from healthy_gradients(self.gradients, seed)
        yield from healthy_weights(seed, self.moves)
        yield from sick_gradients(seed)
        yield from resumes(self.curves)
        yield from plans(seed)


TUNING = CaseSet(
    curves=CurveSet(seed=1_000, shapes=TUNING_SHAPES, noises=TUNING_NOISES),
    schedules=TUNING_SCHEDULES,
    gaps=TUNING_GAPS,
    gradients=("falling", "constant"),
    moves=0.1,
)
HELD_OUT = CaseSet(
    curves=CurveSet(seed=700_000, shapes=HELD_OUT_SHAPES, noises=HELD_OUT_NOISES),
    schedules=HELD_OUT_SCHEDULES,
    gaps=HELD_OUT_GAPS,
    gradients=("log-normal", "rising ten-fold", "bursts", "small"),
    moves=0.02,
)
FRESH = CaseSet(
    curves=CurveSet(seed=3_000_000, shapes=FRESH_SHAPES, noises=FRESH_NOISES),
    schedules=FRESH_SCHEDULES,
    gaps=FRESH_GAPS,
    gradients=("high at first", "cyclic", "rising slowly", "Pareto"),
    moves=0.005,
)
