"""The graph viewer in the page of a model: figures, findings and remarks of other sections."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from report_values import finding, graphs, layers, model, onnx, sections, small_report
from report_values.architectures import resnet50

from reportgen.comparable import Graph, OperatorNode
from reportgen.findings import Severity
from reportgen.render import render_model
from reportgen.sections.graphs import Graphs
from reportgen.sections.graphs.complete.onnx_facts import OnnxFacts, TensorFacts
from reportgen.sections.graphs.complete.stored import pack_graph
from reportgen.sections.onnx import OnnxResult
from reportgen.sections.onnx.parity_result import CallError, Divergence
from reportgen.viewer.layout import graph_layouts

pytestmark = pytest.mark.slow

_NAMES = ("", "node_Conv_0", "node_relu", "node_Conv_1", "")
_VALUES = ("x", "getitem", "relu", "getitem_3", "getitem_3")


def _file() -> tuple[Graph, OnnxFacts]:
    """A chain: the exporter fused each convolution with the norm after it."""
    kinds = ("input", "Conv", "Relu", "Conv", "output")
    homes = ("", "layer1.0.bn1", "layer1.0.relu", "layer1.1.bn1", "")
    nodes = tuple(
        OperatorNode(
            id=f"{home}/{kind}",
            operator=kind,
            kind=kind if kind in ("input", "output") else "operation",
            module=home,
            attributes={"group": 1, "input 1": "float32 64×64×1×1"} if kind == "Conv" else {},
            outputs=("batch×64×56×56",) if kind != "input" else ("float16 batch×64×56×56",),
        )
        for kind, home in zip(kinds, homes, strict=True)
    )
    weights = tuple(f"layer1.{block}.conv1.weight" for block in range(2))
    facts = OnnxFacts(
        names=_NAMES,
        inputs=((), ("x", weights[0]), ("getitem",), ("relu", weights[1]), ("getitem_3",)),
        outputs=(*((value,) for value in _VALUES[:-1]), ()),
        formal={"Conv": ("X", "W", "B")},
        versions={"Conv": 11},
        metadata=((1, "Source", "net.py:12"),),
        classes={"layer1": "Stage"},
        tensors=tuple(
            TensorFacts(
                name=name, dtype="float32", shape=(64, 64, 1, 1), bytes=16384, external=file
            )
            for name, file in zip(weights, ("", "model.data"), strict=True)
        ),
    )
    edges = tuple((n, n + 1) for n in range(len(nodes) - 1))
    return Graph(name="onnx", nodes=nodes, edges=edges), facts


def _graphs() -> Graphs:
    graph, facts = _file()
    result = graphs(viewer=True)
    return replace(
        result,
        complete=(*result.complete, pack_graph(graph)),
        layouts=(*result.layouts, *graph_layouts(graph)),
        onnx_facts=facts,
    )


def _diverging() -> OnnxResult:
    """An export of which the second convolution is wrong."""
    good = onnx()
    errors = (("layer1.0.bn1", 1, 8e-7), ("layer1.0.relu", 2, 6e-7), ("layer1.1.bn1", 3, 0.25))
    divergence = Divergence(
        output="logits",
        batch=1,
        seed=0,
        cause="file",
        module="layer1.1.bn1",
        module_type="BatchNorm2d",
        node=_NAMES[3],
        operator="Conv",
        sentences=("layer1.1.bn1 (BatchNorm2d) is the first module whose output differs",),
        calls=tuple(
            CallError(
                path=path, call=0, node=_NAMES[n], max_absolute_error=error, agrees=error < 1e-3
            )
            for path, n, error in errors
        ),
    )
    parity = replace(good.parity, passed=False, divergence=divergence, failure="logits is off")
    return replace(good, parity=parity)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = resnet50()
    shown = layers(root, batch=8, inputs={"x": (8, 3, 224, 224)}, outputs={"": (8, 1000)})
    broken = model(
        "resnet50",
        "fail",
        sections=sections(layers=shown, graphs=_graphs(), onnx=_diverging()),
        findings=(finding("ONX030", Severity.NOTE, "node_relu", "a node that is slow", "x"),),
    )
    folder = tmp_path_factory.mktemp("report")
    path = folder / "models/resnet50/index.html"
    (path.parent / "graphs").mkdir(parents=True)
    for name in ("modules", "autograd", "onnx"):
        empty = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
        (path.parent / f"graphs/{name}.svg").write_text(empty)
    report = replace(small_report(), models=(broken,))
    path.write_text(render_model(report, broken, folder), encoding="utf-8")
    return path


@pytest.fixture
def page(browser: Browser, file: Path) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.set_default_timeout(5000)
    page.goto(file.as_uri())
    page.locator(".drawing .node-box").first.wait_for()
    yield page
    assert complaints == []
    page.close()


def _selected_title(page: Page) -> str:
    return str(page.evaluate("graphViewer.titleOf(graphViewer.state.selected)"))


def test_the_node_at_which_parity_breaks_is_two_clicks_away(page: Page) -> None:
    page.get_by_label("Show node_Conv_1 in the graph").click()
    assert _selected_title(page) == "Conv layer1.1.bn1/Conv"
    card = page.locator(".card").inner_text()
    assert "Parity is broken" in card
    assert "Name in the file\nnode_Conv_1" in card
    assert "Parity error\n0.25" in card
    page.evaluate("graphViewer.select('')")
    page.locator(".remark").get_by_role("button").click()
    assert _selected_title(page) == "Conv layer1.1.bn1/Conv"
    page.evaluate("graphViewer.closeAll()")
    assert page.locator(".mark-remark .sign").count() >= 1  # seen at any expansion


def test_every_known_error_has_a_color_on_a_logarithmic_scale(page: Page) -> None:
    page.get_by_role("tab", name="ONNX graph").click()
    page.get_by_label("Color by").select_option(label="Parity error")
    page.get_by_label("Open all").click()
    shares = page.eval_on_selector_all(
        ".body.shaded", "all => all.map((e) => parseInt(e.style.getPropertyValue('--share')))"
    )
    assert max(shares) == 100
    assert len([share for share in shares if share < 10]) == 2  # far below the tolerance
    legend = page.locator(".legend-of-colors").inner_text()
    assert "6.0e-7" in legend
    assert "0.25" in legend
    assert "unknown" in legend  # inputs and outputs were not compared


def test_a_fused_module_leads_to_the_node_with_its_weights(page: Page) -> None:
    page.evaluate("graphViewer.select(graphViewer.itemOf('layer1.1.conv1'), true)")
    elsewhere = page.locator(".card li", has_text="ONNX graph")
    assert "in Conv of layer1.1.bn1" in elsewhere.inner_text()
    elsewhere.get_by_role("button").click()
    assert _selected_title(page) == "Conv layer1.1.bn1/Conv"
    card = page.locator(".card").inner_text()
    assert "layer1.1.conv1.weight float32 64×64×1×1 · 16.0 KiB in model.data" in card
    page.evaluate("graphViewer.showModule('modules', 'layer1.1.relu')")
    merged = page.locator(".card li", has_text="ONNX graph").inner_text()
    assert "no node" in merged


def test_inputs_and_outputs_have_shapes_and_dtypes(page: Page) -> None:
    page.evaluate("graphViewer.showModule('onnx', 'layer1.0.bn1')")
    card = page.locator(".card").inner_text()
    assert "float16 batch×64×56×56" in card  # of the input
    assert "getitem\nfloat32 batch×64×56×56" in card


def test_a_box_has_its_weights_and_the_card_what_the_file_says(page: Page) -> None:
    page.evaluate("graphViewer.showModule('onnx', 'layer1.0.bn1')")
    details = page.locator(".node-box .detail").all_text_contents()
    assert [each for each in details if "W 64×64×1×1" in each]
    card = page.locator(".card").inner_text()
    for fact in ("Operator of\nopset 11", "Source\nnet.py:12", "group\n1", "x float16 batch×"):
        assert fact in card
    assert "Stage" in " ".join(page.locator(".frame > .title").all_text_contents())


def test_a_node_is_found_by_its_name_in_the_file(page: Page) -> None:
    page.get_by_role("tab", name="ONNX graph").click()
    field = page.get_by_role("searchbox")
    field.fill("node_relu")
    field.press("Enter")
    assert _selected_title(page) == "Relu layer1.0.relu/Relu"
    assert "a node that is slow" in page.locator(".card").inner_text()
    page.evaluate("graphViewer.select('')")
    assert "ONX030" in page.locator(".card").inner_text()  # leads there too
