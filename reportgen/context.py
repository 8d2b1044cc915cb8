"""The model or file under analysis, its example inputs, and what is computed once for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.example_inputs import Examples, make_examples, make_feed, text_array
from reportgen.manifest import ModelSpec, Target, TrainingSetup
from reportgen.onnx.export import OnnxFile, export_onnx
from reportgen.sources import is_weightless
from reportgen.sources.from_onnx import FileInputs
from reportgen.training_logs.log_set import LogSet

if TYPE_CHECKING:
    from torch import nn

    from reportgen.torchinfo_summary import TorchinfoSummary


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Context:
    """What a model and an ONNX file have in common.

    Attributes:
        spec: the manifest's entry for this model; every path in it is absolute.
        targets: the GPUs to fit.
        folder: where a section may write files that belong to this model's report.
        timings: whether to measure durations.
        source_notes: how the model was loaded, one sentence each.
        wait_for_quiet: returns when no other section of the model runs; called before durations
            are measured.
    """

    spec: ModelSpec
    targets: tuple[Target, ...]
    folder: Path
    timings: bool = True
    source_notes: tuple[str, ...] = ()
    wait_for_quiet: Callable[[], object] = lambda: None
    _once: dict[str, Any] = field(default_factory=dict, repr=False)  # results, or their errors

    @property
    def name(self) -> str:
        """The model's name in the manifest."""
        return self.spec.name

    @property
    def training(self) -> TrainingSetup:
        """Optimizers, precisions and checkpointing to estimate."""
        return self.spec.training

    @property
    def batch(self) -> int:
        """The manifest's batch size."""
        return self.spec.batch

    def logs(self) -> LogSet:
        """The training logs that the manifest names; `update` reads what was appended."""
        logs: LogSet = self._compute_once("logs", partial(LogSet, places=self.spec.logs))
        return logs

    def write(self, file: str, text: str) -> str:
        """Write `text` as UTF-8 to `file` below `folder`; returns `file` for the result."""
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        # no "\r\n" on Windows: the same report has the same bytes everywhere
        path.write_text(text, encoding="utf-8", newline="\n")
        return file

    def onnx_proto(self, path: Path) -> Any:
        """The `onnx.ModelProto` at `path` without external data, parsed once for all sections."""
        import onnx

        return self._compute_once(
            f"proto {path}", partial(onnx.load, path, load_external_data=False)
        )

    def _compute_once(self, key: str, compute: Callable[[], Any]) -> Any:
        if key not in self._once:
            try:
                self._once[key] = compute()
            except Exception as error:  # stored, so that later sections get the same error at once
                self._once[key] = error
        if isinstance(self._once[key], Exception):
            raise self._once[key]
        return self._once[key]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModelContext(Context):
    """One model, and everything that several sections need from it, computed once.

    Attributes:
        model: the module itself, on the CPU, in eval mode; `preserve_model_state` restores it.
        loss_function: the loss of a training step if its kind in `spec` is `object`.
        export: writes the ONNX file of a model below a folder, as `export_onnx` does.
    """

    model: nn.Module
    loss_function: Callable[[Any], Any] | None = None
    export: Callable[[nn.Module, ModelSpec, Path], OnnxFile] = export_onnx

    def examples(self, batch: int | None = None, *, seed: int | None = None) -> Examples:
        """Example inputs for `batch` samples; the same seed gives the same values."""
        return make_examples(
            self.spec,
            self.batch if batch is None else batch,
            self.spec.seed if seed is None else seed,
            device="meta" if is_weightless(self.model) else "cpu",
        )

    def arguments(self, batch: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The positional and the keyword arguments of one call on `batch` samples."""
        examples = self.examples(batch)
        return examples.args, examples.kwargs

    def torchinfo(self) -> TorchinfoSummary:
        """Torchinfo's summary of a fake copy at `batch`; only `error` if there is none."""
        from reportgen.torchinfo_summary import summarize_fake_copy  # loads torch

        make = partial(self.arguments, self.batch)
        found: TorchinfoSummary = self._compute_once(
            "torchinfo", partial(summarize_fake_copy, self.model, make)
        )
        return found

    def onnx_file(self) -> OnnxFile:
        """The model as an ONNX file in `folder`, exported once for all sections.

        Raises:
            SectionError: the model cannot be exported, with the reason in words.
        """
        file: OnnxFile = self._compute_once(
            "onnx", partial(self.export, self.model, self.spec, self.folder)
        )
        return file


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class OnnxFileContext(Context):
    """One ONNX file without a PyTorch module.

    Attributes:
        file: the user's own file: read, never written or moved.
        inputs: its inputs.
    """

    file: OnnxFile
    inputs: FileInputs

    @property
    def why_not_runnable(self) -> str:
        """Why the file cannot be run; "" if it can."""
        if self.inputs.unsupported:
            return f"no values can be made for its inputs {', '.join(self.inputs.unsupported)}"
        if any(item.dtype == "bfloat16" for item in self.spec.inputs):
            return "onnxruntime's interface takes no bfloat16 arrays"
        return ""

    def feed(self, batch: int | None = None, *, seed: int | None = None) -> dict[str, Any]:
        """Arrays for one run, by input name; the same seed gives the same values.

        Raises:
            ModelError: the manifest's inputs are not as many as the file's.
        """
        batch = self.batch if batch is None else batch
        examples = make_examples(self.spec, batch, self.spec.seed if seed is None else seed)
        sizes = {**self.spec.dims, "batch": batch}
        texts = {
            name: text_array([sizes.get(dim, 1) if isinstance(dim, str) else dim for dim in shape])
            for name, shape in self.inputs.strings.items()
        }
        return make_feed(examples, self.inputs.names) | texts
