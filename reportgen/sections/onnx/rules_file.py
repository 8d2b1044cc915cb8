"""Rules on the contents of the ONNX file."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.file_result import MissingKernel
from reportgen.sections.onnx.result import OnnxResult
from reportgen.units import format_bytes, format_share

_WASTE = 0.01  # share of the stored bytes below which waste is not reported
_FLUSHED = 0.01  # share of the stored values below which values that become zero are not reported


@rule(
    "ONX014",
    Severity.WARNING,
    advice="remove them with onnxruntime's or onnxscript's optimizer before shipping the file",
    bad='''
        weight = np.arange(4096, dtype=np.float32)
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4096] x) => (float[N,4096] y) {
                y = Mul (x, a)
            }
        """)
        for name in ("a", "left_over"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight + len(name), name))
    ''',
    good='''
        weight = np.arange(4096, dtype=np.float32)
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4096] x) => (float[N,4096] y) {
                y = Mul (x, a)
            }
        """)
        for name in ("a",):
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight + len(name), name))
    ''',
)
def unused_initializers(onnx: OnnxResult) -> Iterator[Hit]:
    """The file stores tensors on which none of its outputs depends.

    They waste disk space and memory. Less than 1 % of the stored bytes is not reported.
    """
    unused, wasted = onnx.file.inventory.unused, onnx.file.inventory.unused_bytes
    if wasted and wasted >= _WASTE * onnx.file.initializer_bytes:
        share = format_share(wasted, onnx.file.initializer_bytes)
        names = _listed([tensor.name for tensor in unused])
        yield Hit(unused[0].name, f"{format_bytes(wasted)} ({share}) are never used: {names}")


@rule(
    "ONX015",
    Severity.WARNING,
    advice="tie the parameters in the model, so that the exporter stores them once",
    bad='''
        weight = np.arange(4096, dtype=np.float32)
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4096] x) => (float[N,4096] y) {
                z = Mul (x, a)
                y = Add (z, b)
            }
        """)
        for name in ("a", "b"):
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    ''',
    good='''
        weight = np.arange(4096, dtype=np.float32)
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4096] x) => (float[N,4096] y) {
                z = Mul (x, a)
                y = Add (z, a)
            }
        """)
        for name in ("a",):
            model.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    ''',
)
def duplicate_initializers(onnx: OnnxResult) -> Iterator[Hit]:
    """The file stores the same tensor more than once, byte for byte.

    Mostly a weight that two modules share and that was copied on the way. Tensors of one repeated
    value, as fresh norms and biases have, do not count, nor does waste below 1 % of the stored
    bytes.
    """
    groups = onnx.file.inventory.duplicates or ()
    copies = [group for group in groups if not group.uniform]
    wasted = sum(group.wasted_bytes for group in copies)
    if wasted and wasted >= _WASTE * onnx.file.initializer_bytes:
        share = format_share(wasted, onnx.file.initializer_bytes)
        names = _listed(list(copies[0].names))
        yield Hit(
            copies[0].names[0], f"{format_bytes(wasted)} ({share}) are duplicates, first of {names}"
        )


@rule(
    "ONX016",
    Severity.WARNING,
    advice="export in float32, or run the file on a device that has these kernels",
)
def missing_cpu_kernels(onnx: OnnxResult) -> Iterator[Hit]:
    """Onnxruntime's CPU provider has no kernel for an operator of the file in its dtype.

    No session opens for such a file. Operators that onnxruntime helps itself with, by casting
    float16 to float32 or by expanding them into others, do not count.
    """
    for missing in _missing_kernels(onnx, "CPU"):
        # ONX036 reports operators of a library: no dtype or device helps there
        if not missing.fallback and missing.operator not in onnx.file.library_operators:
            yield Hit(missing.operator, f"no CPU kernel for {_describe(missing)}")


@rule(
    "ONX017",
    Severity.NOTE,
    advice="keep the named tensors in float32 when converting, or rescale them",
)
def weights_beyond_float16(onnx: OnnxResult) -> Iterator[Hit]:
    """The file stores values that float16 cannot hold.

    Magnitudes of 65,520 and more become infinite; values of 2**-25 and less become zero, which
    counts from 1 % of all values on. A single number, such as the fill of an attention mask, is
    not reported, since infinity works as well there. Nothing was run: the float32 file works.
    """
    fp16 = onnx.file.fp16
    for tensor in fp16.tensors:
        if tensor.overflowing and tensor.elements > 1:  # one element is the fill of a mask
            values = f"{tensor.overflowing:,} of {tensor.elements:,} values"
            yield Hit(tensor.name, f"{values} would become infinite in float16")
    if fp16.elements and fp16.flushed > _FLUSHED * fp16.elements:
        share = format_share(fp16.flushed, fp16.elements)
        yield Hit("model.onnx", f"{share} of the stored values would become zero in float16")


@rule(
    "ONX018",
    Severity.NOTE,
    advice="expect device copies there, or use other operators",
)
def missing_cuda_kernels(onnx: OnnxResult) -> Iterator[Hit]:
    """Onnxruntime's CUDA provider has no kernel for an operator of the file in its dtype.

    The nodes run on the CPU or expanded into others, which can cost more than they compute. By
    onnxruntime's published table; no CUDA build was run.
    """
    for missing in _missing_kernels(onnx, "CUDA"):
        what = f": they are {missing.fallback}" if missing.fallback else ""
        yield Hit(missing.operator, f"no CUDA kernel for {_describe(missing)}{what}")


FILE_RULES = (
    unused_initializers,
    duplicate_initializers,
    missing_cpu_kernels,
    weights_beyond_float16,
    missing_cuda_kernels,
)


def _missing_kernels(onnx: OnnxResult, name: str) -> tuple[MissingKernel, ...]:
    return next((each.missing_kernels for each in onnx.file.providers if each.name == name), ())


def _describe(missing: MissingKernel) -> str:
    nodes = f"{missing.nodes:,} node{'' if missing.nodes == 1 else 's'}"
    since = f" (opset {missing.since})" if missing.since else ""
    dtypes = f" in {', '.join(missing.dtypes)}" if missing.dtypes else ""
    place = f", first in {missing.module}" if missing.module else ""
    return f"{nodes} of {missing.operator}{since}{dtypes}{place}"


def _listed(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
