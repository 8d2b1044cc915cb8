"""The `file` part of the result: what was read from the ONNX file alone."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredTensor:
    """A tensor stored in the file.

    Attributes:
        module: path of the module whose node reads it first; "" if unknown.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    module: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """Initializers with the same dtype, shape and bytes.

    Attributes:
        wasted_bytes: the size of all but one.
        uniform: every element has the same value, as after initialization by a constant.
    """

    names: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    wasted_bytes: int
    uniform: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Inventory:
    """The contents of the file.

    Attributes:
        opset_release: the first ONNX version with the file's operator set; None if there is none.
        opset_month: when that was released, `December 2022`; None if unknown.
        newest_opset: the newest set of the installed onnx.
        opsets_behind: how many versions the file's set is older; negative if it is newer.
        domains: nodes per operator domain, the standard one as `ai.onnx`.
        local_functions: names of the functions that the file defines.
        bytes_by_dtype: the size of the initializers, the largest share first.
        largest: the largest initializers, ten at most.
        external_bytes: initializers in files beside this one.
        constants: nodes of type Constant, which contain a value in the graph itself.
        unused: initializers on which no output depends.
        dead_nodes: nodes of the main graph on which no output depends.
        duplicates: groups of equal initializers, the most wasteful first; None if the weights
            were not read, for the reason in `not_read`.
        foldable: nodes of the main graph, without Constant, that depend on stored values only.
        foldable_candidates: all nodes that were examined for that.
        foldable_operators: `foldable` by operator, most frequent first.
    """

    opset_release: str | None
    opset_month: str | None
    newest_opset: int
    opsets_behind: int
    domains: dict[str, int]
    local_functions: tuple[str, ...]
    bytes_by_dtype: dict[str, int]
    largest: tuple[StoredTensor, ...]
    external_bytes: int
    constants: int
    constant_bytes: int
    unused: tuple[StoredTensor, ...]
    dead_nodes: int
    duplicates: tuple[Duplicate, ...] | None
    foldable: int
    foldable_candidates: int
    foldable_operators: dict[str, int]
    not_read: str = ""

    @property
    def unused_bytes(self) -> int:
        """The size of the unused initializers."""
        return sum(tensor.bytes for tensor in self.unused)

    @property
    def wasted_bytes(self) -> int:
        """The size of all duplicates, without one of each group."""
        return sum(group.wasted_bytes for group in self.duplicates or ())


@dataclass(frozen=True, kw_only=True, slots=True)
class MissingKernel:
    """Nodes of one operator and dtype for which a provider has no kernel.

    Attributes:
        since: the opset in which the operator last changed; 0 if unknown.
        dtypes: those of its inputs and outputs that decide which kernel is used.
        fallback: how onnxruntime runs the nodes instead; "" if it cannot: no session opens.
        module: path of the first node's module; "" if unknown.
    """

    operator: str
    since: int
    dtypes: tuple[str, ...]
    nodes: int
    fallback: str
    module: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Provider:
    """Kernel coverage of an execution provider of onnxruntime.

    Attributes:
        source: origin of its list of kernels.
        nodes: nodes checked, without Constant and calls of local functions.
        supported: nodes with a kernel for their dtype.
        unknown: undecided nodes, mostly because a dtype is unknown.
        missing_kernels: the rest, most frequent first.
    """

    name: str
    source: str
    nodes: int
    supported: int
    unknown: int
    missing_kernels: tuple[MissingKernel, ...]

    @property
    def missing_nodes(self) -> int:
        """How many nodes have no kernel."""
        return sum(each.nodes for each in self.missing_kernels)


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizedLevel:
    """The file after onnxruntime has rewritten it for the CPU at one level.

    Attributes:
        level: `basic`, `extended` or `all`; the last is made for the processor it ran on.
        bytes: of the graph and its weights as onnxruntime saves them.
        fused: operators outside the standard domain that onnxruntime inserted, most frequent
            first.
    """

    level: str
    nodes: int
    bytes: int
    fused: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Optimized:
    """All levels; empty if onnxruntime was not run, for the reason in `not_run`."""

    levels: tuple[OptimizedLevel, ...]
    not_run: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelRange:
    """Spread of a weight's channels: the largest magnitude over the median one."""

    name: str
    operator: str
    channels: int
    outlier_ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Int8Readiness:
    """How much of the file onnxruntime's static int8 quantization would cover.

    Attributes:
        mac_nodes: nodes that multiply and add (convolution, matrix product, recurrent, ...).
        covered_nodes: those whose operator is quantized.
        staying_float: operators on floating-point values that are not quantized, with their
            number of nodes, most frequent first.
        quantized_nodes: nodes that are quantized already.
        widest: the weights whose channels differ most, five at most.
        weights: how many weights were compared; None if they were not read.
        verdict: one sentence.
    """

    mac_nodes: int
    covered_nodes: int
    staying_float: dict[str, int]
    quantized_nodes: int
    widest: tuple[ChannelRange, ...]
    weights: int | None
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp16Tensor:
    """A tensor with values that float16 cannot hold."""

    name: str
    overflowing: int
    flushed: int
    elements: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp16Risk:
    """An operator known to leave float16's range, and from where on it does."""

    operator: str
    nodes: int
    reason: str
    module: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fp16Readiness:
    """Effects of float16 on the stored values, and operators that overflow in it.

    Attributes:
        elements: stored floating-point values wider than float16; None if they were not read.
        overflowing: finite values that would become infinite.
        flushed: nonzero values that would become zero.
        subnormal: values that would keep fewer than 11 significant bits.
        largest_magnitude: of all finite values.
        tensors: those with overflow, or more than 1 % flushed, the worst first, five at most.
        risks: operators of the file that are known to overflow.
        verdict: one sentence.
    """

    elements: int | None
    overflowing: int
    flushed: int
    subnormal: int
    largest_magnitude: float
    tensors: tuple[Fp16Tensor, ...]
    risks: tuple[Fp16Risk, ...]
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphValue:
    """An input or output of the graph.

    A symbolic dimension is given by its name, or `?` without one; an unknown rank by `("…",)`.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeCost:
    """The multiply-adds of the file's nodes, counted from the file alone.

    Attributes:
        batch: the batch size counted for.
        macs: of all nodes that could be counted.
        uncounted: operators that could not be counted, and why.
        modules: multiply-adds by the path of the nodes' module.
    """

    batch: int
    macs: int
    uncounted: dict[str, str]
    modules: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeGroup:
    """How many nodes have something in common, and the module of the first; "" if unknown."""

    nodes: int = 0
    module: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphPatterns:
    """Nodes that are worth a look together.

    Attributes:
        cast_pairs: Cast nodes that read the result of a Cast which nothing else reads.
        transpose_pairs: Transpose nodes that undo a Transpose whose result nothing else reads.
        resize_modes: by interpolation, the coordinate transformations of Resize nodes.
        double_nodes: nodes with a float64 result, if no input is float64.
        local_paths: nodes whose metadata contain a path of the machine that exported them.
    """

    cast_pairs: NodeGroup = NodeGroup()
    transpose_pairs: NodeGroup = NodeGroup()
    resize_modes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    double_nodes: NodeGroup = NodeGroup()
    local_paths: NodeGroup = NodeGroup()


@dataclass(frozen=True, kw_only=True, slots=True)
class FileResult:
    """The contents of the file, and the runtimes and precisions that it suits.

    Attributes:
        path: `model.onnx`; None if the manifest says not to keep the file.
        bytes: size on disk, external data included.
        opset: version of the standard operator set in the file; 0 if it imports none.
        nodes: operators in the graph, subgraphs and functions included.
        operators: number of nodes by operator, most frequent first; operators outside the
            standard domain include theirs (`com.microsoft.Gelu`).
        initializer_bytes: size of the stored weights and constants.
        values: intermediate values of the main graph.
        shaped_values: those of them whose shape is known after shape inference.
        functions: how many local functions the file defines.
        custom_operators: operators outside the standard domain.
        library_operators: those of them in domains that neither ONNX nor onnxruntime has: they
            come with a library of their own.
        random_operators: operators that draw random numbers, with the path of their module.
        external_file: the file with the weights if they exceed protobuf's 2 GB.
        invalid: the first error of the ONNX checker; "" when the file passes the full check.
        cost: multiply-adds of the file's nodes; None where they were not counted.
    """

    path: str | None
    bytes: int
    opset: int
    ir_version: int
    producer: str
    nodes: int
    operators: dict[str, int]
    initializers: int
    initializer_bytes: int
    inputs: tuple[GraphValue, ...]
    outputs: tuple[GraphValue, ...]
    inventory: Inventory
    providers: tuple[Provider, ...]
    optimized: Optimized
    int8: Int8Readiness
    fp16: Fp16Readiness
    values: int = 0
    shaped_values: int = 0
    functions: int = 0
    custom_operators: tuple[str, ...] = ()
    library_operators: tuple[str, ...] = ()
    random_operators: tuple[str, ...] = ()
    external_file: str | None = None
    invalid: str = ""
    cost: NodeCost | None = None
    patterns: GraphPatterns = GraphPatterns()
