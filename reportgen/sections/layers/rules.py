"""What we say of a model's layers: documented, pure functions of the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.layers.result import Layer, Layers
from reportgen.units import format_bytes, format_count, format_integer, format_share

_SUBSTANTIAL_SHARE = 0.01  # of all bytes that operators move
_MOST_NAMES = 5


@rule(
    "SUM001",
    Severity.NOTE,
    advice="ask whether this layer must be so large: pooling before it, a smaller head or "
    "low-rank factors save most of the model's bytes",
)
def one_layer_holding_most_parameters(result: Layers) -> Iterator[Hit]:
    """More than half of all parameters stand in one layer.

    A wide first head after a flattened feature map, or an embedding of a large vocabulary, often
    decides the size of the file and the memory of the optimizer while the rest of the model does
    the work. Nothing is wrong with it; a reviewer should know it. Layers tied to one tensor are
    named once, by the first of them. Models of fewer than three layers with parameters are left
    alone: one of two layers always holds at least half.
    """
    owners = [row for row in result.layers if row.own_parameters and row.repeats is None]
    if len(owners) < 3:
        return
    for row in owners:
        ties = _tied_with(result, row.path)
        if 2 * row.own_parameters > result.parameters and row.path == ties[0]:
            share = format_share(row.own_parameters, result.parameters)
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
    """The layers that share a tensor with the one at `path`, itself among them, in their order."""
    owners = [[name.rpartition(".")[0] for name in names] for names in result.tied]
    groups = [group for group in owners if path in group]
    return list(dict.fromkeys(owner for group in groups for owner in group)) or [path]


@rule(
    "SUM002",
    Severity.WARNING,
    advice="use them, delete them, or say why they are kept: they are saved, loaded, moved and "
    "given optimizer state for nothing",
)
def parameters_that_never_ran(result: Layers) -> Iterator[Hit]:
    """A forward pass reaches none of the operators that would read these parameters.

    Left-over layers, a branch that the example inputs do not take, or a forgotten call. They
    cost memory in every checkpoint and every optimizer, and distributed training stops at them.
    Judged on one forward pass in evaluation mode with the manifest's inputs; parameters that do
    run in training mode (auxiliary heads) are a note of their own.
    """
    excused = set(result.training_only)
    idle = [name for name in result.never_ran if name not in excused]
    yield from _by_module(result, idle, "never ran in the forward pass")


@rule(
    "SUM003",
    Severity.ERROR,
    advice="hold modules in nn.ModuleList or nn.ModuleDict and parameters in nn.ParameterList, "
    "or assign them as attributes of the module",
)
def unregistered_parameters(result: Layers) -> Iterator[Hit]:
    """Modules or parameters in a plain Python list, dict or object, or outside the model.

    torch knows only what is registered. Parameters in a plain list take part in the forward pass
    and are not in `state_dict`, not moved by `.to()`, not switched by `.eval()` and not trained
    by an optimizer that is given `model.parameters()`: the model is saved without them and
    starts anew with random ones.
    """
    for item, times in Counter(result.unregistered).items():
        more = f" ({times} such modules)" if times > 1 else ""
        yield Hit(
            item.path,
            f"{format_integer(item.parameters)} parameters of {item.type} are not registered: "
            f"not saved, not moved, not trained{more}",
        )


@rule(
    "SUM004",
    Severity.NOTE,
    advice="register a formula where the model is made: reportgen.register_flops(operator, "
    "formula), or torch.utils.flop_counter.register_flop_formula",
)
def operators_without_a_flop_formula(result: Layers) -> Iterator[Hit]:
    """Operators ran whose cost nobody has written down; the FLOPs are a lower bound.

    Torch's counter has formulas for matrix products, convolutions and attention; we add a few.
    Elementwise arithmetic, reductions, normalization, pooling, look-ups and copies are free by
    convention. What remains, mostly custom operators, is named here when it moves at least one
    per cent of the bytes that all operators move.
    """
    moved = sum(item.bytes for item in result.uncounted)
    if not moved or moved < _SUBSTANTIAL_SHARE * result.operator_bytes:
        return
    for item in result.uncounted:
        times = "once" if item.calls == 1 else f"{format_integer(item.calls)} times"
        yield Hit(
            item.where,
            f"{item.operator} ran {times}, moved {format_bytes(item.bytes)} and is in no count",
        )


@rule(
    "SUM005",
    Severity.NOTE,
    advice="leave them out of the deployed file, or build the model without them for inference",
)
def parameters_that_run_only_in_training(result: Layers) -> Iterator[Hit]:
    """Parameters that training reads and inference does not, such as auxiliary heads.

    They belong in the checkpoint and not in what is deployed.
    """
    yield from _by_module(result, list(result.training_only), "run in training mode only")


@rule(
    "SUM006",
    Severity.NOTE,
    advice="call the module itself, `module(x)` instead of `module.forward(x)`",
)
def modules_called_past_their_hooks(result: Layers) -> Iterator[Hit]:
    """`module.forward(x)` was called instead of `module(x)`.

    It gives the same output and runs no hooks: quantization, pruning, profilers, activation
    capture, FSDP and every summary tool that works with hooks do not see the module. Our own
    figures include it.
    """
    rows = [row for row in result.layers if row.reached == "forward"]
    for row in rows:
        yield Hit(row.path, f"{row.type} was run through .forward(), past its hooks")


@rule(
    "SUM007",
    Severity.WARNING,
    advice="convert them with `model.float()`, or say why double precision is needed",
)
def parameters_in_double_precision(result: Layers) -> Iterator[Hit]:
    """Parameters are float64 or complex128.

    They usually come from NumPy by accident, take twice the memory, run up to 64 times slower on
    a consumer GPU and are refused or cast by most deployment runtimes.
    """
    rows = [
        row
        for row in result.layers
        if row.repeats is None and {"float64", "complex128"} & set(row.dtype.split(", "))
    ]
    if rows:
        count = sum(row.own_parameters for row in rows)
        yield Hit(
            rows[0].path if len(rows) == 1 else "",
            f"{format_count(count)} parameters in {_names([row.path for row in rows])} are in "
            "double precision",
        )


RULES = (
    one_layer_holding_most_parameters,
    parameters_that_never_ran,
    unregistered_parameters,
    operators_without_a_flop_formula,
    parameters_that_run_only_in_training,
    modules_called_past_their_hooks,
    parameters_in_double_precision,
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
        if any(_below(row.path, above.path) for above in whole) or row.repeats is not None:
            continue
        mine = [name for name in names if _below(name, row.path)]
        if mine and row.never_ran_parameters == row.parameters and set(mine) >= _idle(result, row):
            whole.append(row)
            yield Hit(row.path, f"all {format_integer(row.parameters)} parameters {what}")
        elif row.path in owned:
            yield Hit(row.path, f"{_names(owned[row.path])} {what}")


def _idle(result: Layers, row: Layer) -> set[str]:
    return {name for name in result.never_ran if _below(name, row.path)}


def _below(path: str, ancestor: str) -> bool:
    return not ancestor or path.startswith(f"{ancestor}.")


def _names(names: list[str]) -> str:
    shown = [name or "the model itself" for name in names[:_MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
