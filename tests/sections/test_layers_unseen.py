"""What runs or lies where nobody looks: score functions, packed weights, code that is compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from layer_models import Examine, Function, quantized, row, tensor
from torch import Tensor, nn

from reportgen.tracing.tensors import parts_of


def script(model: nn.Module, *, frozen: bool) -> nn.Module:
    made: Any = torch.jit.script(model)
    return torch.jit.freeze(made) if frozen else made  # type: ignore[no-any-return]


def test_a_parameter_in_the_closure_of_a_score_function_is_used(look: Examine) -> None:
    from torch.nn.attention.flex_attention import flex_attention

    def forward(self: Any, q: Tensor) -> Any:
        return flex_attention(q, q, q, score_mod=lambda s, b, h, i, j: s + self.bias[h])

    model = Function(forward, bias=nn.Parameter(torch.zeros(2)), idle=nn.Parameter(torch.zeros(3)))
    result = look(model, tensor(2, 16, 8))
    assert (result.method, result.unused_parameters, result.uncounted) == ("fake", ("idle",), ())
    assert result.macs == 2 * 2 * 16 * 16 * 8  # the score function computes no product


def test_a_packed_layer_that_is_not_called_is_unused(look: Examine) -> None:
    model = Function(lambda self, x: self.a(x), a=nn.Linear(4, 4), b=nn.Linear(4, 3))
    result = look(quantized(model, nn.Linear), tensor(4))
    assert (result.parameters, result.macs) == (35, 16)
    assert result.unused_parameters == ("b.weight", "b.bias")
    assert [row(result, path).unused_parameters for path in ("", "a", "b")] == [15, 0, 15]


def test_torchscript_runs_unoptimized(look: Examine) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)
            self.b = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x)) + self.a(x)  # its optimizer would call a once

    result = look(torch.jit.script(Twice()), tensor(4))
    assert (result.parameters, result.macs) == (40, 48)


def test_weights_frozen_into_torchscript_constants_are_noted(look: Examine) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    (note,) = [
        line for line in look(script(model, frozen=True), tensor(4)).notes if "constants" in line
    ]
    assert note.startswith("TorchScript holds 58 numbers as constants of its code")
    assert not [
        line for line in look(script(model, frozen=False), tensor(4)).notes if "constants" in line
    ]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x)[0]  # type: ignore[no-any-return]


def test_the_frozen_weights_of_a_recurrent_layer_are_counted(look: Examine) -> None:
    notes = look(script(Recurrent().eval(), frozen=True), tensor(6, 4)).notes
    assert [note for note in notes if note.startswith("TorchScript holds 220 numbers")]


def test_a_sampled_product_costs_its_number_of_samples(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return torch.sparse.sampled_addmm(self.places, x, self.weight).to_dense()

    model = Function(forward, weight=nn.Parameter(torch.ones(3, 4)))
    model.register_buffer("places", torch.eye(4).to_sparse_csr())
    result = look(model, {"shape": [4, 3]})
    assert (result.macs, result.uncounted) == (4 * 3, ())


def test_a_weight_used_by_numpy_is_used_and_noted(
    look: Examine,
) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        return torch.from_numpy(x.numpy() @ np.asarray(self.weight.detach()))

    inner = Function(forward, weight=nn.Parameter(torch.ones(4, 3)))
    result = look(nn.Sequential(nn.Linear(4, 4), inner), tensor(4))
    assert (result.method, result.macs, result.unused_parameters) == ("real", 16, ())
    assert "NumPy computes with tensors in 1; its operations are not counted" in result.notes
    assert "numpy" not in vars(Tensor)


def test_losses_are_free(look: Examine) -> None:
    def forward(_: Any, x: Tensor) -> list[Tensor]:
        scores, length = x[:, None].log_softmax(-1), torch.tensor([4])
        return [
            nn.functional.ctc_loss(scores, torch.ones(1, 2).long(), length, torch.tensor([2])),
            nn.functional.multi_margin_loss(x, torch.zeros(4).long()),
            nn.functional.gaussian_nll_loss(x, x, x.abs()),
        ]

    result = look(Function(forward), {"shape": [4, 5]})
    assert (result.macs, result.uncounted) == (0, ())


class Placed(Tensor):
    """A tensor that is wrapped together with something that is none, as distributed ones are."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Placed:
        made: Any = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined]
        made.inner, made.mesh = inner, "a mesh of devices"
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, *_: Any) -> Any:
        raise NotImplementedError

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner", "mesh"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Any], *_: Any) -> Placed:
        return Placed(parts["inner"])


def test_parts_of_a_wrapped_tensor_are_its_tensors() -> None:
    inner = torch.ones(3)
    (part,) = parts_of(Placed(inner))
    assert part is inner
