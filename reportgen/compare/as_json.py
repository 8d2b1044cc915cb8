"""A comparison as JSON: what `reportgen compare --format json` prints."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import to_jsonable_python

from reportgen.compare.result import Comparison, ModelComparison

COMPARISON_FORMAT = 1
"""Version of the JSON of a comparison. 1: the first."""


def comparison_to_data(comparison: Comparison) -> dict[str, Any]:
    """JSON-ready data; a part that cannot be compared is null."""
    data: dict[str, Any] = to_jsonable_python(comparison)
    data["models"] = [_model_data(model) for model in comparison.models]
    return {"format": COMPARISON_FORMAT, "generator": "reportgen", **data}


def comparison_to_json(comparison: Comparison) -> str:
    """`comparison_to_data` as text, ending in a newline."""
    data = comparison_to_data(comparison)
    return json.dumps(data, ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def _model_data(model: ModelComparison) -> dict[str, Any]:
    data: dict[str, Any] = to_jsonable_python(model)
    # by name, as readers look a graph up: models[].onnx.operators
    del data["drawing"], data["views"]  # the pages have them
    graphs = {graph["name"]: graph for graph in data.pop("graphs")}
    return (
        data
        | {name: graphs.get(name) for name in ("onnx", "autograd")}
        | {"module_graph": graphs.get("modules")}
    )
