"""What a name means: a model class, a model type, or a checkpoint the library knows the sizes of.

A checkpoint's sizes stand in a file on a hub that is never asked. Only where the library's own
defaults are documented to be those of the checkpoint can it be named without that file.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reportgen.errors import ModelError
from reportgen.sources.from_transformers.library import config_class, library, model_types

_CHECKPOINT = re.compile(r'@auto_docstring\((?:[^()]*?,\s*)?checkpoint="([^"]+)"')
_LINK = re.compile(r"\]\(https://huggingface\.co/([\w./-]+)\)")


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """An architecture: its configuration class, and what overrides the class's defaults.

    Attributes:
        config_class: the library's configuration class.
        architecture: the name of the model class; None to choose one by the configuration.
        values: the fields of a configuration file; {} for the library's defaults.
        checkpoint: the checkpoint whose name was given; "" for none.
        dtype: the dtype that the configuration file declares, if any.
    """

    config_class: Any
    architecture: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    dtype: str | None = None


def find_name(name: str, text: str) -> Named:
    """The architecture called `name`: a class, a model type or a checkpoint of default sizes.

    Raises:
        ModelError: there is none, or its sizes are not in the library.
    """
    types = model_types()
    for spelling in (name, name.replace("-", "_"), name.replace("_", "-")):
        if spelling in types:
            return Named(config_class=config_class(spelling))
    found = getattr(library(), name, None) if name.isidentifier() else None
    if found is not None:
        return _of_class(found, name, text)
    checkpoint = _of_checkpoint(name)
    if checkpoint is not None:
        return checkpoint
    raise _unknown(name, text, types)


def _of_class(found: Any, name: str, text: str) -> Named:
    config = getattr(found, "config_class", None)
    if not hasattr(found, "_from_config") or config is None:
        types = {value: key for key, value in model_types().items()}
        owner = types.get(name)
        raise ModelError(
            f"{text}: {name} is no model class of transformers with a configuration of its own",
            hint=f"did you mean 'transformers:{owner}'?" if owner else "name a model type",
        )
    return Named(config_class=config, architecture=name)


def _of_checkpoint(name: str) -> Named | None:
    base = name.rsplit("/", 1)[-1].casefold()
    for model_type in _types_that_mention(base):
        found = config_class(model_type)
        for default in _LINK.findall((found.__doc__ or "").split("Args:")[0]):
            if default.rsplit("/", 1)[-1].casefold() == base:
                return Named(config_class=found, checkpoint=default)
    return None


def _types_that_mention(base: str) -> list[str]:
    """Model types whose configuration's source says a checkpoint's name; import comes after."""
    folder = Path(library().__file__).parent / "models"
    mentioned = set()
    for path in sorted(folder.glob("*/configuration_*.py")):
        names = _CHECKPOINT.findall(path.read_text(encoding="utf-8", errors="replace"))
        if any(name.rsplit("/", 1)[-1].casefold() == base for name in names):
            mentioned.add(path.parent.name)
    return [kind for kind in model_types() if _folder(kind) in mentioned]


def _folder(model_type: str) -> str:
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    return str(model_type_to_module_name(model_type))


def _unknown(name: str, text: str, types: dict[str, str]) -> ModelError:
    base = re.split(r"[-_.]", name.rsplit("/", 1)[-1].casefold())
    stems = ["-".join(base[:end]) for end in range(len(base), 0, -1)]
    owner = next((s for stem in stems for s in (stem, stem.replace("-", "_")) if s in types), None)
    if "/" in name or (owner and len(base) > 1):
        kind = owner or "TYPE"
        return ModelError(
            f"{text}: the sizes of this checkpoint are not in the library, and nothing is "
            "downloaded",
            hint=f"name its config.json, as in transformers:./config.json, or "
            f"'transformers:{kind}' with arguments",
        )
    known = [*types, *(n for n in dir(library()) if "For" in n or "Model" in n)]
    near = difflib.get_close_matches(name, known, n=1)
    return ModelError(
        f"transformers has no architecture {name!r}",
        hint=f"did you mean {near[0]!r}?" if near else "name a model type such as bert",
    )
