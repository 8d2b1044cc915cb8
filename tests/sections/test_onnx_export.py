"""ONNX: what is said of the file, and whether parity can be fooled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from factories import make_study
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from reportgen.context import ModelContext
from reportgen.manifest import Tolerance
from reportgen.outcome import Skipped
from reportgen.sections.onnx import OnnxResult, analyze
from reportgen.sections.onnx.analysis import analyze_exported
from reportgen.sections.onnx.parity.compare import compare
from reportgen.sections.onnx.parity.perturb import perturbed
from reportgen.sections.onnx.performance.latency import percentile

Examine = Callable[..., OnnxResult]
ASKED = Tolerance()


@pytest.fixture
def look(tmp_path: Path) -> Examine:
    """Examine a model with inputs as the manifest writes them."""

    def look(model: nn.Module, *inputs: Any, timings: bool = False, **fields: Any) -> OnnxResult:
        result = analyze(make_study(model, *inputs, folder=tmp_path, timings=timings, **fields))
        assert isinstance(result, OnnxResult)
        return result

    return look


def examine_edited(context: ModelContext, edit: Callable[[onnx.ModelProto], None]) -> OnnxResult:
    """The context's verdict on its own file after somebody has changed it."""
    file = context.onnx_file()
    model = onnx.load(file.path)
    edit(model)
    onnx.save(model, file.path)
    return analyze_exported(context, file)


class Call(nn.Module):
    """A forward of one's own, with a layer to draw parameters from."""

    def __init__(self, forward: Callable[[nn.Linear, Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self.layer, x)


# The file -----------------------------------------------------------------------------------


def test_the_facts_of_a_small_file_are_right(look: Examine) -> None:
    result = look(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), "batch,4")
    assert result.file.operators == {"Gemm": 2, "Relu": 1}
    assert (result.file.nodes, result.file.functions, result.file.custom_operators) == (3, 0, ())
    assert (result.file.initializers, result.file.initializer_bytes) == (4, 4 * (12 + 3 + 6 + 2))
    assert (result.file.opset, result.file.producer.split()[0]) == (20, "pytorch")
    assert [(p.name, p.dtype, p.shape) for p in result.file.inputs] == [
        ("input", "float32", ("batch", 4))
    ]
    assert [(p.name, p.dtype, p.shape) for p in result.file.outputs] == [
        ("output", "float32", ("batch", 2))
    ]
    assert (result.file.values, result.file.shaped_values) == (3, 3)
    assert (result.file.invalid, result.file.external_file) == ("", None)


@pytest.mark.slow
def test_a_shape_that_only_a_run_can_tell_is_had_by_a_run(look: Examine) -> None:
    """The second layer reads a Reshape to sizes that the graph computes."""
    result = look(nn.LSTM(4, 6, num_layers=2, batch_first=True), "batch,5,4", batch=3)
    assert result.file.cost is not None
    assert (result.file.cost.uncounted, result.file.cost.batch) == ({}, 3)
    assert result.file.cost.macs == 3 * 5 * 4 * 6 * (4 + 6) + 3 * 5 * 4 * 6 * (6 + 6)


def test_the_bytes_are_those_on_disk(look: Examine, tmp_path: Path) -> None:
    result = look(nn.Linear(64, 64), "batch,64")
    assert result.file.path == "model.onnx"
    assert result.file.bytes == (tmp_path / "model.onnx").stat().st_size


def test_nodes_in_branches_and_loops_are_counted(tmp_path: Path) -> None:
    class Conditional(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), (x,))

    result = analyze(make_study(Conditional(), "batch,4", folder=tmp_path, timings=False))
    assert isinstance(result, OnnxResult)
    assert {"If", "Sin", "Cos"} <= set(result.file.operators)
    assert result.parity.passed


def test_an_invalid_file_is_told_by_the_checker(tmp_path: Path) -> None:
    context = make_study(nn.Linear(4, 3), "batch,4", folder=tmp_path, timings=False)

    def spoil(model: onnx.ModelProto) -> None:
        model.graph.node[0].attribute.append(onnx.helper.make_attribute("nonsense", 1))

    result = examine_edited(context, spoil)
    assert "nonsense" in result.file.invalid
    assert "\n" not in result.file.invalid
    assert str(tmp_path) not in result.file.invalid


def test_a_model_that_is_not_to_be_exported_is_skipped(tmp_path: Path) -> None:
    context = make_study(nn.Linear(4, 3), "batch,4", folder=tmp_path, onnx=False)
    assert isinstance(analyze(context), Skipped)
    assert list(tmp_path.iterdir()) == []


def test_a_file_not_to_be_kept_is_not_named(look: Examine) -> None:
    result = look(nn.Linear(4, 3), "batch,4", onnx={"save": False})
    assert (result.file.path, result.parity.passed) == (None, True)


# Parity -------------------------------------------------------------------------------------


def test_two_batches_and_three_seeds_agree(look: Examine) -> None:
    parity = look(nn.Linear(4, 3), "batch,4", batch=8, seed=5).parity
    pairs = [(batch, seed) for batch in (1, 3) for seed in (5, 6, 7)]
    assert [(case.batch, case.seed) for case in parity.cases] == pairs
    assert parity.compared == "seeds 5, 6 and 7 at batch 1 and batch 3"
    assert (parity.passed, parity.vacuous, parity.note) == (True, False, "")
    assert all(case.max_absolute_error is not None for case in parity.cases)


def test_a_small_batch_of_the_manifest_is_one_of_the_two(look: Examine) -> None:
    parity = look(nn.Linear(4, 3), "batch,4", batch=2).parity
    assert {case.batch for case in parity.cases} == {1, 2}


def test_another_dynamic_dim_is_tried_at_another_size(look: Examine) -> None:
    parity = look(
        nn.Linear(4, 3), "batch,t,4", dims={"t": 5}, onnx={"dynamic": ["batch", "t"]}
    ).parity
    assert parity.cases[-1].dims == {"t": 4}
    assert parity.cases[-1].outputs[0].shape == (3, 4, 3)


def test_a_changed_weight_fails(tmp_path: Path) -> None:
    context = make_study(nn.Linear(4, 3), "batch,4", folder=tmp_path, timings=False)

    def change(model: onnx.ModelProto) -> None:
        weight = next(t for t in model.graph.initializer if t.name == "weight")
        changed = onnx.numpy_helper.to_array(weight).copy()
        changed[0, 0] += 0.1
        weight.CopyFrom(onnx.numpy_helper.from_array(changed, "weight"))

    parity = examine_edited(context, change).parity
    assert parity.passed is False
    assert "values beyond the tolerance" in parity.cases[0].outputs[0].note


def test_a_softmax_over_many_classes_cannot_hide_a_wrong_file(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(8, 5000), nn.Softmax(-1))
    context = make_study(model, "batch,8", folder=tmp_path, timings=False)

    def forget(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            zeros = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))

    assert examine_edited(context, forget).parity.passed is False


def test_outputs_keep_their_keys_and_none_is_passed_over(look: Examine) -> None:
    model = Call(lambda layer, x: {"logits": layer(x), "rest": [x * 2, None, x.argmax(-1)]})
    parity = look(model, "batch,4").parity
    names = [(o.name, o.dtype) for o in parity.cases[0].outputs]
    assert names == [("logits", "float32"), ("rest.0", "float32"), ("rest.2", "int64")]
    assert parity.passed


def test_keyword_and_nested_inputs_reach_the_right_ports(look: Examine) -> None:
    class Picky(nn.Module):
        def forward(self, a: Tensor, *, low: Tensor, pair: tuple[Tensor, Tensor]) -> Tensor:
            return a - 2 * low + 3 * pair[0] - 5 * pair[1]

    parity = look(
        Picky(),
        "batch,4",
        {"name": "pair", "keyword": True, "items": ["batch,4", "batch,4"], "tuple": True},
        {"name": "low", "keyword": True, "shape": ["batch", 4]},
    ).parity
    assert (parity.passed, parity.vacuous) == (True, False)


def test_a_model_that_writes_into_its_input_is_compared_on_the_input_it_got(look: Examine) -> None:
    assert look(Call(lambda layer, x: layer(x.add_(1))), "batch,4").parity.passed


def test_zero_elements_pass(look: Examine) -> None:
    parity = look(Call(lambda layer, x: (layer(x), x[:, :0])), "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, False)
    empty = parity.cases[0].outputs[1]
    assert (empty.note, empty.max_absolute_error, empty.passed) == ("0 elements", 0.0, True)


def test_nan_in_both_at_the_same_places_passes_and_is_said(look: Examine) -> None:
    output = look(Call(lambda layer, x: layer(x).log()), "batch,4").parity.cases[-1].outputs[0]
    assert output.passed
    assert "NaN and 0 infinite values, at the same places in both" in output.note
    assert output.max_absolute_error is not None


def test_nothing_but_nan_fails(look: Examine) -> None:
    parity = look(Call(lambda layer, x: layer(x) * float("nan")), "batch,4").parity
    assert parity.passed is False
    output = parity.cases[0].outputs[0]
    assert output.note == "every value is NaN, in PyTorch and in the file"
    assert output.max_absolute_error is None


def test_integers_must_be_equal(look: Examine) -> None:
    parity = look(nn.Embedding(9, 4), "ids=batch,5:int64<9").parity
    assert parity.passed
    exact = look(Call(lambda layer, x: layer(x).sign().long()), "batch,4").parity
    assert exact.cases[0].outputs[0].absolute_tolerance == 0


def test_a_fixed_batch_is_compared_at_that_batch_and_said(look: Examine) -> None:
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.ones(5, 4)

    parity = look(Fixed(), "batch,4", batch=5).parity
    assert [case.batch for case in parity.cases] == [5, 5, 5]
    assert parity.note == "compared at a batch of 5 only, which is fixed in the file"


def test_dropout_in_train_mode_fails_and_is_named(tmp_path: Path) -> None:
    context = make_study(
        nn.Sequential(nn.Linear(4, 64), nn.Dropout(0.5)), "batch,4", folder=tmp_path, timings=False
    )
    context.model[1].train()
    result = analyze(context)
    assert isinstance(result, OnnxResult)
    assert result.parity.passed is False
    assert "in train mode: 1 (Dropout)" in result.parity.note
    assert "differs between two calls" in result.parity.note
    assert result.export.training_modules == ("1 (Dropout)",)
    assert result.file.random_operators == ("Dropout in 1",)


@pytest.mark.slow
def test_bfloat16_is_not_timed_and_the_reason_is_told(look: Examine) -> None:
    model = nn.Linear(4, 3).bfloat16()
    result = look(model, "x=batch,4:bfloat16", timings=True)
    assert "onnxruntime on the CPU" in result.parity.note
    assert result.performance is None


def test_the_manifest_sets_the_tolerance(look: Examine) -> None:
    strict = {"tolerance": {"absolute": 0.25, "relative": 0.0}}
    output = look(nn.Linear(4, 3), "batch,4", onnx=strict).parity.cases[0].outputs[0]
    assert (output.absolute_tolerance, output.relative_tolerance) == (0.25, 0.0)


# Vacuous agreement --------------------------------------------------------------------------


def zero_headed(**sizes: int) -> nn.Module:
    torch.manual_seed(0)
    head = nn.Linear(sizes.get("width", 6), 3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return nn.Sequential(nn.Linear(4, sizes.get("width", 6)), nn.ReLU(), head)


def test_a_head_of_zeros_is_compared_again_with_perturbed_parameters(look: Examine) -> None:
    model = zero_headed()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    parity = look(model, "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, False)
    assert [case.perturbed for case in parity.cases] == [False] + [True] * 6
    assert [case.outputs[0].vacuous for case in parity.cases] == [True] + [False] * 6
    assert "repeated with perturbed parameters" in parity.note
    assert all(model.state_dict()[name].equal(tensor) for name, tensor in before.items())


@pytest.mark.slow
def test_a_wrong_file_behind_a_head_of_zeros_is_found(tmp_path: Path) -> None:
    context = make_study(zero_headed(), "batch,4", folder=tmp_path, timings=False)

    def change(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Abs"

    parity = examine_edited(context, change).parity
    assert all(case.passed for case in parity.cases if not case.perturbed)
    assert parity.passed is False


def test_a_bias_alone_does_not_pass_for_dependence_on_the_input(look: Examine) -> None:
    model = zero_headed()
    nn.init.normal_(model[2].bias)
    parity = look(model, "batch,4").parity
    assert parity.cases[-1].perturbed
    assert "does not depend on the input" in parity.note
    assert (parity.passed, parity.vacuous) == (True, False)


@pytest.mark.slow
def test_an_output_without_parameters_stays_vacuous(look: Examine) -> None:
    parity = look(Call(lambda layer, x: layer(x) * 0), "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, True)
    assert parity.note.endswith("with these, still output does not vary")


@pytest.mark.slow
def test_a_constant_beside_a_real_output_is_no_reason_to_doubt(look: Examine) -> None:
    model = Call(lambda layer, x: (layer(x), torch.arange(4)))
    parity = look(model, "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, False)


def test_perturbed_parameters_are_put_back_after_an_exception() -> None:
    layer = nn.Linear(4, 4)
    before = layer.weight.detach().clone()

    def interrupted() -> None:
        with perturbed({("", (), ""): layer.weight}):
            assert not layer.weight.equal(before)
            raise KeyError

    with pytest.raises(KeyError):
        interrupted()
    assert layer.weight.equal(before)


def test_a_folded_parameter_does_not_make_a_right_file_wrong(look: Examine) -> None:
    class Tied(nn.Module):
        """Stores the table as it is for the look-up, and transposed for the head."""

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(7, 4)
            self.gate = nn.Parameter(torch.zeros(7))

        def forward(self, ids: Tensor) -> Tensor:
            hidden = self.table(ids)
            return hidden @ self.table.weight.T * self.gate

    parity = look(Tied(), "batch,5:int64<7").parity
    assert (parity.passed, parity.vacuous) == (True, False)


def test_torchvisions_vit_passes_and_not_vacuously(look: Examine) -> None:
    """Its head starts with zeros, so that the output is constant until it is perturbed."""
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )
    parity = look(model, "batch,3,32,32").parity
    assert (parity.passed, parity.vacuous) == (True, False)


# Comparing ----------------------------------------------------------------------------------

numbers = st.lists(
    st.floats(width=32) | st.sampled_from([float("nan"), float("inf"), float("-inf")]),
    min_size=1,
    max_size=20,
)


@given(numbers)
def test_a_tensor_with_a_finite_value_agrees_with_itself(values: list[float]) -> None:
    tensor = torch.tensor(values)
    parity = compare("x", tensor, tensor.clone(), ASKED).parity
    assert parity.passed is not bool(tensor.isnan().all())
    assert parity.max_absolute_error in (0.0, None)


@given(numbers, numbers)
def test_what_passes_passes_in_numpy_too(a: list[float], b: list[float]) -> None:
    size = min(len(a), len(b))
    reference, found = torch.tensor(a[:size]), torch.tensor(b[:size])
    parity = compare("x", reference, found, ASKED).parity
    close = np.allclose(
        found.double(),
        reference.double(),
        rtol=parity.relative_tolerance,
        atol=parity.absolute_tolerance,
        equal_nan=True,
    )
    assert parity.passed == (close and not reference.isnan().all())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([1.0, float("nan"), 3.0], "NaN or Inf at different places, 1 of 3"),
        ([1.0, 2.0, float("-inf")], "NaN or Inf at different places, 1 of 3"),
        ([1.0, 2.0], "PyTorch gives shape [3], the file [2]"),
    ],
)
def test_what_cannot_be_subtracted_fails_in_words(found: list[float], words: str) -> None:
    parity = compare("x", torch.tensor([1.0, 2.0, 3.0]), torch.tensor(found), ASKED).parity
    assert (parity.passed, parity.note, parity.max_absolute_error) == (False, words, None)


def test_infinities_of_other_signs_do_not_match() -> None:
    plus, minus = torch.tensor([1.0, float("inf")]), torch.tensor([1.0, float("-inf")])
    assert not compare("x", plus, minus, ASKED).parity.passed
    assert compare("x", plus, plus.clone(), ASKED).parity.passed


def test_large_integers_are_compared_exactly() -> None:
    a = torch.tensor([2**60])
    assert not compare("x", a, a + 1, ASKED).parity.passed


def test_a_few_huge_values_do_not_widen_the_tolerance() -> None:
    reference = torch.randn(100)
    reference[:10] = torch.finfo(torch.float32).min
    found = reference.clone()
    found[50] += 0.01
    assert not compare("mask", reference, found, ASKED).parity.passed


def test_rounding_where_values_cancel_out_passes_and_proves_nothing(look: Examine) -> None:
    reference = torch.randn(100) * 1e-8
    parity = compare("x", reference, torch.randn(100) * 1e-8, ASKED).parity
    assert parity.passed
    assert parity.absolute_tolerance > float(reference.max() - reference.min())


def test_an_output_of_tiny_values_is_compared_as_closely_as_any_other(look: Examine) -> None:
    parity = look(Call(lambda layer, x: layer(x) * 1e-9), "batch,4").parity
    assert (parity.passed, parity.vacuous, len(parity.cases)) == (True, False, 6)


def test_complex_outputs_are_compared_in_pairs(look: Examine) -> None:
    parity = look(Call(lambda layer, x: torch.fft.fft(layer(x))), "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, False)
    assert parity.cases[0].outputs[0].shape == (1, 4, 2)


def test_a_batch_of_one_that_pytorch_refuses_is_replaced_by_two(look: Examine) -> None:
    class AtLeastTwo(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[0] == 1:
                raise ValueError("more than one sample, please")
            return super().forward(x)

    parity = look(AtLeastTwo(4, 3), "batch,4").parity
    assert {case.batch for case in parity.cases} == {2, 3}
    assert parity.passed
    assert "PyTorch itself fails at batch 1: ValueError: more than one" in parity.note


def test_the_relative_error_is_that_of_the_largest_value() -> None:
    parity = compare("x", torch.tensor([0.0, 100.0]), torch.tensor([0.5, 100.0]), ASKED).parity
    assert (parity.max_absolute_error, parity.max_relative_error) == (0.5, 0.005)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_a_percentile_lies_between_the_extremes(values: list[float], share: float) -> None:
    assert min(values) <= percentile(values, share) <= max(values) * (1 + 1e-12)


# Latency and timings ------------------------------------------------------------------------


def test_latency_is_measured_at_the_manifests_batch(
    look: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reportgen.sections.onnx.performance.latency._MOST_RUNS", 20)
    performance = look(nn.Linear(4, 3), "batch,4", batch=7, timings=True).performance
    assert performance is not None
    latency = performance.latency_ms
    assert (latency.batch, latency.runs) == (7, 20)
    assert 0 < latency.p10 <= latency.median <= latency.p90


@pytest.mark.slow
def test_two_examinations_without_timings_are_equal(look: Examine) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5))
    first, second = look(model, "batch,3,8,8"), look(model, "batch,3,8,8")
    assert first == second
    assert first.performance is None
