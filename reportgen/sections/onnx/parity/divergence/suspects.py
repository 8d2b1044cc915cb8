"""The nodes at which a file diverges, and whether onnxruntime or the file is at fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.sections.onnx.parity.divergence.intermediates import (
    FileGraph,
    FileNode,
    Judge,
    may_agree,
    read_values,
    upstream,
    values_of,
)
from reportgen.sections.onnx.parity.recorders import Call, record_tensors
from reportgen.units import format_error

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.onnx.runtime import Array, Feed


_MOST_NODES = 256  # that are examined one by one
_MOST_ELEMENTS = 4_000_000  # read by a node, or multiplied in NumPy's slow convolution
_RANDOM = frozenset({"Dropout", "Bernoulli", "Multinomial"})
_IN_TRAINING = re.compile(r"native_batch_norm_legit(?!_no_training)")
_CHOOSING = frozenset({"TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "Unique"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Suspects:
    """The nodes of one PyTorch operator at which the file begins to differ.

    Attributes:
        cause: `kernel`, `file` or `unknown`, as in `Divergence`.
        node: the node to name.
        nodes: all of them, in the order of the file.
        sentences: the evidence.
        is_certain: `node` alone is the cause.
        module: the module with the wrong weight, if it is not the node's own.
    """

    cause: str
    node: FileNode
    nodes: tuple[FileNode, ...]
    sentences: tuple[str, ...]
    is_certain: bool = False
    module: str = ""


def find_suspects(
    file_graph: FileGraph,
    end: str,
    agreeing: set[str],
    feed: Feed,
    model: nn.Module,
    call: Call,
    judge: Judge,
) -> Suspects:
    """The first nodes on the path to `end` whose values no PyTorch operator produces.

    Args:
        end: a value of the file that differs.
        agreeing: correct values, at which the search ends.
        call: one call of the PyTorch model.
    """
    nodes = _nodes_of(file_graph, upstream(file_graph, end, agreeing))[-_MOST_NODES:]
    names = {name for node in nodes for name in (*read_values(node.proto), *node.proto.output)}
    values = values_of(file_graph, feed, sorted(names & file_graph.maker.keys()))
    known = _known_to_torch(nodes, values, end, call, judge)
    wrong = _nodes_of(file_graph, upstream(file_graph, end, agreeing | known))
    first = wrong[0] if wrong else file_graph.maker[end]
    # all nodes of one PyTorch operator: only its result can be compared with PyTorch
    group = tuple(node for node in wrong if _origin(node) == _origin(first)) or (first,)
    found = _assess(file_graph, group, values, feed, model, judge)
    if found.is_certain:
        return found
    # a wrong weight may pass the tolerance at its own node and show further down
    return _weight_suspect(file_graph, end, model) or found


def _weight_suspect(file_graph: FileGraph, end: str, model: nn.Module) -> Suspects | None:
    """A node anywhere upstream whose weight is not the model's."""
    for node in _nodes_of(file_graph, upstream(file_graph, end, ())):
        if wrong := weight_mismatches(file_graph, node, model):
            sentence = "; ".join(weight.message for weight in wrong)
            module = wrong[0].module or node.modules[-1]
            return _certain("file", node, (node,), sentence, module)
    return None


def _nodes_of(file_graph: FileGraph, values: list[str]) -> list[FileNode]:
    """The nodes that compute these values, in the order of the file."""
    nodes = {file_graph.maker[name].place: file_graph.maker[name] for name in values}
    return [node for _, node in sorted(nodes.items()) if node.proto.op_type != "Constant"]


def _origin(node: FileNode) -> tuple[object, ...]:
    return (*node.modules, node.operation or node.place)


def _known_to_torch(
    nodes: list[FileNode], values: dict[str, Tensor], end: str, call: Call, judge: Judge
) -> set[str]:
    """The values that some PyTorch operator produces as well."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for name in (name for node in nodes for name in node.proto.output):
        value = values.get(name)
        # single numbers are equal by chance too often
        if value is not None and name != end and value.numel() > 1:
            alike.setdefault((value.dtype, *value.shape), []).append(name)
    found: set[str] = set()

    def compare(tensor: Tensor) -> None:
        for name in alike.get((tensor.dtype, *tensor.shape), ()):
            value = values[name]
            if name not in found and may_agree(tensor, value) and judge(tensor.detach(), value)[0]:
                found.add(name)

    record_tensors(call, compare)
    return found


def _assess(
    file_graph: FileGraph,
    group: tuple[FileNode, ...],
    values: dict[str, Tensor],
    feed: Feed,
    model: nn.Module,
    judge: Judge,
) -> Suspects:
    """Whether the nodes' operators, their weights or onnxruntime's kernels are the cause."""
    for node in group:
        operator = node.proto.op_type
        if operator in _RANDOM or operator.startswith("Random"):
            return _certain("file", node, group, f"{operator} draws random numbers")
        # exported as BatchNormalization with the stored statistics
        if _IN_TRAINING.search(node.torch_operator):
            sentence = (
                "batch norm runs in train mode: PyTorch uses the mean and variance of the "
                "batch, the file uses the stored ones"
            )
            return _certain("file", node, group, sentence)
        if operator in _CHOOSING:
            sentence = f"{operator} may return equal values in any order"
            return _certain("unknown", node, group, sentence)
        if wrong := weight_mismatches(file_graph, node, model):
            sentence = "; ".join(weight.message for weight in wrong)
            return _certain("file", node, group, sentence, wrong[0].module)
    verdicts = [_matches_reference(file_graph, node, values, feed, judge) for node in group]
    if False in verdicts:
        node = group[verdicts.index(False)]
        sentence = (
            f"onnxruntime's {node.proto.op_type} kernel differs from ONNX's reference "
            "implementation on the same inputs, so the kernel is at fault"
        )
        return _certain("kernel", node, group, sentence)
    if not all(verdicts):
        return Suspects(cause="unknown", node=group[0], nodes=group, sentences=())
    sentence = (
        "onnxruntime computes these nodes as ONNX's reference implementation does, so the exported "
        "graph differs from the model at this point, or amplifies an earlier rounding error"
    )
    return Suspects(cause="file", node=group[0], nodes=group, sentences=(sentence,))


def _certain(
    cause: str, node: FileNode, group: tuple[FileNode, ...], sentence: str, module: str = ""
) -> Suspects:
    return Suspects(
        cause=cause, node=node, nodes=group, sentences=(sentence,), is_certain=True, module=module
    )


def _matches_reference(
    file_graph: FileGraph, node: FileNode, values: dict[str, Tensor], feed: Feed, judge: Judge
) -> bool | None:
    """Whether onnx's NumPy reference evaluator agrees with onnxruntime; None if unknown."""
    import onnx
    import torch
    from onnx.reference import ReferenceEvaluator

    given = {name: _value(file_graph, name, values, feed) for name in read_values(node.proto)}
    known = {name: array for name, array in given.items() if array is not None}
    outputs = [name for name in node.proto.output if name]
    if len(known) < len(given) or _work(node, known, values) > _MOST_ELEMENTS:
        return None
    # a model of the one node, on the inputs that onnxruntime had
    graph = onnx.helper.make_graph(
        [node.proto],
        "one",
        [onnx.ValueInfoProto(name=name) for name in known],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=list(file_graph.model.opset_import))
    model.functions.extend(file_graph.model.functions)
    try:
        computed = ReferenceEvaluator(model).run(None, known)
        sides = [
            (torch.as_tensor(array), values[name])
            for name, array in zip(outputs, computed, strict=True)
            if name in values
        ]
    except Exception:  # an operator that the reference does not have, or not in this dtype
        return None
    return all(judge(ours, theirs)[0] for ours, theirs in sides) if sides else None


def _work(node: FileNode, known: dict[str, Array], values: dict[str, Tensor]) -> int:
    """The cost of computing a node again: its inputs, or the products of a convolution."""
    read = sum(array.size for array in known.values())
    if node.proto.op_type not in ("Conv", "ConvTranspose"):
        return read
    made = values[node.proto.output[0]].numel() if node.proto.output[0] in values else read
    weight = known[node.proto.input[1]]
    return int(made * weight.size // max(1, weight.shape[0]))


def _value(file_graph: FileGraph, name: str, values: dict[str, Tensor], feed: Feed) -> Array | None:
    if name in values:
        array: Array = values[name].numpy()
        return array
    return feed[name] if name in feed else file_graph.initializer(name)


_ROUNDING = 1e-5  # of the largest value: rounding where a batch norm is multiplied in


@dataclass(frozen=True, kw_only=True, slots=True)
class WeightMismatch:
    """A stored tensor that differs from the model's.

    Attributes:
        message: which tensor, and by how much it differs.
        module: the path of its module; "" for the node's own.
    """

    message: str
    module: str


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class _Original:
    """A tensor of the model from which a stored one may have been computed.

    Attributes:
        is_certain: it cannot have been computed from another one.
    """

    words: str
    value: Tensor
    is_certain: bool
    module: str = ""
    rounding: float = 0.0


def weight_mismatches(
    file_graph: FileGraph, node: FileNode, model: nn.Module
) -> list[WeightMismatch]:
    """The stored tensors of a node that differ from the parameters of their names.

    Convolutions with a batch norm multiplied in are compared with that product. A tensor with a
    generated name is compared with the matrices of the node's module, also transposed, and
    reported if it is almost equal to one of them.
    """
    import torch

    found = []
    for name in read_values(node.proto):
        array = file_graph.initializer(name) if name in file_graph.initializers else None
        if array is None or array.dtype.kind != "f":
            continue
        stored = torch.from_numpy(array.copy())
        originals = [
            one for one in _originals(name, node, model) if one.value.shape == stored.shape
        ]
        differences = [_compared(stored, original) for original in originals]
        if differences and all(differences):  # one that is equal clears it
            found.append(next(filter(None, differences)))
    return [changed for changed in found if changed.message]


def _originals(name: str, node: FileNode, model: nn.Module) -> Iterator[_Original]:
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    if name in own:
        value = own[name].detach()
        # a folded convolution keeps its weight's name and gets the batch norm's place
        scale = _scale(model, node.modules[-1])
        if scale is None or name.startswith(f"{node.modules[-1]}."):
            yield _Original(words=f"the file's {name}", value=value, is_certain=True)
        elif node.proto.op_type == "Conv" and scale.numel() == value.shape[0] and value.ndim > 1:
            yield _Original(
                words=f"the file's {name}, the batch norm {node.modules[-1]} multiplied in,",
                value=value * scale.reshape(-1, *[1] * (value.ndim - 1)),
                is_certain=True,
                module=name.rpartition(".")[0],
                rounding=_ROUNDING,
            )
        return
    module = f"{node.modules[-1]}." if node.modules[-1] else ""
    for path, tensor in own.items():
        if path.startswith(module) and tensor.ndim == 2:
            value, words = tensor.detach(), f"{name}, the file's {path}"
            yield _Original(words=words, value=value, is_certain=False)
            yield _Original(words=f"{words} transposed,", value=value.T, is_certain=False)


def _scale(model: nn.Module, path: str) -> Tensor | None:
    """The factor of each channel in a batch norm in eval mode; None for other modules."""
    from torch.nn.modules.batchnorm import _BatchNorm

    module = dict(model.named_modules()).get(path)
    if not isinstance(module, _BatchNorm) or module.running_var is None:
        return None
    scale = (module.running_var + module.eps).rsqrt()
    return (scale if module.weight is None else scale * module.weight).detach()


def _compared(stored: Tensor, original: _Original) -> WeightMismatch | None:
    """The difference; None if there is none, without a message if it may be another tensor."""
    apart = (stored.double() - original.value.double()).abs()
    largest = float(original.value.abs().max()) if apart.numel() else 0.0
    count = int((apart > original.rounding * largest).sum())
    if count == 0:
        return None
    if not original.is_certain and count > stored.numel() // 2:
        return WeightMismatch(message="", module="")
    return WeightMismatch(
        message=(
            f"{original.words} differs from the model's own in {count} of {stored.numel()} "
            f"values, by up to {format_error(float(apart.max()))}"
        ),
        module=original.module,
    )
