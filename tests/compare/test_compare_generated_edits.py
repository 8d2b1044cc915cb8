"""Random edits of real models: every change is named right and nothing else is named."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache

import pytest
import timm
import torch
import torchvision
from module_edits import EDITS, Change, Site, edited
from torch import nn

from reportgen.comparable import ModuleRecord
from reportgen.compare.modules import diff_modules, diff_state_dict
from reportgen.compare.result import Edit, ModulesDiff
from reportgen.sections.layers.records import module_records

MODELS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "mobilenet_v3": torchvision.models.mobilenet_v3_small,
    "squeezenet": torchvision.models.squeezenet1_1,
    "densenet": torchvision.models.densenet121,
    "vit": lambda: timm.create_model("vit_tiny_patch16_224"),
    "swin": lambda: timm.create_model("swin_tiny_patch4_window7_224"),
    "convnext": lambda: timm.create_model("convnext_atto"),
    "mixer": lambda: timm.create_model("mixer_s32_224"),
    "torch_vit": lambda: torchvision.models.vit_b_16(),
}
MIRRORED = {
    "added": "removed", "removed": "added", "wrapped": "unwrapped", "unwrapped": "wrapped",
    "split": "merged", "merged": "split", "tied": "untied", "untied": "tied",
}  # fmt: skip


@lru_cache
def build(name: str) -> nn.Module:
    """On meta, where tensors take neither memory nor time."""
    with torch.device("meta"):
        return MODELS[name]()


def records(model: nn.Module) -> tuple[ModuleRecord, ...]:
    return module_records(model)


def said(edits: tuple[Edit, ...]) -> set[Change]:
    """What `edits` say, one for each path."""
    found: set[Change] = set()
    for edit in edits:
        # a range, and sizes of folded blocks, are those of the first and the last one
        before, after = ("", "") if edit.kind == "shifted" else (edit.before, edit.after)
        first = (edit.old if edit.new is None else edit.new) or ""
        for path in (first, *edit.also):
            found.add((edit.kind, path, edit.field, before, after))
    return found


def places(edit: Edit) -> tuple[str | None, ...]:
    if edit.kind != "exchanged":
        return edit.old, edit.new
    # an exchange is its own mirror image
    return tuple(sorted(str(path).removeprefix("backbone.") for path in (edit.old, edit.new)))


def mirror_of(edit: Edit) -> tuple[str | None, ...]:
    return places(edit) if edit.kind == "exchanged" else (edit.new, edit.old)


def mirrored(edits: tuple[Edit, ...]) -> set[tuple[str | None, ...]]:
    return {
        (MIRRORED.get(e.kind, e.kind), *mirror_of(e), e.field, e.after, e.before, str(len(e.also)),
         str(-e.parameters))
        for e in edits
    }  # fmt: skip


def plain(edits: tuple[Edit, ...]) -> set[tuple[str | None, ...]]:
    return {
        (e.kind, *places(e), e.field, e.before, e.after, str(len(e.also)), str(e.parameters))
        for e in edits
    }


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def check(model: nn.Module, site: Site) -> ModulesDiff:
    old, new = records(model), records(site.model)
    diff = diff_modules(old, new)
    assert said(diff.edits) == site.changes
    difference = parameters(site.model) - parameters(model)
    assert sum(edit.parameters for edit in diff.edits) == difference
    assert plain(diff_modules(new, old).edits) == mirrored(diff.edits)
    assert diff_modules(new, new).edits == ()
    return diff


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("edit", EDITS, ids=lambda each: each.__name__)
def test_one_edit_is_named_and_nothing_else(name: str, edit: Callable[[Site], bool]) -> None:
    model = build(name)
    site = edited(model, iter([edit]), random.Random(f"{name} {edit.__name__}"), 1)
    if not site.changes:
        pytest.skip(f"{name} has no place for it")
    check(model, site)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(80))
def test_several_edits_are_each_named_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    model = build(rng.choice(list(MODELS)))
    edits = rng.sample(EDITS, len(EDITS))
    site = edited(model, iter(edits), rng, rng.choice([2, 3, 4, 6]))
    diff = check(model, site)
    state = diff_state_dict(records(model), records(site.model), diff)
    assert set(state.without_source).isdisjoint(pair.new for pair in state.renamed)
    keys = set(model.state_dict())
    assert set(state.unused) <= keys
    assert {pair.old for pair in state.renamed} <= keys


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_edits_of_a_model_that_became_a_part_are_named(seed: int) -> None:
    rng = random.Random(1000 + seed)
    model = build(rng.choice(list(MODELS)))
    site = edited(model, iter(rng.sample(EDITS, len(EDITS))), rng, rng.choice([1, 2]))
    outer = nn.Module()
    outer.add_module("backbone", site.model)
    outer.add_module("extra", nn.Linear(4, 2, device="meta"))
    site.model = outer
    site.changes = {
        (kind, path if kind == "removed" else f"backbone.{path}", field, before,
         f"backbone.{after}" if kind == "tied" else after)
        for kind, path, field, before, after in site.changes
    }  # fmt: skip
    site.changes |= {("wrapped", "backbone", "", "", ""), ("added", "extra", "", "", "")}
    check(model, site)
