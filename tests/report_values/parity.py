"""What a parity check tells beside its cases."""

from __future__ import annotations

from reportgen.sections.onnx.parity_result import Divergence, ErrorBin, ErrorHistogram, SecondCall

REPEATS = SecondCall(pytorch_repeats=True, file_repeats=True, state=())

ULPS = (
    ("0", 211), ("1", 304), ("2 – 3", 288), ("4 – 15", 171), ("16 – 63", 22), ("64 – 255", 4),
    ("256 – 4,095", 0), ("4,096 – 65,535", 0), ("65,536 and more", 0),
)  # fmt: skip
RELATIVE = (
    ("equal", 211), ("below 1e-8", 0), ("1e-8 – 1e-7", 180), ("1e-7 – 1e-6", 512),
    ("1e-6 – 1e-5", 96), ("1e-5 – 1e-4", 1), ("1e-4 – 1e-3", 0), ("1e-3 – 1e-2", 0),
    ("1e-2 – 1e-1", 0), ("1e-1 – 1", 0), ("1 and more", 0),
)  # fmt: skip

HISTOGRAM = ErrorHistogram(
    output="logits",
    dtype="float32",
    batch=1,
    seed=0,
    elements=1000,
    max_ulp=231,
    ulps=tuple(ErrorBin(label=label, elements=count) for label, count in ULPS),
    relative=tuple(ErrorBin(label=label, elements=count) for label, count in RELATIVE),
)

DIVERGENCE = Divergence(
    output="logits",
    batch=1,
    seed=0,
    cause="file",
    module="encoder.layers.1.linear2",
    module_type="Linear",
    node="node_linear_7",
    operator="Gemm",
    nodes=("Gemm node_linear_7",),
    max_absolute_error=0.31,
    sentences=(
        "encoder.layers.1.linear2 (Linear) is the first module whose output differs, by up to "
        "3.1e-01; its inputs agree",
        "the first diverging node is Gemm node_linear_7 of aten.linear.default",
    ),
)
