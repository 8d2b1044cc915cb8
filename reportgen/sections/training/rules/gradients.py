"""Rules on gradients and weights."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.result import Diagnosis, Training
from reportgen.sections.training.rules.evidence import (
    count_in,
    hits_of,
    step_of,
    value_of,
)


@rule(
    "TRN019",
    Severity.WARNING,
    advice="look for a detached branch, a saturated activation or a dead ReLU between these "
    "parameters and the loss; with float16 use a GradScaler",
)
def vanishing_gradient(result: Training) -> Iterator[Hit]:
    """A gradient whose last histograms are all zeros, or a gradient norm that ends at zero.

    In each of the last three histograms 99 % of values are around zero and none is larger than
    1e-7, or all values are equal. Of a gradient norm, the last 2 % of points are below 1e-7. Many
    zeros alone are not reported: gradients of embeddings are sparse.
    """
    return hits_of(
        result,
        "vanishing-gradient",
        lambda found: (
            f"{_tags_of(found)}largest absolute value {value_of(found.evidence, 'largest')} from "
            f"step {step_of(found.evidence, 'first_step')} to "
            f"{step_of(found.evidence, 'last_step')} (n = {found.points:,})"
        ),
    )


@rule(
    "TRN020",
    Severity.WARNING,
    advice="clip gradients and lower the learning rate; inspect the batch of that step",
)
def exploding_gradient(result: Training) -> Iterator[Hit]:
    """A gradient far above its earlier values.

    The largest absolute value of a histogram is more than 100 × the median of ten or more earlier
    ones, or a gradient norm is above 10 × its running median for three points in a row.
    """
    return hits_of(
        result,
        "exploding-gradient",
        lambda found: (
            f"{value_of(found.evidence, 'largest')} at step "
            f"{step_of(found.evidence, 'step')}, median before {value_of(found.evidence, 'usual')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN021",
    Severity.WARNING,
    advice="pass these parameters to the optimizer; if they are frozen on purpose, list TRN021 "
    "under ignore in the manifest",
)
def unchanged_weight(result: Training) -> Iterator[Hit]:
    """A weight whose last three histograms are identical.

    Minimum, maximum and sum are equal while the learning rate, if logged, is above zero. Parameters
    frozen on purpose look the same.
    """
    return hits_of(
        result,
        "unchanged-weight",
        lambda found: (
            f"{_tags_of(found)}{found.evidence['tags']} of "
            f"{count_in(found.evidence, 'weights', 'weight')} unchanged from step "
            f"{step_of(found.evidence, 'first_step')} to "
            f"{step_of(found.evidence, 'last_step')} (n = {found.points:,})"
        ),
    )


def _tags_of(found: Diagnosis) -> str:
    """A prefix with the tags of a diagnosis of several tags: its place names only the first."""
    tags = int(found.evidence["tags"])
    if tags == 1:
        return ""
    more = ", …" if str(found.evidence["named"]).count(", ") < tags - 1 else ""
    return f"{tags:,} tags ({found.evidence['named']}{more}): "
