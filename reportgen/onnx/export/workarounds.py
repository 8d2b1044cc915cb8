"""Known ways round operators without an ONNX form.

Each operator was found missing in the registry of torch 2.15's exporter. Replacements that are
code were exported and compared with the operator that they replace
(tests/test_export_ways_round.py); the others are advice.
"""

from __future__ import annotations

_LINEAR_ALGEBRA = (
    "ONNX has no matrix factorizations: compute it outside the model and pass the result in, "
    "or write it for the sizes that occur (closed form, or a fixed number of iterations)"
)
_INVERSE = (
    "matrices up to 4×4 have a closed form; for constant matrices invert once in __init__ and "
    "use matmul"
)
_WINDOWS = (
    "leave height and width out of onnx.dynamic, or pool with fixed windows (max_pool2d, "
    "avg_pool3d): which values an adaptive window covers depends on the size"
)
_RUNNING = "convert the values to floats first: of floats it has a form"
_PRIMITIVE = "no runtime has this function: use an approximation made of exp, log and powers"
_VALUES_DECIDE = "the size of its result depends on values: keep it outside of the model"

_WAYS: dict[str, str] = {
    "_pdist_forward": "leave the number of rows out of onnx.dynamic: each pair has a place",
    "_adaptive_avg_pool3d": _WINDOWS,
    "adaptive_max_pool2d": _WINDOWS,
    "adaptive_max_pool3d": _WINDOWS,
    "rrelu_with_noise_functional": "call model.eval(): it is a leaky ReLU then",
    "cummax": _RUNNING,
    "cummin": _RUNNING,
    "fractional_max_pool2d": "use max_pool2d: the regions are drawn at random",
    "inverse": _INVERSE,
    "linalg_inv": _INVERSE,
    "linalg_inv_ex": _INVERSE,
    "linalg_solve": _INVERSE,
    "_linalg_solve_ex": _INVERSE,
    "linalg_solve_triangular": "for constant matrices invert once in __init__ and use matmul",
    "linalg_pinv": "for constant matrices compute it once in __init__ and use matmul",
    "linalg_matrix_exp": "write the Taylor series out to a fixed degree",
    "linalg_lstsq": "for constant matrices compute pinv once in __init__ and use matmul",
    "histogram": "use torch.histc, which has an ONNX form",
    "nanmedian": "sort with torch.topk and take the element in the middle",
    "mode": "count with (x.unsqueeze(-1) == x.unsqueeze(-2)).sum(-1) and take the argmax",
    "erf_inv": _PRIMITIVE,
    "lgamma": _PRIMITIVE,
    "digamma": _PRIMITIVE,
    "polygamma": _PRIMITIVE,
    "igamma": _PRIMITIVE,
    "poisson": "draw outside of the model and pass the result in",
    "segment_reduce": "use scatter_reduce with the index of each element's segment",
    "roi_pool": "use torchvision.ops.roi_align, which has an ONNX form",
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


def way_round(operator: str, *, is_complex: bool = False) -> str:
    """What to do about `operator`, written as in `aten._cdist_forward.default`."""
    namespace, _, rest = operator.partition(".")
    name = rest.partition(".")[0]
    if name in _WAYS and not is_complex:
        return _WAYS[name]
    if is_complex:
        return _COMPLEX
    if name.removeprefix("_").startswith("linalg"):
        return _LINEAR_ALGEBRA
    if name.startswith("bessel"):
        return _PRIMITIVE
    if namespace == "quantized":
        return "export the float model, and quantize the ONNX file (onnxruntime.quantization)"
    return _OTHERS if namespace in _PYTORCH else _CUSTOM
