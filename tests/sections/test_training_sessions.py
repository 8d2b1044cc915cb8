"""Resumes, second attempts, repeats and mixed units: which points stay, and which do not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.sections.training.sessions import Attempt, join_sessions
from reportgen.training_logs.log_run import UNKNOWN_TIME, LogRun, Session

Points = Sequence[tuple[float, float, float]]  # step, value, time


def make_run(*sessions: dict[str, Points], purge: dict[int, int] | None = None) -> LogRun:
    """A run whose sessions hold these points by tag."""
    run = LogRun(name="run", format="tensorboard")
    for number, tags in enumerate(sessions):
        run.sessions.append(Session(file=f"f{number}", purge_step=(purge or {}).get(number)))
        for tag, points in tags.items():
            for step, value, time in points:
                run.series(tag).append(step, value, time, number)
    return run


def points(steps: Sequence[float], value: float, start: float = 0.0, every: float = 1.0) -> Points:
    """One point a step, `every` seconds apart."""
    return [(step, value, start + every * i) for i, step in enumerate(steps)]


def only(attempts: tuple[Attempt, ...]) -> Attempt:
    (attempt,) = attempts
    return attempt


def test_a_resume_replaces_later_points_and_lists_them() -> None:
    run = make_run(
        {"loss": points(range(10), 1.0), "val": points([0, 5], 1.0)},
        {"loss": points(range(6, 12), 2.0, start=100), "val": points([10], 2.0, start=100)},
    )
    attempt = only(join_sessions(run))
    loss = attempt.tags["loss"]
    assert loss.steps.tolist() == list(range(12))
    assert loss.values.tolist() == [1.0] * 6 + [2.0] * 6
    assert [(r.step, r.last_step, r.superseded) for r in loss.resumes] == [(6, 9, 4)]
    assert [(r.tag, r.from_step, r.to_step, r.points) for r in attempt.replaced] == [
        ("loss", 6, 9, 4)
    ]
    assert attempt.tags["val"].steps.tolist() == [0, 5, 10]


def test_a_purge_step_decides_where_later_points_win() -> None:
    run = make_run(
        {"a": points(range(10), 1.0), "b": points(range(10), 1.0)},
        {"a": points([8, 9], 2.0, start=50)},
        purge={1: 6},
    )
    attempt = only(join_sessions(run))
    assert attempt.tags["a"].steps.tolist() == [0, 1, 2, 3, 4, 5, 8, 9]
    assert attempt.tags["b"].steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_return_to_the_first_step_is_a_second_attempt() -> None:
    run = make_run({"loss": points(range(10), 1.0)}, {"loss": points(range(4), 2.0, start=60)})
    first, second = join_sessions(run)
    assert first.tags["loss"].values.tolist() == [1.0] * 10
    assert second.tags["loss"].values.tolist() == [2.0] * 4
    assert (first.sessions, second.sessions) == ({0}, {1})


def test_appended_runs_without_wall_times_are_attempts() -> None:
    nowhere = [(float(e), 0.5, UNKNOWN_TIME) for e in (1, 2, 3, 1, 2, 1, 2, 3, 4)]
    attempts = join_sessions(make_run({"val/loss": nowhere}))
    assert [a.tags["val/loss"].steps.tolist() for a in attempts] == [
        [1, 2, 3], [1, 2], [1, 2, 3, 4],
    ]  # fmt: skip


def test_repeats_without_a_pause_stay_and_are_counted() -> None:
    steps = [*range(100), *range(90, 200)]
    attempt = only(join_sessions(make_run({"foo": points(steps, 1.0, every=1e-4)})))
    assert (len(attempt.tags["foo"].steps), attempt.tags["foo"].repeats) == (210, 10)
    assert attempt.tags["foo"].resumes == ()


def test_the_same_steps_after_a_pause_are_a_resume() -> None:
    before, after = points(range(100), 1.0), points(range(90, 200), 2.0, start=1000)
    attempt = only(join_sessions(make_run({"foo": [*before, *after]})))
    assert attempt.tags["foo"].steps.tolist() == list(range(200))
    assert attempt.tags["foo"].resumes[0].superseded == 10


def test_writers_at_the_same_time_keep_every_point() -> None:
    run = make_run(
        {"loss": points(range(10), 1.0, every=10)},
        {"loss": points(range(5, 10), 3.0, start=5, every=10)},
    )
    loss = only(join_sessions(run)).tags["loss"]
    assert (len(loss.steps), loss.repeats) == (15, 5)


def test_epochs_among_batches_are_drawn_in_the_order_of_the_log() -> None:
    steps = [
        s for epoch in range(1, 6) for s in (*range(500 * epoch, 500 * epoch + 400, 100), epoch)
    ]
    tag = only(join_sessions(make_run({"loss": points(steps, 1.0)}))).tags["loss"]
    assert tag.unit_change == (800, 1)
    assert tag.steps.tolist() == list(range(len(steps)))


def test_a_later_file_with_later_steps_goes_on_without_loss() -> None:
    run = make_run({"loss": points(range(5), 1.0)}, {"loss": points(range(5, 9), 1.0, start=30)})
    loss = only(join_sessions(run)).tags["loss"]
    assert loss.steps.tolist() == list(range(9))
    assert loss.resumes[0].superseded == 0


def test_an_empty_run_is_one_empty_attempt() -> None:
    assert only(join_sessions(LogRun(name="", format="csv"))).tags == {}


@pytest.mark.filterwarnings("error")
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=20), min_size=1, max_size=4))
def test_every_point_is_kept_or_listed_as_replaced(sessions: list[list[int]]) -> None:
    run = make_run(
        *({"loss": points(steps, 1.0, start=100.0 * i)} for i, steps in enumerate(sessions))
    )
    attempts = join_sessions(run)
    kept = sum(len(a.tags["loss"].steps) for a in attempts if "loss" in a.tags)
    replaced = sum(r.points for a in attempts for r in a.replaced)
    assert kept + replaced == sum(map(len, sessions))
    for attempt in attempts:
        for tag in attempt.tags.values():
            assert bool((np.diff(tag.steps) >= 0).all())
