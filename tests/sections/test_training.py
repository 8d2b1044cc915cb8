"""The training section end to end: logs in, values and files out, valid against the schema."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from factories import make_spec
from one_process import build_here
from tensorboardX import SummaryWriter

from reportgen import load_manifest
from reportgen.context import Context
from reportgen.errors import SectionError
from reportgen.manifest import LogOptions, LogSource, ModelSpec
from reportgen.outcome import Done, Skipped
from reportgen.report import report_from_json, report_schema, report_to_json
from reportgen.sections import SECTIONS
from reportgen.sections.section import outcome_adapter
from reportgen.sections.training import SECTION, Training, analyze
from reportgen.sections.training.analysis import _attempts_of, summarize_logs
from reportgen.sections.training.curve import Curve
from reportgen.sections.training.files import CsvCurve, SectionFolder
from reportgen.sections.training.plots import PlottedRun, _line, _place_of
from reportgen.sections.training.result import Extremum
from reportgen.sections.training.scalars import summarize
from reportgen.training_logs.log_set import LogSet


def context(folder: Path, *logs: Path, **options: Any) -> Context:
    """An entry that names these logs and no model."""
    spec = ModelSpec(
        name="runs",
        logs=tuple(LogSource(path=str(log), text=log.name) for log in logs),
        log_options=LogOptions(**options),
    )
    return Context(spec=spec, targets=(), folder=folder)


def analyzed(folder: Path, *logs: Path, **options: Any) -> Training:
    """The section of these logs."""
    result = analyze(context(folder, *logs, **options))
    assert isinstance(result, Training)
    return result


def write_run(folder: Path, *, steps: int = 60, shift: float = 0.0, start: int = 0) -> None:
    """A run whose losses fall, with an image, a histogram and a text."""
    import numpy as np

    writer = SummaryWriter(str(folder))
    for step in range(start, start + steps):
        time = 1.7e9 + 10 * step
        writer.add_scalar(
            "train/loss", math.exp(-step / 200) + shift + 0.001 * (step % 2), step, walltime=time
        )
        if step % 5 == 0:
            writer.add_scalar("val/loss", math.exp(-step / 20) + shift + 0.1, step, walltime=time)
    writer.add_image("sample", np.zeros((3, 4, 4), dtype=np.uint8), steps, walltime=1.7e9)
    writer.add_histogram("weights", np.arange(100.0), steps, walltime=1.7e9)
    writer.add_text("note", "<script>alert(1)</script>", 0, walltime=1.7e9)
    writer.close()


def test_without_logs_it_is_skipped(tmp_path: Path) -> None:
    assert analyze(context(tmp_path)) == Skipped(reason="the manifest names no logs for this model")


def test_logs_without_a_run_fail_with_the_reason_for_each(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SectionError) as caught:
        analyze(context(tmp_path, tmp_path / "empty", tmp_path / "notes.txt"))
    assert "'empty'" in caught.value.error
    assert "'notes.txt'" in caught.value.error
    assert caught.value.hint


@pytest.mark.parametrize("tag", ["a\nb", "a\rb", 'a,"b"', "\r\n"])
def test_a_csv_file_keeps_any_tag(tmp_path: Path, tag: str) -> None:
    line = CsvCurve(run="r", tag=tag, steps=[1.0], values=[2.0], times=[3.0])
    file = SectionFolder(tmp_path).write_csv("a.csv", [line])
    with (tmp_path / file).open(newline="") as content:
        assert list(csv.reader(content))[1:] == [["r", tag, "1", "3.0", "2.0"]]


def write_events(folder: Path, *points: tuple[str, int, float, float]) -> None:
    """An event file of (tag, step, value, wall time)."""
    writer = SummaryWriter(str(folder))
    for tag, step, value, time in points:
        writer.add_scalar(tag, value, step, walltime=time)
    writer.close()


@pytest.mark.parametrize("time", [math.inf, -math.inf, math.nan, 1e300])
def test_wall_times_that_no_calendar_has_are_unknown(tmp_path: Path, time: float) -> None:
    write_events(tmp_path / "logs", *(("loss", step, 1.0, time) for step in range(9)))
    (run,) = analyzed(tmp_path / "out", tmp_path / "logs", x="wall time").runs
    assert (run.scalars["loss"].points, run.scalars["loss"].times) == (9, ())


def test_what_json_cannot_write_does_not_spoil_the_result(tmp_path: Path) -> None:
    rows = [f"{i},{1.7e308 * (1 - i / 200)!r},{-1.7e308 * (-1) ** i!r}\n" for i in range(60)]
    (tmp_path / "log.csv").write_text("epoch,loss,val_loss\n" + "".join(rows))
    (tmp_path / "hparams.yaml").write_text("clip: .inf\nlr: .nan\nbatch: 8\n")
    result = analyzed(tmp_path / "out", tmp_path / "log.csv")
    json.dumps(asdict(result), allow_nan=False)
    assert result.runs[0].hyperparameters == {"clip": "inf", "lr": "nan", "batch": 8}
    assert not [each for each in result.diagnoses if each.kind == "not-learning"]


def test_layouts_are_drawn_once_and_end_soon(tmp_path: Path) -> None:
    tags = ["a" * 40 + "b", "loss"]
    for run in ("r0", "r1"):
        writer = SummaryWriter(str(tmp_path / "logs" / run))
        charts = {"slow": ["Multiline", ["(a+)+$"]], "own": ["Multiline", ["(unclosed", "lo.s"]]}
        writer.add_custom_scalars({"": charts})
        for step in range(3):
            for tag in tags:
                writer.add_scalar(tag, 1.0, step, walltime=1.7e9 + step)
        writer.close()
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    plots = result.plots
    assert [note for note in result.notes if "'slow'" in note and "(a+)+$" in note]
    assert [(p.section, p.title) for p in plots if p.section == "custom charts"] == [
        ("custom charts", "own")
    ]
    assert len(plots) == 1 + len(tags)


def test_options_that_match_nothing_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "logs")
    result = analyzed(
        tmp_path / "out",
        tmp_path / "logs",
        x="nowhere",
        ranges={"val/los": (0, 1), "val/loss": (0, 9)},
        directions={"trian/loss": "lower"},
        average=("seed_*",),
    )
    assert len(result.notes) == 4
    for word, note in zip(("val/los'", "trian", "nowhere", "seed_"), result.notes, strict=True):
        assert word in note


def test_marks_of_values_that_are_not_finite_reach_to_the_last(tmp_path: Path) -> None:
    points = (("loss", i, 1.0 if i < 100 else math.nan, 1.7e9 + i) for i in range(1000))
    write_events(tmp_path / "logs", *points)
    curve = _curves_of(tmp_path / "logs")["loss"]
    run = PlottedRun(
        name="r", curves={"loss": curve}, summaries={"loss": summarize(curve, 500)}, faded=False
    )
    marks = _line("loss", run, "loss", curve.steps, 0).non_finite
    assert (marks[0], marks[-1]) == ((100.0, "nan"), (999.0, "nan"))
    assert len(marks) == 120


def test_the_best_point_of_equal_steps_is_where_its_value_is(tmp_path: Path) -> None:
    values = (0.1, 0.5, 0.9, 0.7)
    write_events(tmp_path / "logs", *(("val/acc", 0, v, 1.7e9 + v) for v in values))
    curve = _curves_of(tmp_path / "logs")["val/acc"]
    best = Extremum(step=0, value=float(curve.values[2]))
    assert _place_of(best, curve) == 2


def test_a_link_is_not_a_second_run(tmp_path: Path) -> None:
    write_run(tmp_path / "runs" / "run1")
    (tmp_path / "runs" / "latest").symlink_to("run1")
    (event_file,) = (tmp_path / "runs" / "run1").iterdir()
    event_file.with_name("tfevents.latest").symlink_to(event_file.name)
    spec = LogSource(path=str(tmp_path / "runs" / "*"), text="runs/*")
    result = summarize_logs(logs_of(spec), LogOptions(), tmp_path / "out")
    (run,) = result.runs
    assert (run.name, run.scalars["train/loss"].points) == ("run1", 60)
    assert ["runs/latest" in note for note in result.notes] == [True]
    assert ["tfevents.latest" in note for note in run.notes] == [True]


def test_a_glob_names_the_files_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("epoch,loss\n1,2\n2,3\n")
    (tmp_path / "bad.csv").write_text("hello")
    (tmp_path / "none.csv").touch()
    spec = LogSource(path=str(tmp_path / "*.csv"), text="*.csv")
    notes = logs_of(spec).notes
    assert [[word in note for word in ("bad.csv", "none.csv")] for note in notes] == [
        [True, False],
        [False, True],
    ]


def logs_of(*places: LogSource) -> LogSet:
    """The logs at these places, read."""
    logs = LogSet(places=places)
    logs.update()
    return logs


def _curves_of(folder: Path) -> dict[str, Curve]:
    (found,) = logs_of(LogSource(path=str(folder), text="logs")).runs()
    (run,) = _attempts_of(found, LogOptions())
    return dict(run.curves.curves)


def test_every_point_is_counted_and_stands_in_the_csv_file(tmp_path: Path) -> None:
    write_run(tmp_path / "logs", steps=3000)
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    (run,) = result.runs
    loss = run.scalars["train/loss"]
    assert (loss.points, loss.first_step, loss.last_step) == (3000, 0, 2999)
    assert loss.min is not None
    assert loss.best is not None
    assert (loss.min_step, loss.best.step) == (2998, 2998)
    assert len(loss.steps) == len(loss.values) == len(loss.smoothed) <= 500
    assert loss.max in loss.values
    with (tmp_path / "out" / loss.csv).open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["tag"] == "train/loss"]
    assert [int(row["step"]) for row in rows] == list(range(3000))
    assert float(rows[-1]["value"]) == loss.last
    assert float(rows[7]["wall_time"]) == 1.7e9 + 70


def test_train_and_validation_of_a_metric_share_a_plot(tmp_path: Path) -> None:
    write_run(tmp_path / "logs")
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    scalars = result.runs[0].scalars
    assert scalars["train/loss"].plot == scalars["val/loss"].plot
    (plot,) = [plot for plot in result.plots if plot.key == scalars["val/loss"].plot]
    assert (plot.lines, plot.x) == (2, "step")
    for file in SECTION.files(result):
        assert (tmp_path / "out" / file).is_file(), file


def test_non_finite_values_are_marked_and_json_stays_valid(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "logs"))
    for step in range(40):
        value = {20: math.nan, 21: math.inf, 22: -math.inf}.get(step, 1.0 / (1 + step))
        writer.add_scalar("loss", value, step)
    writer.close()
    loss = analyzed(tmp_path / "out", tmp_path / "logs").runs[0].scalars["loss"]
    assert (loss.points, loss.non_finite) == (40, 3)
    assert [(p.step, p.kind) for p in loss.non_finite_points] == [
        (20, "nan"), (21, "inf"), (22, "-inf"),
    ]  # fmt: skip
    assert loss.values[20:23] == (None, None, None)
    outcome = Done(result=analyzed(tmp_path, tmp_path / "logs"))
    json.dumps(outcome_adapter(SECTION).dump_python(outcome, mode="json"), allow_nan=False)


def test_a_spike_survives_decimation(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "logs"))
    for step in range(20_000):
        writer.add_scalar("loss", 1e6 if step == 8121 else 1 + (step % 7) / 10, step)
    writer.close()
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    loss = result.runs[0].scalars["loss"]
    assert loss.points == 20_000
    assert loss.values[loss.steps.index(8121)] == 1e6
    assert result.plots[0].outside == 1


def test_attempts_are_runs_and_superseded_points_are_listed(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text(
        "epoch,val/loss\n" + "".join(f"{e},{1 / e}\n" for e in (1, 2, 3, 1, 2, 3, 4))
    )
    result = analyzed(tmp_path / "out", tmp_path / "results.csv")
    assert [(run.attempt, run.attempts) for run in result.runs] == [(1, 2), (2, 2)]
    assert [run.scalars["val/loss"].points for run in result.runs] == [3, 4]
    with (tmp_path / "out" / result.runs[0].scalars["val/loss"].csv).open(newline="") as file:
        assert {row["wall_time"] for row in csv.DictReader(file)} == {""}


def test_runs_with_other_seeds_have_a_mean(tmp_path: Path) -> None:
    for seed in range(3):
        write_run(tmp_path / "logs" / f"seed_{seed}", shift=seed / 10, steps=60 - seed)
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    assert {run.group for run in result.runs} == {"seed_*"}
    (group,) = [group for group in result.groups if group.tag == "train/loss"]
    assert (group.runs, group.at_step) == (3, 57)
    assert group.mean == pytest.approx(math.exp(-57 / 200) + 0.101, abs=1e-6)
    assert group.deviation == pytest.approx(0.1, abs=1e-6)


@pytest.mark.slow
def test_hostile_tags_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    tag = '</script><img src=x onerror="alert(1)">/../../etc'
    writer = SummaryWriter(str(tmp_path / "logs"))
    raw = writer.file_writer
    from tensorboardX.proto.summary_pb2 import Summary

    for step in range(5):
        raw.add_summary(Summary(value=[Summary.Value(tag=tag, simple_value=step)]), step)
    writer.close()
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\ntitle: t\nmodels: [{name: a, logs: logs}]\n")
    built = build_here(load_manifest(manifest), output=tmp_path / "out", formats=("html", "json"))
    page = (tmp_path / "out" / "models" / "a" / "index.html").read_text()
    assert "<img src=x" not in page
    for file in built.files:
        assert tmp_path / "out" in file.resolve().parents
    (plot,) = built.report.models[0].sections[0].outcome.result.plots  # type: ignore[union-attr]
    assert ".." not in plot.svg


@pytest.mark.slow
def test_a_report_of_logs_alone_has_the_training_chapter_only(tmp_path: Path) -> None:
    write_run(tmp_path / "logs")
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\ntitle: t\nmodels: [{name: a, logs: [logs]}]\n")
    built = build_here(load_manifest(manifest), output=tmp_path / "out", timings=False)
    text = (tmp_path / "out" / "report.json").read_text()
    data = json.loads(text)
    jsonschema.validate(data, report_schema(SECTIONS))
    (model,) = data["models"]
    assert list(model["sections"]) == ["training"]
    assert model["headlines"][0]["sentence"] == model["sections"]["training"]["result"]["headline"]
    assert {m["key"] for m in model["metrics"]} >= {
        "training.val/loss.best",
        "training.val/loss.last",
    }
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")
    page = (tmp_path / "out" / "models" / "a" / "index.html").read_text()
    assert "<script>alert" not in page
    assert report_to_json(report_from_json(text, SECTIONS)) == text == report_to_json(built.report)


@pytest.mark.slow
def test_two_builds_of_the_same_logs_are_equal_byte_for_byte(tmp_path: Path) -> None:
    write_run(tmp_path / "logs")
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\ntitle: t\nmodels: [{name: a, logs: [logs]}]\n")
    for name in ("x", "y"):
        build_here(load_manifest(manifest), output=tmp_path / name, timings=False)
    files = sorted(
        p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*") if p.is_file()
    )
    assert Path("models/a/training/plots/loss.svg") in files
    for file in files:
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes(), file


def test_formats_in_the_manifest_are_those_that_have_readers() -> None:
    from typing import get_args

    from reportgen.manifest.logs import LogFormat
    from reportgen.training_logs.detect import FORMATS

    assert get_args(LogFormat) == FORMATS


def test_a_model_keeps_its_other_chapters_beside_its_logs(tmp_path: Path) -> None:
    write_run(tmp_path / "logs")
    spec = make_spec("batch,2", logs=[LogSource(path=str(tmp_path / "logs"), text="logs")])
    result = analyze(Context(spec=spec, targets=(), folder=tmp_path / "out"))
    assert isinstance(result, Training)
    assert result.runs[0].source == "logs"


def test_a_margin_chart_is_one_line_with_a_band(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "logs"))
    for step in range(12):
        for tag, value in (("m/value", 1.0), ("m/low", 0.5), ("m/high", 1.5)):
            writer.add_scalar(tag, value, step)
    writer.add_custom_scalars_marginchart(["m/value", "m/low", "m/high"], title="spread")
    writer.close()
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    (plot,) = [plot for plot in result.plots if plot.title == "spread"]
    assert plot.lines == 1
    data = (tmp_path / "out" / plot.svg).read_text()
    assert '"lo":[0.5' in data
    assert '"hi":[1.5' in data


def test_tags_without_letters_have_plots_of_their_own(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "logs"))
    from tensorboardX.proto.summary_pb2 import Summary

    for tag in ("loss", "😀/loss", " "):
        for step in range(5):
            value = Summary.Value(tag=tag, simple_value=step)
            writer.file_writer.add_summary(Summary(value=[value]), step)
    writer.close()
    result = analyzed(tmp_path / "out", tmp_path / "logs")
    assert {plot.title for plot in result.plots} == {"loss", "😀/loss", "(tag without a name)"}


@pytest.mark.slow
def test_characters_that_no_font_has_stop_no_pdf(tmp_path: Path) -> None:
    writer = SummaryWriter(str(tmp_path / "logs"))
    from tensorboardX.proto.summary_pb2 import Summary

    for tag in ("😀🔥/loss", "\ue000🔥", "學習/loss"):
        for step in range(5):
            value = Summary.Value(tag=tag, simple_value=step)
            writer.file_writer.add_summary(Summary(value=[value]), step)
    writer.close()
    manifest = tmp_path / "m.yaml"
    manifest.write_text("version: 1\ntitle: t\nmodels: [{name: a, logs: [logs]}]\n")
    build_here(load_manifest(manifest), output=tmp_path / "out")
    assert (tmp_path / "out" / "report.pdf").read_bytes().startswith(b"%PDF")
