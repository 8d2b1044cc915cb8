"""Which model class stands for a configuration."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from reportgen.errors import ModelError
from reportgen.sources.from_transformers.library import library

# What an architecture was published for, as far as one order can say it: a model that reads and
# writes before one that writes, and everything before the bare body.
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


def class_named(name: str, text: str) -> Any:
    """The library's model class called `name`.

    Raises:
        ModelError: it has none; code from outside the library is never run.
    """
    found = getattr(library(), name, None)
    if found is None:
        near = difflib.get_close_matches(name, dir(library()), n=1)
        raise ModelError(
            f"{text}: transformers has no class {name!r}",
            hint=f"did you mean {near[0]!r}?" if near else "code from outside is never run",
        )
    return found


def class_of_type(config_class: Any, text: str) -> Any:
    """The class of the first task that the library knows for a configuration.

    Raises:
        ModelError: no model takes this configuration.
    """
    library()
    from transformers.models.auto import modeling_auto

    for head in _HEADS:
        mapping = getattr(modeling_auto, head, None)
        if mapping is not None and config_class in mapping:
            try:
                found = mapping[config_class]
            except ValueError:  # the list names a class that the library has not
                continue
            return _with_forward(found[0] if isinstance(found, list | tuple) else found, text)
    beside = _class_beside(config_class)
    if beside is not None:
        return beside
    raise ModelError(
        f"{text}: no model of transformers is made from {config_class.__name__} alone",
        hint="it configures a part of a model: name the whole one, or a class, as in "
        "transformers:BertModel",
    )


def _with_forward(found: Any, text: str) -> Any:
    if getattr(found, "forward", None) is not None and not _has_forward(found):
        raise ModelError(
            f"{text}: {found.__name__} has no forward pass, it only generates",
            hint="name one of the models that it is made of by its class",
        )
    return found


def _has_forward(found: Any) -> bool:
    """Whether a class defines one: torch's own, which only raises, has another name."""
    return bool(found.forward.__name__ != "_forward_unimplemented")


def _class_beside(config_class: Any) -> Any:
    """The model that declares this configuration as its own, in the module beside it; or None.

    A part of a model, such as the text encoder of a two-tower model, stands in no list of tasks.
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
        and value.__module__ == name
        and value.config_class is config_class
        and _has_forward(value)
    }
    likely = [f"{stem}ForConditionalGeneration", f"{stem}ForCausalLM", f"{stem}Model", stem]
    return next((found[key] for key in (*likely, *reversed(found)) if key in found), None)
