"""Complete reports without torch: six models as a real build would describe them, and their files.

The figures of VGG-16, ResNet-50 and ViT-B/16 are counted here from their architectures; memory
figures are plausible, not measured.
"""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from reportgen.comparable import Graph, OperatorNode
from reportgen.findings import Finding, Severity
from reportgen.metrics import Evidence, Metric
from reportgen.onnx.export import ExportAttempt
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.outputs import PageOptions, making_pages, write_report
from reportgen.report import (
    BudgetCheck,
    BudgetLimit,
    BudgetState,
    Count,
    CrossCheck,
    ModelReport,
    Report,
    Timings,
    Verdict,
    report_to_json,
)
from reportgen.sections import SECTIONS
from reportgen.sections.graphs import Drawing, Graphs, Tile
from reportgen.sections.graphs.complete.stored import pack_graph
from reportgen.sections.layers import (
    Experts,
    ForwardBackwardCost,
    Layers,
    LayerTime,
    PassTime,
    Roofline,
    TorchinfoTotals,
    Uncounted,
    Unregistered,
)
from reportgen.sections.memory import (
    BatchCurve,
    Fit,
    LoopOption,
    Memory,
    MemoryEstimate,
    Timeline,
    TimelineSample,
    TopModule,
    WhatIf,
)
from reportgen.sections.onnx import OnnxResult
from reportgen.sections.onnx.parity_result import OutputParity, Parity, ParityCase
from reportgen.sections.onnx.result import ExportResult
from reportgen.viewer.layout import graph_layouts

from . import onnx_file, parity
from .architectures import Node, lstm, resnet50, tanh, transformer, vgg16, vit_b_16
from .behavior import behavior

GIB = 2**30
CARDS = {"T4": 15_079, "RTX 4090": 24_210, "A100-80GB": 81_040, "H200": 143_156}
HOSTILE = (
    "</script><img src=x onerror=alert(1)> {{ 7*7 }} | `a` @octocat \u202egpj.exe 한국어 مرحبا 🤖"
)


def layers(root: Node, *, batch: int, inputs: dict[str, tuple[int, ...]],
           outputs: dict[str, tuple[int, ...]], **other: object) -> Layers:  # fmt: skip
    """The layers section of an architecture."""
    total = root.parameters
    figures: dict[str, object] = {
        "batch": batch,
        "input_shapes": inputs,
        "output_shapes": outputs,
        "parameters": total,
        "trainable_parameters": total,
        "buffers": root.buffers,
        "buffers_bytes": 4 * root.buffers,
        "parameter_bytes": 4 * total,
        "bytes_by_dtype": {"float32": 4 * (total + root.buffers)},
        "macs": root.macs * batch,
        "flops": 2 * root.macs * batch,
        "uncounted": (),
        "layers": tuple(root.walk(batch)),
        "tied": (),
        "unused_parameters": (),
        "torchinfo": TorchinfoTotals(macs=root.macs * batch, activation_bytes=229_404_672),
        "table_file": "layers.csv",
        "summary_file": "summary.txt",
        "parameters_by_path": total,
        "operator_calls": 4 * len(tuple(root.walk(batch))),
        "operator_bytes": 40 * total,
        "ideal_bytes": 5 * total,
        "flops_per_byte": 2 * root.macs * batch / (40 * total),
        "ideal_flops_per_byte": 2 * root.macs * batch / (5 * total),
        "forward_backward": ForwardBackwardCost(
            macs=3 * root.macs * batch,
            flops=6 * root.macs * batch,
            operator_bytes=110 * total,
            note="counted in training mode",
        ),
        "parameters_of_rows": total,
        "macs_of_rows": root.macs * batch,
        "rooflines": _rooflines(root, batch),
    }
    return Layers(**{**figures, **other})  # type: ignore[arg-type]


RATES = {"T4": 8.1e12, "RTX 4090": 82.6e12, "A100-80GB": 19.5e12, "H200": 66.9e12}


def _rooflines(root: Node, batch: int) -> tuple[Roofline, ...]:
    """An estimate for every card, and a card of one's own, whose rates nobody knows."""
    paths = [row.path for row in root.walk(batch) if row.leaf][:6]
    known = tuple(
        Roofline(
            gpu=gpu,
            forward=_pass_time(2 * root.macs * batch / rate, batch),
            forward_backward=_pass_time(6 * root.macs * batch / rate, batch),
            slowest=tuple(
                LayerTime(path=path, seconds=root.macs * batch / rate / place, share=0.5 / place,
                          bound="memory" if place % 2 else "compute")
                for place, path in enumerate(paths, start=1)
            ),
            memory_bound_layers=len(paths) // 2,
            working_layers=len(paths),
        )
        for gpu, rate in RATES.items()
    )  # fmt: skip
    reason = "unknown rates: the GPU is not in the catalog"
    return (*known, Roofline(gpu="lab-card", reason=reason))


def _pass_time(seconds: float, batch: int) -> PassTime:
    return PassTime(seconds=seconds, samples_per_second=batch / seconds, memory_bound_share=0.437,
                    seconds_with_launch_overhead=seconds + 4e-4)  # fmt: skip


def onnx(*, vacuous: bool = False, error: float = 1.43e-06) -> OnnxResult:
    """An export that worked, compared at two batches under two seeds."""
    cases = tuple(
        ParityCase(
            batch=batch,
            seed=seed,
            perturbed=vacuous,
            max_absolute_error=error * (1 + seed / 7),
            max_relative_error=error * 12,
            passed=True,
            outputs=(
                OutputParity(
                    name="logits",
                    dtype="float32",
                    shape=(batch, 1000),
                    max_absolute_error=error * (1 + seed / 7),
                    max_relative_error=error * 12,
                    absolute_tolerance=1e-4,
                    relative_tolerance=1e-3,
                    passed=True,
                    vacuous=vacuous,
                    note="parameters perturbed, since the output was constant" if vacuous else "",
                ),
            ),
        )
        for batch in (1, 8)
        for seed in (0, 1)
    )
    return OnnxResult(
        file=onnx_file.full_file(),
        export=ExportResult(
            dynamic=("batch",),
            proven_dynamic=("batch",),
            strategy="torch.export, dynamic batch",
            attempts=(
                ExportAttempt(
                    strategy="torch.export, dynamic batch and time",
                    error="the model fixes axis 1 of x at 16 at transformer.py:88",
                ),
                ExportAttempt(strategy="torch.export, dynamic batch", error=""),
            )
            if vacuous
            else (ExportAttempt(strategy="torch.export, dynamic batch", error=""),),
            warnings=("2 constants were folded into the graph",),
        ),
        parity=Parity(
            passed=True,
            vacuous=vacuous,
            cases=cases,
            note="every output is constant under the model's own initialization" if vacuous else "",
            compared="seeds 0 and 1 at batch 1 and batch 8",
            second_call=parity.REPEATS,
            histograms=(parity.HISTOGRAM,),
        ),
        performance=onnx_file.performance(),
    )


def memory(parameter_bytes: int, sample_bytes: int) -> Memory:
    """Estimates, fits and curves of a model whose activations take `sample_bytes` a sample."""
    steps = [(mode, precision, checkpointing)
             for mode in ("inference", "train")
             for precision in ("fp32", "amp-bf16")
             for checkpointing in ((False, True) if mode == "train" else (False,))]  # fmt: skip
    return Memory(
        estimates=tuple(_estimate(parameter_bytes, sample_bytes, 8, *step) for step in steps),
        fits=tuple(
            _fit(parameter_bytes, sample_bytes, gpu, mib * 2**20, *step)
            for step in steps
            for gpu, mib in CARDS.items()
        ),
        curves=tuple(_curve(parameter_bytes, sample_bytes, *step) for step in steps),
        what_if=tuple(
            WhatIf(
                gpu=gpu,
                change=change,
                safe_batch=round(40 * more),
                baseline_safe_batch=40,
            )
            for change, more in (("mixed precision", 1.9), ("checkpointing", 2.6))
            for gpu in CARDS
        ),
        loop_options=(
            LoopOption(option="ddp", added_bytes=parameter_bytes),
            LoopOption(option="prefetch: 2", added_bytes=8 * sample_bytes // 50),
        ),
        timeline=_timeline(parameter_bytes, sample_bytes),
        top_modules=(
            TopModule(
                path="",
                total_bytes=3 * parameter_bytes,
                at_peak={"optimizer_state": 2 * parameter_bytes},
            ),
            TopModule(
                path="features.2",
                total_bytes=sample_bytes,
                at_peak={"saved_activation": sample_bytes},
            ),
        ),
        torchinfo_bytes=parameter_bytes + 2 * 8 * sample_bytes,
        assumptions=(
            "the optimizer's state exists already: the peak is that of the second step",
            "cuDNN takes its default algorithms; a workspace of up to 1 GiB is inside the band",
            "CUDA context and libraries: 430 MiB on the device, outside the allocator",
        ),
    )


def _timeline(weights: int, sample: int) -> Timeline:
    steps = 40
    heights = [*range(steps), *range(steps, 0, -1)]
    return Timeline(
        mode="train", precision="fp32", optimizer="adamw", checkpointing=False, batch=8,
        categories=("parameter", "optimizer_state", "saved_activation"),
        samples=tuple(
            TimelineSample(progress=index / (2 * steps - 1),
                   phase="forward" if index < steps else "backward",
                   allocated_bytes=(weights, 2 * weights, 8 * sample * height // steps))
            for index, height in enumerate(heights)
        ),
        peak_index=steps,
    )  # fmt: skip


def _device_bytes(weights: int, sample: int, batch: int, mode: str, precision: str,
                  checkpointing: bool) -> int:  # fmt: skip
    per_sample = sample * (0.12 if mode == "inference" else 1.0)
    per_sample *= (0.55 if precision != "fp32" else 1.0) * (0.35 if checkpointing else 1.0)
    return round(weights * (4 if mode == "train" else 1) + batch * per_sample + 430 * 2**20)


def _estimate(weights: int, sample: int, batch: int, mode: str, precision: str,
              checkpointing: bool) -> MemoryEstimate:  # fmt: skip
    device = _device_bytes(weights, sample, batch, mode, precision, checkpointing)
    allocated = device - 470 * 2**20 if device > 600 * 2**20 else device - 432 * 2**20
    train = mode == "train"
    parts = {"parameter": weights, "buffer": 212_992}
    if train:
        parts |= {"gradient": weights, "optimizer state": 2 * weights}
    parts["activation"] = max(4096, allocated - sum(parts.values()))
    return MemoryEstimate(
        mode=mode, precision=precision, optimizer="adamw" if train else "none",
        checkpointing=checkpointing, batch=batch,
        peak_allocated_bytes=sum(parts.values()),
        peak_reserved_bytes=sum(parts.values()) + 22 * 2**20,
        peak_device_bytes=device, band_low_bytes=round(device * 0.97),
        band_high_bytes=round(device * 1.08), method="fake",
        at_peak=parts, peak_module="features.2" if train else "features.0",
        peak_phase="backward" if train else "forward", peak_operator="aten.convolution_backward",
    )  # fmt: skip


def _fit(weights: int, sample: int, gpu: str, usable: int, mode: str, precision: str,
         checkpointing: bool) -> Fit:  # fmt: skip
    fixed = _device_bytes(weights, sample, 0, mode, precision, checkpointing)
    each = _device_bytes(weights, sample, 1000, mode, precision, checkpointing) - fixed
    largest = min(65_536, max(0, (usable - fixed) * 1000 // each))
    capped = largest == 65_536
    return Fit(
        gpu=gpu, usable_bytes=usable, mode=mode, precision=precision,
        optimizer="adamw" if mode == "train" else "none", checkpointing=checkpointing,
        safe_batch=largest if capped else largest * 94 // 100,
        largest_batch=largest, first_batch_that_fails=None if capped else largest + 1,
        limited_by="the search ends at 65,536" if capped else "peak on the device",
    )  # fmt: skip


def _curve(weights: int, sample: int, mode: str, precision: str, checkpointing: bool) -> BatchCurve:
    batches = tuple(2**power for power in range(12))
    return BatchCurve(
        mode=mode, precision=precision, checkpointing=checkpointing, batches=batches,
        peak_device_bytes=tuple(
            _device_bytes(weights, sample, batch, mode, precision, checkpointing)
            for batch in batches
        ),
    )  # fmt: skip


def _bottlenecks() -> Graph:
    """The modules of two blocks, for the viewer."""
    paths = [f"layer1.{block}.{part}" for block in range(2) for part in ("conv1", "bn1", "relu")]
    nodes = [OperatorNode(id=path, operator="Conv2d", kind="module", module=path,
                          outputs=("2×64×56×56",)) for path in paths]  # fmt: skip
    end = OperatorNode(id="output/", operator="output", kind="output")
    edges = tuple((n, n + 1) for n in range(len(paths)))
    return Graph(name="modules", nodes=(*nodes, end), edges=edges)


def graphs(*, tiles: int = 1, nodes: int = 40, onnx_too: bool = True, viewer: bool = False
           ) -> Graphs:  # fmt: skip
    """Three drawings; `work_folder` makes the files that they name."""
    complete = _bottlenecks()

    def drawing(stem: str, count: int, pages: int, note: str = "") -> Drawing:
        captions = ["overview", *(f"part {n} of {pages - 1}" for n in range(1, pages))]
        return Drawing(
            svg=f"graphs/{stem}.svg", nodes=count, edges=count + count // 8, collapsed=bool(note),
            total_nodes=count * 3 if note else count, width_points=420.0,
            height_points=60.0 * count, note=note,
            tiles=tuple(Tile(pdf=f"graphs/{stem}-{n}.pdf", caption=caption,
                             neighbors={side: part for side, part in (("above", n - 1),
                                                                      ("below", n + 1))
                                        if n and 0 < part < pages})
                        for n, caption in enumerate(captions)),
        )  # fmt: skip

    nothing = Drawing(svg=None, nodes=0, edges=0, collapsed=False, total_nodes=0,
                      width_points=0.0, height_points=0.0, tiles=(),
                      note="there is no ONNX file: the export failed")  # fmt: skip
    return Graphs(
        modules=drawing("modules", nodes, tiles),
        autograd=drawing("autograd", 2 * nodes, tiles,
                         "blocks of the same kind are drawn as one box" if nodes > 20 else ""),
        onnx=drawing("onnx", nodes, 1) if onnx_too else nothing,
        complete=(pack_graph(complete),) if viewer else (),
        layouts=graph_layouts(complete) if viewer else (),
    )  # fmt: skip


NO_LOGS = SectionOutcome(name="training", title="Training",
                  outcome=Skipped(reason="the manifest names no logs for this model"))  # fmt: skip
TITLES = {"layers": "Layers", "behavior": "Behavior", "graphs": "Graphs", "onnx": "ONNX",
          "memory": "Memory"}  # fmt: skip


def sections(**outcomes: object) -> tuple[SectionOutcome, ...]:
    """The sections of a model; a value that is no outcome is a result."""
    return (
        *(
            SectionOutcome(name=name, title=TITLES[name], outcome=outcome
                    if isinstance(outcome, Skipped | Failed) else Done(result=outcome))
            for name, outcome in outcomes.items()
        ),
        NO_LOGS,
    )  # fmt: skip


def finding(code: str, severity: Severity, where: str, message: str, advice: str,
            ignored: str | None = None) -> Finding:  # fmt: skip
    """A finding in one line."""
    return Finding(code=code, severity=severity, where=where, message=message, advice=advice,
                   ignored=ignored)  # fmt: skip


def model(name: str, verdict: Verdict, *, sections: tuple[SectionOutcome, ...], source: str = "",
          comment: str = "", weights: str = "", findings: tuple[Finding, ...] = (),
          budgets: tuple[BudgetCheck, ...] = (),
          cross_checks: tuple[CrossCheck, ...] = ()) -> ModelReport:  # fmt: skip
    """A model's report with the usual seed, and the metrics of its sections."""
    return ModelReport(name=name, source=source or f"torchvision:{name}", comment=comment, seed=0,
                       weights=weights, verdict=verdict, budgets=budgets, findings=findings,
                       sections=sections, cross_checks=cross_checks,
                       metrics=metrics_of(sections),
                       evidence=evidence_of(name, sections))  # fmt: skip


def metrics_of(sections: tuple[SectionOutcome, ...]) -> tuple[Metric, ...]:
    """The metrics of all sections that are done."""
    by_name = {section.name: section for section in SECTIONS}
    return tuple(
        metric
        for section in sections
        if isinstance(section.outcome, Done)
        for metric in by_name[section.name].metrics(section.outcome.result)
    )


def evidence_of(name: str, sections: tuple[SectionOutcome, ...]) -> tuple[Evidence, ...]:
    """How the metrics were made, as a build of models.yaml would say it."""
    by_name = {section.name: section for section in SECTIONS}
    return tuple(
        Evidence(
            keys=method.keys,
            method=method.text,
            tools=tuple(f"{tool} 2.15.0" for tool in method.tools),
            inputs="x=batch,3,224,224:float32" if method.inputs is None else method.inputs,
            batch=method.batch,
            seed=0 if method.inputs is None else None,
            command=f"reportgen build models.yaml --model {name} --section {section.name}",
        )
        for section in sections
        if isinstance(section.outcome, Done)
        for method in by_name[section.name].methods(section.outcome.result)
    )


def checks(parameters: int, macs: int, *, merged: int = 0, more: int = 0) -> tuple[CrossCheck, ...]:
    """Headline figures counted twice; `more` is what the ONNX file has too many."""
    rows = "rows of the layer table"
    note = f"{merged:,} of batch norms are multiplied into the layer before" if merged else ""
    apart = f"nodes of the ONNX file: {more:,} more, all of it in encoder.layers.0" if more else ""
    return (
        CrossCheck(
            figure="parameters", agree=True, note=note,
            counts=(Count(by="the model's tensors, each once", value=parameters),
                    Count(by=rows, value=parameters),
                    Count(by="found in the ONNX file", value=parameters - merged)),
        ),
        CrossCheck(
            figure="macs", agree=not more, note=apart,
            counts=(Count(by="torch's operators", value=macs), Count(by=rows, value=macs),
                    Count(by="nodes of the ONNX file", value=macs + more)),
        ),
    )  # fmt: skip


@cache
def full_report() -> Report:
    """Six models: passing, warning and failing, with a failed and a skipped section."""
    models = (_vgg16(), _resnet50(), _vit(), _tanh(), _lstm(), _transformer())
    return Report(
        title="Vision and sequence models",
        environment={
            "reportgen": "0.1.0",
            "python": "3.11.2",
            "torch": "2.15.0",
            "torchvision": "0.29.2",
            "onnx": "1.23.2",
            "onnxruntime": "1.32.0",
            "torchinfo": "1.8.0",
            "graphviz": "2.43.0",
            "platform": "Linux x86_64",
        },
        timings=Timings(
            built="2026-11-27T03:15:00+00:00",
            total_seconds=141.7,
            section_seconds={
                m.name: {
                    "layers": 0.82 + n,
                    "graphs": 1.9 + n,
                    "onnx": 9.7 * (1 + n % 3),
                    "memory": 4.4 + n,
                    "training": 0.0001,
                }
                for n, m in enumerate(models)
            },
        ),
        models=models,
    )


def budget(
    name: str, limit: float, value: float | None, state: BudgetState = "within", unit: str = ""
) -> BudgetCheck:
    """The check of one absolute limit."""
    fails = state == "exceeded"
    level = BudgetLimit(level="fail", side="max", limit=limit, text=str(limit))
    return BudgetCheck(
        name=name, limit=limit, value=value, unit=unit, state=state, limits=(level,),
        passed=None if state == "not judged" else not fails, level="fail" if fails else "",
    )  # fmt: skip


@cache
def small_report() -> Report:
    """Two models of a few layers: fast to lay out."""
    return replace(full_report(), title="Small", models=(_tanh(), _transformer()))


@cache
def hostile_report() -> Report:
    """Every text that a user can choose tries to be something else."""
    long = "a_very.long|name" * 19
    bad = model(
        "evil `x` | @octocat", Verdict.WARN, source=HOSTILE, comment=HOSTILE + long,
        weights="<b>w</b>.pth",
        sections=(SectionOutcome(name="layers", title="Layers",
                          outcome=Failed(error=HOSTILE, hint=long, details=(HOSTILE, long))),
                  NO_LOGS),
        findings=(finding("LAY001", Severity.WARNING, long, HOSTILE, HOSTILE),
                  finding("LAY002", Severity.NOTE, "x", "y", "z", ignored=HOSTILE)),
        budgets=(budget("parameters", 1e6, None, "not judged"),),
    )  # fmt: skip
    return Report(title=HOSTILE, environment={"torch": HOSTILE}, timings=None, models=(bad,))


def _vgg16() -> ModelReport:
    root = vgg16()
    return model(
        "vgg16", Verdict.WARN, weights="vgg16.safetensors",
        comment="The baseline that everyone quotes.",
        sections=sections(
            layers=layers(root, batch=8, inputs={"x": (8, 3, 224, 224)},
                          outputs={"": (8, 1000)}),
            behavior=behavior(), graphs=graphs(nodes=39, tiles=1), onnx=onnx(),
            memory=memory(4 * root.parameters, 238_000_000),
        ),
        findings=(
            finding("LAY004", Severity.WARNING, "classifier.0",
                    "one layer holds 102,764,544 of 138,357,544 parameters (74.3 %)",
                    "Replace the flattened head by global average pooling."),
            finding("MEM002", Severity.NOTE, "T4",
                    "batch 8 with AdamW in fp32 leaves 9.1 GiB of the card unused",
                    "A batch of 44 fits."),
        ),
        budgets=(budget("parameters", 140e6, 138_357_544),
                 budget("macs", 16e9, 15_470_264_320)),
    )  # fmt: skip


def _resnet50() -> ModelReport:
    root = resnet50()
    return model(
        "resnet50", Verdict.PASS,
        sections=sections(
            layers=layers(root, batch=8, inputs={"x": (8, 3, 224, 224)}, outputs={"": (8, 1000)}),
            graphs=graphs(nodes=60, tiles=4, viewer=True), onnx=onnx(error=7.2e-6),
            memory=memory(4 * root.parameters, 105_000_000),
        ),
        budgets=(budget("peak_memory@64", 12 * GIB, 9.4 * GIB, unit="bytes"),
                 budget("latency_ms", 40, 38.42, unit="ms")),
        cross_checks=checks(root.parameters, 32_713_474_048, merged=53_120),
    )  # fmt: skip


def _vit() -> ModelReport:
    root = vit_b_16()
    return model(
        "vit_b_16", Verdict.FAIL, comment="Head initialized to zero, as torchvision does.",
        sections=sections(
            layers=layers(root, batch=8, inputs={"x": (8, 3, 224, 224)}, outputs={"": (8, 1000)},
                          torchinfo=TorchinfoTotals(macs=1_385_840_640),
                          uncounted=(Uncounted(operator="mylib.attend", calls=12,
                                               bytes=241_000_000),)),
            behavior=behavior(baked_in=True),
            graphs=graphs(nodes=50, tiles=3), onnx=onnx(vacuous=True),
            memory=memory(4 * root.parameters, 161_000_000),
        ),
        findings=(
            finding("ONX003", Severity.WARNING, "logits",
                    "parity is vacuous: the output does not vary with the input",
                    "Name trained weights in the manifest."),
        ),
        budgets=(budget("parameters", 30e6, 86_567_656, "exceeded"),
                 budget("peak_memory@64", 12 * GIB, None, "not judged", unit="bytes")),
        cross_checks=checks(root.parameters, 17_563_828_224, more=1_572_864),
    )  # fmt: skip


def _tanh() -> ModelReport:
    root = tanh()
    return model(
        "tanh", Verdict.PASS, source="tanh.py:build", comment="W0 and tanh: the seed example.",
        sections=sections(
            layers=layers(root, batch=1, inputs={"x": (1, 8)}, outputs={"": (1, 16)}),
            graphs=graphs(nodes=3), onnx=onnx(), memory=memory(4 * root.parameters, 20_000),
        ),
    )  # fmt: skip


def _lstm() -> ModelReport:
    root = lstm()
    return model(
        "감정-분류기", Verdict.WARN, source="lstm.py:SentimentClassifier",
        comment="영화 리뷰의 감정을 분류하는 양방향 LSTM. Keyword inputs: ids, lengths.",
        sections=sections(
            layers=layers(root, batch=16, inputs={"ids": (16, 128), "lengths": (16,)},
                          outputs={"logits": (16, 2), "state.0": (16, 256)},
                          tied=(("embedding.weight", "decoder.weight"),),
                          unused_parameters=("unused.weight", "unused.bias"),
                          torchinfo=TorchinfoTotals(
                              error="TypeError: forward() got an unexpected argument"),
                          input_constants={"mode": "'fast'"}, frozen=("embedding.weight",),
                          parameters_by_path=2 * root.parameters,
                          unregistered=(Unregistered(path="extra[0]", type="Linear",
                                                     parameters=20),),
                          forward_backward=ForwardBackwardCost(
                              note="no output depends on a parameter that asks for a gradient")),
            graphs=graphs(nodes=12),
            onnx=Skipped(reason="the manifest turns the export of this model off"),
            memory=memory(4 * root.parameters, 3_400_000),
        ),
        findings=(
            finding("LAY002", Severity.WARNING, "unused",
                    "10,100 parameters were never reached by a forward pass",
                    "Delete the module, or call it."),
            finding("LAY001", Severity.WARNING, "embedding",
                    "the vocabulary takes 91.2 % of the parameters", "사전을 줄이세요.",
                    ignored="어휘는 제품 요구사항입니다"),
        ),
    )  # fmt: skip


def _transformer() -> ModelReport:
    root = transformer()
    return model(
        "transformer", Verdict.FAIL, source="transformer.py:EncoderDecoder",
        comment="A small encoder-decoder.",
        sections=sections(
            layers=layers(root, batch=4, inputs={"src": (4, 64), "tgt": (4, 48)},
                          outputs={"": (4, 48, 4000)},
                          torchinfo=TorchinfoTotals(
                              error="RuntimeError: failed to run torchinfo"),
                          active_parameters=root.parameters // 3,
                          experts=(Experts(path="encoder.experts", experts=8, active=2,
                                           parameters=root.parameters * 8 // 9,
                                           detected_by="a top-k of 2 of 8 ran in encoder.gate"),)),
            behavior=behavior(trouble=True), graphs=graphs(nodes=18, onnx_too=False),
            onnx=Failed(error="the branch at transformer.py:41 depends on the data: "
                              "`if mask.any():` has no fixed answer while the graph is captured",
                        hint="replace the branch by torch.where, or pass the mask always",
                        details=("transformer.py:41: if mask.any():",
                                 "transformer.py:58: while score.max() > 1:",
                                 "tried torch.export, dynamic batch and time: the branch at "
                                 "transformer.py:41 depends on the data",
                                 "tried torch.export, all dimensions fixed: the same")),
            memory=memory(4 * root.parameters, 9_800_000),
        ),
        findings=(
            finding("GRA001", Severity.ERROR, "decoder.layers.1.norm3",
                    "the gradient of 512 parameters is exactly zero after one step",
                    "Check whether the norm's output is used."),
        ),
    )  # fmt: skip


def work_folder(report: Report, folder: Path) -> Path:
    """The files that the results of `report` name, drawn by `dot`, below `folder`."""
    for each in report.models:
        home = folder / "models" / each.name
        (home / "graphs").mkdir(parents=True, exist_ok=True)
        for section in each.sections:
            if isinstance(section.outcome, Done):
                _write_files(home, section.outcome.result)
    return folder


def write_in(
    output: Path, report: Report, work: Path, formats: Collection[str], **options: Any
) -> tuple[Path, ...]:
    """Write `report`, whose files are in `work`, as a build does."""
    models = len(report.models)
    page_options = PageOptions(work=work, formats=formats, models=models, **options)
    with making_pages(page_options) as pages:
        pages.start_all(report)
        return write_report(report, report_to_json(report), output, pages)


def _write_files(home: Path, result: object) -> None:
    if isinstance(result, Layers):
        rows = "".join(f"{x.path},{x.type!r},{x.parameters}\n" for x in result.layers)
        (home / result.table_file).write_text("path,type,parameters\n" + rows, encoding="utf-8")
        (home / result.summary_file).write_text("Total params: …\n", encoding="utf-8")
    if isinstance(result, OnnxResult) and result.file:
        (home / result.file.path).write_bytes(b"onnx" * 1000)
    if isinstance(result, Graphs):
        for drawing in (result.modules, result.autograd, result.onnx):
            _draw(home, drawing)


def _draw(home: Path, drawing: Drawing) -> None:
    if drawing.svg is None:
        return
    (home / drawing.svg).write_bytes(_dot(drawing.nodes, "TB", "svg"))
    for number, tile in enumerate(drawing.tiles):
        count = min(drawing.nodes, 22) if len(drawing.tiles) > 1 else drawing.nodes
        direction = "LR" if number % 2 and count > 10 else "TB"
        (home / tile.pdf).write_bytes(_dot(min(count, 14 + number), direction, "pdf"))


@cache
def _dot(nodes: int, direction: str, kind: str) -> bytes:
    lines = [f'digraph g {{ rankdir={direction}; bgcolor=transparent; '
             'node [shape=box, style="rounded,filled", '
             'fillcolor="#eef3fb", color="#4a78b5", fontname="Helvetica", fontsize=11]; '
             'edge [color="#64748b", arrowsize=0.7];']  # fmt: skip
    for n in range(nodes):
        lines.append(f'n{n} [label="block.{n}\\nConv2d 64 → 128 · 한글", tooltip="block.{n}"];')
        if n:
            lines.append(f"n{n - 1} -> n{n};")
        if n > 6 and n % 8 == 0:
            lines.append(f"n{n - 6} -> n{n};")
    source = "\n".join([*lines, "}"])
    return subprocess.run(
        ["dot", f"-T{kind}"], input=source.encode(), capture_output=True, check=True
    ).stdout
