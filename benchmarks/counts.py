"""Check parameter and multiply-add counts against published figures and closed forms.

    python -m benchmarks.counts [--part zoo|published|hunted] [--only TEXT] [--write]

The first table covers every torchvision model: torchvision's source states a parameter count and
a cost for each set of published weights (nothing is downloaded), and
`counts_cases/second_count.py` counts independently. The other tables cover models that are easily
counted wrong, with closed forms: cases from issue trackers, and more of their kind. No GPU is
needed; one core takes six minutes. `--write` saves the output in `counts.md`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from benchmarks.counts_cases import HUNTED, PUBLISHED, Case, judge
from benchmarks.counts_cases.second_count import second_macs, second_parameters
from reportgen.context import ModelContext
from reportgen.errors import SectionError
from reportgen.manifest import ModelSpec, Source
from reportgen.model_state import preserve_model_state
from reportgen.sections.layers import Layers, analyze

BILLION = 10**9
VERSION = str(torch.__version__).partition("+")[0]
FAMILIES = ("classification", "segmentation", "detection", "video", "optical_flow", "quantization")
FRAMES, SIDE = 16, 512  # what torchvision's own script fed its transforms with
SMALL = {"min_size": 96, "max_size": 128}  # for detectors whose boxes no published figure fixes


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedModel:
    """One torchvision model at one crop, with its published figures; None if unpublished."""

    name: str
    family: str
    inputs: tuple[Any, ...]
    arguments: dict[str, Any]
    published_parameters: int | None
    published_gmacs: float | None
    weights: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One line of a table: our figures, and differences from those of others."""

    cells: tuple[str, ...]
    reasons: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()


def make_study(
    model: nn.Module, inputs: tuple[Any, ...], folder: Path, batch: int = 1
) -> ModelContext:
    """A context as the pipeline hands it to a section."""
    source = Source(kind="module", target="benchmarks", factory="counts", text="benchmarks:counts")
    spec = ModelSpec.model_validate(
        {"name": "model", "source": source, "inputs": list(inputs), "batch": batch}
    )
    with suppress(NotImplementedError):  # an exported program has no modes
        model.eval()  # an exported program returns None
    return ModelContext(spec=spec, model=model, targets=(), folder=folder, timings=False)


# The first table: torchvision -------------------------------------------------------------------


def torchvision_models() -> Iterator[PublishedModel]:
    """Every registered model, at every crop for which a cost is published."""
    from torchvision import models

    for family in FAMILIES:
        module = models if family == "classification" else getattr(models, family)
        for name in models.list_models(module=module):
            seen: set[Any] = set()
            for weights in models.get_model_weights(name):
                asked = _asked(name, family, weights)
                if repr(asked.inputs) not in seen:
                    seen.add(repr(asked.inputs))
                    yield asked


def _asked(name: str, family: str, weights: Any) -> PublishedModel:
    meta = weights.meta
    inputs = _inputs(family, weights)
    return PublishedModel(
        name=name,
        family=family,
        inputs=inputs,
        arguments=_arguments(name, family, weights),
        published_parameters=meta.get("num_params"),
        published_gmacs=meta.get("_ops"),
        weights=weights.name,
    )


def _inputs(family: str, weights: Any) -> tuple[Any, ...]:
    if family == "detection":
        return ({"items": [{"shape": [3, SIDE, SIDE]}]},)
    if family == "optical_flow":
        return (f"batch,3,{SIDE},{SIDE}",) * 2
    preset = weights.transforms()
    if family == "video":
        height, width = preset(torch.zeros(FRAMES, 3, SIDE, SIDE)).shape[-2:]
        return (f"batch,3,{FRAMES},{height},{width}",)
    height, width = preset(torch.zeros(3, SIDE, SIDE)).shape[-2:]
    return (f"batch,3,{height},{width}",)


def _arguments(name: str, family: str, weights: Any) -> dict[str, Any]:
    """The arguments that torchvision's builders set if they are given the weights."""
    arguments: dict[str, Any] = {"weights": None}
    if family in ("segmentation", "detection"):
        arguments["weights_backbone"] = None
    if family == "segmentation" and "lraspp" not in name:
        arguments["aux_loss"] = True
    if "rcnn" in name:
        arguments.update(SMALL)
    if family == "quantization":
        arguments["quantize"] = True
    if "googlenet" in name:
        arguments["aux_logits"] = False
    if name.startswith("vit") and weights.meta["min_size"][0] != 224:
        arguments["image_size"] = weights.meta["min_size"][0]
    return arguments


def build(asked: PublishedModel) -> nn.Module:
    """The model with uninitialized memory, or with seeded values if it has to run."""
    from torchvision import models

    torch.manual_seed(0)
    if asked.family in ("detection", "quantization"):
        return models.get_model(asked.name, **asked.arguments)
    try:
        with torch.device("meta"):
            model = models.get_model(asked.name, **asked.arguments)
    except (NotImplementedError, RuntimeError):  # a constructor that reads values
        return models.get_model(asked.name, **asked.arguments)
    return model.to_empty(device="cpu")


def compare(asked: PublishedModel, folder: Path) -> Line:
    """Compare the layers section with torchvision's source and the second count."""
    model = build(asked)
    context = make_study(model, asked.inputs, folder)
    found = analyze(context)
    wrong, reasons = [], []
    if found.parameters != (held := second_parameters(model)):
        wrong.append(f"the state dict holds {held:,} parameters")
    published = asked.published_parameters
    if published not in (None, found.parameters):
        words = f"{published:,} parameters are published"
        why = _why_parameters(asked, model, found.parameters - int(published or 0))
        (reasons if why else wrong).append(f"{words}: {why}" if why else words)
    if found.macs != (macs := _second_macs(model, context, real=found.method == "real")):
        wrong.append(f"the second count is {macs:,}")
    if asked.published_gmacs is not None and not _rounds_to(found.macs, asked.published_gmacs):
        words = f"{asked.published_gmacs} G are published"
        why = (
            "at 800 pixels for the boxes found there, run here at 128"
            if "rcnn" in asked.name
            else ""
        )
        (reasons if why else wrong).append(f"{words}: {why}" if why else words)
    uncounted = {item.operator for item in found.uncounted}
    if uncounted - {"torchvision.nms"}:  # compares boxes, and how many depends on values
        wrong.append(f"no formula for {', '.join(sorted(uncounted))}")
    cells = (asked.name, asked.weights, f"{found.parameters:,}", f"{found.macs / BILLION:.3f}")
    return Line(cells=cells, reasons=tuple(reasons), wrong=tuple(wrong))


def _second_macs(model: nn.Module, context: ModelContext, *, real: bool) -> int:
    examples = context.examples()
    if real:
        return second_macs(model, examples.args, examples.kwargs)
    meta = tuple(argument.to("meta") for argument in examples.args)
    with torch.device("meta"):
        return second_macs(model.to("meta"), meta, {})


def _rounds_to(macs: int, published: float) -> bool:
    return abs(macs / BILLION - published) <= 0.00051  # three digits, rounded


def _why_parameters(asked: PublishedModel, model: nn.Module, more: int) -> str:
    """A reason that explains the difference exactly, or an empty string."""
    if asked.family == "quantization":
        floating = replace(asked, arguments={**asked.arguments, "quantize": False})
        right = second_parameters(build(floating)) == asked.published_parameters
        return "before batch norms were folded into convolutions" if right else ""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    body = getattr(getattr(model, "backbone", None), "body", nn.Identity())
    inside = [norm for norm in body.modules() if isinstance(norm, nn.BatchNorm2d)]
    if norms and more == sum(p.numel() for norm in inside for p in norm.parameters()):
        return "the backbone's norms are frozen there, their scales buffers"
    return ""


# The second table: closed forms -------------------------------------------------------------------


def check_case(case: Case, folder: Path) -> Line:
    """Compare the layers section with the closed form of a case."""
    torch.manual_seed(0)
    wrong: tuple[str, ...]
    parameters = macs = "–"
    try:
        context = make_study(case.model(), case.inputs, folder, case.batch)
        with preserve_model_state(context.model):
            found = analyze(context)
    except SectionError as err:
        expected = case.refused is not None and case.refused in err.error
        wrong = () if expected else (f"refused: {err.error}",)
    except Exception as err:  # a bug in reportgen
        wrong = (f"{type(err).__name__}: {str(err).splitlines()[:1]}",)
    else:
        parameters, macs = f"{found.parameters:,}", f"{found.macs:,}"
        wrong = tuple(judge(case, found) if case.refused is None else _refusal(case, found))
    return Line(cells=(case.name, case.source or "–", parameters, macs), wrong=wrong)


def _refusal(case: Case, found: Layers) -> Iterator[str]:
    """What is wrong if the forward pass of `case` must fail, and its parameters are known."""
    said = found.failure.message if found.failure else "nothing"
    if case.refused is None or case.refused not in said:
        yield f"not refused: {said}"


# Both tables --------------------------------------------------------------------------------------


def table(title: str, head: tuple[str, ...], lines: Iterable[Line]) -> Iterator[str]:
    """A Markdown table, yielded line by line, and the share of right lines."""
    yield f"\n## {title}\n"
    yield "| " + " | ".join((*head, "")) + " |"
    yield "|---" * (len(head) + 1) + "|"
    total = wrong = differing = 0
    for line in lines:
        total += 1
        wrong += bool(line.wrong)
        differing += bool(line.reasons) and not line.wrong
        said = "right" if not line.wrong else f"**wrong**: {'; '.join(line.wrong)}"
        words = "; ".join((said, *line.reasons))
        yield "| " + " | ".join(_cell(text) for text in (*line.cells, words)) + " |"
    share = 100 * (total - wrong) / max(total, 1)
    reasoned = f", {differing} of them with a published figure that differs for a reason given"
    yield f"\n{total - wrong} of {total} right ({share:.1f} %){reasoned if differing else ''}."


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def tables(part: str, only: str, folder: Path) -> Iterator[str]:
    """The lines of the requested tables."""
    parts: dict[str, Callable[[], Iterator[str]]] = {
        "zoo": lambda: table(
            "torchvision's models, against what is published and a second count",
            ("model", "weights", "parameters", "G multiply-adds"),
            (compare(asked, folder) for asked in torchvision_models() if only in asked.name),
        ),
        "published": lambda: table(
            "The collected cases, by closed form",
            ("model", "from", "parameters", "multiply-adds"),
            (check_case(case, folder) for case in PUBLISHED if only in case.name),
        ),
        "hunted": lambda: table(
            "More of their kind, by closed form",
            ("model", "from", "parameters", "multiply-adds"),
            (check_case(case, folder) for case in HUNTED if only in case.name),
        ),
    }
    for name, make in parts.items():
        if part in ("all", name):
            yield from make()


def main() -> None:
    """Print the tables; with --write, save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("all", "zoo", "published", "hunted"), default="all")
    parser.add_argument("--only", default="", help="only models whose name contains this text")
    parser.add_argument("--write", action="store_true", help="save the tables in counts.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    lines = ["# Are the counts right?", "", f"`python -m benchmarks.counts`, torch {VERSION}"]
    print("\n".join(lines))
    with tempfile.TemporaryDirectory() as folder:
        for line in tables(options.part, options.only, Path(folder)):
            print(line, flush=True)
            lines.append(line)
    if options.write:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
