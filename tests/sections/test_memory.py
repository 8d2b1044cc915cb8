"""The memory section: estimates, fits and rules."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torchinfo
from factories import make_study
from torch import nn

from reportgen.errors import SectionError
from reportgen.manifest import Budgets, Loss, Target, TrainingSetup
from reportgen.outcome import Skipped
from reportgen.sections import behavior, layers, memory
from reportgen.sections.memory import Fit, Memory

TRAINING = TrainingSetup(
    optimizers=("sgd", "adamw"), precisions=("fp32", "amp-bf16"), checkpointing=(False,)
)


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 8))


def analyzed(folder: Path, model: nn.Module | None = None, **fields: Any) -> Memory:
    defaults: dict[str, Any] = {"batch": 4, "targets": ("T4",), "training": TRAINING}
    context = make_study(model or small(), "x=batch,256", folder=folder, **{**defaults, **fields})
    result = memory.analyze(context)
    assert isinstance(result, Memory)
    return result


def test_every_mode_precision_and_optimizer_is_estimated(tmp_path: Path) -> None:
    result = analyzed(tmp_path)
    assert {(e.mode, e.precision, e.optimizer) for e in result.estimates} == {
        ("inference", "fp32", "none"),
        ("inference", "amp-bf16", "none"),
        *(("train", p, o) for p in ("fp32", "amp-bf16") for o in ("sgd", "adamw")),
    }
    assert len(result.fits) == len(result.estimates) == len(result.curves) == 6


def test_torchinfo_runs_once_for_layers_and_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[nn.Module] = []

    def summarize(model: nn.Module, **options: Any) -> Any:
        runs.append(model)
        return torchinfo_summary(model, **options)

    torchinfo_summary = torchinfo.summary
    monkeypatch.setattr(torchinfo, "summary", summarize)
    context = make_study(small(), "x=batch,256", folder=tmp_path, batch=4, targets=("T4",))
    layers.SECTION.share(context)
    found, result = layers.SECTION.analyze(context), memory.analyze(context)
    assert isinstance(found, layers.Layers)
    assert isinstance(result, Memory)
    assert len(runs) == 1
    own = torchinfo_summary(small(), (4, 256), verbose=0)
    assert found.torchinfo.activation_bytes == own.total_output_bytes
    assert result.torchinfo_bytes == (
        own.total_input + own.total_output_bytes + own.total_param_bytes
    )


class AtFour(nn.Module):
    """Has a table of the length of its batch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(4, 256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x, self.table]).sin()


def test_an_error_at_the_batch_of_a_budget_keeps_the_other_estimates(tmp_path: Path) -> None:
    result = analyzed(tmp_path, AtFour(), budgets=Budgets(peak_memory_bytes={64: 2**30}))
    assert {e.batch for e in result.estimates} == {4}
    errors = [line for line in result.assumptions if line.startswith("no estimate at batch")]
    assert len(errors) == 1
    assert errors[0].startswith("no estimate at batch 64")


def test_a_model_that_runs_at_one_batch_has_no_curve(tmp_path: Path) -> None:
    result = analyzed(tmp_path, AtFour())
    assert {e.batch for e in result.estimates} == {4}
    assert {(f.largest_batch, f.limited_by) for f in result.fits} == {(4, "model")}
    assert (result.curves, result.what_if) == ((), ())
    assert any(line.startswith("no batch curve") for line in result.assumptions)


def test_the_categories_add_up_to_the_peak_and_contain_the_weights(tmp_path: Path) -> None:
    weights = sum(p.numel() * 4 for p in small().parameters())
    for estimate in analyzed(tmp_path).estimates:
        assert sum(estimate.at_peak.values()) == estimate.peak_allocated_bytes
        assert weights <= estimate.at_peak["parameter"] <= weights + 512 * 4
        assert estimate.peak_allocated_bytes <= estimate.peak_reserved_bytes
        assert estimate.peak_reserved_bytes < estimate.peak_device_bytes
        assert estimate.band_low_bytes <= estimate.peak_device_bytes <= estimate.band_high_bytes


def test_adamw_has_two_state_tensors_per_parameter_and_sgd_none(tmp_path: Path) -> None:
    by_optimizer = {
        e.optimizer: e.at_peak.get("optimizer_state", 0)
        for e in analyzed(tmp_path).estimates
        if e.mode == "train" and e.precision == "fp32"
    }
    weights = sum(p.numel() * 4 for p in small().parameters())
    assert by_optimizer["sgd"] == 0
    assert 2 * weights <= by_optimizer["adamw"] <= 2 * weights + 8 * 512


def test_curves_rise_with_the_batch_up_to_one_allocator_segment(tmp_path: Path) -> None:
    segment = 20 * 2**20  # other sizes may share segments better, so a dip of one is real
    for curve in analyzed(tmp_path).curves:
        peaks = curve.peak_device_bytes
        assert all(later > earlier - segment for earlier, later in pairwise(peaks))
        assert peaks[-1] > 2 * peaks[0]


def test_the_batch_of_a_budget_is_estimated(tmp_path: Path) -> None:
    budgets = Budgets(peak_memory_bytes={64: 2**30})
    assert {e.batch for e in analyzed(tmp_path, budgets=budgets).estimates} == {4, 64}


def test_a_user_gpu_is_fitted(tmp_path: Path) -> None:
    context = make_study(small(), "x=batch,256", folder=tmp_path)
    own = Target(name="lab-card", memory_bytes=2 * 2**30)
    result = memory.analyze(replace(context, targets=(own,)))
    assert isinstance(result, Memory)
    assert {(fit.gpu, fit.usable_bytes) for fit in result.fits} == {("lab-card", 2 * 2**30)}


def test_without_targets_the_section_is_skipped_with_a_reason(tmp_path: Path) -> None:
    outcome = memory.analyze(make_study(small(), "x=batch,256", folder=tmp_path))
    assert outcome == Skipped(reason="the manifest names no target GPUs")


def test_a_user_loss_is_used(tmp_path: Path) -> None:
    file = tmp_path / "losses.py"
    file.write_text("def squared(output):\n    return (output * output).sum()\n")
    loss = Loss(kind="python", target=str(file), factory="squared", text="losses.py:squared")
    result = analyzed(tmp_path, loss=loss)
    assert "losses.py:squared" in result.assumptions[0]


def test_a_model_that_raises_fails_the_section_as_it_fails_others(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(7, 7))
    with pytest.raises(SectionError) as caught:
        analyzed(tmp_path, model)
    with pytest.raises(SectionError) as other:
        behavior.SECTION.analyze(make_study(model, "x=batch,256", folder=tmp_path, batch=4))
    assert "0: expected 7 input features, got 256" in caught.value.error
    assert (caught.value.error, caught.value.hint) == (other.value.error, other.value.hint)


def test_a_model_without_parameters_is_estimated_in_inference_only(tmp_path: Path) -> None:
    result = analyzed(tmp_path, nn.ReLU())
    assert {e.mode for e in result.estimates} == {"inference"}
    assert any("no estimate of a training step" in note for note in result.assumptions)


class KeywordNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 8)

    def forward(self, *, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mean": self.embedding(ids).mean(dim=1)}


@pytest.mark.slow
def test_a_list_of_samples_grows_with_the_batch(tmp_path: Path) -> None:
    """The images of a detector: a list of so many tensors needs what one tensor of them needs."""

    class Stacks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()

        def forward(self, samples: list[torch.Tensor]) -> torch.Tensor:
            return self.body(torch.stack(samples))  # type: ignore[no-any-return]

    listed = {"name": "samples", "items": ["256"], "per_sample": True}
    for batch in (4, 100):  # traced, and scaled from a smaller one
        by_list = analyzed(tmp_path, Stacks(), inputs=[listed], batch=batch)
        by_tensor = analyzed(tmp_path, inputs=["batch,256"], batch=batch)
        for one, other in zip(by_list.estimates, by_tensor.estimates, strict=True):
            more = one.peak_allocated_bytes - other.peak_allocated_bytes
            assert 0 <= more <= 1.2 * batch * 256 * 4  # the tensors stay beside their stack


def test_keyword_inputs_and_dict_outputs_are_traced(tmp_path: Path) -> None:
    item = {"name": "ids", "shape": ["batch", 6], "dtype": "int64", "high": 30, "keyword": True}
    context = make_study(KeywordNet(), item, folder=tmp_path, targets=("T4",))
    assert isinstance(memory.analyze(context), Memory)


FIT = Fit(
    gpu="T4",
    usable_bytes=15 * 2**30,
    mode="train",
    precision="fp32",
    optimizer="adamw",
    checkpointing=False,
    safe_batch=10,
    largest_batch=12,
    first_batch_that_fails=13,
    limited_by="saved_activation",
)


def result_with(folder: Path, fit: Fit, batch: int) -> Memory:
    return replace(analyzed(folder, batch=batch), fits=(fit,))


def test_mem001_finds_a_gpu_too_small_for_one_sample(tmp_path: Path) -> None:
    check = memory.single_sample_exceeds_target_memory.findings
    none = replace(FIT, safe_batch=0, largest_batch=0, first_batch_that_fails=1)
    (found,) = check(result_with(tmp_path, none, 4))
    assert found.where == "T4"
    assert "15.0 GiB" in found.message
    assert check(result_with(tmp_path, FIT, 4)) == ()


def test_mem002_finds_a_batch_too_large_for_a_gpu(tmp_path: Path) -> None:
    check = memory.batch_exceeds_target_memory.findings
    (found,) = check(result_with(tmp_path, FIT, 13))
    assert "at most batch 12, not 13" in found.message
    (perhaps,) = check(result_with(tmp_path, FIT, 11))
    assert "may not fit at batch 11; up to 10 is safe" in perhaps.message
    assert check(result_with(tmp_path, FIT, 10)) == ()
    coarse = replace(FIT, safe_batch=992, largest_batch=1000, first_batch_that_fails=1004)
    (unknown,) = check(result_with(tmp_path, coarse, 1002))
    assert "may not fit at batch 1002; up to 992 is safe" in unknown.message


def test_each_option_of_the_training_loop_has_what_it_adds(tmp_path: Path) -> None:
    """Two linear layers of 64 MiB: closed form, up to the allocator's segments of 20 MiB."""
    weights = 2 * 4096 * 4096 * 4
    model = nn.Sequential(nn.Linear(4096, 4096, bias=False), nn.Linear(4096, 4096, bias=False))
    setup = TrainingSetup(optimizers=("sgd",), ddp=True, ema=True, prefetch=3)
    context = make_study(
        model, "x=batch,4096", folder=tmp_path, batch=2048, training=setup, targets=("T4",)
    )
    result = memory.analyze(context)
    assert isinstance(result, Memory)
    added = {each.option: each.added_bytes for each in result.loop_options}
    assert list(added) == ["prefetch: 3", "ddp", "ema"]
    segment = 20 * 2**20
    assert abs(added["ddp"] - weights) <= segment
    assert abs(added["ema"] - weights) <= segment
    assert abs(added["prefetch: 3"] - 2 * 2048 * 4096 * 4) <= segment
    trained = next(e for e in result.estimates if e.mode == "train")
    assert (trained.at_peak["ddp_bucket"], trained.at_peak["ema"]) == (weights, weights)
