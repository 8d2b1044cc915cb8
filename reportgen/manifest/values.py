"""The values of a manifest as frozen pydantic models.

They validate the file, generate the JSON Schema, and are sent to worker processes with
`model_dump_json` and `model_validate_json`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, JsonValue, ValidationInfo, model_validator

from reportgen.manifest.budget import AnyBudget, Budget, BytesBudget, CountBudget, TimeBudget
from reportgen.manifest.fields import (
    Bytes,
    Cores,
    ExistingPath,
    Flag,
    Identifier,
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
from reportgen.manifest.waiver import Waiver

Optimizer = Literal[
    "sgd", "momentum", "nesterov", "adam", "adamw", "rmsprop", "adagrad", "adafactor", "none"
]
Precision = Literal["fp32", "tf32", "amp-bf16", "amp-fp16", "bf16", "fp16"]

# keys that contain a number or a metric; pydantic gets them as one dict under the prefix
PEAK_MEMORY = "peak_memory@"
_PEAK_KEY = re.compile(r"peak_memory@([1-9][0-9]{0,8})")
METRICS = "metrics."
_METRIC_KEY = re.compile(r"[a-z]\w*\.\S+")
_WEIGHTS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".tar", ".index.json")
_NOT_WEIGHTS = "; convert other files to a state dict first"
V = TypeVar("V", bound=Value)
Depends = Annotated[tuple[Annotated[Path, ExistingPath(folders=True)], ...], OneOrMany()]


class Target(Value):
    """A target GPU: a name, or a name and its memory."""

    name: Line
    """A GPU of `reportgen gpus`; any name if `memory` is given."""
    memory_bytes: Bytes | None = Field(default=None, validation_alias="memory")
    """Its memory, such as 24 GiB; if omitted, from the list of known GPUs."""

    @model_validator(mode="before")
    @classmethod
    def _read_name(cls, data: object) -> object:
        return {"name": data} if isinstance(data, str) else data


class TrainingSetup(Value):
    """The training step whose memory is estimated, for every combination of the lists."""

    optimizers: Annotated[tuple[Optimizer, ...], Field(min_length=1), OneOrMany()] = Field(
        default=("adamw",), validation_alias="optimizer"
    )
    """One or more optimizers; none has no optimizer state."""
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1), OneOrMany()] = ("fp32",)
    """Precisions of the training step; amp- is autocast with fp32 weights."""
    checkpointing: Annotated[tuple[Flag, ...], Field(min_length=1), OneOrMany()] = (False,)
    """Whether activations are recomputed in the backward pass; a list for both."""
    accumulation: Positive = 1
    """Micro-batches, each of the model's batch size, before one optimizer step."""
    zero_grad: Literal["free", "keep"] = "free"
    """keep: zero_grad(set_to_none=False), the default before torch 2.0."""
    prefetch: Positive = 1
    """Batches of inputs on the GPU at once; 2 if the loader copies the next one meanwhile."""
    ddp: Flag = False
    """The gradient buckets of DistributedDataParallel."""
    ema: Flag = False
    """An averaged copy of parameters and buffers on the GPU."""
    clip: PositiveNumber | None = None
    """The maximum norm of gradient clipping."""
    channels_last: Flag = False
    """Whether model and inputs are in the channels_last memory format."""


class Limits(Value):
    """Limits of a section; it is stopped and reported as failed when it exceeds one."""

    seconds: PositiveNumber = 600.0
    """Wall-clock time of one section of one model."""
    memory_bytes: Bytes | None = Field(default=None, validation_alias="memory")
    """Memory of the process that analyzes a model; its share of the machine if omitted."""
    cores: Cores | None = None
    """Cores that analyze a model; its share of the machine if omitted."""
    timing: PositiveNumber = 2.0
    """Most seconds for measuring the ONNX file of a model: latency, batch sizes and profile."""


class CacheOptions(Value):
    """What the cache of results cannot find out by itself."""

    never: Flag = False
    """Whether to analyze the model in every build."""
    depends: Depends | None = None
    """Files and folders that results depend on, for code that reads them in a way Python cannot
    see, the clock or the network; `[]` if that code has no influence."""


class Budgets(Value):
    """Limits of a model's figures; omitted or null ones are not checked.

    A limit is absolute (30M), relative to the baseline ("+2%", "+2% and 1M"), or has levels:
    {warn: 28M, fail: 30M}. It limits the side that is worse for its metric; {min: 0.9} and
    {max: 3} choose one.
    """

    parameters: CountBudget | None = None
    """Maximum number of parameters, shared ones counted once: 30M."""
    macs: CountBudget | None = None
    """Maximum MACs of one forward pass at the model's batch size: 5G."""
    flops: CountBudget | None = None
    """Maximum FLOPs of one forward pass at the model's batch size (1 MAC = 2 FLOPs)."""
    model_bytes: BytesBudget | None = None
    """Maximum size of parameters and buffers: 100 MiB."""
    latency_ms: TimeBudget | None = None
    """Maximum median latency of the ONNX file, in milliseconds."""
    peak_memory_bytes: dict[int, BytesBudget | None] = Field(
        default_factory=dict, validation_alias=PEAK_MEMORY
    )
    """Maximum peak memory by batch size, written as "peak_memory@64": 12 GiB."""

    unknown: Literal["fail", "allow"] = "fail"
    """What a budget does whose metric has no value: fail, or allow it."""
    metrics: dict[str, AnyBudget | None] = Field(default_factory=dict, validation_alias=METRICS)
    """Limit of a metric, by its key: "onnx.bytes": "+2%"."""

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

    def limits(self) -> dict[str, Budget]:
        """Every budget that is set, by its key in the manifest."""
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
    """Maximum difference between ONNX Runtime and PyTorch; if omitted, by dtype."""

    absolute: NotNegative | None = None
    """Largest absolute difference."""
    relative: NotNegative | None = None
    """Largest relative difference."""


class OnnxOptions(Value):
    """How the model is exported to ONNX; `onnx: false` skips the export."""

    enabled: Flag = True
    """Whether to export at all."""
    # torch.onnx supports opset 7 and later, and exports 20 by default (torch 2.15)
    opset: Annotated[int, Field(strict=True, ge=7, le=30)] = 20
    """The opset version."""
    dynamic: tuple[Identifier, ...] = ("batch",)
    """Named dims that are dynamic in the file; `[]` for none."""
    save: Flag = True
    """Whether model.onnx is kept beside the report."""
    tolerance: Tolerance = Tolerance()
    """Limits of the comparison with PyTorch."""

    @model_validator(mode="before")
    @classmethod
    def _read_flag(cls, data: object) -> object:
        return {"enabled": data} if isinstance(data, bool) else data


class ModelSpec(Value):
    """One model to analyze.

    Paths are absolute. `training`, `budgets` and `limits` may also be set for all models at the top
    of the manifest; the model overrides them key by key. `waivers` at the top are added to the
    model's. `load_manifest` stores the merged values here.
    """

    name: SafeName
    """Unique name; used for the model's folder and links."""
    source: Source = NO_SOURCE
    """Where the model comes from; may be omitted if `logs` is given."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Keyword arguments of the factory."""
    weights: Annotated[Path, ExistingPath(suffixes=_WEIGHTS, reason=_NOT_WEIGHTS)] | None = None
    """State dict to load; if omitted, the model is randomly initialized with `seed`."""
    inputs: tuple[InputSpec, ...] = ()
    """The arguments of forward, in order; may be omitted for a .pt2 or .onnx file."""
    dims: dict[Identifier, Positive] = Field(default_factory=dict)
    """Sizes of the named dims in shapes, other than batch."""
    batch: Positive = 1
    """Batch size: the size of the dim named batch."""
    loss: Loss = Loss(kind="sum", text="sum")
    """What a training step minimizes."""
    onnx: OnnxOptions = OnnxOptions()
    """How the model is exported to ONNX."""
    logs: Logs = ()
    """Training logs: paths, folders or globs; formats are detected."""
    log_options: LogOptions = LogOptions()
    """How the logs are read and shown."""
    ignore: dict[RuleCode, Reason] = Field(default_factory=dict)
    """Findings to accept, each with a reason."""
    budgets: Budgets = Budgets()
    """Limits of this model's figures."""
    waivers: tuple[Waiver, ...] = ()
    """Budgets and findings that are accepted until a date."""
    limits: Limits = Limits()
    """Time and memory limits of each section."""
    training: TrainingSetup = TrainingSetup()
    """The training step whose memory is estimated."""
    cache: CacheOptions = CacheOptions()
    """Whether results may be taken from an earlier build, and what they depend on."""
    seed: Seed = 0
    """Seed of the initialization and of random inputs."""
    comment: str | None = None
    """A comment that is shown in the report."""

    @model_validator(mode="after")
    def _dims_have_sizes(self, info: ValidationInfo) -> ModelSpec:
        """For specs made in Python; in a manifest file `validators` reports the exact location."""
        for dim in (dim for spec in self.inputs for dim in spec.named_dims()):
            if reading_folder(info) is None and dim != "batch" and dim not in self.dims:
                raise ValueError(f"dim '{dim}' has no size")
        return self


class Document(Value):
    """A manifest file: one report on one or more models."""

    version: Version
    """The manifest format; always 1."""
    title: Line
    """The report's title."""
    targets: tuple[Target, ...] = ()
    """Target GPUs, for which memory is estimated."""
    training: TrainingSetup = TrainingSetup()
    """The training step whose memory is estimated; any key may be overridden per model."""
    budgets: Budgets = Budgets()
    """Limits for all models; any key may be overridden per model."""
    waivers: tuple[Waiver, ...] = ()
    """Budgets and findings of any model that are accepted until a date."""
    limits: Limits = Limits()
    """Time and memory limits of each section; any key may be overridden per model."""
    sections: tuple[str, ...] = ()
    """The sections to build; all by default. `--section` on the command line overrides them."""
    models: Annotated[tuple[ModelSpec, ...], Field(min_length=1)]
    """The models to analyze, in the order of the report."""


class Manifest(Document):
    """A manifest file with the merged settings of each model, and its path.

    Attributes:
        path: the manifest's absolute path; not a key in the file.
        lines: the line on which each model's entry begins, by name; not a key in the file.
    """

    path: Path
    lines: dict[str, int] = Field(default_factory=dict)


def overlay(base: V, own: V) -> V:
    """`base` updated with the keys set in `own`; peak memory and metrics key by key."""
    # only what was written: a default of the model must not override a shared setting
    written = {field: getattr(own, field) for field in own.model_fields_set}
    if isinstance(base, Budgets):
        for field in {"peak_memory_bytes", "metrics"} & written.keys():
            written[field] = getattr(base, field) | written[field]
    return base.model_copy(update=written)


def with_shared_settings(spec: ModelSpec, document: Document) -> ModelSpec:
    """`spec` with the document's training, budgets and limits where it does not override them."""
    return spec.model_copy(
        update={
            "training": overlay(document.training, spec.training),
            "budgets": overlay(document.budgets, spec.budgets),
            "limits": overlay(document.limits, spec.limits),
            "waivers": document.waivers + spec.waivers,
        }
    )
