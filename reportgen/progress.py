"""Progress of a build on stderr: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reportgen.units import format_seconds
from reportgen.workers import ProgressCallback, SectionEvent

_MARKS = {
    SectionEvent.STARTED: ("…", "cyan"),
    SectionEvent.DONE: ("done", "green"),
    SectionEvent.SKIPPED: ("skipped", "dim"),
    SectionEvent.FAILED: ("failed", "red"),
}


@contextmanager
def show_progress(
    models: Sequence[str], sections: Sequence[str], *, quiet: bool
) -> Iterator[ProgressCallback]:
    """A callback for `analyze_all` that prints progress; with `quiet` it prints nothing."""
    # Not stdout: `build --json` prints report.json there.
    console = _Stderr(stderr=True, highlight=False)
    if quiet:
        yield lambda *_: None
    elif console.is_terminal:
        table = _ProgressTable(models, sections)
        with Live(table, console=console, refresh_per_second=4, transient=True):
            yield table.update
    else:
        yield lambda model, section, event, seconds: _print_line(
            console, model, section, event, seconds
        )


def _print_line(
    console: Console, model: str, section: str, event: SectionEvent, seconds: float
) -> None:
    if event is not SectionEvent.STARTED:
        line = Text(f"{seconds:6.1f} s  {model}: {section} {event.value}")
        console.print(line, soft_wrap=True)  # one line per event in a log file


class _Stderr(Console):
    """A console that ignores a closed pipe or a full disk, so that the build continues."""

    def on_broken_pipe(self) -> None:
        """Stop printing; rich exits with status 1 by default."""
        self.quiet = True

    def print(self, *objects: Any, **options: Any) -> None:
        """Print, or stop printing if the disk of a log file is full."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.quiet = True


class _ProgressTable:
    """Models × sections with state and seconds; rich renders it through `__rich__`."""

    def __init__(self, models: Sequence[str], sections: Sequence[str]) -> None:
        self._models, self._sections = models, sections
        self._cells: dict[tuple[str, str], tuple[SectionEvent, float]] = {}
        self._start = time.monotonic()

    def update(self, model: str, section: str, event: SectionEvent, seconds: float) -> None:
        """Record the start time of a section, or its duration at the end."""
        start = self._cells.get((model, section), (event, seconds))[1]
        cell_seconds = seconds if event is SectionEvent.STARTED else seconds - start
        self._cells[model, section] = (event, cell_seconds)

    def __rich__(self) -> Table:
        now = time.monotonic() - self._start
        table = Table(caption=f"{format_seconds(now)} elapsed", caption_justify="left", box=None)
        table.add_column("model")
        for section in self._sections:
            table.add_column(section, min_width=9)
        for model in self._models:
            table.add_row(model, *(self._cell(model, section, now) for section in self._sections))
        return table

    def _cell(self, model: str, section: str, now: float) -> Text:
        if (model, section) not in self._cells:
            return Text("·", style="dim")
        event, seconds = self._cells[model, section]
        mark, style = _MARKS[event]
        # The clock of `analyze_all` and that of this table differ by its start.
        elapsed = max(now - seconds, 0) if event is SectionEvent.STARTED else seconds
        return Text(f"{mark} {elapsed:.0f} s", style=style)
