"""Failures of an export: every cause, with its source location and a workaround."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torchvision
from factories import make_spec
from torch import Tensor, nn
from torch.nn.utils.parametrizations import orthogonal

from reportgen.errors import SectionError
from reportgen.model_state import preserve_model_state
from reportgen.onnx.export import export_onnx
from reportgen.outcome import Failed

pytestmark = pytest.mark.slow  # they export, trace or load models, one after the other


def failure(model: nn.Module, folder: Path, *inputs: Any, **fields: Any) -> Failed:
    with pytest.raises(SectionError) as told, preserve_model_state(model):
        export_onnx(model, make_spec(*inputs, **fields), folder)
    return told.value


class Decomposing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x)[1]


class Frequent(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.mode(x)[0] + torch.mode(x + 1)[0]


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        if x.sum() > 0:
            x = x + 1
        while x.mean() < 1:
            x = x + 1
        return torch.linalg.svd(x)[1]  # not supported by the tracer either


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]


class Forces(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        return torch.autograd.grad(x.pow(2).sum(), x)[0]


def test_all_unsupported_operators_are_listed_with_locations_counts_and_workarounds(
    tmp_path: Path,
) -> None:
    model = nn.Sequential(nn.Linear(4, 4), Frequent(), Decomposing())
    failed = failure(model, tmp_path, "batch,4,4")
    assert failed.error == (
        "2 unsupported operators: ONNX has no equivalent of "
        "aten.mode.default, aten._linalg_svd.default"
    )
    line = Frequent.forward.__code__.co_firstlineno + 1
    assert failed.details[0].startswith(
        f"aten.mode.default ×2 in 1 at test_export_diagnostics.py:{line}: count with"
    )
    line = Decomposing.forward.__code__.co_firstlineno + 1
    assert failed.details[1].startswith(
        f"aten._linalg_svd.default in 2 at test_export_diagnostics.py:{line}: ONNX has no matrix"
    )


def test_every_data_dependent_branch_is_told_and_no_log_is_left(tmp_path: Path) -> None:
    logs = Path(tempfile.gettempdir())
    before = set(os.listdir(logs))
    failed = failure(nn.Sequential(Branches()).eval(), tmp_path, "batch,4")
    first = Branches.forward.__code__.co_firstlineno + 2
    assert (
        f"data-dependent branch at test_export_diagnostics.py:{first} (and 1 more)" in failed.error
    )
    assert failed.details[:2] == (
        f"test_export_diagnostics.py:{first}: if x.sum() > 0:",
        f"test_export_diagnostics.py:{first + 2}: while x.mean() < 1:",
    )
    left = set(os.listdir(logs)) - before
    assert not {name for name in left if name.startswith("reportgen-export-")}


@pytest.mark.parametrize(
    "take",
    [lambda x: x * float(x.max()), lambda x: sum(x[0] for _ in range(int(x[0, 0].abs()) + 1))],
)
def test_a_number_taken_out_of_a_tensor_is_told_as_that(take: Any, tmp_path: Path) -> None:
    class Taking(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = take(x)
            return y + torch.linalg.svd(x)[1].sum()  # not supported by the tracer either

    failed = failure(Taking().eval(), tmp_path, "batch,4")
    assert failed.error.startswith("data-dependent number at test_export_diagnostics.py:")
    assert "keep it a tensor" in failed.hint


def test_torchscript_is_told_by_the_path_of_its_module(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), torch.jit.script(nn.ReLU()))
    failed = failure(model.eval(), tmp_path, "batch,4")
    assert failed.error.startswith("module 1 is TorchScript")
    assert "Python module" in failed.hint


@pytest.mark.filterwarnings("ignore")
def test_packed_quantized_modules_are_told_by_their_paths(tmp_path: Path) -> None:
    float_model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    failed = failure(torch.ao.quantization.quantize_dynamic(float_model), tmp_path, "batch,4")
    assert failed.error.startswith("modules 0, 2 are quantized")
    assert "onnxruntime.quantization" in failed.hint


def test_a_packed_sequence_is_told_by_the_module_that_takes_it(tmp_path: Path) -> None:
    failed = failure(Packed().eval(), tmp_path, "batch,5,4")
    assert failed.error.startswith("module lstm takes a packed sequence")


def test_a_forward_with_gradients_of_its_own_is_told_as_such(tmp_path: Path) -> None:
    assert "forward takes a gradient" in failure(Forces(), tmp_path, "batch,4").error


class Potential(nn.Module):
    """Forces as the gradient of an energy, with gradients enabled for it alone."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            return -torch.autograd.grad(self.net(x).sum(), x)[0]


def test_a_gradient_inside_forward_is_named_with_its_line(tmp_path: Path) -> None:
    own = torch.autograd.grad
    error = failure(Potential(), tmp_path, "batch,4").error
    assert "takes a gradient (torch.autograd.grad at test_export_diagnostics.py:" in error
    assert torch.autograd.grad is own


@pytest.mark.filterwarnings("ignore")
def test_frozen_torchscript_is_named(tmp_path: Path) -> None:
    frozen = torch.jit.freeze(torch.jit.script(nn.Linear(4, 2).eval()))
    assert failure(frozen, tmp_path, "batch,4").error.startswith("the model is TorchScript")


@pytest.mark.filterwarnings("ignore")
def test_the_branch_of_a_fake_quantizer_is_not_blamed_on_the_model(tmp_path: Path) -> None:
    observer = torch.ao.quantization.MovingAverageMinMaxObserver
    model = nn.Sequential(nn.Linear(4, 3), torch.ao.quantization.FakeQuantize(observer=observer))
    model(torch.randn(2, 4))
    failed = failure(model.eval(), tmp_path, "batch,4")
    assert "FakeQuantize branches" in failed.error
    assert "onnxruntime.quantization" in failed.hint


def test_a_weight_computed_from_parameters_alone_is_exported_as_a_constant(tmp_path: Path) -> None:
    model = nn.Sequential(orthogonal(nn.Linear(4, 4), orthogonal_map="matrix_exp")).eval()
    file = export_onnx(model, make_spec("batch,4"), tmp_path)
    assert "weights that the model computes" in file.warnings[0]
    x = torch.randn(3, 4)
    (found,) = onnxruntime.InferenceSession(file.path).run(None, {"input": x.numpy()})
    assert torch.allclose(torch.from_numpy(found), model(x), atol=1e-5)


def test_an_unsupported_operator_on_inputs_stays_an_error_beside_a_computed_weight(
    tmp_path: Path,
) -> None:
    linear = orthogonal(nn.Linear(4, 4), orthogonal_map="matrix_exp")
    error = failure(nn.Sequential(linear, Decomposing()).eval(), tmp_path, "batch,4").error
    assert "linalg_svd" in error


def test_a_custom_operator_without_a_fake_kernel_is_told_how_to_get_one(tmp_path: Path) -> None:
    @torch.library.custom_op("reportgen_tests::twice", mutates_args=())
    def twice(x: Tensor) -> Tensor:
        return x * 2

    class Custom(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.reportgen_tests.twice(x)

    failed = failure(Custom().eval(), tmp_path, "batch,4")
    assert "unsupported operator reportgen_tests.twice" in failed.error
    assert "register_fake" in failed.hint
    twice.register_fake(torch.empty_like)
    failed = failure(Custom().eval(), tmp_path, "batch,4")
    assert "unsupported operator reportgen_tests.twice.default" in failed.error
    assert "custom_translation_table" in failed.hint


def test_complex_numbers_are_told_as_the_reason(tmp_path: Path) -> None:
    class Complex(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.polar(x, x).tanh().abs()

    failed = failure(Complex().eval(), tmp_path, "batch,4")
    assert "aten.tanh.default" in failed.error
    assert "real and imaginary parts" in failed.hint


def test_an_operator_with_an_onnx_form_but_not_for_these_arguments_is_named(
    tmp_path: Path,
) -> None:
    class Pooling(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torchvision.ops.roi_pool(x, torch.tensor([[0.0, 0.0, 0.0, 1.0, 1.0]]), 2)

    failed = failure(Pooling().eval(), tmp_path, "batch,3,9,9")
    assert failed.error.startswith("unsupported use of torchvision.roi_pool.default")
    assert "roi_align" in failed.hint


class Named(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(4, 4)})

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers.values():
            x = layer(x)
        return x


def test_a_module_name_with_a_quote_is_the_reason(tmp_path: Path) -> None:
    section_error = failure(Named('it"s'), tmp_path, "batch,4")
    assert (
        section_error.error
        == """torch.export cannot write these names of modules into its code: 'it"s'"""
    )
    assert section_error.details == ()


class Yielding(nn.Module):
    def forward(self, x: Tensor) -> Any:
        yield x + 1


def test_a_generator_that_nobody_ran_is_the_reason(tmp_path: Path) -> None:
    section_error = failure(Yielding(), tmp_path, "batch,4")
    assert section_error.error.startswith("forward returns a generator that was never consumed")


class Fixed(nn.Module):
    def forward(self, *tensors: Tensor) -> Tensor:
        return tensors[0].reshape(2, 4) + tensors[1]


def test_a_fixed_dim_is_told_by_the_manifests_name_of_the_input(tmp_path: Path) -> None:
    with preserve_model_state(Fixed()) as model:
        file = export_onnx(model, make_spec("photo=batch,4", "batch,4", batch=2), tmp_path)
    assert "the model fixes axis 0 of photo at 2 and axis 0 of input1 at 2" in file.warnings[0]
