"""One parity case: its inputs, a call of PyTorch, a run of the file, and both repeated."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.example_inputs import Examples, make_examples
from reportgen.onnx.export import export_onnx
from reportgen.onnx.export.arguments import bind_arguments, output_name
from reportgen.onnx.export.capture import capture, export_mode
from reportgen.onnx.runtime import Runtime
from reportgen.pytree import named_tensors
from reportgen.sections.onnx.parity.compare import is_beyond, tolerances
from reportgen.sections.onnx.parity.state import State, same_values
from reportgen.sections.onnx.parity_result import SecondCall

if TYPE_CHECKING:
    from torch import Tensor, nn

    from reportgen.context import ModelContext
    from reportgen.example_inputs import Examples
    from reportgen.manifest import ModelSpec
    from reportgen.onnx.export import OnnxFile
    from reportgen.onnx.export.strategy import Strategy


_LARGEST_SECOND_BATCH = 4
_SECOND_BATCH = 3
_SEEDS = 3
_HEAVY_BYTES = 40_000_000  # of weights: from here on the second size is tried with one seed


@dataclass(frozen=True, kw_only=True, slots=True)
class CasePlan:
    """The inputs of one case; `dims` are sizes that differ from the manifest's."""

    batch: int
    seed: int
    dims: dict[str, int] = field(default_factory=dict)

    def examples(self, spec: ModelSpec) -> Examples:
        """The inputs themselves."""
        if self.dims:
            spec = spec.model_copy(update={"dims": {**spec.dims, **self.dims}})
        return make_examples(spec, self.batch, self.seed)


def one_larger(plan: CasePlan, spec: ModelSpec) -> list[CasePlan]:
    """The plan with its dims one above the manifest's sizes; [] if they are not below them."""
    if not plan.dims or any(size >= spec.dims[dim] for dim, size in plan.dims.items()):
        return []
    return [replace(plan, dims={dim: spec.dims[dim] + 1 for dim in plan.dims})]


def make_plans(spec: ModelSpec, file: OnnxFile, model: nn.Module) -> list[CasePlan]:
    """Two batch sizes and three seeds, and one case with the other dynamic dims one smaller.

    One size is 1, the other is the manifest's, or 3 if that is large or 1 itself. A file with a
    fixed batch is compared at that size. A model with more than 40 MB of weights is run at the
    second size with the first seed only.
    """
    seeds = tuple((spec.seed + step) % 2**32 for step in range(_SEEDS))
    if file.batch is not None:
        batches: tuple[int, ...] = (file.batch,)
    else:
        usable = 1 < spec.batch <= _LARGEST_SECOND_BATCH
        # 1, since a forgotten batch dimension shows there: squeeze(), or broadcasting
        batches = (1, spec.batch if usable else _SECOND_BATCH)
    heavy = sum(tensor.nbytes for tensor in model.parameters()) > _HEAVY_BYTES
    plans = [
        CasePlan(batch=batch, seed=seed)
        for batch in batches
        for seed in (seeds[:1] if heavy and batch != batches[0] else seeds)
    ]
    # smaller, since the manifest's size may be the largest that position embeddings allow
    smaller = {
        dim: spec.dims[dim] - 1 for dim in file.dynamic if dim != "batch" and spec.dims[dim] > 1
    }
    if smaller:
        plans.append(CasePlan(batch=batches[-1], seed=seeds[0], dims=smaller))
    return plans


def describe_plans(plans: list[CasePlan]) -> str:
    """The plans in words: `seeds 0, 1 and 2 at batch 1 and 3`."""
    seeds: dict[tuple[int, tuple[tuple[str, int], ...]], list[int]] = {}
    for plan in plans:
        seeds.setdefault((plan.batch, tuple(plan.dims.items())), []).append(plan.seed)
    sizes: dict[tuple[int, ...], list[str]] = {}
    for (batch, dims), listed in seeds.items():
        size = "".join(f", {dim} {length}" for dim, length in dims)
        sizes.setdefault(tuple(listed), []).append(f"batch {batch}{size}")
    return "; ".join(
        f"{'seeds' if len(listed) > 1 else 'seed'} {_and(map(str, listed))} at {_and(places)}"
        for listed, places in sizes.items()
    )


def _and(parts: Iterable[str]) -> str:
    words = list(parts)
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def seeds_change_inputs(spec: ModelSpec) -> bool:
    """Whether another seed changes the inputs; arrays loaded from files do not change."""
    first, other = (make_examples(spec, 1, seed).tensors() for seed in (spec.seed, spec.seed + 1))
    return not first or any(not tensor.equal(other[name]) for name, tensor in first.items())


@dataclass(kw_only=True, slots=True)
class CaseRun:
    """One case: PyTorch's outputs, the file's outputs, and whether PyTorch drew random numbers.

    Attributes:
        computed: the dtype that the model computes in.
    """

    context: ModelContext
    plan: CasePlan
    runtime: Runtime
    state: State
    reference: dict[str, Tensor] = field(default_factory=dict)
    found: list[Tensor] = field(default_factory=list)
    drew: bool = False
    computed: str = ""

    def examples(self) -> Examples:
        """New inputs for each call, since a model may write into its inputs."""
        return self.plan.examples(self.context.spec)

    def call(self) -> Any:
        """PyTorch's output."""
        import torch

        # operators that draw from torch's default generator move it
        before = torch.random.get_rng_state()
        output = self.examples().call(self.context.model)
        self.drew = not torch.equal(before, torch.random.get_rng_state())
        return output

    def named(self, output: Any) -> dict[str, Tensor]:
        """PyTorch's output by name: its tensors, and the sizes that are outputs of the file."""
        return named_outputs(output, self.runtime.output_names())

    def run(self) -> list[Tensor]:
        """The file's outputs."""
        import torch

        feed = self.runtime.feed(call_tensors(self.context, self.examples()))
        return [torch.from_numpy(array) for array in self.runtime.run(feed)]

    def call_both(self) -> None:
        """Run PyTorch and the file, with the model's state from before the first call."""
        self.state.restore()
        self.reference = copies(self.named(self.call()))
        self.found = self.run()

    def call_restored(self) -> None:
        """Call PyTorch again with the model's original state."""
        self.state.restore()
        self.examples().call(self.context.model)

    def call_and_restore(self) -> None:
        """Call PyTorch again with its original state, and restore that afterwards."""
        self.call_restored()
        self.state.restore()


def call_tensors(context: ModelContext, examples: Examples) -> dict[str, Tensor]:
    """The tensors of a call under the names and in the order of the exported file's inputs."""
    return bind_arguments(
        context.model, context.spec.inputs, examples.args, examples.kwargs, ()
    ).tensors()


def named_outputs(output: Any, of_file: Collection[str] = ()) -> dict[str, Tensor]:
    """Every tensor that a model returned, by its name in the file.

    Numbers are included as tensors if they are outputs of the file, by the names in `of_file`:
    these are sizes that the exporter could trace.
    """
    tensors = _by_name(output)
    if not set(of_file) - set(tensors):
        return tensors
    from torch.utils._pytree import tree_map

    every = _by_name(tree_map(_as_tensor, output))
    return {name: every[name] for name in every if name in tensors or name in of_file}


def _by_name(output: Any) -> dict[str, Tensor]:
    return {output_name(key): tensor for key, tensor in named_tensors(output).items()}


def _as_tensor(leaf: Any) -> Any:
    import torch

    return torch.tensor(leaf) if isinstance(leaf, bool | int | float) else leaf


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A copy of each tensor."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def call_again(case_run: CaseRun) -> SecondCall | None:
    """Call PyTorch and the file a second time on the same inputs; None if one of them fails."""
    # outputs may alias buffers that the second call changes
    first = case_run.reference = copies(case_run.reference)
    after_first, inner = case_run.state.changes(), State(case_run.context.model)
    try:
        second = case_run.named(case_run.examples().call(case_run.context.model))
        again = case_run.run() if case_run.found else []
    except Exception:  # a model that fails only in its second call
        return None
    after_second = inner.changes()
    repeats = _agree(case_run, first, second)
    # a call that draws random numbers never gives the same as in a fresh model
    may_depend = repeats and bool(after_first) and not case_run.drew
    independent = _calls_are_independent(case_run) if may_depend else None
    # what only the first call changed is a memo if no output depends on it: a table filled once
    is_memo = repeats and independent is not False
    return SecondCall(
        pytorch_repeats=repeats,
        file_repeats=all(map(same_values, case_run.found, again)),
        state=after_second or (() if is_memo else after_first),
        calls_are_independent=independent,
    )


def _agree(case_run: CaseRun, first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    tolerance = case_run.context.spec.onnx.tolerance
    return first.keys() == second.keys() and not any(
        is_beyond(tensor, second[name], *tolerances(tensor, tolerance, case_run.computed))
        for name, tensor in first.items()
    )


def _calls_are_independent(case_run: CaseRun) -> bool | None:
    """Whether a sequence of calls on other inputs returns what fresh models return.

    The same inputs twice do not show that: a cache that is written at a position, which is an
    input, gets the same values again. None if a call fails.
    """
    plan = case_run.plan
    seeds = ((plan.seed + step) % 2**32 for step in range(1, _SEEDS + 1))
    others = [replace(case_run, plan=replace(plan, seed=seed)) for seed in seeds]
    try:
        fresh = []
        for other in others:
            other.state.restore()
            fresh.append(copies(other.named(other.call())))
        # twice in a row, so that each call follows one with a later position
        pairs = zip([*others, *others], [*fresh, *fresh], strict=True)
        return all(_agree(other, alone, other.named(other.call())) for other, alone in pairs)
    except Exception:  # the model's own code: any class
        return None
    finally:
        case_run.state.restore()


def retraced_output(case_run: CaseRun, traced: Strategy, name: str) -> Tensor | None:
    """An output of the file that has this case's inputs as its example; None if that fails."""
    import torch

    plan, context = case_run.plan, case_run.context
    sizes = {**context.spec.dims, **plan.dims}
    spec = context.spec.model_copy(update={"seed": plan.seed, "dims": sizes})
    case_run.state.restore()
    try:
        with tempfile.TemporaryDirectory(prefix=".retraced-", dir=context.folder) as folder:
            start = replace(traced, batch=plan.batch)
            file = export_onnx(context.model, spec, Path(folder), start=start)
            runtime = Runtime(file.path)
            values = runtime.run(runtime.feed(call_tensors(context, case_run.examples())))
        place = list(case_run.reference).index(name)
        return torch.from_numpy(values[place])
    except Exception:  # the search for a cause must not fail the comparison
        return None
    finally:
        case_run.state.restore()


def captured_output(case_run: CaseRun, name: str) -> Tensor | None:
    """An output of the program that torch.export captures from this call, without ONNX.

    None if the model draws random numbers or cannot be captured at these sizes.
    """
    if case_run.drew:
        return None
    context, examples = case_run.context, case_run.examples()
    case_run.state.restore()
    try:
        arguments = bind_arguments(
            context.model, context.spec.inputs, examples.args, examples.kwargs, ()
        )
        with export_mode():
            program = capture(context.model, arguments, strict=False).module()
            output = program(*arguments.args, **arguments.kwargs)
        return copies(named_outputs(output, [name])).get(name)
    except Exception:  # torch.export may fail here: the file was exported with another strategy
        return None
    finally:
        case_run.state.restore()
