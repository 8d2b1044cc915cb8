"""Hyperparameters and chart layouts, which TensorBoard's plugins keep in messages of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from tensorboard.plugins.custom_scalar.layout_pb2 import Layout
from tensorboard.plugins.hparams.api_pb2 import DATA_TYPE_BOOL
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from reportgen.training_logs.log_run import ChartLayout, Hyperparameter

_MAX_EXACT_INTEGER = 2.0**53  # above, a double no longer holds every integer


class HyperparameterMessages:
    """The messages of one run, which build on each other: an experiment has the types.

    torch writes a bool as the number 1, and only the experiment says that it is a bool.
    """

    def __init__(self) -> None:
        self._bools: set[str] = set()

    def read(self, content: bytes) -> dict[str, Hyperparameter]:
        """The hyperparameters that a message of the `hparams` plugin sets, if any.

        Raises:
            ValueError: not such a message.
        """
        try:
            message = HParamsPluginData.FromString(content)
        except DecodeError as error:
            raise ValueError("not a message of the hparams plugin") from error
        infos = message.experiment.hparam_infos
        self._bools.update(info.name for info in infos if info.type == DATA_TYPE_BOOL)
        items = message.session_start_info.hparams.items()
        return {name: self._value(name, value) for name, value in sorted(items)}

    def _value(self, name: str, value: Any) -> Hyperparameter:
        kind = value.WhichOneof("kind")
        if kind == "number_value":
            return bool(value.number_value) if name in self._bools else _number(value.number_value)
        if kind in ("bool_value", "string_value"):
            found: Hyperparameter = getattr(value, kind)
            return found
        return json.dumps(_plain(value))


def _number(value: float) -> float | int:
    """Numbers are stored as doubles: a batch size of 32.0 was 32."""
    return int(value) if value.is_integer() and abs(value) < _MAX_EXACT_INTEGER else value


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind == "struct_value":
        return {name: _plain(item) for name, item in value.struct_value.fields.items()}
    return None if kind in (None, "null_value") else getattr(value, kind)


def read_layouts(content: bytes) -> list[ChartLayout]:
    """The charts of a layout that `add_custom_scalars` wrote; exact tags where `margin`.

    Raises:
        ValueError: not such a message.
    """
    try:
        layout = Layout.FromString(content)
    except DecodeError as error:
        raise ValueError("not a layout of custom scalars") from error
    return [
        chart for category in layout.category for chart in _charts(category.title, category.chart)
    ]


def _charts(category: str, charts: Any) -> Iterator[ChartLayout]:
    for chart in charts:
        if chart.multiline.tag:
            tags = tuple(chart.multiline.tag)
            yield ChartLayout(category=category, title=chart.title, tags=tags)
        for series in chart.margin.series:
            tags = (series.value, series.lower, series.upper)
            yield ChartLayout(category=category, title=chart.title, tags=tags, margin=True)
