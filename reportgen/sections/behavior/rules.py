"""Findings of the behavior section: documented, pure functions of the result."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.behavior.result import Behavior, listed


def _failed(result: Behavior, *names: str) -> Iterator[Hit]:
    """A hit for the first of the probes `names` whose answer is no."""
    for name in names:
        probe = result.probe(name)
        if probe is not None and probe.verdict == "no" and probe.expected:
            where = probe.where[0] if probe.where else ""
            yield Hit(where=where, message=probe.sentence, advice=probe.remedy)
            return


@rule(
    "BEH001",
    Severity.WARNING,
    advice="pass training=self.training to functional dropout, or draw the noise outside the model",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return F.dropout(self.layer(x), 0.5)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return F.dropout(self.layer(x), 0.5, training=self.training)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def non_deterministic_evaluation(result: Behavior) -> Iterator[Hit]:
    """Two evaluation passes over the same inputs give different outputs.

    Usually a functional dropout without `training=self.training`, noise drawn inside the
    forward pass, or state that one pass leaves for the next. Such a model cannot be compared
    with its export, and its metrics cannot be reproduced.
    """
    yield from _failed(result, "repeatable")


@rule(
    "BEH002",
    Severity.WARNING,
    advice="keep samples apart: reduce and normalize over every dim but the batch",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.softmax(self.layer(x), dim=0)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.softmax(self.layer(x), dim=1)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def batch_dependent_results(result: Behavior) -> Iterator[Hit]:
    """The output for a sample depends on the other samples of its batch, in evaluation mode.

    The usual causes are batch normalization without running statistics, a softmax, mean or
    cumulative sum over the batch dim, and a reshape that mixes samples. The answer to a request
    then depends on which other requests happen to share its batch.
    """
    yield from _failed(result, "independent", "batch_of_one")


@rule(
    "BEH003",
    Severity.WARNING,
    advice="keep state out of the forward pass, or change it only `if self.training`",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)
                self.register_buffer("calls", torch.zeros(1))

            def forward(self, x):
                self.calls += 1
                return self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)
                self.register_buffer("calls", torch.zeros(1))

            def forward(self, x):
                if self.training:
                    self.calls += 1
                return self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def stateful_evaluation(result: Behavior) -> Iterator[Hit]:
    """An evaluation pass changes parameters, buffers or attributes of the model.

    Attributes that are filled once, such as a cache of positions, are not reported. A model that
    changes in every pass cannot be shared between threads, and a saved copy depends on how often
    it was called.
    """
    yield from _failed(result, "stateless")


@rule(
    "BEH004",
    Severity.WARNING,
    advice="look for detach, no_grad, .data or a rounding between it and the output; or freeze it",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)
                self.head = nn.Linear(8, 2)

            def forward(self, x):
                return self.head(self.layer(x).detach())

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)
                self.head = nn.Linear(8, 2)

            def forward(self, x):
                return self.head(self.layer(x))

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def parameters_without_gradient(result: Behavior) -> Iterator[Hit]:
    """A trainable parameter is read by the forward pass, but gets no gradient.

    The autograd graph between it and the outputs is cut: by `detach`, `no_grad`, `.data`, or an
    operator without a derivative such as argmax. The parameter keeps its initial value while the
    optimizer holds state for it. Models that do not run in training mode without targets are
    skipped: their losses may provide these gradients.
    """
    yield from _failed(result, "gradients")


@rule(
    "BEH005",
    Severity.WARNING,
    advice="guard logarithms, roots and divisions; or give the input's true range (low, high)",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.log(self.layer(x))

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.log(F.softplus(self.layer(x)) + 1e-6)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def non_finite_outputs(result: Behavior) -> Iterator[Hit]:
    """An output contains NaN or infinity for random inputs of the manifest's range.

    The first module whose result is not finite is named. Without a range in the manifest, inputs
    are standard normal numbers, including negative ones.
    """
    yield from _failed(result, "finite")


@rule(
    "BEH006",
    Severity.WARNING,
    advice="clone the input first, or use the operator that is not in place",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return self.layer(x.mul_(2))

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return self.layer(x * 2)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def inputs_modified_in_place(result: Behavior) -> Iterator[Hit]:
    """A forward pass writes into its own inputs.

    The caller's tensor is changed after the call: a second call on the same batch, an ensemble or
    a loss that compares with the input then works on changed values.
    """
    yield from _failed(result, "inputs_kept")


@rule(
    "BEH007",
    Severity.WARNING,
    advice="add a small epsilon under roots, norms and divisions, also where `where` hides them",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.sqrt(self.layer(x) * 0) + self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.sqrt(self.layer(x) * 0 + 1e-6) + self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def non_finite_gradients(result: Behavior) -> Iterator[Hit]:
    """The gradient of a parameter contains NaN or infinity in the first backward pass.

    Typical causes are the root or the norm of an exact zero, and a `torch.where` that hides a
    division by zero from the output but not from the gradient. One optimizer step destroys the
    weights. If the outputs are not finite, only `non-finite-outputs` is reported.
    """
    outputs = result.probe("finite")
    if outputs is None or outputs.verdict != "no":
        yield from _failed(result, "finite_gradients")


@rule(
    "BEH008",
    Severity.NOTE,
    advice="compare outputs and parity on the device once; autocast around the call of the model "
    "instead of inside it would keep its precision the caller's choice",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                with torch.autocast("cuda", dtype=torch.float16):
                    return self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return self.layer(x)

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def autocast_for_another_device(result: Behavior) -> Iterator[Hit]:
    """The forward pass enters `torch.autocast` for a device that this analysis does not run on.

    PyTorch disables such a region on the CPU, so operators, outputs and the exported file are
    those of the weights' own precision. On the device the region computes in lower precision.
    """
    for region in result.autocast:
        at = f" at {region.place}" if region.place else ""
        yield Hit(
            region.module,
            f'torch.autocast("{region.device}"){at} has no effect on the CPU: on '
            f"{region.device} this part computes in {region.dtype}",
        )


@rule(
    "BEH009",
    Severity.WARNING,
    advice="replace the in-place operation by one that returns a new tensor, or clone its input; "
    "`torch.autograd.detect_anomaly` shows the line",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                y = torch.exp(self.layer(x))
                y.mul_(2)  # exp's gradient needs the result as it was
                return y

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.exp(self.layer(x)) * 2

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def failing_backward(result: Behavior) -> Iterator[Hit]:
    """The forward pass runs in training mode, but the backward pass raises an error.

    The model cannot be trained as it is. The usual cause is an operation in place (`x += y`,
    `x.mul_(2)`, `relu_`) on a tensor that autograd saved for the gradient. The others are an
    operator without a derivative and a graph that was freed.
    """
    if result.backward_error:
        yield Hit("", f"the backward pass fails: {result.backward_error}", key="backward")


@rule(
    "BEH010",
    Severity.NOTE,
    advice="train with a batch of 2 or more and drop_last=True, or use group norm there",
    bad="""
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4),
        )
        inputs = ["x=batch,3,8,8"]
    """,
    good="""
        model = nn.Sequential(
            nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1),
        )
        inputs = ["x=batch,3,8,8"]
    """,
)
def batch_norm_of_single_values(result: Behavior) -> Iterator[Hit]:
    """A batch norm gets one value per channel and sample.

    Its statistics are then those of the samples of the batch alone: training at batch 1 raises an
    error, also for the last, incomplete batch of an epoch, and small batches are noisy. Typical
    places are behind global pooling. BatchNorm1d is not reported, because vectors have no more.
    """
    places = result.single_value_norms
    if places:
        yield Hit(
            places[0], f"one value per channel and sample in {listed(places, 3)}", key="norms"
        )


@rule(
    "BEH011",
    Severity.WARNING,
    advice="look for a layer whose weights are zero, an activation that saturates, or a tensor "
    "that is created instead of computed",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.softmax(self.layer(x).mean(1, keepdim=True), dim=1)

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 8)

            def forward(self, x):
                return torch.sigmoid(self.layer(x).mean(1, keepdim=True))

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def constant_output(result: Behavior) -> Iterator[Hit]:
    """No output depends on the input.

    Different samples give exactly the same outputs, in several passes. A softmax over a single
    value is always 1, and it then has no gradient. Outputs of zeros are not reported, because heads
    may begin at zero; if a ReLU returns zeros only, `dead-activations` is reported instead.
    """
    names = [name or "the output" for name in result.constant_outputs]
    is_dead = result.activations is not None and result.activations.dead
    if names and not is_dead:
        yield Hit(
            result.constant_outputs[0],
            f"{listed(names, 3)}: equal for all samples, whatever the input",
        )


@rule(
    "BEH012",
    Severity.WARNING,
    advice="scale the initialization with the number of inputs (nn.init.kaiming_normal_), or "
    "normalize",
    bad="""
        model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 4))
        nn.init.normal_(model[0].weight, std=1000.0)
        inputs = ["x=batch,256"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(256, 256), nn.Linear(256, 4))
        nn.init.kaiming_normal_(model[0].weight)
        inputs = ["x=batch,256"]
    """,
)
def exploding_activations(result: Behavior) -> Iterator[Hit]:
    """Activations of the randomly initialized model are very large.

    The root mean square of a layer's output exceeds 10,000, and a thousand times that of the
    inputs, in training mode. float16 overflows at 65,504; gradients are of the same order, so that
    the first optimizer steps destroy the weights. Only models with random weights are checked.
    """
    found = result.activations.exploding if result.activations else None
    if found is not None and result.random_weights:
        yield Hit(
            found.path,
            f"the output has a root mean square of {found.root_mean_square:,g} for inputs of "
            f"{found.of_inputs:g}",
        )


@rule(
    "BEH013",
    Severity.WARNING,
    advice="divide the scores by the square root of the head size before the softmax",
    bad="""
        class Attention(nn.Module):
            def forward(self, x):
                scores = x @ x.transpose(1, 2)
                return torch.softmax(scores, dim=-1) @ x

        model = nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), Attention())
        inputs = ["x=batch,16,256"]
    """,
    good="""
        class Attention(nn.Module):
            def __init__(self):
                super().__init__()
                self.query, self.key = nn.Linear(256, 256), nn.Linear(256, 256)

            def forward(self, x):
                scores = self.query(x) @ self.key(x).transpose(1, 2) / 16
                return torch.softmax(scores, dim=-1) @ x

        model = nn.Sequential(nn.Linear(256, 256), nn.LayerNorm(256), Attention())
        inputs = ["x=batch,16,256"]
    """,
)
def saturated_softmax(result: Behavior) -> Iterator[Hit]:
    """A softmax of the randomly initialized model gives nearly everything to one entry.

    In more than half of its rows the largest entry exceeds 0.999. The gradient of a saturated
    softmax is nearly zero, so that what feeds it hardly learns. Attention without the scale
    1/sqrt(d) is the usual cause. Rows of fewer than 4 entries and trained weights are not checked.
    """
    places = result.activations.saturated if result.activations else ()
    if places and result.random_weights:
        yield Hit(places[0], f"the softmax is saturated in {listed(places, 3)}", key="softmax")


@rule(
    "BEH014",
    Severity.WARNING,
    advice="check bias and initialization of the layer before it, or use leaky ReLU",
    bad="""
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        nn.init.constant_(model[0].bias, -100.0)
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        nn.init.zeros_(model[0].bias)
        inputs = ["x=batch,8"]
    """,
)
def dead_activations(result: Behavior) -> Iterator[Hit]:
    """A ReLU returns zeros only.

    Nothing behind it depends on the input, and no gradient passes it. Reported if every element of
    its output is zero in a pass in training mode, while its input is not.
    """
    places = result.activations.dead if result.activations else ()
    if places:
        yield Hit(places[0], f"only zeros leave {listed(places, 3)}", key="rectifiers")


RULES = (
    non_deterministic_evaluation,
    batch_dependent_results,
    stateful_evaluation,
    parameters_without_gradient,
    non_finite_outputs,
    inputs_modified_in_place,
    non_finite_gradients,
    autocast_for_another_device,
    failing_backward,
    batch_norm_of_single_values,
    constant_output,
    exploding_activations,
    saturated_softmax,
    dead_activations,
)
