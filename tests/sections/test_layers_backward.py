"""Forward and backward together, against closed forms and against a pass that is taken apart."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layer_models import Examine, Function, quantized, row, tensor
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from reportgen.sections.layers import Layers


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def frozen(*names: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = two_layers()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in names)
        return model

    return make


FIRST, SECOND = 3 * 32, 3 * 16  # multiply-adds forward, three samples

MODELS: dict[str, tuple[Callable[[], nn.Module], list[Any], int]] = {
    # the input asks for no gradient, so that the first layer gives none
    "two layers": (two_layers, [tensor(4)], 2 * FIRST + 3 * SECOND),
    "a frozen backbone": (frozen("0.weight", "0.bias"), [tensor(4)], FIRST + 2 * SECOND),
    "a frozen first weight": (frozen("0.weight"), [tensor(4)], FIRST + 3 * SECOND),
    "a frozen head": (frozen("2.weight", "2.bias"), [tensor(4)], 2 * FIRST + 2 * SECOND),
    "depthwise convolution after another": (
        lambda: nn.Sequential(nn.Conv2d(2, 8, 1), nn.Conv2d(8, 8, 3, groups=8)),
        [tensor(2, 6, 6)],
        2 * 3 * 36 * 16 + 3 * 3 * 16 * 72,
    ),
    "transposed convolution in groups": (
        lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), [tensor(4, 5, 5)], 2 * 3 * 25 * 4 * 27),
    "attention of its own input": (
        lambda: Function(lambda self, x: F.scaled_dot_product_attention(*[self.f(x)[:, None]] * 3),
                         f=nn.Linear(8, 8)),
        [tensor(5, 8)],
        2 * 3 * 5 * 64 + 2 * 3 * 25 * 8 + 5 * 3 * 25 * 8,  # scores are computed again
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_forward_and_backward_cost_their_closed_form(look: Examine, name: str) -> None:
    make, inputs, macs = MODELS[name]
    result = look(make(), *inputs, batch=3)
    assert (result.forward_backward.macs, result.forward_backward.flops) == (macs, 2 * macs)
    assert result.forward_backward.uncounted == ()
    assert result.forward_backward.note == "counted in training mode"


def both(result: Layers, *paths: str) -> list[int | None]:
    """What the modules themselves cost, both ways."""
    return [row(result, path).own_forward_backward_macs for path in paths]


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_both_passes_add_up_to_the_total(look: Examine, name: str) -> None:
    make, inputs, macs = MODELS[name]
    result = look(make(), *inputs, batch=3)
    assert sum(layer.own_forward_backward_macs or 0 for layer in result.layers) == macs
    assert row(result, "").forward_backward_macs == macs


def test_every_layer_has_its_own_gradients(look: Examine) -> None:
    result = look(two_layers(), tensor(4), batch=3)
    assert both(result, "", "0", "1", "2") == [0, 2 * FIRST, 0, 3 * SECOND]
    attention = look(MODELS["attention of its own input"][0](), tensor(5, 8), batch=3)
    assert both(attention, "", "f") == [7 * 3 * 25 * 8, 2 * 3 * 5 * 64]


def test_gradients_belong_to_the_place_where_a_layer_ran(look: Examine) -> None:
    shared = nn.Linear(4, 4)
    once, twice = nn.Sequential(nn.Linear(4, 4), shared), nn.Sequential(shared, nn.ReLU())
    result = look(nn.Sequential(once, twice), tensor(4), batch=3)
    assert both(result, "0.0", "0.1", "1.0", "1.1") == [2 * 48, 3 * 48, 3 * 48, 0]
    assert row(result, "1").forward_backward_macs == 3 * 48
    outside = Function(lambda self, x: F.linear(x @ self.w, self.f.weight),
                       f=nn.Linear(4, 4), w=nn.Parameter(torch.ones(4, 4)))  # fmt: skip
    assert both(look(outside, tensor(4), batch=3), "", "f") == [2 * 48, 3 * 48]


def test_a_custom_autograd_function_counts_in_its_module(look: Examine) -> None:
    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return x @ weight

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
            x, weight = ctx.saved_tensors
            return gradient @ weight.T, x.T @ gradient

    own = Function(lambda self, x: Product.apply(x, self.w), w=nn.Parameter(torch.ones(4, 4)))
    result = look(nn.Sequential(nn.Linear(4, 4), own, nn.Linear(4, 2)), tensor(4), batch=3)
    assert both(result, "0", "1", "2") == [2 * 48, 3 * 48, 3 * 24]


@pytest.mark.parametrize("reentrant", [True, False])
def test_recomputation_counts_in_the_recomputed_layer(look: Examine, reentrant: bool) -> None:
    block = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    model = Function(lambda self, x: self.c(checkpoint(self.b, self.a(x), use_reentrant=reentrant)),
                     a=nn.Linear(4, 4), b=block, c=nn.Linear(4, 4))  # fmt: skip
    result = look(model, tensor(4), batch=3)
    last = 4 * 48 if reentrant else 3 * 48  # of the other kind, what is saved last is enough
    assert both(result, "", "a", "b.0", "b.2", "c") == [0, 2 * 48, 4 * 48, last, 3 * 48]


def test_a_recurrent_layer_on_shapes_has_its_gradients_in_its_row(look: Examine) -> None:
    model = Function(lambda self, x: self.g(self.r(self.f(x))[0]),
                     f=nn.Linear(4, 4), r=nn.LSTM(4, 6), g=nn.Linear(6, 2))  # fmt: skip
    result = look(model, tensor(5, 4), batch=3)
    alone = look(nn.LSTM(4, 6), tensor(5, 4), batch=3).forward_backward.macs
    assert alone is not None
    to_input = 15 * 4 * 6 * 4  # which the layer alone need not compute
    assert both(result, "f", "r", "g") == [2 * 15 * 16, alone + to_input, 3 * 15 * 12]


def test_without_a_backward_pass_rows_have_no_backward_cost(look: Examine) -> None:
    result = look(nn.Sequential(nn.Linear(4, 4).requires_grad_(False)), tensor(4))
    assert {layer.forward_backward_macs for layer in result.layers} == {None}
    assert both(result, "", "0") == [None, None]


def test_a_checkpointed_block_counts_its_recomputation(look: Examine) -> None:
    first, block = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    plain = Function(lambda self, x: self.b(self.a(x)), a=first, b=block)
    again = Function(lambda self, x: checkpoint(self.b, self.a(x), use_reentrant=True),
                     a=first, b=block)  # fmt: skip
    without, with_it = look(plain, tensor(4), batch=3), look(again, tensor(4), batch=3)
    assert without.forward_backward.macs is not None
    assert with_it.forward_backward.macs == without.forward_backward.macs + 2 * 3 * 16
    assert with_it.macs == without.macs


RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "projected, both ways": lambda: nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3),
    "batch first": lambda: nn.GRU(4, 6, 2, batch_first=True),
    "without biases": lambda: nn.RNN(4, 6, 3, bias=False, nonlinearity="relu"),
    "after a layer": lambda: Function(lambda self, x: self.r(self.f(x)), f=nn.Linear(4, 4),
                                      r=nn.GRU(4, 6)),
    "partly frozen": lambda: with_one_trainable(nn.LSTM(4, 6, 2), "weight_hh_l1"),
}  # fmt: skip


def with_one_trainable(model: nn.Module, name: str) -> nn.Module:
    model.requires_grad_(False)
    model.get_parameter(name).requires_grad_(True)
    return model


@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_layer_costs_the_sum_of_its_steps(look: Examine, name: str) -> None:
    """The one kernel of the shapes-only pass against the real pass, operator by operator."""
    model = RECURRENT[name]()
    whole = look(model, tensor(5, 4), batch=3)
    steps = look(Function(lambda self, x: self.m(x * float(x.sum() < 1e9)), m=model),
                 tensor(5, 4), batch=3)  # fmt: skip
    assert (whole.method, steps.method) == ("fake", "real")
    assert whole.macs == steps.macs
    assert whole.forward_backward.macs == steps.forward_backward.macs
    assert whole.output_shapes == steps.output_shapes
    assert whole.operator_calls < steps.operator_calls / 10


def test_a_long_sequence_is_not_taken_apart(look: Examine) -> None:
    result = look(nn.LSTM(8, 8, 2), {"shape": [100_000, 1, 8]})
    assert result.macs == 100_000 * 2 * 4 * 8 * 16
    assert result.operator_calls < 10


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.ReLU(), "no output depends on a parameter that requires a gradient"),
        (nn.Linear(4, 4).requires_grad_(False), "no output depends"),
        (quantized(nn.Sequential(nn.Linear(4, 4)), nn.Linear), "no output depends"),
        (Function(lambda self, x: self.f(x).detach(), f=nn.Linear(4, 4)), "no output depends"),
    ],
    ids=["nothing to learn", "all frozen", "quantized", "detached"],
)
def test_without_a_gradient_there_is_no_backward_pass(
    look: Examine, model: nn.Module, reason: str
) -> None:
    result = look(model, tensor(4))
    assert (result.forward_backward.macs, result.forward_backward.flops) == (None, None)
    assert reason in result.forward_backward.note


def test_a_model_that_cannot_train_on_one_sample_is_counted_in_eval_mode(
    look: Examine,
) -> None:
    result = look(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), tensor(4))
    assert result.forward_backward.macs == 2 * 16
    assert "in evaluation mode, because the pass fails in training mode" in (
        result.forward_backward.note
    )


def test_a_backward_pass_that_raises_is_reported(look: Examine) -> None:
    class Stubborn(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            raise ValueError("inference only")

    model = Function(lambda self, x: Stubborn.apply(self.f(x)), f=nn.Linear(4, 4))
    result = look(model, tensor(4))
    assert (result.macs, result.forward_backward.macs) == (16, None)
    assert result.forward_backward.note.startswith("the backward pass cannot be traced")
    assert "inference only" in result.forward_backward.note


def test_a_real_backward_pass_leaves_no_gradient(look: Examine) -> None:
    model = Function(lambda self, x: self.f(x) * x.sum().item(), f=nn.Linear(4, 4))
    result = look(model, tensor(4), batch=3)
    assert (result.method, result.forward_backward.macs) == ("real", 2 * 3 * 16)
    assert all(parameter.grad is None for parameter in model.parameters())


class OnTheClass(nn.Module):
    """Its layer belongs to all instances, and to none of them."""

    shared = nn.Linear(4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.shared(x))


@pytest.mark.parametrize("grad", [None, torch.ones(4, 4)], ids=["no gradient", "a gradient"])
def test_gradients_of_a_layer_outside_the_model_are_restored(
    look: Examine, grad: Tensor | None
) -> None:
    OnTheClass.shared.weight.grad = None if grad is None else grad.clone()
    first = look(OnTheClass(), tensor(4))
    left = OnTheClass.shared.weight.grad
    assert (left is None) if grad is None else torch.equal(left, grad)  # type: ignore[arg-type]
    assert OnTheClass.shared.bias.grad is None
    assert look(OnTheClass(), tensor(4)) == first


def test_layers_dropped_at_random_are_the_same_ones_every_time(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        for layer in self.layers:
            if not self.training or random.random() > 0.5:
                x = layer(x)
        return x

    model = Function(forward, layers=nn.ModuleList(nn.Linear(4, 4) for _ in range(16)))
    before = random.getstate()
    first = look(model, tensor(4))
    assert random.getstate() == before
    random.seed(5)
    assert look(model, tensor(4)) == first
    assert first.forward_backward.macs != 3 * first.macs - 16
