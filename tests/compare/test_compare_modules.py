"""Modules of two versions: the cases that reviewers meet, each named once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import timm
import torch
import torchvision
from factories import make_study
from layer_models import Function
from torch import nn

from reportgen.comparable import ModuleRecord, StateTensor
from reportgen.compare.modules import diff_modules
from reportgen.compare.result import Edit, ModulesDiff
from reportgen.compare.wording import edit_line
from reportgen.sections.layers import SECTION, analyze
from reportgen.sections.layers.records import module_records

Edited = Callable[[Any], nn.Module | None]
Line = tuple[str, str | None, str | None, str, str, str]


def compare(old: nn.Module, new: nn.Module, *, with_digests: bool = False) -> ModulesDiff:
    records = [module_records(model, with_digests=with_digests) for model in (old, new)]
    return diff_modules(*records)


def lines(edits: Iterable[Edit]) -> list[Line]:
    """Kind, old path, new path, field, before, after."""
    return [(e.kind, e.old, e.new, e.field, e.before, e.after) for e in edits]


def meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def resnet() -> nn.Module:
    return meta(torchvision.models.resnet18)


def vit(**options: Any) -> nn.Module:
    return meta(lambda: timm.create_model("vit_tiny_patch16_224", **{"depth": 3, **options}))


def convolutions(number: int, *before: nn.Module) -> nn.Module:
    return nn.Sequential(*before, *(nn.Conv2d(8, 8, 3) for _ in range(number)))


class Backbone(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.backbone = inner
        self.head = nn.Linear(1000, 10, device="meta")


class Language(nn.Module):
    """An embedding and a head that may have one weight."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 8)
        self.body = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10, bias=False)
        if tied:
            self.head.weight = self.embedding.weight


class Masked(nn.Module):
    def __init__(self, *, persistent: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("mask", torch.zeros(2), persistent=persistent)


class Twice(nn.Module):
    """A layer that may be registered again."""

    def __init__(self, *, shared: bool | None) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.middle = nn.Tanh()
        if shared is not None:
            self.second = self.first if shared else nn.Linear(4, 4)


# One change, one line --------------------------------------------------------------------------


def stride(model: Any) -> None:
    model.layer3[0].conv2.stride = (2, 2)


def dropout_in_sequential(model: Any) -> None:
    model.insert(3, nn.Dropout(0.1))


def narrower_and_wrapped(model: Any) -> nn.Module:
    model.layer3[0].conv2 = nn.Conv2d(256, 128, 3, padding=1, bias=False, device="meta")
    model.layer3[0].bn2 = nn.BatchNorm2d(128, device="meta")
    model.layer3[1].conv1 = nn.Conv2d(128, 256, 3, padding=1, bias=False, device="meta")
    return Backbone(model)


def exchanged(model: Any) -> None:
    model.layer1, model.layer2 = model.layer2, model.layer1


def split_qkv(model: Any) -> None:
    for block in model.blocks:
        size = block.attn.qkv.in_features
        del block.attn.qkv
        for name in "qkv":
            block.attn.add_module(name, nn.Linear(size, size, device="meta"))


def fc_to_classifier(model: Any) -> None:
    model.classifier = model.fc
    del model.fc


def head_of_10(model: Any) -> None:
    model.fc = nn.Linear(512, 10, device="meta")


def stem(model: Any) -> None:
    model.stem = nn.Sequential(model.conv1, model.bn1)
    del model.conv1, model.bn1


def gelu(model: Any) -> None:
    model.layer1[0].relu = nn.GELU()


def rms_norm(model: Any) -> None:
    for block in model.blocks:
        block.norm1 = nn.RMSNorm(192, device="meta")


def one_half(model: Any) -> None:
    model.layer1[0].conv1.half()


def frozen_layers(model: Any) -> None:
    for layer in (model.conv1, model.layer1, model.layer2):
        layer.requires_grad_(False)


def head_in_sequential(model: Any) -> None:
    model.fc = nn.Sequential(nn.Dropout(0.2), model.fc)


def reordered(model: Any) -> None:
    model._modules = {"relu": model._modules.pop("relu"), **model._modules}


class OtherLinear(nn.Linear):
    """The same layer under another name."""


def other_class(model: Any) -> None:
    model.fc = OtherLinear(512, 1000, device="meta")


def weight_norm(model: Any) -> None:
    nn.utils.parametrizations.weight_norm(model.fc)


def old_weight_norm(model: Any) -> None:
    nn.utils.weight_norm(model.fc)


def other_blocks(model: Any) -> None:
    for block in model.layer2:
        block.__class__ = type("OtherBlock", (type(block),), {})


def sequential() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Linear(8, 4),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("make", "edit", "wanted"),
    [
        (resnet, stride, [("changed", "layer3.0.conv2", "layer3.0.conv2", "stride", "1", "2")]),
        (sequential, dropout_in_sequential, [
            ("added", None, "3", "", "", ""), ("shifted", "3", "4", "", "3…5", "4…6"),
        ]),
        (resnet, Backbone, [
            ("wrapped", "", "backbone", "", "", ""), ("added", None, "head", "", "", ""),
        ]),
        (resnet, narrower_and_wrapped, [
            ("wrapped", "", "backbone", "", "", ""),
            ("changed", "layer3.0.conv2", "backbone.layer3.0.conv2", "out_channels", "256", "128"),
            ("changed", "layer3.0.bn2", "backbone.layer3.0.bn2", "num_features", "256", "128"),
            ("changed", "layer3.1.conv1", "backbone.layer3.1.conv1", "in_channels", "256", "128"),
            ("added", None, "head", "", "", ""),
        ]),
        (resnet, exchanged, [("exchanged", "layer1", "layer2", "", "", "")]),
        (vit, split_qkv, [
            ("split", "blocks.0.attn.qkv", "blocks.0.attn.q", "", "qkv", "q, k, v"),
        ]),
        (resnet, fc_to_classifier, [("renamed", "fc", "classifier", "", "", "")]),
        (resnet, head_of_10, [("changed", "fc", "fc", "out_features", "1000", "10")]),
        (resnet, stem, [
            ("added", None, "stem", "", "", ""),
            ("moved", "conv1", "stem.0", "", "", ""), ("moved", "bn1", "stem.1", "", "", ""),
        ]),
        (resnet, gelu, [("type", "layer1.0.relu", "layer1.0.relu", "", "ReLU", "GELU")]),
        (vit, rms_norm, [
            ("type", "blocks.0.norm1", "blocks.0.norm1", "", "LayerNorm", "RMSNorm"),
        ]),
        (resnet, lambda model: model.half(), [("changed", "", "", "dtype", "float32", "float16")]),
        (resnet, one_half, [
            ("changed", "layer1.0.conv1", "layer1.0.conv1", "dtype", "float32", "float16"),
        ]),
        (resnet, frozen_layers, [
            ("changed", name, name, "trainable", "true", "false")
            for name in ("conv1", "layer1", "layer2")
        ]),
        (resnet, head_in_sequential, [
            ("added", None, "fc.0", "", "", ""), ("wrapped", "fc", "fc.1", "", "", ""),
        ]),
        (resnet, reordered, []),
        (resnet, other_class, [("type", "fc", "fc", "", "Linear", "OtherLinear")]),
        (resnet, other_blocks, [
            ("type", "layer2.0", "layer2.0", "", "BasicBlock", "OtherBlock"),
        ]),
        (resnet, nn.DataParallel, [("wrapped", "", "module", "", "", "")]),
        (resnet, torch.compile, [("wrapped", "", "_orig_mod", "", "", "")]),
        (resnet, weight_norm, [
            ("changed", "fc", "fc", "parametrizations.weight", "none", "_WeightNorm"),
        ]),
        (resnet, old_weight_norm, [
            ("changed", "fc", "fc", "parametrizations.weight", "none", "weight_norm"),
        ]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_a_change_is_named_once(
    make: Callable[[], nn.Module], edit: Edited, wanted: list[Line]
) -> None:
    model = make()
    changed = edit(model)
    found = compare(make(), model if changed is None else changed)
    assert sorted(lines(found.edits), key=str) == sorted(wanted, key=str)


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (lambda: convolutions(4), lambda: convolutions(5),
         [("repeated", "", "", "", "4", "5")]),
        (lambda: convolutions(4), lambda: convolutions(4, nn.Conv2d(3, 8, 3)),
         [("added", None, "0", "", "", ""), ("shifted", "0", "1", "", "0…3", "1…4")]),
        (lambda: meta(torchvision.models.resnet18), lambda: meta(torchvision.models.resnet34),
         [("repeated", f"layer{n}", f"layer{n}", "", "2", str(m))
          for n, m in enumerate((3, 4, 6, 3), start=1)]),
        (vit, lambda: vit(depth=5), [("repeated", "blocks", "blocks", "", "3", "5")]),
        (vit, lambda: vit(depth=5, num_heads=6),
         [("repeated", "blocks", "blocks", "", "3", "5"),
          ("changed", "blocks.0.attn", "blocks.0.attn", "num_heads", "3", "6")]),
        (vit, lambda: vit(num_heads=6),
         [("changed", "blocks.0.attn", "blocks.0.attn", "num_heads", "3", "6")]),
        (vit, lambda: vit(num_classes=10, drop_rate=0.1),
         [("changed", "head_drop", "head_drop", "p", "0", "0.1"),
          ("changed", "head", "head", "out_features", "1000", "10")]),
        (vit, lambda: vit(img_size=384),
         [("changed", "", "", "pos_embed.shape", "(1, 197, 192)", "(1, 577, 192)"),
          ("changed", "patch_embed", "patch_embed", "img_size", "224", "384")]),
        (Language, lambda: Language(tied=True),
         [("tied", "head", "head", "weight", "", "embedding.weight")]),
        (lambda: Language(tied=True), Language,
         [("untied", "head", "head", "weight", "embedding.weight", "")]),
        (lambda: Masked(persistent=False), lambda: Masked(persistent=True),
         [("changed", "", "", "mask.persistent", "false", "true")]),
        (lambda: Twice(shared=None), lambda: Twice(shared=True),
         [("added", None, "second", "", "", "")]),
        (lambda: Twice(shared=False), lambda: Twice(shared=True),
         [("tied", "second", "second", "", "", "first")]),
        (lambda: Twice(shared=True), lambda: Twice(shared=False),
         [("untied", "second", "second", "", "first", "")]),
        (lambda: nn.ModuleDict({"7": nn.Linear(2, 3), "9": nn.Linear(3, 4)}),
         lambda: nn.ModuleDict({"8": nn.Linear(2, 3), "9": nn.Linear(3, 4)}),
         [("renamed", "7", "8", "", "", "")]),
        (lambda: nn.Linear(4, 4), lambda: nn.Linear(4, 4, bias=False),
         [("changed", "", "", "bias", "float32 (4)", "none")]),
        (lambda: nn.BatchNorm2d(4), lambda: nn.BatchNorm2d(4, affine=False),
         [("changed", "", "", "affine", "true", "false")]),
        (lambda: nn.LSTM(4, 6), lambda: nn.LSTM(4, 6, 2),
         [("changed", "", "", "num_layers", "1", "2")]),
        (lambda: nn.LSTM(4, 6), lambda: nn.LSTM(4, 12),
         [("changed", "", "", "hidden_size", "6", "12")]),
        (lambda: nn.Sequential(nn.Conv2d(8, 4, 1)), lambda: nn.Sequential(nn.Linear(8, 4)),
         [("reshaped", "0", "0", "weight.shape", "(4, 8, 1, 1)", "(4, 8)")]),
        (lambda: nn.Conv2d(8, 4, 3, groups=1), lambda: nn.Conv2d(8, 4, 3, groups=4),
         [("changed", "", "", "groups", "1", "4")]),
    ],
)  # fmt: skip
def test_two_versions_differ_in_these_lines(
    old: Callable[[], nn.Module], new: Callable[[], nn.Module], wanted: list[Line]
) -> None:
    assert lines(compare(old(), new()).edits) == wanted


def test_all_children_renamed_are_a_line_each_and_the_root() -> None:
    model = resnet()
    other = nn.Module()
    for name, child in model.named_children():
        other.add_module(f"new_{name}", child)
    kinds = [(edit.kind, edit.new) for edit in compare(resnet(), other).edits]
    names = [name for name, _ in model.named_children()]
    assert kinds == [("type", ""), *(("renamed", f"new_{name}") for name in names)]


def test_equal_edits_of_blocks_are_folded() -> None:
    model = vit()
    split_qkv(model)
    [edit] = compare(vit(), model).edits
    assert edit.also == ("blocks.1.attn.q", "blocks.2.attn.q")
    assert edit.modules == 12


def test_a_model_of_itself_has_not_changed() -> None:
    found = compare(vit(), vit())
    assert found.edits == found.added == found.removed == found.moved == found.changed == ()
    assert len(found.pairs) == len(module_records(vit()))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (Language(), Language(tied=True), "weight is now the same as embedding.weight"),
        (Language(tied=True), Language(), "weight is no longer the same as embedding.weight"),
        (Twice(shared=False), Twice(shared=True), "the module is now the same as first"),
        (nn.Linear(2, 2), nn.DataParallel(nn.Linear(2, 2)),
         "the whole old model is now inside DataParallel"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh()),
         nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Tanh()),
         "now inside Sequential"),
    ],
)  # fmt: skip
def test_edits_are_said_in_these_words(old: nn.Module, new: nn.Module, words: str) -> None:
    assert words in [edit_line(edit).words for edit in compare(old, new).edits]


def test_of_equal_candidates_none_is_guessed_at() -> None:
    def make(*names: str) -> nn.Module:
        places = {"one": nn.Identity(), "two": nn.Tanh(), "three": nn.ReLU()}
        model = nn.ModuleDict({name: nn.Sequential(each) for name, each in places.items()})
        for name in names:
            model[name].add_module("layer", nn.Linear(4, 4))
        return model

    one, two, three = compare(make("one", "two"), make("three")).edits
    assert lines([one, two, three]) == [
        ("removed", "one.layer", None, "", "", ""), ("removed", "two.layer", None, "", "", ""),
        ("added", None, "three.layer", "", "", ""),
    ]  # fmt: skip
    assert (one.note, three.note) == ("", "equal to each of 2 removed ones")
    [moved] = compare(make("one"), make("three")).edits
    assert moved.kind == "moved"


def test_the_lists_are_complete_where_the_lines_are_short() -> None:
    model = resnet()
    found = compare(resnet(), Backbone(model))
    assert found.added == ("", "head")
    assert found.removed == ()
    assert len(found.moved) == len(list(model.modules()))
    narrow = compare(nn.Linear(4, 4), nn.Linear(4, 2))
    assert [(c.field, c.old, c.new) for c in narrow.changed] == [
        ("out_features", 4, 2), ("weight.shape", [4, 4], [2, 4]), ("bias.shape", [4], [2]),
    ]  # fmt: skip


def test_a_rate_that_grows_with_depth_is_one_line() -> None:
    [edit] = compare(vit(depth=9), vit(depth=9, drop_path_rate=0.8)).edits[:1]
    assert edit.kind == "type"  # Identity -> DropPath
    slower, faster = vit(depth=9, drop_path_rate=0.4), vit(depth=9, drop_path_rate=0.8)
    found = compare(slower, faster).edits
    assert [(e.field, e.before, e.after, len(e.also)) for e in found] == [
        ("drop_prob", "0.05…0.4", "0.1…0.8", 7), ("drop_prob", "0.05…0.4", "0.1…0.8", 7),
    ]  # fmt: skip


# Values ----------------------------------------------------------------------------------------


def test_other_values_are_one_line_at_the_module_that_has_them() -> None:
    torch.manual_seed(0)
    old, same, new = sequential(), sequential(), sequential()
    same.load_state_dict(old.state_dict())
    assert compare(old, same, with_digests=True).edits == ()
    [edit] = compare(old, new, with_digests=True).edits
    assert (edit.kind, edit.new, edit.note) == ("weights", "", "6 of 11 tensors")
    same[3].weight.data.zero_()
    [edit] = compare(old, same, with_digests=True).edits
    assert (edit.kind, edit.new, edit.before, edit.after) == ("weights", "3", "given", "given")


def test_equal_blocks_that_changed_places_are_known_by_their_values() -> None:
    def make() -> nn.Module:
        torch.manual_seed(0)
        parts = {name: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for name in "abc"}
        return nn.ModuleDict(parts)

    new = make()
    new["a"], new["c"] = new["c"], new["a"]
    assert lines(compare(make(), new, with_digests=True).edits) == [
        ("exchanged", "a", "c", "", "", "")
    ]
    assert compare(make(), new).edits == ()  # random weights have no identity


# Cost ------------------------------------------------------------------------------------------


def modules_of(model: nn.Module, tmp_path: Any) -> tuple[ModuleRecord, ...]:
    context = make_study(model, "batch,3,16,16", folder=tmp_path)
    return SECTION.comparable(analyze(context)).modules


@pytest.mark.parametrize("changed", ["stride", "width", "both", "insert"])
def test_costs_of_edits_are_the_whole_difference(changed: str, tmp_path: Any) -> None:
    def make(*, step: int = 1, width: int = 8, extra: bool = False) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, width, 3, step, 1), *([nn.Conv2d(width, width, 1)] if extra else []),
            nn.ReLU(), nn.Conv2d(width, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(4, 2),
        )  # fmt: skip

    options: dict[str, dict[str, Any]] = {
        "stride": {"step": 2}, "width": {"width": 12}, "both": {"step": 2, "width": 12},
        "insert": {"extra": True},
    }  # fmt: skip
    old, new = modules_of(make(), tmp_path), modules_of(make(**options[changed]), tmp_path)
    edits = diff_modules(old, new).edits
    for figure in ("macs", "parameters"):
        totals = [sum(getattr(module, figure) for module in modules) for modules in (old, new)]
        assert sum(getattr(edit, figure) for edit in edits) == totals[1] - totals[0]
    assert len({edit.macs for edit in edits}) > 0


def test_a_stride_causes_what_the_layers_behind_it_save(tmp_path: Any) -> None:
    old, new = sequential_of(1), sequential_of(2)
    [edit] = diff_modules(modules_of(old, tmp_path), modules_of(new, tmp_path)).edits
    # 16x16 -> 8x8 outputs of 3 -> 4 channels, and the 1x1 layer behind
    assert edit.macs == -(256 - 64) * (27 * 4 + 4 * 4)
    assert edit.parameters == 0


def sequential_of(step: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, step, 1), nn.Conv2d(4, 4, 1))


def test_costs_are_unknown_where_one_side_was_not_run(tmp_path: Any) -> None:
    old = modules_of(sequential_of(1), tmp_path)
    [edit] = diff_modules(old, module_records(sequential_of(2))).edits
    assert edit.macs is None


def test_an_edit_is_located_at_the_call_of_a_layer_of_torch(tmp_path: Any) -> None:
    def make(width: int) -> nn.Module:
        return Function(lambda self, x: self.a(x), a=nn.Conv2d(3, width, 1))

    [edit] = diff_modules(modules_of(make(2), tmp_path), modules_of(make(3), tmp_path)).edits
    file, _, line = edit.source.rpartition(":")
    assert file.endswith("test_compare_modules.py")
    assert int(line) > 0


# Size ------------------------------------------------------------------------------------------


def records(blocks: int, *, width: int = 64, without_bias: int | None = None) -> Any:
    """2 + 3 · `blocks` modules."""
    found = [ModuleRecord(path="", type="Net"), ModuleRecord(path="layers", type="ModuleList")]
    for block in range(blocks):
        found.append(ModuleRecord(path=f"layers.{block}", type="Block"))
        for name in ("a", "b"):
            weight = StateTensor(name="weight", shape=(width, width), dtype="float32")
            bias = StateTensor(name="bias", shape=(width,), dtype="float32")
            keep = name == "a" or block != without_bias
            found.append(ModuleRecord(
                path=f"layers.{block}.{name}", type="Linear", macs=width, parameters=width**2,
                attributes={"in_features": width, "out_features": width},
                tensors=(weight, bias) if keep else (weight,),
            ))  # fmt: skip
    return tuple(found)


@pytest.mark.parametrize("options", [{"without_bias": 333}, {"width": 128}])
def test_a_change_of_two_thousand_modules_is_said_in_a_few_lines(options: dict[str, int]) -> None:
    old, new = records(670), records(670, **options)
    edits = diff_modules(old, new).edits
    assert len(edits) == (1 if "without_bias" in options else 4)


def test_two_thousand_layers_in_a_list_are_aligned_by_equal_runs() -> None:
    def layers(sizes: Iterable[int]) -> tuple[ModuleRecord, ...]:
        return (ModuleRecord(path="", type="Sequential"), *(
            ModuleRecord(path=str(index), type="Linear", attributes={"in_features": size})
            for index, size in enumerate(sizes)
        ))  # fmt: skip

    edits = diff_modules(layers(range(2000)), layers([5000, *range(2000)])).edits
    assert lines(edits) == [
        ("added", None, "0", "", "", ""), ("shifted", "0", "1", "", "0…1999", "1…2000"),
    ]  # fmt: skip


def test_no_comparison_imports_torch() -> None:
    code = (
        "import sys; from reportgen.compare.modules import diff_modules\n"
        "from reportgen.comparable import ModuleRecord as R\n"
        "assert diff_modules((R(path='', type='A'),), (R(path='', type='B'),)).edits\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
