"""Everything in a model that has no ONNX form, found in one pass rather than one by one."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.decompositions import own_forms
from reportgen.onnx.export.source_location import is_machinery, place_of_node, relative
from reportgen.onnx.export.workarounds import way_round

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import Arguments

_MOST_PLACES = 4
_EFFECTS = "with_effects"  # keeps an operator's check of its result in order; it is no operator


@dataclass(frozen=True, kw_only=True, slots=True)
class Obstacle:
    """An operator without an ONNX form, and everywhere that it occurs.

    Attributes:
        operator: as torch names it, `aten._linalg_svd.default`.
        places: ` in encoder.fft at net.py:12`, in the order of execution, repeats kept.
        way_round: what to do about it.
    """

    operator: str
    places: tuple[str, ...]
    way_round: str

    def line(self) -> str:
        """One line of the road-map."""
        different = list(dict.fromkeys(place for place in self.places if place))
        shown = ";".join(different[:_MOST_PLACES])
        more = len(different) - _MOST_PLACES
        also = f"; and at {more} other places" if more > 0 else ""
        count = f" ×{len(self.places)}" if len(self.places) > 1 else ""
        return f"{self.operator}{count}{shown}{also}: {self.way_round}"


def unsupported_operators(program: Any, opset: int) -> tuple[Obstacle, ...]:
    """Every operator of an ExportedProgram that the exporter cannot translate, worst first.

    The program is decomposed as the exporter does it, and every node is looked up in the
    exporter's own registry. An empty tuple where that itself fails.
    """
    try:
        found = list(_missing_nodes(program, opset))
    except Exception:  # private interfaces of torch: without them one operator is told, not all
        return ()
    places: dict[tuple[str, bool], list[str]] = {}
    for node, is_complex in found:
        places.setdefault((str(node.target), is_complex), []).append(place_of_node(node))
    obstacles = [
        Obstacle(
            operator=operator,
            places=tuple(where),
            way_round=way_round(operator, is_complex=is_complex),
        )
        for (operator, is_complex), where in places.items()
    ]
    return tuple(sorted(obstacles, key=lambda obstacle: -len(obstacle.places)))


def _missing_nodes(program: Any, opset: int) -> Iterator[tuple[Any, bool]]:
    """Nodes without a translation, and whether it is complex numbers that they lack it for."""
    import operator

    from torch.onnx._internal.exporter import (
        _constants,
        _core,
        _dispatching,
        _registration,
    )

    registry = _registration.ONNXRegistry.from_torchlib(max(opset, _constants.TORCHLIB_OPSET))
    with own_forms():
        decomposed = _core._prepare_exported_program_for_export(program, registry=registry)
    for module in decomposed.graph_module.modules():
        for node in getattr(module, "graph", _NO_GRAPH).nodes:
            if node.op != "call_function" or node.target is operator.getitem:
                continue
            if str(node.target).startswith("onnx.") or str(node.target) == _EFFECTS:
                continue
            function, _ = _dispatching.dispatch(node, registry)
            if function is None:
                yield node, registry.is_registered(node.target)


class _NoGraph:
    nodes: tuple[Any, ...] = ()


_NO_GRAPH = _NoGraph()


def data_dependent_places(model: nn.Module, arguments: Arguments) -> tuple[str, ...]:
    """`net.py:12: if x.sum() > 0:` for every branch on values that one forward pass meets.

    Torch's draft export goes on with the example's own values where the exporter stops.
    """
    import torch
    from torch._logging.structured import INTERN_TABLE
    from torch.onnx._internal.exporter import _dynamic_shapes

    shapes, _ = _dynamic_shapes.convert_str_to_export_dim(arguments.dynamic_shapes)
    try:
        with _log_files_aside():
            program = torch.export.draft_export(
                model, arguments.args, arguments.kwargs, dynamic_shapes=shapes
            )
        report: Any = program._report  # type: ignore[attr-defined]
        files = {number: name for name, number in INTERN_TABLE.items()}  # of the whole process
        stacks = [failure.data.get("user_stack") or [] for failure in report.failures]
    except Exception:  # the one place that stopped the exporter is known without it
        return ()
    lines = (_innermost(stack, files) for stack in stacks)
    return tuple(dict.fromkeys(line for line in lines if line))


def _innermost(stack: list[dict[str, Any]], files: dict[Any, str]) -> str:
    for frame in reversed(stack):
        file = files.get(frame["filename"], str(frame["filename"]))
        if not is_machinery(file):
            code = str(frame.get("loc") or "").strip().partition("\n")[0]
            return f"{relative(file)}:{frame['line']}" + (f": {code[:100]}" if code else "")
    return ""


@contextmanager
def _log_files_aside() -> Iterator[None]:
    """Draft export writes a log into the folder for temporary files, and leaves it there."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="reportgen-export-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
