"""The behavior section of a model: every verdict, with and without evidence."""

from __future__ import annotations

from dataclasses import replace

from reportgen.sections.behavior import (
    Behavior,
    ModeStats,
    ModuleGroup,
    OperatorCounts,
    OutputForm,
    Probe,
)

_LOGITS = (OutputForm(key="logits", dtype="float32", shape=(2, 1000)),)


def behavior(*, baked_in: bool = False, trouble: bool = False) -> Behavior:
    """A model with dropout; `baked_in` fixes its resolution, `trouble` breaks half the probes."""
    found = Behavior(
        batch=2,
        seed=0,
        method="fake",
        evaluation=ModeStats(
            outputs=_LOGITS, operators=45, written_bytes=145_383_232, saved_bytes=None
        ),
        training=ModeStats(
            outputs=_LOGITS, operators=53, written_bytes=145_514_304, saved_bytes=146_710_528
        ),
        operators=(
            OperatorCounts(operator="aten.bernoulli_", evaluation=0, training=2),
            OperatorCounts(operator="aten.mul", evaluation=0, training=2),
        ),
        modules=(
            ModuleGroup(
                type="Dropout",
                reason="drops with p = 0.5",
                paths=("classifier.2", "classifier.5"),
            ),
        ),
        changed_buffers=(),
        remarks=(),
        probes=_probes(baked_in=baked_in),
    )
    return _troubled(found) if trouble else found


def _probes(*, baked_in: bool) -> tuple[Probe, ...]:
    return (
        Probe(
            name="modes_agree",
            claim="Same output in train and eval mode",
            verdict="no",
            sentence="2 modules behave differently in training mode; the outputs have the same "
            "form and differ: logits by up to 0.44.",
            where=("classifier.2", "classifier.5"),
            expected=False,
        ),
        Probe(
            name="repeatable",
            claim="Two evaluation passes give the same output",
            verdict="yes",
            sentence="Two evaluation passes over the same inputs agree bit for bit.",
        ),
        Probe(
            name="batch_of_one",
            claim="Batch size 1 matches batch size n",
            verdict="yes",
            sentence="A sample gives the same output alone and in a batch of 2, within rounding.",
        ),
        Probe(
            name="batches",
            claim="Any batch size runs",
            verdict="yes",
            sentence="Batches of 1, 2, 3 and 9 run.",
        ),
        _resolution(baked_in=baked_in),
        Probe(
            name="gradients",
            claim="Every parameter gets a gradient",
            verdict="not run",
            sentence="It would need 1.2 T operations, and 310.0 G are left in this model's budget.",
        ),
    )


def _resolution(*, baked_in: bool) -> Probe:
    claim, name = "Other sizes of height and width", "size_height_and_width"
    if baked_in:
        return Probe(
            name=name,
            claim=claim,
            verdict="no",
            sentence="Height and width are fixed: only 224 runs, not 192, 225 and 256.",
            evidence=(
                "192: fails, AssertionError: Wrong image height! Expected 224 but got 192! "
                "(in the model's own forward, vision_transformer.py:268)",
            ),
            expected=False,
        )
    return Probe(
        name=name,
        claim=claim,
        verdict="yes",
        sentence="Height and width can be 192, 225 and 256 too; the outputs keep their shapes.",
        expected=False,
    )


def _troubled(found: Behavior) -> Behavior:
    """A model that wants targets in training mode and mixes its samples."""
    mixing = Probe(
        name="independent",
        claim="Samples are independent",
        verdict="no",
        sentence="The output for a sample depends on the other samples in the batch of 2, first in "
        "decoder.layers.1.norm3 (BatchNorm1d).",
        evidence=("loss: not compared, since no single axis scales with the batch",),
        where=("decoder.layers.1.norm3",),
    )
    mode = ModeStats(
        outputs=(),
        operators=None,
        written_bytes=None,
        saved_bytes=None,
        error="ValueError: targets should not be none when in training mode",
    )
    return replace(
        found,
        method="real",
        training=mode,
        operators=(),
        modules=(),
        changed_buffers=("decoder.layers.1.norm3.running_mean",),
        remarks=(
            "1 × BatchNorm1d keeps no running statistics and uses the batch's in evaluation too: "
            "decoder.layers.1.norm3",
        ),
        probes=(*found.probes[1:2], mixing),
    )
