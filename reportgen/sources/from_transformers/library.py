"""transformers itself, imported once and with its hub switched off."""

from __future__ import annotations

from typing import Any

from reportgen.errors import EnvironmentFault
from reportgen.sources.offline import stay_offline


def library() -> Any:
    """The package `transformers`.

    Raises:
        EnvironmentFault: it is not installed, or does not fit torch.
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
    """Every model type that the library knows, with the name of its configuration class."""
    library()
    from transformers.models.auto import configuration_auto

    names: Any = configuration_auto
    return {str(key): str(value) for key, value in names.CONFIG_MAPPING_NAMES.items()}


def config_class(model_type: str) -> Any:
    """The configuration class of a known model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]
