"""Models of torchvision by their names in `torchvision.models.list_models()`."""

from __future__ import annotations

import inspect
from typing import Any

from reportgen.errors import EnvironmentFault, ModelError
from reportgen.manifest import Source
from reportgen.sources.loaded import Recipe, did_you_mean, quietly

_PRETRAINED = ("weights", "weights_backbone", "pretrained")


def torchvision_recipe(source: Source, arguments: dict[str, Any]) -> Recipe:
    """The recipe for the model `source.target`, without pretrained weights.

    Raises:
        ModelError: there is no such model. The recipe raises it if arguments are invalid.
        EnvironmentFault: torchvision is missing or incompatible with torch.
    """
    models = _torchvision_models()
    if source.target not in models.list_models():
        known, otherwise = models.list_models(), "see torchvision.models.list_models()"
        raise ModelError(
            f"torchvision has no model {source.target!r}",
            hint=did_you_mean(source.target, known, otherwise),
        )
    for name in _PRETRAINED:
        if arguments.get(name):
            raise ModelError(
                f"argument {name!r} would download weights",
                hint="save the weights to a file and set 'weights' to its path",
            )
    builder = models.get_model_builder(source.target)
    # segmentation and detection models download backbone weights by default
    offline = {n: None for n in _PRETRAINED[:2] if n in inspect.signature(builder).parameters}

    def make() -> object:
        with quietly():
            return build(builder, offline | arguments, source.text)

    return Recipe(make=make)


def build(factory: Any, arguments: dict[str, Any], text: str) -> object:
    """Call `factory` with `arguments`; its exceptions become a one-line `ModelError`."""
    from reportgen.known_failures import failure_hint, failure_text, known_failure

    try:
        return factory(**arguments)
    # SystemExit is not an Exception
    except SystemExit as error:
        raise ModelError(
            f"{text} called sys.exit({error.code!r})",
            hint="let the factory raise an error, or return the model",
        ) from error
    except Exception as error:
        raise ModelError(
            f"{text} {'fails:' if known_failure(error) else 'raised'} {failure_text(error)}",
            hint=failure_hint(error, _hint(error, arguments)),
        ) from error


def _hint(error: Exception, arguments: dict[str, Any]) -> str:
    if arguments:
        return "check 'arguments' in the manifest"
    if isinstance(error, TypeError) and "missing" in str(error):
        return "set the required arguments under 'arguments' in the manifest"
    return "the same call fails in plain Python; fix it there"


def _torchvision_models() -> Any:
    try:
        import torchvision
    except ImportError as error:
        raise EnvironmentFault("torchvision is not installed", hint="run 'make report'") from error
    except RuntimeError as error:  # operator torchvision::nms does not exist
        raise EnvironmentFault(
            "torchvision is incompatible with the installed torch", hint="run 'reportgen doctor'"
        ) from error
    return torchvision.models
