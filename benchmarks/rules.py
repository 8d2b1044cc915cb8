"""How often each rule fires on models of torchvision, timm and transformers, and how often wrongly.

    python benchmarks/rules.py [--cache FILE] [--count 60] [--libraries torchvision,timm] [--write]

Analyzes the layers, the behavior and the module graph of every model of torchvision, and of random
architectures of timm and transformers reduced as in `zoo_tiny`. Findings are stored as one line per
model in the cache, so that an interrupted run can be continued. `JUDGED` below says which findings
an expert would call wrong; whatever it does not name was looked at and is right. The goal: at most
one wrong finding per model, fewer than 0.2 on average.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ["HF_HUB_OFFLINE"] = "1"

TABLE = ROOT / "benchmarks" / "rules.md"
SEED = 11
_SECONDS = 400  # of one model; the machine may be shared
_LARGEST = 120_000_000  # parameters, for passes with real values

_UNREACHED = """LAY002 names parts that the guessed inputs do not reach, such as a vision tower of
a model that got text only. That is true of these inputs, and the rule says so; whoever would call
it wrong has to count every finding of LAY002 in the list below as wrong."""

JUDGED: dict[str, tuple[str, ...]] = {}
"""Rule -> regular expressions of `model place` whose finding an expert would call wrong."""


def sources(libraries: set[str], count: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, source and arguments of every model of the sweep."""
    if "torchvision" in libraries:
        for name in torchvision_names():
            yield f"torchvision-{name}", f"torchvision:{name}", {}
    if libraries - {"torchvision"}:
        from zoo_draw import draw

        for drawn in draw(count, SEED)[0]:
            if drawn.source.partition(":")[0] in libraries:
                yield drawn.name, drawn.source, drawn.arguments


def torchvision_names() -> list[str]:
    """All names, the cheapest model of every family first: a part of the sweep is a fair sample."""
    from torchvision import models

    cost = {
        name: max(weights.meta.get("_ops", 0) for weights in models.get_model_weights(name))
        for name in models.list_models()
    }
    rank: Counter[str] = Counter()
    ranked = []
    for name in sorted(cost, key=lambda each: (cost[each], each)):
        family = models.get_model_builder(name).__module__
        rank[family] += 1
        ranked.append((rank[family], cost[name], name))
    return [name for _, _, name in sorted(ranked)]


def findings_of(source: str, arguments: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Analyze sections of one model in this process; its findings, and the errors of sections."""
    from reportgen.manifest import load_manifest
    from reportgen.model_state import preserve_model_state
    from reportgen.pipeline import make_job, share_of
    from reportgen.sections import behavior, graphs, layers
    from reportgen.sections.graphs.analysis import analyze_structure
    from reportgen.workers.child import load_context

    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "m.yaml"
        entry = {"name": "m", "source": source, "arguments": arguments}
        manifest.write_text(json.dumps({"version": 1, "title": "t", "models": [entry]}))
        loaded = load_manifest(manifest)
        context = load_context(
            make_job(loaded, loaded.models[0], Path(folder), share_of(1), timings=False)
        )
        parameters = sum(p.numel() for p in context.model.parameters())
        steps = [
            (layers.SECTION, layers.analyze),
            (graphs.SECTION, analyze_structure),
            (behavior.SECTION, behavior.analyze),
        ]
        found: list[tuple[str, str, str]] = []
        errors = {}
        for section, analyze in steps:
            too_large = section is behavior.SECTION and parameters > _LARGEST
            if section.name not in names or too_large:
                continue
            try:
                with preserve_model_state(context.model):
                    result: Any = analyze(context)
            except Exception as error:  # the model cannot do what the section needs
                errors[section.name] = f"{type(error).__name__}: {error}"[:300]
                continue
            if isinstance(result, section.result):
                found += [
                    (each.code, each.where, each.message)
                    for rule in section.rules
                    for each in rule.findings(result)
                ]
    return {"parameters": parameters, "findings": found, "errors": errors}


def sweep(cache: Path, libraries: set[str], count: int, sections: str) -> None:
    """Analyze every model that the cache does not have, each in a process of its own."""
    import torch  # noqa: F401 - imported once; the processes are forked

    done = {(line["name"], line["sections"]) for line in read(cache)}
    for name, source, arguments in sources(libraries, count):
        if (name, sections) not in done:
            line = {"name": name, "sections": sections}
            line |= in_child(source, arguments, sections.split(","))
            with cache.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")


def in_child(source: str, arguments: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The findings of one model, or why there are none."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send({"failed": ""} | findings_of(source, arguments, names))
        except Exception as error:  # the model does not load
            sender.send({"failed": f"{type(error).__name__}: {error}"[:300]})

    child = context.Process(target=run, daemon=True)
    child.start()
    sender.close()
    try:
        return receiver.recv() if receiver.poll(_SECONDS) else {"failed": f"over {_SECONDS} s"}
    except EOFError:
        return {"failed": "the process ended, perhaps without memory"}
    finally:
        child.kill()
        child.join()


def read(cache: Path) -> list[dict[str, Any]]:
    """The lines of the cache."""
    if not cache.exists():
        return []
    return [json.loads(line) for line in cache.read_text(encoding="utf-8").splitlines()]


def _by_model(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line per model: sections may have been analyzed one after the other."""
    models: dict[str, dict[str, Any]] = {}
    for line in lines:
        known = models.setdefault(line["name"], {"name": line["name"], "findings": []})
        known["findings"] += line["findings"]
    return list(models.values())


def _sizes(lines: list[dict[str, Any]]) -> list[str]:
    """How many models of which library each section was analyzed for, a line each."""
    ran: dict[str, set[str]] = {}
    for line in lines:
        for section in line["sections"].split(","):
            skipped = section in line.get("errors", {}) or (
                section == "behavior" and line.get("parameters", 0) > _LARGEST
            )
            if not line["failed"] and not skipped:
                ran.setdefault(section, set()).add(line["name"])
    return [
        f"- {section}: "
        + ", ".join(
            f"{number} of {library}"
            for library, number in sorted(Counter(n.partition("-")[0] for n in names).items())
        )
        for section, names in ran.items()
    ]


def is_wrong(code: str, model: str, where: str) -> bool:
    """Whether the finding was judged wrong."""
    return any(re.search(pattern, f"{model} {where}") for pattern in JUDGED.get(code, ()))


def table(lines: list[dict[str, Any]]) -> str:
    """The page: what was run, and hits and wrong ones per rule."""
    from reportgen.sections import SECTIONS

    ran = _by_model(line for line in lines if not line["failed"])
    failed = {line["name"] for line in lines} - {line["name"] for line in ran}
    hits, models, wrong = Counter[str](), Counter[str](), Counter[str]()
    per_model = Counter[str]()
    for line in ran:
        for code in {found[0] for found in line["findings"]}:
            models[code] += 1
        for code, where, _ in line["findings"]:
            hits[code] += 1
            if is_wrong(code, line["name"], where):
                wrong[code] += 1
                per_model[line["name"]] += 1
    most = max(per_model.values(), default=0)
    rows = [
        f"| {rule.code} | {rule.name} | {rule.severity} | {models[rule.code]} | "
        f"{hits[rule.code]} | {wrong[rule.code]} |"
        for section in SECTIONS
        for rule in section.rules
        if rule.code[:3] in ("LAY", "BEH", "GRA")
    ]
    return "\n".join(
        [
            "# False positives of the rules",
            "",
            "Written by `python benchmarks/rules.py --write`.",
            "",
            f"{len(ran)} models, randomly initialized; {len(failed)} more did not load or took too "
            "long. Sections that were analyzed:",
            "",
            *_sizes(lines),
            "",
            "Every finding was read; *wrong* are those that an expert "
            f"would not accept. Wrong findings per model: {wrong.total() / max(1, len(ran)):.3f} "
            f"on average, {most} at most.",
            "",
            _UNREACHED,
            "",
            "| rule | name | severity | models | findings | wrong |",
            "|---|---|---|---:|---:|---:|",
            *rows,
            "",
            "## Every finding",
            "",
            "| model | rule | place | message | judged |",
            "|---|---|---|---|---|",
            *(
                f"| {line['name']} | {code} | {where} | {message} | "
                f"{'wrong' if is_wrong(code, line['name'], where) else 'right'} |"
                for line in sorted(ran, key=lambda each: str(each["name"]))
                for code, where, message in line["findings"]
            ),
            "",
        ]
    )


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("rules_cache.jsonl"))
    parser.add_argument("--count", type=int, default=60, help="models of timm and transformers")
    parser.add_argument("--libraries", default="torchvision,timm,transformers")
    parser.add_argument("--sections", default="layers,graphs,behavior")
    parser.add_argument("--write", action="store_true", help="write benchmarks/rules.md")
    options = parser.parse_args()
    sweep(options.cache, set(options.libraries.split(",")), options.count, options.sections)
    text = table(read(options.cache))
    print(text)
    if options.write:
        TABLE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
