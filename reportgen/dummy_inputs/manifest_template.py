"""A manifest for one source, written for people to go on with: `reportgen init` prints it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs import guess_inputs
from reportgen.dummy_inputs.candidate import Choice
from reportgen.dummy_inputs.dynamic_dims import has_free_batch, with_free_dims
from reportgen.dummy_inputs.trial_run import trial
from reportgen.errors import ModelError
from reportgen.manifest import InputSpec, ModelSpec, parse_source
from reportgen.sources import Loaded, load_model
from reportgen.sources.weightless import weight_bytes

if TYPE_CHECKING:
    from reportgen.manifest import Source

_SCHEMA = "manifest.schema.json"
_TRAINED = 4  # weights, gradients and two moments
_CARDS = ((10 * 2**30, "T4"), (60 * 2**30, "A100-80GB"))
_LARGEST_CARD = "H200"
_BATCHES = (1, 2)  # some models refuse one sample


def draft_manifest(text: str) -> str:
    """A manifest that builds a report of the source `text`, with inputs that the model ran on.

    Args:
        text: a source as in a manifest; files are looked up from the current folder.

    Raises:
        ReportgenError: the source gives no model, or no inputs were found that it runs on.
    """
    source = parse_source(text, Path.cwd())
    spec = ModelSpec(name=_name(source), source=source)
    if source.kind == "onnx":
        return _of_file(spec)
    loaded = load_model(spec)
    spec, choice = _found(spec, loaded)
    with trial(loaded.model):
        choice = with_free_dims(loaded.model, spec, choice)
    card = _card(weight_bytes(loaded.model))
    notes = (*loaded.notes, *choice.notes)
    return "\n".join([*_head(spec, card, notes), *_inputs(choice), *_tail(spec, choice)]) + "\n"


def _of_file(spec: ModelSpec) -> str:
    from reportgen.sources.from_onnx import read_onnx_source, with_file_inputs

    with_file_inputs(spec, read_onnx_source(Path(spec.source.target)))
    return "\n".join(_head(spec, "T4", ("the file names its own inputs",))) + "\n"


def _found(spec: ModelSpec, loaded: Loaded) -> tuple[ModelSpec, Choice]:
    batches = _BATCHES if loaded.batch is None else (loaded.batch,)
    first: ModelError | None = None
    for batch in batches:
        tried = spec.model_copy(update={"batch": batch})
        try:
            return tried, guess_inputs(tried, loaded)
        except ModelError as error:
            first = first or error
    assert first is not None
    raise first


def _name(source: Source) -> str:
    """A name for folders and links, made of the source's own."""
    python = source.kind in ("python", "module")
    own = (source.factory or "") if python else source.text.partition(":")[2] or source.text
    words = own.replace("/config.json", "").strip("./")
    tail = re.split(r"[/\\]", words)[-1].removesuffix(".pt2").removesuffix(".onnx")
    safe = re.sub(r"[^\w.-]", "_", tail).strip(".-")[:64]
    return safe or "model"


def _card(size: int) -> str:
    """The smallest of three usual cards on which a training step has room for the weights."""
    return next((card for room, card in _CARDS if size * _TRAINED < room), _LARGEST_CARD)


def _head(spec: ModelSpec, card: str, notes: tuple[str, ...]) -> Iterator[str]:
    yield f"# yaml-language-server: $schema={_SCHEMA}"
    yield f"# For editors that read the line above: reportgen schema manifest > {_SCHEMA}"
    yield "version: 1"
    yield f"title: {_flow(spec.name)}"
    yield f"targets: [{card}]  # GPUs to fit; `reportgen gpus` lists those that are known"
    yield "training: {optimizer: adamw, precisions: [fp32, amp-bf16]}"
    yield "models:"
    yield f"  - name: {_flow(spec.name)}"
    yield f"    source: {_flow(spec.source.text)}"
    if spec.source.kind not in ("pt2", "onnx"):
        yield "    # arguments: {}  # of the factory, or fields of the configuration"
        yield "    # weights: model.safetensors  # a state dict; random under `seed` otherwise"
    for note in notes:
        yield f"    # {note}"


def _inputs(choice: Choice) -> Iterator[str]:
    if not choice.inputs:
        yield "    inputs: []  # forward takes none"
        return
    yield "    inputs:  # the model ran on these"
    for item in choice.inputs:
        yield f"      - {_flow(_as_written(item))}"
    if choice.dims:
        yield f"    dims: {_flow(dict(choice.dims))}  # these may change"


def _tail(spec: ModelSpec, choice: Choice) -> Iterator[str]:
    if has_free_batch(choice):
        yield f"    batch: {spec.batch}"
        yield "    onnx: {dynamic: [batch]}  # a batch of another size ran as well"
    elif any(item.per_sample for item in choice.inputs):
        yield f"    batch: {spec.batch}"
        yield "    onnx: {dynamic: []}  # a file takes a list of one length"
    else:
        yield "    onnx: {dynamic: []}  # no batch of another size ran"


def _as_written(item: InputSpec) -> dict[str, Any]:
    """An input as a manifest writes it; what is the default stays away."""
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
    """The part of an input that is no tensor: a constant, a list, a tuple or a dict."""
    if item.value is not None:
        return {"value": item.value.value}
    if item.items is not None:
        parts = [_as_written(part) for part in item.items]
        marks = {"tuple": item.as_tuple, "per_sample": item.per_sample}
        return {"items": parts, **{key: True for key, marked in marks.items() if marked}}
    if item.fields is not None:
        return {"fields": {key: _as_written(part) for key, part in item.fields.items()}}
    return {}


def _flow(value: Any) -> str:
    """`value` as YAML on one line."""
    import yaml

    text: str = yaml.safe_dump(
        value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=10**6
    )
    return text.removesuffix("...\n").strip()
