"""The graph viewer in a real browser: every tool of it, and what it must never do."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from reportgen.comparable import (
    Comparable,
    Graph,
    ModuleRecord,
    NodeBody,
    OperatorNode,
    StateTensor,
)
from reportgen.compare.graphs import diff_graph
from reportgen.compare.merged_view import merged_views
from reportgen.compare.modules import diff_modules
from reportgen.compare.result import Comparison, ModelComparison, SideLabel
from reportgen.render import changes_of, render_comparison, render_graphs
from reportgen.viewer.layout import graph_layouts

pytestmark = pytest.mark.slow

_LAYERS = 12
_HOSTILE = "<img src=x onerror=alert(1)>\"'&]]>\u202e</script>" + "x" * 10_000


def _module(path: str, operator: str, shape: str = "2×8") -> OperatorNode:
    return OperatorNode(id=path, operator=operator, kind="module", module=path, outputs=(shape,))


def _modules() -> tuple[Graph, list[ModuleRecord]]:
    """Twelve blocks with a skip connection each; a mask that every block reads."""
    nodes = [
        OperatorNode(id="input/x", operator="input", kind="input", outputs=("2×8",)),
        OperatorNode(id="input/mask", operator="input", kind="input", outputs=("2×2",)),
    ]
    edges, last = [], 0
    records = [ModuleRecord(path="", type="Net"), ModuleRecord(path="blocks", type="ModuleList")]
    for n in range(_LAYERS):
        path, first = f"blocks.{n}", len(nodes)
        nodes += [
            _module(f"{path}.fc1", "Linear", "2×32"),
            _module(f"{path}.act", "GELU", "2×32"),
            _module(f"{path}.fc2", "Linear"),
            OperatorNode(
                id=f"{path}/add", operator="add", kind="operation", module=path, outputs=("2×8",)
            ),
        ]
        edges += [(last, first), (1, first), (first, first + 1), (first + 1, first + 2)]
        edges += [(first + 2, first + 3), (last, first + 3)]
        last = first + 3
        weight = StateTensor(name="weight", shape=(32, 8), dtype="float32")
        records += [
            ModuleRecord(path=path, type="Block", source="net.py:7"),
            ModuleRecord(path=f"{path}.fc1", type="Linear", parameters=256 * (n + 1), macs=512,
                         attributes={"in_features": 8}, tensors=(weight,), source="nn.py:1"),
            ModuleRecord(path=f"{path}.act", type="GELU"),
            ModuleRecord(path=f"{path}.fc2", type="Linear", parameters=256, macs=512),
        ]  # fmt: skip
    nodes.append(OperatorNode(id="output/y", operator="output", kind="output", outputs=("2×8",)))
    edges.append((last, len(nodes) - 1))
    return Graph(name="modules", nodes=tuple(nodes), edges=tuple(sorted(edges))), records


def _onnx() -> Graph:
    """A hostile name, a constant that a Reshape reads, and an If with two branches."""

    def node(id_: str, operator: str, kind: str = "operation", **fields: object) -> OperatorNode:
        return OperatorNode(id=id_, operator=operator, kind=kind, **fields)  # type: ignore[arg-type]

    then, other = NodeBody(owner=4, name="then_branch"), NodeBody(owner=4, name="else_branch")
    nodes = (
        node("input/x", "input", "input", outputs=("batch×8",)),
        node("blocks.0.fc1/Gemm", "Gemm", module="blocks.0.fc1", attributes={"transB": 1}),
        node("/Constant", "Constant", "constant"),
        node(f"{_HOSTILE}/Reshape", "Reshape", module=_HOSTILE, attributes={"note": _HOSTILE}),
        node("/If", "If"),
        node("/If/then_branch//Relu", "Relu", body=then),
        node("/If/then_branch//Neg", "Neg", body=then),
        node("/If/else_branch//Tanh", "Tanh", body=other),
        node("/If/else_branch//Abs", "Abs", body=other),
        node("output/y", "output", "output"),
    )
    edges = ((0, 1), (1, 3), (2, 3), (3, 4), (3, 5), (3, 7), (4, 9), (5, 6), (7, 8))
    figures = {"parameters": (None, 256, None, None, None, None, None, None, None, None)}
    return Graph(name="onnx", nodes=nodes, edges=edges, attributes={"opset": 20}, figures=figures)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    graph, records = _modules()
    graphs = [graph, _onnx()]
    layouts = [layout for each in graphs for layout in graph_layouts(each)]
    path = tmp_path_factory.mktemp("viewer") / "graph.html"
    path.write_text(render_graphs("net", graphs, layouts, records), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, accept_downloads=True)
    yield context
    context.close()


@pytest.fixture
def viewer(context: BrowserContext, file: Path) -> Iterator[Page]:
    """The page; at the end nothing may have been reported or requested."""
    page = context.new_page()
    complaints: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    page.set_default_timeout(5000)
    _open(page, file)
    page.evaluate("window.graphViewer.closeAll()")
    page.locator(".node-box.cluster").click()  # the list of blocks; each block is closed
    page.evaluate("window.graphViewer.select('')")
    yield page
    assert complaints == []
    assert {url.partition(":")[0] for url in requests} <= {"file", "data", "blob"}
    page.close()


def _open(page: Page, file: Path, fragment: str = "") -> None:
    page.goto(file.as_uri() + fragment)
    page.wait_for_selector(".drawing .node-box")


def _titles(page: Page) -> list[str]:
    return _texts(page, ".node-box .title")


def _texts(page: Page, selector: str) -> list[str]:
    return [str(text) for text in page.locator(selector).all_text_contents()]


def _card(page: Page) -> str:
    return page.locator(".card").inner_text()


def _selected(page: Page) -> str:
    """The id of the selected node or cluster."""
    return str(
        page.evaluate("""() => {
          const { state, graph, clusters } = window.graphViewer;
          const key = Number(state.selected.slice(1));
          return state.selected[0] === "n" ? graph.nodes[key].id : clusters.ids[key];
        }""")
    )


def test_a_cluster_opens_and_closes_where_it_is(viewer: Page) -> None:
    third = viewer.locator(".node-box.cluster", has_text="Block 2")
    before = third.bounding_box()
    assert before is not None
    third.click()
    frame = viewer.locator(".frame", has_text="Block 2").last
    after = frame.locator("rect").first.bounding_box()
    assert after is not None
    assert abs(after["y"] - before["y"]) < 2
    assert {"Linear", "GELU", "add"} <= set(_titles(viewer))
    assert "Defined at\nnet.py:7" in _card(viewer)
    frame.locator(".toggle").click()
    again = viewer.locator(".node-box.cluster", has_text="Block 2").bounding_box()
    assert again is not None
    assert abs(again["y"] - before["y"]) < 2


def test_search_finds_by_name_type_shape_and_attribute(viewer: Page) -> None:
    field = viewer.get_by_role("searchbox")
    count = viewer.locator(".found-count")
    for query, found in (("gelu", 12), ("2x32 linear", 12), ("blocks.7 linear", 2), ("zebra", 0)):
        field.fill(query)
        assert count.inner_text() == (f"{found} found" if found else "none")
    field.fill("blocks.7 fc2")
    field.press("Enter")
    assert _selected(viewer) == "blocks.7.fc2"  # in a cluster that was closed
    assert viewer.locator(".node-box.selected").is_visible()
    assert count.inner_text() == "1 of 1"
    field.fill("gelu")
    viewer.get_by_label("Previous match").click()
    assert _selected(viewer) == "blocks.11.act"
    viewer.get_by_role("tab", name="ONNX").click()
    field.fill("transB=1")
    assert count.inner_text() == "1 found"


def test_the_card_has_what_is_known_and_leads_on(viewer: Page) -> None:
    assert "Most parameters\nLinear blocks.11.fc1" in _card(viewer)  # the largest weight at once
    viewer.locator(".card").get_by_text("blocks.11.fc1").first.click()
    card, facts = _card(viewer), ["in_features\n8", "weight\n32×8 float32", "shape\nfloat32 2×32"]
    facts += ["Parameters\n3.07 K", "MACs\n512", "Defined at\nnn.py:1", "GELU blocks.11.act"]
    for fact in facts:
        assert fact in card
    viewer.locator(".card").get_by_text("blocks.11.act").click()
    assert _selected(viewer) == "blocks.11.act"


def test_a_module_is_found_in_the_other_graph(viewer: Page) -> None:
    viewer.evaluate("window.graphViewer.select(window.graphViewer.itemOf('blocks.0.fc1'), true)")
    viewer.locator(".card").get_by_role("button", name="ONNX graph").click()
    assert _selected(viewer) == "blocks.0.fc1/Gemm"
    assert "transB\n1" in _card(viewer)


def test_the_edges_of_a_selection_and_of_a_path_are_in_color(viewer: Page) -> None:
    viewer.evaluate("window.graphViewer.select('n2', true)")  # blocks.0.fc1 reads x and the mask
    lit = "[...new Set([...document.querySelectorAll('.flow.lit')].map((e) => +e.dataset.value))]"
    assert sorted(viewer.evaluate(lit)) == [0, 1, 2]
    viewer.get_by_role("button", name="Path from here").click()
    viewer.evaluate("window.graphViewer.select('n5')")
    viewer.get_by_role("button", name="Path from").click()
    assert sorted(viewer.evaluate(lit)) == [2, 3, 4]
    viewer.get_by_role("button", name="Everything before").click()
    assert sorted(viewer.evaluate(lit)) == [0, 1, 2, 3, 4]


def test_a_click_on_an_edge_colors_its_value_alone(viewer: Page) -> None:
    viewer.locator(".node-box.cluster", has_text="Block 2").click()
    middle = """([value]) => {
      const flow = [...document.querySelectorAll('.flow')].filter((e) => +e.dataset.value === value)
        .sort((a, b) => b.getTotalLength() - a.getTotalLength())[0];
      const middle = flow.getPointAtLength(flow.getTotalLength() / 2);
      const point = middle.matrixTransform(flow.getScreenCTM());
      return [point.x, point.y];
    }"""
    first = viewer.evaluate("window.graphViewer.graph.byId.get('blocks.2.fc1')")
    x, y = viewer.evaluate(middle, [first])
    viewer.mouse.click(x + 2, y)  # beside a line that is one pixel wide
    assert _selected(viewer) == "blocks.2.fc1"
    lit = "[...new Set([...document.querySelectorAll('.flow.lit')].map((e) => +e.dataset.value))]"
    assert viewer.evaluate(lit) == [first]
    assert "read by 1" in viewer.locator(".said").inner_text()


def test_what_a_search_found_is_listed(viewer: Page) -> None:
    viewer.get_by_role("searchbox").fill("gelu")
    listed = viewer.locator(".card li")
    assert "Found 12" in _card(viewer)
    listed.filter(has_text="blocks.4.act").get_by_role("button").click()
    assert _selected(viewer) == "blocks.4.act"


def test_the_card_names_the_keys(viewer: Page) -> None:
    assert "slash searches" in _card(viewer)


def test_a_value_with_many_readers_is_named_there_and_leads_to_its_source(viewer: Page) -> None:
    ports = viewer.locator(".port")
    assert str(ports.first.text_content()).endswith("from mask")
    ports.first.click()
    assert _selected(viewer) == "input/mask"


def test_colors_by_figure_have_a_legend(viewer: Page) -> None:
    viewer.get_by_label("Color by").select_option(label="Parameters")
    assert "Parameters" in viewer.locator(".legend-of-colors").inner_text()
    shares = viewer.evaluate(
        "[...document.querySelectorAll('.body.shaded')].map((e) => e.style.cssText)"
    )
    assert any(share and "0%" not in share.split()[1:2] for share in shares)
    viewer.get_by_label("Color by").select_option(label="by kind")
    assert "matrix product" in viewer.locator(".legend-of-colors").inner_text()


def test_everything_works_with_the_keyboard(viewer: Page) -> None:
    viewer.locator(".drawing").focus()
    press = viewer.keyboard.press
    press("ArrowDown")
    assert _selected(viewer) == "input/x"
    press("ArrowDown")
    press("ArrowDown")
    press("Enter")
    assert viewer.locator(".frame", has_text="Block 1").count() >= 1
    press("Enter")
    assert viewer.locator(".said").inner_text() == "1 closed"
    before = viewer.evaluate("window.graphViewer.view.scale")
    press("+")
    assert viewer.evaluate("window.graphViewer.view.scale") == pytest.approx(1.25 * before)
    press("Backspace")
    assert _selected(viewer) == "blocks"
    press("/")
    viewer.keyboard.type("act")
    press("Enter")
    assert _selected(viewer) == "blocks.0.act"
    press("Escape")
    assert viewer.locator(".drawing").evaluate("(e) => e === document.activeElement")


def test_a_link_restores_node_and_open_clusters(viewer: Page, file: Path) -> None:
    viewer.locator(".node-box.cluster", has_text="Block 3").click()
    viewer.evaluate("window.graphViewer.select(window.graphViewer.itemOf('blocks.3.act'), true)")
    link = viewer.url.partition("#")[2]
    opened = viewer.evaluate("[...window.graphViewer.open].sort()")
    viewer.goto("about:blank")
    _open(viewer, file, f"#{link}")
    assert _selected(viewer) == "blocks.3.act"
    assert viewer.evaluate("[...window.graphViewer.open].sort()") == opened
    viewer.evaluate("location.hash = '#graph=onnx&node=' + encodeURIComponent('/If')")
    viewer.get_by_role("tab", name="ONNX", selected=True).wait_for()
    assert _selected(viewer) == "/If"


def test_constants_hide_behind_a_switch_and_branches_open_in_place(viewer: Page) -> None:
    viewer.get_by_role("tab", name="ONNX").click()
    assert "Constant" not in _titles(viewer)
    viewer.get_by_label("1 constants").check()
    assert "Constant" in _titles(viewer)
    viewer.get_by_label("Open all").click()
    assert {"Relu", "Tanh"} <= set(_titles(viewer))
    frames = _texts(viewer, ".frame > .title")
    assert {"If", "then_branch", "else_branch"} <= set(frames)


def test_directions_and_zoom(viewer: Page) -> None:
    size = "[window.graphViewer.composed.width, window.graphViewer.composed.height]"
    wide = viewer.evaluate(size)
    viewer.get_by_label("Left to right").click()
    assert viewer.evaluate(size)[0] > wide[0]
    viewer.get_by_label("Top down").click()
    assert viewer.evaluate(size) == wide
    viewer.get_by_label("Fit the drawing").click()
    seen = viewer.evaluate("window.graphViewer.view.area()")
    assert seen["top"] <= 0
    assert seen["bottom"] >= wide[1]
    x = viewer.evaluate("window.graphViewer.view.x")
    box = viewer.locator(".drawing").bounding_box()
    assert box is not None
    viewer.mouse.move(box["x"] + 40, box["y"] + 40)
    viewer.mouse.down()
    viewer.mouse.move(box["x"] + 140, box["y"] + 40)
    viewer.mouse.up()
    assert viewer.evaluate("window.graphViewer.view.x") < x


def test_the_drawing_is_saved_as_svg_and_png(viewer: Page) -> None:
    viewer.locator(".node-box.cluster", has_text="Block 0").click()
    with viewer.expect_download() as whole:
        viewer.get_by_label("Save the drawing as SVG").click()
    root = ElementTree.parse(whole.value.path()).getroot()
    texts = ["".join(each.itertext()) for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Linear", "GELU", "x", "y"} <= set(texts)
    with viewer.expect_download() as part:
        viewer.locator(".card").get_by_role("button", name="Save as SVG").click()
    assert part.value.suggested_filename == "net-modules-blocks.0.svg"
    assert "Block 1" not in Path(part.value.path()).read_text(encoding="utf-8")
    with viewer.expect_download() as picture:
        viewer.get_by_label("Save the drawing as PNG").click()
    assert Path(picture.value.path()).read_bytes().startswith(b"\x89PNG")


def test_a_box_says_its_whole_name_where_the_pointer_rests(viewer: Page) -> None:
    viewer.locator(".node-box.cluster", has_text="Block 2").click()
    tips = _texts(viewer, ".node-box > title")
    assert "Linear\nfc1" in tips
    assert any(tip.startswith("Block 3") for tip in tips)


def test_hostile_names_are_names(viewer: Page) -> None:
    viewer.get_by_role("tab", name="ONNX").click()
    viewer.get_by_label("Open all").click()
    viewer.evaluate("window.graphViewer.select('n3', true)")
    assert "<img src=x onerror=alert(1)>" in _card(viewer)
    assert "\u202e" not in _card(viewer)
    assert viewer.locator("#graph-viewer img").count() == 0
    assert viewer.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_touch_on_a_narrow_screen(browser: Browser, file: Path) -> None:
    context = browser.new_context(viewport={"width": 400, "height": 800}, has_touch=True)
    page = context.new_page()
    page.set_default_timeout(5000)
    _open(page, file)
    page.evaluate("window.graphViewer.closeAll()")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    page.locator(".node-box.cluster").first.tap()
    assert page.locator(".frame").count() >= 1
    assert not page.locator(".card").is_visible()
    page.get_by_label("Show the details").tap()
    assert page.locator(".card").is_visible()
    sizes = page.eval_on_selector_all(
        ".viewer-tools button:not([hidden])", "all => all.map((e) => e.offsetHeight)"
    )
    assert min(sizes) >= 30
    context.close()


def test_the_data_survives_packing(viewer: Page) -> None:
    graph, _ = _modules()
    stored = viewer.evaluate("""() => window.graphViewer.states[0].graph.nodes
      .map(({ id, operator, kind, module, outputs }) => [id, operator, kind, module, outputs])""")
    expected = [[n.id, n.operator, n.kind, n.module, list(n.outputs)] for n in graph.nodes]
    assert json.dumps(stored) == json.dumps(expected)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page about two reports: a GELU became a ReLU, a layer came, a layer went."""
    old, records = _modules()
    changed = {5: "ReLU"}
    nodes = [
        replace(node, operator=changed.get(n, node.operator)) for n, node in enumerate(old.nodes)
    ]
    nodes[8] = replace(nodes[8], id="blocks.1.new", module="blocks.1.new", operator="Tanh")
    new = replace(old, nodes=tuple(nodes))
    types = {"blocks.0.act": "ReLU"}
    after = [replace(each, type=types.get(each.path, each.type)) for each in records]
    after = [
        replace(each, path="blocks.1.new", type="Tanh") if each.path == "blocks.1.fc2" else each
        for each in after
    ]
    sides = [
        Comparable(modules=tuple(modules), graphs=(graph,))
        for modules, graph in ((records, old), (after, new))
    ]
    modules = diff_modules(sides[0].modules, sides[1].modules)
    views = merged_views(*sides, modules, (diff_graph(old, new, modules),))
    comparison = Comparison(
        old=SideLabel(title="old"),
        new=SideLabel(title="new"),
        verdict="pass",
        models=(ModelComparison(name="net", status="changed", views=views),),
    )
    path = tmp_path_factory.mktemp("compared") / "changes.html"
    path.write_text(render_comparison(comparison, changes_of(comparison)), encoding="utf-8")
    return path


def test_two_reports_are_one_graph_with_what_changed(
    context: BrowserContext, compared: Path
) -> None:
    page = context.new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.set_default_timeout(5000)
    _open(page, compared)
    marks = {
        kind: page.locator(f".node-box.mark-{kind}").count()
        for kind in ("added", "removed", "changed")
    }
    assert marks["changed"] >= 1
    assert marks["added"] + marks["changed"] >= 2
    card = _card(page)
    assert "was GELU" in card
    assert "% " not in card.partition("Most parameters")[2].partition("Changes")[0]
    frames = _texts(page, ".frame > .title, .node-box.cluster .title")
    assert "Block 1" in [each.split("  ")[0].strip() for each in frames]  # types of modules
    page.evaluate("window.graphViewer.closeAll()")
    assert page.locator(".node-box.mark-inside").count() == 1  # seen at any expansion
    assert complaints == []
    page.close()


_FAULTS = """() => {
  const faults = [];
  const check = (composed) => {
    const boxes = composed.items.filter(({ kind }) => kind !== "i" && kind !== "o");
    for (const [n, a] of boxes.entries()) {
      const inside = a.x >= 0 && a.y >= 0;
      if (!inside || a.x + a.width > composed.width + 1 || a.y + a.height > composed.height + 1) {
        faults.push(["outside", composed.cluster, a.kind + a.key]);
      }
      for (const b of boxes.slice(n + 1)) {
        const apart = a.x + a.width <= b.x || b.x + b.width <= a.x
          || a.y + a.height <= b.y || b.y + b.height <= a.y;
        if (!apart) faults.push(["overlap", composed.cluster, a.kind + a.key, b.kind + b.key]);
      }
      if (a.inner) check(a.inner);
    }
    for (const { points } of composed.flows) {
      if (!points.every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))) {
        faults.push(["broken", composed.cluster]);
      }
    }
  };
  const viewer = window.graphViewer;
  for (const { graph } of viewer.states) {
    viewer.use(graph.name);
    viewer.openAll(0);
    for (const sideways of [true, false]) {
      viewer.setSideways(sideways);
      check(viewer.composed);
    }
  }
  return faults;
}"""


def _random(seed: int) -> Graph:
    """60 nodes in modules three deep, that read up to three earlier nodes, near or far."""
    draw = random.Random(seed)
    edges = set()
    nodes = []
    for n in range(60):
        module = ".".join(
            f"{'abc'[depth]}{draw.randrange(3)}" for depth in range(draw.randrange(4))
        )
        nodes.append(
            OperatorNode(
                id=f"{module}/Op{n}", operator="Op" * draw.randrange(1, 9), kind="operation",
                module=module, outputs=("2×3",),
            )
        )  # fmt: skip
        edges |= {(max(0, n - draw.choice([1, 1, 2, 9, 40])), n) for _ in range(draw.randrange(4))}
    kept = tuple(sorted(edge for edge in edges if edge[0] != edge[1]))
    return Graph(name=f"random {seed}", nodes=tuple(nodes), edges=kept)


def test_boxes_never_overlap_and_stay_in_their_clusters(
    context: BrowserContext, tmp_path: Path
) -> None:
    graphs = [_random(seed) for seed in range(12)]
    layouts = [layout for each in graphs for layout in graph_layouts(each)]
    (tmp_path / "a.html").write_text(render_graphs("net", graphs, layouts), encoding="utf-8")
    page = context.new_page()
    _open(page, tmp_path / "a.html")
    assert page.evaluate(_FAULTS) == []
    page.close()
