"""Own forms of operators: each computes what its operator does, and goes into a file so."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from factories import make_spec, make_study
from torch import Tensor, nn

from reportgen.errors import SectionError
from reportgen.model_state import preserve_model_state
from reportgen.onnx.export import export_onnx
from reportgen.onnx.export.decompositions import _FORMS, use_decompositions
from reportgen.onnx.export.decompositions.complex_numbers import COMPLEX
from reportgen.pytree import named_tensors
from reportgen.sections.onnx import analyze

NAN = math.nan
aten = torch.ops.aten


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def twisted(*shape: int) -> Tensor:
    return torch.complex(normal(*shape), normal(*shape, seed=1))


def near_identity(size: int) -> Tensor:
    return normal(2, size, size) + 4 * torch.eye(size)


TIED = torch.tensor([[2.0, 1.0, 2.0, 0.0, 1.0], [0.0, 0.0, 3.0, 3.0, 3.0]])
ODD = torch.tensor([[2.0, NAN, 2.0, NAN, 1.0], [4.0, 0.0, 3.0, 3.0, 3.0]])
EDGES = torch.tensor([0.0, 1.0, 1.0, 2.0])
PLACES = torch.tensor([0, 1, 1, 2])
BOX = normal(2, 3, 7, 5)

CASES: dict[str, list[tuple[Any, ...]]] = {
    "_cdist_forward.default": [
        (normal(2, 3, 4), normal(2, 5, 4, seed=1), p, None) for p in (0.0, 1.0, 2.0, 3.0, math.inf)
    ],
    "_int_mm.default": [
        (torch.ones(17, 8, dtype=torch.int8) * 99, torch.ones(8, 8, dtype=torch.int8))
    ],
    "_is_all_true.default": [(TIED > -1,), (TIED > 0,)],
    "_is_any_true.default": [(TIED > 2,), (TIED > 3,)],
    "_pdist_forward.default": [(normal(5, 4), 1.0), (normal(5, 4), 2.0)],
    "as_strided_scatter.default": [
        (normal(4, 4), normal(4), [4], [5], 0),
        (normal(4, 4), normal(2, 2), [2, 2], [4, 1], 5),
    ],
    "bmm.dtype": [],  # torch has it for CUDA alone
    "mm.dtype": [],
    "copysign.Tensor": [(normal(4), -normal(4))],
    "cummax.default": [(TIED, 1), (normal(3, 4, 2), 1)],
    "cummin.default": [(TIED, -1), (normal(3, 4, 2), 0)],
    "cumprod.default": [(TIED, 1), (normal(3, 4, 2), 1), (torch.arange(1, 5), 0)],
    "hypot.default": [
        (normal(4), normal(4, seed=1)),
        (torch.tensor([3e30, 0.0]), torch.tensor([4e30, 0.0])),
    ],
    "index_reduce.default": [
        (normal(4, 4), 1, PLACES, normal(4, 4, seed=1), how)
        for how in ("amax", "amin", "mean", "prod")
    ],
    "kthvalue.default": [(normal(3, 5), 2), (normal(3, 5, 2), 4, 1, True)],
    "masked_select.default": [(TIED, TIED > 1), (TIED, TIED[:1] > 1)],
    "median.default": [(normal(3, 4),), (normal(5),), (ODD,)],
    "median.dim": [(normal(3, 5), 1), (normal(3, 4, 2), 1, True), (ODD, 1)],
    "put.default": [(normal(2, 3), PLACES[1:], normal(3)), (normal(2, 3), PLACES, normal(4), True)],
    "rrelu_with_noise_functional.default": [(normal(4), torch.zeros(4), 0.1, 0.3)],
    "scatter.reduce": [],
    "scatter.value_reduce": [],
    "searchsorted.Scalar": [(EDGES, 1.0), (EDGES, 0.5)],
    "searchsorted.Tensor": [(EDGES, TIED), (TIED.sort(-1).values, TIED)],
    "sort.stable": [],
    "unfold_backward.default": [
        (normal(2, 4, 3), [2, 9], 1, 3, 2),
        (normal(2, 3, 3), [2, 9], 1, 3, 3),
    ],
    "_linalg_slogdet.default": [(near_identity(5),)],
    "inverse.default": [(near_identity(size),) for size in (1, 2, 3, 4)],
    "linalg_inv.default": [(near_identity(3),)],
    "linalg_inv_ex.default": [(near_identity(3),)],
    "linalg_solve.default": [
        (near_identity(4), normal(2, 4, 3)),
        (near_identity(3), normal(2, 3)),
    ],
    "_adaptive_avg_pool3d.default": [(normal(2, 3, 5, 7, 4), [3, 2, 4])],
    "adaptive_max_pool2d.default": [(BOX, [3, 4]), (BOX.round(), [2, 2]), (BOX[0], [7, 1])],
    "adaptive_max_pool3d.default": [(normal(2, 3, 5, 7, 4).round(), [3, 2, 4])],
    "constant_pad_nd.default": [(twisted(2, 3), [0, 1])],
    "copy.default": [(twisted(2, 3), normal(2, 3)), (twisted(2, 3), twisted(2, 3))],
    "einsum.default": [("bij,jk->bik", [twisted(2, 3, 4), twisted(4, 5)])],
    "exp.default": [(twisted(4),)],
    "full.default": [],
    "zeros.default": [],
    "zeros_like.default": [(twisted(2, 3),)],
    "index.Tensor": [(twisted(2, 3), [None, PLACES])],
    "slice_scatter.default": [(twisted(2, 4), twisted(2, 2), 1, 1, 3)],
    "where.self": [(TIED > 1, twisted(2, 5), normal(2, 5))],
}
KEYWORDS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("scatter.reduce", (normal(2, 4), 1, PLACES.expand(2, 4), normal(2, 4)), {"reduce": "add"}),
    ("scatter.reduce", (normal(2, 4), 1, PLACES.expand(2, 4), TIED[:, :4]), {"reduce": "multiply"}),
    ("scatter.value_reduce", (normal(2, 4), 1, PLACES.expand(2, 4), 2.0), {"reduce": "add"}),
    ("full.default", ([2, 3], 1 + 2j), {"dtype": torch.complex64}),
    ("zeros.default", ([2, 3],), {"dtype": torch.complex128}),
    ("searchsorted.Tensor", (EDGES, TIED), {"right": True}),
    ("searchsorted.Tensor", (EDGES, TIED), {"side": "right", "out_int32": True}),
    ("searchsorted.Tensor", (EDGES.flip(0), TIED), {"sorter": torch.tensor([3, 1, 2, 0])}),
    ("sort.stable", (normal(3, 5), ), {"stable": True, "dim": 0, "descending": True}),
    ("linalg_solve.default", (near_identity(3), normal(2, 4, 3)), {"left": False}),
    ("index_reduce.default", (normal(4, 4), 1, PLACES, normal(4, 4), "amax"),
     {"include_self": False}),
]  # fmt: skip
ALL = [(name, given, {}) for name, cases in CASES.items() for given in cases] + KEYWORDS


def operator(name: str) -> Callable[..., Any]:
    packet, _, overload = name.partition(".")
    found: Callable[..., Any] = getattr(getattr(aten, packet), overload)
    return found


@pytest.mark.parametrize(("name", "given", "options"), ALL)
def test_a_form_gives_what_its_operator_does(
    name: str, given: tuple[Any, ...], options: dict[str, Any]
) -> None:
    wanted = named_tensors(operator(name)(*given, **options))
    form = {**_FORMS, **COMPLEX}[name]
    found = named_tensors(form(*given, **options))
    factors = {"2", "3"} if name.startswith("_linalg_slogdet") else set()  # LU and its pivots
    for key in wanted.keys() - factors:
        assert found[key].dtype == wanted[key].dtype, key
        torch.testing.assert_close(found[key], wanted[key], equal_nan=True, msg=key)


def test_every_form_is_tried() -> None:
    assert CASES.keys() == {**_FORMS, **COMPLEX}.keys()


def test_no_form_stands_where_the_exporter_has_its_own() -> None:
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    registered = ONNXRegistry.from_torchlib()
    assert not [name for name in _FORMS if registered.is_registered(operator(name))]
    assert all(registered.is_registered(operator(name)) for name in COMPLEX)


def test_the_exporter_is_given_back_as_it_was() -> None:
    from torch.onnx._internal.exporter import _decomp

    before = _decomp.create_onnx_friendly_decomposition_table
    with use_decompositions():
        assert _decomp.create_onnx_friendly_decomposition_table is not before
    assert _decomp.create_onnx_friendly_decomposition_table is before


def spectral(x: Tensor) -> Tensor:
    """A layer of a Fourier neural operator: it keeps the low frequencies alone."""
    found = torch.fft.rfft(x)
    kept = torch.zeros(found.shape, dtype=torch.cfloat)
    weight = torch.complex(torch.ones(4, 4, 2), 2 * torch.ones(4, 4, 2))
    kept[..., :2] = torch.einsum("bim,iom->bom", found[..., :2], weight)
    return torch.fft.irfft(kept, n=x.shape[-1])


class Everything(nn.Module):
    """Each operator that models use, as they call it."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        square = x[..., :4] + 4 * torch.eye(4)
        torch._check_tensor_all(x > -99)
        return {
            "all": torch.where(torch._is_all_true(x > -9), x, x + 1),
            "cdist": torch.cdist(x, x + 1),
            "city": torch.cdist(x, x + 1, p=1.0),
            "pool": nn.functional.adaptive_max_pool2d(x, 3),
            "pooled_at": nn.functional.adaptive_max_pool2d(x, 3, return_indices=True)[1],
            "pool3d": nn.functional.adaptive_avg_pool3d(x.reshape(-1, 1, 4, 2, 3), (3, 2, 2)),
            "inverse": torch.linalg.inv(square),
            "solution": torch.linalg.solve(square, x),
            "slogdet": torch.linalg.slogdet(square)[1],
            "edges": torch.searchsorted(EDGES, x),
            "kth": torch.kthvalue(x, 2).values,
            "median": x.median(-1).values,
            "argsort": torch.argsort(x.round(), stable=True),
            "argsort_down": torch.argsort(x.round(), stable=True, descending=True),
            "cummax": torch.cummax(x, 1).values,
            "cummin_at": torch.cummin(x, 1).indices,
            "cumprod": torch.cumprod(x, -1),
            "hypot": torch.hypot(x, x + 1),
            "rrelu": nn.functional.rrelu(x),
            "copysign": torch.copysign(x, x + 1),
            "diagonal": x[0].clone().fill_diagonal_(1.0),
            "index_reduce": x.index_reduce(1, PLACES, x, "amax"),
            "exponential": torch.exp(torch.complex(x, x)).abs(),
            "spectral": spectral(x),
        }


@pytest.mark.slow
@pytest.mark.parametrize("dynamic", [[], ["batch"]])
def test_the_forms_go_into_a_file_that_agrees_with_pytorch(
    dynamic: list[str], tmp_path: Path
) -> None:
    context = make_study(
        Everything(), "x=batch,4,6", folder=tmp_path, timings=False, onnx={"dynamic": dynamic}
    )
    result: Any = analyze(context)
    assert result.export.dynamic == tuple(dynamic)
    assert result.parity.passed, result.parity.failure
    assert result.file.custom_operators == ()
    assert {"aten._is_all_true", "aten.cumprod", "aten.kthvalue"} <= set(
        result.export.decomposed_operators
    )


@pytest.mark.slow
def test_a_form_works_at_sizes_that_were_not_traced(tmp_path: Path) -> None:
    class Along(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            return (
                x.median(1).values, torch.cumprod(x, 1), torch.cummax(x, 1).values,
                torch.cdist(x, x + 1), torch.argsort(x, dim=1, stable=True),
                torch.istft(torch.stft(x[..., 0], 4, window=torch.ones(4), return_complex=True), 4,
                            window=torch.ones(4)),
            )  # fmt: skip

    spec = make_spec(
        "x=batch,time,3", batch=2, dims={"time": 8}, onnx={"dynamic": ["batch", "time"]}
    )
    with preserve_model_state(Along()) as model:
        file = export_onnx(model, spec, tmp_path)
    assert file.dynamic == ("batch", "time")
    session = onnxruntime.InferenceSession(str(file.path), providers=["CPUExecutionProvider"])
    x = normal(3, 12, 3)
    for wanted, found in zip(Along()(x), session.run(None, {"x": x.numpy()}), strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_what_has_no_form_for_its_sizes_is_told_as_before(tmp_path: Path) -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.inv(x)

    with pytest.raises(SectionError) as told, preserve_model_state(Large()) as model:
        export_onnx(model, make_spec("x=batch,6,6"), tmp_path)
    assert told.value.error.startswith("unsupported operator aten.linalg_inv.default")
    assert "4×4" in told.value.hint
