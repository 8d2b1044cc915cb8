"""Inputs of any structure, the same for the same seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories import make_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from reportgen.errors import ModelError
from reportgen.inputs import Examples, make_examples

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int32", "int16", "int8", "uint8",
          "bool", "complex64"]  # fmt: skip


def make(*inputs: Any, batch: int = 2, seed: int = 0, **fields: Any) -> Examples:
    return make_examples(make_spec(*inputs, **fields), batch, seed)


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.one_of(st.integers(1, 4), st.just("batch")), max_size=3),
    batch=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_a_tensor_has_the_shape_and_dtype_asked_for_and_depends_on_the_seed_alone(
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


def test_keywords_positions_structures_and_constants_arrive_as_written() -> None:
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


def test_an_array_is_read_and_fitted_to_the_batch(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(6, dtype=np.float32).reshape(2, 3))
    item = {"name": "x", "file": tmp_path / "x.npy", "shape": ["batch", 3]}
    assert make(item, batch=1).args[0].tolist() == [[0, 1, 2]]
    assert make(item, batch=3).args[0].shape == (3, 3)
    assert make({"name": "x", "file": tmp_path / "x.npy"}, batch=9).args[0].shape == (2, 3)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 4), np.float32), np.zeros((2, 3), np.int64), np.zeros(3, np.float32)]
)
def test_an_array_unlike_its_shape_is_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ModelError, match=r"x\.npy holds .* not \(2, 3\) float32"):
        make({"name": "x", "file": tmp_path / "x.npy", "shape": ["batch", 3]})


def test_an_array_of_objects_is_refused_unread(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(ModelError, match="no array of plain numbers"):
        make({"name": "x", "file": tmp_path / "x.npy"})
