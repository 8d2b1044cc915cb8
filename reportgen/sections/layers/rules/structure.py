"""Findings about the modules: which hold parameters, which run, which are counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.layers.result import Layer, Layers
from reportgen.units import format_bytes, format_count, format_integer, format_share

_SUBSTANTIAL_SHARE = 0.01  # of all bytes that operators move
_SHOWN_NAMES = 5


@rule(
    "LAY001",
    Severity.NOTE,
    advice="consider global pooling before it, a smaller head, or a low-rank factorization",
    bad="""
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(3072, 64), nn.ReLU(),
            nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4),
        )
        inputs = ["x=batch,3,32,32"]
    """,
    good="""
        model = nn.Sequential(
            nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 64), nn.ReLU(),
            nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 4),
        )
        inputs = ["x=batch,3,32,32"]
    """,
)
def dominant_layer(result: Layers) -> Iterator[Hit]:
    """One layer holds more than half of all parameters.

    A linear layer after a flattened feature map, or an embedding of a large vocabulary, often
    determines the file size and the optimizer memory while the rest of the model does the work.
    This is not an error. Layers tied to one tensor are reported once, at the first of them.
    Models with fewer than three layers that have parameters are skipped, because one of two
    layers always holds at least half.
    """
    owners = [row for row in result.layers if row.own_parameters and row.shared_with is None]
    if len(owners) < 3:
        return
    for row in owners:
        ties = _tied_with(result, row.path)
        if 2 * row.own_parameters > result.parameters and row.path == ties[0]:
            share = format_share(row.own_parameters, result.parameters)
            # torch moves a parametrized weight into a child module; report it at its layer
            path, _, name = row.path.partition(".parametrizations.")
            layer = next(other for other in result.layers if other.path == path)
            what = f"{name} of {layer.type}" if name else row.type
            what += f", tied with {', '.join(ties[1:])}," if len(ties) > 1 else ""
            yield Hit(
                path,
                f"{what} holds {share} of the parameters "
                f"({format_integer(row.own_parameters)} of {format_integer(result.parameters)})",
            )


def _tied_with(result: Layers, path: str) -> list[str]:
    """The layers that share a tensor with the one at `path`, including itself, in order."""
    owners = [[name.rpartition(".")[0] for name in names] for names in result.tied]
    groups = [group for group in owners if path in group]
    return list(dict.fromkeys(owner for group in groups for owner in group)) or [path]


@rule(
    "LAY002",
    Severity.WARNING,
    advice="use them, delete them, or ignore this finding with a reason: they take space in "
    "checkpoints and in the optimizer state without effect",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
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
                return self.extra(self.body(x))

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def unused_parameters(result: Layers) -> Iterator[Hit]:
    """No operator of the forward pass reads these parameters.

    Causes are left-over layers, a branch that the example inputs do not take, or a missing call.
    Unused parameters take memory in checkpoints and optimizers, and DistributedDataParallel
    fails on them unless `find_unused_parameters=True` is set. The check uses one forward pass in
    evaluation mode with the inputs of the manifest. Parameters that are used in training mode
    (auxiliary heads) are reported by `train-only-parameters` instead.
    """
    excused = set(result.train_only_parameters)
    unused = [name for name in result.unused_parameters if name not in excused]
    yield from _by_module(result, unused, "are not used in the forward pass")


@rule(
    "LAY003",
    Severity.ERROR,
    advice="keep modules in nn.ModuleList or nn.ModuleDict and parameters in nn.ParameterList, "
    "or assign them as attributes of the module",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = [nn.Linear(8, 8)]

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return x

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = nn.ModuleList([nn.Linear(8, 8)])

            def forward(self, x):
                for block in self.blocks:
                    x = block(x)
                return x

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def unregistered_parameters(result: Layers) -> Iterator[Hit]:
    """Modules or parameters are in a plain Python list, dict or object, or outside the model.

    PyTorch handles only registered parameters. Those in a plain list take part in the forward
    pass, but they are missing from `state_dict` and `model.parameters()`, and `.to()` and
    `.eval()` do not affect them. A restored checkpoint leaves them randomly initialized. Frozen
    parameters, and modules hidden in a tuple of one, are reported by `hidden-parameters` instead.
    """
    unwanted = (item for item in result.unregistered if not item.deliberate)
    for item, times in Counter(unwanted).items():
        more = f" ({times} such modules)" if times > 1 else ""
        yield Hit(
            item.path,
            f"{format_integer(item.parameters)} parameters of {item.type} are not registered: "
            f"not saved, not moved, not trained{more}",
        )


@rule(
    "LAY004",
    Severity.NOTE,
    advice="register a formula in the file that builds the model: "
    "reportgen.register_flops(operator, formula), or "
    "torch.utils.flop_counter.register_flop_formula",
)
def uncounted_operators(result: Layers) -> Iterator[Hit]:
    """Operators without a FLOP formula ran, so the FLOPs are a lower bound.

    torch.utils.flop_counter has formulas for matrix products, convolutions and attention, and
    reportgen adds more. Elementwise operators, reductions, normalization, pooling, embedding
    look-ups and copies count as zero, by convention. The others, mostly custom operators, are
    reported if they move at least one percent of all bytes.
    """
    moved = sum(item.bytes for item in result.uncounted)
    if not moved or moved < _SUBSTANTIAL_SHARE * result.operator_bytes:
        return
    for item in result.uncounted:
        times = "once" if item.calls == 1 else f"{format_integer(item.calls)} times"
        yield Hit(
            item.where,
            f"{item.operator} has no FLOP formula; it ran {times} and moved "
            f"{format_bytes(item.bytes)}",
        )


@rule(
    "LAY005",
    Severity.NOTE,
    advice="build the model without them for inference",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(8, 8)
                self.auxiliary = nn.Linear(8, 2)

            def forward(self, x):
                x = self.body(x)
                return (x, self.auxiliary(x)) if self.training else x

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(8, 8)

            def forward(self, x):
                x = self.body(x)
                return x

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def train_only_parameters(result: Layers) -> Iterator[Hit]:
    """Parameters are used in training mode only, such as those of auxiliary heads.

    Training checkpoints need them; a deployed model does not.
    """
    yield from _by_module(
        result, list(result.train_only_parameters), "are used in training mode only"
    )


@rule(
    "LAY006",
    Severity.NOTE,
    advice="call the module, `module(x)` instead of `module.forward(x)`",
    bad="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                return self.extra(self.body.forward(x))

        model = Net()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.body, self.extra = nn.Linear(8, 8), nn.Linear(8, 8)

            def forward(self, x):
                return self.extra(self.body(x))

        model = Net()
        inputs = ["x=batch,8"]
    """,
)
def bypassed_hooks(result: Layers) -> Iterator[Hit]:
    """`module.forward(x)` was called instead of `module(x)`.

    The output is the same, but no hooks run: quantization, pruning, profilers, activation
    capture, FSDP and hook-based summary tools do not see the module. The figures of this report
    include it.
    """
    rows = [row for row in result.layers if row.executed_via == "forward"]
    for row in rows:
        yield Hit(row.path, f"{row.type} was called by .forward(), which runs no hooks")


@rule(
    "LAY007",
    Severity.WARNING,
    advice="convert them with `model.float()`, or ignore this finding with a reason",
    bad="""
        model = nn.Linear(8, 8).double()
        inputs = ["x=batch,8:float64"]
    """,
    good="""
        model = nn.Linear(8, 8)
        inputs = ["x=batch,8"]
    """,
)
def double_precision(result: Layers) -> Iterator[Hit]:
    """Parameters are float64 or complex128.

    They usually come from NumPy arrays by accident, take twice the memory, are up to 64 times
    slower on a consumer GPU, and most deployment runtimes reject or cast them.
    """
    rows = [
        row
        for row in result.layers
        if row.shared_with is None and {"float64", "complex128"} & set(row.dtype.split(", "))
    ]
    if rows:
        count = sum(row.own_parameters for row in rows)
        yield Hit(
            rows[0].path if len(rows) == 1 else "",
            f"{format_count(count)} parameters in {_names([row.path for row in rows])} are in "
            "double precision",
        )


@rule(
    "LAY008",
    Severity.NOTE,
    advice="move them to the model's device yourself, and keep their weights where a restored "
    "model finds them",
    bad="""
        class Student(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(8, 8)
                self.teacher = (nn.Linear(8, 8).requires_grad_(False),)

            def forward(self, x):
                return self.body(x), self.teacher[0](x)

        model = Student()
        inputs = ["x=batch,8"]
    """,
    good="""
        class Student(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = nn.Linear(8, 8)
                self.teacher = nn.Linear(8, 8).requires_grad_(False)

            def forward(self, x):
                return self.body(x), self.teacher(x)

        model = Student()
        inputs = ["x=batch,8"]
    """,
)
def hidden_parameters(result: Layers) -> Iterator[Hit]:
    """Parameters seem to be kept out of the model on purpose.

    A frozen teacher or encoder is often hidden in a tuple of one, in a list, or with
    `object.__setattr__`, so that `state_dict` and the optimizer leave it out. `.to()`, `.half()`
    and `.eval()` leave it out too.
    """
    hidden = (item for item in result.unregistered if item.deliberate)
    for item, times in Counter(hidden).items():
        more = f" ({times} such modules)" if times > 1 else ""
        yield Hit(
            item.path,
            f"{format_integer(item.parameters)} parameters of {item.type} are hidden from the "
            f"model: .to() and state_dict() leave them out{more}",
        )


@rule(
    "LAY009",
    Severity.ERROR,
    advice="run the model with the manifest's inputs by hand to see the full traceback",
    bad="""
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(8, 4))
        inputs = ["x=batch,8"]
    """,
    good="""
        model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        inputs = ["x=batch,8"]
    """,
)
def failing_forward(result: Layers) -> Iterator[Hit]:
    """The forward pass fails with the inputs of the manifest.

    The table shows the layers that ran before, with their shapes. MACs and FLOPs are unknown.
    """
    if result.failure is not None:
        failure = result.failure
        yield Hit(failure.module, f"the forward pass fails: {failure.message}; {failure.hint}")


STRUCTURE_RULES = (
    dominant_layer,
    unused_parameters,
    unregistered_parameters,
    uncounted_operators,
    train_only_parameters,
    bypassed_hooks,
    double_precision,
    hidden_parameters,
    failing_forward,
)


def _by_module(result: Layers, names: list[str], what: str) -> Iterator[Hit]:
    """One hit for each topmost module all of whose parameters are among `names`, else by owner."""
    rest = set(names)
    if not rest:
        return
    owned: dict[str, list[str]] = {}
    for name in names:
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    whole: list[Layer] = []
    for row in result.layers:
        if any(_below(row.path, above.path) for above in whole) or row.shared_with is not None:
            continue
        mine = [name for name in names if _below(name, row.path)]
        all_unused = row.unused_parameters == row.parameters
        unused = {name for name in result.unused_parameters if _below(name, row.path)}
        if mine and all_unused and unused <= set(mine):
            whole.append(row)
            yield Hit(row.path, f"all {format_integer(row.parameters)} parameters {what}")
        elif row.path in owned:
            yield Hit(row.path, f"{_names(owned[row.path])} {what}")


def _below(path: str, ancestor: str) -> bool:
    return not ancestor or path.startswith(f"{ancestor}.")


def _names(names: list[str]) -> str:
    shown = [name or "the model itself" for name in names[:_SHOWN_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
