"""Which operators onnxruntime's CUDA provider has kernels for, and in which dtypes.

A table of facts: the standard domain's rows of "Operators implemented by CUDAExecutionProvider"
in onnxruntime's docs/OperatorKernels.md, as of commit d31426f (2026, between 1.28 and 1.32).
onnxruntime for the CPU cannot be asked, since its build holds no CUDA kernels. What the page
does not list, the provider does not have: such nodes run on the CPU.

One line per operator: versions, then the dtypes of each type parameter as NumPy's character
codes, `E` standing for bfloat16 and `S` for text. `13+` fits nodes whose operator last changed
in opset 13, `6-12` those of 6 to 12. A dtype without a code (float8, 4 bits, sequences) is in
no row; whether a kernel takes it is not known here.
"""

from __future__ import annotations

from functools import cache

SOURCE = "onnxruntime's OperatorKernels.md, commit d31426f"

NEWEST_OPSET = 27
"""The newest standard operators that the table can know of."""

CODES = {
    "?": "bool",
    "b": "int8",
    "B": "uint8",
    "h": "int16",
    "H": "uint16",
    "i": "int32",
    "I": "uint32",
    "q": "int64",
    "Q": "uint64",
    "e": "float16",
    "f": "float",
    "d": "double",
    "E": "bfloat16",
    "S": "string",
}
_ANY = "?bBhHiIqQefdE"
_NUMBERS = "bBhHiIqQefdE"

_ROWS = f"""
Abs 13+ T={_NUMBERS}; 6-12 T=bBhHiIqQefd
Add 14+ T={_NUMBERS}; 13 T=iIqQefdE; 7-12 T=iIqQefd
And 7+ T=? T1=?
ArgMax 13+ T=efd; 12 T=efd; 1-11 T=efd
ArgMin 13+ T=efd; 12 T=efd; 1-11 T=efd
Attention 24+ T1=efE T2=efE U=?efE; 23 T1=efE T2=efE U=?efE
AveragePool 22+ T=efdE; 19-21 T=efd; 11-18 T=efd; 10 T=efd; 7-9 T=efd
BatchNormalization 15+ T=efd T1=efd T2=efd; 14 T=efd U=efd; 9-13 T=efd; 7-8 T=efd
Cast 25+ T1={_ANY} T2={_ANY}; 23-24 T1={_ANY} T2={_ANY}; 21-22 T1={_ANY} T2={_ANY}; \
19-20 T1={_ANY} T2={_ANY}; 13-18 T1={_ANY} T2={_ANY}; 9-12 T1=?bBhHiIqQefd T2={_ANY}; \
6-8 T1=?bBhHiIqQefd T2={_ANY}
Ceil 13+ T=efd; 6-12 T=efd
Clip 13+ T=bBqQefd; 12 T=bBqQefd; 11 T=f; 6-10 T=f
Compress 11+ T={_ANY} T1=?; 9-10 T={_ANY} T1=?
Concat 13+ T={_ANY}; 11-12 T={_ANY}; 4-10 T={_ANY}
ConcatFromSequence 11+
ConstantOfShape 25+ T1=q T2={_ANY}; 23-24 T1=q T2={_ANY}; 21-22 T1=q T2={_ANY}; \
9-20 T1=q T2={_ANY}
Conv 22+ T=efdE; 11-21 T=efd; 1-10 T=efd
ConvTranspose 22+ T=efd; 11-21 T=efd; 1-10 T=efd
Cos 22+ T=efdE; 7-21 T=efd
CumSum 14+ T=iIqQefd T2=iq; 11-13 T=iIqQfd T2=iq
DeformConv 22+ T=efdE; 19-21 T=efd
DepthToSpace 13+ T=efd; 11-12 T=efd; 1-10 T=efd
DequantizeLinear 25+ T1=bB T2=ef T3=ef; 23-24 T1=bB T2=ef T3=ef; 21-22 T1=bB T2=ef; \
19-20 T1=bB T2=ef; 13-18 T=bB; 10-12 T=bB
Div 14+ T={_NUMBERS}; 13 T=iIqQefdE; 7-12 T=iIqQefd
Dropout 13+ T=efdE T1=efdE T2=?; 12 T=efd T1=efd T2=?; 10-11 T=efd T1=?; 7-9 T=efd
Einsum 12+ T=efd
Elu 6+ T=efd
Equal 19+ T=?iIqQefd T1=?; 13-18 T=?iIqQefd T1=?; 11-12 T=?iIqQefd; 7-10 T=?iq
Erf 13+ T=efdE; 9-12 T=efd
Exp 13+ T=efdE; 6-12 T=efd
Expand 13+ T={_ANY}; 8-12 T={_ANY}
EyeLike 9+ T1=iqQfd T2=iqQfd
Flatten 25+ T={_ANY}; 23-24 T={_ANY}; 21-22 T={_ANY}; 13-20 T={_ANY}; 11-12 T={_ANY}; \
9-10 T={_ANY}; 1-8 T={_ANY}
Floor 13+ T=efd; 6-12 T=efd
GRU 22+ T=efd T1=i; 14-21 T=efd T1=i; 7-13 T=efd T1=i
Gather 13+ T={_ANY} Tind=iq; 11-12 T={_ANY} Tind=iq; 1-10 T={_ANY} Tind=iq
GatherElements 13+ T={_ANY} Tind=iq; 11-12 T={_ANY} Tind=iq
GatherND 13+ T=?qefdE indices=q; 12 T=?qefd indices=q; 11 T=?qefd indices=q
Gelu 20+ T=efdE
Gemm 13+ T=efdE; 11-12 T=efd; 9-10 T=efd; 7-8 T=efd
GlobalAveragePool 22+ T=efd; 1-21 T=efd
GlobalMaxPool 22+ T=efd; 1-21 T=efd
Greater 13+ T=iIqQefd T1=?; 9-12 T=iIqQefd; 7-8 T=efd
GreaterOrEqual 16+ T=iIqQefd T1=?; 12-15 T=iIqQefd T1=?
GridSample 22+ T1=f T2=f; 20-21 T1=f T2=f; 16-19 T1=f T2=f
HardSigmoid 22+ T=efdE; 6-21 T=efd
HardSwish 22+ T=efdE; 14-21 T=efd
Identity 25+ V={_ANY}; 23-24 V={_ANY}; 21-22 V={_ANY}; 19-20 V={_ANY}; 14-18 V={_ANY}; \
13 T={_ANY}; 1-12 T={_ANY}
If 25+ B=? V={_ANY}S; 23-24 B=? V={_ANY}S; 21-22 B=? V={_ANY}S; 19-20 B=? V={_ANY}S; \
13-18 B=? V={_ANY}S; 11-12 B=? V={_ANY}; 1-10 B=? V={_ANY}
InstanceNormalization 6+ T=efd
IsInf 20+ T1=efdE T2=?; 10-19 T1=fd T2=?
IsNaN 20+ T1=efdE T2=?; 13-19 T1=efdE T2=?; 9-12 T1=efd T2=?
LRN 13+ T=efd; 1-12 T=efd
LSTM 22+ T=efd T1=i; 14-21 T=efd T1=i; 7-13 T=efd T1=i
LayerNormalization 17+ T=efdE U=f; 1-16 T=efdE U=fd V=efdE
LeakyRelu 16+ T=efd; 6-15 T=efd
Less 13+ T=iIqQefd T1=?; 9-12 T=iIqQefd; 7-8 T=efd
LessOrEqual 16+ T=iIqQefd T1=?; 12-15 T=iIqQefd T1=?
Log 13+ T=efd; 6-12 T=efd
LogSoftmax 13+ T=efd; 11-12 T=efd; 1-10 T=efd
Loop 25+ B=? I=q V={_ANY}S; 23-24 B=? I=q V={_ANY}S; 21-22 B=? I=q V={_ANY}S; \
19-20 B=? I=q V={_ANY}S; 13-18 B=? I=q V={_ANY}S; 11-12 B=? I=q V={_ANY}; 1-10 B=? I=q V={_ANY}
LpNormalization 22+ T=ef; 1-21 T=ef
MatMul 13+ T=efdE; 9-12 T=efd; 1-8 T=efd
MatMulInteger 10+ T1=b T2=b T3=i
Max 13+ T=iIqQefdE; 12 T=iIqQefdE; 6-11 T=efdE
MaxPool 12+ I=q T=bBefd; 11 I=q T=efd; 10 I=q T=efd; 8-9 I=q T=efd; 1-7 T=efd
Min 13+ T=iIqQefdE; 12 T=iIqQefdE; 6-11 T=efdE
Mod 13+ T=iIqQefdE; 10-12 T=iIqQefd
Mul 14+ T={_NUMBERS}; 13 T=iIqQefdE; 7-12 T=iIqQefd
Neg 13+ T=bhiqefdE; 6-12 T=bhiqefd
NonZero 13+ T=?Biqef; 9-12 T=?Biqef
Not 1+ T=?
OneHot 11+ T1=iq T2=iq T3=qef
Or 7+ T=? T1=?
PRelu 16+ T=efd; 9-15 T=efd; 7-8 T=efd
Pad 25+ T=?efd; 24 T=?efd; 23 T=?efd; 21-22 T=?efd; 19-20 T=?efd; 18 T=?efd; 13-17 T=?efd; \
11-12 T=efd; 2-10 T=efd
Pow 15+ T=iqefdE T1=iqefdE; 13-14 T=iqefdE T1=iqefd; 12 T=iqefd T1=iqefd; 7-11 T=efd
QuantizeLinear 25+ T1=ef T2=ef T3=bB; 23-24 T1=ef T2=ef T3=bB; 21-22 T1=ef T2=bB; \
19-20 T1=ef T2=bB; 13-18 T1=f T2=bB; 10-12 T1=f T2=bB
RMSNormalization 23+ T=efdE V=efdE
RNN 22+ T=efd T1=i; 14-21 T=efd T1=i; 7-13 T=efd T1=i
RandomNormal 22+ T=efdE; 1-21 T=efd
RandomNormalLike 22+ T1={_ANY}S T2=efdE; 1-21 T1={_ANY}S T2=efd
RandomUniform 22+ T=efdE; 1-21 T=efd
RandomUniformLike 22+ T1={_ANY}S T2=efdE; 1-21 T1={_ANY}S T2=efd
Range 27+ T=hiqfd; 11-26 T=hiqfd
Reciprocal 13+ T=efd; 6-12 T=efd
ReduceL1 18+ T=iefd; 1-17 T=iefd
ReduceL2 18+ T=iefd; 1-17 T=iefd
ReduceLogSum 18+ T=efd; 1-17 T=efd
ReduceLogSumExp 18+ T=efd; 1-17 T=efd
ReduceMax 20+ T=bBiqefd; 18-19 T=bBiqefd; 1-17 T=bBiqefd
ReduceMean 18+ T=iefd; 1-17 T=iefd
ReduceMin 20+ T=bBiqefd; 18-19 T=bBiqefd; 1-17 T=bBiqefd
ReduceProd 18+ T=iefd; 1-17 T=iefd
ReduceSum 13+ T=iqefdE; 1-12 T=iqefd
ReduceSumSquare 18+ T=efd; 1-17 T=efd
Relu 14+ T=efdE; 13 T=efdE; 6-12 T=efd
Reshape 25+ T={_ANY} shape=q; 23-24 T={_ANY} shape=q; 21-22 T={_ANY} shape=q; \
19-20 T={_ANY} shape=q; 14-18 T={_ANY} shape=q; 13 T={_ANY} shape=q; 5-12 T={_ANY} shape=q; \
1-4 T={_ANY}
Resize 19+ T1=Biefd; 18 T1=Biefd; 13-17 T1=Biefd; 11-12 T1=Biefd; 10 T=Biefd
ReverseSequence 10+ T={_ANY}
RoiAlign 22+ T1=efdE T2=q; 16-21 T1=efd T2=q; 10-15 T1=fd T2=q
RotaryEmbedding 23+ M=q T=efE
Round 22+ T=efd; 11-21 T=efd
Scan 25+ V={_ANY}; 23-24 V={_ANY}; 21-22 V={_ANY}; 19-20 V={_ANY}; 16-18 V={_ANY}; \
11-15 V={_ANY}; 9-10 V={_ANY}; 8 I=q V={_ANY}S
Scatter 9-10 T={_ANY} Tind=iq
ScatterElements 18+ T={_ANY} Tind=iq; 16-17 T={_ANY} Tind=iq; 13-15 T={_ANY} Tind=iq; \
11-12 T={_ANY} Tind=iq
ScatterND 18+ T={_ANY}; 16-17 T={_ANY}; 13-15 T={_ANY}; 11-12 T={_ANY}
Selu 6+ T=efd
SequenceAt 11+ I=iq T={_ANY}
SequenceConstruct 11+ T={_ANY}
SequenceEmpty 11+
SequenceErase 11+ I=iq
SequenceInsert 11+ I=iq T={_ANY}
SequenceLength 11+ I=q
Shape 25+ T={_ANY} T1=q; 23-24 T={_ANY} T1=q; 21-22 T={_ANY} T1=q; 19-20 T={_ANY} T1=q; \
15-18 T={_ANY} T1=q; 13-14 T={_ANY} T1=q; 1-12 T={_ANY} T1=q
Shrink 9+ T=bBhHiIqQefd
Sigmoid 13+ T=efdE; 6-12 T=efd
Sign 13+ T={_NUMBERS}
Sin 22+ T=efdE; 7-21 T=efd
Size 25+ T={_ANY}S T1=q; 23-24 T={_ANY}S T1=q; 21-22 T={_ANY}S T1=q; 13-20 T={_ANY}S T1=q; \
1-12 T={_ANY}S T1=q
Slice 13+ T={_ANY} Tind=iq; 11-12 T={_ANY} Tind=iq; 10 T={_ANY} Tind=iq; 1-9 T={_ANY}
Softmax 13+ T=efdE; 11-12 T=efd; 1-10 T=efd
Softplus 22+ T=efdE; 1-21 T=efd
Softsign 22+ T=efdE; 1-21 T=efd
SpaceToDepth 13+ T=efd; 1-12 T=efd
Split 18+ T={_ANY}; 13-17 T={_ANY}; 11-12 T={_ANY}; 2-10 T={_ANY}
Sqrt 13+ T=efdE; 6-12 T=efd
Squeeze 25+ T={_ANY}; 24 T={_ANY}; 23 T={_ANY}; 21-22 T={_ANY}; 13-20 T={_ANY}; \
11-12 T={_ANY}; 1-10 T={_ANY}
Sub 14+ T={_NUMBERS}; 13 T=iIqQefdE; 7-12 T=iIqQefd
Sum 13+ T=efdE; 8-12 T=efdE; 6-7 T=efdE
Tanh 13+ T=efdE; 6-12 T=efd
TensorScatter 24+ T={_ANY}
ThresholdedRelu 10+ T=efd
Tile 13+ T=iqefdE T1=q; 6-12 T=iqefd T1=q
TopK 24+ I=q T=bBhiqefdE; 11-23 I=q T=bBhiqefd; 10 I=q T=iqefd; 1-9 T=iqefd
Transpose 25+ T={_ANY}; 23-24 T={_ANY}; 21-22 T={_ANY}; 13-20 T={_ANY}; 1-12 T={_ANY}
Trilu 14+ T={_ANY}
Unsqueeze 25+ T={_ANY}; 24 T={_ANY}; 23 T={_ANY}; 21-22 T={_ANY}; 13-20 T={_ANY}; \
11-12 T={_ANY}; 1-10 T={_ANY}
Upsample 9 T=Biefd; 7-8 T=Biefd
Where 16+ B=? T=BiqefdE; 9-15 B=? T=Biqefd
Xor 7+ T=? T1=?
"""

Row = tuple[int, int | None, dict[str, frozenset[str]]]


@cache
def cuda_rows() -> dict[str, tuple[Row, ...]]:
    """Per operator its kernels: first version, last one (None: the newest), dtypes by slot."""
    lines = (line for line in _ROWS.splitlines() if line)
    split = (line.partition(" ") for line in lines)
    return {name: tuple(map(_row, rest.split("; "))) for name, _, rest in split}


def _row(text: str) -> Row:
    versions, *slots = text.split()
    first, _, last = versions.rstrip("+").partition("-")
    until = None if versions.endswith("+") else int(last or first)
    dtypes = (slot.partition("=") for slot in slots)
    return (
        int(first),
        until,
        {name: frozenset(map(CODES.__getitem__, codes)) for name, _, codes in dtypes},
    )
