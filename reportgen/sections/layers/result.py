"""The result of the layers section: plain values, as `report.json` holds them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from reportgen.comparable import StateTensor

Shape = tuple[int, ...]
"""Sizes; -1 is a ragged dimension of a nested tensor."""

ExecutedVia = Literal[
    "called", "forward", "weights", "children", "compiled", "never", "failed", "unknown"
]
"""How a module took part in the forward pass.

- called: `module(x)`.
- forward: `module.forward(x)`, which runs no hooks.
- weights: another module used its parameters.
- children: only its children ran.
- compiled: it is inside TorchScript, where calls cannot be observed.
- never: not at all.
- failed: it, or a module below it, raised the error that ended the pass.
- unknown: the pass failed before.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One module at one path. Counts cover the whole subtree, each tensor once."""

    path: str  # "" is the model itself
    type: str  # class and main arguments: "Conv2d(64, 128, kernel 3x3, stride 2)"
    depth: int
    calls: int  # 0: never called
    input_shapes: tuple[Shape, ...]  # of the first call
    output_shapes: tuple[Shape, ...]  # of the first call
    parameters: int
    own_parameters: int
    macs: int  # of one forward pass, all calls together
    trainable: bool  # some parameter of the subtree requires a gradient
    leaf: bool  # has no child modules
    shared_with: str | None  # first path of the same module instance; None at the first path
    own_macs: int = 0  # without those of the children
    forward_backward_macs: int | None = None  # None: see `Layers.forward_backward.note`
    own_forward_backward_macs: int | None = None  # None: see `Layers.forward_backward.note`
    trainable_parameters: int = 0
    unused_parameters: int = 0  # elements that no operator of the forward pass reads
    executed_via: ExecutedVia = "called"
    dtype: str = ""  # of its own parameters: "float32", "float16, float32"
    input_keys: tuple[str, ...] = ()  # position or keyword of each input shape: "0", "mask"
    output_keys: tuple[str, ...] = ()  # key of each output shape; "" if the output is one tensor
    output_bytes: int = 0  # of all calls together
    output_dtype: str = ""  # "float32", "float32, int64"
    kernel: Shape = ()  # of a convolution or a pooling: (3, 3)
    groups: int | None = None  # of a convolution
    masked_parameters: int = 0  # of its own parameters, those that a pruning mask removes
    zero_share: float | None = None  # of its own parameters; None: the weights are random
    lower_bound: bool = False  # the MACs are: some operator of the subtree could not be counted
    class_name: str = ""  # "Conv2d"; "" in reports of older versions
    attributes: dict[str, JsonValue] = field(default_factory=dict)  # see `ModuleRecord`
    computed: tuple[str, ...] = ()  # attributes that are no constructor arguments
    tensors: tuple[StateTensor, ...] = ()  # its own parameters and buffers
    source: str = ""  # where its class is defined: "torchvision/models/resnet.py:59"
    call: str = ""  # where it was called first: "net.py:31"


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncounted:
    """An operator whose cost could not be counted: it is unknown, not zero."""

    operator: str
    calls: int
    bytes: int = 0  # read and written by all its calls
    where: str = ""  # path of the module that called it first
    why: str = "there is no formula for it"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unregistered:
    """Parameters that the model uses but does not register: not saved, moved or trained."""

    path: str  # as in Python: "blocks[0]"
    type: str
    parameters: int
    deliberate: bool = False  # frozen, or kept in a way that only bypasses registration


@dataclass(frozen=True, kw_only=True, slots=True)
class Experts:
    """A mixture of experts: each token is routed to `active` of the `experts`."""

    path: str  # of the module that holds them
    experts: int
    active: int
    parameters: int  # of all experts together
    detected_by: str  # evidence for `active`: "a top-k of 2 of 8 ran in blocks.0.moe"


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchinfoTotals:
    """The totals that torchinfo prints; None and `error` if it fails on the model."""

    parameters: int | None = None
    macs: int | None = None
    activation_bytes: int | None = None
    error: str | None = None
    forward_backward_bytes: int = 0  # torchinfo's definition, computed from our rows


@dataclass(frozen=True, kw_only=True, slots=True)
class ForwardBackwardCost:
    """Cost of one forward and backward pass, without loss and optimizer."""

    macs: int | None = None  # None: `note` gives the reason
    flops: int | None = None
    operator_bytes: int | None = None  # read and written by all operators
    note: str = ""  # how it was counted, or why it could not be
    lower_bound: bool = False  # `macs` and `flops` are: see `uncounted`
    uncounted: tuple[Uncounted, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PassTime:
    """A lower bound for the time of a pass: its operators at the GPU's rated speed."""

    seconds: float  # of one batch
    samples_per_second: float
    memory_bound_share: float  # of `seconds`, in operators limited by memory bandwidth
    seconds_with_launch_overhead: float  # each operator takes at least its launch time


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """A layer's own operators in the forward pass, under the roofline of one GPU."""

    path: str
    seconds: float
    share: float  # of the pass
    bound: Literal["memory", "compute"]  # what limits most of its time


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """The best possible times on one GPU, estimated from shapes, not measured."""

    gpu: str
    forward: PassTime | None = None  # None: see `reason`
    forward_backward: PassTime | None = None
    slowest: tuple[LayerTime, ...] = ()  # slowest first
    memory_bound_layers: int | None = None  # of the `working_layers`
    working_layers: int | None = None  # layers whose own operators take time
    reason: str = ""  # why there is no estimate


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Where the forward pass failed, and what to correct."""

    module: str  # path; "" for the model itself
    message: str  # "expected 400 input features, got 576 (model.py:13)"
    hint: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ConstantWeight:
    """A weight matrix whose elements all have one value."""

    name: str
    value: float


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredValues:
    """What is unusual about the values that the model stores.

    Attributes:
        non_finite: names of parameters with NaN or infinity.
        constant: weight matrices of one value that is not zero.
        copies: groups of names of equal parameters that are not tied.
        trainable_buffers: names of buffers that require a gradient.
        plain_tensors: attributes that are tensors, but neither parameters nor buffers.
        pickled_weights: the file of the weights is a pickle.
    """

    non_finite: tuple[str, ...] = ()
    constant: tuple[ConstantWeight, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    trainable_buffers: tuple[str, ...] = ()
    plain_tensors: tuple[str, ...] = ()
    pickled_weights: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """The modules of a model, and the cost of one forward pass of one batch."""

    batch: int
    input_shapes: dict[str, Shape]
    output_shapes: dict[str, Shape]
    parameters: int  # distinct; quantized weights by their logical number
    trainable_parameters: int
    buffers: int  # elements of all buffers
    buffers_bytes: int
    parameter_bytes: int
    bytes_by_dtype: dict[str, int]  # parameters and buffers
    macs: int  # one forward pass of the whole batch; a lower bound if there are `uncounted`
    flops: int
    uncounted: tuple[Uncounted, ...]
    layers: tuple[Layer, ...]  # depth first, in order of registration
    tied: tuple[tuple[str, ...], ...]  # groups of names of one parameter
    unused_parameters: tuple[str, ...]  # names of parameters that the forward pass does not read
    torchinfo: TorchinfoTotals
    table_file: str  # "layers.csv"
    summary_file: str  # "summary.txt"
    forward_backward: ForwardBackwardCost = ForwardBackwardCost()
    quantized_parameters: int = 0  # of `parameters`, those stored as packed integers
    unregistered: tuple[Unregistered, ...] = ()
    train_only_parameters: tuple[str, ...] = ()  # `unused_parameters` that training mode reads
    operator_bytes: int = 0  # read and written by all operators of the forward pass
    method: Literal["fake", "real", "file"] = "fake"  # fake tensors, a real run, ONNX nodes
    input_constants: dict[str, str] = field(default_factory=dict)  # by name, as `repr` gives them
    parameters_by_path: int | None = None  # with tied parameters counted under every name
    frozen: tuple[str, ...] = ()  # names of parameters that require no gradient
    quantized_bytes: int = 0  # of `parameter_bytes`, the packed integers
    experts: tuple[Experts, ...] = ()
    active_parameters: int | None = None  # per token; None: the model has no mixture of experts
    operator_calls: int = 0  # of the forward pass, views left out
    ideal_bytes: int = 0  # used parameters, inputs and outputs, each moved once
    flops_per_byte: float | None = None  # arithmetic intensity, by `operator_bytes`
    ideal_flops_per_byte: float | None = None  # arithmetic intensity, by `ideal_bytes`
    rooflines: tuple[Roofline, ...] = ()  # one per target
    notes: tuple[str, ...] = ()  # how the figures were computed
    parameters_of_rows: int = 0  # sum of the rows' own parameters, shared ones once
    macs_of_rows: int = 0  # sum of the rows' own MACs
    masked_parameters: int = 0  # of `parameters`, those that pruning masks remove
    failure: Failure | None = None  # the pass failed: cost and shapes are those before
    lower_bound: bool = False  # `macs` and `flops` are, and 0 means unknown: see `uncounted`
    stored_values: StoredValues = StoredValues()
    input_dtypes: dict[str, str] = field(default_factory=dict)
