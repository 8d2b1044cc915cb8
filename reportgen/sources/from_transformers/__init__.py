"""Models of transformers by class, model type or config.json; nothing is downloaded."""

from __future__ import annotations

import re
import traceback
from typing import Any

from reportgen.errors import ModelError
from reportgen.manifest import Source
from reportgen.sources.from_torchvision import build
from reportgen.sources.from_transformers.architectures import (
    Architecture,
    class_of_config,
    find_architecture,
    library,
    model_class,
)
from reportgen.sources.from_transformers.configs import make_config, read_config
from reportgen.sources.loaded import Recipe, quietly

# arguments of `_from_config`, not fields of the configuration
_NOT_FIELDS = ("attn_implementation", "dtype", "torch_dtype")
_CONFIG_ACCESS = re.compile(r"\bconfig\.(\w+)")


def transformers_recipe(source: Source, arguments: dict[str, Any]) -> Recipe:
    """The recipe for the architecture of `source`, with random weights in float32.

    `source.target` is a class, a model type, the path of a config.json, or a checkpoint that is
    the library's default of its architecture. `arguments` override fields of the configuration.

    Raises:
        ModelError: the architecture is unknown, or its sizes are not in the library. The recipe
            raises it if a field is unknown or the library rejects the configuration.
        EnvironmentFault: transformers is missing.
    """
    with quietly():
        library()
        architecture = (
            read_config(source.factory, source.text)
            if source.factory is not None
            else find_architecture(source.target, source.text)
        )
        kind = _model_class(architecture, source.text)
        _check_is_model(kind, source.text)
    return Recipe(
        make=lambda: _make(kind, architecture, arguments, source.text),
        notes=tuple(_notes(kind, architecture, arguments)),
    )


def _model_class(architecture: Architecture, text: str) -> Any:
    if architecture.model_class:
        return model_class(architecture.model_class, text)
    return class_of_config(architecture.config_class, text)


def _make(kind: Any, architecture: Architecture, arguments: dict[str, Any], text: str) -> object:
    import torch

    fields = {k: v for k, v in arguments.items() if k not in _NOT_FIELDS}
    dtype = arguments.get("dtype", arguments.get("torch_dtype", "float32"))
    if not isinstance(getattr(torch, str(dtype), None), torch.dtype):
        raise ModelError(f"{text}: {dtype!r} is not a dtype", hint="use float32 or bfloat16")
    with quietly():
        # a new one for each build, because constructors modify theirs
        config = make_config(architecture, fields, text)
        chosen = arguments.get("attn_implementation")
        options = {"dtype": str(dtype)} | ({"attn_implementation": chosen} if chosen else {})
        try:
            # kind(config) ignores `dtype`, and only Auto classes have a public from_config
            return kind._from_config(config, **options)
        except Exception as error:  # libraries raise anything; the second call reports it
            if not chosen and "attn_implementation" in str(error):
                # the default, sdpa, is not implemented for every model
                options["attn_implementation"] = "eager"
            # the failed constructor may have modified its configuration
            again = make_config(architecture, _derived_values(config) | fields, text)
            return _build_with_hint(kind, again, options, text, _unset_fields(config, error))


def _build_with_hint(
    kind: Any, config: Any, options: dict[str, Any], text: str, unset: list[str]
) -> object:
    """Build once more; if it fails again, the error's hint contains the unset fields."""
    try:
        return build(kind._from_config, {"config": config, **options}, text)
    except ModelError as error:
        hint = (
            f"the configuration does not set {unset[0]!r}; set it under 'arguments'"
            if unset
            else "check 'arguments', or use a config.json with the missing fields"
        )
        raise ModelError(str(error), hint=hint) from error


def _check_is_model(kind: Any, text: str) -> None:
    if not hasattr(kind, "_from_config"):
        raise ModelError(
            f"{text}: {kind.__name__} is not a transformers model",
            hint="use a class derived from PreTrainedModel",
        )


def _notes(kind: Any, architecture: Architecture, arguments: dict[str, Any]) -> list[str]:
    notes = [f"built as transformers.{kind.__name__} with random weights"]
    if architecture.checkpoint:
        notes.append(
            f"the sizes are the library's defaults, which its documentation calls similar to "
            f"those of {architecture.checkpoint}"
        )
    declared = architecture.dtype
    if declared not in (None, "float32") and not {"dtype", "torch_dtype"} & set(arguments):
        notes.append(f"the configuration declares {declared}; the model was built in float32")
    if architecture.quantization:
        notes.append(
            f"the configuration names a quantization ({architecture.quantization}); the model was "
            "built without it, so parameters, bytes and memory are those of float weights"
        )
    return notes


def _derived_values(config: Any) -> dict[str, int]:
    """`head_dim` = hidden size / heads, if the configuration has the field but does not set it."""
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", 0)
    is_unset = hasattr(config, "head_dim") and config.head_dim is None
    return {"head_dim": width // heads} if is_unset and width and heads else {}


def _unset_fields(config: Any, error: BaseException) -> list[str]:
    """Fields that are None and appear in the error, or in the source lines of its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    mentioned = re.findall(r"`(\w+)`", str(error))
    names = [
        *mentioned,
        *(name for frame in reversed(frames) for name in _CONFIG_ACCESS.findall(frame.line or "")),
    ]
    return [n for n in dict.fromkeys(names) if getattr(config, n, "") is None]
