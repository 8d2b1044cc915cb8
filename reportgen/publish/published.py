"""The result of publishing a report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

Kind = Literal["metrics", "points", "images", "texts", "graphs"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedCounts:
    """The number of items of each kind.

    Attributes:
        metrics: headline figures, one per model, metric and build.
        points: of training curves.
        images: pictures that the training logs hold.
        texts: verdicts, tables of findings, hyperparameters, and tables of the logs.
        graphs: drawings of a model's graphs.
    """

    metrics: int = 0
    points: int = 0
    images: int = 0
    texts: int = 0
    graphs: int = 0

    def __str__(self) -> str:
        named = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return ", ".join(
            f"{count:,} {name if count != 1 else name.removesuffix('s')}"
            for name, count in named
            if count
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """What was written to `target`, what was there before, and what could not be published."""

    target: str
    written: PublishedCounts
    already_there: PublishedCounts
    notes: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """The outcome for a terminal: one line, and one for each note."""
        before = f"; already there: {self.already_there}" if str(self.already_there) else ""
        yield f"published to {self.target}: {str(self.written) or 'nothing new'}{before}"
        yield from (f"note: {note}" for note in self.notes)


@dataclass(slots=True)
class PublishTally:
    """Counts while publishing goes on."""

    written: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

    def count(self, kind: Kind, *, written: int = 0, already_there: int = 0) -> None:
        """Add items of one kind."""
        self.written[kind] += written
        self.already_there[kind] += already_there

    def note(self, text: str) -> None:
        """Keep a sentence for the user, once."""
        self.notes[text] = None

    def published(self, target: str) -> Published:
        """The outcome so far."""
        return Published(
            target=target,
            written=PublishedCounts(**self.written),
            already_there=PublishedCounts(**self.already_there),
            notes=tuple(self.notes),
        )
