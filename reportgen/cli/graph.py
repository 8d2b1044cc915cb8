"""`reportgen graph`: one graph as a picture, a page or DOT."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def graph(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="As in a manifest: torchvision:resnet50.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="FILE.svg, .pdf, .png, .html or .dot.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="SHAPE", help="batch,3,224,224 or ids=batch,9:int64<99; repeatable."
        ),
    ] = None,
    kind: Annotated[
        Literal["modules", "autograd", "onnx"] | None,
        typer.Option(help="Which graph [modules; onnx for an ONNX file]."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Close modules nested deeper than N.")
    ] = None,
    focus: Annotated[
        str, typer.Option(metavar="PATH", help="Draw only this module and what it touches.")
    ] = "",
) -> None:
    """Draw a graph of a model or an ONNX file."""
    from reportgen.graph_files import GraphRequest, write_graph
    from reportgen.manifest import parse_shape_argument

    request = GraphRequest(
        source=source,
        inputs=tuple(map(parse_shape_argument, inputs or ())),
        kind=kind,
        depth=depth,
        focus=focus,
    )
    write_graph(request, output)
