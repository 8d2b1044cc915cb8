"""onnxruntime on the CPU: sessions, the arrays to run them on, and their errors in one line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.visible_text import cut

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Array = npt.NDArray[Any]
    Feed = dict[str, Array]

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "none": "ORT_DISABLE_ALL",
}
_SILENT = 4  # fatal messages only
_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : (\w+) : ")
_SOURCES = re.compile(r"\b\w+\.(?:cc|h|cpp):\d+ [\w:~]+(?:\([^()]*\)(?: const)?)? ")
_PATHS = re.compile(r"/\S*/([^\s/]+)")
_LONGEST = 240
_SEED = 20_000


class OnnxRuntimeError(Exception):
    """onnxruntime cannot load this file or accept these inputs."""


class Runtime:
    """A file loaded by onnxruntime, with `threads` threads, by default as many as torch uses.

    Args:
        path: the ONNX file.
        replaced: initializers to use instead of those in the file, without optimization.
        optimization: how far onnxruntime rewrites the graph: `all`, `extended`, `basic`, `none`.

    Raises:
        OnnxRuntimeError: the CPU has no kernel for a node, or onnxruntime rejects the file.
    """

    def __init__(
        self,
        path: Path,
        replaced: Feed | None = None,
        *,
        optimization: str = "all",
        threads: int | None = None,
    ) -> None:
        import onnxruntime
        import torch

        self.path, self.replaced = path, frozenset(replaced or {})
        self.threads = threads or torch.get_num_threads()
        # the optimizer would fold the file's own values into others before they are replaced
        options = session_options("none" if replaced else optimization, self.threads)
        options.use_deterministic_compute = True  # the same model must give the same report
        # onnxruntime does not copy them: they must outlive the session
        self._values = [
            (name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
            for name, value in (replaced or {}).items()
        ]
        for name, value in self._values:
            options.add_initializer(name, value)
        # random operators of sessions made from now on; otherwise the clock seeds them
        onnxruntime.set_seed(_SEED)
        try:
            self._session = open_session(path, options)
        except Exception as error:
            raise OnnxRuntimeError(_loading_error(error)) from error

    def feed(self, tensors: dict[str, Tensor]) -> Feed:
        """`tensors` as a feed of the session: by name if the names match, else by position.

        The arrays are copies, since a model may write into its inputs.

        Raises:
            OnnxRuntimeError: a dtype is not supported by NumPy, or there are too few tensors.
        """
        return feed_for([port.name for port in self._session.get_inputs()], tensors)

    def output_names(self) -> list[str]:
        """The names of the outputs, in the order of the file."""
        return [port.name for port in self._session.get_outputs()]

    def run(self, feed: Feed) -> list[Array]:
        """The outputs, in the order of the file."""
        return list(self._session.run(None, feed))


def session_options(level: str = "all", threads: int = 1) -> Any:
    """Options of a silent session.

    Args:
        level: how far onnxruntime rewrites the graph: `all`, `extended`, `basic`, `none`.
        threads: threads within an operator; 0 for all cores.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, _LEVELS[level])
    return options


def open_session(model: Path | bytes, options: Any) -> Any:
    """A session on the CPU, for a file or the bytes of one.

    Raises:
        Exception: onnxruntime's exceptions share no base class of their own.
    """
    import onnxruntime

    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feed_for(names: Sequence[str], tensors: dict[str, Tensor]) -> Feed:
    """`tensors` as a feed for the inputs `names`: by name if the names match, else by position.

    Raises:
        OnnxRuntimeError: a dtype is not supported by NumPy, or there are too few tensors.
    """
    if len(names) > len(tensors):
        raise OnnxRuntimeError(
            f"the file has {len(names)} inputs, the model call has {len(tensors)} tensors"
        )
    if not set(names) <= set(tensors):
        tensors = dict(zip(names, tensors.values(), strict=False))
    return {name: as_array(tensors[name]) for name in names}


def as_array(tensor: Tensor) -> npt.NDArray[Any]:
    """A copy of `tensor` for onnxruntime; complex numbers in pairs, as in the exporter's files.

    Raises:
        OnnxRuntimeError: NumPy, and so onnxruntime's interface, has no such dtype.
    """
    import torch

    tensor = tensor.detach()
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor)
    try:
        array: np.ndarray[Any, Any] = tensor.cpu().contiguous().numpy().copy()
    except TypeError as error:  # bfloat16 and float8
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise OnnxRuntimeError(f"onnxruntime on the CPU cannot take {dtype} inputs") from error
    return array


def session_error_text(error: Exception) -> str:
    """An onnxruntime error in one line, without paths of its build machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = _PATHS.sub(r"\1", _PREFIX.sub("", lines[0] if lines else "no reason given"))
    text = _SOURCES.sub("", text)  # "graph.cc:1395 Graph::InitializeStateFromModelFileGraphProto "
    return cut(text, _LONGEST)


def _loading_error(error: Exception) -> str:
    # the most frequent cause, in plain words: its dtype is not in onnxruntime's message
    missing = re.search(r"Could not find an implementation for (\w+)\((\d+)\)", str(error))
    if missing:
        return (
            f"onnxruntime on the CPU has no kernel for {missing[1]} (opset {missing[2]}) "
            "in the dtype the model uses"
        )
    return f"onnxruntime cannot load the file: {session_error_text(error)}"
