"""The rules of the training section: each reports one kind of diagnosis, in one sentence.

`benchmarks/training_verdicts.md` has the false alarms and misses of every rule, measured on
generated runs and on real logs.
"""

from __future__ import annotations

from reportgen.sections.training.rules import gradients, logs, schedule, trends, values

RULES = (
    values.ends_in_non_finite,
    values.non_finite_values,
    values.infinity_at_the_start,
    trends.diverged,
    trends.not_learning,
    trends.not_learning_in_warm_up,
    trends.plateau,
    trends.overfitting,
    trends.past_the_best,
    trends.repeated_or_lasting_spikes,
    trends.recovered_spike,
    schedule.constant_learning_rate,
    schedule.learning_rate_jump,
    schedule.resumed,
    schedule.jump_at_resume,
    trends.missing_validation,
    schedule.ended_before_plan,
    schedule.slowdown,
    gradients.vanishing_gradient,
    gradients.exploding_gradient,
    gradients.unchanged_weight,
    values.out_of_range,
    logs.damaged_log,
    logs.repeated_steps,
    logs.mixed_units,
)
