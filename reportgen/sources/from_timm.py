"""Models of timm by their names in `timm.list_models()`, with or without a tag."""

from __future__ import annotations

from typing import Any

from reportgen.errors import EnvironmentFault, ModelError
from reportgen.manifest import Source
from reportgen.sources.from_torchvision import build
from reportgen.sources.loaded import Recipe, did_you_mean, quietly
from reportgen.sources.offline import stay_offline

# arguments of timm.create_model that read a checkpoint
_PRETRAINED = ("pretrained", "checkpoint_path", "pretrained_cfg_overlay")


def timm_recipe(source: Source, arguments: dict[str, Any]) -> Recipe:
    """The recipe for the model `source.target`, without pretrained weights.

    Raises:
        ModelError: there is no such model. The recipe raises it if arguments are invalid.
        EnvironmentFault: timm is missing.
    """
    timm = _timm()
    _check_name(timm, source.target)
    for name in _PRETRAINED:
        if arguments.get(name):
            raise ModelError(
                f"argument {name!r} would load weights",
                hint="save the weights to a file and set 'weights' to its path",
            )
    given = {"model_name": source.target, "pretrained": False, **arguments}

    def make() -> object:
        with quietly():
            return build(timm.create_model, given, source.text)

    return Recipe(make=make)


def _check_name(timm: Any, name: str) -> None:
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise ModelError(
            f"timm has no model {name!r}",
            hint=did_you_mean(architecture, timm.list_models(), "see timm.list_models()"),
        )
    tagged = timm.list_pretrained(f"{architecture}.*")
    if tag and name not in tagged:
        raise ModelError(
            f"timm's model {architecture!r} has no tag {tag!r}",
            hint=did_you_mean(name, tagged, f"did you mean {architecture!r}?"),
        )


def _timm() -> Any:
    # before the import: huggingface_hub reads the variables when timm imports it
    stay_offline()
    try:
        with quietly():
            import timm
    except ImportError as error:
        raise EnvironmentFault(
            "timm is not installed", hint="run pip install 'reportgen[timm]'"
        ) from error
    return timm
