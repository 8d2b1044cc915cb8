"""Tables and groups of the training section, made of recorded values."""

from __future__ import annotations

import dataclasses

from reportgen.sections.training.page import FILTERS, hyperparameters, metric_rows, plot_groups
from reportgen.sections.training.result import Extremum, Plot, Run, Scalar, Training


def make_scalar(best: float, role: str = "validation", plot: str = "acc") -> Scalar:
    return Scalar(
        points=3, non_finite=0, first_step=0, last_step=2, min=0.1, min_step=0, max=best,
        max_step=1, last=0.2, best=Extremum(step=1, value=best), direction="higher",
        role=role,  # type: ignore[arg-type]
        steps=(0, 1, 2), values=(0.1, best, 0.2), times=(), smoothed=(), half_life=0,
        non_finite_points=(), csv="training/plots/acc.csv", plot=plot,
    )  # fmt: skip


def make_training_run(name: str, best: float = 0.5, **settings: float) -> Run:
    return Run(
        name=name, source="runs", format="tensorboard", attempt=1, attempts=1, group="",
        state="healthy", summary="", sessions=1,
        scalars={"val/acc": make_scalar(best), "train/acc": make_scalar(best, "train")},
        images=(), images_found=0, histograms=(), texts=(), pr_curves=(), tables=(), charts=(),
        hyperparameters=dict(settings), damage=(), superseded=(), planned_steps=None,
        not_shown={}, notes=(),
    )  # fmt: skip


def make_training(*runs: Run, plots: int = 1) -> Training:
    return Training(
        headline="", points=0, smoothing="", runs=runs,
        plots=tuple(
            Plot(key=f"p{n}", title=f"m{n}", section=f"s{n % 3}", svg="", csv="", lines=1,
                 x="step", outside=0)
            for n in range(plots)
        ),
        groups=(), diagnoses=(), files=(), notes=(),
    )  # fmt: skip


def test_hyperparameters_are_the_union_with_the_best_of_a_common_metric() -> None:
    result = make_training(
        make_training_run("a", 0.5, lr=0.1, batch=8), make_training_run("b", 0.7, lr=0.2, seed=1)
    )
    table = hyperparameters(result)
    assert table.names == ("best val/acc", "lr", "batch", "seed")
    assert [row.values for row in table.rows] == [
        ("0.5", "0.7"), ("0.1", "0.2"), ("8", "–"), ("–", "1"),
    ]  # fmt: skip
    assert [row.name for row in table.by_run] == ["a", "b"]
    assert table.hidden == 0


def test_runs_without_hyperparameters_have_no_table() -> None:
    assert hyperparameters(make_training(make_training_run("a"))).names == ()


def test_validation_stands_before_training_in_the_table_of_values() -> None:
    table = metric_rows(make_training(make_training_run("a"), make_training_run("b")), False)
    assert [(row.tag, row.run) for row in table.rows][:2] == [("val/acc", "a"), ("val/acc", "b")]


def test_paper_holds_the_first_plots_and_a_page_draws_the_rest_small() -> None:
    result = make_training(make_training_run("a"), plots=300)
    paper = [shown for group in plot_groups(result, True) for shown in group.plots]
    page = [shown for group in plot_groups(result, False) for shown in group.plots]
    assert (len(paper), len(page)) == (40, 300)
    assert sum(bool(shown.small) for shown in page) == 180


def test_numbers_keep_what_matters() -> None:
    assert [FILTERS["number"](v) for v in (0, 0.91234, 1.2e-5, 12345.6)] == [
        "0",
        "0.9123",
        "1.2e-5",
        "12,346",
    ]
    assert (FILTERS["step"](8200), FILTERS["step"](0.5)) == ("8,200", "0.5")


def test_a_run_that_an_attempt_replaces_keeps_its_row() -> None:
    earlier = dataclasses.replace(make_training_run("a (attempt 1)"), attempts=2)
    table = metric_rows(make_training(earlier, make_training_run("a")), False)
    assert {row.run for row in table.rows} == {"a (attempt 1)", "a"}
