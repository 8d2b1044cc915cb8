"""The two sides of a case: one call of PyTorch, one run of the file, and both once more."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reportgen.onnx.export.arguments import bind_arguments, output_name
from reportgen.onnx.runtime import Runtime
from reportgen.pytree import named_tensors
from reportgen.sections.onnx.parity.compare import is_beyond, tolerances
from reportgen.sections.onnx.parity.plans import Plan
from reportgen.sections.onnx.parity.state import State
from reportgen.sections.onnx.result import SecondCall

if TYPE_CHECKING:
    from torch import Tensor

    from reportgen.context import ModelContext
    from reportgen.example_inputs import Examples


@dataclass(kw_only=True, slots=True)
class Sides:
    """Both sides of one case: what each gave, and whether PyTorch drew random numbers.

    Attributes:
        computed: the dtype that the model computes in.
    """

    context: ModelContext
    plan: Plan
    runtime: Runtime
    state: State
    reference: dict[str, Tensor] = field(default_factory=dict)
    found: list[Tensor] = field(default_factory=list)
    drew: bool = False
    computed: str = ""

    def examples(self) -> Examples:
        """The inputs anew, since a model may write into those that it gets."""
        return self.plan.examples(self.context.spec)

    def call(self) -> Any:
        """What PyTorch returns."""
        import torch

        before = torch.random.get_rng_state()
        output = self.examples().call(self.context.model)
        self.drew = not torch.equal(before, torch.random.get_rng_state())
        return output

    def named(self, output: Any) -> dict[str, Tensor]:
        """What PyTorch returned, by name: its tensors, and the sizes that the file gives too."""
        return named_outputs(output, self.runtime.output_names())

    def run(self) -> list[Tensor]:
        """What the file gives."""
        import torch

        feed = self.runtime.feed(call_tensors(self.context, self.examples()))
        return [torch.from_numpy(array) for array in self.runtime.run(feed)]

    def call_both(self) -> None:
        """Run both sides, with the model as it was before the first call."""
        self.state.restore()
        self.reference = copies(self.named(self.call()))
        self.found = self.run()

    def call_afresh(self) -> None:
        """Run PyTorch once more, with the model as it was before the first call."""
        self.state.restore()
        self.examples().call(self.context.model)

    def call_and_forget(self) -> None:
        """The same, and what the call changed in the model is put back."""
        self.call_afresh()
        self.state.restore()


def call_tensors(context: ModelContext, examples: Examples) -> dict[str, Tensor]:
    """The tensors of a call under the names and in the order of the exported file's inputs."""
    return bind_arguments(
        context.model, context.spec.inputs, examples.args, examples.kwargs, ()
    ).tensors()


def named_outputs(output: Any, of_file: Collection[str] = ()) -> dict[str, Tensor]:
    """Every tensor that a model returned, by the name it has in the file.

    Numbers are among them, as tensors, where `of_file`, the names of the file's outputs, has
    them: sizes that the exporter could trace. Other numbers are not in the file.
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
    """The same tensors, each a copy."""
    return {name: tensor.clone() for name, tensor in tensors.items()}


def call_again(sides: Sides) -> SecondCall | None:
    """A second call of both sides on the same inputs, right after the first.

    None if one of them fails, or the first comparison did.
    """
    first = sides.reference = copies(sides.reference)
    after_first, inner = sides.state.changes(), State(sides.context.model)
    try:
        second = sides.named(sides.examples().call(sides.context.model))
        again = sides.run() if sides.found else []
    except Exception:
        return None
    tolerance = sides.context.spec.onnx.tolerance
    repeats = first.keys() == second.keys() and not any(
        is_beyond(tensor, second[name], *tolerances(tensor, tolerance, sides.computed))
        for name, tensor in first.items()
    )
    return SecondCall(
        pytorch_repeats=repeats,
        file_repeats=all(map(_same, sides.found, again)),
        state=inner.changes() or (() if repeats else after_first),
    )


def _same(a: Tensor, b: Tensor) -> bool:
    """Equality in which NaN equals itself."""
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
