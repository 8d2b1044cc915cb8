"""Parity: state, ties, histograms, half precision, and where a broken file leaves PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from factories import make_study
from hypothesis import given
from hypothesis import strategies as st
from layer_models import Returning
from torch import Tensor, nn

from reportgen.sections.onnx import SECTION, OnnxResult
from reportgen.sections.onnx.analysis import analyze_exported
from reportgen.sections.onnx.parity.divergence.intermediates import load_file_graph
from reportgen.sections.onnx.parity.divergence.suspects import _assess as judged
from reportgen.sections.onnx.parity.histogram import error_histogram, ulp_distance
from reportgen.sections.onnx.parity.state import State

pytestmark = pytest.mark.slow  # every one of them exports and runs a file

Look = Callable[..., OnnxResult]
Edit = Callable[[onnx.ModelProto], None]


@pytest.fixture
def look(tmp_path: Path) -> Look:
    """Examine a model, after somebody has edited its file."""

    def look(model: nn.Module, *inputs: Any, edit: Edit | None = None, **fields: Any) -> OnnxResult:
        context = make_study(model, *inputs, folder=tmp_path, timings=False, **fields)
        file = context.onnx_file()
        if edit is not None:
            proto = onnx.load(file.path)
            edit(proto)
            onnx.save(proto, file.path)
        return analyze_exported(context, file)

    return look


def codes(result: OnnxResult) -> set[str]:
    return {hit.code for rule in SECTION.rules for hit in rule.findings(result)}


def change(name: str, write: Callable[[Any], None]) -> Edit:
    """An edit of one stored tensor."""

    def edit(model: onnx.ModelProto) -> None:
        stored = next(t for t in model.graph.initializer if t.name == name)
        array = onnx.numpy_helper.to_array(stored).copy()
        write(array)
        stored.CopyFrom(onnx.numpy_helper.from_array(array, name))

    return edit


def more(array: Any) -> None:
    array.reshape(-1)[0] += 0.5


# Nothing to compare --------------------------------------------------------------------------


class Finds(nn.Module):
    """A detector: it returns the rows whose score is above a bar."""

    def __init__(self, bar: float) -> None:
        super().__init__()
        self.score = nn.Linear(4, 1)
        self.bar = bar

    def forward(self, x: Tensor) -> Tensor:
        return x[self.score(x)[:, 0] > self.bar]


def test_a_detector_that_finds_nothing_is_compared_again_with_perturbed_parameters(
    look: Look,
) -> None:
    parity = look(Finds(bar=1e9), "batch,4").parity
    assert (parity.passed, parity.vacuous) == (True, False)
    assert "every output is empty, so the comparison was repeated" in parity.note
    assert "with these, still every output is empty" in parity.note
    assert "empty" not in look(Finds(bar=-1e9), "batch,4").parity.note


# The second call ----------------------------------------------------------------------------


class Selects(nn.Module):
    """A detector that torch.export refuses: the best of 64 candidates, above a bar."""

    def __init__(self, spread: float, bar: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head, self._spread, self._bar = nn.Linear(4, 1), spread, bar

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.head(x)[:, 0] * self._spread + 0.5
        if scores.max() < -1e9:
            scores = -scores
        best, places = scores.topk(8)
        return {"rows": x[places][best > self._bar], "scores": best[best > self._bar]}


APART, EQUAL, NO_BAR, HIGH_BAR = 1.0, 1e-9, -1e9, 1e9
CANDIDATES = {"name": "x", "shape": [64, 4]}


def test_a_traced_detector_is_compared_by_its_rows(look: Look) -> None:
    result = look(Selects(APART, NO_BAR), CANDIDATES)
    assert (result.parity.passed, result.parity.vacuous) == (True, False)
    assert result.parity.before_selection == ""
    assert codes(result) == {"ONX037"}


def test_rows_that_rounding_chooses_are_vacuous_and_their_scores_are_compared(look: Look) -> None:
    result = look(Selects(EQUAL, NO_BAR), CANDIDATES)
    assert (result.parity.passed, result.parity.vacuous) == (True, True)
    assert "the outputs of head" in result.parity.before_selection
    assert {"ONX026", "ONX037"} <= codes(result)


def test_a_detector_that_returns_no_rows_is_compared_before_the_selection(look: Look) -> None:
    result = look(Selects(APART, HIGH_BAR), CANDIDATES)
    assert (result.parity.passed, result.parity.vacuous) == (True, True)
    assert "the outputs of head" in result.parity.before_selection


@pytest.mark.parametrize(("spread", "bar"), [(EQUAL, NO_BAR), (APART, HIGH_BAR), (APART, NO_BAR)])
def test_wrong_scores_fail_whether_or_not_rows_can_be_compared(
    look: Look, spread: float, bar: float
) -> None:
    result = look(Selects(spread, bar), CANDIDATES, edit=change("head.weight", more))
    assert result.parity.passed is False
    assert "ONX001" in codes(result)


def test_a_traced_file_fails_on_inputs_that_take_the_other_branch(look: Look) -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum() > 0 else x

    result = look(Branches(), "batch,4", batch=2)
    # not every seed takes the example's branch
    assert {case.passed for case in result.parity.cases} == {True, False}
    assert {"ONX001", "ONX037"} <= codes(result)
    assert result.parity.divergence is not None
    assert result.parity.divergence.cause == "model"
    assert "control flow" in result.parity.divergence.sentences[0]


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.steps.add_(1)
        return self.layer(x) + self.steps


class Cache(nn.Module):
    """Adds what it saw last, which it keeps in a plain attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        if self.seen and self.seen[-1].shape == y.shape:
            y = y + self.seen[-1]
        self.seen.append(y)
        return y


@pytest.mark.parametrize(
    ("model", "state"), [(Counter, "steps (buffer)"), (Cache, "seen (attribute)")]
)
def test_a_model_that_keeps_state_is_named_with_what_changes(
    look: Look, model: type[nn.Module], state: str
) -> None:
    result = look(model(), "batch,4")
    second = result.parity.second_call
    assert second is not None
    assert (second.pytorch_repeats, second.file_repeats) == (False, True)
    assert [str(change) for change in second.state] == [state]
    assert result.parity.passed, "every case starts from the state before the first"
    assert state in result.parity.note
    assert "ONX020" in codes(result)


def test_a_model_without_state_repeats_itself(look: Look) -> None:
    result = look(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)), "batch,3,5,5")
    second = result.parity.second_call
    assert second is not None
    assert (second.pytorch_repeats, second.file_repeats, second.state) == (True, True, ())
    assert not codes(result) & {"ONX020", "ONX021", "ONX022"}


def test_a_memo_that_the_first_call_fills_is_no_state(look: Look) -> None:
    class Memo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.memo: dict[str, int] = {}

        def forward(self, x: Tensor) -> Tensor:
            self.memo["width"] = x.shape[-1]
            return self.layer(x)

    second = look(Memo(), "batch,4").parity.second_call
    assert second is not None
    assert second.state == ()


class PositionCache(nn.Module):
    """Writes its input into a cache at a position, which is an input, and sums the cache."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("cache", torch.zeros(64, 4))

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        self.cache[position] = self.layer(x)
        return self.cache.sum(0)


def test_a_cache_written_at_an_input_position_is_state(look: Look) -> None:
    position = {"name": "position", "shape": ["batch"], "dtype": "int64", "high": 64}
    result = look(PositionCache(), "batch,4", position)
    second = result.parity.second_call
    assert second is not None
    assert (second.pytorch_repeats, second.calls_are_independent) == (True, False)
    assert [str(change) for change in second.state] == ["cache (buffer)"]
    assert "ONX020" in codes(result)


def test_a_weight_written_through_data_is_state_and_restored(look: Look) -> None:
    class Writes(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data *= 2
            return super().forward(x)

    model = Writes(4, 4)
    before = model.weight.detach().clone()
    state = State(model, copy_parameters=True)
    model(torch.ones(1, 4))
    assert [str(change) for change in state.changes()] == ["weight (parameter)"]
    state.restore()
    assert torch.equal(model.weight, before)
    assert state.changes() == ()
    model.weight.data = torch.zeros(2, 4)
    state.restore()
    assert torch.equal(model.weight, before)


# PyTorch's fused encoder path ----------------------------------------------------------------


class Padded(nn.Module):
    """Mean-pools an encoder's output, padded positions included."""

    def __init__(self, *, masked: bool) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2)
        self.masked = masked

    def forward(self, x: Tensor) -> Tensor:
        pad = torch.arange(x.shape[1]).expand(x.shape[0], -1) >= 4
        body: Tensor = self.body(x, src_key_padding_mask=pad)
        return (body.masked_fill(pad[..., None], 0) if self.masked else body).mean(1)


@pytest.mark.parametrize("masked", [True, False])
def test_the_fused_encoder_path_is_compared_as_well(look: Look, *, masked: bool) -> None:
    model = Padded(masked=masked).eval()
    x = torch.randn(2, 6, 32)
    with torch.no_grad():
        fused = model(x)
        torch.backends.mha.set_fastpath_enabled(False)
        apart = float((model(x) - fused).abs().max())
        torch.backends.mha.set_fastpath_enabled(True)
    result = look(model, "batch,6,32")
    assert result.parity.passed
    found = result.parity.fused_path
    assert found is not None
    assert (found.passed, "ONX024" in codes(result)) == (masked, not masked)
    assert (apart < 1e-5) == masked
    assert (found.max_absolute_error or 0) == pytest.approx(apart, rel=1, abs=1e-5)


def test_a_model_that_draws_is_unrepeatable(look: Look) -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + torch.rand_like(x)

    result = look(Noisy(4, 4), "batch,4")
    assert result.parity.passed is False
    assert result.parity.divergence is not None
    assert result.parity.divergence.operator == "RandomUniformLike"
    assert {"ONX001", "ONX007", "ONX022"} <= codes(result)


def test_state_is_put_back_bit_for_bit() -> None:
    model = Cache()
    model.add_module("counter", Counter())
    model.seen.append(torch.ones(1, 4))
    state = State(model)
    with torch.no_grad():
        model.counter(model(torch.ones(1, 4)))
    model.extra = 5
    assert tuple(map(str, state.changes())) == (
        "counter.steps (buffer)",
        "extra (attribute)",
        "seen (attribute)",
    )
    state.restore()
    assert state.changes() == ()
    assert (len(model.seen), float(model.counter.steps)) == (1, 0.0)
    assert not hasattr(model, "extra")


class SparseCounter(nn.Module):
    """Counts its calls in a sparse buffer, unless it `keeps` it."""

    def __init__(self, layout: torch.layout, *, keeps: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.register_buffer("counts", torch.eye(4).to_sparse(layout=layout))
        self.keeps = keeps

    def forward(self, x: Tensor) -> Tensor:
        if not self.keeps:
            self.counts = self.counts * 2
        return self.layer(x)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_a_sparse_buffer_is_compared_and_put_back(look: Look, layout: torch.layout) -> None:
    result = look(SparseCounter(layout, keeps=True), "batch,4")
    assert result.parity.passed
    assert result.parity.second_call is not None
    assert result.parity.second_call.state == ()

    model = SparseCounter(layout, keeps=False)
    state = State(model)
    model(torch.ones(1, 4))
    assert [str(change) for change in state.changes()] == ["counts (buffer)"]
    state.restore()
    assert state.changes() == ()
    assert torch.equal(model.counts.to_dense(), torch.eye(4))


class Edges(nn.Module):
    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        return torch.zeros_like(x).index_add(0, edges[0], x[edges[1]])


def test_sizes_that_only_grow_are_compared_one_larger(look: Look) -> None:
    result = look(
        Edges(),
        {"name": "x", "shape": ["nodes", 3]},
        {"name": "edges", "shape": [2, "edges"], "dtype": "int64", "high": 7},
        dims={"nodes": 7, "edges": 40},
        onnx={"dynamic": ["nodes", "edges"]},
    )
    assert {"nodes": 8, "edges": 41} in [case.dims for case in result.parity.cases]
    assert "ONX031" not in codes(result)


class WritesWeights(nn.Module):
    """Scales rows of its table in place where they are too long, and a weight in every call."""

    def __init__(self, *, shrinks: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4, max_norm=1.0)
        self.scale = nn.Parameter(torch.ones(4), requires_grad=False)
        self.shrinks = shrinks

    def forward(self, ids: Tensor) -> Tensor:
        if self.shrinks:
            self.scale.mul_(0.5)
        return self.table(ids) * self.scale


@pytest.mark.parametrize("shrinks", [False, True])
def test_every_case_meets_the_parameters_that_were_exported(look: Look, *, shrinks: bool) -> None:
    ids = {"name": "ids", "shape": ["batch", 5], "dtype": "int64", "high": 10}
    result = look(WritesWeights(shrinks=shrinks), ids)
    assert result.parity.passed, result.parity.failure
    assert result.parity.second_call is not None
    assert "table.weight (parameter)" in map(str, result.parity.second_call.state)
    assert result.export.stored_parameters is not None
    assert "table.weight" not in result.export.stored_parameters.absent


# Ties and order -----------------------------------------------------------------------------


class Chosen(nn.Module):
    """The five best of 64 scores, coarse enough for ties, and what stands at their places."""

    def __init__(self, *, is_coarse: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.score, self.is_coarse = nn.Linear(4, 64), is_coarse

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.score(x)
        values, indices = ((y * 2).round() if self.is_coarse else y).topk(5)
        return values, indices


def reversed_rows(output: str) -> Edit:
    """An edit that gives an output backwards along its last axis."""

    def edit(model: onnx.ModelProto) -> None:
        maker = next(n for n in model.graph.node if output in n.output)
        maker.output[list(maker.output).index(output)] = f"{output}_before"
        for name, value in (("one", -1), ("least", -(2**62)), ("axis", -1)):
            array = np.array([value], dtype=np.int64)
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"{output}_{name}"))
        names = [f"{output}_{name}" for name in ("one", "least", "axis", "one")]
        model.graph.node.append(
            onnx.helper.make_node("Slice", [f"{output}_before", *names], [output])
        )

    return edit


def test_indices_that_differ_between_ties_pass_and_are_said(look: Look) -> None:
    outputs = look(Chosen(), "batch,4").parity.cases[0].outputs
    assert [output.passed for output in outputs] == [True, True]
    assert "all between equal scores (topk)" in outputs[1].note


def test_indices_in_a_wrong_order_fail_though_values_and_set_are_right(look: Look) -> None:
    parity = look(Chosen(is_coarse=False), "batch,4", edit=reversed_rows("output.1")).parity
    values, indices = parity.cases[0].outputs
    assert (parity.passed, values.passed, indices.passed) == (False, True, False)
    assert "the same values in another order" in indices.note


def test_an_index_next_to_the_best_of_a_smooth_curve_fails(look: Look) -> None:
    class Peak(nn.Module):
        """Neighbors of the best differ by far less than the tolerance of a comparison."""

        def forward(self, x: Tensor) -> Tensor:
            place = torch.arange(1000) - 500 - 10 * x.mean(-1, keepdim=True)
            return (10 - (place / 100) ** 2).argmax(-1)

    def off_by_one(model: onnx.ModelProto) -> None:
        maker = next(n for n in model.graph.node if n.op_type == "ArgMax")
        maker.output[0] = "before"
        one = onnx.numpy_helper.from_array(np.array(2, dtype=np.int64), "two")
        model.graph.initializer.append(one)
        place = list(model.graph.node).index(maker)
        add = onnx.helper.make_node("Add", ["before", "two"], ["output"])
        model.graph.node.insert(place + 1, add)

    assert look(Peak(), "batch,4").parity.passed
    assert look(Peak(), "batch,4", edit=off_by_one).parity.passed is False


class Detector(nn.Module):
    """Boxes of the best scores; `is_ordered` says whether the best come first."""

    def __init__(self, *, is_ordered: bool, is_coarse: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.box, self.score = nn.Linear(4, 4), nn.Linear(4, 1)
        self.is_ordered, self.is_coarse = is_ordered, is_coarse

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        scores = self.score(x).squeeze(-1)
        scores = (scores * 2).round() if self.is_coarse else scores
        best, places = scores.topk(6, sorted=self.is_ordered)
        boxes = self.box(x).gather(1, places[..., None].expand(-1, -1, 4))
        return {"boxes": boxes, "scores": best}


def swap_first_two(*outputs: str) -> Edit:
    """An edit that swaps the first two rows of outputs along axis 1."""

    def edit(model: onnx.ModelProto) -> None:
        order = np.array([1, 0, 2, 3, 4, 5], dtype=np.int64)
        model.graph.initializer.append(onnx.numpy_helper.from_array(order, "order"))
        for output in outputs:
            maker = next(n for n in model.graph.node if output in n.output)
            maker.output[list(maker.output).index(output)] = f"{output}_before"
            for node in model.graph.node:
                for place, name in enumerate(node.input):
                    if name == output:
                        node.input[place] = f"{output}_before"
            model.graph.node.append(
                onnx.helper.make_node("Gather", [f"{output}_before", "order"], [output], axis=1)
            )

    return edit


def test_rows_whose_order_is_open_may_stand_elsewhere(look: Look) -> None:
    parity = look(
        Detector(is_ordered=False), "batch,12,4", edit=swap_first_two("boxes", "scores")
    ).parity
    assert parity.passed, parity.failure
    assert "topk does not define the order" in parity.cases[0].outputs[0].note


def test_rows_that_did_not_all_move_alike_fail(look: Look) -> None:
    parity = look(Detector(is_ordered=False), "batch,12,4", edit=swap_first_two("boxes")).parity
    assert parity.passed is False


def test_rows_in_a_wrong_order_fail_where_the_order_is_settled(look: Look) -> None:
    parity = look(
        Detector(is_ordered=True), "batch,12,4", edit=swap_first_two("boxes", "scores")
    ).parity
    assert parity.passed is False
    assert "the same values in another order" in parity.cases[0].outputs[1].note


def test_a_sequence_given_backwards_fails_beside_a_choice_it_has_nothing_to_do_with(
    look: Look,
) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            y = self.layer(x)
            return y, y.topk(6, sorted=False).values.sum(-1)

    parity = look(Both(), "batch,6", edit=reversed_rows("output.0")).parity
    outputs = parity.cases[0].outputs
    assert (outputs[0].passed, outputs[1].passed) == (False, True)


# Histograms ---------------------------------------------------------------------------------


@given(st.floats(width=32, allow_nan=False, allow_infinity=False), st.integers(0, 40))
def test_the_distance_is_the_number_of_steps_to_the_next_number(start: float, steps: int) -> None:
    here = there = np.float32(start)
    for _ in range(steps):
        there = np.nextafter(there, np.float32(np.inf))
    if np.isfinite(there):
        distance = ulp_distance(torch.tensor([here]), torch.tensor([there]))
        assert distance.item() == steps


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_and_the_next_number_are_one_apart_in_every_dtype(dtype: torch.dtype) -> None:
    one = torch.ones(1, dtype=dtype)
    assert ulp_distance(one, one + torch.finfo(dtype).eps).item() == 1
    assert ulp_distance(-one * 0, one * 0).item() == 0


def test_the_extremes_of_float64_do_not_overflow() -> None:
    most = torch.tensor([torch.finfo(torch.float64).max], dtype=torch.float64)
    assert ulp_distance(most, -most).item() == torch.iinfo(torch.int64).max
    assert ulp_distance(-most, most).item() == torch.iinfo(torch.int64).max


def test_every_finite_element_is_in_one_bin_of_each_histogram() -> None:
    reference = torch.tensor([1.0, 1.0, 2.0, 0.0, float("nan"), 100.0])
    found = torch.tensor([1.0, 1.0 + 2**-23, 2.2, 1.0, float("nan"), 100.25])
    histogram = error_histogram("x", reference, found, batch=1, seed=0)
    assert histogram is not None
    assert histogram.elements == 5
    ulps = {each.label: each.elements for each in histogram.ulps if each.elements}
    assert ulps == {"0": 1, "1": 1, "65,536 and more": 2, "4,096 – 65,535": 1}
    relative = {each.label: each.elements for each in histogram.relative if each.elements}
    assert relative == {
        "equal": 1,
        "1e-7 – 1e-6": 1,
        "1e-3 – 1e-2": 1,
        "1e-1 – 1": 1,
        "1 and more": 1,
    }


def test_the_worst_case_of_a_float_output_has_a_histogram(look: Look) -> None:
    parity = look(nn.Linear(4, 3), "batch,4").parity
    (histogram,) = parity.histograms
    assert histogram.output == "output"
    assert sum(each.elements for each in histogram.ulps) == histogram.elements
    assert histogram.elements in (3, 9)


def test_integers_have_no_histogram() -> None:
    whole = torch.tensor([1, 2])
    assert error_histogram("x", whole, whole, batch=1, seed=0) is None


# Half precision -----------------------------------------------------------------------------


def test_a_bfloat16_model_is_compared_in_float32_and_that_is_said(look: Look) -> None:
    result = look(nn.Linear(4, 3).bfloat16(), "x=batch,4:bfloat16")
    parity = result.parity
    assert (parity.passed, parity.compared_dtype) == (True, "float32")
    assert "not runnable in bfloat16 on CPU onnxruntime" in parity.note
    assert "compared in float32 instead" in parity.note
    assert {output.dtype for case in parity.cases for output in case.outputs} == {"float32"}
    assert "ONX021" in codes(result)
    assert "ONX008" not in codes(result)


def test_float16_runs_as_it_is(look: Look) -> None:
    parity = look(nn.Linear(4, 3).half(), "x=batch,4:float16").parity
    assert (parity.passed, parity.compared_dtype) == (True, "")


def test_a_copy_that_fails_too_leaves_parity_not_run(look: Look) -> None:
    class Stubborn(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.bfloat16()) if x.dtype == torch.bfloat16 else x.missing

    parity = look(Stubborn(4, 3).bfloat16(), "x=batch,4:bfloat16").parity
    assert parity.passed is None
    assert "in float32 it fails too" in parity.not_run


# Where a broken file leaves PyTorch ---------------------------------------------------------


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.act, self.out = nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.out(self.act(self.inner(x))))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        return x, self.head(x)


def test_a_right_file_has_no_divergence(look: Look) -> None:
    parity = look(Network(), "batch,5,4").parity
    assert (parity.passed, parity.divergence, parity.failure) == (True, None, "")


class Hardened(Block):
    """Does otherwise while it is exported, as where a mask is looked at before it is used."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + (0.5 if torch.compiler.is_exporting() else 0.0)


def test_a_model_that_does_otherwise_while_it_is_exported_is_to_blame_itself(look: Look) -> None:
    model = Network()
    model.blocks[1] = Hardened()
    found = look(model, "batch,5,4").parity.divergence
    assert found is not None
    assert (found.cause, found.module) == ("model", "blocks.1")
    assert "behaves differently during export" in found.sentences[0]


def test_a_changed_weight_is_found_with_module_node_and_weight(look: Look) -> None:
    result = look(Network(), "batch,5,4", edit=change("blocks.1.out.bias", more))
    found = result.parity.divergence
    assert found is not None
    assert (found.module, found.module_type, found.cause) == ("blocks.1.out", "Linear", "file")
    assert found.operator == "Add"
    errors = {each.path: each for each in found.calls}
    assert errors["blocks.0.out"].agrees  # upstream
    wrong = errors["blocks.1.out"]
    assert (wrong.call, wrong.node, wrong.agrees) == (0, found.node, False)
    offered = SECTION.comparable(result)
    parity = next(each for each in offered.module_figures if each.key == "parity")
    assert parity.values["blocks.1.out"] == parity.values[found.node] == found.max_absolute_error
    (remark,) = offered.remarks
    assert (remark.module, remark.node) == ("blocks.1.out", found.node)
    assert "blocks.1.out.bias differs from the model's own in 1 of 4 values" in found.sentences[-1]
    message = next(
        hit.message
        for rule in SECTION.rules
        for hit in rule.findings(result)
        if hit.code == "ONX001"
    )
    assert "blocks.1.out (Linear) is the first module whose output differs" in message


def test_a_changed_operator_is_found_in_its_module(look: Look) -> None:
    def edit(model: onnx.ModelProto) -> None:
        gelu = next(
            node
            for node in model.graph.node
            if node.op_type == "Gelu" and "blocks.2.act" in str(node.metadata_props)
        )
        gelu.op_type = "Relu"
        del gelu.attribute[:]

    found = look(Network(), "batch,5,4", edit=edit).parity.divergence
    assert found is not None
    assert found.module == "blocks.2.act"
    assert any(node.startswith("Relu") for node in found.nodes)
    assert "the exported graph differs from the model" in found.sentences[-1]


def test_a_convolution_that_holds_a_batch_norm_is_found_by_its_own_name(look: Look) -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    for norm in (model[1], model[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    found = look(model, "batch,3,8,8", edit=change("3.weight", more)).parity.divergence
    assert found is not None
    assert (found.module, found.module_type, found.operator) == ("3", "Conv2d", "Conv")
    assert "the batch norm 4 multiplied in" in found.sentences[-1]


def test_the_difference_of_functional_code_is_the_models_own(look: Look) -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).cos() * 2

    def edit(model: onnx.ModelProto) -> None:
        next(node for node in model.graph.node if node.op_type == "Cos").op_type = "Sin"

    found = look(Functional(), "batch,4", edit=edit).parity.divergence
    assert found is not None
    assert (found.module, found.operator) == ("", "Sin")


def test_the_smallest_failing_output_is_told_first(look: Look) -> None:
    parity = look(Network(), "batch,5,4", edit=change("blocks.0.norm.bias", more)).parity
    assert [output.passed for output in parity.cases[0].outputs] == [False, False]
    assert parity.failure.startswith("at batch 1, seed 0 output.1 (1 × 5 × 2) is off by up to")


def test_what_onnxruntimes_optimizer_does_is_told_apart_from_the_export(look: Look) -> None:
    class Scaled(nn.Module):
        """A product of three factors, which a fused convolution multiplies in another order."""

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv = nn.Conv2d(1, 64, 1, bias=False)
            self.scale = nn.Parameter(torch.randn(64, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) * self.scale

    exact = {"tolerance": {"absolute": 0.0, "relative": 0.0}}
    found = look(Scaled(), "batch,1,8,8", onnx=exact).parity.divergence
    assert found is not None
    assert found.cause == "optimizer"
    assert "the difference comes from onnxruntime's graph optimizer" in found.sentences[0]


def test_the_examination_leaves_no_hook_and_no_file(look: Look, tmp_path: Path) -> None:
    model = Network()
    look(model, "batch,5,4", edit=change("blocks.1.out.bias", more))
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_weight_perturbed_in_a_resnets_depth_is_named(look: Look) -> None:
    from torchvision.models.resnet import BasicBlock, ResNet

    def raise_one_filter(array: Any) -> None:
        array[0] += 1

    torch.manual_seed(0)
    model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=5)
    edit = change("layer3.0.conv2.weight", raise_one_filter)
    found = look(model, "batch,3,32,32", edit=edit).parity.divergence
    assert found is not None
    assert found.module == "layer3.0.conv2"


def test_structure_only_is_not_run(tmp_path: Path) -> None:
    from dataclasses import replace

    context = make_study(nn.Linear(4, 3), "batch,4", folder=tmp_path, timings=False)
    file = replace(context.onnx_file(), structure_only=True)
    parity = analyze_exported(context, file).parity
    assert parity.passed is None
    assert "structure only" in parity.not_run


def test_two_broken_examinations_are_equal(look: Look) -> None:
    edit = change("blocks.1.out.bias", more)
    first, second = (look(Network(), "batch,5,4", edit=edit).parity for _ in range(2))
    assert first == second


# What there is to compare --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda _: None, "the model returns no tensor to compare"),
        (
            lambda y: y.detach().numpy(),
            "forward returns ndarray, not a tensor: nothing to compare",
        ),
    ],
)
def test_a_model_without_a_tensor_is_not_compared_and_says_why(
    look: Look, answer: Callable[[Tensor], Any], reason: str
) -> None:
    result = look(Returning(answer), "batch,4")
    assert (result.parity.passed, result.parity.not_run) == (None, reason)
    assert codes(result) & {"ONX001", "ONX008"} == {"ONX008"}


def test_nan_on_both_sides_is_blamed_on_nobody(look: Look) -> None:
    parity = look(Returning(lambda y: y * float("nan")), "batch,4").parity
    assert parity.passed is False
    assert parity.divergence is None


def test_a_model_of_inference_tensors_is_compared(look: Look) -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    assert look(model, "batch,4").parity.passed


def test_a_size_at_which_pytorch_fails_is_told_whole(look: Look) -> None:
    def answer(y: Tensor) -> Tensor:
        if not torch.compiler.is_exporting() and len(y) == 1:
            raise ValueError("one sample is too few " + "and " * 40 + "so on")
        return y * 2

    assert "and so on" in look(Returning(answer), "batch,4").parity.note


# Rounding -----------------------------------------------------------------------------------


class Canceling(nn.Module):
    """A small signal beside two large sums that cancel, in float64 to nothing."""

    def __init__(self, *, drops: bool = False) -> None:
        super().__init__()
        self._drops = drops
        self.signal = nn.Linear(512, 8)
        self.large = nn.Parameter(normal(4096, 8))
        self.register_buffer("gain", torch.full((8,), 3.0))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.repeat(1, 8)
        there, back = wide @ self.large * self.gain, wide.flip(-1) @ self.large.flip(0) * 3.0
        y: Tensor = self.signal(x) + there - back
        return nn.functional.dropout(y, 0.01, self._drops)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_differences_as_large_as_pytorchs_own_rounding_pass_and_are_told(look: Look) -> None:
    result = look(Canceling(), "x=batch,512")
    outputs = [output for case in result.parity.cases for output in case.outputs]
    assert result.parity.passed, result.parity.failure
    assert any(output.within_rounding for output in outputs)
    note = next(output.note for output in outputs if output.within_rounding)
    assert note.startswith("within PyTorch's own rounding error: compared with the model")
    assert "this is rounding" in result.parity.note
    assert "ONX023" in codes(result)


def test_a_weight_that_is_off_by_less_than_it_shows_is_named_all_the_same(look: Look) -> None:
    def write(array: Any) -> None:
        array.reshape(-1)[0] *= 1.0003

    result = look(Canceling(), "x=batch,512", edit=change("large", write))
    assert result.parity.passed is False
    assert result.parity.divergence is not None
    assert "the file's large differs" in result.parity.divergence.sentences[-1]
    assert "ONX023" not in codes(result)


def test_a_constant_that_is_off_is_more_than_rounding(look: Look) -> None:
    def edit(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if not tensor.dims and tensor.data_type == onnx.TensorProto.FLOAT:
                value = onnx.numpy_helper.to_array(tensor) * np.float32(1.0002)
                tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))

    result = look(Canceling(), "x=batch,512", edit=edit)
    assert result.parity.passed is False
    assert "more than rounding: compared with the model in float64" in result.parity.failure


def test_a_wrong_epsilon_where_values_are_small_is_more_than_rounding(look: Look) -> None:
    def edit(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for attribute in node.attribute:
                if attribute.name == "epsilon":
                    attribute.f = 1.02e-5

    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.norm(x * 1e-3)
            return y

    result = look(Faint(), "x=batch,16", edit=edit)
    assert result.parity.passed is False
    assert "more than rounding" in result.parity.failure


def test_a_tolerance_that_is_asked_for_holds_whatever_rounding_takes(look: Look) -> None:
    asked = {"tolerance": {"absolute": 0.0, "relative": 0.0}}
    result = look(nn.Sequential(nn.Linear(512, 64), nn.GELU()), "x=batch,512", onnx=asked)
    assert result.parity.passed is False
    assert "within PyTorch's own rounding error" in result.parity.failure
    assert "ONX023" not in codes(result)


def test_chance_is_not_taken_for_rounding(look: Look) -> None:
    result = look(Canceling(drops=True), "x=batch,512")
    assert result.parity.passed is False
    assert "rounding" not in result.parity.failure


# Chance and kernels -------------------------------------------------------------------------


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class Drawing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Sequential(nn.Linear(4, 4), Noisy())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.noise(x), 0.5, training=True)


def test_random_operators_are_named_with_module_file_and_line(look: Look) -> None:
    result = look(Drawing(), "batch,4")
    line = Noisy.forward.__code__.co_firstlineno + 1
    rand, drop = result.parity.random_operators
    assert rand == f"aten.rand_like in noise.1 at test_onnx_parity.py:{line}"
    line = Drawing.forward.__code__.co_firstlineno + 1
    assert drop == f"aten.bernoulli_ at test_onnx_parity.py:{line}"
    assert rand in result.parity.note
    assert any("in the model itself" in where for where in result.file.random_operators)


class Normalizing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.norm.running_mean, self.norm.running_var
        return nn.functional.batch_norm(x, mean, variance, training=True)


def test_a_batch_norm_that_forward_runs_as_in_training_is_the_reason(look: Look) -> None:
    divergence = look(Normalizing(), "batch,3,5,5").parity.divergence
    assert divergence is not None
    assert "batch norm runs in train mode" in divergence.sentences[-1]
    assert not any("differs from the model's own" in told for told in divergence.sentences)


def test_a_model_that_draws_nothing_names_no_draws(look: Look) -> None:
    assert (
        look(nn.Sequential(nn.Linear(4, 4), nn.Dropout()).eval(), "batch,4").parity.random_operators
        == ()
    )


@pytest.mark.parametrize(("off", "cause"), [(0.0, "file"), (0.5, "kernel")])
def test_a_node_that_onnxruntime_computes_otherwise_is_its_kernels_fault(
    off: float, cause: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(of_one_node(), path)
    inside = load_file_graph(path)
    x = torch.arange(4.0)
    values = {"y": x.exp() + off}  # what onnxruntime is said to have given
    found = judged(inside, inside.nodes, values, {"x": x.numpy()}, nn.Module(), nearly)
    assert (found.cause, found.node.label, found.is_certain) == (cause, "Exp e", cause == "kernel")
    assert ("so the kernel is at fault" in found.sentences[0]) == (cause == "kernel")


def of_one_node() -> onnx.ModelProto:
    ports = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    node = onnx.helper.make_node("Exp", ["x"], ["y"], name="e")
    return onnx.helper.make_model(onnx.helper.make_graph([node], "g", ports[:1], ports[1:]))


def nearly(a: Tensor, b: Tensor) -> tuple[bool, float]:
    apart = float((a - b).abs().max())
    return apart < 1e-5, apart


# Autocast inside forward ---------------------------------------------------------------------


class Autocast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Linear(16, 4), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.norm(self.layer(x))


class DecoratedAutocast(nn.Linear):
    @torch.autocast("cpu", dtype=torch.bfloat16)
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


@pytest.mark.parametrize("make", [Autocast, lambda: DecoratedAutocast(16, 4)])
def test_autocast_on_the_cpu_is_compared_in_float32(
    look: Look, make: Callable[[], nn.Module]
) -> None:
    result = look(make(), "batch,16")
    assert (result.parity.passed, result.parity.compared_dtype) == (True, "float32")
    assert 'torch.autocast("cpu", bfloat16) at test_onnx_parity.py:' in result.parity.autocast
    assert {"ONX021", "ONX025"} <= codes(result)


def test_a_half_precision_model_with_a_hook_on_its_own_layers_is_compared(look: Look) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.add_module("adapter", nn.Linear(4, 4))
    model[0].register_forward_hook(lambda module, args, out: model.adapter(out))
    model.forward = lambda x: model[0](x)  # type: ignore[method-assign]
    model.bfloat16()
    result = look(model, {"shape": ["batch", 4], "dtype": "bfloat16"})
    assert (result.parity.passed, result.parity.compared_dtype) == (True, "float32")
    assert model[0].weight.dtype == torch.bfloat16
