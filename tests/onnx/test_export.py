"""Exporting: the same bytes everywhere, dynamic where asked, and failures explained in words."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
import torch
from factories import make_study
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn

from reportgen.errors import SectionError
from reportgen.onnx.export import OnnxFile, file_writer
from reportgen.onnx.export.file_writer import write_model

Export = Callable[..., OnnxFile]


@pytest.fixture
def export(tmp_path: Path) -> Export:
    """Export a model with inputs as the manifest writes them."""

    def export(model: nn.Module, *inputs: Any, **fields: Any) -> OnnxFile:
        return make_study(model, *inputs, folder=tmp_path, **fields).onnx_file()

    return export


def shapes(file: OnnxFile) -> dict[str, list[int | str]]:
    graph = onnx.load(file.path).graph
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


class Call(nn.Module):
    """A forward of one's own."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(x)


class Keywords(nn.Module):
    def forward(
        self, a: Tensor, *, mask: Tensor, scale: float = 1.0, state: dict[str, Any]
    ) -> dict[str, Any]:
        y = a * mask * scale + state["q"][0]
        return {"y": y, "parts": (a, None, y.sum(1))}


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x + 1
        return x - 1


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.ones(2, 4))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class Decomposed(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


def small_model() -> nn.Module:
    torch.manual_seed(0)
    convolution = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return nn.Sequential(convolution, nn.Linear(288, 5)).eval()


class DynamicCache:
    """What transformers models return with the cache on, by name."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


def test_the_batch_is_dynamic_and_keeps_its_name(export: Export) -> None:
    file = export(nn.Linear(4, 3), "batch,4")
    assert shapes(file) == {"input": ["batch", 4], "output": ["batch", 3]}
    assert (file.dynamic, file.strategy) == (("batch",), "torch.export, dynamic batch")


def test_a_manifest_names_the_inputs_and_every_dynamic_dim(export: Export) -> None:
    file = export(
        nn.Linear(4, 3),
        "tokens=batch,time,4",
        dims={"time": 5},
        onnx={"dynamic": ["batch", "time"]},
    )
    assert shapes(file) == {"tokens": ["batch", "time", 4], "output": ["batch", "time", 3]}
    assert set(file.dynamic) == {"batch", "time"}


def test_keywords_in_any_order_constants_and_nesting_are_exported(export: Export) -> None:
    file = export(
        Keywords(),
        "batch,4",
        {"name": "state", "keyword": True, "fields": {"q": {"items": ["batch,4"]}}},
        {"name": "scale", "keyword": True, "value": {"value": 2.0}},
        {"name": "mask", "keyword": True, "shape": ["batch", 4]},
    )
    assert list(shapes(file)) == ["a", "mask", "state.q.0", "y", "parts.0", "parts.2"]


def test_an_input_named_like_a_parameter_keeps_both_apart(export: Export) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x = nn.Parameter(torch.ones(4))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.x

    onnx.checker.check_model(str(export(Scaled(), "batch,4").path), full_check=True)


def test_outputs_keep_their_keys_though_a_node_an_input_or_a_weight_has_that_name(
    export: Export,
) -> None:
    class Keyed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Any:
            flipped = torch.flip(torch.softmax(x, 0), (1,))
            more = {"mul": x.relu(), "relu": x + 1, "x": x * 2, "scale": x * self.scale}
            return {"softmax": flipped, **more}

    path = export(Keyed(), "x=batch,3").path
    names = ["softmax", "mul", "relu", "output.x", "output.scale"]
    assert [value.name for value in onnx.load(path).graph.output] == names
    onnx.checker.check_model(str(path), full_check=True)
    found = ReferenceEvaluator(str(path)).run(None, {"x": np.ones((2, 3), np.float32) * -1})
    assert [float(array[0, 0]) for array in found] == [0.5, 0.0, 0.0, -2.0, -1.0]


def test_a_fixed_batch_is_exported_static_with_a_warning(export: Export) -> None:
    file = export(FixedBatch(), "batch,4", batch=2)
    assert (file.dynamic, file.asked, file.batch) == ((), ("batch",), 2)
    assert file.warnings == ("batch could not be made dynamic: the model fixes axis 0 of x at 2",)


def test_no_dynamic_dims_asked_is_no_warning(export: Export) -> None:
    file = export(nn.Linear(4, 3), "batch,4", batch=3, onnx={"dynamic": []})
    assert shapes(file)["input"] == [3, 4]
    assert (file.warnings, file.asked, file.batch) == ((), (), 3)


@pytest.mark.parametrize("opset", [17, 21])
def test_the_opset_is_the_manifests(export: Export, opset: int) -> None:
    file = export(nn.Linear(4, 3), "batch,4", onnx={"opset": opset})
    assert onnx.load(file.path).opset_import[0].version == opset


def test_an_opset_the_exporter_cannot_give_is_a_warning(export: Export) -> None:
    file = export(nn.Linear(4, 3), "batch,4", onnx={"opset": 30})
    assert file.warnings[0].startswith("asked for opset 30, the exporter produced")


def test_a_branch_on_values_is_traced_and_named_with_its_line(export: Export) -> None:
    file = export(Branch(), "batch,4")
    line = Branch.forward.__code__.co_firstlineno + 1
    assert f"data-dependent branch at test_export.py:{line}" in file.attempts[0].error
    assert file.strategy == "TorchScript tracing, dynamic batch"
    assert file.fixed_decisions == (f"test_export.py:{line}: if x.sum() > 0:",)


def test_a_branch_that_the_tracer_cannot_export_keeps_its_message(export: Export) -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.svd(x)[1] if x.sum() < 1e9 else x

    with pytest.raises(SectionError) as info:
        export(Untraceable(), "batch,4,4")
    assert info.value.error.startswith("data-dependent branch at test_export.py:")
    assert "torch.where" in info.value.hint
    assert info.value.details[-1].startswith("tried TorchScript tracing, dynamic batch: the tracer")


def test_a_traced_file_declares_inputs_that_its_path_does_not_read(export: Export) -> None:
    class Repeats(nn.Module):
        def forward(self, times: Tensor, x: Tensor) -> dict[str, Tensor]:
            for _ in range(int(times)):
                x = x * 2
            return {"doubled": x}

    times = {"name": "times", "shape": [], "dtype": "int64", "low": 3, "high": 4}
    file = export(Repeats(), times, {"name": "x", "shape": ["batch", 4]})
    assert shapes(file) == {"times": [], "x": ["batch", 4], "doubled": ["batch", 4]}
    session = onnxruntime.InferenceSession(file.path)
    given = {"times": np.array(1), "x": np.ones((5, 4), np.float32)}
    (doubled,) = session.run(["doubled"], given)
    assert doubled.tolist() == [[8.0] * 4] * 5  # three times, as in the example


def test_an_unsupported_operator_is_told_with_its_module(export: Export) -> None:
    with pytest.raises(SectionError) as info:
        export(nn.Sequential(nn.Linear(4, 4), Decomposed()), "batch,4,4")
    assert "unsupported operator aten._linalg_svd.default in 1 at test_export.py" in str(info.value)


def test_a_cache_in_the_output_is_told_to_be_turned_off(export: Export) -> None:
    file = export(Call(lambda x: (x, DynamicCache(x))), "batch,4")
    assert "turn the cache off" in file.warnings[0]
    assert file.strategy == "torch.export, dynamic batch, outputs flattened"


def test_a_model_that_cannot_run_is_reported_as_such(export: Export) -> None:
    with pytest.raises(SectionError, match="the model's forward pass fails: expected 3 ") as info:
        export(nn.Linear(3, 3), "batch,4")
    assert "inputs" in info.value.hint
    assert info.value.details == ()


def test_a_model_of_one_batch_fails_at_the_batch_that_was_tried(export: Export) -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.state = nn.GRUCell(4, 5), torch.zeros(3, 5)

        def forward(self, x: Tensor) -> Any:
            return self.cell(x, self.state)

    file = export(Remembers(), "batch,4", batch=3)
    assert (file.batch, file.dynamic) == (3, ())
    assert file.warnings[0].startswith(
        "batch could not be made dynamic: the model's forward pass fails at batch 2: cell: "
    )
    assert "test_export.py" in file.warnings[0]


@pytest.mark.parametrize(
    ("model", "shape"),
    [(Decomposed(), "batch,4,4"), (nn.Linear(3, 3), "batch,4")],
    ids=["operator", "shapes"],
)
def test_a_failure_is_one_line_without_paths_and_leaves_no_file(
    export: Export, tmp_path: Path, model: nn.Module, shape: str
) -> None:
    with pytest.raises(SectionError) as info:
        export(model, shape)
    words = info.value.error + info.value.hint
    assert "\n" not in words
    assert "/" not in words.replace("and/or", "")
    assert len(words) < 500
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_exporter_says_nothing_of_its_own(
    export: Export, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    logging.getLogger("torch.onnx").warning("not info, to see that capfd works")
    before = capfd.readouterr()
    export(nn.LSTM(4, 4, batch_first=True), "batch,5,4", onnx={"opset": 16})
    assert capfd.readouterr() == ("", "")
    assert before.err != ""
    assert [str(w.message) for w in recwarn if "onnx" in str(w.filename)] == []
    assert logging.root.manager.disable == logging.NOTSET


def test_fused_attention_is_exported_and_its_switch_put_back(export: Export) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    with torch.no_grad():
        file = export(nn.TransformerEncoder(layer, 1), "batch,5,8")
    assert torch.backends.mha.get_fastpath_enabled()
    assert "MatMul" in {node.op_type for node in onnx.load(file.path).graph.node}


def test_the_file_tells_module_paths_but_nothing_of_this_machine(export: Export) -> None:
    file = export(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), "batch,4")
    model = onnx.load(file.path)
    scopes = [
        entry.value
        for node in model.graph.node
        for entry in node.metadata_props
        if entry.key == "pkg.torch.onnx.name_scopes"
    ]
    assert any("'1'" in scope for scope in scopes)
    content = file.path.read_bytes()
    for needle in (b"stack_trace", b"site-packages", str(Path(__file__).parent).encode()):
        assert needle not in content


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(export: Export, tmp_path: Path) -> None:
    code = textwrap.dedent(f"""
        import pathlib, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_export import make_study, small_model
        make_study(small_model(), "batch,3,8,8", folder=pathlib.Path(sys.argv[1])).onnx_file()
    """)
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "other" / "folder")],
        check=True,
        env={"PYTHONHASHSEED": "1", "PATH": "", "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    other = tmp_path / "other" / "folder" / "model.onnx"
    export(nn.Linear(4, 4), "batch,4")  # whatever was exported before must not show
    assert export(small_model(), "batch,3,8,8").path.read_bytes() == other.read_bytes()


def test_streamed_weights_are_those_of_the_library_that_writes_them_at_once(
    export: Export, tmp_path: Path
) -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8).half().float(), nn.Embedding(9, 50))
    file = export(nn.Sequential(*model[:2]), "batch,64")
    whole = onnx_ir.load(file.path)
    onnx_ir.save(whole, tmp_path / "again.onnx")
    mine, other = onnx.load(file.path), onnx.load(tmp_path / "again.onnx")
    by_name = {tensor.name: tensor for tensor in other.graph.initializer}
    assert len(by_name) == len(mine.graph.initializer) == 4
    for tensor in mine.graph.initializer:
        assert tensor.SerializeToString() == by_name[tensor.name].SerializeToString()
        state = model.state_dict()[tensor.name]
        assert (onnx.numpy_helper.to_array(tensor) == state.numpy()).all()


def test_weights_beyond_the_limit_go_to_a_file_beside(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_writer, "_LARGEST_FILE", 1000)
    file = export(nn.Linear(64, 64), "batch,64")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    onnx.checker.check_model(str(file.path), full_check=True)
    assert onnx.load(file.path).graph.initializer[0].raw_data


def test_a_weight_that_is_not_contiguous_is_written_in_the_order_of_its_elements(
    tmp_path: Path,
) -> None:
    weight = np.arange(64 * 32, dtype=np.float32).reshape(64, 32).T
    model = onnx_ir.from_onnx_text(
        '<ir_version: 10, opset_import: ["": 18]> '
        "net (float[1, 32] x, float[32, 64] w) => (float[1, 64] y) { y = MatMul (x, w) }"
    )
    value = model.graph.inputs.pop()
    value.const_value = onnx_ir.tensor(weight, name="w")
    model.graph.register_initializer(value)
    stored = onnx.load(write_model(model, tmp_path / "model.onnx")).graph.initializer[0]
    assert (onnx.numpy_helper.to_array(stored) == weight).all()


def test_a_file_that_cannot_be_finished_leaves_the_old_one(
    export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = export(nn.Linear(64, 64), "batch,64")
    before = file.path.read_bytes()
    monkeypatch.setattr(file_writer, "_write_exactly", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_model(onnx_ir.load(file.path), file.path)
    assert file.path.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
