"""Layers: parameters, shapes, cost."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Layer:
    """One module of the tree, as it ran. Counts are of the whole subtree, each tensor once."""

    path: str  # "" is the model itself
    type: str  # class name with its telling arguments: "Conv2d(64, 128, 3x3, stride 2)"
    depth: int
    calls: int  # 0: never ran
    input_shapes: tuple[tuple[int, ...], ...]  # of the first call
    output_shapes: tuple[tuple[int, ...], ...]
    parameters: int
    own_parameters: int
    macs: int  # of one forward pass, all calls together
    trainable: bool
    leaf: bool  # has no child modules
    repeats: str | None  # path of the first module with this very instance, if this is a repeat


@dataclass(frozen=True, kw_only=True, slots=True)
class Uncounted:
    """An operator that ran and has no FLOP formula: unknown is not zero."""

    operator: str
    calls: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """What the model is made of and what one forward pass of one batch costs."""

    batch: int
    input_shapes: dict[str, tuple[int, ...]]
    output_shapes: dict[str, tuple[int, ...]]
    parameters: int  # unique, tied tensors once
    trainable_parameters: int
    buffers: int
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
