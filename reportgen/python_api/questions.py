"""One function for each question: the layers, a drawing, the memory, the ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from reportgen.errors import ReportgenError, SectionError
from reportgen.python_api.analyze import analyze
from reportgen.python_api.inputs import Inputs
from reportgen.python_api.model_object import Loss, as_names, context_of, require_function_of_output
from reportgen.sections import onnx
from reportgen.sections.graphs.analysis import GRAPH_KINDS, draw_graph
from reportgen.sections.layers import Layers, analyze_forward
from reportgen.sections.memory.estimation import Answer, estimate_model, make_step
from reportgen.sections.onnx import OnnxResult

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True, repr=False)
class ModelSummary:
    """The layers of a model; `str` gives the table.

    Attributes:
        layers: shapes, parameters and MACs of every module, as plain values.
        depth: of the deepest rows of the table; None for all.
    """

    layers: Layers
    depth: int | None = None

    @property
    def parameters(self) -> int:
        """Distinct parameters, shared ones counted once."""
        return self.layers.parameters

    @property
    def macs(self) -> int:
        """Multiply-adds of one forward pass of the whole batch."""
        return self.layers.macs

    def __str__(self) -> str:
        from reportgen.sections.layers.tables import layer_table

        return layer_table(self.layers, depth=self.depth)

    __repr__ = __str__


def summary(
    model: nn.Module,
    input_size: Inputs = None,
    *,
    input_data: Inputs = None,
    batch: int | None = None,
    depth: int | None = None,
    verbose: bool = True,
) -> ModelSummary:
    """Print the table of layers: shapes, parameters and MACs, counted with fake tensors.

    Args:
        model: any module; it is not run for real unless its control flow depends on values.
        input_size: a shape with its batch, `(1, 3, 224, 224)`, several of them, or anything else
            that `analyze` takes as inputs.
        input_data: the same as `input_size`, by torchinfo's name for tensors.
        batch: batch size; None for that of the inputs.
        depth: of the deepest rows; None for all.
        verbose: whether to print; the result has the same text.

    Raises:
        ReportgenError: an argument is not valid, or a lazy layer has no shape.

    >>> import reportgen, torch
    >>> found = reportgen.summary(torch.nn.Linear(4, 2), (8, 4), verbose=False)
    >>> found.parameters, found.macs
    (10, 64)
    """
    inputs = input_data if input_size is None else input_size
    with context_of(model, inputs, batch=batch) as context, _section_error_raised():
        found = ModelSummary(analyze_forward(context), depth)
    if verbose:
        sys.stdout.write(f"{found}\n")
    return found


@dataclass(frozen=True, slots=True)
class GraphDrawing:
    """A drawn graph; a notebook shows it.

    Attributes:
        svg: self-contained, with colors for light and dark pages.
        width: in points.
        height: in points.
    """

    svg: str
    width: float
    height: float

    def save(self, file: str | Path) -> Path:
        """Write the SVG to `file`.

        Raises:
            ReportgenError: the name does not end in .svg.
        """
        path = Path(file)
        if path.suffix != ".svg":
            raise ReportgenError(f"{path.name}: only SVG is written", hint="use a name in .svg")
        path.write_text(self.svg, encoding="utf-8")
        return path

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return (
            f"<graph of {self.width:.0f} × {self.height:.0f} points; save('graph.svg') writes it>"
        )


def draw(
    model: nn.Module,
    inputs: Inputs = None,
    *,
    kind: Literal["modules", "autograd", "onnx"] = "modules",
    batch: int | None = None,
) -> GraphDrawing:
    """Draw the data flow between modules, the backward pass, or the exported ONNX file.

    Graphs of more than 60 boxes are collapsed to a readable size. Graphviz is required.

    Args:
        model: any module; it runs once for real, on the CPU.
        inputs: as for `analyze`.
        kind: which graph.
        batch: batch size; None for that of `inputs`.

    Raises:
        ReportgenError: an argument is not valid, forward fails, or Graphviz is missing.

    >>> import reportgen, torch
    >>> "Linear" in reportgen.draw(torch.nn.Sequential(torch.nn.Linear(4, 2)), (8, 4)).svg
    True
    """
    if kind not in GRAPH_KINDS:
        raise ReportgenError(
            f"unknown kind {kind!r} of a graph", hint=f"use one of {', '.join(GRAPH_KINDS)}"
        )
    with context_of(model, inputs, batch=batch) as context, _section_error_raised():
        drawn = draw_graph(context, kind)
    return GraphDrawing(svg=drawn.svg, width=drawn.width, height=drawn.height)


def estimate_memory(
    model: nn.Module,
    inputs: Inputs = None,
    *,
    gpu: str | Sequence[str] = "T4",
    batch: int | None = None,
    mode: Literal["train", "inference"] = "train",
    precision: str = "fp32",
    optimizer: str = "adamw",
    checkpointing: bool = False,
    loss: Loss = "sum",
    accumulation: int = 1,
    zero_grad: Literal["free", "keep"] = "free",
    prefetch: int = 1,
    ddp: bool = False,
    ema: bool = False,
    clip: float | None = None,
    channels_last: bool = False,
) -> Answer:
    """Estimate the peak GPU memory of one step, and whether it fits; no GPU required.

    Args:
        model: any module; it is traced with fake tensors.
        inputs: as for `analyze`.
        gpu: one name, or several, of `reportgen gpus`.
        batch: batch size; None for that of `inputs`.
        mode: a training step or a forward pass.
        precision: fp32, tf32, amp-bf16, amp-fp16, bf16 or fp16.
        optimizer: as `reportgen estimate --help` lists them.
        checkpointing: whether activations are recomputed in the backward pass.
        loss: sum, mean, cross_entropy, or a function that takes the output of the model and
            returns a scalar tensor.
        accumulation: micro-batches, each of the batch size, before one optimizer step.
        zero_grad: keep for `zero_grad(set_to_none=False)`.
        prefetch: batches of inputs on the GPU at once.
        ddp: whether there are gradient buckets of DistributedDataParallel.
        ema: whether an averaged copy of the model is on the GPU.
        clip: the maximum norm of gradient clipping; None for no clipping.
        channels_last: whether model and inputs are in that memory format.

    Returns:
        Bytes in `estimate`, safe and likely batch sizes in `gpus`; `str` gives it as text.

    Raises:
        ReportgenError: an argument is not valid, or the step cannot be traced.

    >>> import reportgen, torch
    >>> answer = reportgen.estimate_memory(torch.nn.Linear(4, 2), (8, 4), gpu="T4")
    >>> answer.fits_everywhere, answer.estimate.at_peak["parameter"]
    (True, 1024)
    """
    if callable(loss):
        require_function_of_output(loss)
    step = make_step(
        mode=mode,
        precision=precision,
        optimizer=optimizer,
        checkpointing=checkpointing,
        loss=loss,
        accumulation=accumulation,
        zero_grad=zero_grad,
        prefetch=prefetch,
        ddp=ddp,
        ema=ema,
        clip=clip,
        channels_last=channels_last,
    )
    with context_of(model, inputs, batch=batch) as context:
        return estimate_model(context, step, as_names(gpu))


@dataclass(frozen=True, slots=True, repr=False)
class OnnxCheck:
    """Whether a model can be exported to ONNX, and whether the file computes the same.

    Attributes:
        passed: it was exported and every comparison is within the tolerance.
        error: why it was not exported, and what to do; "" if it was.
        result: the file, the export and each comparison; None if it was not exported.
    """

    passed: bool
    error: str = ""
    result: OnnxResult | None = None

    @property
    def max_absolute_error(self) -> float | None:
        """The largest difference of any output of any comparison; None without one."""
        cases = self.result.parity.cases if self.result else ()
        return max((c.max_absolute_error for c in cases if c.max_absolute_error is not None),
                   default=None)  # fmt: skip

    def __str__(self) -> str:
        if self.result is None:
            return f"not exported: {self.error}"
        file, parity = self.result.file, self.result.parity
        lines = [f"exported: opset {file.opset}, {file.nodes:,} nodes, {file.bytes:,} bytes"]
        failed = [case for case in parity.cases if not case.passed]
        if not parity.cases:
            lines.append(f"not compared: {parity.not_run}")
        else:
            verdict = "differs from" if failed else "agrees with"
            lines.append(
                f"{verdict} PyTorch in {len(failed) if failed else len(parity.cases)} of "
                f"{len(parity.cases)} comparisons; largest difference {self.max_absolute_error:.2g}"
            )
        return "\n".join(lines)

    __repr__ = __str__


def check_onnx(
    model: nn.Module,
    inputs: Inputs = None,
    *,
    batch: int | None = None,
    opset: int = 20,
    progress: bool | None = None,
) -> OnnxCheck:
    """Export the model to ONNX and compare ONNX Runtime with PyTorch.

    Args:
        model: any module.
        inputs: as for `analyze`.
        batch: batch size; None for that of `inputs`.
        opset: version of the ONNX operators.
        progress: as for `analyze`.

    Raises:
        ReportgenError: an argument is not valid.

    >>> import reportgen, torch
    >>> reportgen.check_onnx(torch.nn.Linear(4, 2), (8, 4)).passed
    True
    """
    name = onnx.SECTION.name
    report = analyze(
        model,
        inputs,
        targets=(),
        sections=(name,),
        batch=batch,
        settings={name: {"opset": opset}},
        timings=False,
        progress=progress,
    )
    try:
        result = report["onnx"]
    except ReportgenError as error:
        return OnnxCheck(False, "\n".join(filter(None, [error.message, error.hint])))
    return OnnxCheck(result.parity.passed is True, result=result)


@contextmanager
def _section_error_raised() -> Iterator[None]:
    """Raise a `SectionError` of the block as a `ReportgenError` with its hint."""
    try:
        yield
    except SectionError as error:
        raise ReportgenError(error.error, hint=error.hint) from error
