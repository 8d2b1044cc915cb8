"""Report files are complete or absent, a failed build keeps the previous report, and the PDF."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import jinja2
import pikepdf
import pytest
from report_values import full_report, small_report, work_folder, write_in

from reportgen.errors import OutputError
from reportgen.outcome import Failed
from reportgen.outputs import FORMATS, atomic_write, model_pages, temporary_folder, writing
from reportgen.pdf.process import PdfMaker
from reportgen.pdf.weasyprint_process import lay_out
from reportgen.render import prepare_pages, render_chapter, render_index, render_model
from reportgen.report import Report

FAST = frozenset({"html", "json", "md"})
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_folder(full_report(), tmp_path_factory.mktemp("work"))


def _write(report: Report, work: Path, output: Path) -> tuple[Path, ...]:
    return write_in(output, report, work, FAST)


def _files(folder: Path) -> Files:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _only_output(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
def test_a_report_consists_of_the_documented_files(work: Path, tmp_path: Path) -> None:
    written = _write(small_report(), work, tmp_path / "out")
    assert set(_files(tmp_path / "out")) == {
        "index.html",
        "report.json",
        "summary.md",
        *(
            f"models/tanh/{file}"
            for file in (
                "index.html",
                "layers.csv",
                "summary.txt",
                "model.onnx",
                "graphs/modules.svg",
                "graphs/autograd.svg",
                "graphs/onnx.svg",
            )
        ),
        *(
            f"models/transformer/{file}"
            for file in (
                "index.html",
                "layers.csv",
                "summary.txt",
                "graphs/modules.svg",
                "graphs/autograd.svg",
            )
        ),
    }
    assert written[-1] == tmp_path / "out" / "report.json"
    assert len(written) == len(set(written)) == len(_files(tmp_path / "out"))
    assert _only_output(tmp_path) == ["out"]


@pytest.mark.slow
def test_files_are_copied_byte_for_byte_and_readable_by_others(work: Path, tmp_path: Path) -> None:
    _write(small_report(), work, tmp_path / "out")
    copy = tmp_path / "out/models/tanh/model.onnx"
    assert copy.read_bytes() == (work / "models/tanh/model.onnx").read_bytes()
    plain = tmp_path / "plain"
    plain.touch()
    assert copy.stat().st_mode == plain.stat().st_mode


@pytest.mark.slow
def test_the_same_report_written_twice_gives_the_same_bytes(work: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        _write(small_report(), work, tmp_path / name)
    assert _files(tmp_path / "one") == _files(tmp_path / "two")


def test_only_requested_formats_are_written(work: Path, tmp_path: Path) -> None:
    write_in(tmp_path / "out", small_report(), work, {"md"})
    names = set(_files(tmp_path / "out"))
    assert {"summary.md", "report.json", "models/tanh/model.onnx"} <= names
    assert not {name for name in names if name.endswith((".html", ".pdf"))}


def test_a_first_page_links_only_to_pages_that_were_written(work: Path, tmp_path: Path) -> None:
    write_in(tmp_path / "out", small_report(), work, {"html"})
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert 'href="report.json"' in page
    assert 'href="report.pdf"' not in page
    assert 'href="summary.md"' not in page


@pytest.mark.parametrize(
    ("module", "broken"),
    [(writing, "render_index"), (model_pages, "render_model"), (writing, "render_summary")],
)
@pytest.mark.parametrize("error", [RuntimeError("bug"), KeyboardInterrupt()])
def test_a_failure_while_writing_keeps_the_previous_report(
    work: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    broken: str,
    error: BaseException,
) -> None:
    output = tmp_path / "out"
    _write(small_report(), work, output)
    before = _files(output)
    monkeypatch.setattr(module, broken, _raiser(error))
    with pytest.raises(type(error)):
        _write(replace(small_report(), title="Other"), work, output)
    assert _files(output) == before
    assert _only_output(tmp_path) == ["out"]


@pytest.mark.parametrize("after", range(0, 13, 3))
def test_a_failure_between_renames_rolls_all_of_them_back(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    output = tmp_path / "out"
    _write(replace(small_report(), models=full_report().models[:1]), work, output)
    before = _files(output)
    _fail_after(monkeypatch, after)
    with pytest.raises(KeyboardInterrupt):
        _write(small_report(), work, output)
    monkeypatch.undo()
    assert _files(output) == before
    assert not (output / "models/tanh").exists()
    assert _only_output(tmp_path) == ["out"]


def test_a_failure_of_the_first_report_leaves_no_files(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_after(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        _write(small_report(), work, tmp_path / "new/er/out")
    assert _only_output(tmp_path) == []


def _fail_after(monkeypatch: pytest.MonkeyPatch, files: int) -> None:
    replace_one = atomic_write.Staging._replace
    done: list[str] = []

    def failing(stage: atomic_write.Staging, file: str) -> None:
        if len(done) == files:
            raise KeyboardInterrupt
        done.append(file)
        replace_one(stage, file)

    monkeypatch.setattr(atomic_write.Staging, "_replace", failing)


def _raiser(error: BaseException) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


def test_report_json_is_renamed_last(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    replace_one = atomic_write.Staging._replace

    def record_call(stage: atomic_write.Staging, file: str) -> None:
        order.append(file)
        replace_one(stage, file)

    monkeypatch.setattr(atomic_write.Staging, "_replace", record_call)
    _write(small_report(), work, tmp_path / "out")
    assert order[-1] == "report.json"


def test_files_of_removed_models_are_deleted_and_other_files_are_kept(
    work: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _write(small_report(), work, output)
    foreign = {
        "notes.txt": b"mine",
        "models/transformer/notes.md": b"mine",
        "models/other/index.html": b"another tool's",
        "graphs/x.svg": b"mine",
    }
    for name, content in foreign.items():
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_bytes(content)
    only = replace(small_report(), models=small_report().models[:1])
    _write(only, work, output)
    left = _files(output)
    assert foreign.items() <= left.items()
    assert [name for name in left if name.startswith("models/transformer/")] == [
        "models/transformer/notes.md"
    ]
    (output / "models/transformer/notes.md").unlink()


def test_the_folder_of_a_removed_model_is_deleted(work: Path, tmp_path: Path) -> None:
    _write(small_report(), work, tmp_path / "out")
    only = replace(small_report(), models=small_report().models[:1])
    _write(only, work, tmp_path / "out")
    assert _only_output(tmp_path / "out/models") == ["tanh"]


def test_a_file_that_a_model_no_longer_has_is_deleted(work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    _write(small_report(), work, output)
    before = _files(output)
    (output / "models/tanh/model.onnx.data").write_bytes(b"weights of an earlier file")
    (output / "models/tanh/notes.md").write_bytes(b"mine")
    without = {"onnx": Failed(error="export failed", hint="")}
    _write(_with_outcomes(small_report(), without), work, output)
    gone = set(before) - set(_files(output))
    assert gone == {"models/tanh/model.onnx"}
    assert not (output / "models/tanh/model.onnx.data").exists()
    assert (output / "models/tanh/notes.md").exists()


def test_pages_of_an_older_report_do_not_stay_beside_new_data(work: Path, tmp_path: Path) -> None:
    report, output = small_report(), tmp_path / "out"
    _write(report, work, output)
    pages = {name for name in _files(output) if Path(name).name in ("index.html", "summary.md")}
    before = set(_files(output))
    write_in(output, report, work, {"json"})
    assert before - set(_files(output)) == pages


@pytest.mark.parametrize("name", ["index.html", "report.json", "summary.md", "report.pdf"])
def test_a_file_of_another_program_is_not_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("my own page")
    with (
        pytest.raises(OutputError, match=f"{name} exists and is not from reportgen"),
        temporary_folder(tmp_path),
    ):
        pass
    assert (tmp_path / name).read_text() == "my own page"


def _with_outcomes(report: Report, outcomes: dict[str, Failed]) -> Report:
    return replace(
        report,
        models=tuple(
            replace(
                model,
                sections=tuple(
                    replace(section, outcome=outcomes.get(section.name, section.outcome))
                    for section in model.sections
                ),
            )
            for model in report.models
        ),
    )


@pytest.mark.parametrize(
    "previous",
    [
        '{"environment": {"reportgen": ',
        '["reportgen"]',
        '{"environment": {"reportgen": "0.1.0"}, "models": [{"name": "../../etc"}]}',
        '{"environment": {"reportgen": "0.1.0"}, "models": [{"name": 3}, {}]}',
        '["reportgen"' + "[" * 100_000,
    ],
)
def test_an_invalid_report_json_deletes_no_files(work: Path, tmp_path: Path, previous: str) -> None:
    output = tmp_path / "out"
    (output / "models").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/index.html").write_text("keep")
    (output / "report.json").write_text(previous)
    _write(small_report(), work, output)
    assert (tmp_path / "etc/index.html").read_text() == "keep"
    assert json.loads((output / "report.json").read_text(encoding="utf-8"))["title"] == "Small"


def test_a_stale_folder_that_is_a_symlink_is_kept(work: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "index.html").write_text("keep")
    output = tmp_path / "out"
    (output / "models").mkdir(parents=True)
    (output / "models/old").symlink_to(elsewhere)
    (output / "report.json").write_text('{"models": [{"name": "old"}]}')
    _write(small_report(), work, output)
    assert (elsewhere / "index.html").read_text() == "keep"


def test_an_output_on_a_read_only_file_system_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(atomic_write.os, "access", lambda path, mode: False)
    monkeypatch.setattr(atomic_write.os, "statvfs", lambda path: ReadOnly)
    with pytest.raises(OutputError, match="read-only file system") as caught:
        atomic_write.check_output(tmp_path)
    assert caught.value.hint == "the file system is read-only: choose another one with --output"


def test_an_output_that_is_a_file_is_an_error(work: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file") as caught:
        _write(small_report(), work, tmp_path / "out")
    assert "--output" in caught.value.hint
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_name_that_is_too_long_is_an_error_with_a_hint(work: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="file name too long") as caught:
        _write(small_report(), work, tmp_path / ("a" * 300))
    assert "shorter path" in caught.value.hint


def test_a_new_build_keeps_temporary_folders_of_running_builds(work: Path, tmp_path: Path) -> None:
    with atomic_write.staging(tmp_path / "out") as stage:
        stage.write("index.html", b"whole")
        with temporary_folder(tmp_path / "other"):
            pass
        stage.publish()
    assert (tmp_path / "out/index.html").read_bytes() == b"whole"


def test_the_temporary_folder_is_inside_the_output_if_its_parent_is_not_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(atomic_write.os, "access", lambda path, mode: Path(path) != tmp_path)
    with temporary_folder(tmp_path / "out") as folder:
        assert folder.parent == tmp_path / "out"
    assert _only_output(tmp_path / "out") == []


def test_an_invalid_output_is_an_error_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="is a file"), temporary_folder(tmp_path / "out"):
        raise AssertionError("work began")


def test_a_killed_pdf_layout_is_an_output_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", _script(tmp_path, "kill -9 $$"))
    with pytest.raises(OutputError, match="killed") as caught:
        PdfMaker().make("<p>x</p>", tmp_path)
    assert "--format" in caught.value.hint


def _script(folder: Path, line: str) -> str:
    file = folder / "script"
    file.write_text(f"#!/bin/sh\n{line}\n")
    file.chmod(0o755)
    return str(file)


def test_a_file_among_the_parents_of_the_output_is_an_error(work: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for refuse in (_write, lambda report, work, output: temporary_folder(output).__enter__()):
        with pytest.raises(OutputError, match="file is a file; the report needs a folder"):
            refuse(small_report(), work, tmp_path / "file/new/out")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_the_name_of_a_report_file_is_an_error_and_nothing_changes(
    work: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    _write(small_report(), work, output)
    (output / "summary.md").unlink()
    (output / "summary.md").mkdir()
    before = _files(output)
    with pytest.raises(OutputError, match="is a folder"):
        _write(replace(small_report(), title="Other"), work, output)
    assert _files(output) == before


def test_a_folder_without_permission_is_an_error_with_a_hint(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "out"))
    monkeypatch.setattr(atomic_write, "staging_parent", _raiser(denied))
    with pytest.raises(OutputError, match=r"cannot write .*out: permission denied") as caught:
        _write(small_report(), work, tmp_path / "out")
    assert caught.value.hint.startswith("choose a writable folder")
    assert _only_output(tmp_path) == []


def test_files_are_staged_inside_the_output_if_its_parent_is_not_writable(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic_write.os, "access", lambda path, mode: False)
    made: list[object] = []
    staging_parent = atomic_write.staging_parent

    def record_call(output: Path) -> Path:
        made.append(staging_parent(output))
        return staging_parent(output)

    monkeypatch.setattr(atomic_write, "staging_parent", record_call)
    _write(small_report(), work, tmp_path / "out")
    assert made == [tmp_path / "out"]
    assert _only_output(tmp_path / "out") == ["index.html", "models", "report.json", "summary.md"]


def test_a_full_disk_is_an_error_with_a_hint_and_keeps_the_previous_report(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    _write(small_report(), work, output)
    before = _files(output)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(atomic_write.os, "fsync", _raiser(full))
    with pytest.raises(OutputError, match="no space left on device") as caught:
        _write(replace(small_report(), title="Other"), work, output)
    assert caught.value.hint.startswith("free disk space")
    assert _files(output) == before
    assert _only_output(tmp_path) == ["out"]


@pytest.mark.parametrize("names", [("Net", "net"), ("a", "a"), ("a/b",), ("..",)])
def test_model_names_that_collide_or_leave_the_folder_are_errors(
    work: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    models = tuple(replace(small_report().models[0], name=name) for name in names)
    with pytest.raises(OutputError) as caught:
        _write(replace(small_report(), models=models), work, tmp_path / "out")
    assert caught.value.hint
    assert _only_output(tmp_path) == []


def test_every_file_is_synced_before_any_is_renamed(
    work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    sync, replace_one = os.fsync, atomic_write.Staging._replace

    def record_sync(handle: int) -> None:
        events.append("sync")
        sync(handle)

    def record_rename(stage: atomic_write.Staging, file: str) -> None:
        events.append("rename")
        replace_one(stage, file)

    monkeypatch.setattr(atomic_write.os, "fsync", record_sync)
    monkeypatch.setattr(atomic_write.Staging, "_replace", record_rename)
    written = _write(small_report(), work, tmp_path / "out")
    first = events.index("rename")
    assert events[:first] == ["sync"] * len(written)


def test_a_pdf_layout_that_exceeds_its_time_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exceeded") as caught:
        PdfMaker().make("<p>x</p>", tmp_path, seconds=0.01)
    assert "--format" in caught.value.hint


def test_a_page_with_an_external_resource_raises_runtime_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"refused: https://example\.org/x\.png"):
        lay_out('<html lang="en"><img src="https://example.org/x.png" alt="">').pdf(tmp_path)


def test_a_layout_warning_raises_runtime_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-property"):
        lay_out("<style>p { no-such-property: 1 }</style><p>x</p>").pdf(tmp_path)


def test_a_process_makes_one_pdf_after_the_other_until_one_fails(tmp_path: Path) -> None:
    maker = PdfMaker()
    maker.prepare()
    (process,) = maker._idle
    try:
        pages = ["<html lang=en><p>one", "<html lang=en><p>two"]
        made = [maker.make(page, tmp_path) for page in pages]
        assert made == [lay_out(page).pdf(tmp_path) for page in pages]
        assert maker._idle == [process]
        with pytest.raises(RuntimeError, match="no-such-property"):
            maker.make("<style>p { no-such-property: 1 }</style>", tmp_path)
        assert maker._idle == []
        assert maker.make(pages[0], tmp_path) == made[0]
    finally:
        maker.close()


def test_after_preparation_pages_compile_no_template(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_pages()
    compiled = _raiser(AssertionError("a template is compiled"))
    monkeypatch.setattr(jinja2.Environment, "compile", compiled)
    report = full_report()
    for model in report.models:
        render_chapter(model, work, number=1, models=1)
        render_model(report, model, work)
    render_index(report)


@pytest.fixture(scope="module")
def pdf(work: Path) -> bytes:
    return _pdf_of(small_report(), work)


def _pdf_of(report: Report, work: Path, *, brief: bool = False) -> bytes:
    output = work.parent / "pdf"
    write_in(output, report, work, {"pdf"}, brief_pdf=brief)
    return (output / "report.pdf").read_bytes()


def _bookmarks(pdf: pikepdf.Pdf) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []

    def walk(items: list[pikepdf.OutlineItem], depth: int) -> None:
        for item in items:
            found.append((depth, item.title))
            walk(item.children, depth + 1)

    with pdf.open_outline() as outline:
        walk(list(outline.root), 0)
    return found


def _text(pdf: bytes, tmp_path: Path) -> str:
    import subprocess

    file = tmp_path / "x.pdf"
    file.write_bytes(pdf)
    done = subprocess.run(["pdftotext", "-layout", file, "-"], capture_output=True, check=True)
    return done.stdout.decode()


@pytest.mark.slow
def test_the_pdf_has_a_title_a_language_tags_and_bookmarks(pdf: bytes) -> None:
    with pikepdf.open(io.BytesIO(pdf)) as document:
        assert str(document.docinfo["/Title"]) == "Small"
        assert str(document.Root.Lang) == "en"
        assert document.Root.MarkInfo.Marked
        bookmarks = _bookmarks(document)
    assert [title for depth, title in bookmarks if depth == 0] == [
        "Comparison of all models",
        "Findings",
        "tanh",
        "transformer",
        "How each figure was made",
        "Time taken",
    ]
    assert (1, "Memory") in bookmarks
    assert (2, "Module graph") in bookmarks


@pytest.mark.slow
def test_a_brief_pdf_has_cover_comparison_and_at_most_two_pages_for_each_model(
    work: Path, tmp_path: Path
) -> None:
    pdf = _pdf_of(small_report(), work, brief=True)
    pages = _text(pdf, tmp_path).split("\f")[:-1]
    chapters = ["Comparison of all models", "tanh", "transformer"]
    starts = [next(n for n, p in enumerate(pages) if p.lstrip().startswith(c)) for c in chapters]
    assert starts[0] == 1
    assert [b - a <= 2 for a, b in pairwise([*starts, len(pages)])] == [True, True, True]
    with pikepdf.open(io.BytesIO(pdf)) as document:
        bookmarks = _bookmarks(document)
    assert [title for depth, title in bookmarks if depth == 0] == chapters
    assert bookmarks[-4:] == [
        (1, "ONNX"),
        (1, "Findings"),
        (1, "Largest batch that is safe"),
        (1, "Module graph"),
    ]
    assert "block.2" in pages[-1]


@pytest.mark.slow
def test_the_pdf_uses_only_the_shipped_fonts(pdf: bytes) -> None:
    with pikepdf.open(io.BytesIO(pdf)) as document:
        fonts = {
            str(font.BaseFont).partition("+")[2]
            for page in document.pages
            for font in page.resources.get("/Font", {}).values()
        }
    assert fonts
    assert {font for font in fonts if not font.startswith("Report")} == set()


@pytest.mark.slow
def test_the_table_of_contents_has_the_first_page_of_each_chapter(
    pdf: bytes, tmp_path: Path
) -> None:
    pages = _text(pdf, tmp_path).split("\f")
    line = next(line for line in pages[1].splitlines() if line.startswith("transformer"))
    number = int(line.split()[-1])
    assert "transformer" in pages[number - 1].split()[:1]
    assert pages[number - 1].rstrip().endswith(str(number))


@pytest.mark.slow
def test_drawings_are_placed_as_vectors_with_their_text(pdf: bytes, tmp_path: Path) -> None:
    assert "block.2" in _text(pdf, tmp_path)
    with pikepdf.open(io.BytesIO(pdf)) as document:
        forms = [
            form
            for page in document.pages
            for form in page.resources.get("/XObject", {}).values()
            if form.get("/Subtype") == "/Form"
        ]
        assert len(forms) >= 5
        assert not [image for page in document.pages for image in page.images]


@pytest.mark.slow
def test_no_page_is_empty(pdf: bytes, tmp_path: Path) -> None:
    pages = _text(pdf, tmp_path).split("\f")[:-1]
    assert all(len(page.split()) > 12 for page in pages)


@pytest.mark.slow
def test_all_formats_are_written_and_the_pdf_is_that_of_the_same_report(
    pdf: bytes, work: Path, tmp_path: Path
) -> None:
    report = small_report()
    written = write_in(tmp_path / "out", report, work, FORMATS)
    assert {
        "report.pdf", "index.html", "summary.md", "report.json", "report.sarif", "report.junit.xml",
    } <= {path.name for path in written}  # fmt: skip
    assert (tmp_path / "out/report.pdf").read_bytes() == pdf
    assert len(pdf) < 5_000_000
