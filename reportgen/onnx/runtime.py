"""onnxruntime on the CPU: one session for parity and latency alike."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    Array = npt.NDArray[Any]
    Feed = dict[str, Array]

_PROVIDERS = ["CPUExecutionProvider"]
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
    """A file loaded by onnxruntime, with `threads` threads, or as many as torch has.

    Args:
        path: the ONNX file.
        replaced: initializers to use instead of those in the file. Optimization is off then,
            since it would fold the file's own values into others.
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
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = _SILENT
        options.use_deterministic_compute = True
        self._values = [
            (name, onnxruntime.OrtValue.ortvalue_from_numpy(value))
            for name, value in (replaced or {}).items()
        ]
        for name, value in self._values:
            options.add_initializer(name, value)
        options.graph_optimization_level = getattr(
            onnxruntime.GraphOptimizationLevel, _LEVELS["none" if replaced else optimization]
        )
        onnxruntime.set_seed(_SEED)  # of the random operators of sessions made from now on
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=_PROVIDERS)
        except Exception as error:  # onnxruntime's classes have no common one of their own
            raise OnnxRuntimeError(_why_not(error)) from error

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
    """A copy of `tensor` for onnxruntime; complex numbers as the exporter writes them, in pairs.

    Raises:
        OnnxRuntimeError: NumPy, and so onnxruntime's interface, has no such dtype.
    """
    import torch

    tensor = tensor.detach()
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor)
    try:
        array: np.ndarray[Any, Any] = tensor.cpu().contiguous().numpy().copy()
    except TypeError as error:
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise OnnxRuntimeError(f"onnxruntime on the CPU cannot take {dtype} inputs") from error
    return array


def session_error_text(error: Exception) -> str:
    """An onnxruntime error in one line, without paths of its build machine."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = _PATHS.sub(r"\1", _PREFIX.sub("", lines[0] if lines else "no reason given"))
    text = _SOURCES.sub("", text)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def _why_not(error: Exception) -> str:
    missing = re.search(r"Could not find an implementation for (\w+)\((\d+)\)", str(error))
    if missing:
        return (
            f"onnxruntime on the CPU has no kernel for {missing[1]} (opset {missing[2]}) "
            "in the dtype the model uses"
        )
    return f"onnxruntime cannot load the file: {session_error_text(error)}"
