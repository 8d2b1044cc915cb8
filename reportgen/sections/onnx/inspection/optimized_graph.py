"""The graph after onnxruntime's optimization: nodes, bytes, fused operators."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
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
LARGEST_BYTES = 10**9  # above this, three more copies on disk are not worth it


def optimize(path: Path, file_bytes: int) -> Optimized:
    """The file at `path` after each of onnxruntime's levels, written to a folder that goes away.

    `file_bytes` is its size with its external data.
    """
    if file_bytes > LARGEST_BYTES:
        size = format_bytes(LARGEST_BYTES)
        return Optimized(levels=(), not_run=f"the file takes more than {size}")
    levels = []
    with tempfile.TemporaryDirectory() as folder:
        for level in ("basic", "extended", "all"):
            try:
                levels.append(_optimize(path, level, Path(folder), apart=file_bytes > _LARGE_BYTES))
            except Exception as error:  # onnxruntime's exceptions share no base class of their own
                return Optimized(levels=(), not_run=f"onnxruntime: {session_error_text(error)}")
    return Optimized(levels=tuple(levels))


def _optimize(path: Path, level: str, folder: Path, *, apart: bool) -> OptimizedLevel:
    import onnx

    written = folder / f"{level}.onnx"
    options = session_options(level)
    options.optimized_model_filepath = str(written)
    # the session only writes the file and never runs, so weights need not be repacked for kernels
    options.add_session_config_entry("session.disable_prepacking", "1")
    if apart:
        options.add_session_config_entry(_WEIGHTS_APART, _WEIGHTS)
        if os.name == "posix":  # only the size of the weights is needed, which the file names
            (folder / _WEIGHTS).symlink_to(os.devnull)
    open_session(path, options)
    model = onnx.load(written, load_external_data=False)
    stored = (tensor for graph in all_graphs(model.graph) for tensor in graph.initializer)
    size = written.stat().st_size + max(map(_end_of_weight, stored), default=0)
    for file in folder.iterdir():  # one copy on disk at a time
        file.unlink()
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
