"""What the layers section says of a model, as plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Shape = tuple[int, ...]

Reached = Literal["called", "forward", "weights", "children", "never"]
"""How a module took part: called; its `.forward()` called, past the hooks; only its parameters
used by another module; only its children ran; or not at all."""


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
    trainable_parameters: int = 0
    never_ran_parameters: int = 0
    reached: Reached = "called"
    dtype: str = ""  # of its own parameters: "float32", "float16, float32"
    input_keys: tuple[str, ...] = ()  # where in the arguments each input shape stands: "0", "mask"
    output_keys: tuple[str, ...] = ()  # likewise; "" for an output that is one tensor
    output_bytes: int = 0  # of all calls together


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncounted:
    """An operator that ran and has no FLOP formula: unknown is not zero."""

    operator: str
    calls: int
    bytes: int = 0  # read and written by all calls together
    where: str = ""  # path of the module that called it first


@dataclass(frozen=True, kw_only=True, slots=True)
class Unregistered:
    """Parameters that the model uses and does not know of: not saved, not moved, not trained."""

    path: str  # as a reader would write it: "blocks[0]"
    type: str
    parameters: int


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
    method: Literal["fake", "real"] = "fake"  # fake: shapes only, no arithmetic done
    notes: tuple[str, ...] = ()  # how the figures came about, a sentence each
