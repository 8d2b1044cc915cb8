"""The nodes of a file that are to blame, and whether onnxruntime or the file itself is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reportgen.sections.onnx.parity.intermediates import Inside, Node, read_values
from reportgen.sections.onnx.parity.matching import Judge, may_agree, upstream, values_of
from reportgen.sections.onnx.parity.module_calls import Call, watch_operators
from reportgen.sections.onnx.parity.weight_mismatch import changed_weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.onnx.runtime import Array, Feed

_MOST_NODES = 256  # that are looked at one by one
_MOST_ELEMENTS = 4_000_000  # that a node reads, or that NumPy's slow convolution multiplies
_RANDOM = frozenset({"Dropout", "Bernoulli", "Multinomial"})
_IN_TRAINING = re.compile(r"native_batch_norm_legit(?!_no_training)")
_CHOOSING = frozenset({"TopK", "ArgMax", "ArgMin", "NonMaxSuppression", "Unique"})


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Suspects:
    """The nodes of one operator of PyTorch from which on the file differs.

    Attributes:
        cause: `kernel`, `file` or `unknown`, as in `Divergence`.
        node: the one of them to name.
        nodes: all of them, in the order of the file.
        sentences: what tells against them.
        is_certain: `node` alone is to blame.
        module: whose weight is wrong, where that is another than the node's.
    """

    cause: str
    node: Node
    nodes: tuple[Node, ...]
    sentences: tuple[str, ...]
    is_certain: bool = False
    module: str = ""


def find_suspects(
    inside: Inside,
    end: str,
    agreeing: set[str],
    feed: Feed,
    model: nn.Module,
    call: Call,
    judge: Judge,
) -> Suspects:
    """The first nodes on the way to `end` whose values no operator of PyTorch gives.

    Args:
        end: a value of the file that differs.
        agreeing: values at which the search ends, since they are right.
        call: one call of the PyTorch model.
    """
    nodes = _nodes_of(inside, upstream(inside, end, agreeing))[-_MOST_NODES:]
    names = {name for node in nodes for name in (*read_values(node.proto), *node.proto.output)}
    values = values_of(inside, feed, sorted(names & inside.maker.keys()))
    known = _known_to_torch(nodes, values, end, call, judge)
    wrong = _nodes_of(inside, upstream(inside, end, agreeing | known))
    first = wrong[0] if wrong else inside.maker[end]
    group = tuple(node for node in wrong if _origin(node) == _origin(first)) or (first,)
    found = _judged(inside, group, values, feed, model, judge)
    if found.is_certain:
        return found
    return _with_changed_weight(inside, end, model) or found


def _with_changed_weight(inside: Inside, end: str, model: nn.Module) -> Suspects | None:
    """A node anywhere on the way whose weight is not the model's, however little that shows."""
    for node in _nodes_of(inside, upstream(inside, end, ())):
        if wrong := changed_weights(inside, node, model):
            told = "; ".join(weight.told for weight in wrong)
            module = wrong[0].module or node.modules[-1]
            return _certainly("file", node, (node,), told, module)
    return None


def _nodes_of(inside: Inside, values: list[str]) -> list[Node]:
    """The nodes that make these values, in the order of the file."""
    nodes = {inside.maker[name].place: inside.maker[name] for name in values}
    return [node for _, node in sorted(nodes.items()) if node.proto.op_type != "Constant"]


def _origin(node: Node) -> tuple[object, ...]:
    return (*node.modules, node.operation or node.place)


def _known_to_torch(
    nodes: list[Node], values: dict[str, Tensor], end: str, call: Call, judge: Judge
) -> set[str]:
    """The values that some operator of PyTorch gives too."""
    alike: dict[tuple[object, ...], list[str]] = {}
    for name in (name for node in nodes for name in node.proto.output):
        value = values.get(name)
        if value is not None and name != end and value.numel() > 1:
            alike.setdefault((value.dtype, *value.shape), []).append(name)
    found: set[str] = set()

    def compare(tensor: Tensor) -> None:
        for name in alike.get((tensor.dtype, *tensor.shape), ()):
            value = values[name]
            if name not in found and may_agree(tensor, value) and judge(tensor.detach(), value)[0]:
                found.add(name)

    watch_operators(call, compare)
    return found


def _judged(
    inside: Inside,
    group: tuple[Node, ...],
    values: dict[str, Tensor],
    feed: Feed,
    model: nn.Module,
    judge: Judge,
) -> Suspects:
    """Whether onnxruntime computes these nodes as the standard says, and with which weights."""
    for node in group:
        operator = node.proto.op_type
        if operator in _RANDOM or operator.startswith("Random"):
            return _certainly("file", node, group, f"{operator} draws random numbers")
        if _IN_TRAINING.search(node.torch_operator):
            told = (
                "batch norm runs as in training there: PyTorch takes the mean and variance of "
                "the batch, the file those that are stored"
            )
            return _certainly("file", node, group, told)
        if operator in _CHOOSING:
            told = f"which of equal values {operator} takes first is left open"
            return _certainly("unknown", node, group, told)
        if wrong := changed_weights(inside, node, model):
            told = "; ".join(weight.told for weight in wrong)
            return _certainly("file", node, group, told, wrong[0].module)
    verdicts = [_as_the_standard_says(inside, node, values, feed, judge) for node in group]
    if False in verdicts:
        node = group[verdicts.index(False)]
        told = (
            f"onnxruntime computes {node.proto.op_type} otherwise than ONNX's reference "
            "implementation on the same inputs, so its kernel is at fault"
        )
        return _certainly("kernel", node, group, told)
    if not all(verdicts):
        return Suspects(cause="unknown", node=group[0], nodes=group, sentences=())
    told = (
        "onnxruntime computes these nodes as ONNX's reference implementation does, so the file "
        "says something else than the model there, or makes more of what comes in a little off"
    )
    return Suspects(cause="file", node=group[0], nodes=group, sentences=(told,))


def _certainly(
    cause: str, node: Node, group: tuple[Node, ...], told: str, module: str = ""
) -> Suspects:
    return Suspects(
        cause=cause, node=node, nodes=group, sentences=(told,), is_certain=True, module=module
    )


def _as_the_standard_says(
    inside: Inside, node: Node, values: dict[str, Tensor], feed: Feed, judge: Judge
) -> bool | None:
    """Whether onnx's own evaluator, in NumPy, gives what onnxruntime does; None if unknown."""
    import onnx
    import torch
    from onnx.reference import ReferenceEvaluator

    given = {name: _value(inside, name, values, feed) for name in read_values(node.proto)}
    known = {name: array for name, array in given.items() if array is not None}
    outputs = [name for name in node.proto.output if name]
    if len(known) < len(given) or _work(node, known, values) > _MOST_ELEMENTS:
        return None
    graph = onnx.helper.make_graph(
        [node.proto],
        "one",
        [onnx.ValueInfoProto(name=name) for name in known],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=list(inside.model.opset_import))
    model.functions.extend(inside.model.functions)
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


def _work(node: Node, known: dict[str, Array], values: dict[str, Tensor]) -> int:
    """What computing a node again costs: its inputs, or the multiplications of a convolution."""
    read = sum(array.size for array in known.values())
    if node.proto.op_type not in ("Conv", "ConvTranspose"):
        return read
    made = values[node.proto.output[0]].numel() if node.proto.output[0] in values else read
    weight = known[node.proto.input[1]]
    return int(made * weight.size // max(1, weight.shape[0]))


def _value(inside: Inside, name: str, values: dict[str, Tensor], feed: Feed) -> Array | None:
    if name in values:
        array: Array = values[name].numpy()
        return array
    return feed[name] if name in feed else inside.initializer(name)
