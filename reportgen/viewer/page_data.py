"""The data of the viewer in a page: compact arrays, compressed, readable by its scripts."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from reportgen.comparable import Graph, ModuleRecord, OperatorNode
from reportgen.viewer.layout import GraphLayout, LevelDrawing


def data_block(id_: str, value: object) -> Markup:
    """A script element with `value`, which `readBlock` of `templates/viewer/loader.js` reads."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    # base 85 takes 6 % less than base 64; "<" could end the element
    packed = base64.b85encode(_deflated(text)).decode("ascii").replace("<", ",")
    # the fonts of a page contain the letters that stand in its text
    letters = "".join(sorted({letter for letter in text if letter > "~" and letter.isprintable()}))
    block = json.dumps({"letters": letters, "deflated": packed}, ensure_ascii=False)
    block = block.replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="{id_}">{block}</script>')  # noqa: S704 - escaped


def _deflated(text: str) -> bytes:
    compressor = zlib.compressobj(level=9, wbits=-zlib.MAX_WBITS)
    return compressor.compress(text.encode("utf-8", "replace")) + compressor.flush()


def graph_data(graphs: Iterable[Graph], layouts: Sequence[GraphLayout]) -> list[dict[str, Any]]:
    """Each graph with its layouts, as `templates/viewer/data.js` declares them."""
    return [
        _graph(graph, [layout for layout in layouts if layout.name == graph.name])
        for graph in graphs
    ]


def _graph(graph: Graph, layouts: Iterable[GraphLayout]) -> dict[str, Any]:
    modules: dict[str, int] = {}
    descriptions: dict[str, int] = {}
    rows = []
    for node in graph.nodes:
        text = json.dumps([node.operator, node.kind, dict(node.attributes), node.outputs])
        rows.append(
            (
                _short_id(node),
                modules.setdefault(node.module, len(modules)),
                descriptions.setdefault(text, len(descriptions)),
            )
        )
    # by columns, which compress better
    ids, modules_of, descriptions_of = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        "name": graph.name,
        "attributes": dict(graph.attributes),
        "modules": list(modules),
        "descriptions": [json.loads(text) for text in descriptions],
        "ids": ids,
        "moduleOf": modules_of,
        "descriptionOf": descriptions_of,
        "sources": _steps([source for source, _ in graph.edges]),
        "spans": [target - source for source, target in graph.edges],
        "figures": dict(graph.figures),
        "layouts": [_layout(layout) for layout in layouts],
    }


def _layout(layout: GraphLayout) -> dict[str, Any]:
    clusters = layout.clusters
    return {
        "complete": layout.complete,
        "engine": layout.engine,
        "drawings": [_drawing(drawing) for drawing in layout.drawings],
        "clusterIds": [cluster.id for cluster in clusters],
        "clusterNames": [cluster.name for cluster in clusters],
        "drawingOf": [cluster.drawing for cluster in clusters],
        "children": _list_steps(cluster.children for cluster in clusters),
        "childNames": [cluster.names for cluster in clusters],
        "incoming": [cluster.incoming for cluster in clusters],
        "outgoing": [cluster.outgoing for cluster in clusters],
        "valueSources": _list_steps(cluster.sources for cluster in clusters),
    }


def _short_id(node: OperatorNode) -> str | int:
    """The id, or how it follows from the module and the operator, as most do."""
    return {node.module: 0, f"{node.module}/{node.operator}": 1}.get(node.id, node.id)


def _steps(values: Sequence[int]) -> list[int]:
    """Differences, which repeat more often than values and so compress better."""
    return [b - a for a, b in pairwise([0, *values])]


def _list_steps(lists: Iterable[Sequence[int]]) -> list[list[int]]:
    """Differences that go on from each list to the next."""
    last = 0
    steps = []
    for values in lists:
        steps.append([b - a for a, b in pairwise([last, *values])])
        last = values[-1] if values else last
    return steps


def _drawing(drawing: LevelDrawing) -> list[Any]:
    return [
        drawing.kinds,
        drawing.widths,
        drawing.ranks,
        drawing.places,
        drawing.producers,
        drawing.edges,
        drawing.named,
    ]


def module_data(modules: Iterable[ModuleRecord]) -> list[list[Any]]:
    """What the side card shows of each module: see `ModuleFacts` in `templates/viewer/data.js`."""
    return [
        [
            module.path,
            module.type,
            module.parameters,
            module.macs,
            module.source,
            module.call,
            {name: value for name, value in module.attributes.items() if value is not None},
            [[t.name, "×".join(map(str, t.shape)) or "scalar", t.dtype] for t in module.tensors],
            module.shared_with,
        ]
        for module in modules
    ]
