"""The manifest text that `reportgen init` prints, for a model source or for training logs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs import guess_inputs
from reportgen.dummy_inputs.candidate import Candidate
from reportgen.dummy_inputs.trial_run import has_batch_dim, name_dynamic_dims, trial_mode
from reportgen.errors import LogError, ModelError
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.sources import Loaded, load_model
from reportgen.sources.weightless import weight_bytes
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.log_set import LogSet
from reportgen.units import format_integer

if TYPE_CHECKING:
    from reportgen.manifest import Source

_SCHEMA = "manifest.schema.json"
_TRAINING_FACTOR = 4  # weights, gradients and the two moments of Adam
# bytes of training state that leave room for activations on 16 GB and 80 GB
_GPUS = ((10 * 2**30, "T4"), (60 * 2**30, "A100-80GB"))
_LARGEST_GPU = "H200"
_BATCHES = (1, 2)  # some models fail with one sample


def manifest_for_source(text: str) -> str:
    """A manifest for the source `text`, with inputs on which the model ran.

    Args:
        text: a source as in a manifest; paths are relative to the current folder.

    Raises:
        ReportgenError: the source has no model, or no inputs were found on which it runs.
    """
    source = parse_source(text, Path.cwd())
    spec = ModelSpec(name=_name(source), source=source)
    if source.kind == "onnx":
        return _for_onnx_file(spec)
    loaded = load_model(spec)
    spec, candidate = _find_inputs(spec, loaded)
    with trial_mode(loaded.model):
        candidate = name_dynamic_dims(loaded.model, spec, candidate)
    gpu = _smallest_gpu(weight_bytes(loaded.model))
    notes = (*loaded.notes, *candidate.notes)
    return (
        "\n".join([*_head(spec, gpu, notes), *_inputs(candidate), *_tail(spec, candidate)]) + "\n"
    )


def _for_onnx_file(spec: ModelSpec) -> str:
    from reportgen.sources.from_onnx import read_onnx_source

    read_onnx_source(Path(spec.source.target))  # raises if the file is not an ONNX model
    return "\n".join(_head(spec, "T4", ("the inputs are declared in the file",))) + "\n"


def _find_inputs(spec: ModelSpec, loaded: Loaded) -> tuple[ModelSpec, Candidate]:
    batches = _BATCHES if loaded.batch is None else (loaded.batch,)
    first: ModelError | None = None
    for batch in batches:
        with_batch = spec.model_copy(update={"batch": batch})
        try:
            return with_batch, guess_inputs(with_batch, loaded)
        except ModelError as error:
            first = first or error
    assert first is not None
    raise first


def _name(source: Source) -> str:
    python = source.kind in ("python", "module")
    own = (source.factory or "") if python else source.text.partition(":")[2] or source.text
    path = own.replace("/config.json", "").strip("./")
    tail = re.split(r"[/\\]", path)[-1].removesuffix(".pt2").removesuffix(".onnx")
    return _folder_name(tail) or "model"


def _folder_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text).strip(".-")[:64]  # as `SafeName` in a manifest requires


def _smallest_gpu(size: int) -> str:
    """The smallest of three common GPUs whose memory fits the training state of the weights."""
    return next((gpu for room, gpu in _GPUS if size * _TRAINING_FACTOR < room), _LARGEST_GPU)


def _head(spec: ModelSpec, gpu: str, notes: tuple[str, ...]) -> Iterator[str]:
    yield f"# yaml-language-server: $schema={_SCHEMA}"
    yield f"# For completion in editors: reportgen schema manifest > {_SCHEMA}"
    yield "version: 1"
    yield f"title: {_flow(spec.name)}"
    yield f"targets: [{gpu}]  # see `reportgen gpus`"
    yield "training: {optimizer: adamw, precisions: [fp32, amp-bf16]}"
    yield "models:"
    yield f"  - name: {_flow(spec.name)}"
    yield f"    source: {_flow(spec.source.text)}"
    if spec.source.kind not in ("pt2", "onnx"):
        yield "    # arguments: {}  # keyword arguments of the factory, or configuration fields"
        yield "    # weights: model.safetensors  # a state dict; omitted: random weights by `seed`"
    for note in notes:
        yield f"    # {note}"


def _inputs(candidate: Candidate) -> Iterator[str]:
    if not candidate.inputs:
        yield "    inputs: []  # forward takes no arguments"
        return
    yield "    inputs:  # a forward pass with these inputs succeeded"
    for item in candidate.inputs:
        yield f"      - {_flow(_to_manifest(item))}"
    if candidate.dims:
        yield f"    dims: {_flow(dict(candidate.dims))}  # dynamic: a second size ran too"


def _tail(spec: ModelSpec, candidate: Candidate) -> Iterator[str]:
    if has_batch_dim(candidate):
        yield f"    batch: {spec.batch}"
        yield "    onnx: {dynamic: [batch]}  # a second batch size ran too"
    elif any(item.per_sample for item in candidate.inputs):
        yield f"    batch: {spec.batch}"
        yield "    onnx: {dynamic: []}  # an ONNX file has a fixed number of images"
    else:
        yield "    onnx: {dynamic: []}  # the model ran with one batch size only"


def _to_manifest(item: InputSpec) -> dict[str, Any]:
    """An input as written in a manifest, without defaults."""
    written: dict[str, Any] = {}
    if item.name is not None:
        written["name"] = item.name
    if item.shape is not None:
        written["shape"] = list(item.shape)
        if item.dtype != "float32":
            written["dtype"] = item.dtype
    for key in ("low", "high"):
        if getattr(item, key) is not None:
            written[key] = getattr(item, key)
    if item.values is not None:
        written["values"] = list(item.values)
    written |= _structure(item)
    if item.keyword:
        written["keyword"] = True
    return written


def _structure(item: InputSpec) -> dict[str, Any]:
    """The keys of an input that is a constant, list, tuple or dict; {} for a tensor."""
    if item.value is not None:
        return {"value": item.value.value}
    if item.items is not None:
        parts = [_to_manifest(part) for part in item.items]
        flags = {"tuple": item.as_tuple, "per_sample": item.per_sample}
        return {"items": parts, **{key: True for key, is_set in flags.items() if is_set}}
    if item.fields is not None:
        return {"fields": {key: _to_manifest(part) for key, part in item.fields.items()}}
    return {}


def _flow(value: Any) -> str:
    import yaml

    # JSON would be YAML too, but quotes every key; '...' ends a document of one scalar
    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
    )
    return text.removesuffix("...\n").strip()


_MAX_TAGS = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class _LogPath:
    text: str
    format: str | None = None

    def matches(self) -> list[Path]:
        path = Path(self.text)
        return [path] if path.exists() else []


def manifest_for_logs(path: Path) -> str:
    """A manifest for the training logs at `path`, without a model.

    Raises:
        LogError: the path does not exist, or contains no log of a known format.
    """
    name = _folder_name(path.resolve().name) or "training"
    # json.dumps: a JSON string is a YAML string, and names may contain quotes or colons
    head = [
        "version: 1",
        f"title: {json.dumps(f'Training of {name}', ensure_ascii=False)}",
        "models:",
        f"  - name: {json.dumps(name, ensure_ascii=False)}",
        "    # source: torchvision:resnet50  # the model; `reportgen init SOURCE` finds its inputs",
    ]
    return "\n".join(head) + "\n" + log_entries(path)


def log_entries(path: Path) -> str:
    """The keys `logs` and `log_options` of a model, with a summary of the logs as comments.

    Raises:
        LogError: the path does not exist, or contains no log of a known format.
    """
    if not path.exists():
        raise LogError(f"no file or folder {str(path)!r}")
    logs = LogSet(places=(_LogPath(text=str(path)),))
    logs.update()
    found = logs.runs()
    if not found:
        raise LogError("; ".join(logs.notes) or f"no training logs were found in {str(path)!r}")
    runs = [each.run for each in found]
    tags = sorted({tag for run in runs for tag in run.scalars})
    shown = ", ".join(tags[:_MAX_TAGS]) + (", …" if len(tags) > _MAX_TAGS else "")
    lines = [
        f"    logs: [{json.dumps(str(path), ensure_ascii=False)}]  # {_summary(runs)}",
        *([f"    # metrics: {re.sub(r'[^ -~]', '?', shown)}"] if tags else []),
        "    # log_options:",
        "    #   x: step  # or epoch, relative time, wall time, order, or the tag of a metric",
        "    #   planned_steps: 10000  # to detect runs that ended early",
        "    #   directions: {my_score: higher}  # if the name does not imply it",
        "    #   ranges: {val/acc: [0, 1]}  # values outside are reported",
        "    #   reference_lines: [{metric: val/acc, value: 0.1, label: chance}]",
        "    #   average: seed_*  # runs to show as a mean with a band",
    ]
    return "\n".join(lines) + "\n"


def _summary(runs: list[LogRun]) -> str:
    formats = ", ".join(sorted({run.format for run in runs}))
    points = sum(len(series) for run in runs for series in run.scalars.values())
    plural = "s" if len(runs) != 1 else ""
    return f"{len(runs)} run{plural}, {formats}, {format_integer(points)} points"
