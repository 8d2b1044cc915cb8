"""Configurations from a config.json or the library's defaults, with the manifest's arguments."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.sources.from_transformers.architectures import (
    Architecture,
    config_class,
    model_types,
)
from reportgen.sources.loaded import did_you_mean

# describe the stored checkpoint, not the architecture; auto_map would run custom code
_NOT_ARCHITECTURE = ("quantization_config", "auto_map", "_name_or_path", "transformers_version")
# num_labels is a property of PreTrainedConfig, not a field
_ALWAYS_KNOWN = {"num_labels", "id2label", "label2id"}
_BITS = {"load_in_4bit": 4, "load_in_8bit": 8}  # of bitsandbytes
_PER_LAYER = ("layer_types", "mlp_layer_types", "sliding_window_pattern")


def read_config(path: str, text: str) -> Architecture:
    """The architecture in a config.json.

    Raises:
        ModelError: it is not a transformers configuration, or its model type is unknown.
    """
    file = Path(path)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{text}: {file.name} is not valid JSON: {one_line(error)}") from error
    kind = values.get("model_type") if isinstance(values, dict) else None
    if not isinstance(kind, str):
        raise ModelError(
            f"{text}: {file.name} has no 'model_type'",
            hint="use the config.json of a transformers checkpoint",
        )
    types = model_types()
    if kind not in types:
        if "auto_map" in values:
            raise ModelError(
                f"{text}: the configuration names code of its own (auto_map), which is not run; "
                f"transformers itself has no model type {kind!r}",
                hint="use as source a file.py with a function that builds the model from this code",
            )
        hint = did_you_mean(kind, types, "custom code is never run")
        raise ModelError(f"{text}: transformers has no model type {kind!r}", hint=hint)
    # torch_dtype is the older name
    declared = values.get("dtype", values.get("torch_dtype"))
    architectures = values.get("architectures") or [None]
    return Architecture(
        config_class=config_class(kind),
        model_class=architectures[0],
        values={k: v for k, v in values.items() if k not in _NOT_ARCHITECTURE},
        dtype=declared if isinstance(declared, str) else None,
        quantization=_quantization(values.get("quantization_config")),
    )


def _quantization(config: Any) -> str:
    """`gptq, 4 bits` of a quantization_config; "" without one."""
    if not isinstance(config, dict):
        return ""
    named = [bits for key, bits in _BITS.items() if config.get(key) is True]
    bits = config.get("bits", config.get("w_bit", named[0] if named else None))
    method = str(config.get("quant_method", "quantized"))
    return f"{method}, {bits} bits" if isinstance(bits, int) else method


def make_config(architecture: Architecture, arguments: dict[str, Any], text: str) -> Any:
    """A new configuration of `architecture` with `arguments`; `use_cache` is off unless it is set.

    Raises:
        ModelError: an argument is not a field, or the library rejects a value.
    """
    # the constructor would store a misspelled field without an error
    _check_fields(architecture.config_class, arguments, text)
    values = _merged(_without_per_layer_lists(architecture.values, arguments), arguments)
    try:
        config = architecture.config_class(**values)
    except Exception as error:
        hint = "check 'arguments' in the manifest" if arguments else ""
        raise ModelError(
            f"{text}: transformers rejects the configuration: {type(error).__name__}: "
            f"{one_line(error)}",
            hint=hint or "use a config.json with the missing fields",
        ) from error
    _disable_cache(config, values)
    return config


def _disable_cache(config: Any, values: dict[str, Any]) -> None:
    """Disable the key-value cache: exporters do not support it as an output."""
    if getattr(config, "use_cache", False) and "use_cache" not in values:
        config.use_cache = False
    for key in getattr(config, "sub_configs", {}):
        inner = getattr(config, key, None)
        given = values.get(key)
        if inner is not None:
            _disable_cache(inner, given if isinstance(given, dict) else {})


def _merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = dict(base)
    for key, value in over.items():
        inner: Any = both.get(key)
        nested = isinstance(inner, dict) and isinstance(value, dict)
        both[key] = _merged(inner, value) if nested else value
    return both


def _without_per_layer_lists(values: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """`values` without lists of one item per layer, if the number of layers is changed."""
    # transformers checks their length against num_hidden_layers
    if "num_hidden_layers" not in arguments:
        return values
    return {k: v for k, v in values.items() if k not in _PER_LAYER or k in arguments}


def _check_fields(kind: Any, arguments: dict[str, Any], text: str, path: str = "") -> None:
    known = known_fields(kind)
    for key, value in arguments.items():
        if key not in known:
            raise ModelError(
                f"{text}: {kind.__name__} has no field {path + key!r}",
                hint=did_you_mean(key, sorted(known), "see the class's documentation"),
            )
        inner = getattr(kind, "sub_configs", {}).get(key)
        if isinstance(value, dict) and "model_type" not in value and _is_plain(inner):
            _check_fields(inner, value, text, f"{path}{key}.")


def known_fields(kind: Any) -> set[str]:
    """The field names of a configuration class."""
    own = {f.name for f in fields(kind)} if is_dataclass(kind) else set()
    return own | set(getattr(kind, "attribute_map", {})) | _ALWAYS_KNOWN


def _is_plain(kind: object) -> bool:
    """Whether a nested configuration has a fixed class, so that its fields are known."""
    return isinstance(kind, type) and is_dataclass(kind) and kind.__name__ != "AutoConfig"
