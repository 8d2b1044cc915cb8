"""What a manifest holds: one frozen value per idea, complete and checked when it exists.

These models are the reader, the JSON Schema and the way into another process at once:
`model_dump_json` and `model_validate_json` carry a `ModelSpec` to the worker that studies it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import (
    Field,
    JsonValue,
    ValidationInfo,
    model_validator,
)

from reportgen.manifest.fields import (
    Bytes,
    Count,
    ExistingPath,
    Flag,
    Identifier,
    Limit,
    Line,
    NotNegative,
    OneOrMany,
    Positive,
    PositiveNumber,
    Reason,
    RuleCode,
    SafeName,
    Seed,
    Value,
    Version,
    reading_folder,
)
from reportgen.manifest.input_spec import InputSpec
from reportgen.manifest.logs import LogOptions, Logs
from reportgen.manifest.source import NO_SOURCE, Loss, Source

Optimizer = Literal["sgd", "adam", "adamw", "rmsprop", "adagrad", "adafactor", "none"]
Precision = Literal["fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"]

PEAK_MEMORY = "peak_memory@"
_PEAK_KEY = re.compile(r"peak_memory@([1-9][0-9]{0,8})")
METRICS = "metrics."
_METRIC_KEY = re.compile(r"[a-z]\w*\.\S+")
_PICKLE = "; anything else may hold pickled code"
V = TypeVar("V", bound=Value)


class Target(Value):
    """A GPU to fit: its name alone, or a name with the memory it has."""

    name: Line
    """A GPU known to `reportgen gpus`, or your own name for one when `memory` is given."""
    memory_bytes: Bytes | None = Field(default=None, validation_alias="memory")
    """Its memory, such as 24 GiB; taken from the list of known GPUs when left out."""

    @model_validator(mode="before")
    @classmethod
    def _read_name(cls, data: object) -> object:
        return {"name": data} if isinstance(data, str) else data


class Training(Value):
    """The training step whose memory is estimated; every combination of the lists is."""

    optimizers: Annotated[tuple[Optimizer, ...], Field(min_length=1), OneOrMany()] = Field(
        default=("adamw",), validation_alias="optimizer"
    )
    """The optimizer, or several; none leaves its state out."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), OneOrMany()] = ("fp32",)
    """The number formats to estimate; amp- is autocast over fp32 weights."""
    checkpointing: Annotated[tuple[Flag, ...], Field(min_length=1), OneOrMany()] = (False,)
    """Whether activations are recomputed in the backward pass instead of kept; or both."""


class Limits(Value):
    """What each section may use before it is stopped and counted as failed."""

    seconds: PositiveNumber = 600.0
    """Wall-clock time of one section of one model."""
    memory_bytes: Bytes | None = Field(default=None, validation_alias="memory")
    """Memory of the process that studies a model; no limit when left out."""


class Budgets(Value):
    """What must not be exceeded; a figure left out, or null, is not judged."""

    parameters: Count | None = None
    """Most parameters, shared ones counted once: 30M."""
    macs: Count | None = None
    """Most multiply-adds of one forward pass at the model's batch: 5G."""
    flops: Count | None = None
    """Most floating-point operations of one forward pass (1 MAC = 2 FLOPs)."""
    model_bytes: Bytes | None = None
    """Most bytes of parameters and buffers: 100 MiB."""
    latency_ms: PositiveNumber | None = None
    """Highest median latency of the ONNX file, in milliseconds."""
    peak_memory_bytes: dict[int, Bytes | None] = Field(
        default_factory=dict, validation_alias=PEAK_MEMORY
    )
    """Highest peak memory by batch size; written as "peak_memory@64": 12 GiB."""

    metrics: dict[str, Limit | None] = Field(default_factory=dict, validation_alias=METRICS)
    """Highest value of a metric, by its key: "onnx.bytes": 40 MiB."""

    @model_validator(mode="before")
    @classmethod
    def _gather_keys(cls, data: object, info: ValidationInfo) -> object:
        """Collect `peak_memory@64` and `onnx.bytes` under names that a file cannot contain."""
        if not isinstance(data, dict) or reading_folder(info) is None:
            return data
        peaks = {int(m[1]): v for k, v in data.items() if (m := _PEAK_KEY.fullmatch(k))}
        metrics = {k: v for k, v in data.items() if _METRIC_KEY.fullmatch(k)}
        rest = {k: v for k, v in data.items() if not _PEAK_KEY.fullmatch(k) and k not in metrics}
        if PEAK_MEMORY in rest:
            raise ValueError(f'"{PEAK_MEMORY}" needs a batch size, such as "{PEAK_MEMORY}64"')
        if peaks:
            rest[PEAK_MEMORY] = peaks
        return {**rest, METRICS: metrics} if metrics else rest

    def limits(self) -> dict[str, float]:
        """Every limit that was set, by the name that it has in the manifest."""
        peaks = sorted(self.peak_memory_bytes.items())
        named = {
            "parameters": self.parameters,
            "macs": self.macs,
            "flops": self.flops,
            "model_bytes": self.model_bytes,
            "latency_ms": self.latency_ms,
            **{f"{PEAK_MEMORY}{batch}": limit for batch, limit in peaks},
            **self.metrics,
        }
        return {name: limit for name, limit in named.items() if limit is not None}


class Tolerance(Value):
    """How far ONNX Runtime may be from PyTorch; by dtype when left out."""

    absolute: NotNegative | None = None
    """Largest absolute difference."""
    relative: NotNegative | None = None
    """Largest relative difference."""


class OnnxOptions(Value):
    """How the model is exported to ONNX; `onnx: false` leaves the export out."""

    enabled: Flag = True
    """Whether to export at all."""
    opset: Annotated[int, Field(strict=True, ge=7, le=30)] = 20
    """The version of the operator set."""
    dynamic: tuple[Identifier, ...] = ("batch",)
    """Which named dims stay free in the file; `[]` fixes them all."""
    save: Flag = True
    """Whether model.onnx is kept beside the report."""
    tolerance: Tolerance = Tolerance()
    """Limits of the comparison with PyTorch."""

    @model_validator(mode="before")
    @classmethod
    def _read_flag(cls, data: object) -> object:
        return {"enabled": data} if isinstance(data, bool) else data


class ModelSpec(Value):
    """One model to context.

    Paths are absolute. `training`, `budgets` and `limits` may be given for all models at the top
    of the manifest; what stands in the model overrides it key by key, and `load_manifest` leaves
    the outcome here.
    """

    name: SafeName
    """Unique; names the model's folder and links."""
    source: Source = NO_SOURCE
    """Where the model comes from; may be left out where only training logs are reported."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the factory."""
    weights: (
        Annotated[Path, ExistingPath(suffixes=(".safetensors", ".pth", ".pt"), reason=_PICKLE)]
        | None
    ) = None
    """State dict to load; without it the model keeps its own initialization under `seed`."""
    inputs: tuple[InputSpec, ...] = ()
    """The arguments of forward, in order; a .pt2 or .onnx file knows its own."""
    dims: dict[Identifier, Positive] = Field(default_factory=dict)
    """Sizes of the named dims in shapes, other than batch."""
    batch: Positive = 1
    """Size of the dim named batch."""
    loss: Loss = Loss(kind="sum", text="sum")
    """What a training step minimizes."""
    onnx: OnnxOptions = OnnxOptions()
    """How the model is exported to ONNX."""
    logs: Logs = ()
    """Logs of a training that was run: paths, folders or globs; formats are detected."""
    log_options: LogOptions = LogOptions()
    """How those logs are read and shown."""
    ignore: dict[RuleCode, Reason] = Field(default_factory=dict)
    """Findings to accept, each with the reason why."""
    budgets: Budgets = Budgets()
    """What this model must not exceed."""
    limits: Limits = Limits()
    """What each section may use."""
    training: Training = Training()
    """The training step whose memory is estimated."""
    seed: Seed = 0
    """Seed of the initialization and of random inputs."""
    comment: str | None = None
    """A remark that the report shows."""

    @model_validator(mode="after")
    def _dims_have_sizes(self, info: ValidationInfo) -> ModelSpec:
        """For specs made by the program; in a manifest `consistency` names the exact place."""
        for dim in (dim for spec in self.inputs for dim in spec.named_dims()):
            if reading_folder(info) is None and dim != "batch" and dim not in self.dims:
                raise ValueError(f"dim '{dim}' has no size")
        return self


class Document(Value):
    """A manifest as it stands in its file: one report on one or more models."""

    version: Version
    """The manifest format; always 1."""
    title: Line
    """The report's title."""
    targets: tuple[Target, ...] = ()
    """GPUs to fit."""
    training: Training = Training()
    """The training step whose memory is estimated; any key may be overridden per model."""
    budgets: Budgets = Budgets()
    """What no model may exceed; any key may be overridden per model."""
    limits: Limits = Limits()
    """What each section may use; any key may be overridden per model."""
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    """The models to context, in the order of the report."""


class Manifest(Document):
    """What was asked: the document, with each model's final settings, and where it was read.

    Attributes:
        path: the manifest's absolute path; not a key of the file.
    """

    path: Path


def overlay(base: V, own: V) -> V:
    """`base` with every key that was written in `own`; peak memory is overlaid batch by batch."""
    written = {field: getattr(own, field) for field in own.model_fields_set}
    if isinstance(base, Budgets):
        for field in {"peak_memory_bytes", "metrics"} & written.keys():
            written[field] = getattr(base, field) | written[field]
    return base.model_copy(update=written)


def with_shared_settings(spec: ModelSpec, document: Document) -> ModelSpec:
    """`spec` with the document's training, budgets and limits where it has none of its own."""
    return spec.model_copy(
        update={
            "training": overlay(document.training, spec.training),
            "budgets": overlay(document.budgets, spec.budgets),
            "limits": overlay(document.limits, spec.limits),
        }
    )
