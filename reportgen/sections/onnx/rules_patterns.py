"""Findings about nodes of the ONNX file that undo each other or that runtimes treat differently."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.onnx.file_result import NodeGroup
from reportgen.sections.onnx.result import OnnxResult
from reportgen.units import format_bytes, format_share

_LEAST_INTEGERS = 2**20  # bytes
_LEAST_SHARE = 0.05  # of all initializers


@rule(
    "ONX040",
    Severity.NOTE,
    advice="convert once, to the dtype that is needed last; onnxsim or onnxslim merges them",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float16[N,4] y) {
                a = Cast <to = 7> (x)
                y = Cast <to = 10> (a)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float16[N,4] y) {
                y = Cast <to = 10> (x)
            }
        """)
    ''',
)
def cast_chains(onnx: OnnxResult) -> Iterator[Hit]:
    """The result of a Cast feeds nothing but another Cast.

    Each conversion is a pass over memory, and a narrow dtype in between loses precision: float32
    to float16 and back keeps three digits. The model converts back and forth, such as with
    `.float()` around an operation that was removed.
    """
    yield from _pairs(onnx.file.patterns.cast_pairs, "Cast", "another Cast")


@rule(
    "ONX041",
    Severity.NOTE,
    advice="remove both in the model, or let onnxsim or onnxslim remove them",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) {
                a = Transpose <perm = [1, 0]> (x)
                y = Transpose <perm = [1, 0]> (a)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4,5] x) => (float[5,N,4] y) {
                a = Transpose <perm = [1, 0, 2]> (x)
                y = Transpose <perm = [2, 1, 0]> (a)
            }
        """)
    ''',
)
def transpose_pairs(onnx: OnnxResult) -> Iterator[Hit]:
    """A Transpose undoes the Transpose before it.

    Both copy the whole tensor for nothing. onnxruntime removes such pairs on the CPU; runtimes
    that do not (many NPUs) spend a large part of their time on them.
    """
    yield from _pairs(
        onnx.file.patterns.transpose_pairs, "Transpose", "the Transpose that undoes it"
    )


def _pairs(group: NodeGroup, operator: str, second: str) -> Iterator[Hit]:
    if group.nodes:
        times = f"{group.nodes} times: " if group.nodes > 1 else ""
        yield Hit(
            group.module or "model.onnx", f"{times}a {operator} feeds only {second}", key=operator
        )


@rule(
    "ONX042",
    Severity.NOTE,
    advice="use the same align_corners everywhere, unless trained weights require otherwise",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[1,1,4,4] x) => (float[1,1,8,8] y)
            <float[4] twice = {1, 1, 2, 2}, float[4] half = {1, 1, 0.5, 0.5}> {
                a = Resize <mode = "linear", coordinate_transformation_mode = "align_corners">
                    (x, , twice)
                b = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                    (a, , half)
                y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                    (b, , twice)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[1,1,4,4] x) => (float[1,1,8,8] y)
            <float[4] twice = {1, 1, 2, 2}> {
                y = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel">
                    (x, , twice)
            }
        """)
    ''',
)
def different_resizes(onnx: OnnxResult) -> Iterator[Hit]:
    """Resize nodes of one interpolation map coordinates in different ways.

    With `align_corners` the corners of both images coincide, otherwise pixels are areas: the
    results are shifted against each other by up to half a pixel. Where they are added or compared,
    edges blur. Nearest and linear interpolation are not compared with each other.
    """
    for mode, ways in onnx.file.patterns.resize_modes.items():
        if len(ways) > 1:
            yield Hit("model.onnx", f"{mode} resizing by {' and '.join(ways)}", key=mode)


@rule(
    "ONX043",
    Severity.NOTE,
    advice="store them as int32 or smaller, and cast where an operator requires int64",
    bad="""
        table = onnx.numpy_helper.from_array(np.arange(2**18), "table")
        model = onnx.parser.parse_model('''
            <ir_version: 10, opset_import: ["": 20]>
            main (int64[N] i) => (int64[N] y) { y = Gather (table, i) }
        ''')
        model.graph.initializer.append(table)
    """,
    good="""
        table = onnx.numpy_helper.from_array(np.arange(2**18, dtype=np.int32), "table")
        model = onnx.parser.parse_model('''
            <ir_version: 10, opset_import: ["": 20]>
            main (int64[N] i) => (int32[N] y) { y = Gather (table, i) }
        ''')
        model.graph.initializer.append(table)
    """,
)
def integer_tables(onnx: OnnxResult) -> Iterator[Hit]:
    """A substantial part of the file consists of 64-bit integers.

    Index tables and masks rarely need 64 bits. They take twice the memory of int32, and TensorRT
    and most NPUs convert or reject them. Reported from 1 MiB and 5 % of the stored values on.
    """
    size = onnx.file.inventory.bytes_by_dtype.get("int64", 0)
    whole = onnx.file.initializer_bytes
    if size >= _LEAST_INTEGERS and size >= _LEAST_SHARE * whole:
        share = format_share(size, whole)
        yield Hit("model.onnx", f"{format_bytes(size)} ({share}) are int64", key="int64")


@rule(
    "ONX044",
    Severity.WARNING,
    advice="cast the constant or array that they come from to float32 in the model",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y)
            <double two = {2}> {
                a = Cast <to = 11> (x)
                b = Mul (a, two)
                y = Cast <to = 1> (b)
            }
        """)
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y)
            <float two = {2}> {
                y = Mul (x, two)
            }
        """)
    ''',
)
def double_precision_nodes(onnx: OnnxResult) -> Iterator[Hit]:
    """Nodes compute float64, although no input of the file is float64.

    Most runtimes for deployment (TensorRT, CoreML, NPUs) reject float64 or convert it; GPUs are up
    to 64 times slower in it. Usually one NumPy constant is the cause.
    """
    group = onnx.file.patterns.double_nodes
    if group.nodes:
        count = f"{group.nodes:,} nodes compute" if group.nodes > 1 else "a node computes"
        yield Hit(group.module or "model.onnx", f"{count} float64", key="float64")


@rule(
    "ONX045",
    Severity.NOTE,
    advice="remove them before publishing: clear doc_string and metadata_props of every node",
    bad='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
        """)
        model.graph.node[0].doc_string = 'File "/home/kim/project/net.py", line 3, in forward'
    ''',
    good='''
        model = onnx.parser.parse_model("""
            <ir_version: 10, opset_import: ["": 20]>
            main (float[N,4] x) => (float[N,4] y) { y = Relu (x) }
        """)
        model.graph.node[0].doc_string = 'File "net.py", line 3, in forward'
    ''',
)
def local_paths(onnx: OnnxResult) -> Iterator[Hit]:
    """Nodes of the file name files of the machine that exported it.

    torch.onnx.export writes the stack trace of each node into the file, with folders and user
    names. Files that reportgen exports do not contain them.
    """
    group = onnx.file.patterns.local_paths
    if group.nodes:
        count = f"{group.nodes:,} nodes contain" if group.nodes > 1 else "a node contains"
        yield Hit("model.onnx", f"{count} paths of a local machine", key="paths")


PATTERN_RULES = (
    cast_chains,
    transpose_pairs,
    different_resizes,
    integer_tables,
    double_precision_nodes,
    local_paths,
)
