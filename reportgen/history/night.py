"""One night: the figures of every model in one report, and what they were made with.

Read from `report.json` as plain data, so that reports of other versions can be added.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reportgen.errors import HistoryError
from reportgen.metrics import COMPARISON

FORMAT = 1
"""Version of the files of the store."""

_COMMIT_DIGITS, _HASH_DIGITS = 12, 16  # enough to tell those of one repository apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """What a metric is; the attributes are those of `Metric`.

    `headline`: the page has a chart of it: it is in the main table of the report, or measured.
    """

    key: str
    label: str
    unit: str = ""
    direction: str = "none"
    exact: bool = True
    headline: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelNight:
    """One model: its verdict, a value for each figure, and hashes of the files it was made from.

    A value is None if the night does not have it. The hashes are by role: `code`, `weights`.
    """

    verdict: str
    values: tuple[float | None, ...]
    hashes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One night of one report.

    Attributes:
        report: name of the report's folder.
        title: of the report.
        time: when it was built, in UTC.
        digest: hash of `report.json`.
        figures: in the order of the values of each model.
        models: by name.
        commit: abbreviated, `-dirty` after it if files were modified; "" if unknown.
        environment: versions by name.
        machine: the CPU that measured; "" if unknown.
        manifest: hash of the manifest; "" if unknown.
        copy: folder name of the dated copy of the report; "" if there is none.
    """

    report: str
    title: str
    time: datetime
    digest: str
    figures: tuple[Figure, ...]
    models: Mapping[str, ModelNight]
    commit: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    manifest: str = ""
    copy: str = ""


def stamp(time: datetime) -> str:
    """`time` as it begins the names of files, which so sort by time: `20261127T031500Z`."""
    return f"{time.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def night_of_report(folder: Path) -> Night:
    """The night of the report in `folder`.

    Its time is that of the build, or of the file for reports without timings.

    Raises:
        HistoryError: there is no report, or it cannot be read.
    """
    file = folder / "report.json"
    try:
        content = file.read_bytes()
        data = json.loads(content)
        changed = datetime.fromtimestamp(int(file.stat().st_mtime), UTC)
        return _night(folder.resolve().name, data, hashlib.sha256(content).hexdigest(), changed)
    except FileNotFoundError as error:
        raise HistoryError(
            f"{folder} contains no report.json", hint="build a report there first"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise HistoryError(
            f"cannot read {file}: {error}", hint="build the report again with this version"
        ) from error


def _night(report: str, data: Any, digest: str, changed: datetime) -> Night:
    timings = data.get("timings", {})
    built = timings.get("built")
    time = datetime.fromisoformat(built).astimezone(UTC) if built else changed
    figures: dict[str, Figure] = {}
    for model in data["models"]:
        for metric in model["metrics"]:
            figures.setdefault(metric["key"], _figure(metric))
    return Night(
        report=report,
        title=data["title"],
        time=time,
        digest=digest,
        figures=tuple(figures.values()),
        models={model["name"]: _model(model, tuple(figures)) for model in data["models"]},
        commit=_commit(data.get("commit")),
        environment=data["environment"],
        machine=_machine(timings.get("machine")),
        manifest=_hashes(data.get("files", ())).get("manifest", ""),
        copy=f"{stamp(time)}-{report}-{digest[:8]}",
    )


def _figure(metric: Mapping[str, Any]) -> Figure:
    exact = bool(metric["exact"])
    return Figure(
        key=metric["key"],
        label=metric["label"],
        unit=metric["unit"],
        direction=metric["direction"],
        exact=exact,
        headline=metric.get("table") == COMPARISON or not exact,
    )


def _model(model: Mapping[str, Any], keys: tuple[str, ...]) -> ModelNight:
    values = {metric["key"]: metric["value"] for metric in model["metrics"]}
    return ModelNight(
        verdict=model["verdict"],
        values=tuple(values.get(key) for key in keys),
        hashes=_hashes(model.get("files", ())),
    )


def _commit(commit: Mapping[str, Any] | None) -> str:
    if not commit:
        return ""
    return f"{commit['id'][:_COMMIT_DIGITS]}{'-dirty' if commit['modified'] else ''}"


def _machine(machine: Mapping[str, Any] | None) -> str:
    # Not its memory, which does not make it faster and differs between jobs on one machine.
    return f"{machine['cpu']}, {machine['cores']} cores" if machine else ""


def _hashes(files: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """One hash for each role that files have."""
    by_role: dict[str, list[tuple[str, str]]] = {}
    for file in files:
        by_role.setdefault(file["role"], []).append((file["name"], file["sha256"]))
    return {
        role: hashlib.sha256(json.dumps(sorted(named)).encode()).hexdigest()[:_HASH_DIGITS]
        for role, named in by_role.items()
    }


def night_to_data(night: Night) -> dict[str, Any]:
    """`night` as the store has it."""
    fields = {**asdict(night), "time": night.time.isoformat()}
    # Each figure a row, without the names of its fields, which would take most of the file.
    return {"format": FORMAT, **fields, "figures": [astuple(figure) for figure in night.figures]}


def night_from_data(data: Any) -> Night:
    """The night that `night_to_data` wrote.

    Raises:
        ValueError, KeyError, TypeError: it is not one, or of another format.
    """
    if data["format"] != FORMAT:
        raise ValueError(f"format {data['format']} is not supported")
    names = Figure.__dataclass_fields__
    fields = {
        **data,
        "time": datetime.fromisoformat(data["time"]),
        "figures": tuple(Figure(**dict(zip(names, row, strict=True))) for row in data["figures"]),
        "models": {name: _model_from_data(model) for name, model in data["models"].items()},
    }
    del fields["format"]
    return Night(**fields)


def _model_from_data(data: Mapping[str, Any]) -> ModelNight:
    return ModelNight(**{**data, "values": tuple(data["values"])})
