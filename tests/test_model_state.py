"""A borrowed model comes back bit for bit, whatever was done to it."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from reportgen.model_state import preserve_model_state


class SectionFailedError(Exception):
    pass


def small_model() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    model[3].weight = nn.Parameter(model[3].weight.detach()[:, :4])
    model.register_buffer("counter", torch.zeros((), dtype=torch.int64))
    model.train()
    model[1].eval()
    model[0].bias.requires_grad_(False)
    model(torch.randn(3, 4)).sum().backward()
    model[0].register_forward_hook(lambda *_: None)
    model.cache = {"key": [1]}
    return model


def content(tensor: torch.Tensor | None) -> bytes | None:
    if tensor is None or tensor.device.type == "meta":
        return None
    return tensor.detach().numpy().tobytes()


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything that must survive, by content and by identity."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {
        "bytes": {n: content(t) for n, t in tensors.items()},
        "identity": {n: (id(t), t.data_ptr(), t.requires_grad) for n, t in tensors.items()},
        "grads": {n: (id(t.grad), content(t.grad)) for n, t in tensors.items()},
        "modes": {n: m.training for n, m in model.named_modules()},
        "children": {n: id(m) for n, m in model.named_modules()},
        "hooks": {n: list(m._forward_hooks) for n, m in model.named_modules()},
        "attributes": sorted(vars(model)),
        "torch": torch.get_rng_state().numpy().tobytes(),
        "numpy": str(np.random.get_state()),
        "python": random.getstate(),
        "grad enabled": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
    }


def write_to_parameters(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(float("nan"))


def write_past_the_version_counter(model: nn.Module) -> None:
    model[0].weight.data.numpy()[:] = 7


def train_a_step(model: nn.Module) -> None:
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def cast(model: nn.Module) -> None:
    model.double().half()


def move_to_meta(model: nn.Module) -> None:
    model.to("meta")


def rebuild(model: nn.Module) -> None:
    del model[3]
    model.append(nn.ReLU())
    model[0].weight = nn.Parameter(torch.zeros(4, 4))
    del model.counter


def hook_and_annotate(model: nn.Module) -> None:
    model[0]._forward_hooks.clear()
    model[2].register_forward_pre_hook(lambda *_: None)
    model.extra = 3
    model.cache["other"] = 1


def move_every_random_state(model: nn.Module) -> None:
    random.random()
    np.random.rand()
    torch.rand(1)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.float64)


def freeze(model: nn.Module) -> None:
    model.requires_grad_(False)
    model.zero_grad()


MISCHIEF = [
    write_to_parameters,
    write_past_the_version_counter,
    train_a_step,
    cast,
    move_to_meta,
    rebuild,
    hook_and_annotate,
    move_every_random_state,
    freeze,
]


@pytest.mark.parametrize("mischief", MISCHIEF, ids=lambda f: f.__name__)
@pytest.mark.parametrize("raises", [False, True])
def test_a_borrowed_model_comes_back_as_it_was(mischief: Any, raises: bool) -> None:
    model = small_model()
    before = snapshot(model)
    with suppress(SectionFailedError), preserve_model_state(model):
        mischief(model)
        assert snapshot(model) != before
        if raises:
            raise SectionFailedError
    assert snapshot(model) == before


def test_a_hook_handle_still_removes_its_hook_after_the_loan() -> None:
    model = nn.Linear(2, 2)
    handle = model.register_forward_hook(lambda *_: None)
    with preserve_model_state(model):
        model._forward_hooks.clear()
    assert len(model._forward_hooks) == 1
    handle.remove()
    assert len(model._forward_hooks) == 0


def test_tied_weights_stay_tied() -> None:
    model = nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    model[1].weight = model[0].weight
    with preserve_model_state(model):
        model.double()
    assert model[1].weight is model[0].weight
    assert model[0].weight.dtype == torch.float32


def test_a_lazy_module_that_woke_up_sleeps_again() -> None:
    model = nn.LazyLinear(3)
    with preserve_model_state(model):
        model(torch.randn(1, 2))
    assert type(model) is nn.LazyLinear
    assert model.has_uninitialized_params()


def test_a_plain_tensor_attribute_is_given_back() -> None:
    model = nn.Linear(2, 2)
    model.scale = torch.ones(2)
    with preserve_model_state(model):
        model.scale.mul_(5)
    assert torch.equal(model.scale, torch.ones(2))


class Holder(nn.Module):
    """Keeps things where a module does not look for them: lists, dicts and tuples, nested."""

    def __init__(self) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(4)
        self.layers = [nn.Sequential(nn.Linear(4, 4), norm)]
        self.nested = {"cache": [torch.zeros(3)], "blocks": ({"norm": norm},)}

    def forward(self, x: torch.Tensor) -> Any:
        self.nested["cache"].append(x)
        self.nested["cache"][0].add_(1)
        return self.layers[0](x)


def test_what_plain_containers_hold_is_given_back() -> None:
    model = Holder().eval()  # which does not reach what is in the lists
    layer, cache = model.layers[0], model.nested["cache"]
    weight = layer[0].weight.detach().clone()
    with preserve_model_state(model):
        layer.eval()
        layer.train()
        model(torch.randn(5, 4)).sum().backward()
        torch.optim.SGD(layer.parameters(), 0.1).step()
        layer.eval()
    assert layer.training
    assert torch.equal(layer[0].weight, weight)
    assert layer[0].weight.grad is None
    assert torch.equal(layer[1].running_mean, torch.zeros(4))
    assert cache is model.nested["cache"]
    assert len(cache) == 1
    assert torch.equal(cache[0], torch.zeros(3))


def test_a_container_that_holds_itself_is_lent_too() -> None:
    model = nn.Linear(2, 2)
    model.itself = [model]
    model.itself.append(model.itself)
    with preserve_model_state(model):
        model.itself.clear()
    assert model.itself[1] is model.itself


def test_nested_loans_each_restore_their_own_beginning() -> None:
    model = nn.Linear(2, 2)
    outer = model.weight.detach().clone()
    with preserve_model_state(model):
        with torch.no_grad():
            model.weight.fill_(1)
        with preserve_model_state(model), torch.no_grad():
            model.weight.fill_(2)
        assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.equal(model.weight, outer)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_buffer_is_given_back(layout: torch.layout) -> None:
    model = nn.Module()
    model.register_buffer("w", torch.eye(3).to_sparse(layout=layout))
    before = model.w
    with preserve_model_state(model):
        (model.w._values() if layout == torch.sparse_coo else model.w.values()).mul_(5)
        model.w.data = torch.ones(3, 3).to_sparse(layout=layout)
    assert model.w is before
    assert torch.equal(model.w.to_dense(), torch.eye(3))


def test_inference_tensors_are_given_back() -> None:
    with torch.inference_mode():
        model = nn.Linear(4, 2)
        weight = model.weight.clone()
    with preserve_model_state(model), torch.inference_mode():
        model.weight.zero_()
    assert torch.equal(model.weight, weight)
    assert model.weight.requires_grad


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1, 4).expand(2, 4),
        torch.arange(12.0).reshape(3, 4).T,
        torch.arange(12.0).reshape(3, 4)[:, 1:3],
        torch.arange(16.0).unfold(0, 4, 2),
        torch.zeros(1, dtype=torch.complex64).expand(3),
        torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]),
        torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged),
    ],
    ids=["expanded", "transposed", "sliced", "overlapping", "complex", "nested", "jagged"],
)
def test_a_tensor_of_any_layout_is_given_back(tensor: torch.Tensor) -> None:
    model = nn.Module()
    model.register_buffer("t", tensor)
    rows = [row.clone() for row in (tensor.unbind() if tensor.is_nested else [tensor])]
    with preserve_model_state(model):
        for row in tensor.unbind() if tensor.is_nested else [tensor]:
            flat = row if row.is_contiguous() else row.as_strided((1,), (1,), row.storage_offset())
            flat.add_(7)
        model.t = torch.zeros(1)
    assert model.t is tensor
    for row, before in zip(tensor.unbind() if tensor.is_nested else [tensor], rows, strict=True):
        assert torch.equal(row, before)


@pytest.mark.parametrize("element", [0, 1, 7, 8, 9])
def test_one_changed_byte_is_given_back_wherever_it_is(element: int) -> None:
    # in whole words, in the rest, and in a view that begins between two words
    whole, view = torch.zeros(10, dtype=torch.uint8), torch.zeros(13, dtype=torch.uint8)[3:]
    model = nn.Module()
    model.register_buffer("whole", whole)
    model.register_buffer("view", view)
    with preserve_model_state(model):
        whole[element] = view[element] = 1
    assert not whole.any()
    assert not view.any()
