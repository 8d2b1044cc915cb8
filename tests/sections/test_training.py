"""The training section says why it is not there."""

from __future__ import annotations

from pathlib import Path

from factories import make_study
from torch import nn

from reportgen.chapter import Skipped
from reportgen.manifest import Logs
from reportgen.sections import training


def test_without_logs_it_is_skipped(tmp_path: Path) -> None:
    outcome = training.examine(make_study(nn.Identity(), "x=batch,2", folder=tmp_path))
    assert outcome == Skipped(reason="the manifest names no logs for this model")


def test_logs_that_nobody_reads_yet_are_said_to_be_unread(tmp_path: Path) -> None:
    study = make_study(nn.Identity(), "x=batch,2", folder=tmp_path, logs=Logs(tensorboard=tmp_path))
    outcome = training.examine(study)
    assert isinstance(outcome, Skipped)
    assert "not part of this version" in outcome.reason
