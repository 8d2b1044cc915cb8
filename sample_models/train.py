"""Train LstmClassifier twice on generated sentences and log both runs for TensorBoard.

    python sample_models/train.py --output sample_models/runs

replaces OUTPUT/healthy and OUTPUT/overfitting: the same model and task, once with enough data,
warm-up, cosine decay and weight decay, once with few sentences and a constant learning rate.
Both take about a minute on one CPU core.
"""

from __future__ import annotations

import argparse
import logging
import math
import socket
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, cast

import torch
from lstm_classifier import LstmClassifier
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

CLASSES = 5
WORDS_PER_TOPIC = 400  # times 5 topics; LstmClassifier has room for 8000 words
MAX_LENGTH = 16
TOPIC_SHARE = 0.45  # of the words of a sentence; the others have a random topic
VALIDATION_SENTENCES = 512

# Larger records are written less often: both logs together stay under 300 kB.
SCALAR_INTERVAL = 5  # steps between records of lr, grad_norm and epoch
EVALUATIONS = 40
HISTOGRAMS = 10
PICTURES = 5

PALETTE = torch.tensor(
    [[31, 119, 180], [255, 127, 14], [44, 160, 44], [214, 39, 40], [148, 103, 189]],
    dtype=torch.uint8,
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Hyperparameters of one run; they are logged under these names."""

    name: str
    sentences: int
    steps: int
    batch: int = 32
    learning_rate: float
    warmup_steps: int
    cosine_decay: bool
    weight_decay: float
    seed: int = 0


RUNS = (
    Settings(
        name="healthy",
        sentences=32_000,
        steps=1000,
        learning_rate=2e-3,
        warmup_steps=50,
        cosine_decay=True,
        weight_decay=0.01,
    ),
    Settings(
        name="overfitting",
        sentences=2048,
        steps=600,
        learning_rate=3e-4,
        warmup_steps=0,
        cosine_decay=False,
        weight_decay=0.0,
    ),
)


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Word ids [N, T] and their mask [N, T] (1 for words, 0 for padding), labels [N]."""

    ids: Tensor
    mask: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, index: Tensor) -> Sentences:
        """The sentences at the positions `index`."""
        return Sentences(ids=self.ids[index], mask=self.mask[index], labels=self.labels[index])


def generate_sentences(count: int, seed: int) -> Sentences:
    """`count` sentences of 6 to 16 words, each labeled with the topic that it prefers.

    The rule to learn: the topic of a word is its id modulo 5. An embedding contains nothing about
    that, so the topic of each word has to be learned from the sentences in which it occurs.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (count, MAX_LENGTH)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    topics = torch.randint(CLASSES, shape, generator=generator)
    is_topical = torch.rand(shape, generator=generator) < TOPIC_SHARE
    topics = torch.where(is_topical, labels[:, None], topics)
    # Word frequencies as in natural text: about 1 / rank.
    frequencies = 1 / (10 + torch.arange(WORDS_PER_TOPIC, dtype=torch.float64))
    ranks = torch.multinomial(frequencies, count * MAX_LENGTH, True, generator=generator)
    lengths = torch.randint(6, MAX_LENGTH + 1, (count, 1), generator=generator)
    mask = (torch.arange(MAX_LENGTH) < lengths).long()
    ids = (CLASSES * ranks.view(shape) + topics) * mask
    return Sentences(ids=ids, mask=mask, labels=labels)


def batches(data: Sentences, settings: Settings) -> Iterator[Sentences]:
    """`settings.steps` batches; the order is shuffled in each epoch."""
    generator = torch.Generator().manual_seed(settings.seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(settings.steps):
        if len(order) < settings.batch:
            order = torch.randperm(len(data), generator=generator)
        yield data.rows(order[: settings.batch])
        order = order[settings.batch :]


def learning_rate(step: int, settings: Settings) -> float:
    """Learning rate of step 1, 2, ...: linear warm-up, then constant or half a cosine down to 0."""
    if step < settings.warmup_steps:
        return settings.learning_rate * step / settings.warmup_steps
    if not settings.cosine_decay:
        return settings.learning_rate
    progress = (step - settings.warmup_steps) / (settings.steps - settings.warmup_steps)
    return settings.learning_rate * (1 + math.cos(math.pi * progress)) / 2


def is_due(step: int, times: int, steps: int) -> bool:
    """Whether an action done `times` times in a run of `steps` steps is done after `step`."""
    return step % (steps // times) == 0


def forward(model: nn.Module, data: Sentences) -> Tensor:
    """Logits [N, 5]."""
    logits: Tensor = model(input_ids=data.ids, attention_mask=data.mask)["logits"]
    return logits


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of correct predictions, 0 to 1."""
    return (logits.argmax(dim=1) == labels).double().mean().item()


def draw_confusion(predicted: Tensor, labels: Tensor) -> Tensor:
    """Confusion matrix as RGB bytes [3, 120, 120]: row = label, column = prediction."""
    counts = torch.bincount(labels * CLASSES + predicted, minlength=CLASSES**2).float()
    shares = counts.view(CLASSES, CLASSES) / counts.view(CLASSES, CLASSES).sum(1, keepdim=True)
    white, blue = torch.tensor([255.0, 255, 255]), torch.tensor([8.0, 48, 107])
    colors = torch.lerp(white[:, None, None], blue[:, None, None], shares)
    return colors.byte().repeat_interleave(24, dim=1).repeat_interleave(24, dim=2)


def draw_class_map(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Sentences as dots in a pentagon, RGB bytes [3, 144, 144].

    Each corner is one class: a dot lies at a corner if the model is certain, in the center if all
    classes are equally likely. Its color is the true class.
    """
    angles = torch.arange(CLASSES) * 2 * math.pi / CLASSES
    corners = torch.stack([-angles.cos(), angles.sin()], dim=1)
    rows, columns = (probabilities @ corners * 68 + 71).long().unbind(dim=1)
    image = torch.full((144, 144, 3), 255, dtype=torch.uint8)
    for down, right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        image[rows + down, columns + right] = PALETTE[labels]
    return image.permute(2, 0, 1)


class RunLog:
    """Writes the records of one training run to one TensorBoard event file."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        # A second event file in the folder would be a second attempt of the same run.
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self.settings = settings
        self.writer = SummaryWriter(str(folder))
        self.events = cast("Any", self.writer.file_writer)  # torch declares it as None
        # add_hparams would open a second event file; its three records go to this one instead.
        metrics = {"val/loss": 0, "val/acc": 0}
        experiment, start, self.session_end = hparams(asdict(settings), metrics)  # type: ignore[no-untyped-call]
        self.events.add_summary(experiment)
        self.events.add_summary(start)
        lines = [f"| {key} | {value} |" for key, value in asdict(settings).items()]
        table = "\n".join(["| setting | value |", "| --- | --- |", *lines])
        self.writer.add_text("settings", table)

    def training(self, step: int, loss: float, rate: float, gradient_norm: float) -> None:
        """The scalars of one training step; the epoch is a fraction, as Hugging Face writes it."""
        self.writer.add_scalar("train/loss", loss, step)
        if step % SCALAR_INTERVAL == 0:
            epoch = step * self.settings.batch / self.settings.sentences
            self.writer.add_scalar("lr", rate, step)
            self.writer.add_scalar("grad_norm", gradient_norm, step)
            self.writer.add_scalar("epoch", epoch, step)

    def histograms(self, step: int, model: LstmClassifier) -> None:
        """Two weights and a gradient; torch's default bins would take 10 kB per record."""
        recurrent = model.lstm.weight_hh_l1
        self.writer.add_histogram("weights/head", model.head.weight, step, bins=30)
        self.writer.add_histogram("weights/lstm_hh_l1", recurrent, step, bins=30)
        self.writer.add_histogram("gradients/lstm_hh_l1", recurrent.grad, step, bins=30)

    def evaluation(self, step: int, train_accuracy: float, logits: Tensor, labels: Tensor) -> None:
        """The scalars of one evaluation; logits [N, 5] and labels [N] are of the validation set."""
        self.writer.add_scalar("train/acc", train_accuracy, step)
        self.writer.add_scalar("val/loss", cross_entropy(logits, labels).item(), step)
        self.writer.add_scalar("val/acc", accuracy(logits, labels), step)

    def pictures(self, step: int, logits: Tensor, labels: Tensor) -> None:
        """Confusion matrix, class map and the precision-recall curve over all classes."""
        probabilities = logits.softmax(dim=1)
        self.writer.add_image("confusion", draw_confusion(logits.argmax(dim=1), labels), step)
        self.writer.add_image("class_map", draw_class_map(probabilities, labels), step)
        is_class = one_hot(labels, CLASSES)
        self.writer.add_pr_curve("micro_average", is_class, probabilities, step, num_thresholds=32)

    def close(self) -> None:
        """Finish the file; the host name is removed from the file name."""
        self.events.add_summary(self.session_end)
        self.writer.close()
        folder = Path(self.writer.log_dir)
        for file in folder.glob("events.out.tfevents.*"):
            file.rename(folder / file.name.replace(f".{socket.gethostname()}.", ".host."))


def update(
    model: LstmClassifier, optimizer: torch.optim.Optimizer, loss: Tensor, rate: float
) -> float:
    """One optimizer step; returns the norm of the gradient before it is clipped to 1."""
    optimizer.param_groups[0]["lr"] = rate
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
    optimizer.step()
    return norm.item()


@torch.no_grad()
def evaluate(
    model: LstmClassifier, data: Sentences, log: RunLog, step: int, train_accuracy: float
) -> None:
    """Validate after `step` steps; the slower records are written at some of the evaluations."""
    logits = forward(model, data)
    log.evaluation(step, train_accuracy, logits, data.labels)
    if is_due(step, HISTOGRAMS, log.settings.steps):
        log.histograms(step, model)
    if is_due(step, PICTURES, log.settings.steps):
        log.pictures(step, logits, data.labels)


def train(settings: Settings, output: Path) -> None:
    """Train one model and log it to OUTPUT/NAME."""
    torch.manual_seed(settings.seed)
    model = LstmClassifier(classes=CLASSES)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=settings.weight_decay)
    data = generate_sentences(settings.sentences, seed=1)
    validation = generate_sentences(VALIDATION_SENTENCES, seed=2)
    log = RunLog(output / settings.name, settings)
    accuracies: list[float] = []  # of the batches since the last evaluation
    for step, batch in enumerate(batches(data, settings), start=1):
        rate = learning_rate(step, settings)
        logits = forward(model, batch)
        loss = cross_entropy(logits, batch.labels)
        gradient_norm = update(model, optimizer, loss, rate)
        log.training(step, loss.item(), rate, gradient_norm)
        accuracies.append(accuracy(logits, batch.labels))
        if is_due(step, EVALUATIONS, settings.steps):
            evaluate(model, validation, log, step, fmean(accuracies))
            accuracies.clear()
    log.close()


def main() -> None:
    """Parse the command line and write both runs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the logs")
    output = parser.parse_args().output
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    torch.set_num_threads(1)  # sums in one order: the same losses in each run of this script
    for settings in RUNS:
        train(settings, output)
        logging.info("%s: %d steps written to %s", settings.name, settings.steps, output)


if __name__ == "__main__":
    main()
