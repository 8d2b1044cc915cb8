"""Models and files built after public bug reports: what the report must say of each.

`faults/` has a folder for each case, with a manifest as a user would write it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from one_process import build_here

from reportgen import build, load_manifest
from reportgen.errors import ManifestError
from reportgen.outcome import Done, Failed
from reportgen.report import ModelReport

FAULTS = Path(__file__).parent / "faults"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is known of one model; None is not checked.

    `error` is part of the error of the first section that failed, "" if none does.
    """

    parameters: int | None = None
    macs: int | None = None
    error: str = ""
    codes: tuple[str, ...] = ()
    no_codes: tuple[str, ...] = ()


LAYERS, ONNX, MEMORY, BEHAVIOR = ("layers",), ("onnx",), ("memory",), ("behavior",)
WEIGHTS = {name: Expected(parameters=83) for name in ("compiled-pt", "averaged-pt", "net-pth")}
CASES: dict[str, tuple[tuple[str, ...], dict[str, Expected]]] = {
    "autocast_inside": (ONNX, {"for-cuda": Expected(), "on-cpu": Expected(codes=("ONX025",))}),
    "exceptions_while_loading": (
        LAYERS,
        {
            "OwnTrain": Expected(parameters=10),
            "Groups": Expected(parameters=30, macs=48),
            "Block": Expected(error="@dataclass removes __hash__"),
        },
    ),
    "fast_path_parity": (ONNX, {"sentence": Expected(codes=("ONX024",))}),
    "forces": (ONNX, {"potential": Expected(error="takes a gradient")}),
    "frozen_torchscript": (ONNX, {"frozen": Expected(error="the model is TorchScript")}),
    "graph_network_sizes": (ONNX, {"messages": Expected(no_codes=("ONX031",))}),
    "hook_closure": (
        LAYERS,
        {
            "lambda-hook": Expected(parameters=36, macs=64, no_codes=("LAY002", "LAY003")),
            "patched-outside": Expected(parameters=38, macs=64, no_codes=("LAY002", "LAY003")),
        },
    ),
    "ids_out_of_range": (BEHAVIOR, {"tokens": Expected(error="the embedding pos has 16 rows")}),
    "macs_inside_if": (LAYERS, {"vad": Expected(parameters=153, macs=816)}),
    "one_bad_model": (
        LAYERS,
        {"good": Expected(parameters=10), "missing": Expected(error="pretrained/head.pth")},
    ),
    "onnx_channels_last_open_size": (LAYERS, {"unet": Expected(macs=7_676_928)}),
    "onnx_foreign_domain": (
        ONNX,
        {"foreign": Expected(codes=("ONX036",), no_codes=("ONX006", "ONX016", "ONX035"))},
    ),
    "onnx_int4_packed": (
        LAYERS,
        {"nbits": Expected(parameters=640, macs=640), "dq4": Expected(parameters=640, macs=640)},
    ),
    "onnx_sequence_first": (LAYERS, {"lstm": Expected(macs=2640)}),
    "orthogonal_hint": (ONNX, {"exponential": Expected(), "cayley": Expected()}),
    "qat": (ONNX, {"aware": Expected(error="FakeQuantize")}),
    "quantization_config_ignored": (LAYERS, {"gptq": Expected(parameters=31_392)}),
    "relative_import": (LAYERS, {"net": Expected(parameters=49)}),
    "table_up_to_the_crash": (
        LAYERS,
        {"broken": Expected(parameters=5402, codes=("LAY009",))},
    ),
    "weights_as_people_have_them": (
        LAYERS,
        {
            **WEIGHTS,
            "gan-pth": Expected(error="2 state dicts"),
            "numpy-pth": Expected(error="NumPy"),
            "last-pt": Expected(parameters=83),
            "scripted-pt": Expected(error="TorchScript archive"),
            "model-00001-of-00002-safetensors": Expected(error="part 1 of 2"),
            "empty-pth": Expected(error="is empty"),
            "lfs-safetensors": Expected(error="Git LFS pointer"),
        },
    ),
    "written_for_a_card": (LAYERS, {"m": Expected(codes=("LAY009",))}),
    "reliability/dtype_mismatch": (LAYERS, {"net": Expected(parameters=108, macs=96)}),
    "reliability/events_pipe": (
        LAYERS,
        {"good": Expected(parameters=108), "bad": Expected(parameters=36)},
    ),
    "reliability/model_error_discards_report": (
        LAYERS,
        {
            "good": Expected(parameters=108),
            "bad": Expected(error="the checkpoint registry is not reachable"),
            "dies": Expected(error="exited early with status 1"),
        },
    ),
    "reliability/module_name_in_current_folder": (LAYERS, {"net": Expected(parameters=36)}),
    "reliability/old_weight_norm": (MEMORY, {"tcn": Expected()}),
    "reliability/unpicklable_attribute": (MEMORY, {"locked": Expected(), "filed": Expected()}),
}
REFUSED = {
    "reliability/budget_not_judged": "needs a GPU",
    "reliability/ignore_of_an_unknown_rule": "there is no rule 'SUM999'",
}


OF_THE_PROCESS = (  # the fault is what the model does to its process, or to other models
    "reliability/events_pipe",
    "reliability/model_error_discards_report",
    "reliability/module_name_in_current_folder",
)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_reported_as_it_is(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(FAULTS / case)  # where a user would stand
    sections, expected = CASES[case]
    make = build if case in OF_THE_PROCESS else build_here
    built = make(
        load_manifest(Path("manifest.yaml")),
        output=tmp_path / "out",
        models=tuple(expected),
        sections=sections,
        formats=("json",),
        jobs=1,
        timings=False,
    )
    for model in built.report.models:
        check(model, expected[model.name])


def check(model: ModelReport, expected: Expected) -> None:
    outcomes = [section.outcome for section in model.sections]
    errors = [outcome.error for outcome in outcomes if isinstance(outcome, Failed)]
    assert bool(errors) == bool(expected.error), (model.name, errors)
    assert expected.error in "".join(errors[:1]), (model.name, errors)
    assert " object at 0x" not in "".join(errors)
    results: list[Any] = [outcome.result for outcome in outcomes if isinstance(outcome, Done)]
    for name in ("parameters", "macs"):
        value = getattr(expected, name)
        assert value is None or [getattr(r, name) for r in results] == [value], (model.name, name)
    codes = {finding.code for finding in model.findings}
    assert set(expected.codes) <= codes, (model.name, codes)
    assert not set(expected.no_codes) & codes, (model.name, codes)


@pytest.mark.parametrize("case", REFUSED)
def test_a_manifest_with_a_fault_is_refused(case: str) -> None:
    with pytest.raises(ManifestError, match=REFUSED[case]):
        load_manifest(FAULTS / case / "manifest.yaml", rule_codes=lambda: {"LAY001"})


def test_every_case_has_its_right_answer() -> None:
    folders = {str(path.parent.relative_to(FAULTS)) for path in FAULTS.rglob("manifest.yaml")}
    assert folders - {"sources_messages"} == {*CASES, *REFUSED}
