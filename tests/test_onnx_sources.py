"""ONNX files as sources: examined whole without a PyTorch module, or refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from one_process import build_here
from onnx import TensorProto, helper, numpy_helper

from reportgen import load_manifest
from reportgen.cuda_memory.step import Step
from reportgen.dummy_inputs.manifest_template import manifest_for_source
from reportgen.errors import ManifestError, ModelError, ReportgenError
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.report import report_schema
from reportgen.sections import SECTIONS
from reportgen.sections.memory.estimation import estimate_step
from reportgen.sources.from_onnx import read_onnx_source, with_file_inputs


def classifier(folder: Path, name: str = "words.onnx") -> Path:
    """Ids -> embedding (20 x 6) -> Gemm (6 x 3); 138 weights, 18 multiply-adds a word."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["e"], name="/embedding/Gather"),
            helper.make_node("MatMul", ["e", "w"], ["y"], name="/head/linear/MatMul"),
        ],
        "graph",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", "sequence"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(rng.normal(size=(20, 6)).astype(np.float32), "table"),
            numpy_helper.from_array(rng.normal(size=(6, 3)).astype(np.float32), "w"),
        ],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / name)
    return folder / name


def built(folder: Path, text: str, **options: Any) -> Any:
    manifest = folder / "m.yaml"
    manifest.write_text(text)
    build_here(load_manifest(manifest), output=folder / "out", **options)
    data = json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))
    jsonschema.validate(data, report_schema(SECTIONS))
    return data["models"][0]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("words")
    classifier(folder)
    text = "version: 1\ntitle: t\nmodels: [{name: words, source: words.onnx, batch: 4}]\n"
    return built(folder, text, formats=("html", "json", "md"))


@pytest.mark.slow
def test_a_file_is_counted_by_its_nodes(words: Any) -> None:
    layers = words["sections"]["layers"]["result"]
    assert layers["parameters"] == 20 * 6 + 6 * 3
    assert layers["macs"] == 4 * 16 * 6 * 3
    assert layers["input_shapes"] == {"ids": [4, 16]}
    assert layers["output_shapes"] == {"y": [4, 16, 3]}
    assert [layer["path"] for layer in layers["layers"] if layer["macs"]] == [
        "", "head", "head.linear", "head.linear.head_linear_MatMul",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_file_itself_is_examined_and_timed(words: Any) -> None:
    onnx_section = words["sections"]["onnx"]
    assert onnx_section["status"] == "done"
    result = onnx_section["result"]
    assert (result["file"]["opset"], result["file"]["nodes"]) == (18, 2)
    assert result["parity"]["passed"] is None
    assert "no PyTorch module" in result["parity"]["not_run"]
    assert result["performance"]["latency_ms"]["batch"] == 4
    assert words["weights"] == "words.onnx"


@pytest.mark.slow
def test_sections_that_need_a_module_are_skipped(words: Any) -> None:
    for name in ("memory", "training", "behavior"):
        section = words["sections"][name]
        assert section["status"] == "skipped", name
    assert "no PyTorch module" in words["sections"]["memory"]["reason"]
    graphs = words["sections"]["graphs"]["result"]
    assert graphs["onnx"]["nodes"] > 0
    assert graphs["modules"]["svg"] is None


@pytest.mark.slow
def test_the_source_file_is_not_modified(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    before = path.read_bytes()
    text = "version: 1\ntitle: t\nmodels: [{name: words, source: words.onnx}]\n"
    built(tmp_path, text, formats=("json",), timings=False)
    assert path.read_bytes() == before


def test_ids_are_below_the_size_of_the_embedding(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    spec = ModelSpec(name="m", source=parse_source("words.onnx", tmp_path))
    [ids] = with_file_inputs(spec, read_onnx_source(path)).inputs
    assert ids == InputSpec(
        name="ids", shape=("batch", "sequence"), dtype="int64", high=20
    ).model_copy(update={})


def test_dims_of_the_manifest_set_the_sizes_of_dynamic_dims(tmp_path: Path) -> None:
    path = classifier(tmp_path)
    source = parse_source("words.onnx", tmp_path)
    spec = ModelSpec.model_construct(name="m", source=source, dims={"sequence": 5}, batch=2)
    assert with_file_inputs(spec, read_onnx_source(path)).dims == {"sequence": 5}


def one_node(folder: Path, operator: str, kind: Any, elements: int, **attributes: Any) -> Any:
    """The report of a file of one node between `x` and `y`, beside a MatMul of 4 x 5 weights."""
    made = helper.make_tensor_value_info("y", elements, None)
    graph = helper.make_graph(
        [
            helper.make_node(operator, ["x"], ["y"], **attributes),
            helper.make_node("MatMul", ["features", "w"], ["out"]),
        ],
        "graph",
        [
            helper.make_value_info("x", kind),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", 4]),
        ],
        [made, helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((4, 5), np.float32), "w")],
    )
    opsets = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), folder / "m.onnx")
    text = "version: 1\ntitle: t\nmodels: [{name: m, source: m.onnx, batch: 3}]\n"
    return built(folder, text, formats=("html", "json"))["sections"]


def tensor_type(elements: int) -> Any:
    return helper.make_tensor_type_proto(elements, ["N", 1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operator", "kind", "elements", "attributes", "reason"),
    [
        ("Identity", tensor_type(TensorProto.STRING), TensorProto.STRING, {}, ""),
        ("Cast", tensor_type(TensorProto.UINT16), TensorProto.FLOAT,
         {"to": TensorProto.FLOAT}, ""),
        ("Cast", tensor_type(TensorProto.BFLOAT16), TensorProto.FLOAT,
         {"to": TensorProto.FLOAT}, "no bfloat16 arrays"),
        ("Cast", tensor_type(TensorProto.FLOAT8E4M3FN), TensorProto.FLOAT,
         {"to": TensorProto.FLOAT}, "x (float8e4m3fn)"),
        ("SequenceLength", helper.make_sequence_type_proto(tensor_type(TensorProto.FLOAT)),
         TensorProto.INT64, {}, "x (sequence of float32)"),
        ("OptionalHasElement", helper.make_optional_type_proto(tensor_type(TensorProto.FLOAT)),
         TensorProto.BOOL, {}, "x (optional float32)"),
    ],
)  # fmt: skip
def test_inputs_of_every_type_leave_a_report(
    tmp_path: Path, operator: str, kind: Any, elements: int, attributes: Any, reason: str
) -> None:
    """What can be fed is run; what cannot is described, with the reason why it was not run."""
    sections = one_node(tmp_path, operator, kind, elements, **attributes)
    assert sections["layers"]["result"]["macs"] == 3 * 4 * 5
    found = sections["onnx"]["result"]
    assert (found["performance"] is None) == bool(reason)
    assert reason in found["parity"]["not_run"]


def test_a_fixed_first_dimension_is_the_batch(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 3])],
    )
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    spec = ModelSpec(name="m", source=parse_source("m.onnx", tmp_path), batch=2)
    assert with_file_inputs(spec, read_onnx_source(tmp_path / "m.onnx")).batch == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"garbage \xff", "is a text file; expected an ONNX model"),
        (b"\x00" * 64, "cannot be read as an ONNX model"),
    ],
)
def test_an_invalid_onnx_file_gives_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    text = "version: 1\ntitle: t\nmodels: [{name: m, source: m.onnx}]\n"
    with pytest.raises(ModelError, match=rf"m\.onnx {words}"):
        built(tmp_path, text, formats=("json",))
    assert not (tmp_path / "out").exists()


def test_the_manifest_of_a_file_with_string_inputs(tmp_path: Path) -> None:
    texts = helper.make_tensor_value_info("s", TensorProto.STRING, [2])
    graph = helper.make_graph([helper.make_node("Identity", ["s"], ["y"])], "g", [texts], [texts])
    onnx.save(helper.make_model(graph), tmp_path / "texts.onnx")
    assert "the inputs are declared in the file" in manifest_for_source(
        str(tmp_path / "texts.onnx")
    )


@pytest.mark.slow
def test_too_few_inputs_are_an_error(tmp_path: Path) -> None:
    classifier(tmp_path)
    text = (
        "version: 1\ntitle: t\nmodels:\n  - name: m\n    source: words.onnx\n"
        "    inputs: [{value: 3}]\n"
    )
    with pytest.raises(ModelError, match="the file has 1 inputs, the manifest specifies 0"):
        built(tmp_path, text, formats=("json",))


@pytest.mark.slow
def test_an_unknown_dim_is_an_error_with_the_dims_of_the_file(tmp_path: Path) -> None:
    classifier(tmp_path)
    text = "version: 1\ntitle: t\nmodels: [{name: m, source: words.onnx, dims: {sequense: 4}}]\n"
    with pytest.raises(ModelError, match="the file has no dynamic dim 'sequense'") as caught:
        built(tmp_path, text, formats=("json",))
    assert "sequence" in caught.value.hint


def test_arguments_and_weights_do_not_apply_to_a_file(tmp_path: Path) -> None:
    classifier(tmp_path)
    (tmp_path / "w.safetensors").write_bytes(b"")
    text = (
        "version: 1\ntitle: t\nmodels:\n  - name: m\n    source: words.onnx\n"
        "    arguments: {width: 3}\n    weights: w.safetensors\n"
    )
    with pytest.raises(ManifestError) as caught:
        built(tmp_path, text, formats=("json",))
    reason = "does not apply to 'words.onnx', a file that contains the model"
    assert str(caught.value).count(reason) == 2


def test_an_estimate_of_an_onnx_file_is_an_error_with_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ReportgenError, match=r"'words\.onnx' is not a PyTorch module"):
        estimate_step("words.onnx", (), batch=1, step=Step(), gpus=())


def with_mystery(folder: Path, *, product: bool) -> Path:
    """An operator of a runtime of its own, with or without 5 x 3 multiply-adds a sample before."""
    nodes = [helper.make_node("Mystery", ["h" if product else "x"], ["y"], domain="com.acme")]
    if product:
        nodes.insert(0, helper.make_node("MatMul", ["x", "w"], ["h"]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones((5, 3), np.float32), "w")] if product else [],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), folder / "m.onnx")
    return folder / "m.onnx"


@pytest.mark.parametrize(
    ("product", "value", "text"), [(True, 15, "≥ 15"), (False, None, "unknown")]
)
def test_a_cost_that_is_a_lower_bound_or_unknown_is_marked_wherever_it_appears(
    tmp_path: Path, product: bool, value: int | None, text: str
) -> None:
    with_mystery(tmp_path, product=product)
    data = built(
        tmp_path,
        "version: 1\ntitle: T\nbudgets: {macs: 1k}\nmodels: [{name: m, source: m.onnx}]\n",
        formats=("html", "json", "md"),
    )
    metrics = {metric["key"]: metric for metric in data["metrics"]}
    for key in ("layers.macs_per_sample", "layers.macs"):
        assert (metrics[key]["value"], metrics[key]["lower_bound"]) == (value, True)
    assert not metrics["layers.parameters"]["lower_bound"]
    assert data["budgets"][0]["passed"] is False  # at least 15 does not prove at most 1,000
    result = data["sections"]["layers"]["result"]
    assert [(row["type"], row["lower_bound"]) for row in result["layers"]][-1][1]
    out = tmp_path / "out"
    assert f" {text} |" in (out / "summary.md").read_text(encoding="utf-8")
    assert f"multiply-adds {text}\n" in (out / "models/m/summary.txt").read_text(encoding="utf-8")
    for page in (out / "index.html", out / "models/m/index.html"):
        assert f">{text}<" in page.read_text(encoding="utf-8")


def dims_of(folder: Path, inputs: dict[str, list[Any]], **given: int) -> ModelSpec:
    """The spec of a file with float inputs of these dims, for these `dims` in the manifest."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in inputs.items()]
    made = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    nodes = [helper.make_node("Identity", [next(iter(inputs))], ["out"])]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", values, [made])), folder / "d.onnx")
    source = parse_source("d.onnx", folder)
    spec = ModelSpec.model_construct(name="m", source=source, dims=given, batch=2)
    return with_file_inputs(spec, read_onnx_source(folder / "d.onnx"))


MEANINGS: dict[str, tuple[dict[str, list[Any]], list[tuple[Any, ...]], dict[str, int]]] = {
    "sequence first": (
        {"x": ["seq", "batch", 5], "h0": [1, "batch", 6]},
        [("seq", "batch", 5), (1, "batch", 6)], {"seq": 16},
    ),
    "sequence first in letters": ({"x": ["L", "N", 5]}, [("L", "batch", 5)], {"L": 16}),
    "batch in letters": ({"x": ["N", "T", 5]}, [("batch", "T", 5)], {"T": 16}),
    "points": ({"x": ["B", "N", 3]}, [("batch", "N", 3)], {"N": 16}),
    "points of one cloud": ({"x": [1, "N", 3]}, [(1, "N", 3)], {"N": 16}),
    "no names": ({"x": [None, None, 5]}, [("batch", "x_1", 5)], {"x_1": 16}),
    "names of an exporter": ({"x": ["s77", "s53"]}, [("batch", "s53")], {"s53": 16}),
    "a neutral name": ({"x": ["users", 5]}, [("batch", 5)], {}),
    "a graph": (
        {"x": ["num_nodes", 8], "e": [2, "num_edges"]}, [("num_nodes", 8), (2, "num_edges")],
        {"num_nodes": 16, "num_edges": 16},
    ),
    "boxes of a batch": (
        {"x": ["batch_size", 3, 64, 64], "r": ["num_rois", 4]},
        [("batch", 3, 64, 64), ("num_rois", 4)], {"num_rois": 16},
    ),
    "channels last": (
        {"x": ["N", "h1", "w1", 3]}, [("batch", "h1", "w1", 3)], {"h1": 224, "w1": 224},
    ),
    "channels last without names": (
        {"x": [None, None, None, 1]}, [("batch", "x_1", "x_2", 1)], {"x_1": 224, "x_2": 224},
    ),
    "channels first": (
        {"x": ["N", 3, "H", "W"]}, [("batch", 3, "H", "W")], {"H": 224, "W": 224},
    ),
    "a picture without batch": (
        {"x": ["height", "width", 3]}, [("height", "width", 3)], {"height": 224, "width": 224},
    ),
    "keys of an attention": (
        {"m": ["batch", "past + 1"], "k": ["batch", 2, "past", 8]},
        [("batch", "m_1"), ("batch", 2, "past", 8)], {"m_1": 17, "past": 16},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MEANINGS)
def test_the_names_of_dims_say_what_they_are(tmp_path: Path, case: str) -> None:
    inputs, shapes, dims = MEANINGS[case]
    spec = dims_of(tmp_path, inputs)
    assert [item.shape for item in spec.inputs] == shapes
    assert spec.dims == dims


def test_dims_of_the_manifest_may_name_any_dynamic_dim_of_the_file(tmp_path: Path) -> None:
    first = dims_of(tmp_path, {"x": ["seq", "batch_size", 5]}, seq=10, batch_size=3)
    assert (first.dims, first.batch) == ({"seq": 10}, 3)
    users = dims_of(tmp_path, {"x": ["users", 5]}, users=7)  # by name, so not the batch
    assert (users.dims, users.batch, users.inputs[0].shape) == ({"users": 7}, 1, ("users", 5))
    keys = {"m": ["batch", "past + 1"], "k": ["batch", 2, "past", 8]}
    assert dims_of(tmp_path, keys, past=9).dims == {"m_1": 10, "past": 9}
