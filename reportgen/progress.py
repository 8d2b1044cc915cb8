"""What a build looks like while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from reportgen.units import format_seconds
from reportgen.workers import Progress, Step

_MARKS = {
    Step.STARTED: ("…", "cyan"),
    Step.DONE: ("done", "green"),
    Step.SKIPPED: ("skipped", "dim"),
    Step.FAILED: ("failed", "red"),
}


@contextmanager
def shown_progress(
    models: Sequence[str], sections: Sequence[str], *, quiet: bool
) -> Iterator[Progress]:
    """A listener for `analyze_all` that shows on stderr how far every model is."""
    console = _Stderr(stderr=True, highlight=False)
    if quiet:
        yield lambda *_: None
    elif console.is_terminal:
        board = _Board(models, sections)
        with Live(board, console=console, refresh_per_second=4, transient=True):
            yield board.note
    else:
        yield lambda model, section, step, seconds: _print_line(
            console, model, section, step, seconds
        )


def _print_line(console: Console, model: str, section: str, step: Step, seconds: float) -> None:
    if step is not Step.STARTED:
        line = Text(f"{seconds:6.1f} s  {model}: {section} {step.value}")
        console.print(line, soft_wrap=True)


class _Stderr(Console):
    """A console whose reader may go away (`2>&1 | head`); the build goes on without it."""

    def on_broken_pipe(self) -> None:
        """Be silent from now on."""
        self.quiet = True


class _Board:
    """Model × section, each cell what it is at; rich asks it to draw itself."""

    def __init__(self, models: Sequence[str], sections: Sequence[str]) -> None:
        self._models, self._sections = models, sections
        self._cells: dict[tuple[str, str], tuple[Step, float]] = {}
        self._start = time.monotonic()

    def note(self, model: str, section: str, step: Step, seconds: float) -> None:
        """Remember where a section stands, and when it got there."""
        began = self._cells.get((model, section), (step, seconds))[1]
        taken = seconds if step is Step.STARTED else seconds - began
        self._cells[model, section] = (step, taken)

    def __rich__(self) -> Table:
        """The table as it is now."""
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
        step, seconds = self._cells[model, section]
        mark, style = _MARKS[step]
        taken = max(now - seconds, 0) if step is Step.STARTED else seconds
        return Text(f"{mark} {taken:.0f} s", style=style)
