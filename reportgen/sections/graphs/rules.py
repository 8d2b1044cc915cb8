"""Findings of the graphs section: which module feeds which, in one forward pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.graphs.flow import PERMUTED, RESHAPED, UNCHANGED, Flow, flow_of
from reportgen.sections.graphs.result import Graphs

_SHOWN = 3
_LOSS_OF_LOGITS = "cross_entropy"


@rule(
    "GRA001",
    Severity.NOTE,
    advice="build the layer with bias=False",
    bad="""
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        inputs = ["x=batch,3,8,8"]
    """,
    good="""
        model = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        inputs = ["x=batch,3,8,8"]
    """,
)
def bias_before_norm(result: Graphs) -> Iterator[Hit]:
    """A layer adds a bias, and the batch or instance norm behind it subtracts it again.

    These norms subtract the mean of each channel, so a constant per channel cancels out: in
    training mode the bias gets no gradient but noise, and it takes memory and optimizer state.
    Only layers whose output feeds nothing but one such norm are reported, and only biases that
    are trained. Layer norm and group norm do not cancel a bias and are not reported.
    """
    flow = flow_of(result)
    places = [*dict.fromkeys(_biased(flow))]
    if places:
        many = f"the biases of {len(places)} layers" if len(places) > 1 else "the bias"
        yield Hit(
            places[0],
            f"the norm behind it cancels {many}: {_listed(places)}",
            key="biases",
        )


def _biased(flow: Flow) -> Iterator[str]:
    several = _called_twice(flow)
    for index in flow.with_role("linear", "convolution"):
        layer = flow.module(index)
        target = flow.only_target(index, UNCHANGED | PERMUTED)
        if layer is None or not layer.bias or target is None or layer.path in several:
            continue
        norm = flow.module(target)
        cancels = flow.role(target) in ("batch norm", "instance norm")
        if cancels and norm is not None and norm.inputs in (0, layer.outputs):
            yield layer.path


def _called_twice(flow: Flow) -> set[str]:
    """Modules that ran more than once; each call may feed something else."""
    calls = Counter(node.module for node in flow.nodes if node.kind == "module")
    return {path for path, times in calls.items() if times > 1}


@rule(
    "GRA002",
    Severity.NOTE,
    advice="move the dropout behind the last batch norm, or drop it",
    bad="""
        model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.ReLU())
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.BatchNorm1d(8), nn.Dropout(0.5))
        inputs = ["x=batch,8"]
    """,
)
def dropout_before_batch_norm(result: Graphs) -> Iterator[Hit]:
    """A dropout feeds a batch norm, whose statistics then differ between the modes.

    Dropout raises the variance of its output in training mode only. The batch norm stores this
    larger variance and uses it in evaluation mode, where the variance is smaller. The model is
    less accurate in evaluation than in training (Li et al., Understanding the Disharmony between
    Dropout and Batch Normalization, CVPR 2019). Dropouts with p = 0 are not reported, nor those
    with a layer between them and the norm.
    """
    flow = flow_of(result)
    for index in flow.with_role("dropout"):
        dropout, target = flow.module(index), flow.only_target(index)
        if target is not None and flow.role(target) == "rectifier":
            target = flow.only_target(target)
        if target is None or dropout is None or not dropout.rate:
            continue
        if flow.role(target) == "batch norm":
            yield Hit(
                dropout.path,
                f"dropout with p = {dropout.rate:g} feeds the batch norm {flow.place(target)}",
            )


@rule(
    "GRA003",
    Severity.WARNING,
    advice="remove one of the two",
    bad="""
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.ReLU(), nn.Linear(8, 2))
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        inputs = ["x=batch,8"]
    """,
)
def repeated_activation(result: Graphs) -> Iterator[Hit]:
    """An activation is applied to the result of the same activation.

    A second ReLU changes nothing. A second sigmoid or softmax squeezes all values into a narrow
    range, so that training becomes slow: it usually is a mistake in the order of layers, such as
    a block that ends with the activation with which the next block begins. Only activations whose
    result feeds nothing but the second one are reported.
    """
    flow = flow_of(result)
    for index in flow.with_role("rectifier", "sigmoid", "softmax"):
        target = flow.only_target(index, UNCHANGED | RESHAPED)
        if target is None or flow.nodes[target].kind == "output":
            continue
        first, second = flow.role(index), flow.role(target)
        both_squeeze = {first, second} <= {"sigmoid", "softmax"}
        if first == second or both_squeeze:
            names = f"{flow.nodes[index].operator} and {flow.nodes[target].operator}"
            yield Hit(flow.place(target), f"{names} are applied one after the other")


@rule(
    "GRA004",
    Severity.WARNING,
    advice="put an activation between them, or replace both by one layer",
    bad="""
        model = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        inputs = ["x=batch,8"]
    """,
)
def stacked_linear(result: Graphs) -> Iterator[Hit]:
    """Two linear layers follow each other without an activation between them.

    Together they compute what a single linear layer computes, with more parameters and time.
    Pairs that save parameters are not reported: a narrow layer between two wide ones is a
    low-rank factorization, as in LoRA and in bottlenecks. Neither are frozen layers.
    """
    flow = flow_of(result)
    for index in flow.with_role("linear"):
        target = _through_dropout(flow, index)
        first, second = flow.module(index), None if target is None else flow.module(target)
        if first is None or second is None:
            continue
        is_bottleneck = first.outputs < min(first.inputs, second.outputs)
        if not is_bottleneck and first.trainable and second.trainable:
            yield Hit(
                second.path,
                f"{first.path} ({first.inputs} to {first.outputs} features) feeds {second.path} "
                f"({second.inputs} to {second.outputs}) without an activation",
            )


def _through_dropout(flow: Flow, index: int) -> int | None:
    """The linear layer that the linear layer `index` feeds, if only dropouts are between them."""
    target = flow.only_target(index)
    while target is not None and flow.role(target) == "dropout":
        target = flow.only_target(target)
    return target if target is not None and flow.role(target) == "linear" else None


@rule(
    "GRA005",
    Severity.WARNING,
    advice="return the logits; apply softmax or sigmoid where probabilities are needed",
    bad="""
        model = nn.Sequential(nn.Linear(8, 4), nn.Softmax(dim=1))
        inputs = ["x=batch,8"]
        options = {"loss": "cross_entropy"}
    """,
    good="""
        model = nn.Linear(8, 4)
        inputs = ["x=batch,8"]
        options = {"loss": "cross_entropy"}
    """,
)
def probabilities_as_logits(result: Graphs) -> Iterator[Hit]:
    """The model returns probabilities, and its loss is cross_entropy, which expects logits.

    cross_entropy applies log_softmax itself. Applied to probabilities, all values are between 0
    and 1, so that the loss cannot come near zero and its gradients are small: the model seems to
    train, but slowly and to a worse result. Only the loss of the manifest is considered.
    """
    flow = flow_of(result)
    if result.loss != _LOSS_OF_LOGITS:
        return
    for index in flow.with_role("softmax", "sigmoid", "rectifier"):
        target = flow.only_target(index, UNCHANGED | RESHAPED)
        if target is not None and flow.nodes[target].kind == "output":
            what = {"softmax": "softmax", "sigmoid": "sigmoid"}.get(
                str(flow.role(index)), "an activation without negative values"
            )
            name = flow.nodes[target].id.removeprefix("output/")
            which = f"the output {name}" if name else "the output"
            yield Hit(flow.place(index), f"{which} is the result of {what}")


@rule(
    "GRA006",
    Severity.NOTE,
    advice="remove one of the two",
    bad="""
        model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.LayerNorm(8), nn.Linear(8, 2))
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 2))
        inputs = ["x=batch,8"]
    """,
)
def repeated_norm(result: Graphs) -> Iterator[Hit]:
    """A normalization is applied to the result of a normalization of the same kind.

    The second one changes scale and shift only, which the first one could learn. It costs a pass
    over memory, and usually a block that ends with a norm is followed by one that begins with it.
    """
    flow = flow_of(result)
    for index in flow.with_role("norm", "batch norm"):
        target = flow.only_target(index)
        if target is None or flow.role(target) != flow.role(index):
            continue
        if flow.nodes[index].operator == flow.nodes[target].operator:
            yield Hit(
                flow.place(target), f"{flow.place(index)} and {flow.place(target)} are both norms"
            )


@rule(
    "GRA007",
    Severity.WARNING,
    advice="use the result or remove the call",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                self.extra(x)
                return self.body(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                return self.body(x) + self.extra(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def discarded_result(result: Graphs) -> Iterator[Hit]:
    """A layer runs, and nothing uses its result.

    It costs time in every pass, and its parameters get no gradient. Often a variable was
    overwritten or a line was left over. Layers whose result leaves torch (`.tolist()`,
    `.numpy()`) look the same.
    """
    flow = flow_of(result)
    if not any(node.kind == "output" for node in flow.nodes):
        return
    for index in flow.with_role("linear", "convolution", "batch norm", "norm"):
        if flow.nodes[index].kind == "module" and not flow.targets.get(index):
            yield Hit(flow.place(index), f"nothing uses the result of {flow.nodes[index].operator}")


RULES = (
    bias_before_norm,
    dropout_before_batch_norm,
    repeated_activation,
    stacked_linear,
    probabilities_as_logits,
    repeated_norm,
    discarded_result,
)


def _listed(places: list[str]) -> str:
    more = len(places) - _SHOWN
    return ", ".join(places[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
