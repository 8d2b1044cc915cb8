"""A report as pages: HTML for the screen, HTML for print, and Markdown.

Templates choose among values; everything that is counted, sorted or drawn is a filter of this
package. The same report gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from reportgen.comparable import Graph, ModuleRecord
from reportgen.compare.result import Comparison
from reportgen.fonts import templates_dir
from reportgen.outcome import Done
from reportgen.pdf.places import Sheet
from reportgen.render.changes import Changes, changes_of
from reportgen.render.environment import of_model, page_environment
from reportgen.render.fonts import drawable, font_faces
from reportgen.render.graph_viewer import parts_of_changes, parts_of_graphs, viewer_parts
from reportgen.render.how_made import how_made
from reportgen.render.overview import all_found, model_overview, overview
from reportgen.render.summary import SUMMARY_LIMIT, render_changes, render_summary
from reportgen.report import ModelReport, Report
from reportgen.rule_docs import rules_of
from reportgen.sections import SECTIONS
from reportgen.viewer.layout import GraphLayout

__all__ = [
    "OTHER_FILES",
    "SUMMARY_LIMIT",
    "Changes",
    "changes_of",
    "page_text",
    "prepare_pages",
    "render_changes",
    "render_chapter",
    "render_comparison",
    "render_graphs",
    "render_index",
    "render_model",
    "render_print",
    "render_summary",
    "templates_dir",
]

OTHER_FILES = ("report.pdf", "report.json", "summary.md")
"""Files that may lie beside the first page."""

_FONTS = "/* fonts */"
_ROWS_IN_PRINT, _FEWEST_ROWS = 480, 12  # of the layer tables: of all models, and of each

Bodies = dict[str, Markup]  # section -> its rendered result


def prepare_pages() -> None:
    """Compile the templates and read the fonts, as the first page would."""
    import pikepdf  # noqa: F401 - reads the sizes of drawings

    for on_paper in (False, True):
        # with the filters of a model: what is compiled serves the environments of all models
        environment = of_model(page_environment(on_paper=on_paper), Path(), "")
        for name in environment.list_templates():
            if name.endswith((".html.j2", ".css")):
                environment.get_template(name)
    drawable(templates_dir() / "fonts")


def render_index(
    report: Report, others: Sequence[str] = OTHER_FILES, changes: Changes | None = None
) -> str:
    """The first page: what changed, all models side by side, and links to `others`."""
    environment = page_environment(on_paper=False)
    page = environment.get_template("index.html.j2").render(
        report=report,
        overview=overview(report),
        found=all_found(report),
        how=how_made(report.models),
        others=others,
        changes=changes,
        viewer=parts_of_changes(changes),
    )
    return _with_fonts(page)


def render_model(report: Report, model: ModelReport, folder: Path, *, live: str = "") -> str:
    """The page of one model, a section per section. `folder` holds `models/<name>/…`.

    A page with `live` reloads itself when the `live.js` beside it has another value.
    """
    environment = page_environment(on_paper=False)
    bodies = _bodies(environment, model, folder)
    page = environment.get_template("model.html.j2").render(
        report=report,
        model=model,
        overview=model_overview(model),
        how=how_made([model]),
        live=live,
        bodies=bodies,
        viewer=viewer_parts(model, bodies),
        analyzed=_analyzed(report, model),
        measured=_measured(report, model),
        seconds=_seconds(report, model),
        rules=rules_of(finding.code for finding in model.findings),
    )
    return _with_fonts(page)


def render_chapter(
    model: ModelReport, folder: Path, *, number: int, models: int, brief: bool = False
) -> str:
    """The chapter of a model for paper, the `number`th of a report of so many `models`.

    Drawings are left as empty places whose ids name the tiles below `folder` to put there. A
    `brief` chapter has two pages. Page numbers are those of `render_print`.
    """
    environment = page_environment(on_paper=True)
    most = max(_FEWEST_ROWS, _ROWS_IN_PRINT // models)
    page = environment.get_template("print_chapter.html.j2").render(
        model=model,
        seen=model_overview(model, number),
        brief=brief,
        sections=_brief_bodies(environment, model, folder)
        if brief
        else _bodies(environment, model, folder, rows_in_print=most),
    )
    return _with_fonts(page)


def render_print(
    report: Report,
    chapters: Sequence[Sequence[Sheet]],
    changes: Changes | None = None,
    *,
    brief: bool = False,
) -> str:
    """The report as one page for paper: all but the chapters of models, and their page numbers.

    It has an empty sheet with a footer for each page of `chapters`, which are those of the models
    in their order. `outputs` makes the PDF of it. A `brief` one has no contents or findings.
    """
    environment = page_environment(on_paper=True)
    page = environment.get_template("print.html.j2").render(
        report=report,
        overview=overview(report),
        found=all_found(report),
        changes=changes,
        how=how_made([] if brief else report.models),
        brief=brief,
        chapters=chapters,
    )
    return _with_fonts(page)


def render_comparison(comparison: Comparison, changes: Changes) -> str:
    """A page of its own that shows what changed."""
    page = page_environment(on_paper=False).get_template("compare.html.j2")
    return _with_fonts(
        page.render(
            title=comparison.new.title,
            verdict=comparison.verdict,
            changes=changes,
            viewer=parts_of_changes(changes),
        )
    )


def render_graphs(
    title: str,
    graphs: Sequence[Graph],
    layouts: Sequence[GraphLayout],
    modules: Sequence[ModuleRecord] = (),
    *,
    file: Mapping[str, Any] | None = None,
    depth: int | None = None,
) -> str:
    """A page that has nothing but the viewer of `graphs`, whose `layouts` may be two for each.

    `file` is what `sections.graphs.file_data` returns, for an ONNX graph. Clusters nested deeper
    than `depth` are closed at first; None leaves that to the viewer.
    """
    viewer = parts_of_graphs(graphs, layouts, modules, file)
    return page_text("graph.html.j2", title=title, viewer=viewer, depth=depth)


def page_text(template: str, **values: object) -> str:
    """A page for the screen from a template of its own, with the fonts that it needs."""
    return _with_fonts(page_environment(on_paper=False).get_template(template).render(**values))


def _bodies(
    environment: Environment, model: ModelReport, folder: Path, *, rows_in_print: int = 0
) -> Bodies:
    """The sections of `model` that have a result, each rendered from that result alone."""
    own = of_model(environment, folder, model.name)
    # A new dictionary, as in `of_model`: the environment is cached for the next model.
    own.globals = {
        **environment.globals,
        "rows_in_print": rows_in_print,
        "left_out": {file.name for file in model.left_out},
    }
    return {
        section.name: _body(own, f"{section.name}.html.j2", section.outcome.result)
        for section in model.sections
        if isinstance(section.outcome, Done)
    }


def _brief_bodies(environment: Environment, model: ModelReport, folder: Path) -> Bodies:
    """What sections show in a brief PDF: all that belongs in the text, then what fills a page.

    A section adds a template `<name>_brief.html.j2` for the one, `<name>_brief_page.html.j2` for
    the other; most have neither.
    """
    own = of_model(environment, folder, model.name)
    known = set(own.list_templates())
    return {
        f"{section.name}{kind}": _body(own, f"{section.name}{kind}.html.j2", section.outcome.result)
        for kind in ("_brief", "_brief_page")
        for section in model.sections
        if isinstance(section.outcome, Done) and f"sections/{section.name}{kind}.html.j2" in known
    }


def _body(environment: Environment, file: str, result: Any) -> Markup:
    page = environment.get_template(f"sections/{file}").render(result=result)
    return Markup(page)  # noqa: S704 - its template has escaped it


def _seconds(report: Report, model: ModelReport) -> dict[str, float]:
    return report.timings.section_seconds.get(model.name, {}) if report.timings else {}


def _analyzed(report: Report, model: ModelReport) -> dict[str, str]:
    """When each section was analyzed, by name."""
    return report.timings.analyzed.get(model.name, {}) if report.timings else {}


def _measured(report: Report, model: ModelReport) -> dict[str, str]:
    """When durations that a section shows were measured, by the section's name."""
    timed = {section.name for section in SECTIONS if "timings" in section.reads}
    timed &= {metric.key.partition(".")[0] for metric in model.metrics if not metric.exact}
    return {name: when for name, when in _analyzed(report, model).items() if name in timed}


def _with_fonts(page: str) -> str:
    # Last, because the glyphs that a page needs are known when it is complete.
    return page.replace(_FONTS, font_faces(page, templates_dir() / "fonts"), 1)
