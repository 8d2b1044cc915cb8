"""What a person does without reportgen: one tool after the other for one sample model.

    python benchmarks/by_hand.py resnet50

Prints the seconds of each part. Needs torchviz and torchview beside reportgen's packages.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SAMPLE_MODELS = Path(__file__).resolve().parents[1] / "sample_models"
SEED = 0


def images(batch: int) -> dict[str, Any]:
    import torch

    return {"x": torch.randn(batch, 3, 224, 224)}


def vectors(batch: int) -> dict[str, Any]:
    import torch

    return {"x": torch.randn(batch, 8)}


def sentences(batch: int) -> dict[str, Any]:
    import torch

    ids = torch.randint(8000, (batch, 64))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def sentence_pairs(batch: int) -> dict[str, Any]:
    import torch

    return {
        "source": torch.randint(6000, (batch, 32)),
        "target": torch.randint(6000, (batch, 24)),
    }


def from_torchvision(name: str) -> Any:
    from torchvision import models

    return models.get_model(name, weights=None)


def from_file(module: str, factory: str) -> Any:
    sys.path.insert(0, str(SAMPLE_MODELS))
    return getattr(__import__(module), factory)()


MODELS: dict[str, tuple[Callable[[], Any], Callable[[int], dict[str, Any]]]] = {
    "vgg16": (functools.partial(from_torchvision, "vgg16"), images),
    "resnet50": (functools.partial(from_torchvision, "resnet50"), images),
    "vit_b_16": (functools.partial(from_torchvision, "vit_b_16"), images),
    "w0_tanh": (functools.partial(from_file, "w0_tanh", "w0_tanh"), vectors),
    "lstm_classifier": (
        functools.partial(from_file, "lstm_classifier", "LstmClassifier"),
        sentences,
    ),
    "translator": (functools.partial(from_file, "translator", "Translator"), sentence_pairs),
}
"""The constructor of each sample model, and its inputs for a batch."""


class Parts:
    """The seconds of each part."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.lines.append(f"{name} {time.perf_counter() - start:.1f}")


def first_tensor(output: Any) -> Any:
    return next(iter(output.values())) if isinstance(output, dict) else output


def export(model: Any, inputs: dict[str, Any], path: str) -> None:
    import torch

    batch = torch.export.Dim("batch")
    torch.onnx.export(
        model,
        tuple(inputs.values()),
        path,
        dynamo=True,
        verbose=False,
        dynamic_shapes=tuple({0: batch} for _ in inputs),
    )


def check_export(model: Any, inputs: dict[str, Any], path: str) -> None:
    import numpy
    import onnx
    import onnxruntime
    import torch

    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    arrays = {
        item.name: value.numpy()
        for item, value in zip(session.get_inputs(), inputs.values(), strict=True)
    }
    with torch.no_grad():
        expected = first_tensor(model(*inputs.values())).numpy()
    numpy.testing.assert_allclose(session.run(None, arrays)[0], expected, rtol=1e-2, atol=1e-3)


def draw(model: Any, inputs: dict[str, Any], one: dict[str, Any], folder: str) -> list[str]:
    from torchview import draw_graph
    from torchviz import make_dot

    output = first_tensor(model(*inputs.values()))
    pictures = {
        "autograd": make_dot(output, params=dict(model.named_parameters())),
        "modules": draw_graph(
            model, input_data=tuple(one.values()), expand_nested=True
        ).visual_graph,
    }
    found = []
    for name, picture in pictures.items():
        picture.format = "svg"
        text = Path(picture.render(f"{folder}/{name}")).read_text(encoding="utf-8")
        found.append(text[text.index("<svg") :])
    return found


def write_pages(name: str, table: Any, pictures: list[str], folder: str) -> None:
    import weasyprint

    rows = "".join(
        f"<tr><td>{layer.depth}<td>{layer.class_name}<td>{layer.var_name}"
        f"<td>{layer.output_size}<td>{layer.num_params}"
        for layer in table.summary_list
    )
    page = f"<html><h1>{name}</h1><table>{rows}</table>{''.join(pictures)}</html>"
    Path(folder, "report.html").write_text(page, encoding="utf-8")
    weasyprint.HTML(string=page).write_pdf(f"{folder}/report.pdf")


def main(name: str) -> None:
    """Run every tool on the model called `name`."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    start, parts = time.perf_counter(), Parts()
    with parts.part("import"):
        import torch
        import torchinfo
    make_model, make_inputs = MODELS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.onnx")
        torch.manual_seed(SEED)
        with parts.part("load"):
            model = make_model().eval()
            inputs, one = make_inputs(2), make_inputs(1)
        with parts.part("torchinfo"):
            table = torchinfo.summary(model, input_data=tuple(one.values()), verbose=0)
        with parts.part("export"):
            export(model, inputs, path)
        with parts.part("parity"):
            check_export(model, inputs, path)
        with parts.part("graphs"):
            pictures = draw(model, inputs, one, folder)
        with parts.part("page and PDF"):
            write_pages(name, table, pictures, folder)
    print(", ".join(parts.lines), f"total {time.perf_counter() - start:.1f}")


if __name__ == "__main__":
    main(sys.argv[1])
