"""How fast the graph viewer lays out, draws, opens, pans and searches, in headless Chromium.

    python benchmarks/viewer.py [--case NAME]... [--resnet50]

`--resnet50` also builds a report of ResNet-50; it prints how much of its page is the viewer.

Cases: a transformer of 75 layers and 5,025 nodes nested five deep, with a mask that every layer
reads; a hub of 2,000 edges; 1,000 nodes without modules. Prints for each the seconds of the layout
when the report is built, the bytes of a page with nothing but the viewer, and the milliseconds, as
a median of several, to start, open a cluster, pan by a frame with all clusters open, and search.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from playwright.sync_api import Page, sync_playwright

from reportgen.comparable import Graph, OperatorNode
from reportgen.render import render_graphs
from reportgen.viewer.layout import graph_layouts

_BLOCK = (  # of a layer: path below it, operator
    *((f"attention.{part}", op) for part in ("query", "key", "value") for op in
      ("LayerNorm", "MatMul", "Add", "Reshape", "Transpose")),
    *(("attention.scores", op) for op in
      ("MatMul", "Div", "Add", "Softmax", "MatMul", "Transpose")),
    *(("attention.output.dense", op) for op in ("Reshape", "MatMul", "Add")),
    *(("attention.output.norm", op) for op in
      ("Add", "ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add")),
    *((f"feed_forward.{part}", op) for part in ("expand", "gate", "contract") for op in
      ("MatMul", "Add", "Mul", "Div", "Erf", "Add", "Mul")),
    *(("feed_forward.norm", op) for op in
      ("Add", "ReduceMean", "Sub", "Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul", "Add")),
    *(("adapter.down", op) for op in ("MatMul", "Add")),
)  # fmt: skip


def transformer(layers: int = 75) -> Graph:
    """67 operators in each layer, a residual connection in each, and a mask that all read."""
    shape = ("batch×128×768",)
    nodes = [
        OperatorNode(id=f"input/{name}", operator="input", kind="input", outputs=shape)
        for name in ("tokens", "mask")
    ]
    edges: list[tuple[int, int]] = []
    last = 0
    for layer in range(layers):
        start = last
        for path, operator in _BLOCK:
            index = len(nodes)
            module = f"encoder.layers.{layer}.{path}"
            nodes.append(
                OperatorNode(
                    id=f"{module}/{operator}#{index}",
                    operator=operator,
                    kind="operation",
                    module=module,
                    outputs=shape,
                )
            )
            edges.append((last, index))
            if path == "attention.scores" and operator == "Add":
                edges.append((1, index))
            if operator == "Add" and path.endswith("norm"):
                edges.append((start, index))
            last = index
    return Graph(name="onnx", nodes=tuple(nodes), edges=tuple(dict.fromkeys(edges)))


def flat(count: int = 1000) -> Graph:
    """A chain without modules, with a skip connection at every third node."""
    nodes = tuple(
        OperatorNode(id=f"/Relu#{n}", operator="Relu" if n % 2 else "Conv", kind="operation")
        if n else OperatorNode(id="input/x", operator="input", kind="input")
        for n in range(count)
    )  # fmt: skip
    edges = [(n - 1, n) for n in range(1, count)] + [(n - 3, n) for n in range(3, count, 3)]
    return Graph(name="onnx", nodes=nodes, edges=tuple(sorted(edges)))


def hub(count: int = 2000) -> Graph:
    """One input that 2,000 nodes read, whose results are added."""
    nodes = [OperatorNode(id="input/x", operator="input", kind="input")]
    nodes += [OperatorNode(id=f"/Mul#{n}", operator="Mul", kind="operation") for n in range(count)]
    nodes.append(OperatorNode(id="/Sum", operator="Sum", kind="operation"))
    edges = [(0, n) for n in range(1, count + 1)] + [(n, count + 1) for n in range(1, count + 1)]
    return Graph(name="onnx", nodes=tuple(nodes), edges=tuple(sorted(edges)))


CASES: dict[str, Callable[[], Graph]] = {"transformer": transformer, "hub": hub, "flat": flat}

_OPEN = """() => {
  const viewer = window.graphViewer;
  const times = [];
  for (const cluster of viewer.clusters.ids.keys()) {
    if (!cluster || viewer.clusters.parents[cluster] > 3 || times.length > 12) continue;
    const start = performance.now();
    viewer.toggle(cluster);
    viewer.canvas.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times;
}"""
_PAN = """() => new Promise((done) => {
  const viewer = window.graphViewer;
  const times = [];
  let last = performance.now();
  const frame = () => {
    viewer.view.panBy(17, 11);
    viewer.canvas.getBoundingClientRect();
    const now = performance.now();
    times.push(now - last);
    last = now;
    if (times.length < 60) requestAnimationFrame(frame); else done(times.slice(5));
  };
  requestAnimationFrame(frame);
})"""
_OPEN_ALL = """() => {
  const viewer = window.graphViewer;
  for (const cluster of viewer.clusters.ids.keys()) viewer.open.add(cluster);
  viewer.setSideways(false);
  viewer.view.zoomBy(0.5);
  return viewer.places().size;
}"""
_SEARCH = """() => ["mul", "layers.7 softmax", "erf", "128×768 norm", "nothing"].map((query) => {
  const viewer = window.graphViewer;
  viewer.tools.searchField.value = query;
  const start = performance.now();
  viewer.search();
  return performance.now() - start;
})"""


def measure(page: Page, name: str, file: Path) -> None:
    graph = CASES[name]()
    start = time.monotonic()
    layouts = graph_layouts(graph)
    seconds = time.monotonic() - start
    text = render_graphs(name, [graph], layouts)
    file.write_text(text, encoding="utf-8")
    start = time.monotonic()
    page.goto(file.as_uri())
    page.wait_for_selector(".node-box")
    started = 1000 * (time.monotonic() - start)
    opened = page.evaluate(_OPEN)
    boxes = page.evaluate(_OPEN_ALL)
    frames = page.evaluate(_PAN)
    found = page.evaluate(_SEARCH)
    clusters, drawings = len(layouts[0].clusters), len(layouts[0].drawings)
    print(f"{name}: {len(graph.nodes):,} nodes, {len(graph.edges):,} edges, "
          f"{clusters:,} clusters, {drawings} drawings")  # fmt: skip
    print(f"  layout {seconds:.2f} s ({layouts[0].engine}), page {len(text) / 1000:.0f} kB")
    print(f"  start {started:.0f} ms, open {_times(opened)}, pan {_times(frames)} a frame "
          f"({boxes:,} boxes open), search {_times(found)}")  # fmt: skip


_MANIFEST = """version: 1
title: ResNet-50
models:
  - name: resnet50
    source: torchvision:resnet50
    inputs: [{name: x, shape: [batch, 3, 224, 224]}]
"""
_VIEWER = re.compile(
    r'<script type="application/json".*?</script>|<script>"use strict";const DIGITS.*?</script>',
    re.DOTALL,
)


def measure_report(folder: Path) -> None:
    manifest = folder / "manifest.yaml"
    manifest.write_text(_MANIFEST, encoding="utf-8")
    command = [sys.executable, "-m", "reportgen", "build", str(manifest), "--quiet", "--no-cache"]
    command += ["--section=layers", "--section=graphs", "--section=onnx", "--format=html"]
    subprocess.run([*command, "--output", str(folder / "report")], check=True, cwd=folder)
    page = (folder / "report/models/resnet50/index.html").read_text(encoding="utf-8")
    whole, added = (sum(len(part.encode()) for part in parts)
                    for parts in ([page], _VIEWER.findall(page)))  # fmt: skip
    print(f"resnet50: page {whole / 1000:.0f} kB, viewer {added / 1000:.1f} kB of it")


def _times(values: list[float]) -> str:
    return f"{median(values):.1f} ms (most {max(values):.0f})" if values else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", action="append", choices=CASES)
    parser.add_argument("--resnet50", action="store_true")
    arguments = parser.parse_args()
    names = arguments.case or list(CASES)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for name in names:
            measure(page, name, Path(folder, f"{name}.html"))
        browser.close()
        if arguments.resnet50:
            measure_report(Path(folder))


if __name__ == "__main__":
    main()
