"""Time by operator and module, from onnxruntime's profile of a few runs."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.runtime import open_session, session_options
from reportgen.sections.onnx.inspection.graph import enclosing_path, module_path
from reportgen.sections.onnx.result import TimeShare

if TYPE_CHECKING:
    from reportgen.onnx.runtime import Feed

_SUFFIX = "_kernel_time"
_BLOCKED = "_nchwc"  # onnxruntime's suffix for convolutions that it changes to a blocked layout
# their time is that of the nodes inside, which are listed themselves
_CONTROL_FLOW = {"If", "Loop", "Scan"}
_MOST_RUNS = 20  # every run adds an event per kernel to the profile
_MOST_FUSED = 6  # nodes in one kernel
_FEW = 4  # own nodes, up to which a module is reported under the one around it
_TOP = 10
UNATTRIBUTED = "no module (put in by onnxruntime, or not named in the file)"


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """Where the time of a run goes, the slowest first."""

    operators: tuple[TimeShare, ...]
    modules: tuple[TimeShare, ...]


def profile(path: Path, origins: NodeOrigins, feed: Feed, threads: int, limit: float) -> Profile:
    """Run the file for about `limit` seconds, after a warm-up run, and read the profile.

    Raises:
        Exception: whatever onnxruntime raises.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=threads)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        session = open_session(path, options)
        runs = _run_for(session, feed, limit)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return summarize(events, runs, origins)


def _run_for(session: Any, feed: Feed, limit: float) -> int:
    start, runs = time.perf_counter(), 0
    # the first run is left out of the sums (`summarize`)
    while runs < 2 or (runs < _MOST_RUNS and time.perf_counter() - start < limit):
        session.run(None, feed)
        runs += 1
    return runs


def summarize(events: Iterable[dict[str, Any]], runs: int, origins: NodeOrigins) -> Profile:
    """Sum the kernels' times per run, without each node's first run (warm-up)."""
    by_operator, by_module = _Sums(), _Sums()
    seen: set[str] = set()
    for event in events:
        name, details = str(event.get("name", "")), event.get("args", {})
        if event.get("cat") != "Node" or not name.endswith(_SUFFIX) or "op_name" not in details:
            continue
        if details["op_name"] in _CONTROL_FLOW:
            continue
        key = f"{name}/{details.get('node_index')}"
        if key not in seen:
            seen.add(key)
            continue
        by_operator.add(str(details["op_name"]), event["dur"])
        by_module.add(origins.module(name.removesuffix(_SUFFIX), details["op_name"]), event["dur"])
    return Profile(operators=by_operator.top(runs - 1), modules=by_module.top(runs - 1))


class _Sums:
    def __init__(self) -> None:
        self._microseconds, self._calls = Counter[str](), Counter[str]()

    def add(self, name: str, microseconds: int) -> None:
        self._microseconds[name] += microseconds
        self._calls[name] += 1

    def top(self, runs: int) -> tuple[TimeShare, ...]:
        total = sum(self._microseconds.values()) or 1
        ranked = sorted(self._microseconds.items(), key=lambda item: (-item[1], item[0]))
        return tuple(
            TimeShare(
                name=name,
                calls=round(self._calls[name] / runs),
                milliseconds=spent / runs / 1000,
                share=spent / total,
            )
            for name, spent in ranked[:_TOP]
        )


def node_origins(model: Any, optimized_graph: Any) -> NodeOrigins | None:
    """The origins in `model`, an `onnx.ModelProto`; None without an optimized graph."""
    return None if optimized_graph is None else NodeOrigins(model.graph, optimized_graph)


class NodeOrigins:
    """From a node of the optimized file to its module in the model."""

    # onnxruntime drops a node's metadata when it fuses it; the name of the node or of its output is
    # still one of the original file, mostly that of the last node fused
    def __init__(self, original: Any, rewritten: Any) -> None:
        self._own_nodes = Counter(map(module_path, original.node))
        self._by_node = {node.name: node for node in original.node if node.name}
        self._by_value = {name: node for node in original.node for name in node.output if name}
        self._outputs = {node.name: list(node.output) for node in rewritten.node if node.name}

    def module(self, name: str, operator: str) -> str:
        """The path of the module of the kernel called `name`, which runs `operator`."""
        node = self._by_node.get(name)
        for value in (name.removesuffix(_BLOCKED), *self._outputs.get(name, ())):
            node = node or self._by_value.get(value)
        path = "" if node is None else self._path(self._first_of(node, operator))
        return path or UNATTRIBUTED

    def _path(self, node: Any) -> str:
        """The module itself if it has several nodes of its own, else the one around it."""
        # a convolution, its norm and its activation may be one kernel: they share the block
        own = module_path(node)
        return own if own and self._own_nodes[own] > _FEW else enclosing_path(node)

    def _first_of(self, last: Any, operator: str) -> Any:
        """The node that a fused kernel is named after, a few nodes before the last one fused."""
        wanted, node = operator.removeprefix("Fused"), last
        for _ in range(_MOST_FUSED):
            if node is None or node.op_type == wanted:
                break
            producers = (self._by_value.get(value) for value in node.input)
            node = next((found for found in producers if found is not None), None)
        return last if node is None or node.op_type != wanted else node
