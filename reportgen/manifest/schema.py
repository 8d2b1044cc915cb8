"""The manifest's JSON Schema, draft-07, for editors.

Generated from the pydantic models. The short forms (expanded before validation) and the keys that
contain a number are added by hand.
"""

from __future__ import annotations

from typing import Any

from reportgen.manifest.input_spec import FORMS
from reportgen.manifest.values import METRICS, PEAK_MEMORY, Document

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string", "minLength": 1}
_SHORT_FORMS: dict[str, Schema] = {
    "Target": _TEXT,
    "InputSpec": {
        "type": "string",
        "pattern": r"^([^=:<]+=)?[^=:<]+(:[a-z0-9]+(<[0-9]+)?)?$",
        "examples": ["batch,3,224,224", "ids=batch,128:int64<30522"],
    },
    "OnnxOptions": {"type": "boolean"},
    "LogSource": _TEXT,
}
_ONE_LOG: list[Schema] = [
    {"$ref": "#/definitions/LogSource"},
    {
        "type": "object",
        "properties": {"tensorboard": _TEXT, "visdom": _TEXT},
        "additionalProperties": False,
        "minProperties": 1,
    },
]
_TEXT_ONLY: dict[str, Schema] = {
    "Source": {
        **_TEXT,
        "pattern": r"^([^:]+:[\w./-]+|.+\.py:[\w.]+|.+\.(pt2|onnx))$",
        "examples": ["torchvision:resnet50", "net.py:Net", "package.module:build", "net.onnx"],
    },
    "Loss": {
        "anyOf": [
            {"enum": ["cross_entropy", "sum"]},
            {"type": "string", "pattern": r"\.py:[^:]+$"},
        ]
    },
}


def manifest_schema() -> Schema:
    """The JSON Schema of a manifest file; `reportgen schema manifest` prints it."""
    schema = Document.model_json_schema(by_alias=True, ref_template="#/definitions/{model}")
    definitions: Schema = schema.pop("$defs")
    _open_budget_keys(definitions["Budgets"])
    # pydantic writes a pattern for the rule codes, but allows other keys beside it
    definitions["ModelSpec"]["properties"]["ignore"]["additionalProperties"] = False
    definitions["InputSpec"]["anyOf"] = [{"required": [form]} for form in FORMS]
    # set by the reader, not a key of a file
    definitions["LogSource"]["properties"].pop("text")
    definitions["ModelSpec"]["anyOf"] = [{"required": ["source"]}, {"required": ["logs"]}]
    logs = definitions["ModelSpec"]["properties"]["logs"]
    logs["anyOf"] = [{"type": logs.pop("type"), "items": logs["items"]}, *_ONE_LOG]
    del logs["items"]
    for name, short in _SHORT_FORMS.items():
        long = definitions[name]
        description = long.pop("description")
        definitions[name] = {"description": description, "anyOf": [short, long]}
    for name, text in _TEXT_ONLY.items():
        definitions[name] = {"description": definitions[name]["description"], **text}
    for definition in definitions.values():
        if "description" in definition:  # the rest of the docstring documents the Python class
            definition["description"] = definition["description"].split("\n\n")[0]
    plain: Schema = _for_editors({**schema, "definitions": definitions})
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "reportgen manifest, version 1",
        **plain,
    }


def _open_budget_keys(budgets: Schema) -> None:
    """Replace the two dicts by patterns of keys: `peak_memory@64`, `onnx.bytes`."""
    patterns = {PEAK_MEMORY: f"^{PEAK_MEMORY}[1-9][0-9]{{0,8}}$", METRICS: r"^[a-z]\w*\.\S+$"}
    budgets["patternProperties"] = {}
    for name, pattern in patterns.items():
        keys = budgets["properties"].pop(name)
        described = {"description": keys["description"]}
        budgets["patternProperties"][pattern] = {**keys["additionalProperties"], **described}


def _for_editors(part: Any) -> Any:
    """`part` without generated titles and non-scalar defaults, and with draft-07 references."""
    if isinstance(part, list):
        return [_for_editors(item) for item in part]
    if not isinstance(part, dict):
        return part
    kept = {
        key: _for_editors(value)
        for key, value in part.items()
        if not (key == "title" and isinstance(value, str))
        and not (key == "default" and not isinstance(value, str | int | float))
    }
    if "$ref" in kept and len(kept) > 1:  # draft-07 ignores the siblings of a $ref
        kept["allOf"] = [{"$ref": kept.pop("$ref")}]
    return kept
