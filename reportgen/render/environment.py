"""The Jinja environment: strict, escaping, and with the filters that templates may use."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined
from jinja2.bccache import Bucket
from markupsafe import Markup

from reportgen import units
from reportgen.fonts import templates_dir
from reportgen.render import figures, filters, overview
from reportgen.render.drawings import Place, data_uri, inline_svg, place, plot_svg
from reportgen.render.fonts import drawable
from reportgen.render.text import drawn, html_in_markdown, markdown, shortened
from reportgen.report import failures
from reportgen.sections import SECTIONS
from reportgen.visible_text import visible

Filters = dict[str, Callable[..., Any]]


class _CompiledOnce(BytecodeCache):
    """Compiled templates, for several environments: each model has its own, see `of_model`."""

    def __init__(self) -> None:
        self._codes: dict[str, Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill `bucket` with the code of its template, if it was compiled before."""
        bucket.code = self._codes.get(bucket.key)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the code in `bucket`."""
        self._codes[bucket.key] = bucket.code


_HTML = _CompiledOnce()  # on a screen and on paper they are the same, see test_render.py


@cache
def page_environment(*, on_paper: bool) -> Environment:
    """For HTML, on a screen or on paper."""
    environment = _environment(_HTML)
    environment.finalize = _on_paper if on_paper else _on_screen
    environment.globals["on_paper"] = on_paper
    return environment


@cache
def markdown_environment() -> Environment:
    """For Markdown: the value of each expression is escaped."""
    environment = _environment(_CompiledOnce())
    environment.autoescape = False  # it escapes for HTML; `finalize` escapes for Markdown
    environment.finalize = _in_markdown
    environment.filters["markup"] = Markup  # for what is made to be Markdown
    environment.filters["in_html"] = lambda text: Markup(html_in_markdown(text))  # noqa: S704
    return environment


def of_model(environment: Environment, root: Path, name: str) -> Environment:
    """`environment` with the filters that read the files of model `name` below `root`."""
    own, folder = environment.overlay(), root / "models" / name
    # A new dictionary: the overlay shares the old one with the cached environment.
    own.filters = {
        **environment.filters,
        "drawing": partial(_drawing, folder),
        "data_uri": partial(data_uri, folder),
        "plot_svg": partial(plot_svg, folder, on_paper=bool(environment.globals["on_paper"])),
        "place": partial(_placed, root, name),
    }
    return own


def _environment(compiled: BytecodeCache) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(templates_dir(), encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,  # a misspelled field is an error and not a blank
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,  # templates do not change while the program runs
        bytecode_cache=compiled,
    )
    environment.filters.update(_filters())
    environment.globals["source_of"] = source_of
    return environment


def source_of(file: str) -> Markup:
    """The text of a script in the folder of templates, not parsed as Jinja."""
    return Markup((templates_dir() / file).read_text(encoding="utf-8"))  # noqa: S704 - our own


def _filters() -> Filters:
    return {
        "bytes": units.format_bytes,
        "count": units.format_count,
        "integer": units.format_integer,
        "share": units.format_share,
        "seconds": units.format_seconds,
        "error_size": units.format_error,
        "shape": units.format_shape,
        "short": shortened,
        "href": quote,
        "hash": _source_hash,
        "in_order": overview.in_order,
        "failures": failures,
        **filters.FILTERS,
        **figures.FILTERS,
        **{name: f for section in SECTIONS for name, f in section.filters.items()},
    }


def _on_screen(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else visible(value)


def _on_paper(value: object) -> object:
    # WeasyPrint warns of characters that no font has, in drawings as well, and its warnings are
    # errors, see `pdf.weasyprint_process`.
    if not isinstance(value, str):
        return value
    known = drawable(templates_dir() / "fonts")
    if isinstance(value, Markup):
        return Markup(drawn(value, known))  # noqa: S704 - it was markup before
    return drawn(visible(value), known)


def _in_markdown(value: object) -> object:
    return value if isinstance(value, Markup) else markdown(str(value))


def _drawing(folder: Path, file: str) -> Markup:
    # Several drawings on one page have equal ids, which must not refer to each other.
    return inline_svg(folder / file, f"{Path(file).stem}-")


def _placed(root: Path, name: str, file: str, *, with_heading: bool) -> Place:
    return place(root, f"models/{name}/{file}", with_heading=with_heading)


def _source_hash(source: str) -> str:
    """The Content-Security-Policy source that allows exactly this inline script."""
    digest = hashlib.sha256(str(source).encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
