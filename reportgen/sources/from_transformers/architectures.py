"""The configuration class and the model class for a name of transformers.

A name is a model class, a model type or a checkpoint. The hub is never contacted, so a checkpoint
is accepted only if the library documents its default configuration as similar to the checkpoint's.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reportgen.errors import EnvironmentFault, ModelError
from reportgen.sources.loaded import did_you_mean
from reportgen.sources.offline import stay_offline

# @auto_docstring(checkpoint="google-bert/bert-base-uncased")
_CHECKPOINT = re.compile(r'@auto_docstring\((?:[^()]*?,\s*)?checkpoint="([^"]+)"')
_LINK = re.compile(r"\]\(https://huggingface\.co/([\w./-]+)\)")

# An architecture may support several tasks; the first task in this list is used. Encoder-decoder
# models come before decoders, and the base model without a head comes last.
_HEADS = (
    "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING",
    "MODEL_FOR_MASKED_LM_MAPPING",
    "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
    "MODEL_FOR_CAUSAL_LM_MAPPING",
    "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING",
    "MODEL_FOR_OBJECT_DETECTION_MAPPING",
    "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING",
    "MODEL_FOR_DEPTH_ESTIMATION_MAPPING",
    "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING",
    "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING",
    "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING",
    "MODEL_FOR_CTC_MAPPING",
    "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING",
    "MODEL_FOR_IMAGE_TO_IMAGE_MAPPING",
    "MODEL_FOR_MASK_GENERATION_MAPPING",
    "MODEL_FOR_VISUAL_QUESTION_ANSWERING_MAPPING",
    "MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING",
    "MODEL_FOR_TEXT_TO_SPECTROGRAM_MAPPING",
    "MODEL_FOR_TABLE_QUESTION_ANSWERING_MAPPING",
    "MODEL_FOR_TIME_SERIES_PREDICTION_MAPPING",
    "MODEL_FOR_KEYPOINT_DETECTION_MAPPING",
    "MODEL_FOR_PRETRAINING_MAPPING",
    "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING",
    "MODEL_MAPPING",
)


def library() -> Any:
    """The package `transformers`, imported with the hub disabled.

    Raises:
        EnvironmentFault: it is not installed.
    """
    stay_offline()
    try:
        import transformers
    except ImportError as error:
        raise EnvironmentFault(
            "transformers is not installed", hint="run pip install 'reportgen[transformers]'"
        ) from error
    return transformers


def model_types() -> dict[str, str]:
    """The name of the configuration class for every model type of the library."""
    library()
    from transformers.models.auto import configuration_auto

    names: Any = configuration_auto
    return {str(key): str(value) for key, value in names.CONFIG_MAPPING_NAMES.items()}


def config_class(model_type: str) -> Any:
    """The configuration class of `model_type`, one of `model_types`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A configuration class and the values that override its defaults.

    Attributes:
        config_class: the library's configuration class.
        model_class: the name of the model class; None to choose one by the configuration.
        values: the fields of a config.json; {} for the library's defaults.
        checkpoint: the checkpoint with these defaults, if the name is a checkpoint; else "".
        dtype: the dtype in the config.json, if any.
        quantization: the quantization in the config.json, such as `gptq, 4 bits`; else "".
    """

    config_class: Any
    model_class: str | None = None
    values: dict[str, Any] = field(default_factory=dict)
    checkpoint: str = ""
    dtype: str | None = None
    quantization: str = ""


def find_architecture(name: str, text: str) -> Architecture:
    """The architecture for `name`: a class, a model type or a checkpoint with default sizes.

    Raises:
        ModelError: there is none, or its configuration is not in the library.
    """
    types = model_types()
    # the library writes both: gpt_neox, gpt-sw3
    for spelling in (name, name.replace("-", "_"), name.replace("_", "-")):
        if spelling in types:
            return Architecture(config_class=config_class(spelling))
    found = getattr(library(), name, None) if name.isidentifier() else None
    if found is not None:
        return _of_class(found, name, text)
    checkpoint = _of_checkpoint(name)
    if checkpoint is not None:
        return checkpoint
    raise _unknown(name, text, types)


def _of_class(found: Any, name: str, text: str) -> Architecture:
    config = getattr(found, "config_class", None)
    if not hasattr(found, "_from_config") or config is None:
        types = {value: key for key, value in model_types().items()}
        owner = types.get(name)
        raise ModelError(
            f"{text}: {name} is not a transformers model class with its own configuration",
            hint=f"did you mean 'transformers:{owner}'?" if owner else "use a model type",
        )
    return Architecture(config_class=config, model_class=name)


def _of_checkpoint(name: str) -> Architecture | None:
    base = name.rsplit("/", 1)[-1].casefold()
    for model_type in _types_that_mention(base):
        found = config_class(model_type)
        for default in _LINK.findall((found.__doc__ or "").split("Args:")[0]):
            if default.rsplit("/", 1)[-1].casefold() == base:
                return Architecture(config_class=found, checkpoint=default)
    return None


def _types_that_mention(base: str) -> list[str]:
    """Model types whose source mentions the checkpoint `base`."""
    # a search in the text avoids importing the configurations of all model types
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
            f"{text}: transformers does not contain the sizes of this checkpoint, and nothing is "
            "downloaded",
            hint="use its config.json as source, such as transformers:./config.json, or "
            f"'transformers:{kind}' with arguments",
        )
    known = [*types, *(n for n in dir(library()) if "For" in n or "Model" in n)]
    return ModelError(
        f"transformers has no architecture {name!r}",
        hint=did_you_mean(name, known, "use a model type such as bert"),
    )


def model_class(name: str, text: str) -> Any:
    """The library's model class `name`.

    Raises:
        ModelError: there is none; custom code is never run.
    """
    found = getattr(library(), name, None)
    if found is None:
        raise ModelError(
            f"{text}: transformers has no class {name!r}",
            hint=did_you_mean(name, dir(library()), "custom code is never run"),
        )
    return found


def class_of_config(config_class: Any, text: str) -> Any:
    """The model class of `config_class` for the first supported task.

    Raises:
        ModelError: no model uses this configuration.
    """
    library()
    from transformers.models.auto import modeling_auto

    for head in _HEADS:
        mapping = getattr(modeling_auto, head, None)
        if mapping is not None and config_class in mapping:
            try:
                found = mapping[config_class]
            except ValueError:  # the mapping lists a class that the library does not have
                continue
            return _with_forward(found[0] if isinstance(found, list | tuple) else found, text)
    found = _class_in_same_package(config_class)
    if found is not None:
        return found
    raise ModelError(
        f"{text}: no transformers model is built from {config_class.__name__} alone",
        hint="it configures a part of a model: use the whole model, or a class such as "
        "transformers:BertModel",
    )


def _with_forward(found: Any, text: str) -> Any:
    if getattr(found, "forward", None) is not None and not _has_forward(found):
        raise ModelError(
            f"{text}: {found.__name__} has no forward method, only generate",
            hint="use the class of one of its submodels",
        )
    return found


def _has_forward(found: Any) -> bool:
    # nn.Module's default, which raises, has this name
    return bool(found.forward.__name__ != "_forward_unimplemented")


def _class_in_same_package(config_class: Any) -> Any:
    """The model class with this `config_class` in its modeling module, or None.

    A part of a model, such as the text encoder of CLIP, is not in the library's task mappings.
    """
    from transformers import PreTrainedModel

    name = config_class.__module__.replace(".configuration_", ".modeling_")
    try:
        module = importlib.import_module(name)
    except ImportError:
        return None
    stem = config_class.__name__.removesuffix("Config")
    found = {
        key: value
        for key, value in vars(module).items()
        if isinstance(value, type)
        and issubclass(value, PreTrainedModel)
        and value.__module__ == name  # not imported from another model
        and value.config_class is config_class
        and _has_forward(value)
    }
    # models with a head first, as in _HEADS; otherwise the last class in the file
    likely = [f"{stem}ForConditionalGeneration", f"{stem}ForCausalLM", f"{stem}Model", stem]
    return next((found[key] for key in (*likely, *reversed(found)) if key in found), None)
