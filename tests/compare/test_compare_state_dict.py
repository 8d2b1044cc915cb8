"""Checkpoints of the old model: the printed Python is run, and outputs are compared."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
import torchvision
from test_compare_modules import (
    Language,
    Masked,
    Twice,
    exchanged,
    fc_to_classifier,
    head_in_sequential,
    head_of_10,
    stem,
)
from torch import nn

from reportgen.compare.modules import (
    diff_modules,
    diff_state_dict,
    load_snippet,
    rename_map_json,
)
from reportgen.compare.result import StateDictDiff
from reportgen.sections.layers.records import module_records


def compare(old: nn.Module, new: nn.Module, **options: Any) -> StateDictDiff:
    before, after = module_records(old, **options), module_records(new, **options)
    return diff_state_dict(before, after, diff_modules(before, after))


def load(diff: StateDictDiff, old: nn.Module, new: nn.Module) -> nn.Module:
    """A copy of `new` into which the printed Python loaded the state dict of `old`."""
    model = copy.deepcopy(new)
    exec(load_snippet(diff), {"checkpoint": old.state_dict(), "model": model})
    return model


def resnet() -> nn.Module:
    model = torchvision.models.resnet18(num_classes=10)
    for module in model.modules():  # other values than those of a new model
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
    return model


class Called(nn.Module):
    """Calls the ResNet whose parts have these names."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.backbone = inner

    def forward(self, x: Any) -> Any:
        return self.backbone(x)


class Attention(nn.Module):
    """One projection to queries, keys and values, or three."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.qkv = nn.Linear(8, 24)
        else:
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Any) -> Any:
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        return nn.functional.scaled_dot_product_attention(q, k, v)


class Pixels(nn.Module):
    """A linear map of every pixel, as a convolution or as a layer."""

    def __init__(self, *, convolution: bool) -> None:
        super().__init__()
        self.map = nn.Conv2d(3, 5, 1) if convolution else nn.Linear(3, 5)

    def forward(self, x: Any) -> Any:
        if isinstance(self.map, nn.Conv2d):
            return self.map(x)
        return self.map(x.movedim(1, -1)).movedim(-1, 1)


def transposed(*, old: bool) -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return nn.Sequential(nn.Linear(6, 6), Conv1D(4, 6) if old else nn.Linear(6, 4))


IMAGES, TOKENS = (2, 3, 32, 32), (2, 5, 8)


@pytest.mark.parametrize(
    ("old", "new", "shape", "verdict"),
    [
        (resnet, lambda: Called(resnet()), IMAGES, "rename"),
        (lambda: Called(resnet()), resnet, IMAGES, "rename"),
        (resnet, lambda: nn.DataParallel(resnet()), IMAGES, "rename"),
        (lambda: torch.compile(resnet(), backend="eager"), resnet, IMAGES, "rename"),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)),
         lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2)),
         TOKENS, "rename"),
        (lambda: Attention(fused=True), lambda: Attention(fused=False), TOKENS, "convert"),
        (lambda: Attention(fused=False), lambda: Attention(fused=True), TOKENS, "convert"),
        (lambda: Pixels(convolution=True), lambda: Pixels(convolution=False), IMAGES, "convert"),
        (lambda: Pixels(convolution=False), lambda: Pixels(convolution=True), IMAGES, "convert"),
        (lambda: transposed(old=True), lambda: transposed(old=False), (2, 6), "convert"),
        (lambda: nn.utils.weight_norm(nn.Linear(8, 3)),
         lambda: nn.utils.parametrizations.weight_norm(nn.Linear(8, 3)), TOKENS, "rename"),
        (resnet, resnet, IMAGES, "loads"),
    ],
)  # fmt: skip
def test_the_printed_python_gives_the_new_model_the_outputs_of_the_old_one(
    old: Callable[[], nn.Module], new: Callable[[], nn.Module], shape: tuple[int, ...], verdict: str
) -> None:
    torch.manual_seed(0)
    a, b = old().eval(), new().eval()
    diff = compare(a, b)
    assert diff.verdict == verdict
    assert diff.loads == (verdict == "loads")
    assert "strict=False" not in load_snippet(diff)  # the default is strict
    loaded = load(diff, a, b).eval()
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.allclose(loaded(x), a(x), atol=1e-5)
        assert verdict == "loads" or not torch.allclose(b(x), a(x), atol=1e-3)


@pytest.mark.parametrize("edit", [exchanged, fc_to_classifier, stem, head_in_sequential])
def test_a_renamed_tensor_gets_the_values_of_its_counterpart(
    edit: Callable[[Any], None],
) -> None:
    old, new = resnet(), resnet()
    edit(new)
    diff = compare(old, new)
    assert diff.verdict == "rename"
    state, before = load(diff, old, new).state_dict(), old.state_dict()
    known = {pair.new: pair.old for pair in diff.renamed}
    assert known
    for key, value in state.items():
        assert torch.equal(value, before[known.get(key, key)])


def test_prefixes_are_as_short_as_can_be() -> None:
    old, new = resnet(), resnet()
    assert dict(compare(old, Called(new)).rename_map) == {"": "backbone."}
    exchanged(new)
    found = compare(old, new)
    assert json.loads(rename_map_json(found)) == {"layer1.": "layer2.", "layer2.": "layer1."}
    assert len(found.renamed) == 54
    assert found.missing == tuple(key for key in new.state_dict() if key not in old.state_dict())


def test_a_renaming_snippet_is_the_map_and_two_lines() -> None:
    text = load_snippet(compare(resnet(), Called(resnet())))
    assert text.splitlines()[:4] == [
        "renames = {",
        '    "": "backbone.",',
        "}",
        text.split("\n")[3],
    ]
    assert text.splitlines()[4:] == ["model.load_state_dict(state)"]


def test_a_head_of_another_size_has_no_source() -> None:
    old = torchvision.models.resnet18()
    new = torchvision.models.resnet18()
    head_of_10(new)
    new.fc = nn.Linear(512, 10)
    diff = compare(old, new)
    assert diff.verdict == "cannot"
    assert [(m.key, m.old, m.new) for m in diff.mismatched] == [
        ("fc.weight", (1000, 512), (10, 512)), ("fc.bias", (1000,), (10,)),
    ]  # fmt: skip
    assert diff.without_source == diff.unused == ("fc.weight", "fc.bias")
    loaded = load(diff, old, new)  # the rest
    assert torch.equal(loaded.conv1.weight, old.conv1.weight)
    assert torch.equal(loaded.fc.weight, new.fc.weight)


def test_a_key_without_a_place_is_left_out() -> None:
    old, new = nn.LayerNorm(4), nn.RMSNorm(4)
    diff = compare(old, new)
    assert (diff.verdict, diff.unused, dict(diff.rename_map)) == (
        "rename", ("bias",), {"bias": None},
    )  # fmt: skip
    assert torch.equal(load(diff, old, new).weight, old.weight)


def test_whole_modules_are_left_out_by_one_prefix() -> None:
    old = torchvision.models.resnet34()
    diff = compare(old, torchvision.models.resnet18())
    assert set(diff.rename_map.values()) == {None}
    assert len(diff.rename_map) == 8
    load(diff, old, torchvision.models.resnet18())  # strict


def test_a_key_that_begins_another_one_renames_only_itself() -> None:
    class Two(nn.Module):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.register_parameter(name, nn.Parameter(torch.randn(2)))
            self.weight_scale = nn.Parameter(torch.randn(3))

    old, new = nn.ModuleDict({"a": Two("weight")}), nn.ModuleDict({"a": Two("kernel")})
    diff = compare(old, new)
    assert diff.without_source == ("a.kernel",)
    assert diff.unused == ("a.weight",)
    assert torch.equal(load(diff, old, new)["a"].weight_scale, old["a"].weight_scale)


@pytest.mark.parametrize(
    ("old", "new", "loads", "missing"),
    [
        (Language(), Language(tied=True), True, ()),
        (Language(tied=True), Language(), True, ()),
        (Masked(persistent=False), Masked(persistent=True), False, ("mask",)),
        (Twice(shared=None), Twice(shared=True), False, ("second.weight", "second.bias")),
    ],
)
def test_ties_and_buffers(
    old: nn.Module, new: nn.Module, loads: bool, missing: tuple[str, ...]
) -> None:
    diff = compare(old, new)
    assert (diff.loads, diff.missing) == (loads, missing)
    try:
        copy.deepcopy(new).load_state_dict(old.state_dict())
        really = True
    except RuntimeError:
        really = False
    assert really == loads


def test_a_second_name_of_a_tensor_is_copied() -> None:
    old, new = Twice(shared=None), Twice(shared=True)
    diff = compare(old, new)
    assert diff.verdict == "convert"
    assert [(c.kind, c.old, c.new) for c in diff.conversions] == [
        ("copy", ("first.weight",), ("second.weight",)),
        ("copy", ("first.bias",), ("second.bias",)),
    ]  # fmt: skip
    assert torch.equal(load(diff, old, new).second.weight, old.first.weight)


def test_equal_blocks_that_changed_places_need_a_map_although_the_keys_load() -> None:
    old = nn.ModuleDict({name: nn.Linear(4, 4) for name in "ab"})
    new = copy.deepcopy(old)
    new["a"], new["b"] = new["b"], new["a"]
    diff = compare(old, new, with_digests=True)
    assert (diff.loads, diff.verdict) == (True, "rename")
    assert torch.equal(load(diff, old, new)["a"].weight, old["b"].weight)


def test_wrappers_that_hide_in_the_state_dict_change_no_key() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    old, new = (timm.create_model("vit_tiny_patch16_224", depth=2) for _ in range(2))
    for index, block in enumerate(new.blocks):
        new.blocks[index] = checkpoint_wrapper(block)
    diff = compare(old, new)
    assert diff.verdict == "loads"
    load(diff, old, new)  # strict
    before, after = module_records(old), module_records(new)
    [edit] = diff_modules(before, after).edits
    assert (edit.kind, edit.type, len(edit.also)) == ("wrapped", "CheckpointWrapper", 1)
