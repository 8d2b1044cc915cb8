"""Shapes of values as a run of the file computes them, also within loops and branches.

The file is copied with an output for the shape of each wanted value. An output within a branch or
a loop is handed out through the nodes around it: a loop stacks what each turn returns, and the
branch that does not run returns a mark.
"""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

from reportgen.onnx.model.protos import STANDARD, all_graphs, subgraphs, tensor_bytes
from reportgen.onnx.model.shapes import MakeFeed, Shape
from reportgen.onnx.runtime import open_session, session_options

Place = tuple[int, ...]
"""A node: its index in the main graph, then which graph of that node, the index there, …"""

_MAX_BYTES = 1_500_000_000  # a copy must stay below protobuf's 2 GB
_LONGEST = 8  # axes of a value; shapes are padded to one length, since a loop stacks them
_END, _DID_NOT_RUN = -1, -2  # in place of a size
_HANDED_OUT = frozenset({"If", "Loop", "Scan"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """What a run showed; empty where the file could not be run.

    Attributes:
        shapes: of values of the main graph, by name.
        calls: of nodes within loops and branches: for each call the shapes of the wanted ports.
    """

    shapes: dict[str, Shape] = field(default_factory=dict)
    calls: dict[Place, list[tuple[Shape, ...]]] = field(default_factory=dict)


def observe(
    path: Path,
    names: Collection[str],
    ports_of: Callable[[Any], Sequence[str]],
    make_feed: MakeFeed,
) -> Observed:
    """Run the file on the arrays of `make_feed`, unoptimized.

    Files with more than 1.5 GB of weights are not run.

    Args:
        path: the file; its local functions are inlined.
        names: tensors of the main graph.
        ports_of: the tensors to observe among the inputs and outputs of a node within another.
    """
    try:
        model = _whole_model(path)
        if model is None:
            return Observed()
        probes = _probes(model.graph, (), ports_of)
        named = {name: _add_shape(model.graph, name) for name in names}
        wanted = [*named.values(), *(probe.name for probe in probes)]
        if not wanted:  # session.run returns all outputs for an empty list
            return Observed()
        model.graph.output.extend(map(_shape_info, wanted))
        _add_marks(model.graph)
        found = dict(zip(wanted, _run(model, wanted, make_feed), strict=True))
    except Exception:  # onnxruntime's errors have no class of their own; unknown stays unknown
        return Observed()
    return Observed(
        shapes={name: _shapes(found[made])[0] for name, made in named.items()},
        calls=_calls(probes, found),
    )


def _whole_model(path: Path) -> Any:
    """The model with all its weights, functions inlined; None if it is too large."""
    import onnx
    import onnx.inliner

    model = onnx.load(path, load_external_data=False)
    stored = [tensor for graph in all_graphs(model.graph) for tensor in graph.initializer]
    if path.stat().st_size > _MAX_BYTES or sum(map(tensor_bytes, stored)) > _MAX_BYTES:
        return None
    onnx.load_external_data_for_model(model, str(path.parent))
    return onnx.inliner.inline_local_functions(model) if model.functions else model


def _run(model: Any, wanted: list[str], make_feed: MakeFeed) -> list[Any]:
    import onnx

    # the optimizer would fuse nodes, and their values would be gone
    options = session_options(level="none", threads=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "observed.onnx"
        onnx.save(model, file)
        return list(open_session(file, options).run(wanted, dict(make_feed())))


@dataclass(frozen=True, slots=True)
class _Probe:
    """A value that holds the shape of one port of a node, once for each call."""

    place: Place
    port: int
    name: str


_numbers = count()


def _new_name() -> str:
    return f"reportgen_observed_{next(_numbers)}"


def _probes(graph: Any, place: Place, ports_of: Callable[[Any], Sequence[str]]) -> list[_Probe]:
    """Add the shapes wanted within `graph` to it, and hand those of inner graphs out to it."""
    found = []
    for index, node in enumerate(list(graph.node)):
        here = (*place, index)
        if place:
            ports = enumerate(ports_of(node))
            found += [_Probe(here, port, _add_shape(graph, name)) for port, name in ports]
        if node.op_type in _HANDED_OUT and node.domain in STANDARD:
            bodies = list(subgraphs(node))
            inner = [_probes(body, (*here, n), ports_of) for n, body in enumerate(bodies)]
            found += _hand_out(node, bodies, inner)
    return found


def _hand_out(node: Any, bodies: list[Any], inner: list[list[_Probe]]) -> list[_Probe]:
    # a node may leave out its last outputs, but ours come after them
    length = len(bodies[0].output) - (node.op_type == "Loop")
    node.output.extend([""] * (length - len(node.output)))
    found = []
    for own, probes in enumerate(inner):
        for probe in probes:
            for number, body in enumerate(bodies):
                name = probe.name if number == own else _add(body, "Identity", ["reportgen_mark"])
                body.output.append(_shape_info(name))
            found.append(replace(probe, name=_new_name()))
            node.output.append(found[-1].name)
    return found


def _add_shape(graph: Any, name: str) -> str:
    padded = _add(graph, "Concat", [_add(graph, "Shape", [name]), "reportgen_pad"], axis=0)
    # Slice, which would say it plainly, has other forms in older opsets
    return _add(graph, "Gather", [padded, "reportgen_first"], axis=0)


def _add(graph: Any, operator: str, inputs: list[str], **attributes: Any) -> str:
    from onnx import helper

    name = _new_name()
    graph.node.append(helper.make_node(operator, inputs, [name], **attributes))
    return name


def _shape_info(name: str) -> Any:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.INT64, None)


def _add_marks(graph: Any) -> None:
    """The constants of the added nodes, first in the graph: places were taken before."""
    import numpy as np
    from onnx import helper, numpy_helper

    constants = {
        "reportgen_pad": np.full(_LONGEST, _END),
        "reportgen_first": np.arange(_LONGEST),
        "reportgen_mark": np.full(_LONGEST, _DID_NOT_RUN),
    }
    for name, values in constants.items():
        tensor = numpy_helper.from_array(values.astype(np.int64), name)
        graph.node.insert(0, helper.make_node("Constant", [], [name], value=tensor))


def _calls(probes: list[_Probe], found: Mapping[str, Any]) -> dict[Place, list[tuple[Shape, ...]]]:
    ports: defaultdict[Place, list[list[Shape]]] = defaultdict(list)
    for probe in probes:  # the ports of a node come in their order
        ports[probe.place].append(_shapes(found[probe.name]))
    return {place: list(zip(*each, strict=True)) for place, each in ports.items()}


def _shapes(stacked: Any) -> list[Shape]:
    rows = stacked.reshape(-1, _LONGEST).tolist()
    return [tuple(takewhile(lambda size: size >= 0, row)) for row in rows if row[0] != _DID_NOT_RUN]
