"""Example inputs of every form, reproducible by the seed; named tensors of every output."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from factories import make_spec
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import distributions

from reportgen.errors import ModelError, ReportgenError
from reportgen.example_inputs import Examples, make_examples
from reportgen.manifest import load_manifest
from reportgen.pytree import named_tensors

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8",
          "uint16", "uint32", "uint64", "bool", "complex64", "complex128"]  # fmt: skip


def make(*inputs: Any, batch: int = 2, seed: int = 0, **fields: Any) -> Examples:
    return make_examples(make_spec(*inputs, **fields), batch, seed)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.one_of(st.integers(1, 4), st.just("batch")), max_size=3),
    batch=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_a_tensor_has_the_specified_shape_and_dtype_and_depends_only_on_the_seed(
    dtype: str, shape: list[Any], batch: int, seed: int
) -> None:
    item = {"name": "x", "shape": shape, "dtype": dtype}
    before = torch.get_rng_state()
    first, again = (make(item, batch=batch, seed=seed).args[0] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert tuple(first.shape) == tuple(batch if d == "batch" else d for d in shape)
    assert first.dtype == getattr(torch, dtype)
    assert torch.equal(first, again)


def test_integers_stay_in_their_range() -> None:
    ids = make("ids=batch,1000:int64<7").args[0]
    assert (int(ids.min()), int(ids.max())) == (0, 6)


def test_floats_stay_in_their_range() -> None:
    x = make({"shape": [1000], "low": -2.0, "high": -1.0}).args[0]
    assert -2 <= float(x.min()) < float(x.max()) <= -1


def test_values_are_repeated_along_all_dims_except_the_last() -> None:
    grid = {"shape": ["batch", 3], "dtype": "int64", "values": [1, 4, 6]}
    assert torch.equal(make(grid).args[0], torch.tensor([[1, 4, 6], [1, 4, 6]]))
    assert torch.equal(make(grid, seed=7).args[0], make(grid).args[0])


def test_positional_keyword_nested_and_constant_arguments() -> None:
    made = make(
        "batch,3",
        {"items": ["batch,1", {"value": {"value": None}}], "as_tuple": True},
        {"name": "options", "keyword": True, "fields": {
            "mode": {"value": {"value": "fast"}}, "ids": "batch,seq:int64<9"}},
        dims={"seq": 5},
    )  # fmt: skip
    assert made.names == ("input0", "input1")
    assert isinstance(made.args[1], tuple)
    assert made.args[1][1] is None
    assert made.kwargs["options"]["mode"] == "fast"
    assert {key: tuple(t.shape) for key, t in made.tensors().items()} == {
        "input0": (2, 3),
        "input1.0": (2, 1),
        "options.ids": (2, 5),
    }


def test_per_sample_items_differ_between_samples() -> None:
    images = {"name": "images", "items": ["3,8,8"], "per_sample": True}
    (made,) = make(images, batch=3).args
    assert [tuple(image.shape) for image in made] == [(3, 8, 8)] * 3
    assert not torch.equal(made[0], made[1])
    assert len(make(images, batch=1).args[0]) == 1


def test_an_array_is_repeated_or_cut_to_the_batch_size(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    item = {"name": "x", "file": tmp_path / "x.npy", "shape": ["batch", 3]}
    assert make(item, batch=1).args[0].tolist() == [[0, 1, 2]]
    assert make(item, batch=3).args[0].shape == (3, 3)
    assert make({"name": "x", "file": tmp_path / "x.npy"}, batch=9).args[0].shape == (2, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.int64), np.zeros(3, np.float32)]
)
def test_an_array_that_does_not_match_its_shape_is_an_error(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ModelError, match=r"x\.npy contains .* expected \(2, 3\) float32"):
        make({"name": "x", "file": tmp_path / "x.npy", "shape": ["batch", 3]})


def test_a_big_endian_array_is_converted(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=">f4").reshape(2, 3))
    (x,) = make({"name": "x", "file": tmp_path / "x.npy"}).args
    assert torch.equal(x, torch.arange(6.0).reshape(2, 3))


def test_an_array_of_objects_is_rejected_without_unpickling(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError, match=r"not a numeric \.npy array"):
        make({"name": "x", "file": tmp_path / "x.npy"})


@pytest.mark.parametrize("name", ["x.safetensors", "x.safetensors:first"])
def test_a_tensor_is_read_from_safetensors(tmp_path: Path, name: str) -> None:
    tensors = {"first": torch.arange(6.0).reshape(2, 3)}
    save_file(tensors | ({"other": torch.ones(1)} if ":" in name else {}), tmp_path / name[:13])
    item = {"name": "x", "file": tmp_path / name, "shape": ["batch", 3]}
    assert make(item, batch=1).args[0].tolist() == [[0, 1, 2]]
    assert make({"name": "x", "file": tmp_path / name}).args[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x.safetensors", "contains 2 tensors, expected one"),
        ("x.safetensors:frist", "no tensor 'frist'"),
        ("cut.safetensors", "not a valid safetensors file"),
    ],
)
def test_a_missing_or_unreadable_tensor_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    save_file({"first": torch.ones(2), "other": torch.ones(1)}, tmp_path / "x.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"12345678")
    with pytest.raises(ModelError, match=words) as caught:
        make({"name": "x", "file": tmp_path / name})
    if "frist" in name:
        assert "x.safetensors:first" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("x.safetensors", ""),
        ("x.safetensors:first", ""),
        ("y.safetensors:first", "file not found"),
        ("x.pt", "must end in .npy or .safetensors"),
    ],
)
def test_a_manifest_selects_a_tensor_of_a_file(tmp_path: Path, file: str, words: str) -> None:
    save_file({"first": torch.ones(2)}, tmp_path / "x.safetensors")
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "version: 1\ntitle: t\nmodels:\n- name: m\n  source: torch.nn:Identity\n"
        f"  inputs: [{{name: x, file: '{file}'}}]\n"
    )
    if words:
        with pytest.raises(ReportgenError, match=words):
            load_manifest(manifest)
        return
    found = load_manifest(manifest).models[0]
    again = type(found).model_validate_json(found.model_dump_json())
    assert make_examples(again, 1, 0).args[0].tolist() == [1, 1]


def test_inputs_on_meta_are_meta_tensors() -> None:
    spec = make_spec("x=batch,3", {"name": "more", "items": ["ids=batch,5:int64<9"]})
    made = make_examples(spec, 2, 0, device="meta")
    assert {key: t.device.type for key, t in made.tensors().items()} == {
        "x": "meta",
        "more.0": "meta",
    }


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclass
class Record:
    logits: Any
    cache: Any = None


class Plain:
    def __init__(self) -> None:
        self.state = torch.zeros(4)
        self.layer = torch.nn.Linear(2, 2)
        self.name = "plain"
        self.me = self


ONES = torch.ones(2)


@pytest.mark.parametrize(
    ("value", "shapes"),
    [
        (None, {}),
        ("text", {}),
        (ONES, {"": (2,)}),
        (Pair(ONES, {"a": [ONES, None]}), {"left": (2,), "right.a.0": (2,)}),
        (Record(ONES), {"logits": (2,)}),
        (SimpleNamespace(a=ONES, b=3), {"a": (2,)}),
        (Plain(), {"state": (4,)}),
        (torch.nn.Linear(2, 2), {}),
        (distributions.Normal(ONES, ONES), {"loc": (2,), "scale": (2,)}),
        ({"policy": distributions.Categorical(logits=ONES)}, {"policy.logits": (2,)}),
        (distributions.Categorical(probs=ONES), {"probs": (2,)}),
        (
            distributions.Independent(distributions.Normal(ONES, ONES), 1),
            {"base_dist.loc": (2,), "base_dist.scale": (2,)},
        ),
        (
            torch.nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)]),
            {"data": (4, 2), "batch_sizes": (3,)},
        ),
        (
            torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)]),
            {"0": (2, 3), "1": (1, 3)},
        ),
        (
            torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(1, 3)], layout=torch.jagged),
            {"values": (3, 3), "offsets": (3,)},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_named_tensors_of_an_output(value: Any, shapes: Any) -> None:
    assert {key: tuple(t.shape) for key, t in named_tensors(value).items()} == shapes


def test_derived_parameters_of_a_distribution_are_not_listed() -> None:
    made = distributions.Categorical(logits=ONES)
    assert made.probs.shape == (2,)
    assert list(named_tensors(made)) == ["logits"]


def test_parameters_of_transforms_of_a_distribution_are_listed() -> None:
    base = distributions.Normal(torch.zeros(2), torch.ones(2))
    affine = distributions.AffineTransform(loc=ONES, scale=ONES * 2)
    chain = [distributions.ComposeTransform([distributions.TanhTransform(), affine])]
    made = distributions.TransformedDistribution(base, chain)
    made.log_prob(ONES * 1.5)  # fills caches
    assert list(named_tensors(made)) == [
        "base_dist.loc",
        "base_dist.scale",
        "transforms.0.parts.1.loc",
        "transforms.0.parts.1.scale",
    ]
    assert list(named_tensors(distributions.LogNormal(ONES, ONES))) == [
        "base_dist.loc",
        "base_dist.scale",
    ]
    assert "transforms.1.loc" not in named_tensors(distributions.Gumbel(ONES, ONES))


def test_named_tensors_of_a_transformers_output() -> None:
    from transformers.modeling_outputs import BaseModelOutput

    made = BaseModelOutput(last_hidden_state=ONES, hidden_states=(ONES, ONES))  # type: ignore[arg-type]
    assert list(named_tensors(made)) == ["last_hidden_state", "hidden_states.0", "hidden_states.1"]


def test_duplicate_paths_get_a_number() -> None:
    one = torch.zeros(1)
    found = named_tensors({1: one, "1": one, "a.b": one, "a": {"b": one}})
    assert list(found) == ["1", "1#2", "a.b", "a.b#2"]
