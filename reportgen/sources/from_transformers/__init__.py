"""Architectures of transformers: by class, by type, by a configuration file; never a download."""

from __future__ import annotations

from typing import Any

from reportgen.errors import ModelError
from reportgen.manifest import Source
from reportgen.sources.from_torchvision import build
from reportgen.sources.from_transformers.classes import class_named, class_of_type
from reportgen.sources.from_transformers.configs import configured, read_config
from reportgen.sources.from_transformers.library import library
from reportgen.sources.from_transformers.names import Named, find_name
from reportgen.sources.from_transformers.open_fields import (
    derived_values,
    open_fields,
)
from reportgen.sources.loaded import Recipe, quietly

_NOT_FIELDS = ("attn_implementation", "dtype", "torch_dtype")


def transformers_recipe(source: Source, arguments: dict[str, Any]) -> Recipe:
    """How to build the architecture that `source` names, with random weights in float32.

    `source.target` is a class, a model type, the path of a config.json, or a checkpoint that is
    the library's own default of its architecture. `arguments` override the configuration.

    Raises:
        ModelError: there is no such architecture; its sizes are not in the library; a field is
            unknown. The recipe raises it where the library refuses the configuration.
        EnvironmentFault: transformers is missing.
    """
    with quietly():
        library()
        named = (
            read_config(source.factory, source.text)
            if source.factory is not None
            else find_name(source.target, source.text)
        )
        kind = _class(named, source.text)
        _refuse_code(kind, source.text)
    return Recipe(
        make=lambda: _make(kind, named, arguments, source.text),
        notes=tuple(_notes(kind, named, arguments)),
    )


def _class(named: Named, text: str) -> Any:
    if named.architecture:
        return class_named(named.architecture, text)
    return class_of_type(named.config_class, text)


def _make(kind: Any, named: Named, arguments: dict[str, Any], text: str) -> object:
    """A new configuration for every model: constructors write into theirs."""
    import torch

    fields = {k: v for k, v in arguments.items() if k not in _NOT_FIELDS}
    dtype = arguments.get("dtype", arguments.get("torch_dtype", "float32"))
    if not isinstance(getattr(torch, str(dtype), None), torch.dtype):
        raise ModelError(f"{text}: {dtype!r} is no dtype", hint="write float32 or bfloat16")
    with quietly():
        config = configured(named, fields, text)
        chosen = arguments.get("attn_implementation")
        options = {"dtype": str(dtype)} | ({"attn_implementation": chosen} if chosen else {})
        try:
            return kind._from_config(config, **options)
        except Exception as error:
            if not chosen and "attn_implementation" in str(error):
                options["attn_implementation"] = "eager"
            again = configured(named, derived_values(config) | fields, text)
            return _told(kind, again, options, text, open_fields(config, error))


def _told(kind: Any, config: Any, options: dict[str, Any], text: str, unset: list[str]) -> object:
    """Built once more, for the same error in our words, with the fields that stand open."""
    try:
        return build(kind._from_config, {"config": config, **options}, text)
    except ModelError as error:
        hint = (
            f"the configuration leaves {unset[0]!r} open: give it under 'arguments'"
            if unset
            else "check 'arguments', or name a config.json that has what is missing"
        )
        raise ModelError(str(error), hint=hint) from error


def _refuse_code(kind: Any, text: str) -> None:
    if not hasattr(kind, "_from_config"):
        raise ModelError(
            f"{text}: {kind.__name__} is no model of transformers",
            hint="name a class derived from PreTrainedModel",
        )


def _notes(kind: Any, named: Named, arguments: dict[str, Any]) -> list[str]:
    notes = [f"built as transformers.{kind.__name__} with random weights"]
    if named.checkpoint:
        notes.append(
            f"the sizes are the library's defaults, which its documentation calls similar to "
            f"those of {named.checkpoint}"
        )
    declared = named.dtype
    if declared not in (None, "float32") and not {"dtype", "torch_dtype"} & set(arguments):
        notes.append(f"the configuration names {declared}; the model was built in float32")
    return notes
