"""The ONNX file by itself: what it stores, what is wasted, who has kernels for it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reportgen.onnx.runtime import session_error_text
from reportgen.sections.onnx.file_result import FileResult, MissingKernel
from reportgen.sections.onnx.inspection.analysis import check_file, inspect_file
from reportgen.sections.onnx.inspection.cuda_kernels import CODES, NEWEST_OPSET, cuda_rows
from reportgen.sections.onnx.inspection.fp16 import (
    BECOMES_INFINITE,
    BECOMES_ZERO,
    SMALLEST_NORMAL,
)
from reportgen.sections.onnx.inspection.graph import enclosing_path, module_path
from reportgen.sections.onnx.inspection.inventory import _RELEASED, opset_month, opset_release
from reportgen.sections.onnx.inspection.optimized_graph import LARGEST_BYTES, optimize

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
RANDOM = np.random.default_rng(0)


def value(name: str, *shape: int | str | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(RANDOM.standard_normal(shape).astype(dtype), name)


def make_model(
    nodes: Iterable[onnx.NodeProto],
    inputs: Iterable[onnx.ValueInfoProto],
    outputs: Iterable[onnx.ValueInfoProto],
    weights: Iterable[onnx.TensorProto] = (),
    *,
    opset: int = 20,
    **fields: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *fields.pop("opsets", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, **fields)


def inspect(model: onnx.ModelProto, folder: Path, **saving: Any) -> FileResult:
    path = folder / "model.onnx"
    onnx.save(model, path, **saving)
    return inspect_file(onnx.load(path, load_external_data=False), path).result


def products(*names: str) -> list[onnx.NodeProto]:
    """A chain of MatMul nodes over weights of these names, from x to y."""
    values = ["x", *(f"v{index}" for index in range(1, len(names))), "y"]
    return [
        helper.make_node("MatMul", [values[index], name], [values[index + 1]])
        for index, name in enumerate(names)
    ]


# Opsets -------------------------------------------------------------------------------------


def test_an_opset_is_told_with_its_release_and_its_month(tmp_path: Path) -> None:
    inventory = inspect(
        make_model(products("w"), [value("x", 2, 4)], [value("y", 2, 4)], [weight("w", 4, 4)],
                   opset=18),
        tmp_path,
    ).inventory  # fmt: skip
    assert (inventory.opset_release, inventory.opset_month) == ("1.13.0", "December 2022")
    assert inventory.newest_opset == onnx.defs.onnx_opset_version()
    assert inventory.opsets_behind == inventory.newest_opset - 18


def test_every_month_is_that_of_an_opset_that_onnx_released_in_that_order() -> None:
    names = "January February March April May June July August September October November December"
    months = [name.split() for name in _RELEASED.values()]
    dates = [(int(year), names.split().index(month)) for month, year in months]
    assert dates == sorted(dates)
    assert all(opset_release(opset) for opset in _RELEASED)
    assert (opset_release(3), opset_month(3), opset_month(999)) == (None, None, None)


# Stored tensors -----------------------------------------------------------------------------


def test_initializers_are_told_by_dtype_and_by_size(tmp_path: Path) -> None:
    shape = numpy_helper.from_array(np.array([2, 8]), "shape")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["v"]),
        helper.make_node("Reshape", ["v", "shape"], ["y"]),
    ]
    result = inspect(
        make_model(nodes, [value("x", 2, 4)], [value("y", 2, 8)], [shape, weight("w", 4, 8)]),
        tmp_path,
    )
    inventory = result.inventory
    assert inventory.bytes_by_dtype == {"float32": 4 * 32, "int64": 8 * 2}
    assert [(t.name, t.dtype, t.shape, t.bytes) for t in inventory.largest] == [
        ("w", "float32", (4, 8), 128),
        ("shape", "int64", (2,), 16),
    ]
    assert (result.initializers, result.initializer_bytes) == (2, 144)
    assert (inventory.unused, inventory.duplicates, inventory.external_bytes) == ((), (), 0)


def test_a_large_initializer_is_told_with_the_module_that_reads_it(tmp_path: Path) -> None:
    nodes = products("val_3", "w")
    for node, scope in zip(nodes, ("encoder.mlp", ""), strict=True):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=str(["", scope, "linear"]))
    weights = [weight("val_3", 4, 8), weight("w", 8, 4), weight("idle", 4, 4)]
    model = make_model(nodes, [value("x", 2, 4)], [value("y", 2, 4)], weights)
    largest = inspect(model, tmp_path).inventory.largest
    assert {t.name: t.module for t in largest} == {"val_3": "encoder.mlp", "w": "", "idle": ""}


def test_external_data_counts_and_is_compared_where_it_lies(tmp_path: Path) -> None:
    twin = weight("w1", 64, 64)
    weights = [twin, numpy_helper.from_array(numpy_helper.to_array(twin), "w2")]
    result = inspect(
        make_model(products("w1", "w2"), [value("x", 2, 64)], [value("y", 2, 64)], weights),
        tmp_path,
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    inventory = result.inventory
    assert result.external_file == "weights.bin"
    assert result.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert inventory.external_bytes == 2 * 4 * 64 * 64
    assert inventory.duplicates is not None
    assert [(d.names, d.wasted_bytes) for d in inventory.duplicates] == [(("w1", "w2"), 16384)]
    assert result.fp16.elements == 2 * 64 * 64


def test_the_values_of_constant_nodes_are_counted_apart(tmp_path: Path) -> None:
    held = weight("held", 4, 4)
    nodes = [helper.make_node("Constant", [], ["c"], value=held), *products("c")]
    result = inspect(make_model(nodes, [value("x", 2, 4)], [value("y", 2, 4)]), tmp_path)
    assert (result.inventory.constants, result.inventory.constant_bytes) == (1, 64)
    assert (result.inventory.bytes_by_dtype, result.fp16.elements) == ({}, 16)
    assert (result.inventory.foldable, result.inventory.foldable_candidates) == (0, 1)


def test_an_initializer_that_leads_to_no_output_is_unused(tmp_path: Path) -> None:
    nodes = [*products("w"), helper.make_node("MatMul", ["x", "dead"], ["nowhere"])]
    inventory = inspect(
        make_model(nodes, [value("x", 2, 4)], [value("y", 2, 4)],
                   [weight("w", 4, 4), weight("dead", 4, 4), weight("loose", 4)]),
        tmp_path,
    ).inventory  # fmt: skip
    assert [tensor.name for tensor in inventory.unused] == ["dead", "loose"]
    assert (inventory.unused_bytes, inventory.dead_nodes) == (64 + 16, 1)


def test_what_a_branch_reads_is_used(tmp_path: Path) -> None:
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("MatMul", ["x", weight_name], [f"{name}_y"])],
            name,
            [],
            [value(f"{name}_y", 2, 4)],
            own,
        )
        for name, weight_name, own in (
            ("then", "outer", []),
            ("else", "inner", [weight("inner", 4, 4)]),
        )
    }
    node = helper.make_node("If", ["c"], ["y"], **branches)
    result = inspect(
        make_model([node], [value("c", dtype=TensorProto.BOOL), value("x", 2, 4)],
                   [value("y", 2, 4)], [weight("outer", 4, 4)]),
        tmp_path,
    )  # fmt: skip
    assert (result.inventory.unused, result.initializers) == ((), 2)
    assert (result.int8.mac_nodes, result.providers[0].supported) == (2, 3)


def test_equal_tensors_of_other_shape_or_dtype_are_no_duplicates(tmp_path: Path) -> None:
    same = RANDOM.standard_normal(16).astype(np.float32)
    weights = [
        numpy_helper.from_array(same.reshape(4, 4), "a"),
        numpy_helper.from_array(same.reshape(2, 8), "b"),
        numpy_helper.from_array(same.view(np.int32).reshape(4, 4), "c"),
        numpy_helper.from_array(same.reshape(4, 4), "d"),
        helper.make_tensor("e", FLOAT, [4, 4], same.tolist()),  # in float_data, not raw_data
        numpy_helper.from_array(np.where(np.arange(16) == 8, 9, same).reshape(4, 4), "f"),
        numpy_helper.from_array(np.zeros(3, np.float32), "g"),
        numpy_helper.from_array(np.zeros(3, np.float32), "h"),
    ]
    duplicates = inspect(
        make_model(products("a"), [value("x", 2, 4)], [value("y", 2, 4)], weights), tmp_path
    ).inventory.duplicates
    assert duplicates is not None
    assert [(d.names, d.wasted_bytes, d.uniform) for d in duplicates] == [
        (("a", "d", "e"), 2 * 64, False),
        (("g", "h"), 12, True),
    ]


# Folding ------------------------------------------------------------------------------------


def folding_model(ir_version: int = 10, *, default: bool = False) -> onnx.ModelProto:
    """Two nodes on stored values, one on the input, one random, one that draws on the two."""
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Add", ["t", "t"], ["s"]),
        helper.make_node("RandomNormal", [], ["r"], shape=[4, 4]),
        helper.make_node("Mul", ["s", "r"], ["p"]),
        helper.make_node("MatMul", ["x", "s"], ["v"]),
        helper.make_node("MatMul", ["v", "p"], ["y"]),
    ]
    inputs = [value("x", 2, 4), *([value("w", 4, 4)] if default else [])]
    model = make_model(nodes, inputs, [value("y", 2, 4)], [weight("w", 4, 4)], opset=9)
    model.ir_version = ir_version
    return model


def test_nodes_on_stored_values_alone_could_be_folded_as_onnxruntime_does(tmp_path: Path) -> None:
    result = inspect(folding_model(), tmp_path)
    inventory = result.inventory
    assert (inventory.foldable, inventory.foldable_candidates) == (2, 6)
    assert inventory.foldable_operators == {"Add": 1, "Transpose": 1}
    assert result.optimized.levels[0].nodes == 6 - inventory.foldable


@pytest.mark.parametrize(("ir_version", "foldable"), [(3, 2), (4, 0)])
def test_an_initializer_that_a_caller_may_replace_is_not_folded(
    ir_version: int, foldable: int, tmp_path: Path
) -> None:
    result = inspect(folding_model(ir_version, default=True), tmp_path)
    assert result.inventory.foldable == foldable
    assert result.optimized.levels[0].nodes == 6 - foldable


# Optimization -------------------------------------------------------------------------------


def test_what_onnxruntime_fuses_is_named_by_level(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["v"]),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    optimized = inspect(
        make_model(nodes, [value("x", 1, 3, 8, 8)], [value("y", 1, 5, 6, 6)],
                   [weight("w", 5, 3, 3, 3)]),
        tmp_path,
    ).optimized  # fmt: skip
    assert [(each.level, each.nodes) for each in optimized.levels[:2]] == [
        ("basic", 2),
        ("extended", 1),
    ]
    assert optimized.levels[1].fused == {"com.microsoft.FusedConv": 1}
    assert all(each.bytes > 4 * 5 * 3 * 9 for each in optimized.levels)


def test_a_large_file_has_its_weights_written_apart_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    weights = [weight("w", 64, 64)]
    onnx.save(make_model(products("w"), [value("x", 2, 64)], [value("y", 2, 64)], weights), path)
    together, apart = (optimize(path, size).summary for size in (20_000, 2**26))
    for one, other in zip(together.levels, apart.levels, strict=True):
        assert one.nodes == other.nodes
        assert 0.9 < one.bytes / other.bytes < 1.1
        assert other.bytes > 4 * 64 * 64
    refused = optimize(path, LARGEST_BYTES + 1)
    assert refused.summary.not_run == "the file takes more than 953.7 MiB"
    assert refused.graph is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_onnxruntime_refuses_has_no_optimization_and_a_reason(tmp_path: Path) -> None:
    node = helper.make_node("Fancy", ["x"], ["y"], domain="com.example")
    result = inspect(
        make_model([node], [value("x", 2)], [value("y", 2)],
                   opsets=[helper.make_opsetid("com.example", 1)]),
        tmp_path,
    )  # fmt: skip
    assert result.optimized.levels == ()
    assert "Fancy" in result.optimized.not_run
    assert result.inventory.domains == {"com.example": 1}
    cpu, cuda = result.providers
    assert [(one.operator, one.fallback) for one in cpu.missing_kernels] == [
        ("com.example.Fancy", "")
    ]
    assert cuda.unknown == 1


# Providers ----------------------------------------------------------------------------------


def lone(
    operator: str, dtype: int, *, opset: int = 20, inputs: int = 1, **attributes: Any
) -> onnx.ModelProto:
    """A file of one node whose inputs and outputs have one dtype."""
    names = [f"x{index}" for index in range(inputs)]
    return make_model(
        [helper.make_node(operator, names, ["y"], **attributes)],
        [value(name, None, None, 8, 8, dtype=dtype) for name in names],
        [value("y", None, None, None, None, dtype=dtype)],
        opset=opset,
    )


def opens(model: onnx.ModelProto) -> bool | None:
    """Whether a session opens; None where onnxruntime objects to something else."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:
        return False if "NOT_IMPLEMENTED" in str(error) else None
    return True


BFLOAT, DOUBLE, INT64 = TensorProto.BFLOAT16, TensorProto.DOUBLE, TensorProto.INT64
CASES = [
    ("Relu", FLOAT, 20, ""),
    ("Relu", HALF, 20, "cast to float32 and back"),
    ("Relu", BFLOAT, 20, None),
    ("Relu", INT64, 20, None),
    ("Tanh", DOUBLE, 13, ""),
    ("Tan", HALF, 13, "cast to float32 and back"),
    ("Celu", FLOAT, 12, ""),
    ("Mish", FLOAT, 20, "expanded into other operators"),
    ("Mish", BFLOAT, 22, None),
    ("Softsign", DOUBLE, 20, None),
    ("HardSwish", FLOAT, 20, "expanded into other operators"),
    ("Erf", DOUBLE, 20, None),
]


@pytest.mark.parametrize(("operator", "dtype", "opset", "instead"), CASES)
def test_a_cpu_kernel_is_said_to_lack_where_onnxruntime_opens_no_session(
    operator: str, dtype: int, opset: int, instead: str | None, tmp_path: Path
) -> None:
    model = lone(operator, dtype, opset=opset)
    cpu = inspect(model, tmp_path).providers[0]
    hopeless = any(not one.fallback for one in cpu.missing_kernels)
    assert opens(model) is not hopeless
    assert cpu.nodes == cpu.supported + cpu.missing_nodes
    if instead == "":
        assert cpu.missing_kernels == ()
    else:
        assert [one.fallback for one in cpu.missing_kernels] == [instead or ""]


def test_the_kernels_of_the_cpu_are_told_as_onnxruntime_itself_decides(tmp_path: Path) -> None:
    from reportgen.sections.onnx.inspection.graph import typed_nodes
    from reportgen.sections.onnx.inspection.providers import check_providers

    wrong, asked = [], 0
    for schema in onnx.defs.get_all_schemas():
        if schema.domain or schema.min_input != 1 or schema.min_output != 1:
            continue
        for dtype in (FLOAT, HALF, BFLOAT, DOUBLE, INT64):
            model = lone(schema.name, dtype)
            loads = opens(model)
            cpu = check_providers(typed_nodes(model), set())[0]
            if loads is None or cpu.unknown:
                continue
            asked += 1
            if loads is any(not one.fallback for one in cpu.missing_kernels):
                wrong.append((schema.name, dtype))
    assert (wrong, asked > 200) == ([], True)


def cuda_lacking(model: onnx.ModelProto, folder: Path) -> tuple[MissingKernel, ...]:
    return inspect(model, folder).providers[1].missing_kernels


def test_the_cuda_table_tells_dtypes_and_versions_apart(tmp_path: Path) -> None:
    assert cuda_lacking(lone("Relu", FLOAT), tmp_path) == ()
    assert cuda_lacking(lone("Tan", FLOAT), tmp_path)[0].operator == "Tan"  # no kernel at all
    # GlobalMaxPool has kernels for float16 and none for bfloat16, Conv one from opset 22 on
    assert cuda_lacking(lone("GlobalMaxPool", HALF), tmp_path) == ()
    old, new = (lone("Conv", BFLOAT, opset=opset, inputs=2) for opset in (21, 22))
    assert [one.dtypes for one in cuda_lacking(old, tmp_path)] == [("bfloat16",)]
    assert cuda_lacking(new, tmp_path) == ()


def test_a_node_without_a_cuda_kernel_runs_on_the_cpu(tmp_path: Path) -> None:
    on_cpu = cuda_lacking(lone("Tan", FLOAT), tmp_path)
    assert on_cpu[0].fallback == "run on the CPU, with copies between the devices"
    assert cuda_lacking(lone("Mish", FLOAT), tmp_path)[0].fallback.startswith("expanded")


def test_the_cuda_table_names_operators_and_type_parameters_that_onnx_has() -> None:
    schemas = [one for one in onnx.defs.get_all_schemas_with_history() if not one.domain]
    history = {(one.name, one.since_version) for one in schemas}
    known = {
        (one.name, parameter)
        for one in schemas
        for parameter in (
            *(constraint.type_param_str for constraint in one.type_constraints),
            *(value.name for value in (*one.inputs, *one.outputs)),
        )
    }
    foreign = {("LayerNormalization", "V")}  # onnxruntime's own, from before the standard had it
    for name, rows in cuda_rows().items():
        assert list(rows) == sorted(rows, key=lambda row: -row[0]), name
        for first, last, allowed in rows:
            assert (name, first) in history if last is None else first <= last, name
            for slot, dtypes in allowed.items():
                assert (name, slot) in known | foreign, (name, slot)
                assert dtypes <= set(CODES.values()), name


def test_the_cuda_table_says_nothing_of_operators_newer_than_itself(tmp_path: Path) -> None:
    assert opset_release(NEWEST_OPSET + 1)
    cuda = inspect(lone("Mod", FLOAT, opset=28, inputs=2), tmp_path).providers[1]
    assert (cuda.unknown, cuda.missing_kernels) == (1, ())


def test_a_dtype_that_nobody_knows_is_neither_supported_nor_lacking(tmp_path: Path) -> None:
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function(
        "mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)]
    )
    model = make_model(
        [helper.make_node("Twice", ["x"], ["y"], domain="mine")],
        [value("x", 2)],
        [value("y", 2)],
        opsets=[helper.make_opsetid("mine", 1)],
        functions=[function],
    )
    result = inspect(model, tmp_path)
    assert [(one.nodes, one.unknown) for one in result.providers] == [(1, 1), (1, 1)]
    assert result.inventory.local_functions == ("Twice",)


# int8 ---------------------------------------------------------------------------------------


def test_int8_covers_products_and_convolutions_but_not_recurrent_layers(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["s", "h", ""], hidden_size=4),
        helper.make_node("Squeeze", ["h", "axis"], ["v"]),
        helper.make_node("MatMul", ["v", "m"], ["u"]),
        helper.make_node("Erf", ["u"], ["y"]),
    ]
    weights = [weight("w", 1, 16, 3), weight("r", 1, 16, 4), weight("m", 4, 2)]
    axis = numpy_helper.from_array(np.array([0]), "axis")
    int8 = inspect(
        make_model(nodes, [value("x", 5, 2, 3)], [value("y", 2, 2)], [*weights, axis]), tmp_path
    ).int8
    assert (int8.mac_nodes, int8.covered_nodes, int8.weights) == (2, 1, 1)
    assert int8.staying_float == {"Erf": 1, "LSTM": 1}
    assert int8.verdict.startswith("static quantization covers 1 of 2 nodes")
    assert "no calibration was run" in int8.verdict


@pytest.mark.parametrize(
    ("operator", "shape", "axis", "attributes"),
    [
        ("Conv", (6, 3, 3, 3), 0, {}),
        ("ConvTranspose", (3, 6, 3, 3), 1, {}),
        ("MatMul", (8, 6), 1, {}),
        ("Gemm", (8, 6), 1, {}),
        ("Gemm", (6, 8), 0, {"transB": 1}),
    ],
)
def test_the_outlier_ratio_is_that_of_the_output_channels(
    operator: str, shape: tuple[int, ...], axis: int, attributes: dict[str, Any], tmp_path: Path
) -> None:
    array = RANDOM.uniform(-1, 1, shape).astype(np.float32)
    np.moveaxis(array, axis, 0)[2] *= 50
    rows = [np.abs(row).max() for row in np.moveaxis(array, axis, 0)]
    wide = (1, 3, 8, 8) if len(shape) == 4 else (2, 8)
    model = make_model(
        [helper.make_node(operator, ["x", "w"], ["y"], **attributes)],
        [value("x", *wide)],
        [value("y", *(None for _ in wide))],
        [numpy_helper.from_array(array, "w")],
    )
    widest = inspect(model, tmp_path).int8.widest[0]
    assert (widest.channels, widest.operator) == (6, operator)
    assert widest.outlier_ratio == pytest.approx(max(rows) / float(np.median(rows)), rel=1e-6)


def test_a_quantized_file_is_said_to_be_one(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    model = make_model(
        nodes,
        [value("x", 2, 4, dtype=TensorProto.INT8)],
        [value("y", 2, 4, dtype=TensorProto.INT32)],
        [numpy_helper.from_array(np.ones((4, 4), np.int8), "w")],
    )
    result = inspect(model, tmp_path)
    assert (result.int8.quantized_nodes, result.int8.mac_nodes) == (1, 0)
    assert result.int8.verdict == "1 node of the file is quantized already"
    assert result.fp16.verdict == "nothing in the file is wider than float16"


def test_a_file_with_packed_weights_alone_is_said_to_be_quantized(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["wide"], axis=0, block_size=4),
        helper.make_node("MatMul", ["x", "wide"], ["y"]),
    ]
    packed = helper.make_tensor("w", TensorProto.INT4, [8, 4], list(range(-8, 8)) * 2)
    scale = numpy_helper.from_array(np.ones((2, 4), np.float32), "scale")
    model = make_model(nodes, [value("x", 2, 8)], [value("y", 2, 4)], [packed, scale], opset=21)
    found = inspect(model, tmp_path).int8
    assert found.verdict == "1 node of the file is quantized already"


# float16 ------------------------------------------------------------------------------------

EDGES = [
    0.0, BECOMES_ZERO, np.nextafter(np.float32(BECOMES_ZERO), np.float32(1)), 2.0**-24, 5e-5,
    np.nextafter(np.float32(SMALLEST_NORMAL), np.float32(0)), SMALLEST_NORMAL, 1.0, 65504.0,
    np.nextafter(np.float32(BECOMES_INFINITE), np.float32(0)), BECOMES_INFINITE, 1e38, np.inf,
    np.nan,
]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_float16_cannot_hold_is_counted_as_numpy_rounds(dtype: Any, tmp_path: Path) -> None:
    array = np.array([*EDGES, *(-np.array(EDGES))], dtype)
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    finite = np.isfinite(array)
    overflowing = int((np.isinf(half) & finite).sum())
    flushed = int(((half == 0) & (array != 0)).sum())
    small = (np.abs(array) < float(np.finfo(np.float16).smallest_normal)) & (half != 0)
    shape = [len(array)]
    tensor = numpy_helper.from_array(array, "w")
    number = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = make_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", *shape, dtype=number)],
        [value("y", *shape, dtype=number)],
        [tensor],
    )
    fp16 = inspect(model, tmp_path).fp16
    assert (fp16.elements, fp16.overflowing, fp16.flushed) == (len(array), overflowing, flushed)
    assert (overflowing, flushed, fp16.subnormal) == (4, 2, int(small.sum()))
    assert fp16.largest_magnitude == pytest.approx(1e38)
    assert [(one.name, one.overflowing, one.flushed) for one in fp16.tensors] == [("w", 4, 2)]
    assert fp16.verdict.startswith("4 stored values would become infinite")


def test_bfloat16_values_are_wider_than_float16_too(tmp_path: Path) -> None:
    tensor = helper.make_tensor("w", BFLOAT, [3], [1.0, 1e30, 1e-30])
    model = make_model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", 3, dtype=BFLOAT)],
        [value("y", 3, dtype=BFLOAT)],
        [tensor],
    )
    fp16 = inspect(model, tmp_path).fp16
    assert (fp16.elements, fp16.overflowing, fp16.flushed) == (3, 1, 1)


def test_a_sum_is_a_risk_from_the_mean_on_at_which_it_is_infinite(tmp_path: Path) -> None:
    axes = numpy_helper.from_array(np.array([1]), "axes")
    model = make_model(
        [helper.make_node("ReduceSum", ["x", "axes"], ["y"], keepdims=0)],
        [value("x", "batch", 1024)],
        [value("y", "batch")],
        [axes],
    )
    risks = inspect(model, tmp_path).fp16.risks
    assert [(risk.operator, risk.nodes) for risk in risks] == [("ReduceSum", 1)]
    assert risks[0].reason == "infinite once the mean of 1,024 elements passes 64"
    with np.errstate(over="ignore"):
        assert np.isfinite(np.full(1024, 63.9, np.float16).sum(dtype=np.float32).astype(np.float16))
        assert np.isinf(np.float32(64.1 * 1024).astype(np.float16))


def test_a_norm_is_a_risk_only_where_its_statistics_are_kept_in_float16(tmp_path: Path) -> None:
    def risks(**attributes: Any) -> list[str]:
        node = helper.make_node("LayerNormalization", ["x", "s"], ["y"], **attributes)
        model = make_model([node], [value("x", 2, 8)], [value("y", 2, 8)], [weight("s", 8)])
        return [risk.operator for risk in inspect(model, tmp_path).fp16.risks]

    assert risks() == []
    assert risks(stash_type=HALF) == ["LayerNormalization"]


# Places -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scopes", "own", "around"),
    [
        ("['', 'layer1', 'layer1.0', 'layer1.0.bn1', 'conv2d']", "layer1.0.bn1", "layer1.0"),
        ("['', 'fc', 'linear']", "fc", "fc"),
        ("['', 'add']", "", "the model itself"),
        ("['', '_empty_nn_module_stack_from_metadata_hook', 'add']", "", ""),
        ("not a list", "", ""),
    ],
)
def test_a_node_is_placed_by_what_the_exporter_wrote(scopes: str, own: str, around: str) -> None:
    node = helper.make_node("Add", ["a", "b"], ["c"])
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert (module_path(node), enclosing_path(node)) == (own, around)


def test_the_same_file_gives_the_same_details(tmp_path: Path) -> None:
    model = folding_model()
    assert inspect(model, tmp_path) == inspect(model, tmp_path)


def test_a_sequence_without_a_kernel_is_told_by_what_it_holds(tmp_path: Path) -> None:
    parts = helper.make_tensor_sequence_value_info("parts", FLOAT, None)
    nodes = [helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1)]
    (lacking,) = cuda_lacking(make_model(nodes, [value("x", 2, 4)], [parts]), tmp_path)
    assert lacking.dtypes == ("float32", "sequence of float32")


# Files of others ----------------------------------------------------------------------------


def external(folder: Path, location: str) -> FileResult:
    """A model that says its weight lies at `location`."""
    model = make_model(products("w"), [value("x", 2, 4)], [value("y", 2, 4)], [weight("w", 4, 4)])
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="w.data",
              size_threshold=0)  # fmt: skip
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    entry = next(e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    path = folder / "model.onnx"
    return inspect_file(onnx.load(path, load_external_data=False), path).result


def test_hard_linked_weights_are_checked_like_others(tmp_path: Path) -> None:
    result = external(tmp_path, "w.data")
    assert result.invalid == ""
    (tmp_path / "elsewhere").hardlink_to(tmp_path / "w.data")
    assert check_file(tmp_path / "model.onnx") == ""


def test_weights_outside_of_the_folder_are_not_looked_at(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"\xff" * 64)
    (tmp_path / "model").mkdir()
    for location in ("../secret", str(secret)):
        result = external(tmp_path / "model", location)
        assert result.invalid
        assert result.fp16.elements == 0, "no value of it was read"


def test_the_checker_tells_no_folder_of_this_machine(tmp_path: Path) -> None:
    result = external(tmp_path, "gone.data")
    assert "gone.data" in result.invalid
    assert str(tmp_path) not in result.invalid


def test_types_that_are_no_tensors_are_told_and_unknown_ranks_are_no_scalars(
    tmp_path: Path,
) -> None:
    maybe = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, [2, 4]))
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["parts"], axis=1),
        helper.make_node("Optional", ["x"], ["perhaps"]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    outputs = [
        helper.make_tensor_sequence_value_info("parts", FLOAT, None),
        helper.make_value_info("perhaps", maybe),
        helper.make_tensor_value_info("y", FLOAT, None),
    ]
    result = inspect(make_model(nodes, [value("x", 2, 4)], outputs), tmp_path)
    assert [(port.dtype, port.shape) for port in result.outputs] == [
        ("sequence of float32", ("…",)),
        ("optional float32", ("…",)),
        ("float32", ("…",)),
    ]


def test_an_initializer_that_is_an_input_too_is_none_that_must_be_given(tmp_path: Path) -> None:
    inputs = [value("x", 2, 4), value("w", 4, 4)]
    result = inspect(
        make_model(products("w"), inputs, [value("y", 2, 4)], [weight("w", 4, 4)]), tmp_path
    )
    assert [port.name for port in result.inputs] == ["x"]


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            "[ONNXRuntimeError] : 1 : FAIL : Load model from /a/b/f.onnx failed:/on/core/model.cc:2"
            "56 onnxruntime::Model::Model(onnx::ModelProto&&, const PathString&) Unknown model "
            "file format version.",
            "Load model from f.onnx failed:Unknown model file format version.",
        ),
        (
            "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : /x/tensorprotoutils.cc:592 "
            "ValidateExternalDataPath Absolute path not allowed",
            "Absolute path not allowed",
        ),
    ],
)
def test_what_onnxruntime_says_is_told_without_its_own_source(told: str, line: str) -> None:
    assert session_error_text(RuntimeError(told)) == line
