"""The results of one model by the names of the sections, with their types."""

from __future__ import annotations

import difflib
from typing import Any, Literal, overload

from reportgen.errors import NoResultError
from reportgen.outcome import Done, Failed, SectionOutcome
from reportgen.sections import SECTIONS
from reportgen.sections.behavior import Behavior
from reportgen.sections.graphs import Graphs
from reportgen.sections.layers import Layers
from reportgen.sections.memory import Memory
from reportgen.sections.onnx import OnnxResult
from reportgen.sections.training import Training


class SectionResults:
    """Results of sections by name: `results["memory"].fits`."""

    def _outcomes(self) -> tuple[SectionOutcome, ...]:
        raise NotImplementedError

    @overload
    def __getitem__(self, name: Literal["layers"]) -> Layers: ...
    @overload
    def __getitem__(self, name: Literal["behavior"]) -> Behavior: ...
    @overload
    def __getitem__(self, name: Literal["graphs"]) -> Graphs: ...
    @overload
    def __getitem__(self, name: Literal["onnx"]) -> OnnxResult: ...
    @overload
    def __getitem__(self, name: Literal["memory"]) -> Memory: ...
    @overload
    def __getitem__(self, name: Literal["training"]) -> Training: ...
    @overload
    def __getitem__(self, name: str) -> Any: ...

    def __getitem__(self, name: str) -> Any:
        """The result of a section, a frozen dataclass of plain values.

        Raises:
            NoResultError: no such section, or it was not analyzed, does not apply or failed.
        """
        outcomes = {each.name: each.outcome for each in self._outcomes()}
        outcome = outcomes.get(name)
        if isinstance(outcome, Done):
            return outcome.result
        if isinstance(outcome, Failed):
            raise NoResultError(f"section {name!r} failed: {outcome.error}", hint=outcome.hint)
        if outcome is not None:
            raise NoResultError(f"section {name!r} does not apply: {outcome.reason}")
        require_known(name)
        raise NoResultError(
            f"section {name!r} was not analyzed", hint=f"analyzed: {', '.join(outcomes)}"
        )


def require_known(name: str) -> None:
    """Raise a `NoResultError` unless `name` is a section."""
    known = [section.name for section in SECTIONS]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        raise NoResultError(f"unknown section {name!r}", hint=hint)
