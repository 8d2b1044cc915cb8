"""What tags say: role, family, direction, kind; and which curves are pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen.sections.training.curve import Curve
from reportgen.sections.training.metric_names import (
    describe_tag,
    is_return,
    pair_curves,
    split_words,
)

# tag: role, family, direction, whether it should improve
METRICS = {
    "val/acc": ("validation", "acc", "higher", True),
    "val_loss": ("validation", "loss", "lower", True),
    "eval_g0_loss": ("validation", "g0_loss", "lower", True),
    "train/box_loss": ("train", "box_loss", "lower", True),
    "val/box_loss": ("validation", "box_loss", "lower", True),
    "metrics/mAP50(B)": ("none", "metrics/map50_b", "higher", True),
    "metrics/mAP50-95(B)": ("none", "metrics/map50_95_b", "higher", True),
    "train/epoch_loss": ("train", "loss", "lower", True),
    "validation/epoch_loss": ("validation", "loss", "lower", True),
    "epoch_loss": ("none", "loss", "lower", True),
    "evaluation_loss_vs_iterations": ("validation", "loss", "lower", True),
    "rollout/ep_rew_mean": ("none", "rollout/ep_rew_mean", "higher", True),
    "charts/episodic_return": ("none", "charts/episodic_return", "higher", True),
    "Loss/train": ("train", "loss", "lower", True),
    "Accuracy/test": ("validation", "accuracy", "higher", True),
    "loss/train": ("train", "loss", "lower", True),
    "losses/train": ("train", "losses", "lower", True),
    "loss/box": ("none", "loss/box", "lower", True),
    "loss (train)": ("train", "loss", "lower", True),
    "perplexity": ("none", "perplexity", "lower", True),
    "word_error_rate": ("none", "word_error_rate", "lower", True),
    "f1": ("none", "f1", "higher", True),
    "F1Score": ("none", "f1score", "higher", True),
    "R2": ("none", "r2", "higher", True),
    "top5_acc": ("none", "top5_acc", "higher", True),
    "acc1": ("none", "acc1", "higher", True),
    "bbox/AP50": ("none", "bbox/ap50", "higher", True),
    "rougeL": ("none", "rougel", "higher", True),
    "fid50k_full": ("none", "fid50k_full", "lower", True),
    "train_loss_step": ("train", "loss", "lower", True),
    "train_loss_epoch": ("train", "loss", "lower", True),
    "trainLoss": ("train", "loss", "lower", True),
    "valLoss": ("validation", "loss", "lower", True),
    "train/val_loss": ("validation", "loss", "lower", True),
    "eval/train_loss": ("train", "loss", "lower", True),
    "dice_loss": ("none", "dice_loss", "lower", True),
    "accuracy_error": ("none", "accuracy_error", "lower", True),
    "MSELoss": ("none", "mseloss", "lower", True),
    "cross_entropy": ("none", "cross_entropy", "lower", True),
    "log_likelihood": ("none", "log_likelihood", "higher", True),
    "negative_log_likelihood": ("none", "negative_log_likelihood", "lower", True),
    "loss_box_reg": ("none", "loss_box_reg", "lower", True),
    "losses/value_loss": ("none", "losses/value_loss", "lower", False),
    "train/entropy_loss": ("train", "entropy_loss", "lower", False),
    "d_loss": ("none", "d_loss", "lower", False),
    "loss_G": ("none", "loss_g", "lower", False),
    "lossD": ("none", "lossd", "lower", False),
    "Loss/D_train": ("train", "loss/d", "lower", False),
    "qf1_loss": ("none", "qf1_loss", "lower", False),
    "reg_loss": ("none", "reg_loss", "lower", False),
    "losses/approx_kl": ("none", "losses/approx_kl", "none", False),
    "losses/explained_variance": ("none", "losses/explained_variance", "none", False),
    "val_std_dev": ("validation", "std_dev", "none", False),
    "lossless": ("none", "lossless", "none", False),
    "accumulate": ("none", "accumulate", "none", False),
    "remap": ("none", "remap", "none", False),
    "intrainsic": ("none", "intrainsic", "none", False),
    "train": ("train", "train", "none", False),
    "손실/train": ("train", "손실", "none", False),
    "": ("none", "", "none", False),
}
KINDS = {
    "lr": "learning rate",
    "lr/pg0": "learning rate",
    "lr-Adam": "learning rate",
    "lr-AdamW/pg1": "learning rate",
    "learning_rate": "learning rate",
    "train/learning_rate": "learning rate",
    "LearningRate": "learning rate",
    "grad_norm": "gradient norm",
    "grad_2.0_norm_total": "gradient norm",
    "train/gnorm": "gradient norm",
    "time/fps": "other",
    "epoch": "other",
    "eval/runtime": "other",
    "eval_g0_samples_per_second": "other",
    "total_flos": "other",
    "loss_time": "other",
    "data_time": "other",
    "gpu_mem": "other",
    "step": "other",
    "alr": "metric",
    "slr_rate": "metric",
}


def make_curve(tag: str, points: int = 10) -> Curve:
    zeros = np.zeros(points)
    return Curve(tag=tag, name=describe_tag(tag), steps=zeros, values=zeros, times=zeros)


def pairs(*tags: str) -> list[tuple[str, str]]:
    return pair_curves({tag: make_curve(tag) for tag in tags})


@pytest.mark.parametrize("tag", METRICS)
def test_a_metric_is_read_from_its_words(tag: str) -> None:
    name = describe_tag(tag)
    assert (name.role, name.family, name.direction, name.trend) == METRICS[tag]
    assert name.kind == "metric"


@pytest.mark.parametrize("tag", KINDS)
def test_what_is_no_metric_has_no_trend(tag: str) -> None:
    name = describe_tag(tag)
    assert name.kind == KINDS[tag]
    assert not name.trend
    assert name.direction == "none"


def test_the_manifest_decides_the_direction_by_tag_or_family() -> None:
    assert describe_tag("x/score_gap", {"x/score_gap": "lower"}).direction == "lower"
    assert describe_tag("val/loss", {"loss": "higher"}).direction == "higher"
    assert describe_tag("gap", {"gap": "higher"}).trend
    silenced = describe_tag("train/loss", {"train/loss": "none"})
    assert (silenced.direction, silenced.trend) == ("none", False)
    judged = describe_tag("time/fps", {"time/fps": "higher"})
    assert (judged.kind, judged.trend) == ("metric", True)


def test_train_and_validation_of_one_metric_are_a_pair() -> None:
    assert pairs("train/loss", "val/loss") == [("train/loss", "val/loss")]
    assert pairs("Loss/train", "val_loss") == [("Loss/train", "val_loss")]
    assert pairs("train/epoch_loss", "validation/epoch_loss") == [
        ("train/epoch_loss", "validation/epoch_loss")
    ]
    assert pairs("train/box_loss", "train/cls_loss", "val/cls_loss") == [
        ("train/cls_loss", "val/cls_loss")
    ]


def test_a_metric_without_role_counts_as_train() -> None:
    assert pairs("loss", "eval_loss") == [("loss", "eval_loss")]
    assert pairs("loss", "train_loss", "eval_loss") == [("train_loss", "eval_loss")]


def test_every_evaluation_set_has_its_pair() -> None:
    assert pairs("loss", "eval_g0_loss", "eval_g1_loss") == [
        ("loss", "eval_g0_loss"),
        ("loss", "eval_g1_loss"),
    ]


def test_a_metric_without_partner_is_left_out() -> None:
    assert pairs("train/loss", "val/acc") == []
    assert pairs("train/acc", "val/acc_loss") == []


def test_of_several_train_curves_the_longest_is_the_partner() -> None:
    curves = {
        "train_loss_epoch": make_curve("train_loss_epoch", 10),
        "train_loss_step": make_curve("train_loss_step", 500),
        "val_loss": make_curve("val_loss", 10),
    }
    assert pair_curves(curves) == [("train_loss_step", "val_loss")]


def test_returns_of_episodes_are_known() -> None:
    assert is_return("rollout/ep_rew_mean")
    assert is_return("charts/episodic_return")
    assert not is_return("train/reward_loss")


@given(tag=st.text(max_size=30))
def test_no_tag_is_too_strange(tag: str) -> None:
    name = describe_tag(tag)
    assert name.trend <= (name.direction != "none")
    assert all(split_words(tag))


@given(
    role=st.sampled_from(["train", "val", "test", "eval", "training", "validation"]),
    metric=st.sampled_from(["loss", "acc", "box_loss", "top5_acc"]),
    joint=st.sampled_from(["/", "_", "-", " ", "."]),
    first=st.booleans(),
)
def test_the_family_does_not_depend_on_where_the_role_stands(
    role: str, metric: str, joint: str, first: bool
) -> None:
    tag = joint.join([role, metric] if first else [metric, role])
    assert describe_tag(tag).family == metric
    assert describe_tag(tag).role == ("train" if role.startswith("train") else "validation")
