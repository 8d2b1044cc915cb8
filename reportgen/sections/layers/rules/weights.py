"""Findings about the values that the model stores."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.layers.result import Layers

_SHOWN = 3


@rule(
    "LAY010",
    Severity.ERROR,
    advice="restore a checkpoint from before the weights became invalid; check gradients with "
    "torch.autograd.detect_anomaly",
    bad="""
        model = nn.Linear(4, 4)
        nn.init.constant_(model.bias, float("nan"))
        inputs = ["x=batch,4"]
    """,
    good="""
        model = nn.Linear(4, 4)
        inputs = ["x=batch,4"]
    """,
)
def non_finite_weights(result: Layers) -> Iterator[Hit]:
    """A parameter contains NaN or infinity.

    Every output that depends on it is NaN. The usual cause is a checkpoint that was written after
    the training diverged, or memory that was allocated with `torch.empty` and never filled.
    Buffers are not checked, because masks contain infinity on purpose.
    """
    names = list(result.stored_values.non_finite)
    if names:
        yield Hit(names[0], f"{_listed(names)} contain NaN or infinity", key="weights")


@rule(
    "LAY011",
    Severity.WARNING,
    advice="initialize it randomly, such as with nn.init.kaiming_normal_ or nn.init.trunc_normal_",
    bad="""
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        nn.init.constant_(model[0].weight, 0.1)
        inputs = ["x=batch,4"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        nn.init.xavier_uniform_(model[0].weight)
        inputs = ["x=batch,4"]
    """,
)
def constant_weights(result: Layers) -> Iterator[Hit]:
    """All elements of a weight matrix have the same value, which is not zero.

    All units of the layer then compute the same, and their gradients are the same: they stay
    equal however long the model is trained, and the layer has the capacity of one unit. Matrices
    of zeros are not reported, because heads, gates and low-rank factors begin at zero on purpose.
    Neither are frozen weights, such as those of a fixed filter, nor vectors, such as the scale of
    a norm.
    """
    for weight in result.stored_values.constant:
        yield Hit(weight.name, f"every element of {weight.name} is {weight.value:g}")


@rule(
    "LAY012",
    Severity.NOTE,
    advice="initialize the copies again, or share one module if they are meant to be equal",
    bad="""
        import copy

        block = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        model = nn.Sequential(*(copy.deepcopy(block) for _ in range(3)))
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
        inputs = ["x=batch,8"]
    """,
)
def duplicated_weights(result: Layers) -> Iterator[Hit]:
    """Several weights have the same values, but are not one tensor.

    Copying a module copies its initialization too: layers made with `copy.deepcopy` begin equal,
    as those of nn.TransformerEncoder do, which is not the initialization that was intended. In a
    trained model, equal weights that are not tied take memory and may diverge in the next
    training. Vectors, small tensors and constant ones are not compared.
    """
    groups = result.stored_values.copies
    if groups:
        names = max(groups, key=len)
        more = f"; {len(groups) - 1} more such groups" if len(groups) > 1 else ""
        yield Hit(
            names[0],
            f"{len(names)} weights have the same values: {_listed(list(names))}{more}",
            key="copies",
        )


@rule(
    "LAY013",
    Severity.WARNING,
    advice="use nn.Parameter if it is to be trained, or register_buffer without requires_grad",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("scale", torch.ones(4, requires_grad=True))

            def forward(self, x):
                return x * self.scale

        model = Net()
        inputs = ["x=batch,4"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(4))

            def forward(self, x):
                return x * self.scale

        model = Net()
        inputs = ["x=batch,4"]
    """,
)
def trainable_buffers(result: Layers) -> Iterator[Hit]:
    """A buffer requires a gradient, so it was meant to be a parameter.

    `model.parameters()` does not contain buffers: the optimizer never changes it, although
    autograd computes its gradient in every step.
    """
    for name in result.stored_values.trainable_buffers:
        yield Hit(name, f"{name} is a buffer that requires a gradient")


@rule(
    "LAY014",
    Severity.WARNING,
    advice="register it: self.register_buffer(name, tensor), with persistent=False if the "
    "checkpoint need not contain it",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.mean = torch.tensor([0.485, 0.456, 0.406])

            def forward(self, x):
                return x - self.mean

        model = Net()
        inputs = ["x=batch,3"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]))

            def forward(self, x):
                return x - self.mean

        model = Net()
        inputs = ["x=batch,3"]
    """,
)
def unregistered_tensors(result: Layers) -> Iterator[Hit]:
    """A module holds a tensor as a plain attribute.

    `.to()`, `.cuda()` and `.half()` do not change it, so that the forward pass fails on a GPU or
    computes in another precision, and the checkpoint does not contain it. Parameters, modules and
    tensors in lists are reported by `unregistered-parameters`. Integers, single numbers and
    references to registered tensors are not reported.
    """
    for name in result.stored_values.plain_tensors:
        yield Hit(name, f"{name} is neither a parameter nor a buffer")


@rule(
    "LAY015",
    Severity.NOTE,
    advice="save the state dict with safetensors.torch.save_file",
    bad="""
        model = nn.Linear(4, 4)
        torch.save(model.state_dict(), folder / "weights.pth")
        inputs = ["x=batch,4"]
        options = {"weights": folder / "weights.pth"}
    """,
    good="""
        from safetensors.torch import save_file

        model = nn.Linear(4, 4)
        save_file(model.state_dict(), folder / "weights.safetensors")
        inputs = ["x=batch,4"]
        options = {"weights": folder / "weights.safetensors"}
    """,
)
def pickled_weights(result: Layers) -> Iterator[Hit]:
    """The file of the weights is a pickle.

    Reading a pickle can run any code that its author put into it. reportgen reads tensors only,
    but other programs may not. A safetensors file contains nothing but tensors, and it loads
    faster, because it is mapped into memory.
    """
    if result.stored_values.pickled_weights:
        yield Hit("", "the weights are read from a pickle", key="weights")


WEIGHT_RULES = (
    non_finite_weights,
    constant_weights,
    duplicated_weights,
    trainable_buffers,
    unregistered_tensors,
    pickled_weights,
)


def _listed(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
