"""`reportgen estimate`: the peak GPU memory of one step."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

from reportgen.cli.printing import print_text

_DOES_NOT_FIT = 3
_PRECISIONS = "fp32, tf32, amp-bf16, amp-fp16, bf16 or fp16."
_OPTIMIZERS = "sgd, momentum, nesterov, adam, adamw, rmsprop, adagrad, adafactor or none."


def estimate(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="As in a manifest: torchvision:resnet50.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="SHAPE", help="batch,3,224,224 or ids=batch,9:int64<99; repeatable."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Batch size.", max=2**63 - 1)] = 1,
    mode: Annotated[
        Literal["train", "inference"], typer.Option(help="Training step or forward pass.")
    ] = "train",
    precision: Annotated[str, typer.Option(metavar="NAME", help=_PRECISIONS)] = "fp32",
    optimizer: Annotated[str, typer.Option(metavar="NAME", help=_OPTIMIZERS)] = "adamw",
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Use activation checkpointing.")
    ] = False,
    loss: Annotated[str, typer.Option(metavar="NAME", help="cross_entropy, sum or mean.")] = "sum",
    accumulation: Annotated[
        int, typer.Option(metavar="N", help="Micro-batches before one optimizer step.")
    ] = 1,
    zero_grad: Annotated[
        Literal["free", "keep"], typer.Option(help="keep: zero_grad(set_to_none=False).")
    ] = "free",
    prefetch: Annotated[
        int, typer.Option(metavar="N", help="Batches of inputs on the GPU at once.")
    ] = 1,
    ddp: Annotated[
        bool, typer.Option("--ddp", help="With DistributedDataParallel's gradient buckets.")
    ] = False,
    ema: Annotated[
        bool, typer.Option("--ema", help="With an averaged copy of the weights.")
    ] = False,
    clip: Annotated[
        float | None, typer.Option(metavar="NORM", help="With gradient clipping.")
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="In the channels_last memory format.")
    ] = False,
    gpu: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Check whether the step fits this GPU; repeatable."),
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Also run the step on this machine's CUDA device.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Estimate the peak GPU memory of one step; no GPU required."""
    from reportgen.manifest import parse_shape_argument
    from reportgen.sections.memory.estimation import (
        answer_data,
        answer_lines,
        estimate_step,
        make_step,
    )

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
    answer = estimate_step(
        source,
        tuple(map(parse_shape_argument, inputs or ())),
        batch=batch,
        step=step,
        gpus=tuple(gpu or ()),
        measure=measure,
    )
    if as_json:
        print_text(json.dumps(answer_data(answer), ensure_ascii=False, indent=1, allow_nan=False))
    else:
        for line in answer_lines(answer):
            print_text(line)
    raise typer.Exit(0 if answer.fits_everywhere else _DOES_NOT_FIT)
