"""All operators of a model that the exporter cannot translate, each with a workaround."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.decompositions import use_decompositions
from reportgen.onnx.export.source_location import is_library_file, location_of_node, short_path

if TYPE_CHECKING:
    from torch import nn

    from reportgen.onnx.export.arguments import ExportArguments

_MOST_PLACES = 4
_EFFECTS = "with_effects"  # torch.export's wrapper that keeps assertions in order: no operator


@dataclass(frozen=True, kw_only=True, slots=True)
class UnsupportedOperator:
    """An operator without an ONNX form, and everywhere that it occurs.

    Attributes:
        operator: as torch names it, `aten._linalg_svd.default`.
        places: ` in encoder.fft at net.py:12`, in the order of execution, repeats kept.
        workaround: what to do about it.
    """

    operator: str
    places: tuple[str, ...]
    workaround: str

    def line(self) -> str:
        """One line of a failure's details."""
        different = list(dict.fromkeys(place for place in self.places if place))
        shown = ";".join(different[:_MOST_PLACES])
        more = len(different) - _MOST_PLACES
        also = f"; and at {more} other places" if more > 0 else ""
        count = f" ×{len(self.places)}" if len(self.places) > 1 else ""
        return f"{self.operator}{count}{shown}{also}: {self.workaround}"


def unsupported_operators(program: Any, opset: int) -> tuple[UnsupportedOperator, ...]:
    """Every operator of an ExportedProgram that the exporter cannot translate, most frequent first.

    The program is decomposed as the exporter does it, and every node is looked up in the
    exporter's own registry. An empty tuple if that itself fails.
    """
    try:
        found = list(_missing_nodes(program, opset))
    except Exception:  # private interfaces of torch: without them one operator is reported, not all
        return ()
    places: dict[tuple[str, bool], list[str]] = {}
    for node, is_complex in found:
        places.setdefault((str(node.target), is_complex), []).append(location_of_node(node))
    obstacles = [
        UnsupportedOperator(
            operator=operator,
            places=tuple(where),
            workaround=workaround(operator, is_complex=is_complex),
        )
        for (operator, is_complex), where in places.items()
    ]
    return tuple(sorted(obstacles, key=lambda obstacle: -len(obstacle.places)))


def _missing_nodes(program: Any, opset: int) -> Iterator[tuple[Any, bool]]:
    """Nodes without a translation, and whether only complex numbers lack one."""
    import operator

    from torch.onnx._internal.exporter import (
        _constants,
        _core,
        _dispatching,
        _registration,
    )

    # for an older opset the exporter translates to its own and converts the file down afterwards
    registry = _registration.ONNXRegistry.from_torchlib(max(opset, _constants.TORCHLIB_OPSET))
    with use_decompositions():
        decomposed = _core._prepare_exported_program_for_export(program, registry=registry)
    for module in decomposed.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            if node.op != "call_function" or node.target is operator.getitem:
                continue
            # torch.onnx.ops are ONNX operators already
            if str(node.target).startswith("onnx.") or str(node.target) == _EFFECTS:
                continue
            function, _ = _dispatching.dispatch(node, registry)
            if function is None:
                yield node, registry.is_registered(node.target)  # registered, but for real numbers


def data_dependent_branches(model: nn.Module, arguments: ExportArguments) -> tuple[str, ...]:
    """`net.py:12: if x.sum() > 0:` for every branch on values in one forward pass."""
    # torch.export stops at the first; draft export continues with the example's own values
    import torch
    from torch._logging.structured import INTERN_TABLE
    from torch.onnx._internal.exporter import _dynamic_shapes

    shapes, _ = _dynamic_shapes.convert_str_to_export_dim(arguments.dynamic_shapes)
    try:
        with _discard_log_files():
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
        if not is_library_file(file):
            code = str(frame.get("loc") or "").strip().partition("\n")[0]
            return f"{short_path(file)}:{frame['line']}" + (f": {code[:100]}" if code else "")
    return ""


@contextmanager
def _discard_log_files() -> Iterator[None]:
    # draft export writes a log into the folder for temporary files, and leaves it there
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="reportgen-export-") as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


_LINEAR_ALGEBRA = (
    "ONNX has no matrix factorizations: compute it outside the model and pass the result in, "
    "or write it for the sizes that occur (closed form, or a fixed number of iterations)"
)
_INVERSE = (
    "matrices up to 4×4 have a closed form; for constant matrices, invert once in __init__ and "
    "use matmul"
)
_WINDOWS = (
    "leave height and width out of onnx.dynamic, or pool with fixed windows (max_pool2d, "
    "avg_pool3d): which values an adaptive window covers depends on the size"
)
_RUNNING = "cast to float first: the exporter supports only float inputs here"
_PRIMITIVE = "no runtime implements this function: approximate it with exp, log and powers"
_VALUES_DECIDE = "its output size depends on values: move it out of the model"

_WORKAROUNDS: dict[str, str] = {
    "_pdist_forward": "leave the number of rows out of onnx.dynamic: each pair has a place",
    "_adaptive_avg_pool3d": _WINDOWS,
    "adaptive_max_pool2d": _WINDOWS,
    "adaptive_max_pool3d": _WINDOWS,
    "rrelu_with_noise_functional": "call model.eval(): in eval mode it is a leaky ReLU",
    "cummax": _RUNNING,
    "cummin": _RUNNING,
    "fractional_max_pool2d": "use max_pool2d: the regions are drawn at random",
    "inverse": _INVERSE,
    "linalg_inv": _INVERSE,
    "linalg_inv_ex": _INVERSE,
    "linalg_solve": _INVERSE,
    "_linalg_solve_ex": _INVERSE,
    "linalg_solve_triangular": "for constant matrices, invert once in __init__ and use matmul",
    "linalg_pinv": "for constant matrices compute it once in __init__ and use matmul",
    "linalg_matrix_exp": "write the Taylor series out to a fixed degree",
    "linalg_lstsq": "for constant matrices compute pinv once in __init__ and use matmul",
    "histogram": "use torch.histc, which can be exported",
    "nanmedian": "sort with torch.topk and take the element in the middle",
    "mode": "count with (x.unsqueeze(-1) == x.unsqueeze(-2)).sum(-1) and take the argmax",
    "erf_inv": _PRIMITIVE,
    "lgamma": _PRIMITIVE,
    "digamma": _PRIMITIVE,
    "polygamma": _PRIMITIVE,
    "igamma": _PRIMITIVE,
    "poisson": "sample outside the model and pass the result as an input",
    "segment_reduce": "use scatter_reduce with the index of each element's segment",
    "roi_pool": "use torchvision.ops.roi_align, which can be exported",
    "ps_roi_align": "use torchvision.ops.roi_align and a reshape of the channels",
    "ps_roi_pool": "use torchvision.ops.roi_align and a reshape of the channels",
    "_to_sparse": "keep the tensor dense: ONNX has no sparse values",
    "_nested_tensor_from_tensor_list": "pad to one size and pass a mask",
    "_ctc_loss": "keep the loss out of forward: it is not needed for inference",
    "equal": "compare element by element (a == b); a branch on it needs torch.cond",
    "nonzero_static": "write the indices as a constant where the size is fixed",
    "_unique2": _VALUES_DECIDE,
    "bincount": "use scatter_add on zeros of a fixed length",
}
_COMPLEX = "complex numbers have no dtype in ONNX: compute with real and imaginary parts"
_CUSTOM = (
    "a custom operator: give torch.onnx.export a translation (custom_translation_table), and "
    "every runtime a kernel"
)
_OTHERS = (
    "replace it by supported operations, or give the exporter a translation "
    "(custom_translation_table)"
)
_PYTORCH = ("aten", "prims", "torchvision", "quantized", "higher_order")


def workaround(operator: str, *, is_complex: bool = False) -> str:
    """What to do about `operator`, written as in `aten._cdist_forward.default`."""
    namespace, _, rest = operator.partition(".")
    name = rest.partition(".")[0]
    if name in _WORKAROUNDS and not is_complex:
        return _WORKAROUNDS[name]
    if is_complex:
        return _COMPLEX
    if name.removeprefix("_").startswith("linalg"):
        return _LINEAR_ALGEBRA
    if name.startswith("bessel"):
        return _PRIMITIVE
    if namespace == "quantized":
        return "export the float model, and quantize the ONNX file (onnxruntime.quantization)"
    return _OTHERS if namespace in _PYTORCH else _CUSTOM
