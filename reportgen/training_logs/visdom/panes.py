"""Panes of a visdom environment: each type decoded into what a run holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from reportgen.training_logs.log_run import (
    UNKNOWN_TIME,
    LoggedImage,
    LoggedTable,
    LoggedText,
    LogRun,
    Session,
    unique_name,
)
from reportgen.training_logs.points import number
from reportgen.training_logs.visdom.embedded_pictures import (
    EmbeddedPicture,
    Keep,
    read_picture,
    read_svg,
    without_svg,
)
from reportgen.training_logs.visdom.html_text import plain_text
from reportgen.training_logs.visdom.traces import BadPane, add_plot, title_text

T = TypeVar("T", bound=Any)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pane:
    """A decoded pane; the tags of `content` are what follows the pane's own.

    Attributes:
        order: visdom's own position of the pane; those without one come last.
        no_value: how many nulls in its curves stand for "no value".
    """

    id: str
    title: str
    order: float
    content: LogRun
    no_value: int


def is_pane(value: object) -> bool:
    """Whether `value` looks like a pane that a server saved."""
    return isinstance(value, dict) and {"id", "type", "content"} <= value.keys()


def take_pictures(pane_type: object, content: object, keep: Keep) -> object:
    """`content` with an `EmbeddedPicture`, read on demand, for each `data:` URI of a picture.

    Raises:
        BadPane: the content is not that of a picture pane, or a picture is not valid.
    """
    if pane_type == "image":
        return _take_picture(content, keep)
    if pane_type == "image_history" and isinstance(content, list):
        return [_take_picture(entry, keep) for entry in content]
    return content


def _take_picture(entry: object, keep: Keep) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("src"), str):
        raise BadPane("a picture without src")
    try:
        return {**entry, "src": read_picture(entry["src"], keep)}
    except ValueError as error:
        raise BadPane(str(error)) from error


def decode_pane(pane: object, key: str, keep: Keep) -> Pane:
    """Decode a pane whose pictures `take_pictures` replaced.

    Args:
        pane: as the server holds it.
        key: its name in the environment, for a pane without `id`.
        keep: where to leave SVG documents.

    Raises:
        BadPane: it is not a pane, or its content does not fit its type.
    """
    if not isinstance(pane, dict):
        raise BadPane("a pane is not an object")
    if "type" not in pane or "content" not in pane:
        raise BadPane("a pane without type or content")
    # A run of its own: a pane that turns out to be malformed leaves nothing behind.
    part = LogRun(name="", format="visdom")
    pane_type = str(pane["type"])
    no_value = 0
    if pane_type == "text":
        _add_text(pane["content"], part, keep)
    elif pane_type == "plot":
        no_value = add_plot(_object(pane["content"], "plot"), part)
    elif pane_type in _DECODERS:
        _DECODERS[pane_type](pane["content"], part)
    else:
        part.not_shown[pane_type[:40]] += 1
    return Pane(
        id=str(pane.get("id", key)),
        title=_title(pane),
        order=_order(pane.get("i")),
        content=part,
        no_value=no_value,
    )


def _title(pane: dict[str, Any]) -> str:
    if isinstance(pane.get("title"), str) and pane["title"].strip():
        return str(pane["title"]).strip()
    layout = pane["content"].get("layout") if isinstance(pane["content"], dict) else None
    return title_text(layout.get("title")).strip() if isinstance(layout, dict) else ""


def _order(value: object) -> float:
    place = number(value)
    return math.inf if place is None or math.isnan(place) else place


def _object(value: object, kind: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadPane(f"the content of a {kind} pane is not an object")
    return value


def _add_text(content: object, part: LogRun, keep: Keep) -> None:
    if not isinstance(content, str):
        raise BadPane("the content of a text pane is not text")
    # visdom writes audio and video as elements that hold the whole file: search the start only.
    lowered = content[:4096].lower()
    for kind in ("audio", "video"):
        if f"<{kind}" in lowered:
            part.not_shown[kind] += 1
            return
    picture = read_svg(content, keep)
    if picture is not None:
        part.images.append(_image(picture, 0.0, ""))
    text = plain_text(without_svg(content))
    if text or picture is None:
        part.texts.append(LoggedText(tag="", step=0.0, time=UNKNOWN_TIME, text=text))


def _image(picture: EmbeddedPicture, step: float, caption: str) -> LoggedImage:
    return LoggedImage(
        tag="",
        step=step,
        time=UNKNOWN_TIME,
        payload=picture.payload,
        width=picture.width,
        height=picture.height,
        caption=caption,
    )


def _add_history(content: object, part: LogRun) -> None:
    if not isinstance(content, list):
        raise BadPane("the content of an image_history pane is not a list")
    # A history has no steps of its own, only an order.
    for step, entry in enumerate(content):
        _add_entry(entry, float(step), part)


def _add_entry(content: object, step: float, part: LogRun) -> None:
    entry = _object(content, "image")
    picture = entry.get("src")
    # A URL of another server: a report must not load anything.
    if not isinstance(picture, EmbeddedPicture):
        part.not_shown["picture outside the log"] += 1
        return
    caption = entry.get("caption")
    part.images.append(_image(picture, step, caption if isinstance(caption, str) else ""))


def _add_properties(content: object, part: LogRun) -> None:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise BadPane("the content of a properties pane is not a list of properties")
    rows = tuple((str(row.get("name", "")), _property(row)) for row in content)
    part.tables.append(LoggedTable(tag="", step=0.0, columns=("name", "value"), rows=rows))


def _property(row: dict[str, Any]) -> str:
    """The value as the pane shows it: a choice is stored as its place in `values`."""
    value, choices = row.get("value"), row.get("values")
    if row.get("type") == "select" and isinstance(choices, list) and isinstance(value, int):
        # Checked: a negative index would be another choice.
        return str(choices[value]) if 0 <= value < len(choices) else str(value)
    return "" if value is None else str(value)


_DECODERS: dict[str, Callable[[object, LogRun], None]] = {
    "image": lambda content, part: _add_entry(content, 0.0, part),
    "image_history": _add_history,
    "properties": _add_properties,
}


def assemble(panes: list[Pane], run: LogRun) -> None:
    """Add the panes to `run` in visdom's order, each under a tag of its own."""
    run.sessions.append(Session(file=run.files[0].name if run.files else ""))
    titles = Counter(pane.title or pane.id for pane in panes)
    for pane in sorted(panes, key=lambda pane: pane.order):
        tag = pane.title or pane.id
        # Two windows titled "loss" are two plots; one curve of both would jump back and forth.
        if titles[tag] > 1 and tag != pane.id:
            tag = f"{tag} [{pane.id}]"
        _add_pane(pane.content, tag, run)
    if no_value := sum(pane.no_value for pane in panes):
        run.notes.append(
            f"{no_value:,} null values of curves with several lines stand for steps at which "
            "only another line has a value; they are not counted as NaN."
        )


def _add_pane(part: LogRun, tag: str, run: LogRun) -> None:
    for name, series in part.scalars.items():
        run.scalars[unique_name(tag + name, run.scalars)] = series
    run.images += _tagged(part.images, tag)
    run.texts += _tagged(part.texts, tag)
    run.tables += _tagged(part.tables, tag)
    run.charts += _tagged(part.charts, tag)
    run.not_shown += part.not_shown


def _tagged(items: list[T], tag: str) -> list[T]:
    return [replace(item, tag=tag) for item in items]
