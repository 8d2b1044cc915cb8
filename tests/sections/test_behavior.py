"""Every probe of the behavior section on five-line models whose behavior is known by hand."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from behavior_models import AnalyzeBehavior, probe
from factories import make_study
from torch import Tensor, nn
from torch._dynamo import eval_frame
from torch.ao.quantization import FakeQuantize, MovingAverageMinMaxObserver
from torch.utils.checkpoint import checkpoint

from reportgen.errors import SectionError
from reportgen.findings import Severity
from reportgen.outcome import Skipped
from reportgen.sections import behavior
from reportgen.sections.behavior import Behavior
from reportgen.sections.behavior.dynamic_shapes import dimensions_of
from reportgen.sections.behavior.rules import autocast_for_another_device, stateful_evaluation
from reportgen.sections.behavior.runner import WorkBudget


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any], **children: Any) -> None:
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, *args: Any) -> Any:
        return self.function(self, *args)


def verdicts(result: Behavior) -> dict[str, str]:
    return {each.name: each.verdict for each in result.probes}


def test_a_plain_model_passes_every_probe(analyze: AnalyzeBehavior) -> None:
    result = analyze(nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2)))
    assert set(verdicts(result).values()) == {"yes"}
    assert len(result.probes) == 10
    assert all(each.sentence.endswith(".") for each in result.probes)
    assert (result.batch, result.method, result.modules, result.operators) == (2, "fake", (), ())


# -- training beside evaluation -------------------------------------------------------------------


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.main, self.aux = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.body(x)
        outputs = {"out": self.main(hidden)}
        return outputs | {"aux": self.aux(hidden)} if self.training else outputs


def test_outputs_of_both_modes_are_reported(analyze: AnalyzeBehavior) -> None:
    result = analyze(TwoHeads())
    assert [(o.key, o.shape) for o in result.evaluation.outputs] == [("out", (2, 2))]
    assert [(o.key, o.shape) for o in result.training.outputs] == [("out", (2, 2)), ("aux", (2, 3))]
    (group,) = result.modules
    assert (group.paths, group.reason) == (("aux",), "runs in training mode only")
    assert "another form: out 2 × 2, aux 2 × 3" in probe(result, "modes_agree").sentence


def test_modules_are_compared_by_operators_not_by_type(
    analyze: AnalyzeBehavior,
) -> None:
    noisy = Function(lambda self, x: x + torch.rand_like(x) if self.training else x)
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.0), nn.Dropout(0.25), nn.BatchNorm1d(4), noisy
    )
    groups = {group.paths: group.reason for group in analyze(model).modules}
    assert groups == {
        ("2",): "drops with p = 0.25",
        ("3",): "normalizes with the statistics of the batch and updates the running ones "
        "with momentum 0.1",
        ("4",): "runs more operators: aten.add, aten.rand_like",
    }


def test_buffers_that_training_changes_are_named(analyze: AnalyzeBehavior) -> None:
    result = analyze(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)))
    assert result.changed_buffers == (
        "1.running_mean", "1.running_var", "1.num_batches_tracked",
    )  # fmt: skip


def test_bytes_kept_for_the_backward_pass_are_those_of_a_closed_form(
    analyze: AnalyzeBehavior,
) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2))
    kept = 2 * 4 + 2 * 8  # the input for the first weight; the sigmoid's result for both after it
    result = analyze(model)
    assert result.training.saved_bytes == 4 * kept
    assert result.evaluation.written_bytes == 4 * (2 * 8 + 2 * 8 + 2 * 2)


def test_a_model_that_wants_targets_does_not_run_in_training_mode(
    analyze: AnalyzeBehavior,
) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.training:
            raise ValueError("targets should not be none")
        return self.linear(x)  # type: ignore[no-any-return]

    result = analyze(Function(forward, linear=nn.Linear(4, 2)))
    assert result.training.error.startswith("ValueError: targets should not be none (in the model")
    assert "test_behavior.py" in result.training.error
    assert verdicts(result)["modes_agree"] == "not run"
    assert "in evaluation mode" in probe(result, "gradients").sentence


def test_unusual_settings_are_remarked(analyze: AnalyzeBehavior) -> None:
    model = nn.Sequential(
        nn.Linear(4, 4), nn.Dropout(0.0), nn.Dropout(1.0), nn.BatchNorm1d(4, momentum=None)
    )
    assert analyze(model).remarks == (
        "1 × Dropout never drops (p = 0): 1",
        "1 × Dropout drops everything in training (p = 1): 2",
        "1 × BatchNorm1d averages its running statistics over all batches (momentum None): 3",
    )


def test_running_statistics_are_those_that_the_layer_has(analyze: AnalyzeBehavior) -> None:
    frozen, without = nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False)
    frozen.track_running_stats, without.track_running_stats = False, True
    assert analyze(nn.Sequential(nn.Linear(4, 4), frozen, without)).remarks == (
        "1 × BatchNorm1d does not update its running statistics in training: 1",
        "1 × BatchNorm1d keeps no running statistics and uses the batch's in evaluation too: 2",
    )


def test_a_table_that_is_filled_once_is_no_difference_between_the_modes(
    analyze: AnalyzeBehavior,
) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.table is None:
            self.table = torch.arange(4.0)
        return self.linear(x + self.table)  # type: ignore[no-any-return]

    result = analyze(Function(forward, linear=nn.Linear(4, 2), table=None))
    assert set(verdicts(result).values()) == {"yes"}
    assert result.modules == ()


# -- two passes -----------------------------------------------------------------------------------


def test_a_dropout_that_is_always_on_is_found_in_its_module(analyze: AnalyzeBehavior) -> None:
    noisy = Function(lambda _, x: F.dropout(x, 0.5))
    result = analyze(nn.Sequential(nn.Linear(4, 64), noisy, nn.Linear(64, 2)))
    found = probe(result, "repeatable")
    assert (found.verdict, found.where) == ("no", ("1",))
    assert any("aten.bernoulli_ draws random numbers in 1" in line for line in found.evidence)
    assert verdicts(result)["batch_of_one"] == "not run"


def test_changed_state_is_named(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.count += 1
        return self.linear(x) + self.count  # type: ignore[no-any-return]

    result = analyze(Function(forward, linear=nn.Linear(4, 2), count=0))
    assert probe(result, "stateless").where == ("count",)
    assert verdicts(result)["repeatable"] == "no"


def test_a_weight_written_through_data_is_seen(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.linear.weight.data[0, 0] *= 1.5
        return self.linear(x)  # type: ignore[no-any-return]

    result = analyze(Function(forward, linear=nn.Linear(4, 2)))
    assert probe(result, "stateless").where == ("linear.weight",)


def test_an_input_written_in_place_is_named(analyze: AnalyzeBehavior) -> None:
    result = analyze(nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 2)))
    assert probe(result, "inputs_kept").where == ("x",)
    assert verdicts(analyze(nn.Sequential(nn.ReLU(), nn.Linear(4, 2))))["inputs_kept"] == "yes"


def test_the_first_module_with_a_nan_is_named(analyze: AnalyzeBehavior) -> None:
    log = Function(lambda _, x: x.log())
    found = probe(analyze(nn.Sequential(nn.Linear(4, 16), log, nn.Linear(16, 2))), "finite")
    assert (found.verdict, found.where) == ("no", ("1",))


def test_an_infinity_that_stays_inside_is_only_evidence(analyze: AnalyzeBehavior) -> None:
    mask = Function(lambda _, x: x.masked_fill(x < 0, float("-inf")))
    found = probe(analyze(nn.Sequential(nn.Linear(4, 16), mask, nn.Sigmoid())), "finite")
    assert found.verdict == "yes"
    assert "infinity: first seen in the result of 1" in found.evidence[0]


# -- samples of one batch -------------------------------------------------------------------------

MIXING = {
    "softmax over the batch": (nn.Softmax(0), "1"),
    "running sum": (Function(lambda _, x: x.cumsum(0)), "1"),
    "running sum from the end": (Function(lambda _, x: x.flip(0).cumsum(0).flip(0)), "1"),
    "statistics of the batch": (nn.BatchNorm1d(8, track_running_stats=False), "1"),
    "attention between samples": (Function(lambda _, x: (x @ x.T).softmax(-1) @ x), "1"),
    "shuffled": (Function(lambda _, x: x.reshape(8, -1).T.contiguous()), "1"),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_module_that_mixes_samples_is_named(analyze: AnalyzeBehavior, name: str) -> None:
    mixing, path = MIXING[name]
    model = nn.Sequential(nn.Linear(4, 8), mixing, nn.Linear(8, 2))
    result = analyze(model)
    found = probe(result, "independent")
    assert (found.verdict, found.where) == ("no", (path,))


SEPARATE = {
    "sequence first": (nn.LSTM(4, 5), {"shape": [6, "batch", 4]}),
    "layer norm and attention": (
        nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), {"shape": ["batch", 5, 4]},
    ),
    "batch norm with its own statistics": (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), {"shape": ["batch", 3, 8, 8]},
    ),
    "samples and steps in one axis": (
        Function(lambda _, x: x.flatten(0, 1)), {"shape": ["batch", 5, 4]},
    ),
    "interleaved": (
        Function(lambda _, x: x.transpose(0, 1).flatten(0, 1)), {"shape": ["batch", 5, 4]},
    ),
    "a list of samples": (Function(lambda _, x: list(x.unbind())), {"shape": ["batch", 5]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SEPARATE)
def test_samples_that_are_kept_apart_are_found_to_be(analyze: AnalyzeBehavior, name: str) -> None:
    model, item = SEPARATE[name]
    found = verdicts(analyze(model, item))
    assert (found["batch_of_one"], found["independent"]) == ("yes", "yes")


def test_outputs_without_a_batch_axis_are_said_not_to_be_compared(
    analyze: AnalyzeBehavior,
) -> None:
    model = Function(lambda self, x: {"y": self.l(x), "loss": self.l(x).mean()}, l=nn.Linear(4, 2))
    found = probe(analyze(model), "batch_of_one")
    assert found.verdict == "yes"
    assert found.evidence == ("loss: not compared, since no single axis scales with the batch",)


def test_batch_probes_are_not_run_without_a_batch_dim(analyze: AnalyzeBehavior) -> None:
    result = analyze(nn.Linear(4, 2), "x=3,4")
    assert verdicts(result)["independent"] == "not run"
    assert "batches" not in verdicts(result)


# -- sizes ----------------------------------------------------------------------------------------


def test_a_batch_that_is_baked_in_is_the_only_one_that_runs(analyze: AnalyzeBehavior) -> None:
    result = analyze(Function(lambda _, x: x.view(8, 4)), batch=8)
    found = probe(result, "batches")
    assert (result.batch, found.verdict) == (8, "no")
    assert found.sentence == "Only a batch of 8 runs; 1, 2 and 9 do not."
    assert "test_behavior.py" in found.evidence[0]


def test_a_batch_norm_over_one_value_cannot_be_trained_with_one_sample(
    analyze: AnalyzeBehavior,
) -> None:
    found = probe(analyze(nn.BatchNorm1d(4)), "batches")
    assert found.verdict == "yes"
    assert found.evidence == (
        "training needs two samples: batch norm has one value per channel in the model",
    )
    wide = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert probe(analyze(wide, "x=batch,3,8,8"), "batches").evidence == ()


def test_a_fully_convolutional_model_follows_the_resolution(analyze: AnalyzeBehavior) -> None:
    found = probe(analyze(nn.Conv2d(3, 16, 3), "x=batch,3,224,224"), "size_height_and_width")
    assert found.sentence == (
        "Height and width can be 192, 225 and 256 too; the output shapes change too."
    )
    assert "192: runs with fake tensors, output 2 × 16 × 190 × 190" in found.evidence


def test_a_flattened_head_bakes_the_resolution_in(analyze: AnalyzeBehavior) -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(2 * 14 * 14, 5))
    found = probe(analyze(model, "x=batch,3,16,16"), "size_height_and_width")
    assert found.sentence == "Height and width are fixed: only 16 runs, not 8, 17 and 32."
    assert "(in 2)" in found.evidence[0]


def test_a_position_table_limits_the_length(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, ids: Tensor) -> Tensor:
        return self.words(ids) + self.places(torch.arange(ids.shape[1]))  # type: ignore[no-any-return]

    model = Function(forward, words=nn.Embedding(10, 4), places=nn.Embedding(12, 4))
    found = probe(analyze(model, "ids=batch,8:int64<10"), "size_length")
    assert found.sentence == "Length can be 4 and 9 and not 16; the output shapes change too."
    assert "reaches 15, but the embedding places has 12 rows" in found.evidence[2]


def test_dims_of_one_name_change_together(analyze: AnalyzeBehavior) -> None:
    model = Function(lambda _, a, b: a + b)
    result = analyze(model, "a=batch,time", "b=batch,time", dims={"time": 6})
    assert verdicts(result)["size_time"] == "yes"


def test_which_dims_are_varied(tmp_path: Path) -> None:
    def labels(*inputs: Any, **fields: Any) -> list[tuple[str, int]]:
        context = make_study(nn.Identity(), *inputs, folder=tmp_path, **fields)
        return [(each.label, each.size) for each in dimensions_of(context.spec)]

    assert labels("x=batch,8") == []
    assert labels("x=batch,3,32,48") == [("height", 32), ("width", 48)]
    assert labels({"items": [{"shape": [3, 32, 32]}]}) == [("height and width", 32)]
    assert labels("x=batch,3,8,32,32") == [("height and width", 32), ("depth", 8)]
    assert labels("ids=batch,9:int64", "mask=batch,9:bool") == [("length", 9)]
    assert labels("x=7,batch,5") == [("axis 0", 7), ("axis 2", 5)]
    lengths = labels("source=batch,9:int64", "target=batch,7:int64")
    assert lengths == [("length of source", 9), ("length of target", 7)]


# -- gradients ------------------------------------------------------------------------------------


def test_parameters_behind_a_detach_get_no_gradient(analyze: AnalyzeBehavior) -> None:
    model = Function(lambda self, x: self.b(self.a(x).detach()), a=nn.Linear(4, 4),
                     b=nn.Linear(4, 2), idle=nn.Linear(9, 9))  # fmt: skip
    found = probe(analyze(model), "gradients")
    assert (found.verdict, found.where) == ("no", ("a.weight", "a.bias"))
    assert found.sentence.startswith("2 of 4 trainable parameters that ran get no gradient")


def test_gradients_of_zero_are_named_and_no_fault(analyze: AnalyzeBehavior) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.init.zeros_(model[1].weight)  # as the heads of vision transformers begin
    found = probe(analyze(model), "gradients")
    assert found.verdict == "yes"
    assert "2 parameters, 0.weight, 0.bias" in found.evidence[0]


def test_a_softmax_has_gradients_though_its_sum_is_constant(analyze: AnalyzeBehavior) -> None:
    found = probe(analyze(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1))), "gradients")
    assert (found.verdict, found.evidence) == ("yes", ())


def test_a_division_that_where_hides_breaks_the_gradient(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.a(x)
        return torch.where(y * 0 > 0, 1 / (y * 0), y)

    result = analyze(Function(forward, a=nn.Linear(4, 2)))
    assert verdicts(result)["finite"] == "yes"
    assert probe(result, "finite_gradients").where == ("a.weight", "a.bias")


def test_a_frozen_model_has_no_gradients_to_ask_for(analyze: AnalyzeBehavior) -> None:
    result = analyze(nn.Linear(4, 2).requires_grad_(False))
    assert probe(result, "gradients").sentence == "The model has no trainable parameter."


# -- what cannot be asked -------------------------------------------------------------------------


def test_data_dependent_control_flow_runs_with_real_tensors(analyze: AnalyzeBehavior) -> None:
    model = Function(lambda self, x: self.a(x) if x.sum() > 0 else -self.a(x), a=nn.Linear(4, 2))
    result = analyze(model)
    assert result.method == "real"
    assert verdicts(result)["batches"] == "yes"
    assert result.training.saved_bytes == 2 * 4 * 4  # the input, for the weight


def test_a_probe_beyond_the_budget_is_not_run_with_the_reason(
    analyze: AnalyzeBehavior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkBudget.__init__, "__defaults__", (1000,))
    result = analyze(nn.Sequential(nn.Linear(4, 64), nn.Linear(64, 2)))
    found = probe(result, "repeatable")
    assert found.verdict == "not run"
    assert "operations" in found.sentence
    assert verdicts(result)["batches"] == "yes"  # a fake pass costs nothing
    assert result.training.saved_bytes is not None


def test_gradients_beyond_the_budget_use_fake_tensors(
    analyze: AnalyzeBehavior, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorkBudget.__init__, "__defaults__", (1000,))
    model = Function(lambda self, x: self.b(self.a(x).detach()), a=nn.Linear(4, 4),
                     b=nn.Linear(4, 2), idle=nn.Linear(9, 9))  # fmt: skip
    result = analyze(model)
    found = probe(result, "gradients")
    assert (found.verdict, found.where, found.expected) == ("no", ("a.weight", "a.bias"), True)
    assert "(with fake tensors)" in found.sentence
    assert verdicts(result)["finite_gradients"] == "not run"
    whole = probe(analyze(nn.Sequential(nn.Linear(4, 4), nn.Softmax(-1))), "gradients")
    assert whole.verdict == "yes"


def test_another_size_uses_a_real_pass_if_that_is_faster(
    analyze: AnalyzeBehavior,
) -> None:
    found = probe(analyze(nn.Conv2d(3, 4, 3), "x=batch,3,16,24"), "size_height")
    assert found.evidence == (
        "8: runs, output 2 × 4 × 6 × 22",
        "17: runs, output 2 × 4 × 15 × 22",
        "32: runs, output 2 × 4 × 30 × 22",
    )


def test_without_a_fake_copy_the_largest_size_is_skipped(analyze: AnalyzeBehavior) -> None:
    model = Function(lambda self, x: self.a(x) if x.sum() > 0 else -self.a(x), a=nn.Conv2d(3, 4, 3))
    found = probe(analyze(model, "x=batch,3,16,16"), "size_height_and_width")
    assert found.sentence == ("Height and width can be 8 and 17 too; the output shapes change too.")


def test_a_size_that_fails_for_real_leaves_no_state_for_the_next(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if self.grid is None:
            self.grid = torch.zeros(x.shape[-1])
        return self.a(x) + self.grid[0]  # type: ignore[no-any-return]

    model = Function(forward, a=nn.Conv2d(3, 4, 3), grid=None)
    assert verdicts(analyze(model, "x=batch,3,16,16"))["size_height_and_width"] == "yes"
    assert model.grid is None


def test_a_model_without_weights_in_memory_is_skipped(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 2)
    assert isinstance(behavior.analyze(make_study(model, "x=batch,4", folder=tmp_path)), Skipped)


def test_a_model_that_refuses_its_inputs_fails_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SectionError) as caught:
        behavior.analyze(make_study(nn.Linear(7, 7), "x=batch,4", folder=tmp_path))
    assert "\n" not in caught.value.error
    assert "inputs" in caught.value.hint


def test_analyzing_twice_gives_the_same_result(analyze: AnalyzeBehavior) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))
    assert analyze(model) == analyze(model)


# -- what PyTorch allows and few expect -----------------------------------------------------------


def compiled(module: nn.Module) -> nn.Module:
    made: nn.Module = torch.compile(module)  # type: ignore[assignment]
    return made


def wholly_compiled() -> nn.Module:
    return compiled(nn.Sequential(nn.Linear(4, 4)))


def partly_compiled() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 4), compiled(nn.Linear(4, 4)))


def compiled_in_place() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4))
    model.compile()
    return model


@pytest.mark.parametrize("make", [wholly_compiled, partly_compiled, compiled_in_place])
def test_a_compiled_model_is_watched_without_its_kernels(
    analyze: AnalyzeBehavior, make: Callable[[], nn.Module]
) -> None:
    stance = eval_frame._stance.stance
    result = analyze(make())
    assert set(verdicts(result).values()) == {"yes"}
    assert result.method == "fake"
    assert eval_frame._stance.stance == stance


def test_a_constant_that_is_nan_is_the_same_in_both_modes(analyze: AnalyzeBehavior) -> None:
    model = Function(lambda self, x: self.a(x) * float("nan"), a=nn.Linear(4, 2))
    result = analyze(model)
    assert (result.modules, verdicts(result)["modes_agree"]) == ((), "yes")


def test_an_attribute_that_is_nan_has_not_changed(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.loss = float("nan")
        return self.a(x)  # type: ignore[no-any-return]

    assert verdicts(analyze(Function(forward, a=nn.Linear(4, 2), loss=0.0)))["stateless"] == "yes"


class InThreads(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(2) as pool:
            return torch.stack(list(pool.map(lambda branch: branch(x), self.branches))).sum(0)


@pytest.mark.usefixtures("busy_threads")
def test_modules_that_run_in_threads_are_watched_there(analyze: AnalyzeBehavior) -> None:
    branches = [nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)) for _ in range(3)]
    result = analyze(InThreads(*branches))
    one_by_one = analyze(Function(
        lambda self, x: torch.stack([branch(x) for branch in self.branches]).sum(0),
        branches=nn.ModuleList(branches),
    ))  # fmt: skip
    assert verdicts(result) == verdicts(one_by_one)
    assert result.evaluation == one_by_one.evaluation
    assert (result.training, result.modules) == (one_by_one.training, one_by_one.modules)
    assert "all 12 trainable parameters" in probe(result, "gradients").sentence


@pytest.mark.usefixtures("busy_threads")
def test_a_failure_in_a_thread_leaves_nothing_behind(analyze: AnalyzeBehavior) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if len(x) == 1:
            raise ValueError("one is not enough")
        return self.a(x)  # type: ignore[no-any-return]

    result = analyze(InThreads(Function(forward, a=nn.Linear(4, 2))))
    assert probe(result, "batches").sentence == "Batches of 2 and 3 run; 1 does not."
    assert verdicts(result)["gradients"] == "yes"


def test_a_model_built_for_inference_only_is_examined(analyze: AnalyzeBehavior) -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    found = verdicts(analyze(model))
    names = ("repeatable", "finite", "stateless", "batch_of_one", "independent", "batches")
    assert [found[name] for name in names] == ["yes"] * len(names)


def test_a_train_that_returns_nothing_still_switches_the_mode(analyze: AnalyzeBehavior) -> None:
    class Forgetful(nn.Sequential):
        def train(self, mode: bool = True) -> None:  # type: ignore[override]
            super().train(mode)

    model = Forgetful(nn.Linear(4, 4), nn.Dropout(0.5))
    model.eval = lambda: nn.Sequential.train(model, False)  # type: ignore[method-assign]
    result = analyze(model)
    assert [group.paths for group in result.modules] == [("1",)]


def test_a_reentrant_checkpoint_passes_gradients(analyze: AnalyzeBehavior) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Any:
            return checkpoint(self.body, self.stem(x), use_reentrant=True)

    model = Checkpointed()
    assert probe(analyze(model, "batch,4"), "gradients").verdict == "yes"
    assert all(parameter.grad is None for parameter in model.parameters())


def test_autocast_for_a_gpu_is_recorded(analyze: AnalyzeBehavior) -> None:
    class Mixed(nn.Module):
        def __init__(self, *, enabled: bool) -> None:
            super().__init__()
            self.inner, self.enabled = nn.Linear(4, 4), enabled

        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cuda", dtype=torch.float16, enabled=self.enabled):
                return self.inner(x)

    (region,) = analyze(nn.Sequential(Mixed(enabled=True))).autocast
    assert (region.device, region.dtype, region.module) == ("cuda", "float16", "0")
    assert region.place.startswith("test_behavior.py:")
    (finding,) = autocast_for_another_device.findings(analyze(Mixed(enabled=True)))
    assert (finding.severity, "computes in float16" in finding.message) == (Severity.NOTE, True)
    assert analyze(nn.Sequential(Mixed(enabled=False))).autocast == ()


@pytest.mark.filterwarnings("ignore")
def test_quantization_observers_are_named_as_what_changes(analyze: AnalyzeBehavior) -> None:
    torch.manual_seed(0)  # of some ranges no later input changes the scale
    quantizer = FakeQuantize(observer=MovingAverageMinMaxObserver)
    model = nn.Sequential(nn.Linear(4, 3), quantizer)
    model(torch.randn(2, 4))
    found = analyze(model)
    for name in ("repeatable", "stateless"):
        assert probe(found, name).verdict == "no"
        assert "disable_observer" in probe(found, name).remedy
    (finding,) = stateful_evaluation.findings(found)
    assert "disable_observer" in finding.advice
    quantizer.disable_observer()
    assert probe(analyze(model), "repeatable").verdict == "yes"
