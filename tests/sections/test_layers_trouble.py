"""Models that lead a counter astray, each with the closed form or the sentence that is right."""

from __future__ import annotations

import copy
import dataclasses
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import make_study
from layer_models import Examine, Function, row, tensor
from torch import Tensor, nn

from reportgen.sections.layers import SECTION, Layers
from reportgen.sections.layers.modules import walk


def findings(result: Layers) -> list[tuple[str, str]]:
    return [(f.code, f.where) for rule in SECTION.rules for f in rule.findings(result)]


def messages(result: Layers) -> list[str]:
    return [f.message for rule in SECTION.rules for f in rule.findings(result)]


# No mixtures of experts ---------------------------------------------------------------------------


def blocks_and_classes(classes: int) -> nn.Module:
    """As many blocks in a row as there are classes."""

    def forward(self: Any, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x).argmax(-1)
        return out

    return Function(forward, head=nn.Linear(8, classes),
                    blocks=nn.ModuleList(nn.Linear(8, 8) for _ in range(classes)))  # fmt: skip


def task_heads() -> nn.Module:
    def forward(self: Any, x: Tensor) -> list[Tensor]:
        return [torch.topk(head(x), 2).values.exp() for head in self.heads]

    return Function(forward, heads=nn.ModuleList(nn.Linear(8, 4) for _ in range(4)))


def averaged() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        mean = torch.stack([expert(x) for expert in self.experts]).mean(0)
        return torch.nn.functional.one_hot(mean.argmax(-1), 4)

    return Function(forward, experts=nn.ModuleList(nn.Linear(8, 4) for _ in range(4)))


def classes_known_first() -> nn.Module:
    """The pick comes first, and nothing but the caller reads it."""

    def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        label = self.head(x).argmax(-1)
        for block in self.blocks:
            x = block(x)
        return x, label

    return Function(forward, head=nn.Linear(8, 2),
                    blocks=nn.ModuleList(nn.Linear(8, 8) for _ in range(2)))  # fmt: skip


@pytest.mark.parametrize(
    "make",
    [lambda: blocks_and_classes(2), lambda: blocks_and_classes(6), task_heads, averaged,
     classes_known_first],
    ids=["two blocks, two classes", "six of each", "task heads", "an ensemble", "a label first"],
)  # fmt: skip
def test_a_top_k_without_routing_is_no_mixture_of_experts(
    look: Examine, make: Callable[[], nn.Module]
) -> None:
    result = look(make(), tensor(8), batch=3)
    assert (result.active_parameters, result.experts) == (None, ())


# Held elsewhere, or not at all --------------------------------------------------------------------


def closed_over() -> Any:
    model: Any = Function(lambda self, x: x, linear=nn.Linear(4, 2))
    model.forward = lambda x: model.linear(x)
    return model


def closed_over_weights() -> Any:
    model: Any = Function(lambda self, x: x, linear=nn.Linear(4, 2))
    model.forward = lambda x: x @ model.linear.weight.T + model.linear.bias
    return model


def closed_over_parameter() -> nn.Module:
    linear = nn.Linear(4, 2)
    weight, bias = linear.weight, linear.bias
    return Function(lambda self, x: x @ weight.T + bias, linear=linear)


def lambda_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2))
    model.add_module("adapter", nn.Identity())
    model[0].register_forward_hook(lambda module, args, out: model.adapter(out))
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    return model


def default_argument_hook() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 2))
    adapter = nn.Identity()
    model[0].register_forward_hook(lambda module, args, out, adapter=adapter: adapter(out))
    model.add_module("adapter", adapter)
    model.forward = partial(lambda first, x: first(x), model[0])  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (closed_over, "fake"),
        (closed_over_weights, "fake"),
        (closed_over_parameter, "real"),
        (lambda_hook, "fake"),
        (default_argument_hook, "fake"),
    ],
)
def test_a_closure_over_the_model_uses_its_layers(
    look: Examine, make: Callable[[], nn.Module], method: str
) -> None:
    model = make()
    weight = next(model.parameters())
    result = look(model, tensor(4))
    assert (result.method, result.parameters, result.macs) == (method, 10, 8)
    assert (result.unregistered, result.unused_parameters, findings(result)) == ((), (), [])
    assert all(row.executed_via != "never" for row in result.layers)
    assert next(model.parameters()) is weight  # not a fake tensor
    assert ("refers to the model's own layers" in result.notes[0]) == (method == "real")


def test_a_layer_registered_by_the_pass_is_not_unregistered(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        if self.head is None:
            self.head = nn.Linear(x.shape[1], 10)
        self.more.append(nn.Linear(4, 4))
        return self.head(self.more[0](x))

    model = Function(forward, more=nn.ModuleList())
    model.register_module("head", None)
    result = look(model, tensor(4))
    assert result.macs == 16 + 40
    assert (result.unregistered, findings(result)) == ((), [])
    (note,) = [line for line in result.notes if line.startswith("every forward pass adds")]
    assert "more.0.weight (16), more.0.bias (4), head.weight (40)" in note


def test_a_copy_of_a_layer_is_that_layer(look: Examine) -> None:
    model = Function(lambda self, x: copy.deepcopy(self.f)(x), f=nn.Linear(4, 4))
    result = look(model, tensor(4))
    assert (result.macs, result.unregistered, result.unused_parameters) == (16, (), ())


def test_unregistered_layers_in_containers_and_closures_are_located(
    look: Examine,
) -> None:
    class Doer:
        def __init__(self) -> None:
            self.layer = nn.Linear(4, 4)

        def __call__(self, x: Tensor) -> Any:
            return self.layer(x)

    outside = nn.Linear(4, 4)
    model = Function(
        lambda self, x: outside(self.step(self.do(self.queue[0](x)))),
        queue=deque([nn.Linear(4, 4)]), step=partial(nn.Linear(4, 4)), do=Doer(),
    )  # fmt: skip
    result = look(model, tensor(4))
    assert {item.path for item in result.unregistered} == {
        "queue[0]", "step.func", "do.layer", "function → outside"
    }  # fmt: skip


SOMEWHERE = [nn.Linear(4, 4), nn.Linear(4, 4)]


def test_a_global_layer_is_located_by_the_line_that_calls_it(look: Examine) -> None:
    result = look(Function(lambda self, x: SOMEWHERE[1](SOMEWHERE[0](x))), tensor(4))
    (message,) = [text for text in messages(result) if "not registered" in text]
    assert message.endswith("(2 such modules)")
    assert result.unregistered[0].path.startswith("the model, called at test_layers_trouble.py:")


def test_parameters_that_share_memory_without_tying_are_noted(look: Examine) -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = nn.Parameter(first.weight)
    result = look(nn.Sequential(first, second), tensor(4))
    assert (result.parameters, result.tied) == (40, ())
    assert any("0.weight and 1.weight" in line for line in result.notes)


def test_a_child_with_a_dot_in_its_name_has_a_path_of_its_own(look: Examine) -> None:
    model = Function(lambda self, x: self._modules["a.b"](self.a.b(x)),
                     a=Function(lambda self, x: x, b=nn.Linear(2, 2)))  # fmt: skip
    model._modules["a.b"] = nn.Linear(2, 8)
    result = look(model, tensor(2))
    assert (result.parameters, result.macs, result.macs_of_rows) == (6 + 24, 4 + 16, 4 + 16)
    assert len({node.path for node in walk(model)}) == 4


# Threads ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("busy_threads")
def test_modules_in_threads_are_counted(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        with ThreadPoolExecutor(3) as pool:
            return torch.stack(list(pool.map(lambda branch: branch(x), self.branches)))

    model = Function(forward, branches=nn.ModuleList(nn.Linear(4, 4) for _ in range(3)))
    first, second = look(model, tensor(4)), look(model, tensor(4))
    assert (first.macs, first.unused_parameters, findings(first)) == (48, (), [])
    assert first.method == "fake"
    assert [row(first, f"branches.{i}").macs for i in range(3)] == [16, 16, 16]
    assert first.forward_backward.macs is None
    assert "threads" in first.forward_backward.note
    assert first == second


# Loops --------------------------------------------------------------------------------------------


def scanned(self: Any, x: Tensor) -> Tensor:
    from torch._higher_order_ops.scan import scan

    def step(state: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        new = state @ self.w + item
        return new, new.clone()

    out: Tensor = scan(step, torch.zeros(2, 4), x)[1]
    return out


def mapped(self: Any, x: Tensor) -> Any:
    import torch._higher_order_ops as loops

    run: Any = loops.map
    return run(lambda item: item @ self.w, x)


@pytest.mark.parametrize("loop", [scanned, mapped])
def test_the_body_of_a_loop_counts_for_every_item(look: Examine, loop: Callable[..., Any]) -> None:
    result = look(Function(loop, w=nn.Parameter(torch.rand(4, 4))), {"shape": [5, 2, 4]})
    assert (result.macs, result.uncounted, result.unused_parameters) == (5 * 2 * 16, (), ())
    assert result.forward_backward.macs is None
    assert result.forward_backward.note.startswith("the backward pass of ")


def test_a_loop_of_unknown_length_is_uncounted_and_its_parameters_ran(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Any:
        import torch._higher_order_ops as loops

        run: Any = loops.while_loop
        start = (torch.tensor(0), x)
        return run(lambda i, _: i < 3, lambda i, s: (i + 1, s @ self.w), start)[1]

    result = look(Function(forward, w=nn.Parameter(torch.rand(4, 4))), {"shape": [2, 4]})
    assert result.unused_parameters == ()
    assert [item.operator for item in result.uncounted] == ["while_loop"]


# Operators ----------------------------------------------------------------------------------------


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.r = nn.LSTM(10, 20, bidirectional=True, batch_first=True)
        self.f = nn.Linear(40, 5)

    def forward(self, x: Tensor) -> Any:
        return self.f(self.r(x)[0])


def test_a_recurrent_layer_in_an_exported_program_is_counted(tmp_path: Path) -> None:
    from reportgen.sections.layers import analyze

    program = torch.export.export(Words().eval(), (torch.rand(2, 6, 10),)).module()
    for refusal in ("train", "eval"):
        vars(program).pop(refusal, None)
    result = analyze(make_study(program, tensor(6, 10), folder=tmp_path, batch=2))
    assert result.macs == 12 * 2 * 80 * 30 + 12 * 200
    assert result.uncounted == ()
    assert result.forward_backward.note.startswith(("counted in the mode", "the backward", "no"))


def test_a_program_that_refuses_a_mode_is_counted(tmp_path: Path) -> None:
    from reportgen.sections.layers import analyze

    program = torch.export.export(nn.Linear(4, 2), (torch.rand(1, 4),)).module()
    context = make_study(nn.Linear(4, 2), tensor(4), folder=tmp_path)
    result = analyze(dataclasses.replace(context, model=program))
    assert (result.macs, result.forward_backward.macs) == (8, 16)
    assert result.forward_backward.note == "counted in the mode that the program was exported in"


def test_a_train_method_that_returns_nothing_is_called_all_the_same(tmp_path: Path) -> None:
    from reportgen.sections.layers import analyze

    class Forgetful(nn.Linear):
        def train(self, mode: bool = True) -> Any:
            super().train(mode)

    context = make_study(nn.Linear(4, 2), tensor(4), folder=tmp_path)
    result = analyze(dataclasses.replace(context, model=Forgetful(4, 2)))
    assert (result.parameters, result.macs) == (10, 8)


def test_a_complex_convolution_is_three_real_ones_and_the_note_says_so(look: Examine) -> None:
    model = nn.Conv2d(2, 3, 3, bias=False, dtype=torch.complex64)
    result = look(model, tensor(2, 5, 5, dtype="complex64"))
    assert result.macs == 3 * 3 * 9 * 2 * 9
    assert "a complex convolution counts as the three real ones that PyTorch runs for it" in (
        result.notes
    )


def test_questions_about_shapes_are_no_operators(look: Examine) -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.stack(torch.func.jvp(self.f, (x,), (torch.ones_like(x),)))

    result = look(Function(forward, f=nn.Linear(4, 3)), tensor(4))
    # The value, the change by x, and the product with the zeros that torch makes for the weight.
    assert (result.macs, result.uncounted) == (12 + 12 + 12, ())


def test_a_parametrized_weight_is_reported_at_its_layer(look: Examine) -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(40, 40))
    result = look(nn.Sequential(layer, nn.Linear(40, 2), nn.Linear(2, 2)), tensor(40))
    (message,) = messages(result)
    assert findings(result) == [("LAY001", "0")]
    assert message.startswith("weight of Linear(40, 40) parametrized holds 92.8 %")


def test_an_attempt_on_shapes_says_nothing(
    look: Examine, capfd: pytest.CaptureFixture[str]
) -> None:
    sparse = nn.Parameter(torch.eye(4).to_sparse_csr(), requires_grad=False)
    model = Function(lambda self, x: (self.w @ x.T).T, w=sparse)
    result = look(model, tensor(4), batch=3)
    assert result.macs == 12
    assert capfd.readouterr().err == ""
