"""The graph after onnxruntime's optimization: nodes, bytes, fused operators."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reportgen.onnx.model.protos import STANDARD, all_graphs, operator_name
from reportgen.onnx.runtime import open_session, session_error_text, session_options
from reportgen.sections.onnx.file_result import Optimized, OptimizedLevel
from reportgen.sections.onnx.inspection.graph import all_nodes, ranked
from reportgen.units import format_bytes

_WEIGHTS_APART = "session.optimized_model_external_initializers_file_name"
_WEIGHTS = "weights.bin"
# above this, external weights make the export of the optimized graph several times faster
_LARGE_BYTES = 32 * 2**20
LARGEST_BYTES = 10**9  # above this, three more sessions are not worth their memory


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimization:
    """What the report tells of the levels, and the graph that onnxruntime runs.

    Attributes:
        summary: the entry in the report.
        graph: an `onnx.GraphProto` without its large weights; None if no session was opened.
    """

    summary: Optimized
    graph: Any = None


def optimize(path: Path, file_bytes: int) -> Optimization:
    """The file at `path` after each of onnxruntime's levels, written to a folder that goes away.

    `file_bytes` is its size with its external data.
    """
    import onnx

    if file_bytes > LARGEST_BYTES:
        size = format_bytes(LARGEST_BYTES)
        return _not_run(f"the file takes more than {size}")
    levels = []
    with tempfile.TemporaryDirectory() as folder:
        for level in ("basic", "extended", "all"):
            written = Path(folder, level, "optimized.onnx")
            written.parent.mkdir()
            try:
                _write(path, level, written, apart=file_bytes > _LARGE_BYTES)
            except Exception as error:  # onnxruntime's exceptions share no base class of their own
                return _not_run(f"onnxruntime: {session_error_text(error)}")
            model = onnx.load(written, load_external_data=False)
            levels.append(_level(level, model, _size(written, model.graph)))
    return Optimization(summary=Optimized(levels=tuple(levels)), graph=model.graph)


def _not_run(reason: str) -> Optimization:
    return Optimization(summary=Optimized(levels=(), not_run=reason))


def _write(path: Path, level: str, written: Path, *, apart: bool) -> None:
    options = session_options(level)
    options.optimized_model_filepath = str(written)
    # the session only writes the file and never runs, so weights need not be repacked for kernels
    options.add_session_config_entry("session.disable_prepacking", "1")
    if apart:
        # only the size of the weights is needed, which the graph tells
        written.with_name(_WEIGHTS).symlink_to(os.devnull)
        options.add_session_config_entry(_WEIGHTS_APART, _WEIGHTS)
    open_session(path, options)


def _size(written: Path, graph: Any) -> int:
    """The bytes of the written graph and of the weights that it would have beside it."""
    stored = (tensor for each in all_graphs(graph) for tensor in each.initializer)
    return written.stat().st_size + max(map(_end_of_weight, stored), default=0)


def _level(level: str, model: Any, size: int) -> OptimizedLevel:
    nodes = list(all_nodes(model))
    counts = Counter(operator_name(node) for node in nodes if node.domain not in STANDARD)
    return OptimizedLevel(
        level=level,
        nodes=len(nodes),
        bytes=size,
        fused=ranked(counts),
    )


def _end_of_weight(tensor: Any) -> int:
    """Where an initializer ends in the file of the weights; 0 if it is not in there."""
    place = {entry.key: entry.value for entry in tensor.external_data}
    return int(place.get("offset", 0)) + int(place.get("length", 0))
