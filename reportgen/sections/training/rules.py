"""What is judged of a training: every diagnosis of its curves as a finding, in one sentence.

How often each rule is wrong on healthy runs and misses a fault on sick ones, measured on
generated runs and on real logs, `benchmarks/training_verdicts.md` reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.training.result import Diagnosis, Run, Training
from reportgen.sections.training.wording import count_of, format_step, format_value

Evidence = dict[str, float | int | str]


@rule(
    "TRN001",
    Severity.ERROR,
    advice="restart from a checkpoint before that step with a lower learning rate or gradient "
    "clipping; torch.autograd.set_detect_anomaly(True) names the operator",
)
def ends_in_non_finite(result: Training) -> Iterator[Hit]:
    """A loss or a metric whose last value is NaN or infinite.

    From the named step to its end the curve holds no number any more, so nothing was learned
    from there on. For a norm of gradients three values at the end must be non-finite: with mixed
    precision single steps overflow and are skipped. One point is enough for this rule.
    """
    return _hits(result, "ends-in-non-finite", _ends_in_non_finite)


def _ends_in_non_finite(found: Diagnosis) -> str:
    e = found.evidence
    before = ""
    if "last_finite_value" in e:
        before = f"; the last finite value is {_value(e, 'last_finite_value')}"
    return (
        f"non-finite from step {_step(e, 'since_step')} to the end, "
        f"the last {_count(e, 'to_the_end', 'value')} of {found.points:,}{before}"
    )


@rule(
    "TRN002",
    Severity.WARNING,
    advice="look for empty batches, log or division of zero and overflow in half precision at "
    "these steps; clip gradients",
)
def non_finite_values(result: Training) -> Iterator[Hit]:
    """NaN or infinite values in a loss or a metric that has finite ones again later.

    The run went on, but a step with such a loss may have put NaN into optimizer state or running
    statistics. A score that never had a value, as that of a class without samples, is named
    here too. Single overflows in a norm of gradients are left out: mixed precision makes them.
    """
    return _hits(result, "non-finite-values", _non_finite_values)


def _non_finite_values(found: Diagnosis) -> str:
    e = found.evidence
    first, last = _step(e, "first_step"), _step(e, "last_step")
    place = f"at step {first}" if first == last else f"between steps {first} and {last}"
    after = _count(e, "finite_after", "finite value")
    return f"{_non_finite(e)} among {found.points:,} values, {place}; {after} after that"


def _non_finite(e: Evidence) -> str:
    parts = [(int(e["nans"]), "NaN"), (int(e["infinities"]), "infinite")]
    return " and ".join(f"{number:,} {word}" for number, word in parts if number)


@rule(
    "TRN003",
    Severity.NOTE,
    advice="none is needed if the metric is undefined at first; leave such points out of the log",
)
def infinity_at_the_start(result: Training) -> Iterator[Hit]:
    """A metric that is infinite in its first one or two points only.

    Some losses overflow before the first update, and some metrics are not defined until then. For
    a norm of gradients this is the search for the loss scale, up to 20 points.
    """
    return _hits(
        result,
        "infinity-at-the-start",
        lambda found: (
            f"infinite until step {_step(found.evidence, 'last_step')}, "
            f"finite in the other {_count(found.evidence, 'finite_after', 'value')} "
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
    """A train metric that left its best value and did not come back.

    The median of the last 5 % of points is worse than the best running median by more than half
    of the progress made, six standard errors and a fifth of the best value, and so is every
    running median there (a quarter of the progress, four standard errors). Validation curves are
    left out: they rise by overfitting. Silent below 20 points, or with the best in the last 5 %.
    """
    return _hits(result, "diverged", _diverged)


def _diverged(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"at {_value(e, 'last')} in the last {_count(e, 'last_points', 'point')}, "
        f"best {_value(e, 'best')} at step {_step(e, 'best_step')}, "
        f"left it at step {_step(e, 'step')} (n = {found.points:,})"
    )


@rule(
    "TRN005",
    Severity.WARNING,
    advice="check that the optimizer has the parameters and the loss has gradients, try to fit a "
    "single batch, and try learning rates 10 × higher and lower",
)
def not_learning(result: Training) -> Iterator[Hit]:
    """A train metric that ends where it began.

    The last fifth improves on the first points by less than three standard errors, and on the
    first fifth by less than three of them and less than 2 % or one of them, whichever is more.
    Of a fifth the mean of its middle half is taken. The best value plays no part: the lowest of
    many noisy values always looks like progress. Silent below 50 points, where the log begins after
    a fifth of the steps, and for a share that is above 0.98 from the start.
    """
    return _hits(result, "not-learning", _not_learning)


@rule(
    "TRN006",
    Severity.NOTE,
    advice="none is needed before the warm-up ends; judge the run again then",
)
def not_learning_in_warm_up(result: Training) -> Iterator[Hit]:
    """A train metric that ends where it began, while the learning rate still rises.

    As not-learning, in a run whose logged learning rate has only risen so far.
    """
    return _hits(result, "not-learning-in-warm-up", _not_learning)


def _not_learning(found: Diagnosis) -> str:
    e = found.evidence
    each = _count(e, "points_of_each", "point")
    return (
        f"{_value(e, 'first')} over the first {each} and {_value(e, 'last')} over the last "
        f"{each}, steps {_step(e, 'first_step')} to {_step(e, 'last_step')}, "
        f"noise ±{_value(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN007",
    Severity.NOTE,
    advice="stop earlier next time, or lower the learning rate where the plateau begins",
)
def plateau(result: Training) -> Iterator[Hit]:
    """A metric that gained less than 1 % of all its progress in the last 30 % of points.

    It came within that of its best before those 30 % began. The end of a training that converged
    looks the same, so this is a note; the sentence says where the learning rate fell to a tenth or
    train and validation ended alike. Silent below 30 points.
    """
    return _hits(result, "plateau", _plateau)


def _plateau(found: Diagnosis) -> str:
    e = found.evidence
    reading = ", converged" if e["reading"] == "converged" else ""
    return (
        f"flat at {_value(e, 'value')} since step {_step(e, 'step')}{reading}; the last "
        f"{_count(e, 'last_points', 'point')} changed it by {_value(e, 'gain')}, "
        f"all progress was {_value(e, 'progress')} (n = {found.points:,})"
    )


@rule(
    "TRN008",
    Severity.WARNING,
    advice="keep the checkpoint of the best step; regularize, augment or stop earlier",
)
def overfitting(result: Training) -> Iterator[Hit]:
    """A validation metric clearly past its best while the train metric still improves.

    The best of a running median of 3 checks (5 from 60 checks on) lies at least three checks and
    a fifth of all checks back; the end is worse than it by more than 5 % of it, a tenth of the
    progress and three times the noise; train improved since by more than 2 % of its range. Where
    an accuracy of the same set still rises, the model is over-confident rather than worse. Silent
    below 8 checks.
    """
    return _hits(result, "overfitting", _overfitting)


def _overfitting(found: Diagnosis) -> str:
    e = found.evidence
    still = f"; {e['still_improving']} still improves" if e["still_improving"] else ""
    return (
        f"best {_value(e, 'best')} at step {_step(e, 'step')}, {_value(e, 'last')} at step "
        f"{_step(e, 'last_step')}, while {e['train_tag']} went on from "
        f"{_value(e, 'train_at_best')} to {_value(e, 'train_last')}{still} (n = {found.points:,})"
    )


@rule(
    "TRN009",
    Severity.NOTE,
    advice="use the checkpoint of the best step",
)
def past_the_best(result: Training) -> Iterator[Hit]:
    """A validation metric whose last value is worse than its best.

    By more than 2 % and more than the noise explains, given how many checks the best is the best
    of. Nothing is said of the train metric. Scores without a train or validation word count too.
    Silent below 5 checks.
    """
    return _hits(result, "past-the-best", _past_the_best)


def _past_the_best(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"best {_value(e, 'best')} at step {_step(e, 'best_step')}, {_value(e, 'last')} at step "
        f"{_step(e, 'last_step')}, {_count(e, 'checks_since', 'check')} later "
        f"(n = {found.points:,})"
    )


@rule(
    "TRN010",
    Severity.WARNING,
    advice="clip gradients, lower the learning rate or beta2, and look at the batches of "
    "these steps",
)
def repeated_or_lasting_spikes(result: Training) -> Iterator[Hit]:
    """Three or more large spikes at no regular distance, or a large one that lasts.

    Large: at least twice the level before it, and more than a quarter of all progress. Lasting: a
    quarter of the window (n / 20 points, 20 to 200) or never back. A rise that follows a restart of
    a logged learning rate is left out. Silent below 40 points.
    """
    return _hits(result, "repeated-or-lasting-spikes", _spikes)


@rule(
    "TRN011",
    Severity.NOTE,
    advice="none is needed for one spike that recovers; look at the batch of that step",
)
def recovered_spike(result: Training) -> Iterator[Hit]:
    """Few or small spikes that the curve recovered from.

    A spike is above the median of the points before it by 25 %, by 5 % of the range of the curve,
    and by 6 deviations over three points or 10 for a single one. Silent below 40 points.
    """
    return _hits(result, "recovered-spike", _spikes)


def _spikes(found: Diagnosis) -> str:
    e = found.evidence
    lost = f", {int(e['not_recovered']):,} of them not recovered" if e["not_recovered"] else ""
    return (
        f"{_count(e, 'spikes', 'spike')} since step {_step(e, 'first_step')}{lost}; the largest "
        f"reaches {_value(e, 'height')} from {_value(e, 'level')} at step {_step(e, 'step')} and "
        f"lasts {_count(e, 'length', 'point')} (n = {found.points:,})"
    )


@rule(
    "TRN012",
    Severity.NOTE,
    advice="a decay at the end often improves the result; none is needed for a fine-tuning",
)
def constant_learning_rate(result: Training) -> Iterator[Hit]:
    """A learning rate that stays the same over the whole run.

    All logged learning rates of the run do. Silent below 20 points.
    """
    return _hits(
        result,
        "constant-learning-rate",
        lambda found: (
            f"{_value(found.evidence, 'value')} from step "
            f"{_step(found.evidence, 'first_step')} to {_step(found.evidence, 'last_step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN013",
    Severity.WARNING,
    advice="restore the scheduler's state with the checkpoint, and check the schedule there",
)
def learning_rate_jump(result: Training) -> Iterator[Hit]:
    """A learning rate that rises by more than 3 × between two points, once or twice.

    Warm-ups and cyclic schedules are left out, and so is a return to the highest rate so far: that
    is a restart, unless the run was resumed there. Silent below 10 points.
    """
    return _hits(
        result,
        "learning-rate-jump",
        lambda found: (
            f"from {_value(found.evidence, 'before')} to "
            f"{_value(found.evidence, 'after')} at step {_step(found.evidence, 'step')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN014",
    Severity.NOTE,
    advice="none is needed; the points that were replaced are listed with the run",
)
def resumed(result: Training) -> Iterator[Hit]:
    """A run that was interrupted and went on from a checkpoint.

    Later points replace those from the step on where the run went on.
    """
    return _hits(result, "resumed", _resumed)


def _resumed(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{_count(e, 'resumes', 'resume')}, the first from step {_step(e, 'step')} after the log "
        f"had reached step {_step(e, 'last_step_before')}; "
        f"{_count(e, 'superseded', 'point')} replaced"
    )


@rule(
    "TRN015",
    Severity.WARNING,
    advice="save and restore the states of optimizer, scheduler, scaler, random generators and "
    "data order with the weights",
)
def jump_at_resume(result: Training) -> Iterator[Hit]:
    """A metric that is clearly worse just after a resume than just before it.

    The medians of five points on each side differ by more than 5 % and five times the noise, after
    what the curve rises by on its way is taken off. Silent below five points on a side.
    """
    return _hits(result, "jump-at-resume", _jump_at_resume)


def _jump_at_resume(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"median of {e['points_each']} points {_value(e, 'before')} before and "
        f"{_value(e, 'after')} after the resume at step {_step(e, 'step')}, "
        f"noise ±{_value(e, 'sigma')} (n = {found.points:,})"
    )


@rule(
    "TRN016",
    Severity.NOTE,
    advice="log a metric of held-out data under a tag such as val/loss",
)
def missing_validation(result: Training) -> Iterator[Hit]:
    """A run with train curves and no validation curve at all.

    Without one overfitting cannot be seen. Runs of reinforcement learning are left out. Silent
    below 20 points.
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
    """A run whose last step lies before the planned number of steps.

    The plan is the manifest's, or the log's own (a trainer's max_steps). The run may still be
    going on: a report reads no clock.
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
    advice="look for memory that grows, swapping, a shared machine, throttling, or data that "
    "is slower to load later",
)
def slowdown(result: Training) -> Iterator[Hit]:
    """A run whose last tenth is slower than 0.7 of its first half.

    By the usual gap between points and by the mean, and by more than the jitter. The first tenth
    (compilation, caches) and gaps of more than 10 × the usual one (evaluation, checkpoints, nights)
    are left out. Silent below 40 gaps with wall times.
    """
    return _hits(result, "slowdown", _slowdown)


def _slowdown(found: Diagnosis) -> str:
    e = found.evidence
    return (
        f"{_value(e, 'last_rate')} steps/s over the last {_count(e, 'last_gaps', 'gap')}, "
        f"{_value(e, 'first_rate')} in the first half; measured since step "
        f"{_step(e, 'since_step')} (n = {found.points:,})"
    )


@rule(
    "TRN019",
    Severity.WARNING,
    advice="look for a detached branch, a saturated activation or a dead ReLU before these "
    "parameters; with float16 scale the loss",
)
def vanishing_gradient(result: Training) -> Iterator[Hit]:
    """A gradient of nothing but zeros, or one value, in its last records.

    In the last three histograms 99 % of values are around zero and none is larger than 1e-7, or
    all values are equal; or the last 2 % of a norm of gradients are below 1e-7. Many zeros alone
    are no fault: gradients of embeddings are sparse.
    """
    return _hits(
        result,
        "vanishing-gradient",
        lambda found: (
            f"{_named(found)}largest absolute value {_value(found.evidence, 'largest')} from "
            f"step {_step(found.evidence, 'first_step')} to "
            f"{_step(found.evidence, 'last_step')} (n = {found.points:,})"
        ),
    )


@rule(
    "TRN020",
    Severity.WARNING,
    advice="clip gradients and lower the learning rate; look at the batch of that step",
)
def exploding_gradient(result: Training) -> Iterator[Hit]:
    """A gradient far above what it was before.

    The largest absolute value of a histogram is more than 100 × the median of ten or more earlier
    ones; or a norm of gradients is above 10 × its running median for three points.
    """
    return _hits(
        result,
        "exploding-gradient",
        lambda found: (
            f"{_value(found.evidence, 'largest')} at step "
            f"{_step(found.evidence, 'step')}, usual {_value(found.evidence, 'usual')} "
            f"(n = {found.points:,})"
        ),
    )


@rule(
    "TRN021",
    Severity.WARNING,
    advice="pass these parameters to the optimizer, or allow this if they are frozen on purpose",
)
def unchanged_weight(result: Training) -> Iterator[Hit]:
    """A weight whose histograms are the same in the last three records.

    Minimum, maximum and sum are equal while the learning rate, if logged, is above zero. Parameters
    frozen on purpose look the same.
    """
    return _hits(
        result,
        "unchanged-weight",
        lambda found: (
            f"{_named(found)}{found.evidence['tags']} of "
            f"{_count(found.evidence, 'weights', 'weight')} unchanged from step "
            f"{_step(found.evidence, 'first_step')} to "
            f"{_step(found.evidence, 'last_step')} (n = {found.points:,})"
        ),
    )


def _named(found: Diagnosis) -> str:
    """The tags of a diagnosis that stands for several; the first one alone is its place."""
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
    """Values outside the valid range that the manifest gives a metric.

    Both ends of a range are valid. NaN and infinities have rules of their own.
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
    advice="copy the file again if it was copied; otherwise its points in those bytes are lost",
)
def damaged_log(result: Training) -> Iterator[Hit]:
    """Stretches of a log file that could not be read.

    Reading goes on after each of them. How many points were lost is unknown where a length was
    destroyed, so bytes are reported.
    """
    for run in result.runs:
        for file in dict.fromkeys(stretch.file for stretch in run.damage):
            yield Hit(where=_at(result, run.name, file), message=_damage(run, file))


def _damage(run: Run, file: str) -> str:
    stretches = [stretch for stretch in run.damage if stretch.file == file]
    skipped = sum(stretch.bytes for stretch in stretches)
    first = stretches[0]
    return (
        f"{skipped:,} bytes skipped in {count_of(len(stretches), 'stretch', 'stretches')} of "
        f"{file}, the first of {first.bytes:,} bytes at offset {first.offset:,}: {first.reason}"
    )


@rule(
    "TRN024",
    Severity.NOTE,
    advice="log from one process only (rank 0), and close a writer before opening another",
)
def repeated_steps(result: Training) -> Iterator[Hit]:
    """Steps that were logged more than once by writers at the same time.

    All points are kept and drawn. A resume or a second attempt is another thing, see resumed.
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
    advice="log each unit under a tag of its own, such as train_loss_step and train_loss_epoch",
)
def mixed_units(result: Training) -> Iterator[Hit]:
    """A tag whose steps are sometimes of one unit and sometimes of another.

    Its steps jump between two sequences, as epochs among batches. The points are drawn in the order
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
    for found in result.diagnoses:
        if found.kind == kind:
            yield Hit(where=_at(result, found.run, found.tag), message=sentence(found))


def _at(result: Training, run: str, tag: str) -> str:
    """`run · tag`; without the run where there is only one, without a tag of the whole run."""
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
