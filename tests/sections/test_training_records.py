"""Pictures, histograms, tables and groups of runs: what is kept, and that it is right."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from reportgen.sections.training.curve import Curve, MetricName, place_points
from reportgen.sections.training.files import (
    MOST_PER_TAG,
    Normalization,
    choose_images,
    clean_svg,
    encode,
    spread,
)
from reportgen.sections.training.groups import Member, group_runs, mean_curve, summarize_group
from reportgen.sections.training.records import resample, summarize_histograms, without_host
from reportgen.training_logs.log_run import UNKNOWN_TIME, LoggedHistogram, LoggedImage, Payload

LOWER = MetricName(role="none", family="loss", direction="lower", kind="metric", trend=True)


def png(pixels: np.ndarray) -> bytes:
    target = io.BytesIO()
    Pillow.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def image(content: bytes, tag: str = "a", step: float = 0, size: int | None = None) -> LoggedImage:
    payload = Payload(read=lambda: content, size_bytes=size or len(content))
    return LoggedImage(tag=tag, step=step, time=UNKNOWN_TIME, payload=payload)


def curve(steps: list[float], values: list[float], times: list[float] | None = None) -> Curve:
    return Curve(
        tag="loss",
        name=LOWER,
        steps=np.array(steps, dtype=float),
        values=np.array(values, dtype=float),
        times=np.array(times if times is not None else [math.nan] * len(steps), dtype=float),
    )


# Pictures -------------------------------------------------------------------------------------


def test_a_normalized_picture_is_shown_in_its_own_colors() -> None:
    original = np.full((4, 5, 3), (200, 120, 60), dtype=np.uint8)
    mean, std = (0.2, 0.2, 0.1), (0.9, 0.6, 0.4)
    logged = ((original / 255 - mean) / std).clip(0, 1) * 255
    encoded = encode(image(png(logged.round().astype(np.uint8))), Normalization(mean=mean, std=std))
    with Pillow.open(io.BytesIO(encoded.content)) as shown:
        assert np.abs(np.asarray(shown).astype(int) - original).max() <= 1


def test_a_gray_picture_stays_gray_under_a_mean_of_one_channel() -> None:
    encoded = encode(
        image(png(np.full((3, 3), 51, dtype=np.uint8))), Normalization(mean=(0.1,), std=(0.5,))
    )
    with Pillow.open(io.BytesIO(encoded.content)) as shown:
        assert (shown.mode, shown.getpixel((0, 0))) == ("L", round((0.2 * 0.5 + 0.1) * 255))


def test_a_small_picture_is_kept_byte_for_byte_and_a_large_one_is_made_smaller() -> None:
    small = png(np.zeros((8, 8), dtype=np.uint8))
    assert encode(image(small), None).content == small
    noise = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8)
    large = encode(image(png(noise)), None)
    assert (large.width, large.height) == (1200, 900)
    assert len(large.content) < 120_000


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n broken", b"GIF89a", b"text"])
def test_what_is_no_picture_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable picture"):
        encode(image(content), None)


def test_a_huge_payload_is_refused_before_it_is_read() -> None:
    def read() -> bytes:
        raise AssertionError("read")

    hostile = LoggedImage(
        tag="a", step=0, time=0, payload=Payload(read=read, size_bytes=10 * 2**30)
    )
    with pytest.raises(ValueError, match="too large"):
        encode(hostile, None)


def test_an_svg_loses_its_scripts_and_what_it_loads() -> None:
    hostile = (
        b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"><script>alert(2)</script>'
        b'<g style="fill:url(http://x/y)"><circle r="3" onclick="alert(3)"/></g>'
        b'<a href="javascript:alert(4)"><text>kept</text></a><image href="http://x/z.png"/></svg>'
    )
    clean = clean_svg(hostile)
    assert b"alert" not in clean
    assert b"http://x" not in clean
    assert b"<circle" in clean
    assert b"kept" in clean
    with pytest.raises(ValueError, match="entities"):
        clean_svg(b'<!DOCTYPE svg [<!ENTITY a "b">]><svg>&a;</svg>')


def test_of_many_pictures_the_ends_and_some_between_are_kept() -> None:
    many = [image(b"", tag, step) for tag in ("a", "b") for step in range(10_000)]
    chosen = choose_images(many)
    steps = [each.step for each in chosen if each.tag == "b"]
    assert len(steps) == MOST_PER_TAG
    assert (steps[0], steps[-1]) == (0, 9_999)


@given(st.lists(st.integers(), max_size=60), st.integers(2, 20))
def test_spread_keeps_the_order_and_both_ends(items: list[int], most: int) -> None:
    kept = spread(items, most)
    assert len(kept) <= most
    if items:
        assert (kept[0], kept[-1]) == (items[0], items[-1])


# Histograms -----------------------------------------------------------------------------------


def histogram(
    step: float, lefts: list[float], width: float, counts: list[float]
) -> LoggedHistogram:
    return LoggedHistogram(
        tag="w",
        step=step,
        time=0,
        lefts=tuple(lefts),
        rights=tuple(left + width for left in lefts),
        counts=tuple(counts),
    )


@given(
    st.lists(st.floats(0, 100), min_size=1, max_size=30).filter(lambda counts: sum(counts) > 1e-6)
)
def test_resampled_shares_add_up_to_one(counts: list[float]) -> None:
    record = histogram(0, [0.3 * i - 2 for i in range(len(counts))], 0.3, counts)
    edges = np.linspace(-2.5, 8, 41)
    assert resample(record, edges).sum() == pytest.approx(1)


def test_equal_buckets_are_kept_as_they_are() -> None:
    record = histogram(0, [0.0, 1.0, 2.0, 3.0], 1.0, [1, 0, 2, 1])
    shares = resample(record, np.array([0.0, 1, 2, 3, 4]))
    assert shares.tolist() == [0.25, 0, 0.5, 0.25]


def test_histograms_of_a_tag_share_one_range_and_are_evenly_chosen() -> None:
    records = [histogram(step, [step / 10], 1.0, [5]) for step in range(100)]
    (found,) = summarize_histograms(records)
    assert (found.records, len(found.steps), found.low, found.high) == (100, 24, 0.0, 10.9)
    assert (found.steps[0], found.steps[-1]) == (0, 99)


def test_a_histogram_of_one_value_has_a_range() -> None:
    (found,) = summarize_histograms([histogram(1, [3.0], 0.0, [7])])
    assert found.low < 3.0 < found.high
    assert sum(found.counts[0]) == pytest.approx(1)


# Groups and axes ------------------------------------------------------------------------------


def members(*names: str, **hyperparameters: float) -> list[Member]:
    tags = frozenset({"loss"})
    return [Member(name=n, tags=tags, hyperparameters=hyperparameters) for n in names]


def test_runs_that_differ_in_a_seed_belong_together() -> None:
    assert group_runs(members("a/seed_1", "a/seed_2"), ()) == {
        "a/seed_1": "a/seed_*",
        "a/seed_2": "a/seed_*",
    }
    assert group_runs(members("version_1", "version_2"), ()) == {}
    assert len(group_runs(members("run_1", "run_2", "run_3"), ())) == 3
    different = [*members("seed_1", lr=0.1), *members("seed_2", lr=0.2)]
    assert group_runs(different, ()) == {}


def test_the_manifest_says_which_runs_to_average() -> None:
    grouped = group_runs(members("a", "b", "x"), ("[ab]",))
    assert grouped == {"a": "[ab]", "b": "[ab]"}


def test_the_mean_of_runs_of_unequal_length_is_over_those_that_are_there() -> None:
    mean = mean_curve([curve([0, 1, 2, 3], [1, 1, 1, 1]), curve([0, 2], [3, 5])])
    assert mean.steps.tolist() == [0, 1, 2, 3]
    assert mean.mean.tolist() == [2, 2.5, 3, 1]
    assert mean.high.tolist() == [3, 4, 5, 1]


def test_a_group_is_summarized_at_the_last_common_step() -> None:
    group = summarize_group("g", "loss", [curve([0, 1, 2], [4, 3, 2]), curve([0, 1], [2, 1])])
    assert group is not None
    assert (group.at_step, group.mean, group.low, group.high) == (1, 2, 1, 3)
    assert group.deviation == pytest.approx(math.sqrt(2))
    assert group.best_mean == 1.5


def test_points_are_placed_by_epoch_time_or_order() -> None:
    epoch = curve([0, 10], [0, 1])
    loss = curve([0, 5, 10], [3, 2, 1], [100.0, 1900.0, 3700.0])
    run = {"epoch": epoch, "loss": loss}
    assert place_points(loss, "epoch", run)[0].tolist() == [0, 0.5, 1]
    assert place_points(loss, "relative time", run)[0].tolist() == [0, 0.5, 1]
    assert place_points(loss, "order", run)[0].tolist() == [0, 1, 2]
    assert place_points(epoch, "wall time", run)[1] == "step"
    stuck = curve([0, 0, 0], [1, 2, 3])
    assert place_points(stuck, "step", {})[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run/events.out.tfevents.17.my-host.lan.12.0", "run/events.out.tfevents.17.12.0"),
        ("events.out.tfevents.17.host", "events.out.tfevents.17"),
        ("events.out.tfevents.17.host.3.9.v2 is empty", "events.out.tfevents.17.3.9.v2 is empty"),
        ("events.out.tfevents.17.v2", "events.out.tfevents.17.v2"),
        ("metrics.csv", "metrics.csv"),
    ],
)
def test_names_of_event_files_lose_the_host(text: str, expected: str) -> None:
    assert without_host(text) == expected
