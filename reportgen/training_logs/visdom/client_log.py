"""The log of a visdom client: every message that it sent, replayed as the server would.

One JSON list per line, `["events" | "update" | "save", message]`. It is the whole history, written
without a server (`Visdom(offline=True, log_to_filename=...)`) or beside one. Messages that the
server refuses, such as an update of a window that does not exist, are counted and left out.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from reportgen.training_logs.growing_file import LineLogReader, TextLine
from reportgen.training_logs.json_scan import json_error
from reportgen.training_logs.log_run import LogRun, join_names
from reportgen.training_logs.visdom.embedded_pictures import TextStore, hold
from reportgen.training_logs.visdom.panes import (
    Pane,
    assemble,
    decode_pane,
    take_pictures,
)
from reportgen.training_logs.visdom.traces import BadPane, array_of

_COMMANDS = frozenset({"events", "update", "save"})
# Types of traces whose panes visdom 0.2.4 updates (UpdateHandler.wrap_func).
_UPDATABLE = frozenset({"scatter", "scattergl", "custom", "heatmap"})
# Panes whose content the server stores unchanged; all other types become plots.
_WHOLE_PANES = frozenset({"image", "properties", "network", "embeddings"})

PaneState = dict[str, Any]


def is_message(value: object) -> bool:
    """Whether `value` is a line of a client log."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and value[0] in _COMMANDS
        and isinstance(value[1], dict | list)
    )


class VisdomClientLogReader(LineLogReader):
    """One client log: one run, or one per environment if it has several."""

    format = "visdom client log"

    @property
    def runs(self) -> list[LogRun]:
        """As in `LogReader`."""
        return self._runs

    def _reset(self) -> None:
        self._windows: dict[str, dict[str, PaneState]] = {}
        self._refused: Counter[str] = Counter()
        self._runs = [self._empty_run("", first=True)]

    def _resume(self) -> None:
        """Nothing to undo: a line that is a complete JSON list cannot grow."""

    def _empty_run(self, environment: str, *, first: bool) -> LogRun:
        name = join_names(self.name, environment)
        # The file and its damage are counted once, in the first run.
        files, damage = ([self.account.file], self.account.damage) if first else ([], [])
        return LogRun(name=name, format=self.format, files=files, damage=damage)

    def _read(self, line: TextLine, content: bytes) -> None:
        text = content.removeprefix(b"\xef\xbb\xbf").strip()
        if not text:
            return
        try:
            message = json.loads(text)
            if not is_message(message):
                raise BadPane("not a message of a visdom client")
            # Pictures stay in the file: a history of them is most of such a log.
            store = TextStore(self.path, content.decode("latin-1"), line.offset)
            self._apply(message[0], message[1], store)
        except (ValueError, RecursionError) as error:
            self._add_damage(line, str(error) if isinstance(error, BadPane) else json_error(error))
            return
        self._file.accept(line)
        self.account.file.records += 1

    def _apply(self, command: str, message: Any, store: TextStore) -> None:
        # `save` names environments, in a list; the panes do not change.
        if command == "save" or not isinstance(message, dict):
            return
        _take_pictures(message, store)
        windows = self._windows.setdefault(str(message.get("eid", "main")), {})
        window = str(message.get("win"))
        known = windows.get(window)
        if known and (command == "update" or _continues_history(known, message)):
            update_pane(known, message)
        elif command == "events" or message.get("append"):
            windows[window] = new_pane(message, window)
        else:
            self._refused[window] += 1

    def _finish(self) -> None:
        # Decoded again after every update: a message may change any pane.
        several = len(self._windows) > 1
        self._runs = []
        for environment, windows in self._windows.items():
            run = self._empty_run(environment if several else "", first=not self._runs)
            assemble(self._decode(windows, run), run)
            self._runs.append(run)
        if not self._runs:
            self._runs = [self._empty_run("", first=True)]
        if self._refused:
            self._runs[0].notes.append(
                f"{sum(self._refused.values()):,} updates of windows that do not exist were left "
                "out, as the server does."
            )
        self._runs.sort(key=lambda run: run.name)

    def _decode(self, windows: dict[str, PaneState], run: LogRun) -> list[Pane]:
        panes = []
        for window, state in windows.items():
            try:
                panes.append(decode_pane(_joined_text(state), window, hold))
            except BadPane as error:
                # A note, not damage: the pane comes from many lines, each of which was intact.
                run.notes.append(f"Window {window!r} is not shown: {error}.")
        return panes


def _continues_history(pane: PaneState, message: dict[str, Any]) -> bool:
    """Whether a message that creates a window holds the next picture of its history.

    Without a server a client cannot find out that the window exists, and creates it for each
    picture: a server would keep the last one only.
    """
    data = message.get("data")
    first = data[0] if isinstance(data, list) and data else None
    kind = first.get("type") if isinstance(first, dict) else None
    return kind == "image_history" and pane["type"] == "image_history"


def _take_pictures(message: dict[str, Any], store: TextStore) -> None:
    data = message.get("data")
    for part in data if isinstance(data, list) else ():
        if isinstance(part, dict) and part.get("type") in ("image", "image_history"):
            part["content"] = take_pictures("image", part.get("content"), store.keep)


def _data(message: dict[str, Any]) -> list[dict[str, Any]]:
    data = message.get("data")
    if not isinstance(data, list) or not all(isinstance(part, dict) for part in data):
        raise BadPane("a message whose data is not a list of objects")
    return data


def _member(message: dict[str, Any], key: str) -> dict[str, Any]:
    value = message.get(key)
    return value if isinstance(value, dict) else {}


def new_pane(message: dict[str, Any], window: str) -> PaneState:
    """The pane that a message of the endpoint `events` creates.

    Raises:
        BadPane: it has no data.
    """
    data = _data(message)
    if not data:
        raise BadPane("a message without data")
    kind = str(data[0].get("type"))
    title = _member(message, "opts").get("title", "")
    pane: PaneState = {"id": window, "title": title, "type": kind}
    if kind == "image_history":
        pane["content"] = [data[0].get("content")]
    elif kind == "text":
        # Pieces: joining the whole text for each addition would be quadratic.
        pane["content"] = [_text(data[0])]
    elif kind in _WHOLE_PANES:
        pane["content"] = data[0].get("content")
    else:
        pane["type"] = "plot"
        pane["content"] = {"data": data, "layout": dict(_member(message, "layout"))}
    return pane


def _text(part: dict[str, Any]) -> str:
    content = part.get("content")
    if not isinstance(content, str):
        raise BadPane("the content of a text pane is not text")
    return content


def _joined_text(pane: PaneState) -> PaneState:
    """The pane as the server stores it, with the pieces of a text joined."""
    return {**pane, "content": "<br>".join(pane["content"])} if pane["type"] == "text" else pane


def update_pane(pane: PaneState, message: dict[str, Any]) -> None:
    """Change a pane as a message of the endpoint `update` does.

    Raises:
        BadPane: the message does not fit the pane.
    """
    if pane["type"] == "text":
        pane["content"].append(_text(_first(message)))
    elif pane["type"] == "image_history":
        if _first(message).get("type") == "image_history":
            pane["content"].append(_first(message).get("content"))
    elif pane["type"] == "plot":
        _update_plot(pane, message)


def _first(message: dict[str, Any]) -> dict[str, Any]:
    data = _data(message)
    if not data:
        raise BadPane("an update without data")
    return data[0]


def _update_plot(pane: PaneState, message: dict[str, Any]) -> None:
    traces: list[dict[str, Any]] = pane["content"]["data"]
    if traces and str(traces[0].get("type")) not in _UPDATABLE:
        return
    _update_options(pane, message)
    name = message.get("name")
    if message.get("delete"):
        pane["content"]["data"] = [t for t in traces if name is not None and t.get("name") != name]
        return
    if message.get("data") is None:
        return
    new = _data(message)
    if traces and traces[0].get("type") == "heatmap":
        _update_heatmap(traces[0], _first(message), message.get("updateDir"))
        return
    # An update without a name applies to all traces, in the order of the message.
    chosen = [trace for trace in traces if name is None or trace.get("name") == name]
    if not chosen:
        traces.append({**_first(message), "name": name})
        return
    for trace, addition in zip(chosen, new, strict=False):
        _update_trace(trace, addition, append=bool(message.get("append")))


def _update_options(pane: PaneState, message: dict[str, Any]) -> None:
    layout = pane["content"]["layout"]
    layout |= {k: v for k, v in _member(message, "layout").items() if v is not None}
    options = _member(message, "opts")
    if options.get("title") is not None:
        pane["title"] = options["title"]
    legend = options.get("legend")
    if isinstance(legend, list):
        for trace, name in zip(pane["content"]["data"], legend, strict=False):
            trace["name"] = name


def _update_trace(trace: dict[str, Any], addition: dict[str, Any], *, append: bool) -> None:
    added = {axis: array_of(addition, axis) for axis in ("x", "y")}
    # The client pads a trace that it leaves alone with NaN.
    # NaN is the only value that differs from itself; the log may hold it as null.
    if all(value is None or value != value for value in added["x"]):
        return
    for axis, values in added.items():
        if not append:
            trace[axis] = list(values)
        elif isinstance(trace.get(axis), list):
            # In place: joining two lists for each point would be quadratic.
            trace[axis].extend(values)
        else:
            trace[axis] = [*array_of(trace, axis), *values]


def _update_heatmap(trace: dict[str, Any], addition: dict[str, Any], direction: object) -> None:
    """Replace a grid or add rows or columns; what does not fit is left out, as the server does."""
    rows, new = _rows(trace), _rows(addition)
    if direction in ("appendRow", "prependRow"):
        if not (rows and new and len(rows[0]) == len(new[0])):
            return
        names, trace["z"] = "y", _joined(rows, new, direction == "appendRow")
    elif direction in ("appendColumn", "prependColumn"):
        if len(rows) != len(new):
            return
        names = "x"
        at_end = direction == "appendColumn"
        trace["z"] = [_joined(row, more, at_end) for row, more in zip(rows, new, strict=True)]
    else:
        trace |= {key: value for key, value in addition.items() if key in ("x", "y", "z")}
        return
    if trace.get(names) is not None and addition.get(names) is not None:
        at_end = direction in ("appendRow", "appendColumn")
        trace[names] = _joined(array_of(trace, names), array_of(addition, names), at_end)


def _rows(trace: dict[str, Any]) -> list[list[Any]]:
    rows = array_of(trace, "z")
    if not all(isinstance(row, list) for row in rows):
        raise BadPane("z of a grid is not a list of rows")
    return rows


def _joined(old: list[Any], new: list[Any], at_end: bool) -> list[Any]:
    return [*old, *new] if at_end else [*new, *old]
