"""What a section offers to comparisons of two reports: modules, tensors, graphs, fits, curves.

A comparison reads these values only; it knows no section and no result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue


@dataclass(frozen=True, kw_only=True, slots=True)
class StateTensor:
    """A parameter or buffer that a module registers itself.

    Attributes:
        name: its name in the module: `weight`; the key in the state dict is `path.name`.
        shape: its sizes.
        dtype: `float32`.
        kind: how it is registered.
        persistent: whether the state dict contains it.
        trainable: whether it requires a gradient.
        tied_to: the key of the first tensor that is the same one; "" for that one and for others.
        digest: hash of its values; "" for values that are random.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: Literal["parameter", "buffer"] = "parameter"
    persistent: bool = True
    trainable: bool = True
    tied_to: str = ""
    digest: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleRecord:
    """One module at one path.

    Attributes:
        path: "" is the model itself.
        type: the class name.
        attributes: constructor arguments that affect the result: `{"stride": [2, 2], "eps": 1e-5}`;
            None is left out.
        computed: those of the attributes that are no constructor arguments.
        tensors: what it registers itself.
        parameters: elements of its own parameters.
        macs: of one forward pass, per sample, without those of its children; None if unknown.
        shared_with: the first path of the same instance; "" at that path.
        source: where the class is defined: `net.py:12`; "" if unknown.
        call: where it was called first: `net.py:31`; "" if unknown.
    """

    path: str
    type: str
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)
    computed: tuple[str, ...] = ()
    tensors: tuple[StateTensor, ...] = ()
    parameters: int = 0
    macs: int | None = None
    shared_with: str = ""
    source: str = ""
    call: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeBody:
    """The graph or function whose nodes run within another node.

    Attributes:
        owner: index of the node that runs it; -1 for a local function, which several nodes run.
        name: of the attribute that holds it (`then_branch`), or `function NAME`.
    """

    owner: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorNode:
    """One node of a graph.

    Attributes:
        id: unique in its graph; a module's is its path, as in the layers table.
        operator: the class, the autograd function or the ONNX operator.
        kind: `module`, `operation`, `parameter`, `input`, `output`, `constant`.
        module: the path of the module that it belongs to.
        attributes: what distinguishes it from another node of the same operator.
        outputs: shape of each output, the dtype in front unless it is float32: `batch×64×56×56`,
            `int64 2×16`.
        body: the graph within another node that it belongs to; None for the graph itself.
    """

    id: str
    operator: str
    kind: str
    module: str = ""
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    body: NodeBody | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """A graph as data, complete: nothing is merged or left out.

    Attributes:
        name: `modules`, `autograd` or `onnx`.
        nodes: in execution order.
        edges: pairs of indexes into `nodes`, from producer to consumer.
        attributes: of the whole graph: `{"opset": 20}`.
        figures: one of each node by name, such as `macs`; None where it is unknown.
    """

    name: str
    nodes: tuple[OperatorNode, ...]
    edges: tuple[tuple[int, int], ...]
    attributes: Mapping[str, JsonValue] = field(default_factory=dict)
    figures: Mapping[str, tuple[int | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModuleFigure:
    """One figure of some modules, by which a viewer may color them.

    Attributes:
        key: unique: `latency`.
        label: as a reader sees it: "Latency, ten slowest modules".
        unit: `s`, `B` or "".
        values: by the path of a module (`path#2` for its second call) or, in the graph of a file,
            by the name of a node; others are unknown.
        logarithmic: the values differ by orders of magnitude.
    """

    key: str
    label: str
    unit: str
    values: Mapping[str, float] = field(default_factory=dict)
    logarithmic: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeRemark:
    """What a reader must know of one place in the graphs.

    Attributes:
        title: "Parity is broken".
        text: what was found there.
        graph: the graph in which `node` is: `onnx`.
        node: the name of a node in its file; "" if unknown.
        module: the path of a module; "" for none.
    """

    title: str
    text: str
    graph: str = ""
    node: str = ""
    module: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class LargestBatch:
    """The largest batch that fits one GPU; None if no batch size fits or it is unknown."""

    gpu: str
    mode: str
    precision: str
    setting: str  # optimizer and checkpointing
    safe_batch: int | None
    largest_batch: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingCurve:
    """One scalar of one training run; `steps` and `values` are decimated alike."""

    run: str
    tag: str
    steps: tuple[float, ...]
    values: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparable:
    """What one section, or all sections of a model together, offer."""

    modules: tuple[ModuleRecord, ...] = ()
    graphs: tuple[Graph, ...] = ()
    fits: tuple[LargestBatch, ...] = ()
    curves: tuple[TrainingCurve, ...] = ()
    module_figures: tuple[ModuleFigure, ...] = ()
    remarks: tuple[NodeRemark, ...] = ()


def joined(parts: Iterable[Comparable]) -> Comparable:
    """All values of `parts`, in order."""
    parts = tuple(parts)
    return Comparable(
        modules=tuple(each for part in parts for each in part.modules),
        graphs=tuple(each for part in parts for each in part.graphs),
        fits=tuple(each for part in parts for each in part.fits),
        curves=tuple(each for part in parts for each in part.curves),
        module_figures=tuple(each for part in parts for each in part.module_figures),
        remarks=tuple(each for part in parts for each in part.remarks),
    )
