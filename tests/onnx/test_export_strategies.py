"""Strategies of exporting: tried in order, named, and undone; dims that are proven."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from factories import make_spec, make_study
from torch import Tensor, nn
from torch.distributions import Normal

from reportgen.context import ModelContext
from reportgen.errors import SectionError
from reportgen.model_state import preserve_model_state
from reportgen.onnx import export as export_module
from reportgen.onnx.export import OnnxFile, export_onnx
from reportgen.onnx.export.model_patches import patched
from reportgen.sections.onnx import analyze
from reportgen.sections.onnx.rules_export import dim_fixed_inside
from reportgen.workers.child import with_lazy_layers_materialized

pytestmark = pytest.mark.slow  # they export, trace or load models, one after the other

IDS = {"name": "input_ids", "shape": ["batch", 16], "dtype": "int64", "high": 100}
TIMED_IDS = {**IDS, "shape": ["batch", "time"]}


@dataclasses.dataclass
class Answer:
    mean: Tensor
    parts: list[Tensor]
    name: str = "answer"


class Answering(nn.Module):
    def __init__(self, answer: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)
        self._answer = answer

    def forward(self, x: Tensor) -> Any:
        return self._answer(self.inner(x))


class Memory:
    """A class of somebody's own that holds a result."""

    def __init__(self, value: Tensor) -> None:
        self.value = value


class Configured(nn.Module):
    """Reads its settings at run time, as transformers' models do."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**settings)
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        y = self.linear(x)
        if (
            torch.compiler.is_exporting()
            and vars(self.config).get("_attn_implementation") == "sdpa"
        ):
            raise RuntimeError("this kernel cannot be traced")
        return (y, {Memory(y)}) if vars(self.config).get("use_cache") else y


class RefusesTraining(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout()

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting() and self.dropout.training:
            raise RuntimeError("only traced for inference")
        return self.dropout(x) + 1


def export(model: nn.Module, folder: Path, *inputs: Any, **fields: Any) -> OnnxFile:
    with preserve_model_state(model):
        return export_onnx(model, make_spec(*inputs, **fields), folder)


def names_of(path: Path) -> list[str]:
    return [value.name for value in onnx.load(path).graph.output]


def llama(**fields: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**small, **fields})).eval()


@pytest.mark.slow
def test_a_tied_llama_with_its_cache_on_is_exported_without_and_parity_passes(
    tmp_path: Path,
) -> None:
    model = llama()
    context = make_study(model, IDS, folder=tmp_path, batch=2, timings=False)
    with preserve_model_state(model):
        result = analyze(context)
    assert result.parity.passed
    assert [attempt.strategy for attempt in result.export.attempts] == [
        "torch.export, dynamic batch",
        "torch.export, dynamic batch, cache off",
    ]
    assert "turn the cache off" in result.export.attempts[0].error
    assert result.export.attempts[1].error == ""
    assert model.config.use_cache is True
    assert len(result.file.outputs) == 1


@pytest.mark.slow
def test_every_dynamic_dim_of_a_llama_is_proven_by_running_other_sizes(tmp_path: Path) -> None:
    context = make_study(
        llama(),
        TIMED_IDS,
        folder=tmp_path,
        batch=2,
        timings=False,
        dims={"time": 16},
        onnx={"dynamic": ["batch", "time"]},
    )
    result = analyze(context)
    assert result.parity.passed
    assert result.export.dynamic == result.export.proven_dynamic == ("batch", "time")


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lambda y: Answer(mean=y, parts=[y + 1, y * 2]), ["mean", "parts.0", "parts.1"]),
        (lambda y: Normal(y, y.exp()), ["loc", "scale"]),
        (lambda y: {"a": Memory(y), "b": None}, ["a.value"]),
    ],
    ids=["dataclass", "distribution", "class of one's own"],
)
def test_outputs_that_the_exporter_cannot_look_into_are_flattened(
    tmp_path: Path, answer: Callable[[Tensor], Any], names: list[str]
) -> None:
    model = Answering(answer).eval()
    file = export(model, tmp_path, "batch,4")
    assert file.strategy == "torch.export, dynamic batch, outputs flattened"
    assert names_of(file.path) == names
    assert not model._forward_hooks
    content = onnx.load(file.path)
    assert {tensor.name for tensor in content.graph.initializer} >= {"inner.bias"}
    scopes = [p.value for n in content.graph.node for p in n.metadata_props if "scopes" in p.key]
    assert any("'inner'" in scope for scope in scopes)


def test_what_flattening_leaves_out_is_named(tmp_path: Path) -> None:
    file = export(Answering(lambda y: (y, {y.sum()})).eval(), tmp_path, "batch,4")
    assert (
        file.warnings[-1] == "left out of the file, because they contain no reachable tensor: set"
    )


def test_an_output_without_any_tensor_is_a_failure_that_names_its_class(tmp_path: Path) -> None:
    with pytest.raises(SectionError, match="the model returns a set, which the exporter cannot"):
        export(Answering(lambda y: {y}).eval(), tmp_path, "batch,4")


def test_the_cache_is_turned_off_for_the_export_and_the_comparison_alone(tmp_path: Path) -> None:
    model = Configured(use_cache=True).eval()
    file = export(model, tmp_path, "batch,4")
    assert file.model_patches == ("cache off",)
    assert file.warnings[-1] == "exported and compared with the cache off (use_cache=False)"
    assert model.config.use_cache is True
    with file.apply_patches(model):
        assert isinstance(model(torch.ones(1, 4)), Tensor)
    assert model.config.use_cache is True


def test_attention_is_exported_in_its_plain_form_where_the_fused_one_fails(tmp_path: Path) -> None:
    model = Configured(_attn_implementation="sdpa").eval()
    file = export(model, tmp_path, "batch,4")
    assert [attempt.strategy for attempt in file.attempts] == [
        "torch.export, dynamic batch",
        "torch.export, strict, dynamic batch",
        "torch.export, dynamic batch, eager attention",
    ]
    assert "this kernel cannot be traced" in file.attempts[0].error
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.slow
def test_a_mixture_of_experts_is_exported_by_a_batched_product(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.OlmoeConfig(
        vocab_size=100, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2,
        max_position_embeddings=64, eos_token_id=1,
    )  # fmt: skip
    model = transformers.OlmoeForCausalLM(config).eval()
    result = analyze(make_study(model, IDS, folder=tmp_path, timings=False))
    assert result.export.model_patches == ("cache off", "batched experts")
    assert (result.parity.passed, result.parity.vacuous) == (True, False)
    assert config._experts_implementation == "grouped_mm"


def test_configurations_within_another_get_their_own_values_back() -> None:
    class Outer(SimpleNamespace):
        """Hands its setting on, as transformers' configurations do."""

        def __setattr__(self, name: str, value: object) -> None:
            super().__setattr__(name, value)
            setattr(self.inner, name, value)

    inner = SimpleNamespace(use_cache=False, _experts_implementation="eager")
    outer = Outer.__new__(Outer)
    vars(outer).update(inner=inner, use_cache=False, _experts_implementation="grouped_mm")
    model = Configured()
    model.config = outer
    with patched(model, ("batched experts",)):
        assert {c._experts_implementation for c in (outer, inner)} == {"batched_mm"}
    assert (outer._experts_implementation, inner._experts_implementation) == ("grouped_mm", "eager")


def test_a_module_left_in_train_mode_is_exported_in_eval_mode_where_it_must(tmp_path: Path) -> None:
    model = RefusesTraining().train()
    file = export(model, tmp_path, "batch,4")
    assert file.model_patches == ("eval mode",)
    assert model.training
    assert model.dropout.training


def test_strict_capture_is_named_where_it_alone_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = export_module.capture

    def only_strict(*args: Any, strict: bool) -> Any:
        if not strict:
            raise RuntimeError("not this way")
        return capture(*args, strict=strict)

    monkeypatch.setattr(export_module, "capture", only_strict)
    file = export(nn.Linear(4, 3).eval(), tmp_path, "batch,4")
    assert file.strategy == "torch.export, strict, dynamic batch"
    assert file.attempts[0].error.endswith("RuntimeError: not this way")


def test_dims_are_given_up_one_by_one_and_the_reason_stays(tmp_path: Path) -> None:
    class FixedTime(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.offset = nn.Parameter(torch.ones(5, 4))

        def forward(self, x: Tensor) -> Tensor:
            return x + self.offset

    file = export(
        FixedTime(),
        tmp_path,
        "x=batch,time,4",
        dims={"time": 5},
        onnx={"dynamic": ["batch", "time"]},
    )
    assert [attempt.strategy for attempt in file.attempts] == [
        "torch.export, dynamic batch and time",
        "torch.export, dynamic batch",
    ]
    assert file.warnings == ("time could not be made dynamic: the model fixes axis 1 of x at 5",)


def test_a_failure_of_every_strategy_lists_what_was_tried(tmp_path: Path) -> None:
    class Untraceable(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if torch.compiler.is_exporting():
                raise RuntimeError("not for export")
            return x

    with pytest.raises(SectionError) as told:
        export(Untraceable().eval(), tmp_path, "batch,4")
    assert [line.split(":")[0] for line in told.value.details] == [
        "tried torch.export, dynamic batch",
        "tried torch.export, strict, dynamic batch",
        "tried torch.export, all dimensions fixed",
        "tried torch.export, strict, all dimensions fixed",
    ]
    assert told.value.details[-1].endswith(": the same")


def test_a_dim_that_is_dynamic_in_name_only_fails_by_its_name(tmp_path: Path) -> None:
    class Positional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    context = make_study(
        Positional(),
        "x=batch,time",
        folder=tmp_path,
        timings=False,
        dims={"time": 6},
        onnx={"dynamic": ["batch", "time"]},
    )
    bake_a_size_into(context.onnx_file().path, 6)
    hits = list(dim_fixed_inside.check(analyze(context)))
    assert [hit.where for hit in hits] == ["time"]
    assert hits[0].message.startswith("time is declared dynamic, but at time 5 the file fails")


def bake_a_size_into(path: Path, size: int) -> None:
    """Put `Reshape(x, [-1, size])` before the file's nodes, as a careless exporter might."""
    model = onnx.load(path)
    shape = onnx.numpy_helper.from_array(np.array([-1, size]), "baked")
    model.graph.initializer.append(shape)
    for node in model.graph.node:
        node.input[:] = ["reshaped" if name == "x" else name for name in node.input]
    reshape = onnx.helper.make_node("Reshape", ["x", "baked"], ["reshaped"])
    model.graph.node.insert(0, reshape)
    onnx.save(model, path)


def test_a_good_file_has_no_dim_that_is_dynamic_in_name_only(tmp_path: Path) -> None:
    context = make_study(nn.Linear(4, 3), "batch,4", folder=tmp_path, timings=False)
    assert list(dim_fixed_inside.check(analyze(context))) == []


def test_a_lazy_model_has_the_same_weights_in_the_file_and_beside_it(tmp_path: Path) -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.Flatten(), nn.LazyLinear(10)).eval()
    context = with_lazy_layers_materialized(
        make_study(model, "batch,3,8,8", folder=tmp_path, timings=False)
    )
    with preserve_model_state(context.model):
        assert analyze(context).parity.passed
    assert sum(parameter.numel() for parameter in context.model.parameters()) == 3_114


# Prepared for the exporter --------------------------------------------------------------------


@pytest.mark.parametrize("constant", ["hello", 3, 2.5, True, None])
def test_constants_among_the_outputs_are_left_out_of_the_file(
    constant: Any, tmp_path: Path
) -> None:
    model = Answering(lambda y: {"note": constant, "a": y, "b": [constant, y + 1]})
    file = export(model, tmp_path, "batch,4")
    assert file.strategy == "torch.export, dynamic batch"
    assert [value.name for value in onnx.load(file.path).graph.output] == ["a", "b.1"]


class Attending(nn.Module):
    """Attention over three dimensions, with a mask that has as many, or none."""

    def __init__(self, *, masked: bool, keyword: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self._masked, self._keyword = masked, keyword

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        mask = (y @ y.mT) > 0 if self._masked else None
        attend = nn.functional.scaled_dot_product_attention
        z = attend(y, y, y, attn_mask=mask) if self._keyword else attend(y, y, y, mask)
        return z + y.abs().mean()


@pytest.mark.parametrize(("masked", "keyword"), [(False, True), (True, True), (True, False)])
def test_fused_attention_without_heads_is_exported(
    masked: bool, keyword: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = Attending(masked=masked, keyword=keyword)
    context = make_study(model, "batch,5,4", folder=tmp_path, timings=False)
    result = analyze(context)
    assert result.parity.passed
    assert result.export.strategy == "torch.export, dynamic batch"


@pytest.mark.parametrize("shape", ["batch,2,3,5,4", "3,batch,2,2,5,4"])
def test_fused_attention_over_windows_is_exported(shape: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    context = make_study(Attending(masked=False), shape, folder=tmp_path, timings=False)
    result = analyze(context)
    assert (result.parity.passed, result.export.dynamic) == (True, ("batch",))


# Structure only -----------------------------------------------------------------------------


def weightless_study(folder: Path) -> ModelContext:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return make_study(model, "batch,8", folder=folder, timings=False)


def test_a_model_without_weights_is_exported_as_a_structure_and_given_back(tmp_path: Path) -> None:
    context = weightless_study(tmp_path)
    file = context.onnx_file()
    assert file.structure_only
    assert file.strategy == "torch.export, dynamic batch, structure only"
    assert "structure only" in file.warnings[0]
    assert {parameter.device.type for parameter in context.model.parameters()} == {"meta"}
    assert [type(parameter) for parameter in context.model.parameters()] == [nn.Parameter] * 6
    onnx.checker.check_model(str(file.path), full_check=True)


def test_a_structure_only_file_computes_the_model_when_it_is_given_the_weights(
    tmp_path: Path,
) -> None:
    file = weightless_study(tmp_path).onnx_file()
    real = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)).eval()
    x = torch.randn(3, 8)
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    wanted = [value.name for value in session.get_inputs()]
    feed = {"input": x, **real.state_dict()}
    (found,) = session.run(None, {name: feed[name].numpy() for name in wanted})
    np.testing.assert_allclose(found, real(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_tied_weights_without_memory_are_one_input(tmp_path: Path) -> None:
    with torch.device("meta"):
        first = nn.Linear(4, 4, bias=False)
        model = nn.Sequential(first, nn.ReLU(), first)
    file = make_study(model, "batch,4", folder=tmp_path).onnx_file()
    assert len(onnx.load(file.path).graph.input) == 2


def test_a_structure_only_file_is_neither_compared_nor_timed(tmp_path: Path) -> None:
    context = dataclasses.replace(weightless_study(tmp_path), timings=True)
    result = analyze(context)
    assert result.export.structure_only
    assert result.parity.passed is None
    assert "structure" in result.parity.not_run
    assert result.performance is None
    assert [port.name for port in result.file.inputs] == ["input"]


def test_a_model_too_large_to_export_with_its_weights_is_exported_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    translate = export_module.translate

    def without_room(program: Any, opset: int, *, optimize: bool) -> Any:
        if optimize:
            raise MemoryError
        return translate(program, opset, optimize=optimize)

    monkeypatch.setattr(export_module, "translate", without_room)
    model = nn.Linear(4, 3).eval()
    file = export(model, tmp_path, "batch,4")
    assert file.structure_only
    assert file.attempts[0].error == "ran out of memory"
    assert model(torch.ones(1, 4)).shape == (1, 3)


@pytest.mark.slow
def test_a_llama_of_full_width_is_exported_without_a_byte_of_its_weights(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        config = transformers.LlamaConfig(num_hidden_layers=2)
        model = transformers.LlamaForCausalLM(config).eval()
    file = export(model, tmp_path, IDS)
    assert file.structure_only
    assert file.model_patches == ("cache off",)
    assert file.path.stat().st_size < 1_000_000
