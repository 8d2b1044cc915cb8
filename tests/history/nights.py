"""Nights for tests: one model, two figures, a night a day."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from reportgen.history.night import Figure, ModelNight, Night

MACS = Figure(key="layers.macs", label="MACs", direction="lower", headline=True)
LATENCY = Figure(
    key="onnx.latency_ms", label="Latency", unit="ms", direction="lower", exact=False, headline=True
)
FIRST = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)


def make_night(
    day: int,
    macs: float | None = 100,
    latency: float | None = None,
    *,
    hashes: Mapping[str, str] | None = None,
    **fields: Any,
) -> Night:
    """The night of `day`, counted from the first one, with the model `net`."""
    model = ModelNight(verdict="pass", values=(macs, latency), hashes=hashes or {"code": "c"})
    time = FIRST + timedelta(days=day)
    return Night(
        **{
            "report": "vision",
            "title": "Vision",
            "time": time,
            "digest": f"{day:064x}",
            "figures": (MACS, LATENCY),
            "models": {"net": model},
            "commit": f"c{day:03}",
            "environment": {"torch": "2.14"},
            "machine": "a",
            "manifest": "m",
            **fields,
        }
    )


def nights_of(
    macs: Sequence[float | None] = (), latency: Sequence[float | None] = (), **fields: Any
) -> list[Night]:
    """A night for each value, beginning with the first day."""
    count = max(len(macs), len(latency))
    pairs = zip(macs or [None] * count, latency or [None] * count, strict=True)
    return [make_night(day, *pair, **fields) for day, pair in enumerate(pairs)]


def make_report(folder: Path, built: datetime, macs: int, **fields: Any) -> Path:
    """A report folder with the models `net` and a page, as far as the history reads it."""
    page = folder / "models" / "net" / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    metric = {"key": "layers.macs", "label": "MACs", "value": macs, "unit": "",
              "direction": "lower", "exact": True, "table": "Comparison"}  # fmt: skip
    data = {
        "title": "Vision",
        "environment": {"torch": "2.14"},
        "timings": {"built": built.isoformat()},
        "models": [{"name": "net", "verdict": "pass", "metrics": [metric]}],
        **fields,
    }
    (folder / "report.json").write_text(json.dumps(data))
    for file in (folder / "index.html", page):
        file.write_text('<meta name="generator" content="reportgen">')
    return folder
