"""How fast an ONNX file runs: the table of batches and threads, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from reportgen.onnx.runtime import Runtime
from reportgen.sections.onnx.inspection.optimized_graph import optimize
from reportgen.sections.onnx.performance.latency import (
    batches_to_time,
    is_median_known,
    measure_latency,
    measure_performance,
    percentile,
    time_runs,
)
from reportgen.sections.onnx.performance.profile import (
    UNATTRIBUTED,
    NodeOrigins,
    node_origins,
    profile,
    summarize,
)
from reportgen.sections.onnx.result import Latency

FLOAT = TensorProto.FLOAT


def node(operator: str, inputs: list[str], output: str, scopes: str = "") -> onnx.NodeProto:
    made = helper.make_node(operator, inputs, [output], name=f"node_{output}")
    if scopes:
        made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A convolution and its activation in one block, and a head."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(rng.standard_normal((16, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(rng.standard_normal((16, 4)).astype(np.float32), "h"),
        numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    nodes = [
        node("Conv", ["x", "w"], "c", "['', 'block', 'block.conv', 'conv2d']"),
        node("Relu", ["c"], "r", "['', 'block', 'block.act', 'relu']"),
        helper.make_node("ReduceMean", ["r", "axes"], ["m"], keepdims=0),
        node("MatMul", ["m", "h"], "y", "['', 'head', 'linear']"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", 4])],
        weights,
    )
    file = tmp_path / "model.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), file)
    return file


def feed(batch: int) -> dict[str, Any]:
    return {"x": np.ones((batch, 3, 64, 64), np.float32)}


def origins_in(path: Path) -> NodeOrigins:
    found = node_origins(onnx.load(path), optimize(path, 0).graph)
    assert found is not None
    return found


# Latency ------------------------------------------------------------------------------------


def test_one_sample_the_batch_and_twice_it_are_timed() -> None:
    assert batches_to_time(8, dynamic=True) == (1, 8, 16)
    assert batches_to_time(1, dynamic=True) == (1, 2)
    assert batches_to_time(8, dynamic=False) == (8,)


def test_every_cell_is_a_latency_and_a_throughput_that_agree(
    path: Path,
) -> None:
    runtime = Runtime(path, threads=2)
    seconds = time_runs(runtime, feed(4), limit=0.02)
    low, median, high = (1e3 * percentile(seconds, share) for share in (0.1, 0.5, 0.9))
    latency = Latency(batch=4, runs=len(seconds), threads=2, median=median, p10=low, p90=high)
    speed = measure_performance(runtime, origins_in(path), feed, latency, dynamic=True, seconds=1.0)
    assert [(p.batch, p.threads) for p in speed.points] == [
        (batch, threads) for batch in (1, 4, 8) for threads in (1, 2)
    ]
    for point in speed.points:
        assert point.median is not None
        assert point.p10 is not None
        assert point.p90 is not None
        assert 0 < point.p10 <= point.median <= point.p90
        assert point.samples_per_second == pytest.approx(1000 * point.batch / point.median)
    known = next(p for p in speed.points if (p.batch, p.threads) == (4, 2))
    assert (known.median, known.runs) == (latency.median, latency.runs)
    assert speed.measured
    assert {one.name for one in speed.modules} <= {"block", "head", UNATTRIBUTED}


def test_a_run_that_does_not_fit_into_the_time_box_is_not_started(path: Path) -> None:
    slow = Latency(batch=4, runs=1, threads=1, median=9e6, p10=9e6, p90=9e6)
    speed = measure_performance(
        Runtime(path, threads=1), origins_in(path), feed, slow, dynamic=True, seconds=2.0
    )
    assert [(p.batch, p.runs, p.median) for p in speed.points] == [
        (1, 0, None),
        (4, 1, 9e6),
        (8, 0, None),
    ]
    assert speed.profiled_batch == 1


def test_a_fixed_batch_is_timed_and_profiled_at_that_alone(path: Path) -> None:
    asked = list[int]()

    def note(batch: int) -> dict[str, Any]:
        asked.append(batch)
        return feed(batch)

    known = Latency(batch=4, runs=1, threads=1, median=9e6, p10=9e6, p90=9e6)
    speed = measure_performance(
        Runtime(path, threads=1), origins_in(path), note, known, dynamic=False, seconds=2.0
    )
    assert (asked, speed.profiled_batch) == ([4], 4)


def test_a_batch_that_cannot_run_has_no_latency(path: Path) -> None:
    def nothing(batch: int) -> dict[str, Any]:
        return {"x": np.ones((batch, 1, 1), np.float32)}

    runtime = Runtime(path, threads=1)
    assert measure_latency(runtime, nothing, 4, 0.1) is None
    known = Latency(batch=4, runs=1, threads=1, median=1.0, p10=1.0, p90=1.0)
    speed = measure_performance(
        runtime, origins_in(path), nothing, known, dynamic=False, seconds=0.1
    )
    assert speed.profiled_batch is None
    assert speed.not_profiled.startswith("onnxruntime: ")


def test_runs_end_with_the_box(path: Path) -> None:
    seconds = time_runs(Runtime(path, threads=1), feed(1), limit=0.05)
    assert 3 <= len(seconds) <= 200
    assert sum(seconds[:-1]) < 0.1


@pytest.mark.parametrize("spread", [0.01, 0.05])
def test_a_median_that_is_known_is_right(spread: float) -> None:
    """Of simulated measurements that stop as soon as the median is known, few are off by 2 %."""
    wrong, stopped, trials = 0, 0, 300
    for seed in range(trials):
        draws, seconds = Random(seed), list[float]()
        while len(seconds) < 200 and not is_median_known(seconds):
            seconds.append(draws.lognormvariate(0, spread))
        if len(seconds) < 200:
            stopped += 1
            wrong += abs(percentile(seconds, 0.5) - 1) > 0.02
    assert stopped > 0.9 * trials
    assert wrong <= 0.08 * trials  # the interval's 5 %, and looking at it after every run


def test_eight_equal_runs_are_enough() -> None:
    assert not is_median_known([1.0] * 7)
    assert is_median_known([1.0] * 8)
    assert not is_median_known([1.0] * 7 + [1.05])


# The profile --------------------------------------------------------------------------------


def event(name: str, operator: str, microseconds: int, index: int = 0) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": microseconds,
        "args": {"op_name": operator, "node_index": str(index)},
    }


def graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [])


def test_times_are_per_run_without_the_first_and_without_what_holds_others() -> None:
    events = [
        {"cat": "Session", "name": "model_run", "dur": 10**6, "args": {}},
        *(event("a", "Conv", dur, 1) for dur in (9000, 1000, 3000)),
        *(event("b", "Conv", dur, 2) for dur in (9000, 500, 1500)),
        *(event("c", "Gemm", dur, 3) for dur in (9000, 1000, 1000)),
        *(event("d", "If", dur, 4) for dur in (9000, 7000, 7000)),
    ]
    found = summarize(events, 3, NodeOrigins(graph_of(), graph_of()))
    assert [(o.name, o.calls, o.milliseconds, o.share) for o in found.operators] == [
        ("Conv", 2, 3.0, 0.75),
        ("Gemm", 1, 1.0, 0.25),
    ]
    assert [(o.name, o.calls, o.milliseconds, o.share) for o in found.modules] == [
        (UNATTRIBUTED, 3, 4.0, 1.0)
    ]


def test_a_fused_kernel_is_placed_by_the_node_that_does_its_work() -> None:
    original = graph_of(
        node("Conv", ["x", "w"], "c", "['', 'stem', 'conv2d']"),
        node("Relu", ["c"], "r", "['', 'activation', 'relu']"),
        node("Add", ["r", "r"], "s", "['', 'joint', 'add']"),
    )
    fused = helper.make_node("FusedConv", ["x", "w"], ["r"], name="anything")
    origins = NodeOrigins(original, graph_of(fused))
    assert origins.module("anything", "FusedConv") == "stem"
    assert origins.module("r_nchwc", "Conv") == "stem"
    assert origins.module("node_s", "Add") == "joint"
    assert origins.module("s", "Gelu") == "joint"  # no such node before it: the last one fused
    assert origins.module("ReorderOutput_7", "ReorderOutput") == UNATTRIBUTED


def test_a_module_with_several_nodes_of_its_own_stands_for_itself() -> None:
    attention = [
        node("MatMul", [f"v{index}", "w"], f"v{index + 1}", "['', 'layer', 'layer.attn', 'mm']")
        for index in range(5)
    ]
    single = node("Gemm", ["v5", "w"], "y", "['', 'layer', 'layer.out', 'linear']")
    origins = NodeOrigins(graph_of(*attention, single), graph_of())
    assert origins.module("node_v3", "MatMul") == "layer.attn"
    assert origins.module("node_y", "Gemm") == "layer"


def test_a_real_profile_names_the_operators_and_modules_of_the_file(path: Path) -> None:
    found = profile(path, origins_in(path), feed(2), threads=1, limit=0.1)
    assert {"Conv", "ReduceMean", "MatMul"} <= {one.name for one in found.operators}
    assert {"block", "head"} <= {one.name for one in found.modules}
    assert sum(one.share for one in found.operators) == pytest.approx(1)
    assert list(path.parent.iterdir()) == [path]
