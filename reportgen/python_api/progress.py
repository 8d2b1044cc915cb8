"""Progress of `analyze`: the table of the command line in a terminal, a bar in a notebook."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any, TypeAlias

from reportgen.progress import show_progress
from reportgen.workers import SectionEvent

SectionProgress: TypeAlias = Callable[[str, SectionEvent], None]
"""Called with a section and what happened to it."""


@contextmanager
def show_sections(
    model: str, sections: Sequence[str], *, shown: bool | None
) -> Iterator[SectionProgress]:
    """A callback that shows progress; `shown` None for in a terminal or a notebook only."""
    if shown is not False and in_notebook():
        with _bar(model, sections) as update:
            yield update
        return
    import time

    start = time.monotonic()
    shown = sys.stderr.isatty() if shown is None else shown
    with show_progress([model], sections, quiet=not shown) as notify:
        yield lambda section, event: notify(model, section, event, time.monotonic() - start)


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")  # a kernel has imported it
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


@contextmanager
def _bar(model: str, sections: Sequence[str]) -> Iterator[SectionProgress]:
    """A progress bar in the output of the cell, without widgets; empty at the end."""
    from IPython.display import HTML, display

    finished: list[str] = []
    handle: Any = display(HTML(_bar_html(model, "", 0, len(sections))), display_id=True)

    def update(section: str, event: SectionEvent) -> None:
        if event is not SectionEvent.STARTED:
            finished.append(section)
        handle.update(HTML(_bar_html(model, section, len(finished), len(sections))))

    try:
        yield update
    finally:
        handle.update(HTML(""))


def _bar_html(model: str, section: str, done: int, total: int) -> str:
    return (
        f'<progress value="{done}" max="{total}"></progress> '
        f"{escape(model)}: {escape(section or 'starting')} ({done} of {total} sections)"
    )
