"""The manifest reader: values of valid files, and one line for each error in invalid ones."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reportgen.errors import ManifestError
from reportgen.manifest import (
    Manifest,
    ModelSpec,
    load_manifest,
    manifest_schema,
    parse_shape_argument,
    parse_source,
    yaml_reader,
)

CONTRACT = """\
version: 1
title: Vision models
targets: [T4, A100-80GB, {name: lab-card, memory: 24 GiB}]
training: {optimizer: adamw, precisions: [fp32, amp-bf16], checkpointing: [false, true]}
budgets: {parameters: 30M, macs: 5G, "peak_memory@64": 12 GiB, latency_ms: 40}
models:
  - name: vgg16
    source: torchvision:vgg16
    arguments: {num_classes: 1000}
    weights: vgg16.safetensors
    inputs:
      - {name: x, shape: [batch, 3, 224, 224], dtype: float32}
    batch: 8
    loss: cross_entropy
    onnx: {opset: 20, dynamic: [batch], save: true, tolerance: {absolute: 1.0e-4, relative: 1.0e-3}}
    logs: {tensorboard: runs/vgg16, visdom: vgg16_env.json}
    ignore: {LAY001: "classifier head is kept for transfer learning"}
"""

EVERYTHING = """\
version: 1
title: "모델 보고서"
targets: [T4, {name: RTX 4090}, {name: lab, memory: 25769803776}]
training: {optimizer: [sgd, none], precisions: bf16, checkpointing: true}
budgets: {parameters: 1.5M, flops: 2k, model_bytes: 100 MB, "peak_memory@1": 1 GiB}
limits: {seconds: 90, memory: 8 GiB, timing: 0.5}
models:
  - name: 한글-모델.v2
    source: net.py:Outer.build
    arguments: {flag: no, at: 12:30:45, octal: 010, hex: 0x10, half: 0.5, nothing: ~, deep: [[1]]}
    dims: {seq: 128}
    inputs:
      - ids=batch,seq:int64<30522
      - {name: mask, shape: [batch, seq], dtype: bool, keyword: true}
      - {name: noise, shape: [], low: -1, high: 1.5}
      - {name: array, file: x.npy, shape: [batch, 4]}
      - {name: mode, value: train}
      - {name: cache, value: null, keyword: true}
      - name: state
        tuple: true
        items: [{shape: [1, batch, 8]}, "1,batch,8", {value: 3}]
      - name: extras
        fields: {pixels: "batch,3", more: {items: [{value: false}]}}
    onnx: false
    loss: net.py:loss
    budgets: {parameters: null, "peak_memory@2": 2 GiB}
    limits: {seconds: 5}
    training: {checkpointing: [false]}
    seed: 7
    comment: |
      두 줄
      of comment
  - {name: exported, source: net.pt2}
  - {name: graph, source: net.onnx, onnx: {enabled: true, dynamic: []}}
  - {name: library, source: package.module:build, inputs: []}
"""

GOOD = """\
version: 1
title: t
models:
- name: a
  source: torchvision:a
  inputs: ['batch,3']
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with every file that the manifests in this module refer to."""
    for name in ("vgg16.safetensors", "vgg16_env.json", "net.py", "x.npy", "net.pt2", "net.onnx"):
        (tmp_path / name).touch()
    (tmp_path / "runs" / "vgg16").mkdir(parents=True)
    return tmp_path


def load(folder: Path, content: str | bytes, **options: Any) -> Manifest:
    """The manifest with this content, written to `folder`."""
    file = folder / "m.yaml"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_manifest(file, **options)


def problems(folder: Path, content: str | bytes, **options: Any) -> list[str]:
    """The lines of the error for this content, without the folder's name."""
    with pytest.raises(ManifestError) as caught:
        load(folder, content, **options)
    return caught.value.message.replace(f"{folder}/", "").split("\n")


def with_model(text: str) -> str:
    """A valid manifest whose only model has `text` added in line 7."""
    return f"{GOOD}  {text}\n"


def with_input(text: str) -> str:
    """A valid manifest whose only input is `text`, in line 6."""
    return GOOD.replace("'batch,3'", text)


# Valid manifests -----------------------------------------------------------------------------


def test_the_example_of_the_contract_loads(folder: Path) -> None:
    manifest = load(folder, CONTRACT)
    (model,) = manifest.models
    assert manifest.path == folder / "m.yaml"
    assert [target.memory_bytes for target in manifest.targets] == [None, None, 24 * 2**30]
    assert manifest.training.optimizers == ("adamw",)
    assert manifest.training.checkpointing == (False, True)
    limits = {name: budget.fail.absolute for name, budget in model.budgets.limits().items()}
    assert limits == {
        "parameters": 30_000_000,
        "macs": 5_000_000_000,
        "latency_ms": 40,
        "peak_memory@64": 12 * 2**30,
    }
    assert model.source.model_dump() == {
        "kind": "torchvision",
        "target": "vgg16",
        "factory": None,
        "text": "torchvision:vgg16",
    }
    assert model.weights == folder / "vgg16.safetensors"
    assert [(log.path, log.format, log.text) for log in model.logs] == [
        (str(folder / "runs" / "vgg16"), "tensorboard", "runs/vgg16"),
        (str(folder / "vgg16_env.json"), "visdom", "vgg16_env.json"),
    ]
    assert model.inputs[0].shape == ("batch", 3, 224, 224)
    assert model.onnx.tolerance.absolute == 1e-4
    assert (model.limits.seconds, model.seed) == (600, 0)


def test_a_log_path_that_is_a_broken_link_is_an_error(folder: Path) -> None:
    (folder / "runs" / "loop").symlink_to("loop")
    (line,) = problems(folder, with_model("logs: [runs/loop]"))
    assert "'runs/loop' is a broken link" in line


def test_logs_are_a_path_a_list_or_a_glob_and_do_not_require_a_source(folder: Path) -> None:
    text = "version: 1\ntitle: t\nmodels:\n- name: a\n  logs: "
    (folder / "runs" / "other").mkdir()
    one = load(folder, text + "runs/vgg16").models[0]
    assert (one.source.kind, one.inputs) == ("none", ())
    assert [log.text for log in one.logs] == ["runs/vgg16"]
    many = load(folder, text + '["runs/*/", {path: vgg16_env.json, format: visdom}]').models[0]
    assert [log.format for log in many.logs] == [None, "visdom"]
    assert [path.name for path in many.logs[0].matches()] == ["other", "vgg16"]
    assert many.logs[1].matches() == [folder / "vgg16_env.json"]


def test_log_options_are_read(folder: Path) -> None:
    options = (
        load(
            folder,
            with_model(
                "log_options: {x: epoch, planned_steps: 500, ranges: {val/acc: [0, null]}, "
                "directions: {score_x: higher}, average: seed_*, mean: [0.5, 0.4], std: 0.2, "
                "reference_lines: [{metric: val/acc, value: 0.1, label: chance}], "
                "marks: [{step: 30, label: decay}]}"
            ),
        )
        .models[0]
        .log_options
    )
    assert (options.x, options.planned_steps, options.average) == ("epoch", 500, ("seed_*",))
    assert options.ranges == {"val/acc": (0, None)}
    assert options.directions == {"score_x": "higher"}
    assert (options.mean, options.std) == ((0.5, 0.4), (0.2,))
    assert options.reference_lines[0].label == "chance"
    assert options.marks[0].step == 30


def test_a_manifest_with_every_key_loads(folder: Path) -> None:
    text = EVERYTHING
    model, exported, graph, library = load(folder, text).models
    assert model.source.factory == "Outer.build"
    assert model.source.target == str(folder / "net.py")
    assert model.arguments == {
        "flag": "no",
        "at": "12:30:45",
        "octal": 10,
        "hex": 16,
        "half": 0.5,
        "nothing": None,
        "deep": [[1]],
    }
    kinds = " ".join(spec.kind for spec in model.inputs)
    assert kinds == "tensor tensor tensor file constant constant items fields"
    state = model.inputs[6]
    assert state.as_tuple
    assert state.items is not None
    assert [spec.kind for spec in state.items] == ["tensor", "tensor", "constant"]
    cache = model.inputs[5].value
    assert cache is not None
    assert cache.value is None
    assert (model.inputs[2].low, model.inputs[2].high, model.inputs[2].shape) == (-1, 1.5, ())
    assert (model.loss.kind, model.loss.factory) == ("python", "loss")
    assert not model.onnx.enabled
    assert model.comment == "두 줄\nof comment\n"
    assert (exported.source.kind, graph.source.kind) == ("pt2", "onnx")
    assert (library.source.target, library.source.factory) == ("package.module", "build")


def test_settings_of_a_model_override_shared_settings_key_by_key(folder: Path) -> None:
    model, other, *_ = load(folder, EVERYTHING).models
    absolute = {name: budget.fail.absolute for name, budget in model.budgets.limits().items()}
    assert absolute == {
        "flops": 2000,
        "model_bytes": 100_000_000,
        "peak_memory@1": 2**30,
        "peak_memory@2": 2**31,
    }
    assert other.budgets.limits()["parameters"].fail.absolute == 1_500_000
    assert (model.limits.seconds, model.limits.memory_bytes) == (5, 8 * 2**30)
    assert model.limits.timing == 0.5
    assert model.training.optimizers == ("sgd", "none")
    assert model.training.checkpointing == (False,)


@pytest.mark.parametrize("text", [CONTRACT, EVERYTHING])
def test_values_survive_a_round_trip_through_json(folder: Path, text: str) -> None:
    manifest = load(folder, text)
    for model in manifest.models:
        assert ModelSpec.model_validate_json(model.model_dump_json()) == model
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_values_cannot_be_changed(folder: Path) -> None:
    manifest = load(folder, CONTRACT)
    with pytest.raises(ValueError, match="frozen"):
        manifest.models[0].batch = 3


def test_paths_are_relative_to_the_manifest_not_to_the_working_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, CONTRACT)
    monkeypatch.chdir(folder.parent)
    manifest = load_manifest(Path(folder.name) / "m.yaml")
    assert manifest.path == folder / "m.yaml"
    assert manifest.models[0].weights == folder / "vgg16.safetensors"


def test_windows_line_ends_give_the_same_manifest(folder: Path) -> None:
    assert load(folder, CONTRACT.replace("\n", "\r\n")) == load(folder, CONTRACT)


# Files that cannot be read: one line each ------------------------------------------------------

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n"
INVALID_FILES: dict[str, tuple[str | bytes, str]] = {
    "a hundred million brackets": ("[" * 5000, "m.yaml:1: is nested deeper than 50 levels"),
    "deep mappings": ("{a: " * 5000, "m.yaml:1: is nested deeper than 50 levels"),
    "deep lists by dashes": ("- " * 5000, "m.yaml:1: is nested deeper than 50 levels"),
    "deep below a duplicate": ("{a: 1, a: " * 3000, "m.yaml:1: is not valid YAML: "),
    "an alias bomb": (BOMB, "m.yaml:1: a: anchor &a is not supported; write the value out"),
    "an alias": (GOOD.replace(": t\n", ": *t\n"), "m.yaml:2: title: alias *t is not supported; "),
    "a merge key": (GOOD + "<<: {a: 1}\n", "m.yaml:7: merge key '<<' is not supported; "),
    "a tag that runs a program": (
        GOOD.replace(": t\n", ": !!python/object/apply:os.system [ls]\n"),
        "m.yaml:2: title: tag 'tag:yaml.org,2002:python/object/apply:os.system' is not supported; ",
    ),
    "a harmless tag": (GOOD.replace(": t\n", ": !!str t\n"), "m.yaml:2: title: tag "),
    "a tab": (GOOD.replace("  source", "\tsource"), "m.yaml:5: is indented with a tab; use spaces"),
    "a tab after spaces": ("a:\n \tb: 1\n", "m.yaml:2: is indented with a tab; use spaces"),
    "UTF-16": (GOOD.encode("utf-16"), "m.yaml:1: is UTF-16 or UTF-32; save the file as UTF-8"),
    "UTF-16 without a mark": (GOOD.encode("utf-16-le"), "m.yaml:1: contains a NUL byte; save "),
    "latin-1": (b"version: 1\ntitle: caf\xe9\n", "m.yaml:2: byte 0xe9 is not UTF-8; save "),
    "a NUL": (b"version: 1\n\0", "m.yaml:2: contains a NUL byte; save the file as UTF-8"),
    "a terminal escape": ("title: \x1b[31m\n", "m.yaml:1: character U+001B is not allowed; "),
    "a line end no editor counts": ("a: b\u2028c\n", "m.yaml:1: character U+2028 is not allowed"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD.encode(), "m.yaml:1: begins with a byte order "),
    "two documents": (GOOD + "---\na: 1\n", "m.yaml:7: contains a second document; write one "),
    "an empty file": ("", "m.yaml:1: is empty; begin with 'version: 1'"),
    "comments only": ("# nothing\n", "m.yaml:1: is empty; begin with 'version: 1'"),
    "null": ("---\n", "m.yaml:1: is empty; begin with 'version: 1'"),
    "a list": (
        "# list\n- a\n",
        "m.yaml:2: must be a mapping with keys such as 'version: 1', not a list",
    ),
    "a scalar": (
        "hello\n",
        "m.yaml:1: must be a mapping with keys such as 'version: 1', not 'hello'",
    ),
    "an unclosed list": (GOOD + "x: [1, 2\n", "m.yaml:7: is not valid YAML: "),
    "an unclosed quote": (GOOD + 'x: "a\n', "m.yaml:7: is not valid YAML: "),
    "a wrong escape": (GOOD + 'x: "\\q"\n', "m.yaml:7: is not valid YAML: "),
    "a colon too many": ("title: a: b\n", "m.yaml:1: is not valid YAML: "),
    "a list as key": (GOOD + "? [a]\n: 1\n", "m.yaml:7: a key must be text, not a collection"),
    "a number as key": (GOOD + "1: a\n", "m.yaml:7: 1: key '1' is not text; put it in quotes"),
    "null as key": (GOOD + "~: a\n", "m.yaml:7: '~': key '~' is not text; put it in quotes"),
    "NaN as key": (GOOD + ".nan: a\n", "m.yaml:7: .nan: key '.nan' is not text; put it in quotes"),
    "a duplicate key": (GOOD + "title: u\n", "m.yaml:7: title: duplicate key; first on line 2"),
    "NaN": (GOOD + "limits: {seconds: .nan}", "m.yaml:7: limits.seconds: must be a finite number"),
    "infinity": (GOOD + "limits: {seconds: -.inf}", "m.yaml:7: limits.seconds: must be a finite "),
    "overflow": (GOOD + "limits: {seconds: 1e999}", "m.yaml:7: limits.seconds: number '1e999' is"),
    "five thousand digits": (GOOD + f"x: {'9' * 5000}", "m.yaml:7: x: number '9999"),
    "a NUL written as escape": (
        GOOD.replace(": t\n", ': "\\0"\n'),
        "m.yaml:2: title: text cont",
    ),
    "half a character": (GOOD.replace(": t\n", ': "\\ud800"\n'), "m.yaml:2: "),
    "endless items": ("a: [" + "[]," * 30_000 + "]", "m.yaml:1: contains more than 20,000 values"),
    "a file over 1 MiB": ("#" * (2**20 + 1), "m.yaml: is larger than 1 MiB (1,048,577 B); "),
}


@pytest.mark.parametrize(("content", "start"), INVALID_FILES.values(), ids=INVALID_FILES)
def test_an_invalid_file_gives_one_line(folder: Path, content: str | bytes, start: str) -> None:
    (line,) = problems(folder, content)
    assert line.startswith(start)
    assert line.isprintable()


@pytest.mark.parametrize(("content", "start"), INVALID_FILES.values(), ids=INVALID_FILES)
def test_the_pure_python_parser_rejects_the_same_files(
    folder: Path, content: str | bytes, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yaml_reader, "_LOADER", yaml.SafeLoader)
    (line,) = problems(folder, content)
    assert line.split(": ")[0] == start.split(": ")[0]


def test_a_file_of_100_mb_is_rejected_without_reading_it(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    with open(file, "wb") as stream:
        stream.truncate(100_000_000)
    begin = time.perf_counter()
    with pytest.raises(ManifestError, match="larger than 1 MiB"):
        load_manifest(file)
    assert time.perf_counter() - begin < 0.05


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (".", "is a folder; name the manifest file in it"),
        ("absent.yaml", "file not found; check the path"),
        ("/dev/zero", "is not a regular file"),
        ("a\0b", "cannot be read: embedded null byte"),
        ("x" * 300, "cannot be read: file name too long"),
        ("net.py/m.yaml", "cannot be read: not a directory"),
    ],
)
def test_a_path_that_cannot_be_read_gives_one_line(folder: Path, path: str, words: str) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder / path)
    assert words in caught.value.message
    assert caught.value.message.isprintable()


def test_a_line_break_in_a_file_name_is_escaped(folder: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        load_manifest(folder / "a\n::error::b.yaml")
    assert "a\\n::error::b.yaml" in caught.value.message


# Wrong keys and values: one line each, exact ---------------------------------------------------

WRONG: dict[str, tuple[str, str]] = {
    "version missing": (GOOD.replace("version: 1\n", ""), "1: version: is required"),
    "version 2": (GOOD.replace(": 1", ": 2"), "1: version: must be 1, not 2"),
    "version as text": (GOOD.replace(": 1", ": '1'"), "1: version: must be 1, not '1'"),
    "version true": (GOOD.replace(": 1", ": true"), "1: version: must be 1, not true"),
    "title empty": (GOOD.replace(": t\n", ": ''\n"), "2: title: must not be empty"),
    "title null": (GOOD.replace(": t\n", ":\n"), "2: title: must be text, not null"),
    "title a number": (GOOD.replace(": t\n", ": 8\n"), "2: title: must be text, not 8"),
    "unknown key at the top": (
        GOOD + "target: [T4]\n",
        "7: target: unknown key; did you mean 'targets'?",
    ),
    "unknown key without a near one": (
        GOOD + "xyz: 1\n",
        "7: xyz: unknown key; known keys: version, title, targets, training, budgets, waivers, "
        "limits, sections, models",
    ),
    "the program's own key": (GOOD + "path: /x\n", "7: path: unknown key; known keys: "),
    "models empty": (
        "version: 1\ntitle: t\nmodels: []\n",
        "3: models: must be a list with at least one item, not an empty list",
    ),
    "models a mapping": (
        "version: 1\ntitle: t\nmodels: {a: 1}\n",
        "3: models: must be a list, not a mapping",
    ),
    "a model that is text": (GOOD + "- vgg\n", "7: models[1]: must be a mapping, not 'vgg'"),
    "inputs missing": (
        GOOD.replace("  inputs: ['batch,3']\n", "").replace("torchvision:a", "torch.nn:Linear"),
        "4: models[0].inputs: is required unless the source is a library model, a .pt2 or",
    ),
    "inputs misspelled": (
        GOOD.replace("inputs", "input"),
        "6: models[0].input: unknown key; did you mean 'inputs'?",
    ),
    "batch as text": (
        with_model("batch: '8'"),
        "7: models[0].batch: must be a whole number, not '8'",
    ),
    "batch true": (with_model("batch: true"), "7: models[0].batch: must be a whole number, not tr"),
    "batch a fraction": (
        with_model("batch: 8.0"),
        "7: models[0].batch: must be a whole number, not 8.0",
    ),
    "batch zero": (with_model("batch: 0"), "7: models[0].batch: must be at least 1, not 0"),
    "seed too large": (
        with_model("seed: 4294967296"),
        "7: models[0].seed: must be at most 4294967295, not 4294967296",
    ),
    "arguments a list": (
        with_model("arguments: [1]"),
        "7: models[0].arguments: must be a mapping, not a list",
    ),
    "name leaves the folder": (
        GOOD.replace("name: a", "name: ../a"),
        "4: models[0].name: '../a' cannot be a folder name: use ",
    ),
    **{
        f"name of a device {name}": (
            GOOD.replace("name: a", f"name: {name}"),
            f"4: models[0].name: '{name}' cannot be a folder name on Windows",
        )
        for name in ("con", "nul", "COM1", "Lpt9.v2", "a.")
    },
    "name hidden": (GOOD.replace("name: a", "name: .a"), "4: models[0].name: '.a' cannot be"),
    "name with a slash": (GOOD.replace("name: a", "name: a/b"), "4: models[0].name: 'a/b' cannot"),
    "name too long": (GOOD.replace("name: a", f"name: {'a' * 65}"), "4: models[0].name: 'aaa"),
    "name a number": (GOOD.replace("name: a", "name: 16"), "4: models[0].name: must be text, not"),
    "names equal but for case": (
        GOOD + "- {name: A, source: torchvision:a, inputs: []}\n",
        "7: models[1].name: model name 'A' is already used on line 4 as 'a' (file systems may",
    ),
    "names equal": (
        GOOD + "- {name: a, source: torchvision:a, inputs: []}\n",
        "7: models[1].name: model name 'a' is already used on line 4",
    ),
    "source without library": (
        GOOD.replace("torchvision:a", "vgg16"),
        "5: models[0].source: 'vgg16' is not a valid source: write torchvision:NAME, ",
    ),
    "source a list": (
        GOOD.replace("torchvision:a", "[a]"),
        "5: models[0].source: must be text such as torchvision:resnet50, not a list",
    ),
    "source without model": (
        GOOD.replace("torchvision:a", "'torchvision:'"),
        "5: models[0].source: 'torchvision:' has no model name: write it as torchvision:NAME",
    ),
    "source file absent": (
        GOOD.replace("torchvision:a", "nett.py:Net"),
        "5: models[0].source: file not found: 'nett.py'; did you mean 'net.py'?",
    ),
    "source file without factory": (
        GOOD.replace("torchvision:a", "net.py"),
        "5: models[0].source: 'net.py' has no class or function name: write file.py:name",
    ),
    "source file of weights": (
        GOOD.replace("torchvision:a", "vgg16.safetensors"),
        "5: models[0].source: 'vgg16.safetensors' contains weights, not a model: ",
    ),
    "source on the web": (
        GOOD.replace("torchvision:a", "https://host/net.onnx"),
        "5: models[0].source: file not found: 'https://host/net.onnx'",
    ),
    "source a folder": (
        GOOD.replace("torchvision:a", "runs.py:f").replace("runs.py", "runs/../runs/x.py"),
        "5: models[0].source: file not found: ",
    ),
    "weights absent": (
        with_model("weights: vgg17.safetensors"),
        "7: models[0].weights: file not found: 'vgg17.safetensors'; did you mean "
        "'vgg16.safetensors'?",
    ),
    "weights pickled": (
        with_model("weights: net.pkl"),
        "7: models[0].weights: must end in .safetensors or .pth or .pt or .ckpt ",
    ),
    "weights a number": (with_model("weights: 5"), "7: models[0].weights: must be a path, not 5"),
    "logs absent": (
        with_model("logs: {tensorboard: runs/vgg}"),
        "7: models[0].logs: file not found: 'runs/vgg'; did you mean 'vgg16'?",
    ),
    "a log in a list absent": (
        with_model("logs: [runs/vgg16, runs/vgg]"),
        "7: models[0].logs[1]: file not found: 'runs/vgg'; did you mean 'vgg16'?",
    ),
    "a glob without a match": (
        with_model("logs: 'runs/r*'"),
        "7: models[0].logs: nothing matches 'runs/r*'",
    ),
    "a format of logs unknown": (
        with_model("logs: {path: runs, format: tensorbord}"),
        "7: models[0].logs.format: must be one of tensorboard, visdom",
    ),
    "a key of logs unknown": (
        with_model("logs: {tensorbord: runs}"),
        "7: models[0].logs: unknown key 'tensorbord'; write a path",
    ),
    "a key of one log unknown": (
        with_model("logs: [{path: runs, formt: csv}]"),
        "7: models[0].logs[0].formt: unknown key; did you mean 'format'?",
    ),
    "logs a number": (with_model("logs: [3]"), "7: models[0].logs[0]: must be a path or a mapping"),
    "a range that ends first": (
        with_model("log_options: {ranges: {acc: [1, 0]}}"),
        "7: models[0].log_options: the range of 'acc' must be [lowest, highest], not [1, 0]",
    ),
    "a mean without std": (
        with_model("log_options: {mean: [0.5]}"),
        "7: models[0].log_options: mean and std must be given together",
    ),
    "neither source nor logs": (
        GOOD.replace("  source: torchvision:a\n", ""),
        "4: models[0].source: is required unless 'logs' is given",
    ),
    "loss misspelled": (
        with_model("loss: crossentropy"),
        "7: models[0].loss: must be cross_entropy, sum or file.py:function, not 'crossentropy'; "
        "did you mean 'cross_entropy'?",
    ),
    "onnx a number": (
        with_model("onnx: 20"),
        "7: models[0].onnx: must be true, false or a mapping, not 20",
    ),
    "opset of tomorrow": (
        with_model("onnx: {opset: 99}"),
        "7: models[0].onnx.opset: must be at most 30, not 99",
    ),
    "dynamic dim unknown": (
        with_model("onnx: {dynamic: [bach]}"),
        "7: models[0].onnx.dynamic[0]: no input has dim 'bach'; did you mean 'batch'?",
    ),
    "tolerance negative": (
        with_model("onnx: {tolerance: {absolute: -1}}"),
        "7: models[0].onnx.tolerance.absolute: must be at least 0, not -1",
    ),
    "tolerance misspelled": (
        with_model("onnx: {tolerance: {absolut: 1}}"),
        "7: models[0].onnx.tolerance.absolut: unknown key; did you mean 'absolute'?",
    ),
    "code of a rule": (
        with_model("ignore: {LAY1: why}"),
        "7: models[0].ignore.LAY1: must be a code such as LAY001, not 'LAY1'",
    ),
    "reason empty": (
        with_model("ignore: {LAY001: ' '}"),
        "7: models[0].ignore.LAY001: must state a reason",
    ),
    "reason missing": (
        with_model("ignore: {LAY001: }"),
        "7: models[0].ignore.LAY001: must be text, not null",
    ),
    "a dim misspelled": (
        with_input("{shape: [bacth, 3]}"),
        "6: models[0].inputs[0].shape[0]: dim 'bacth' has no size; did you mean 'batch'?",
    ),
    "a dim without size": (
        with_input("'batch,seq'"),
        "6: models[0].inputs[0]: dim 'seq' has no size; add dims: {seq: SIZE}",
    ),
    "a dim without an input": (
        with_model("dims: {seq: 3}"),
        "7: models[0].dims.seq: no input has this dim",
    ),
    "batch among dims": (
        with_model("dims: {batch: 3}"),
        "7: models[0].dims.batch: set the batch size with the model's key 'batch'",
    ),
    "a dim of zero": (
        with_input("{shape: [0, 3]}"),
        "6: models[0].inputs[0].shape[0]: a dim is a positive whole number, ",
    ),
    "a dim as text": (
        with_input("{shape: ['3']}"),
        "6: models[0].inputs[0].shape[0]: a dim is a positive whole number, ",
    ),
    "a dtype misspelled, deep": (
        with_input("{items: [{fields: {x: {shape: [1], dtype: float31}}}]}"),
        "6: models[0].inputs[0].items[0].fields.x.dtype: must be one of float32, ",
    ),
    "a compact dtype": (
        with_input("'batch,3:int65'"),
        "6: models[0].inputs[0]: 'int65' is not a dtype: use one of ",
    ),
    "two forms of input": (
        with_input("{shape: [1], value: 3}"),
        "6: models[0].inputs[0]: needs one of shape, file, value, items or fields, has "
        "shape and value",
    ),
    "no form of input": (with_input("{name: x}"), "6: models[0].inputs[0]: needs one of shape, "),
    "a keyword without name": (
        with_input("{shape: [1], keyword: true}"),
        "6: models[0].inputs[0]: a keyword input needs a name",
    ),
    "a keyword inside": (
        with_input("{items: [{name: x, shape: [1], keyword: true}]}"),
        "6: models[0].inputs[0]: only a top-level input can be a keyword",
    ),
    "a tuple of nothing": (
        with_input("{shape: [1], tuple: true}"),
        "6: models[0].inputs[0]: tuple: true requires items",
    ),
    "a repeat of nothing": (
        with_input("{shape: [1], per_sample: true}"),
        "6: models[0].inputs[0]: per_sample: true requires items",
    ),
    "a name that is none": (
        with_input("{name: a-b, shape: [1]}"),
        "6: models[0].inputs[0].name: 'a-b' is not a valid name: use letters, digits and '_'",
    ),
    "input names equal": (
        with_input("'x=batch', {name: x, shape: [1]}"),
        "6: models[0].inputs[1].name: input name 'x' is already used on line 6",
    ),
    "an array absent": (
        with_input("{file: y.npy}"),
        "6: models[0].inputs[0].file: file not found: 'y.npy'; did you mean 'x.npy'?",
    ),
    "an array of another kind": (
        with_input("{file: net.py}"),
        "6: models[0].inputs[0].file: must end in .npy or .safetensors, not 'net.py'",
    ),
    "low above high": (
        with_input("{shape: [1], dtype: int64, low: 5, high: 5}"),
        "6: models[0].inputs[0]: low 5 must be less than high 5",
    ),
    "high beyond the dtype": (
        with_input("{shape: [1], dtype: uint8, high: 257}"),
        "6: models[0].inputs[0]: high 257 is out of the range of uint8",
    ),
    "high of integers a fraction": (
        with_input("{shape: [1], dtype: int8, high: 2.5}"),
        "6: models[0].inputs[0]: high of int8 must be a whole number, not 2.5",
    ),
    "high of booleans": (
        with_input("{shape: [1], dtype: bool, high: 2}"),
        "6: models[0].inputs[0]: low and high do not apply to bool",
    ),
    "values beside a range": (
        with_input("{shape: [1, 2], dtype: int64, values: [1, 2], high: 3}"),
        "6: models[0].inputs[0]: values cannot be combined with low or high",
    ),
    "values that are too few": (
        with_input("{shape: [batch, 3], dtype: int64, values: [1, 4]}"),
        "6: models[0].inputs[0]: values needs one number per element of the last dim (3), has 2",
    ),
    "values without a shape": (
        with_input("{file: x.npy, values: [1]}"),
        "6: models[0].inputs[0]: values do not apply to an input with file",
    ),
    "values of booleans": (
        with_input("{shape: [1], dtype: bool, values: [1]}"),
        "6: models[0].inputs[0]: values do not apply to bool",
    ),
    "a value that is a fraction": (
        with_input("{shape: [2], dtype: int8, values: [1, 2.5]}"),
        "6: models[0].inputs[0]: values of int8 must be whole numbers, not 2.5",
    ),
    "a value beyond the dtype": (
        with_input("{shape: [1], dtype: uint8, values: [256]}"),
        "6: models[0].inputs[0]: value 256 is out of the range of uint8",
    ),
    "high as text": (
        with_input("{shape: [1], high: '2'}"),
        "6: models[0].inputs[0].high: must be a number, not '2'",
    ),
    "a constant that is a list": (
        with_input("{value: [1]}"),
        "6: models[0].inputs[0].value: must be text, a number, true, false or null, not a list",
    ),
    "an input that is a number": (
        with_input("3"),
        "6: models[0].inputs[0]: must be a shape such as 'batch,3,224,224' or a mapping, not 3",
    ),
    "target a number": (
        GOOD + "targets: [5]\n",
        "7: targets[0]: must be a GPU's name or a mapping, not 5",
    ),
    "target twice": (GOOD + "targets: [T4, t4]\n", "7: targets[1]: GPU 't4' is listed twice"),
    "memory without unit": (
        GOOD + "targets: [{name: x, memory: 24 G}]\n",
        "7: targets[0].memory: expected a size such as 24 GiB or 512 MB, got '24 G'",
    ),
    "optimizer misspelled": (
        GOOD + "training: {optimizer: adamm}\n",
        "7: training.optimizer: must be one of sgd, momentum, nesterov, adam, adamw, rmsprop, "
        "adagrad, adafactor, none, not 'adamm'; did you mean 'adam'?",
    ),
    "precision twice": (
        GOOD + "training: {precisions: [fp32, fp32]}\n",
        "7: training.precisions: 'fp32' is listed twice",
    ),
    "no precision": (
        GOOD + "training: {precisions: []}\n",
        "7: training.precisions: must be a list with at least one item, not an empty list",
    ),
    "checkpointing as text": (
        GOOD + "training: {checkpointing: no}\n",
        "7: training.checkpointing: must be true or false, not 'no'",
    ),
    "a percentage without a sign": (
        GOOD + "budgets: {macs: 2%}\n",
        "7: budgets.macs: expected a sign before the percentage, such as \"+2%\", got '2%'",
    ),
    "a relative limit of nothing": (
        GOOD + "budgets: {macs: +lots}\n",
        "7: budgets.macs: expected a change from the baseline, such as",
    ),
    "two least changes": (
        GOOD + "budgets: {macs: +2% and 1M and 2M}\n",
        "7: budgets.macs: expected one least change, such as",
    ),
    "a least change without a percentage": (
        GOOD + "budgets: {macs: +1M and 2M}\n",
        "7: budgets.macs: expected a change from the baseline, such as",
    ),
    "a level misspelled": (
        GOOD + "budgets: {macs: {warn: 1, fial: 2}}\n",
        "7: budgets.macs: unknown key 'fial'; write 30M",
    ),
    "a level of bytes for a count": (
        GOOD + "budgets: {macs: {warn: 1 GiB}}\n",
        "7: budgets.macs: warn: expected a count such as 30M, 5G or 12000, got '1 GiB'",
    ),
    "a minimum and a maximum": (
        GOOD + "budgets: {onnx.bytes: {min: 1, max: 2}}\n",
        "7: budgets.onnx.bytes: must set max or min, not both",
    ),
    "a waiver without a date": (
        GOOD + "budgets: {macs: 1}\nwaivers: [{budget: macs, reason: r, owner: o}]\n",
        "8: waivers[0].expires: is required",
    ),
    "a waiver until no day": (
        GOOD + "budgets: {macs: 1}\n"
        "waivers: [{budget: macs, reason: r, owner: o, expires: 2026-02-30}]\n",
        "8: waivers[0].expires: '2026-02-30' is not a date: day",
    ),
    "a waiver until a number": (
        GOOD + "budgets: {macs: 1}\n"
        "waivers: [{budget: macs, reason: r, owner: o, expires: 20261231}]\n",
        "8: waivers[0].expires: must be a date such as 2026-12-31, not 20261231",
    ),
    "a waiver of nothing": (
        GOOD + "waivers: [{reason: r, owner: o, expires: 2026-12-31}]\n",
        "7: waivers[0]: must name either a budget or a rule",
    ),
    "a waiver of another budget": (
        GOOD + "budgets: {macs: 1}\n"
        "waivers: [{budget: mac, reason: r, owner: o, expires: 2026-12-31}]\n",
        "8: waivers[0].budget: no budget 'mac'; did you mean 'macs'?",
    ),
    "budget without number": (
        GOOD + "budgets: {parameters: 30X}\n",
        "7: budgets.parameters: expected a count such as 30M, 5G or 12000, got '30X'",
    ),
    "budget of nothing": (
        GOOD + "budgets: {macs: 0}\n",
        "7: budgets.macs: must be greater than 0, not 0; write {max: 0} for none at all",
    ),
    "peak memory without batch": (
        GOOD + 'budgets: {"peak_memory@": 1 GiB}\n',
        '7: budgets: "peak_memory@" needs a batch size, such as "peak_memory@64"',
    ),
    "peak memory at batch zero": (
        GOOD + 'budgets: {"peak_memory@0": 1 GiB}\n',
        "7: budgets.peak_memory@0: unknown key; did you mean 'peak_memory@<batch>'?",
    ),
    "peak memory of nonsense": (
        GOOD + 'budgets: {"peak_memory@64": lots}\n',
        "7: budgets.peak_memory@64: expected a size such as 24 GiB or 512 MB, got 'lots'",
    ),
    "peak memory by the program's name": (
        GOOD + "budgets: {peak_memory_bytes: {}}\n",
        "7: budgets.peak_memory_bytes: unknown key; did you mean 'peak_memory@<batch>'?",
    ),
    "limit of no time": (
        GOOD + "limits: {seconds: 0}\n",
        "7: limits.seconds: must be greater than 0, not 0",
    ),
    "text that would break the line": (
        GOOD.replace(": t\n", ': "a\\n::error::b"\n'),
        "2: title: must be one line without control characters, not 'a\\n::error::b'",
    ),
    "text that turns around": (
        GOOD.replace(": t\n", ": a\u202eb\n"),
        "2: title: must be one line without control characters, not 'a\\u202eb'",
    ),
}


@pytest.mark.parametrize(("content", "start"), WRONG.values(), ids=WRONG)
def test_an_invalid_key_or_value_gives_one_line(folder: Path, content: str, start: str) -> None:
    (line,) = problems(folder, content)
    assert line.startswith(f"m.yaml:{start}")
    assert line.isprintable()
    assert "input should" not in line.lower()


def test_all_problems_are_listed_by_line(folder: Path) -> None:
    text = """\
version: 2
titel: x
targets: [5, T4, T4]
models:
  - name: ../x
    source: absent.py:Net
    batch: "8"
    batch: 3
    inputs:
      - {shape: [seq, "3"], dtype: int63}
      - {nmae: x, shape: [1]}
    onnx: {opset: .nan, tolerance: {absolut: 1}}
  - name: b
  - name: B
    source: torchvision:x
    inputs: 3
    weights: gone.pth
"""
    lines = problems(folder, text)
    places = [line.split(": ")[0] + ": " + line.split(": ")[1] for line in lines]
    assert places == [
        "m.yaml:1: version",
        "m.yaml:2: titel",
        "m.yaml:3: targets[0]",
        "m.yaml:3: targets[2]",
        "m.yaml:5: models[0].name",
        "m.yaml:6: models[0].source",
        "m.yaml:8: models[0].batch",
        "m.yaml:10: models[0].inputs[0].shape[1]",
        "m.yaml:10: models[0].inputs[0].dtype",
        "m.yaml:10: models[0].inputs[0].shape[0]",
        "m.yaml:11: models[0].inputs[1].nmae",
        "m.yaml:12: models[0].onnx.opset",
        "m.yaml:12: models[0].onnx.tolerance.absolut",
        "m.yaml:13: models[1].source",
        "m.yaml:14: models[2].name",
        "m.yaml:16: models[2].inputs",
        "m.yaml:17: models[2].weights",
    ]


def test_100_problems_are_listed_and_the_rest_counted(folder: Path) -> None:
    lines = problems(folder, GOOD + "".join(f"key{i}: 1\n" for i in range(150)))
    assert len(lines) == 101
    assert lines[-1] == "m.yaml: and 50 more"


def test_an_unknown_gpu_is_reported_with_similar_names(folder: Path) -> None:
    text = GOOD + "targets: [T4, {name: lab, memory: 1 GiB}, A10O-80GB, Voodoo, Tesla T4]\n"
    lines = problems(folder, text)
    assert len(lines) == 3
    assert "targets[2]: unknown GPU 'A10O-80GB'; did you mean A100" in lines[0]
    assert "targets[3]: unknown GPU 'Voodoo'" in lines[1]
    assert "targets[4]: GPU 'Tesla T4' is listed twice" in lines[2]


# The compact forms of the command line ---------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch,3,224,224", {"shape": ("batch", 3, 224, 224)}),
        (
            "ids=batch,128:int64<30522",
            {"name": "ids", "shape": ("batch", 128), "dtype": "int64", "high": 30522},
        ),
        (" x = batch , seq : bool ", {"name": "x", "shape": ("batch", "seq"), "dtype": "bool"}),
    ],
)
def test_a_compact_shape_is_parsed(text: str, expected: dict[str, object]) -> None:
    assert parse_shape_argument(text).model_dump(exclude_defaults=True) == expected


@pytest.mark.parametrize(
    "text",
    ["", ",", "3,", "0", "-1", "a=b=c", "=3", "a-b=3", "3:int63", "3:", "3:int64<", "3:int64<0",
     "3:int64<x", "3<5", "3:bool<2", "3:uint8<999", "x" * 2000 + "=", "\n", "3\n:::"],
)  # fmt: skip
def test_an_invalid_compact_shape_gives_one_line(text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_shape_argument(text)
    assert caught.value.message.startswith("input '")
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 300


@pytest.mark.parametrize(
    ("text", "kind", "target", "factory"),
    [
        ("timm:vit_tiny_patch16_224.augreg", "timm", "vit_tiny_patch16_224.augreg", None),
        ("transformers:google/bert", "transformers", "google/bert", None),
        ("a.b.c:d.e", "module", "a.b.c", "d.e"),
        ("net.py:Net", "python", "{folder}/net.py", "Net"),
        ("net.onnx", "onnx", "{folder}/net.onnx", None),
    ],
)
def test_a_source_is_parsed(
    folder: Path, text: str, kind: str, target: str, factory: str | None
) -> None:
    source = parse_source(text, folder)
    assert (source.kind, source.factory, source.text) == (kind, factory, text)
    assert source.target == target.format(folder=folder)


@pytest.mark.parametrize("text", ["", "vgg16", "nett.py:Net", "net.py", "timm:", "a\nb", "x.pth"])
def test_an_invalid_source_gives_one_line(folder: Path, text: str) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_source(text, folder)
    assert caught.value.message.startswith("source: ")
    assert caught.value.message.isprintable()


# The JSON Schema --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft7Validator:
    """A validator of manifests, itself valid draft-07."""
    jsonschema.Draft7Validator.check_schema(manifest_schema())
    return jsonschema.Draft7Validator(manifest_schema())


def parsed(folder: Path, text: str) -> Any:
    """The plain data of a YAML text, by our own reader."""
    file = folder / "s.yaml"
    file.write_text(text, encoding="utf-8")
    return yaml_reader.read_yaml(file).data


@pytest.mark.parametrize("text", [CONTRACT, EVERYTHING, GOOD])
def test_the_schema_accepts_valid_manifests(
    folder: Path, schema: jsonschema.Draft7Validator, text: str
) -> None:
    schema.validate(parsed(folder, text))


DETECTED_BY_READER_ONLY = (
    # the schema cannot check files or relations between keys
    *("names equal but for case", "names equal", "source without library", "source file absent"),
    *("source on the web", "source a folder", "weights absent", "logs absent", "an array absent"),
    *("a log in a list absent", "a glob without a match", "a range that ends first"),
    *("a mean without std", "a waiver until no day", "a waiver of nothing"),
    "a waiver of another budget",
    *(f"name of a device {name}" for name in ("con", "nul", "COM1", "Lpt9.v2", "a.")),
    *("dynamic dim unknown", "a dim misspelled", "a dim without size", "a dim without an input"),
    *("batch among dims", "two forms of input", "a keyword without name", "a keyword inside"),
    *(
        "a tuple of nothing",
        "a repeat of nothing",
        "input names equal",
        "low above high",
        "high beyond the dtype",
    ),
    *("high of integers a fraction", "high of booleans", "target twice", "inputs missing"),
    *("text that turns around", "a compact dtype", "values beside a range"),
    *("values that are too few", "values without a shape", "values of booleans"),
    *("a value that is a fraction", "a value beyond the dtype"),
    "batch a fraction",  # JSON Schema's 8.0 is an integer
    "version true",  # Python's jsonschema distinguishes true from 1, other validators may not
)


@pytest.mark.parametrize("case", [case for case in WRONG if case not in DETECTED_BY_READER_ONLY])
def test_the_schema_rejects_what_the_reader_rejects(
    folder: Path, schema: jsonschema.Draft7Validator, case: str
) -> None:
    assert not schema.is_valid(parsed(folder, WRONG[case][0]))


def test_every_key_of_the_schema_is_described() -> None:
    schema = manifest_schema()
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    parts = {"": schema, **schema["definitions"]}
    for definition in list(parts.values()):
        for long in (definition, *definition.get("anyOf", ())):
            for key, value in long.get("properties", {}).items():
                assert value.get("description"), key
    assert "$defs" not in json.dumps(schema)


# Random content --------------------------------------------------------------------------------

fast = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WORDS = [
    *("version", "title", "models", "name", "source", "inputs", "shape", "items", "fields"),
    *("value", "onnx", "batch", "budgets", "peak_memory@64", "training", "optimizer", "limits"),
    *("targets", "memory", "dims", "ignore", "logs", "loss", "weights", "dtype", "arguments"),
    *("torchvision:a", "net.py:f", "batch,3:int64<5", "float32", "sgd", "12 GiB", "30M"),
]
leaves = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS)
)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(WORDS) | st.text(), inner),
    max_leaves=25,
)


def raises_only_manifest_errors(folder: Path, content: bytes) -> None:
    """Load `content`; every error is a `ManifestError` whose lines begin with the file's name."""
    try:
        load(folder, content)
    except ManifestError as error:
        for line in error.message.split("\n"):
            assert line.startswith(f"{folder}/m.yaml")
            assert line.isprintable()


@fast
@given(content=st.binary())
def test_random_bytes_raise_nothing_but_manifest_errors(folder: Path, content: bytes) -> None:
    raises_only_manifest_errors(folder, content)


@fast
@given(text=st.text(alphabet="[]{}:,-?!&*|>'\"%@#\n ab1~<.", max_size=60))
def test_random_punctuation_raises_nothing_but_manifest_errors(folder: Path, text: str) -> None:
    raises_only_manifest_errors(folder, (GOOD + text).encode())


@fast
@given(data=st.data())
def test_a_damaged_manifest_raises_nothing_but_manifest_errors(
    folder: Path, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(EVERYTHING)))
    stop = data.draw(st.integers(start, min(start + 20, len(EVERYTHING))))
    middle = data.draw(st.text(alphabet="[]{}:,-#'\"\n a1~", max_size=5))
    raises_only_manifest_errors(folder, (EVERYTHING[:start] + middle + EVERYTHING[stop:]).encode())


@fast
@given(tree=trees)
def test_random_trees_raise_nothing_but_manifest_errors(folder: Path, tree: object) -> None:
    text = json.dumps(tree)  # JSON is YAML, but for numbers that are none
    raises_only_manifest_errors(folder, text.encode())
    raises_only_manifest_errors(folder, f"{GOOD}  onnx: {text}\n  arguments: {text}\n".encode())
    raises_only_manifest_errors(folder, with_input(text).encode())


@fast
@given(text=st.text() | st.from_regex(r"[a-z]*=?[a-z0-9,]*:?[a-z0-9]*<?[0-9]*", fullmatch=True))
def test_random_compact_shapes_raise_nothing_but_manifest_errors(text: str) -> None:
    with suppress(ManifestError):
        parse_shape_argument(text)


# Import cost ------------------------------------------------------------------------------------


def test_reading_a_manifest_imports_no_heavy_library(folder: Path) -> None:
    load(folder, CONTRACT)
    code = (
        "import sys; from pathlib import Path; from reportgen.manifest import load_manifest;"
        f"load_manifest(Path({str(folder / 'm.yaml')!r}));"
        "print(*({'torch', 'numpy', 'jinja2', 'rich', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_code_that_no_rule_has_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD + '  ignore: {LAY01: "typo"}\n')
    with pytest.raises(ManifestError):
        load_manifest(path)
    path.write_text(GOOD + '  ignore: {LAY009: "a typing error"}\n')
    with pytest.raises(
        ManifestError, match=r"7: models\[0\]\.ignore\.LAY009: there is no rule 'LAY009'"
    ):
        load_manifest(path, rule_codes=lambda: {"LAY001", "MEM001"})
    load_manifest(path)


def test_sections_of_the_manifest_are_names_of_sections(tmp_path: Path) -> None:
    path = tmp_path / "m.yaml"
    path.write_text("sections: [layers, memroy]\n" + GOOD)
    with pytest.raises(
        ManifestError, match=r"1: sections\[1\]: unknown section 'memroy'; did you mean 'memory'"
    ):
        load_manifest(path, section_names=lambda: ("layers", "memory"))
    path.write_text("sections: [memory]\n" + GOOD)
    assert load_manifest(path, section_names=lambda: ("layers", "memory")).sections == ("memory",)


@pytest.mark.parametrize(
    ("lines", "key"),
    [
        ('budgets: {"peak_memory@64": 1 GiB}\n', r"budgets\.peak_memory@64: needs a GPU"),
        ("  onnx: false\n  budgets: {latency_ms: 1}\n", r"budgets\.latency_ms: is measured on"),
    ],
)
def test_a_budget_that_nothing_can_judge_is_an_error(tmp_path: Path, lines: str, key: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(GOOD + lines)
    with pytest.raises(ManifestError, match=key):
        load_manifest(path)


def test_the_line_of_each_entry_is_known(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(
        "version: 1\ntitle: Two\nmodels:\n  # first\n  - {name: a, source: a.onnx}\n"
        "  - name: b\n    source: b.onnx\n"
    )
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).touch()
    assert load_manifest(file).lines == {"a": 5, "b": 6}
