"""Sentences about checkpoints and models."""

from __future__ import annotations

import pytest

from reportgen.compare.result import Conversion, Edit, PathPair, StateDictDiff
from reportgen.compare.wording import checkpoint_sentence, edit_line, signed_percent

QKV = Conversion(kind="split", old=("qkv.weight",), new=("q.weight", "k.weight", "v.weight"))


@pytest.mark.parametrize(
    ("diff", "end"),
    [
        (StateDictDiff(loads=True, verdict="loads"), "loads as it is."),
        (
            StateDictDiff(
                loads=False, verdict="rename", renamed=(PathPair(old="fc.bias", new="head.bias"),)
            ),
            "loads with 1 renamed key.",
        ),
        (
            StateDictDiff(loads=False, verdict="rename", unused=("fc.bias",)),
            "loads with 1 tensor left out.",
        ),
        (
            StateDictDiff(
                loads=False,
                verdict="convert",
                renamed=(PathPair(old="a", new="b"), PathPair(old="c", new="d")),
                conversions=(QKV,),
                unused=("e",),
            ),
            "loads with 2 renamed keys, 1 tensor converted (split) and 1 tensor left out.",
        ),
        (
            StateDictDiff(loads=False, verdict="cannot", without_source=("fc.weight",)),
            "does not load: the new model has no source for 1 tensor (fc.weight).",
        ),
    ],
)
def test_a_checkpoint_is_described_by_what_must_be_done(diff: StateDictDiff, end: str) -> None:
    assert checkpoint_sentence(diff) == f"A checkpoint of the baseline {end}"


def test_an_edit_is_a_mark_a_place_and_words() -> None:
    line = edit_line(
        Edit(kind="changed", old="a.b", new="a.b", field="stride", before="1", after="2", macs=-9)
    )
    assert (line.mark, line.place, line.words) == ("Δ", "a.b", "stride 1 → 2")
    assert line.cost == "−9 MACs per sample"
    moved = edit_line(Edit(kind="moved", old="conv1", new="stem.0", also=("stem.1",)))
    assert (moved.mark, moved.place) == ("→", "conv1 → stem.0 and 1 more")


@pytest.mark.parametrize(
    ("percent", "text"),
    [(4.21, "+4.2 %"), (-0.01, "−<0.1 %"), (264_000.0, "+264,000 %"), (None, "")],
)
def test_percentages_keep_their_sign(percent: float | None, text: str) -> None:
    assert signed_percent(percent) == text
