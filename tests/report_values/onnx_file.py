"""What an ONNX file by itself may look like, with every part of the page in use."""

from __future__ import annotations

from dataclasses import replace

from reportgen.sections.onnx.file_result import (
    ChannelRange,
    Duplicate,
    FileResult,
    Fp16Readiness,
    Fp16Risk,
    Fp16Tensor,
    GraphValue,
    Int8Readiness,
    Inventory,
    MissingKernel,
    Optimized,
    OptimizedLevel,
    Provider,
    StoredTensor,
)
from reportgen.sections.onnx.result import Latency, LatencyPoint, Performance, TimeShare

_VERDICT_END = "(static evidence: no calibration was run)"


def full_file() -> FileResult:
    """A file with something to say in every table."""
    weight = StoredTensor(
        name="layer4.0.conv2.weight", dtype="float32", shape=(512, 512, 3, 3), bytes=9_437_184
    )
    mask = StoredTensor(name="old_mask", dtype="float32", shape=(1024, 1024), bytes=4_194_304)
    return FileResult(
        path="model.onnx",
        bytes=102_441_984,
        opset=20,
        ir_version=10,
        producer="pytorch 2.15.0",
        nodes=124,
        operators={"Conv": 53, "Relu": 49, "Add": 16, "MaxPool": 1, "ReduceMean": 1,
                   "Reshape": 1, "Gemm": 1, "Shape": 1, "Concat": 1},
        initializers=108,
        initializer_bytes=102_228_128,
        inputs=(GraphValue(name="x", dtype="float32", shape=("batch", 3, 224, 224)),),
        outputs=(GraphValue(name="logits", dtype="float32", shape=("batch", 1000)),),
        inventory=Inventory(
            opset_release="1.15.0",
            opset_month="October 2023",
            newest_opset=28,
            opsets_behind=8,
            domains={"ai.onnx": 124},
            local_functions=("Rotate",),
            bytes_by_dtype={"float32": 102_228_096, "int64": 32},
            largest=(weight, mask),
            external_bytes=0,
            constants=2,
            constant_bytes=16,
            unused=(mask,),
            dead_nodes=1,
            duplicates=(
                Duplicate(
                    names=("decoder.weight", "embedding.weight"),
                    dtype="float32",
                    shape=(6000, 128),
                    wasted_bytes=3_072_000,
                    uniform=False,
                ),
                Duplicate(
                    names=("norm.bias", "other.bias"),
                    dtype="float32",
                    shape=(128,),
                    wasted_bytes=512,
                    uniform=True,
                ),
            ),
            foldable=3,
            foldable_candidates=122,
            foldable_operators={"Transpose": 2, "Slice": 1},
        ),
        providers=(
            Provider(
                name="CPU", source="kernels listed by onnxruntime 1.32.0", nodes=122,
                supported=120, unknown=1,
                missing_kernels=(
                    MissingKernel(operator="Conv", since=11, dtypes=("bfloat16",), nodes=1,
                                    fallback="", module="layer1.0.conv1"),
                ),
            ),
            Provider(
                name="CUDA", source="onnxruntime's OperatorKernels.md, commit d31426f", nodes=122,
                supported=121, unknown=0,
                missing_kernels=(
                    MissingKernel(
                        operator="GridSample", since=20, dtypes=("float16",), nodes=1,
                        fallback="run on the CPU, with copies between the devices",
                    ),
                ),
            ),
        ),
        optimized=Optimized(
            levels=(
                OptimizedLevel(level="basic", nodes=122, bytes=102_043_306, fused={}),
                OptimizedLevel(level="extended", nodes=89, bytes=102_043_202,
                               fused={"com.microsoft.FusedConv": 33}),
                OptimizedLevel(level="all", nodes=58, bytes=102_044_318,
                               fused={"com.microsoft.nchwc.Conv": 53}),
            )
        ),
        int8=Int8Readiness(
            mac_nodes=54,
            covered_nodes=53,
            staying_float={"ReduceMean": 1},
            quantized_nodes=0,
            widest=(
                ChannelRange(name="layer3.0.conv3.weight", operator="Conv", channels=1024,
                             outlier_ratio=1.84192107471956),
            ),
            weights=54,
            verdict="static quantization covers 53 of 54 nodes that multiply and add (98.1 %); "
            f"channels of a weight differ by 1.84 to 1 at most {_VERDICT_END}",
        ),
        fp16=Fp16Readiness(
            elements=25_503_912,
            overflowing=2,
            flushed=19,
            subnormal=42_425,
            largest_magnitude=3.4028234663852886e38,
            tensors=(
                Fp16Tensor(name="old_mask", overflowing=2, flushed=0, elements=1_048_576),
            ),
            risks=(
                Fp16Risk(operator="ReduceSum", nodes=2, module="pool",
                         reason="infinite once the mean of 64 elements passes 1,024"),
            ),
            verdict="2 stored values would become infinite; keep ReduceSum in float32 "
            + _VERDICT_END,
        ),
    )  # fmt: skip


def clean_file() -> FileResult:
    """A file of one weight of 60 bytes in which nothing is to be found."""
    weight = StoredTensor(name="weight", dtype="float32", shape=(5, 3), bytes=60)
    return FileResult(
        path="model.onnx",
        bytes=1000,
        opset=20,
        ir_version=10,
        producer="pytorch 2.15.0",
        nodes=1,
        operators={"Gemm": 1},
        initializers=2,
        initializer_bytes=60,
        inputs=(GraphValue(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(GraphValue(name="logits", dtype="float32", shape=("batch", 3)),),
        inventory=Inventory(
            opset_release="1.15.0",
            opset_month="October 2023",
            newest_opset=28,
            opsets_behind=8,
            domains={"ai.onnx": 1},
            local_functions=(),
            bytes_by_dtype={"float32": 60},
            largest=(weight,),
            external_bytes=0,
            constants=0,
            constant_bytes=0,
            unused=(),
            dead_nodes=0,
            duplicates=(),
            foldable=0,
            foldable_candidates=1,
            foldable_operators={},
        ),
        providers=(
            Provider(
                name="CPU", source="asked", nodes=1, supported=1, unknown=0, missing_kernels=()
            ),
            Provider(
                name="CUDA", source="table", nodes=1, supported=1, unknown=0, missing_kernels=()
            ),
        ),
        optimized=Optimized(levels=(OptimizedLevel(level="basic", nodes=1, bytes=100, fused={}),)),
        int8=Int8Readiness(
            mac_nodes=1,
            covered_nodes=1,
            staying_float={},
            quantized_nodes=0,
            widest=(),
            weights=0,
            verdict="static quantization covers 1 of 1 nodes that multiply and add (100.0 %)",
        ),
        fp16=Fp16Readiness(
            elements=15,
            overflowing=0,
            flushed=0,
            subnormal=0,
            largest_magnitude=1.0,
            tensors=(),
            risks=(),
            verdict="the stored values fit into float16",
        ),
    )


def _bad_files() -> dict[str, FileResult]:
    good = clean_file()
    unused = StoredTensor(name="leftover", dtype="float32", shape=(5,), bytes=20)
    copy = Duplicate(names=("a", "b"), dtype="float32", shape=(5,), wasted_bytes=20, uniform=False)
    missing = MissingKernel(
        operator="Conv", since=11, dtypes=("bfloat16",), nodes=2, fallback="", module="stem"
    )
    cpu, cuda = good.providers
    elsewhere = replace(missing, fallback="run on the CPU, with copies between the devices")
    beyond = Fp16Tensor(name="scale", overflowing=3, flushed=0, elements=5)
    return {
        "ONX014": replace(good, inventory=replace(good.inventory, unused=(unused,))),
        "ONX015": replace(good, inventory=replace(good.inventory, duplicates=(copy,))),
        "ONX016": replace(good, providers=(replace(cpu, missing_kernels=(missing,)), cuda)),
        "ONX017": replace(good, fp16=replace(good.fp16, overflowing=3, tensors=(beyond,))),
        "ONX018": replace(good, providers=(cpu, replace(cuda, missing_kernels=(elsewhere,)))),
    }


BAD_FILES = _bad_files()
"""By rule: what breaks it, and no other."""


def performance() -> Performance:
    """Three batch sizes on one thread and on two, the largest too slow for one thread."""
    cells = ((1, 1, 71.2), (1, 2, 38.42), (8, 1, 560.0), (8, 2, 301.5), (16, 1, None))
    return Performance(
        latency_ms=Latency(batch=1, runs=30, threads=2, median=38.42, p10=36.9, p90=44.17),
        points=tuple(
            LatencyPoint(
                batch=batch,
                threads=threads,
                runs=0 if median is None else 7,
                median=median,
                p10=None if median is None else 0.96 * median,
                p90=None if median is None else 1.1 * median,
                samples_per_second=None if median is None else 1000 * batch / median,
            )
            for batch, threads, median in cells
        ),
        profiled_batch=1,
        operators=(
            TimeShare(name="Conv", calls=53, milliseconds=36.2, share=0.965),
            TimeShare(name="MaxPool", calls=1, milliseconds=1.3, share=0.035),
        ),
        modules=(
            TimeShare(name="layer2.0", calls=3, milliseconds=3.8, share=0.101),
            TimeShare(name="layer4.2", calls=4, milliseconds=2.6, share=0.071),
        ),
    )
