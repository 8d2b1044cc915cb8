"""The rules of the training section: each reports one kind of diagnosis, in one sentence.

`benchmarks/training_verdicts.md` has the false alarms and misses of every rule, measured on
generated runs and on real logs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.result import Diagnosis, Run, Training
from reportgen.sections.training.wording import count_of, format_step, format_value

Evidence = dict[str, float | int | str]

_MOST_HITS = 30  # of one rule; a page of hundreds of findings is not read


@rule(
    "TRN001",
    Severity.ERROR,
    advice="restart from a checkpoint before that step with a lower learning rate or gradient "
    "clipping; torch.autograd.set_detect_anomaly(True) names the operator",
)
def ends_in_non_finite(result: Training) -> Iterator[Hit]:
    """A loss or a metric whose last value is NaN or infinite.

    From the reported step to the end the curve has no finite value, so nothing was learned from
    there on. For a gradient norm, the last three values must be non-finite: with mixed precision
    single steps overflow, and the loss scaler skips them. Other curves need one point only.
    """
    return _hits(result, "ends-in-non-finite", _ends_in_non_finite)


def _ends_in_non_finite(found: Diagnosis) -> str:
    e = found.evidence
    before = ""
    if "last_finite_value" in e:
        before = f"; the last finite value is {_value(e, 'last_finite_value')}"
    return (
        f"non-finite from step {_step(e, 'since_step')} to the end, "
        f"the last {int(e['to_the_end']):,} of {count_of(found.points, 'value')}{before}"
    )


@rule(
    "TRN002",
    Severity.WARNING,
    advice="check these steps for empty batches, log(0), division by zero and half-precision "
    "overflow; clip gradients",
)
def non_finite_values(result: Training) -> Iterator[Hit]:
    """NaN or infinite values in a loss or a metric that is finite again later.

    The run went on, but such a step may have put NaN into the optimizer state or into running
    statistics. A score that is never finite, such as the accuracy of a class without samples, is
    reported here too. Single overflows of a gradient norm are ignored: mixed precision causes
    them.
    """
    return _hits(result, "non-finite-values", _non_finite_values)


def _non_finite_values(found: Diagnosis) -> str:
    e = found.evidence
    first, last = _step(e, "first_step"), _step(e, "last_step")
    place = f"at step {first}" if first == last else f"between steps {first} and {last}"
    after = _count(e, "finite_after", "finite value") if e["finite_after"] else "no finite value"
    values = count_of(found.points, "value")
    return f"{_non_finite(e)} out of {values}, {place}, followed by {after}"


def _non_finite(e: Evidence) -> str:
    parts = [(int(e["nans"]), "NaN"), (int(e["infinities"]), "infinite")]
    return " and ".join(f"{number:,} {word}" for number, word in parts if number)


@rule(
    "TRN003",
    Severity.NOTE,
    advice="no action needed if the metric is undefined at first; do not log such points",
)
def infinity_at_the_start(result: Training) -> Iterator[Hit]:
    """A metric that is infinite in its first one or two points only.

    Some losses overflow before the first update, and some metrics are undefined until then. For
    a gradient norm up to 20 points may be infinite, while the loss scale is being found.
    """
    return _hits(
        result,
        "infinity-at-the-start",
        lambda found: (
            f"infinite up to step {_step(found.evidence, 'last_step')}, "
            f"followed by {_count(found.evidence, 'finite_after', 'finite value')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN004",
    Severity.ERROR,
    advice="restart from a checkpoint before that step; lower the learning rate, lengthen the "
    "warm-up or clip gradients",
)
def diverged(result: Training) -> Iterator[Hit]:
    """A training metric that became much worse than its best and did not recover.

    The median of the last 5 % of points is worse than the best running median by more than half
    of the progress made, six standard errors and a fifth of the best value. Every running median
    in those points is worse by more than a quarter of the progress and four standard errors.
    Validation curves are not judged: overfitting makes them worse, too. Needs 20 points, and a
    best value before the last 5 %.
    """
    return _hits(result, "diverged", _diverged)


def _diverged(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"diverged at step {_step(e, 'step')}: {_value(e, 'last')} over the last "
        f"{_count(e, 'last_points', 'point')}, best {_value(e, 'best')} at step "
        f"{_step(e, 'best_step')} (n = {found.points:,})"
    )


@rule(
    "TRN005",
    Severity.WARNING,
    advice="check that the optimizer holds the parameters and that gradients reach them; overfit "
    "a single batch; try learning rates 10 × higher and lower",
)
def not_learning(result: Training) -> Iterator[Hit]:
    """A training metric that ends where it began.

    The last fifth of the points is better than the first points by less than three standard
    errors. It is better than the first fifth by less than three standard errors and by less than
    2 % or one standard error, whichever is more. A fifth counts as the mean of its middle half.
    The best value is not used: the minimum of noise always looks like progress. Needs 50 points.
    Logs that begin after a fifth of the steps are not judged, nor are accuracies and other shares
    above 0.98 from the start.
    """
    return _hits(result, "not-learning", _not_learning)


@rule(
    "TRN006",
    Severity.NOTE,
    advice="no action needed before the warm-up ends; build the report again then",
)
def not_learning_in_warm_up(result: Training) -> Iterator[Hit]:
    """A training metric that ends where it began, while the learning rate still rises.

    As not-learning, in a run whose logged learning rate has never fallen.
    """
    return _hits(result, "not-learning-in-warm-up", _not_learning)


def _not_learning(found: Diagnosis) -> str:
    e = found.evidence
    each = _count(e, "points_of_each", "point")
    return (
        f"no improvement: {_value(e, 'first')} over the first {each} and {_value(e, 'last')} over "
        f"the last {each}, steps {_step(e, 'first_step')} to {_step(e, 'last_step')}, "
        f"noise ±{_value(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN007",
    Severity.NOTE,
    advice="stop earlier next time, or lower the learning rate where the plateau begins",
)
def plateau(result: Training) -> Iterator[Hit]:
    """A metric that made less than 1 % of its total progress in the last 30 % of points.

    It was about as good as its best before those points. A run that converged looks the same, so
    this is a note. The message says "converged" where the learning rate fell to a tenth, or
    training and validation ended at similar values. Needs 10 points in the last 30 %.
    """
    return _hits(result, "plateau", _plateau)


def _plateau(found: Diagnosis) -> str:
    e = found.evidence
    reading = " (converged)" if e["reading"] == "converged" else ""
    return (
        f"flat at {_value(e, 'value')} since step {_step(e, 'step')}{reading}: changed by "
        f"{_value(e, 'gain')} over the last {_count(e, 'last_points', 'point')}, "
        f"total progress {_value(e, 'progress')} (n = {found.points:,})"
    )


@rule(
    "TRN008",
    Severity.WARNING,
    advice="use the checkpoint of the best step; add regularization or data augmentation, or "
    "stop earlier",
)
def overfitting(result: Training) -> Iterator[Hit]:
    """A validation metric clearly past its best while the training metric still improves.

    The best running median over 3 evaluations (over 5 from 60 evaluations on) lies at least three
    evaluations and a fifth of all evaluations back. The end is worse by more than 5 % of the
    best, a tenth of the progress and three times the noise. Since the best, the training metric
    improved by more than 2 % of its range. An accuracy on the same set that still rises is named:
    the model is then over-confident rather than worse. Needs 8 evaluations.
    """
    return _hits(result, "overfitting", _overfitting)


def _overfitting(found: Diagnosis) -> str:
    e = found.evidence
    still = f"; {e['still_improving']} still improves" if e["still_improving"] else ""
    return (
        f"best {_value(e, 'best')} at step {_step(e, 'step')}, worsened to {_value(e, 'last')} at "
        f"step {_step(e, 'last_step')} while {e['train_tag']} improved from "
        f"{_value(e, 'train_at_best')} to {_value(e, 'train_last')}{still} (n = {found.points:,})"
    )


@rule(
    "TRN009",
    Severity.NOTE,
    advice="use the checkpoint of the best step",
)
def past_the_best(result: Training) -> Iterator[Hit]:
    """A validation metric whose last value is worse than its best.

    Worse by more than 2 % and by more than the noise explains, given the number of evaluations
    that the best is the best of. The training metric is not considered. Scores whose tag names
    neither train nor validation are judged too. Needs 5 evaluations.
    """
    return _hits(result, "past-the-best", _past_the_best)


def _past_the_best(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"best {_value(e, 'best')} at step {_step(e, 'best_step')}, last {_value(e, 'last')} at "
        f"step {_step(e, 'last_step')}, {_count(e, 'checks_since', 'evaluation')} later "
        f"(n = {found.points:,})"
    )


@rule(
    "TRN010",
    Severity.WARNING,
    advice="clip gradients, lower the learning rate or Adam's beta2, and inspect the batches of "
    "these steps",
)
def repeated_or_lasting_spikes(result: Training) -> Iterator[Hit]:
    """Three or more large spikes at irregular intervals, or one large spike that lasts.

    A spike is large if it more than doubles the level before it and takes back more than a
    quarter of the progress; of three or more spikes each must exceed four times the level. A
    spike lasts if it takes a quarter of the window (n / 20 points, 20 to 200) or never ends. A
    rise that follows a restart of a logged learning rate is ignored. Needs 40 points.
    """
    return _hits(result, "repeated-or-lasting-spikes", _spikes)


@rule(
    "TRN011",
    Severity.NOTE,
    advice="no action needed for one spike that recovers; inspect the batch of that step",
)
def recovered_spike(result: Training) -> Iterator[Hit]:
    """Few or small spikes that the curve recovered from.

    A spike exceeds the median of the points before it by 25 %, by 5 % of the range of the curve,
    and by 6 standard deviations in three points in a row or by 10 in a single one. Needs 40
    points.
    """
    return _hits(result, "recovered-spike", _spikes)


def _spikes(found: Diagnosis) -> str:
    e = found.evidence
    lost = f", {int(e['not_recovered']):,} without recovery" if e["not_recovered"] else ""
    return (
        f"{_count(e, 'spikes', 'spike')}, first at step {_step(e, 'first_step')}{lost}; the "
        f"largest goes from {_value(e, 'level')} to {_value(e, 'height')} at step "
        f"{_step(e, 'step')} and lasts {_count(e, 'length', 'point')} (n = {found.points:,})"
    )


@rule(
    "TRN012",
    Severity.NOTE,
    advice="decay the learning rate toward the end, which often helps; short fine-tuning needs "
    "no decay",
)
def constant_learning_rate(result: Training) -> Iterator[Hit]:
    """A learning rate that is constant over the whole run.

    Reported if every logged learning rate of the run is constant. Needs 20 points.
    """
    return _hits(
        result,
        "constant-learning-rate",
        lambda found: (
            f"constant at {_value(found.evidence, 'value')} from step "
            f"{_step(found.evidence, 'first_step')} to {_step(found.evidence, 'last_step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN013",
    Severity.WARNING,
    advice="restore the scheduler's state_dict with the checkpoint; check the schedule at that "
    "step",
)
def learning_rate_jump(result: Training) -> Iterator[Hit]:
    """A learning rate that rises by more than 3 × between two points, once or twice.

    Warm-ups and cyclic schedules are ignored. So is a return to the highest rate so far, which is
    a restart of the schedule, unless the run was resumed there. Needs 10 points.
    """
    return _hits(
        result,
        "learning-rate-jump",
        lambda found: (
            f"rises from {_value(found.evidence, 'before')} to "
            f"{_value(found.evidence, 'after')} at step {_step(found.evidence, 'step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN014",
    Severity.NOTE,
    advice="no action needed; the replaced points are listed under Log files",
)
def resumed(result: Training) -> Iterator[Hit]:
    """A run that was interrupted and resumed from a checkpoint.

    Points logged after the resume replace earlier ones from its first step on.
    """
    return _hits(result, "resumed", _resumed)


def _resumed(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{_count(e, 'resumes', 'resume')}, the first at step {_step(e, 'step')} after the log "
        f"had reached step {_step(e, 'last_step_before')}; "
        f"{_count(e, 'superseded', 'point')} replaced"
    )


@rule(
    "TRN015",
    Severity.WARNING,
    advice="save and restore the state of optimizer, scheduler, GradScaler, random generators and "
    "data sampler along with the weights",
)
def jump_at_resume(result: Training) -> Iterator[Hit]:
    """A metric that is clearly worse just after a resume than just before it.

    The medians of five points on each side differ by more than 5 % and five times the noise. What
    the curve rises by next to the resume anyway is subtracted first. Needs five points on each
    side.
    """
    return _hits(result, "jump-at-resume", _jump_at_resume)


def _jump_at_resume(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"median of {e['points_each']} points: {_value(e, 'before')} before and "
        f"{_value(e, 'after')} after the resume at step {_step(e, 'step')}, "
        f"noise ±{_value(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN016",
    Severity.NOTE,
    advice="log a metric on held-out data under a tag such as val/loss",
)
def missing_validation(result: Training) -> Iterator[Hit]:
    """A run with training curves and no validation curve.

    Overfitting cannot be detected without one. Reinforcement learning is not judged. Needs 20
    points.
    """
    return _hits(
        result,
        "missing-validation",
        lambda found: (
            f"no validation curve in a run of {found.points:,} points up to step "
            f"{_step(found.evidence, 'last_step')}"
        ),
    )


@rule(
    "TRN017",
    Severity.NOTE,
    advice="resume the run, or correct planned_steps in the manifest",
)
def ended_before_plan(result: Training) -> Iterator[Hit]:
    """A run whose last step is below the planned number of steps.

    The plan is planned_steps of the manifest, or what the log itself records, such as max_steps
    of the Hugging Face Trainer. The run may still be in progress: a build does not compare wall
    times with the current time.
    """
    return _hits(
        result,
        "ended-before-plan",
        lambda found: (
            f"last step {_step(found.evidence, 'last_step')} of "
            f"{_step(found.evidence, 'planned_steps')} planned"
        ),
    )


@rule(
    "TRN018",
    Severity.WARNING,
    advice="look for growing memory use, swapping, other jobs on the machine, thermal throttling, "
    "or data that loads more slowly later on",
)
def slowdown(result: Training) -> Iterator[Hit]:
    """A run whose last tenth makes less than 0.7 × the steps per second of its first half.

    Both the median and the mean time per step must show it, by more than the jitter. The first
    tenth (compilation, caches) and intervals longer than 10 × the usual one (evaluation,
    checkpoints, pauses) are ignored. Needs 40 intervals between points with wall times.
    """
    return _hits(result, "slowdown", _slowdown)


def _slowdown(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{_value(e, 'last_rate')} steps/s from step {_step(e, 'since_step')} on "
        f"({_count(e, 'last_gaps', 'interval')}), {_value(e, 'first_rate')} steps/s in the first "
        f"half (n = {found.points:,})"
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
    return _hits(
        result,
        "vanishing-gradient",
        lambda found: (
            f"{_tags_of(found)}largest absolute value {_value(found.evidence, 'largest')} from "
            f"step {_step(found.evidence, 'first_step')} to "
            f"{_step(found.evidence, 'last_step')} (n = {found.points:,})"
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
    return _hits(
        result,
        "exploding-gradient",
        lambda found: (
            f"{_value(found.evidence, 'largest')} at step "
            f"{_step(found.evidence, 'step')}, median before {_value(found.evidence, 'usual')} "
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
    return _hits(
        result,
        "unchanged-weight",
        lambda found: (
            f"{_tags_of(found)}{found.evidence['tags']} of "
            f"{_count(found.evidence, 'weights', 'weight')} unchanged from step "
            f"{_step(found.evidence, 'first_step')} to "
            f"{_step(found.evidence, 'last_step')} (n = {found.points:,})"
        ),
    )


def _tags_of(found: Diagnosis) -> str:
    """A prefix with the tags of a diagnosis of several tags: its place names only the first."""
    tags = int(found.evidence["tags"])
    if tags == 1:
        return ""
    more = ", …" if str(found.evidence["named"]).count(", ") < tags - 1 else ""
    return f"{tags:,} tags ({found.evidence['named']}{more}): "


@rule(
    "TRN022",
    Severity.WARNING,
    advice="correct the computation of the metric, or the range in the manifest",
)
def out_of_range(result: Training) -> Iterator[Hit]:
    """Values outside the valid range of a metric, `ranges` in the manifest's log_options.

    Both ends of a range are valid. TRN001 and TRN002 report NaN and infinities.
    """
    return _hits(result, "out-of-range", _out_of_range)


def _out_of_range(found: Diagnosis) -> str:
    e = found.evidence
    low = _value(e, "lowest") if "lowest" in e else "-∞"
    high = _value(e, "highest") if "highest" in e else "∞"
    return (
        f"{int(e['outside']):,} of {found.points:,} values outside [{low}, {high}], first "
        f"{_value(e, 'first_value')} at step {_step(e, 'first_step')}, farthest "
        f"{_value(e, 'worst_value')} at step {_step(e, 'worst_step')}"
    )


@rule(
    "TRN023",
    Severity.WARNING,
    advice="copy the file again if it is a copy; otherwise the points in those bytes are lost",
)
def damaged_log(result: Training) -> Iterator[Hit]:
    """A log file with bytes that could not be read.

    Reading continues behind them. Where a length is damaged the number of lost points is unknown,
    so bytes are reported.
    """
    for run in result.runs:
        for file in dict.fromkeys(stretch.file for stretch in run.damage):
            yield Hit(where=_at(result, run.name, file), message=_damage(run, file))


def _damage(run: Run, file: str) -> str:
    stretches = [stretch for stretch in run.damage if stretch.file == file]
    skipped = sum(stretch.bytes for stretch in stretches)
    first = stretches[0]
    several = len(stretches) > 1
    places = f"in {len(stretches):,} places, the first {first.bytes:,} " if several else ""
    return f"{count_of(skipped, 'byte')} skipped {places}at offset {first.offset:,}: {first.reason}"


@rule(
    "TRN024",
    Severity.NOTE,
    advice="log from one process only (rank 0), and close a writer before opening another",
)
def repeated_steps(result: Training) -> Iterator[Hit]:
    """A metric with several points at one step, without a resume between them.

    Usually two processes logged at the same time. All points are kept and drawn. Points that a
    resume replaces are reported as resumed; a second attempt is a run of its own.
    """
    return _hits(
        result,
        "repeated-steps",
        lambda found: (
            f"{_count(found.evidence, 'repeats', 'point')} of {found.points:,} repeat a "
            f"step, first at step {_step(found.evidence, 'first_step')}"
        ),
    )


@rule(
    "TRN025",
    Severity.NOTE,
    advice="log each unit under its own tag, such as train_loss_step and train_loss_epoch",
)
def mixed_units(result: Training) -> Iterator[Hit]:
    """A tag whose steps mix two units, such as epochs and batches.

    Its steps jump back and forth between two rising sequences. The points are drawn in the order
    of the log.
    """
    return _hits(
        result,
        "mixed-units",
        lambda found: (
            f"steps of two units in one tag: step {_step(found.evidence, 'first_step')} "
            f"is followed by step {_step(found.evidence, 'unit_change_step')} "
            f"(n = {found.points:,})"
        ),
    )


def _hits(result: Training, kind: str, sentence: Callable[[Diagnosis], str]) -> Iterator[Hit]:
    places: dict[str, list[Diagnosis]] = {}
    for found in result.diagnoses:
        if found.kind == kind:
            places.setdefault(sentence(found), []).append(found)
    for number, (message, together) in enumerate(places.items()):
        if number == _MOST_HITS:
            left = sum(map(len, list(places.values())[_MOST_HITS:]))
            yield Hit(where=f"{left:,} more curves", message="see diagnoses in report.json")
            return
        yield Hit(where=_where(result, together), message=message)


def _where(result: Training, found: Sequence[Diagnosis]) -> str:
    """One place, or how many places share a sentence: hundreds of runs of one script may."""
    first = _at(result, found[0].run, found[0].tag)
    return first if len(found) == 1 else f"{first} and {len(found) - 1:,} more"


def _at(result: Training, run: str, tag: str) -> str:
    """`run · tag`; the tag alone in a log of one run, the run alone for a finding on all of it."""
    if len(result.runs) == 1 and tag:
        return tag
    return " · ".join(filter(None, (run, tag))) or "run"


def _step(evidence: Evidence, name: str) -> str:
    return format_step(float(evidence[name]))


def _value(evidence: Evidence, name: str) -> str:
    return format_value(float(evidence[name]))


def _count(evidence: Evidence, name: str, what: str) -> str:
    return count_of(int(evidence[name]), what)


RULES = (
    ends_in_non_finite,
    non_finite_values,
    infinity_at_the_start,
    diverged,
    not_learning,
    not_learning_in_warm_up,
    plateau,
    overfitting,
    past_the_best,
    repeated_or_lasting_spikes,
    recovered_spike,
    constant_learning_rate,
    learning_rate_jump,
    resumed,
    jump_at_resume,
    missing_validation,
    ended_before_plan,
    slowdown,
    vanishing_gradient,
    exploding_gradient,
    unchanged_weight,
    out_of_range,
    damaged_log,
    repeated_steps,
    mixed_units,
)
