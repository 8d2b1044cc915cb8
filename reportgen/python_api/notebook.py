"""One model as the output of a notebook's cell: static, self-contained, in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from markupsafe import Markup

from reportgen.fonts import templates_dir
from reportgen.outcome import Done
from reportgen.render.environment import of_model, page_environment
from reportgen.render.fonts import font_faces
from reportgen.render.overview import model_overview
from reportgen.report import ModelReport


def render_notebook(model: ModelReport, folder: Path, notes: Sequence[str] = ()) -> str:
    """Verdict, main figures and findings of `model`, and what sections show in a notebook.

    A section adds a template `<name>_notebook.html.j2`; most have none. `folder` holds
    `models/<name>/…`; drawings whose files are gone are left out.
    """
    environment = page_environment(on_paper=False)
    page = environment.get_template("notebook.html.j2").render(
        model=model,
        overview=model_overview(model),
        notes=notes,
        bodies=_bodies(model, folder),
    )
    # boxes of drawings have the widths of our fonts; those of the notebook are wider
    return page.replace("/* fonts */", font_faces(page, templates_dir() / "fonts"), 1)


def _bodies(model: ModelReport, folder: Path) -> list[Markup]:
    environment = page_environment(on_paper=False)
    own = of_model(environment, folder, model.name)
    # a new dictionary: the environment is cached for the next model
    own.globals = {
        **environment.globals,
        "exists": lambda file: (folder / "models" / model.name / file).is_file(),
    }
    known = set(own.list_templates())
    found = []
    for section in model.sections:
        file = f"sections/{section.name}_notebook.html.j2"
        if isinstance(section.outcome, Done) and file in known:
            page = own.get_template(file).render(result=section.outcome.result)
            found.append(Markup(page))  # noqa: S704 - its template has escaped it
    return found
