"""What the layers section says of a model, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Shape = tuple[int, ...]
"""Sizes; -1 stands for a ragged one, of a nested tensor."""

Reached = Literal["called", "forward", "weights", "children", "compiled", "never"]
"""How a module took part: called; its `.forward()` called, past the hooks; only its parameters
used by another module; only its children ran; inside TorchScript, where nobody sees it called; or
not at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One module of the tree, as it ran. Counts are of the whole subtree, each tensor once."""

    path: str  # "" is the model itself
    type: str  # class name with its telling arguments: "Conv2d(64, 128, kernel 3x3, stride 2)"
    depth: int
    calls: int  # 0: never ran
    input_shapes: tuple[Shape, ...]  # of the first call
    output_shapes: tuple[Shape, ...]
    parameters: int
    own_parameters: int
    macs: int  # of one forward pass, all calls together
    trainable: bool  # some parameter of the subtree asks for a gradient
    leaf: bool  # has no child modules
    repeats: str | None  # path of the first module with this very instance, if this is a repeat
    own_macs: int = 0  # without those of the children
    forward_backward_macs: int | None = None  # None: see the note of the whole
    own_forward_backward_macs: int | None = None  # likewise
    trainable_parameters: int = 0
    never_ran_parameters: int = 0
    reached: Reached = "called"
    dtype: str = ""  # of its own parameters: "float32", "float16, float32"
    input_keys: tuple[str, ...] = ()  # where in the arguments each input shape stands: "0", "mask"
    output_keys: tuple[str, ...] = ()  # likewise; "" for an output that is one tensor
    output_bytes: int = 0  # of all calls together
    output_dtype: str = ""  # "float32", "float32, int64"
    kernel: Shape = ()  # of a convolution or a pooling: (3, 3)
    groups: int | None = None  # of a convolution


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncounted:
    """An operator that ran and has no FLOP formula: unknown is not zero."""

    operator: str
    calls: int  # of the `operator_calls` of all
    bytes: int = 0  # read and written by all calls together
    where: str = ""  # path of the module that called it first


@dataclass(frozen=True, kw_only=True, slots=True)
class Unregistered:
    """Parameters that the model uses and does not know of: not saved, not moved, not trained."""

    path: str  # as a reader would write it: "blocks[0]"
    type: str
    parameters: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """A mixture of experts: of its `experts`, every token passes through `active`."""

    path: str  # of the module that holds them
    experts: int
    active: int
    parameters: int  # of all experts together
    found: str  # how `active` was found: "a top-k of 2 of 8 ran in blocks.0.moe"


@dataclass(frozen=True, kw_only=True, slots=True)
class PassTime:
    """A lower bound of a pass's time: what its operators compute and move, at rated speed."""

    seconds: float  # of one batch
    samples_per_second: float
    memory_bound_share: float  # of `seconds`, in operators that wait for memory
    launched_seconds: float  # as `seconds`, but no operator takes less than its launch


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """A layer's own operators under the roofline of one card, forward."""

    path: str
    seconds: float
    share: float  # of the pass
    bound: Literal["memory", "compute"]  # by what most of its time is spent on


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """What one card could do at best; an estimate from shapes, not a measurement."""

    gpu: str
    forward: PassTime | None = None  # None: see `reason`
    forward_backward: PassTime | None = None
    slowest: tuple[LayerTime, ...] = ()  # slowest first
    memory_bound_layers: int | None = None  # of the layers that do something
    working_layers: int | None = None
    reason: str = ""  # why there is no estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """What the model is made of and what one forward pass of one batch costs."""

    batch: int
    input_shapes: dict[str, Shape]
    output_shapes: dict[str, Shape]
    parameters: int  # unique, tied tensors once; quantized weights by their logical number
    trainable_parameters: int
    buffers: int  # numbers held in buffers
    buffers_bytes: int
    parameter_bytes: int
    bytes_by_dtype: dict[str, int]  # parameters and buffers
    macs: int  # one forward pass of the whole batch
    flops: int
    uncounted: tuple[Uncounted, ...]
    layers: tuple[Layer, ...]  # depth first, in order of registration
    tied: tuple[tuple[str, ...], ...]  # groups of parameter names sharing one tensor
    never_ran: tuple[str, ...]  # paths of parameters no forward pass reached
    torchinfo_macs: int | None  # torchinfo's own total, None where it fails
    torchinfo_activation_bytes: int | None
    torchinfo_error: str | None
    table_file: str  # "layers.csv"
    summary_file: str  # "summary.txt"
    torchinfo_parameters: int | None = None
    quantized_parameters: int = 0  # of `parameters`, those held in packed integer form
    unregistered: tuple[Unregistered, ...] = ()
    training_only: tuple[str, ...] = ()  # of `never_ran`, those that do run in training mode
    operator_bytes: int = 0  # read and written by all operators of the forward pass
    forward_backward_bytes: int = 0  # torchinfo's idea: outputs of layers with parameters, twice
    method: Literal["fake", "real", "file"] = "fake"  # fake: on shapes alone; file: ONNX nodes
    input_constants: dict[str, str] = field(default_factory=dict)  # as Python writes them
    parameters_by_path: int | None = None  # what counting every name of a tensor would give
    frozen: tuple[str, ...] = ()  # names of parameters that ask for no gradient
    quantized_bytes: int = 0  # of `parameter_bytes`, the packed integers
    experts: tuple[Experts, ...] = ()
    active_parameters: int | None = None  # per token; None: no mixture of experts was found
    operator_calls: int = 0  # of the forward pass, views left out
    ideal_bytes: int = 0  # used parameters, inputs and outputs, each moved once
    flops_per_byte: float | None = None  # arithmetic intensity, by `operator_bytes`
    ideal_flops_per_byte: float | None = None  # by `ideal_bytes`
    forward_backward_macs: int | None = None  # None: see `forward_backward_note`
    forward_backward_flops: int | None = None
    forward_backward_operator_bytes: int | None = None
    forward_backward_note: str = ""  # how it was counted, or why it could not be
    forward_backward_uncounted: tuple[Uncounted, ...] = ()
    rooflines: tuple[Roofline, ...] = ()  # one per target
    notes: tuple[str, ...] = ()  # how the figures came about, a sentence each
    parameters_of_rows: int = 0  # the rows' own parameters added up, without repeats
    macs_of_rows: int = 0  # the rows' own MACs added up
