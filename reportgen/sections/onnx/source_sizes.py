"""Whether an ONNX file that declares its batch dynamic runs at a second size."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reportgen.onnx.runtime import Runtime, session_error_text

if TYPE_CHECKING:
    from reportgen.onnx.runtime import Feed


def batch_failure(
    runtime: Runtime, proto: Any, make_feed: Callable[[int], Feed], batch: int
) -> tuple[int, str] | None:
    """The size at which the file fails although it runs at another, and how; None if there is none.

    `batch` and one other size are tried. An output that is declared to have the batch's size and
    has another one is a failure too. None also where the file fixes the batch, and where it runs
    at neither size: that is no matter of the batch.

    Args:
        runtime: the file, loaded.
        proto: the file, parsed.
        make_feed: the file's inputs for a batch size.
        batch: a size.
    """
    # one more; or a single sample, which runs most often, where the manifest's batch may not
    sizes = (batch, batch + 1) if batch == 1 else (batch, 1)
    feeds = {size: make_feed(size) for size in sizes}
    symbols = _batch_symbols(proto, *feeds.values())
    if symbols is None:
        return None
    found = {size: _failure(runtime, proto, feed, symbols, size) for size, feed in feeds.items()}
    failing = [(size, why) for size, why in found.items() if why]
    return failing[0] if len(failing) == 1 else None


def _batch_symbols(proto: Any, one: Feed, other: Feed) -> set[str] | None:
    """Names of the dims in which two feeds differ; None if there is none or one is fixed."""
    dims = [
        dim
        for value in proto.graph.input
        if value.name in one
        for dim, first, second in zip(
            value.type.tensor_type.shape.dim,
            one[value.name].shape,
            other[value.name].shape,
            strict=False,
        )
        if first != second
    ]
    is_fixed = any(dim.HasField("dim_value") and dim.dim_value > 0 for dim in dims)
    return None if is_fixed or not dims else {str(dim.dim_param) for dim in dims if dim.dim_param}


def _failure(runtime: Runtime, proto: Any, feed: Feed, symbols: set[str], size: int) -> str:
    try:
        outputs = runtime.run(feed)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        return session_error_text(error)
    for value, made in zip(proto.graph.output, outputs, strict=True):
        shape = getattr(made, "shape", ())  # a sequence has none
        for axis, (dim, actual) in enumerate(
            zip(value.type.tensor_type.shape.dim, shape, strict=False)
        ):
            if dim.dim_param in symbols and actual != size:
                return f"its output {value.name} has size {actual} in axis {axis}"
    return ""
