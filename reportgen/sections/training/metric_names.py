"""Derives from a tag: train or validation, direction of improvement, and the paired curve.

A tag is split into words at `/`, `_`, `-`, `.`, blanks, other punctuation and changes of case; only
whole words count, so that "lossless", "accumulate" and "remap" mean nothing. The words after the
last `/` decide; those before it are looked at where these say nothing (`Loss/train`, `loss/box`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from reportgen.sections.training.curve import Curve, Kind, MetricName
from reportgen.sections.training.result import Direction, Role


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TRAIN = {"train", "training", "tr"}
_VALIDATION = {"val", "valid", "validation", "eval", "evaluation", "dev", "test", "testing"}
_UNITS = {"step", "epoch"}  # of `train_loss_step` and `train_loss_epoch`

_LOWER = _words(
    "loss err error errors wer cer ter perplexity ppl mae mse rmse mape smape fid kid lpips nll "
    "bpb bpc bce xent crossentropy rmsle epe misclassification"
)
_HIGHER = _words(
    "acc accuracy f1 fscore auc auroc roc auprc map ap iou miou dice jaccard bleu rouge meteor "
    "r2 psnr ssim snr reward rewards rew return returns score scores precision recall ndcg mrr "
    "hits em mcc kappa success winrate likelihood chrf top1 top5 topk"
)
# Losses of GANs, of reinforcement learning and of balancing terms need not fall.
_NO_TREND = _words(
    "disc discriminator gen generator adv adversarial policy actor critic entropy kl td qf vf "
    "pg pi ent alpha baseline aux auxiliary balance balancing router commit commitment codebook "
    "regularization regularizer penalty value values"
)
_BOXES = {"box", "boxes", "bbox", "rpn", "rcnn"}  # whose "reg" is a regression, not a penalty
_MEASURES = _words(
    "time times second seconds sec secs ms duration runtime eta fps sps throughput memory mem "
    "gpu cpu vram flops flos tokens samples examples epoch epochs step steps iter iters iteration "
    "iterations timestep timesteps lr momentum speed utilization temperature batches"
)
_GRADIENT = {"grad", "grads", "gradient", "gradients"}
_NORM = {"norm", "norms"}
# mAP first: it would otherwise be split into m and AP. Then capitals, words with digits, digits,
# and letters of other alphabets.
_WORD = re.compile(r"mAP(?![a-z])|[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+|[^\W\d_]+")
_VERSUS = re.compile(r"_vs_(iterations|steps|epochs)$")  # as Keras ends its tags
_JOINTS = re.compile(r"[^\w/]+|_+")


def describe_tag(tag: str, directions: Mapping[str, Direction] | None = None) -> MetricName:
    """The properties of the metric logged as `tag`.

    Args:
        tag: as the log has it.
        directions: the manifest's, by tag or by family; they take precedence over the tag.
    """
    plain = _VERSUS.sub("", tag)
    words, family = split_words(plain), _family(plain)
    direction, trend = _direction(plain)
    kind = _kind(words, split_words(_last_segment(plain)), direction)
    if kind != "metric":
        direction, trend = "none", False
    given = (directions or {}).get(tag, (directions or {}).get(family))
    if given is not None:
        # A metric that the manifest gives a direction is meant to be judged, whatever its name.
        kind, direction, trend = "metric", given, given != "none"
    return MetricName(role=_role(words), family=family, direction=direction, kind=kind, trend=trend)


def pair_curves(curves: Mapping[str, Curve]) -> list[tuple[str, str]]:
    """(train tag, validation tag) of the same metric, for every validation tag that has a partner.

    Where a run names no train metric of that family, one without role counts as train (`loss`
    beside `eval_loss`); an evaluation set named in the tag is left out (`eval_g0_loss`). Of
    several candidates the one with the most points is taken.

    Args:
        curves: by tag.
    """
    metrics = [curve for curve in curves.values() if curve.name.kind == "metric"]
    partners: dict[str, Curve] = {}
    for role in ("train", "none"):
        of_role = [curve for curve in metrics if curve.name.role == role]
        for curve in sorted(of_role, key=lambda curve: -len(curve.steps)):
            partners.setdefault(curve.name.family, curve)
    pairs = []
    for curve in metrics:
        if curve.name.role == "validation":
            partner = _partner(curve.name, partners)
            if partner is not None:
                pairs.append((partner.tag, curve.tag))
    return pairs


def split_words(tag: str) -> list[str]:
    """The words of `tag` in lower case: `metrics/mAP50(B)` is metrics, map, 50, b."""
    return [word for match in _WORD.finditer(tag) for word in _parts(match.group())]


def is_return(tag: str) -> bool:
    """Whether `tag` is the return of an episode, as reinforcement learning logs it."""
    words = set(split_words(tag))
    episodes = {"ep", "episode", "episodic", "rollout", "episodes"}
    return bool(words & episodes) and bool(words & {"rew", "reward", "return", "returns"})


def _parts(word: str) -> Iterator[str]:
    """`word` in lower case; digits at its end are one of their own unless it is known with them."""
    lower = word.lower()
    if lower in _HIGHER:
        yield lower
        return
    name = lower.rstrip("0123456789")
    yield from filter(None, (name, lower[len(name) :]))


def _partner(name: MetricName, partners: Mapping[str, Curve]) -> Curve | None:
    """The train curve of `name`'s family, or of its longest ending (`g0_loss` -> `loss`)."""
    family = name.family
    while family:
        partner = partners.get(family)
        if partner is not None and partner.name.direction == name.direction:
            return partner
        family = re.sub(r"^[^/_]*[/_]*", "", family)
    return None


def _role(words: list[str]) -> Role:
    """The role by the last word that has one: `eval/train_loss` is a train metric."""
    role: Role = "none"
    for before, word in zip(["", *words], words, strict=False):
        if word in _TRAIN:
            role = "train"
        elif _is_validation(before, word):
            role = "validation"
    return role


def _is_validation(before: str, word: str) -> bool:
    # `std_dev` is a deviation, not a development set.
    return word in _VALIDATION and not (word == "dev" and before in ("std", "stddev"))


def _family(tag: str) -> str:
    """`tag` without its role and unit, in lower case, words joined by `_` and `/`."""
    segments = []
    for segment in tag.split("/"):
        kept = _without_role(segment)
        if not kept and not split_words(segment):
            kept = segment.lower()  # an emoji or a sign is a name, too
        if kept:
            segments.append(kept)
    joined = "/".join(segments)
    # Lightning logs `train_loss_step` and `train_loss_epoch`: one metric, one plot.
    rest = re.sub(r"(^|/)(step|epoch)_(?=.)|_(step|epoch)(?=$|/)", r"\1", joined)
    return rest or tag.lower()


def _without_role(segment: str) -> str:
    before, pieces, end = "", [], 0
    for match in _WORD.finditer(segment):
        word = match.group().lower()
        if word in _TRAIN or _is_validation(before, word):
            pieces.append(segment[end : match.start()] + " ")
            end = match.end()
        before = word
    pieces.append(segment[end:])
    return _JOINTS.sub("_", "".join(pieces)).strip("_").lower()


def _last_segment(tag: str) -> str:
    """The last part between slashes that holds more than a role or a unit; else the whole tag."""
    for segment in reversed(tag.split("/")):
        if set(split_words(segment)) - _TRAIN - _VALIDATION - _UNITS:
            return segment
    return tag


def _direction(tag: str) -> tuple[Direction, bool]:
    """(which way the metric improves, whether it should at all)."""
    last = _last_segment(tag)
    words = split_words(last)
    direction = _direction_of(words, alone="loss" not in words)
    if direction == "none":
        words = split_words(tag)
        direction = _direction_of([word for word in words if word != "losses"], alone=False)
    return direction, direction != "none" and not _lacks_trend(words)


def _direction_of(words: Iterable[str], *, alone: bool) -> Direction:
    """Words for "lower" take precedence: `dice_loss` and `accuracy_error` should fall."""
    found = set(words)
    if found & _LOWER or {"cross", "entropy"} <= found or (alone and "losses" in found):
        return "lower"
    if {"negative", "likelihood"} <= found:
        return "lower"
    return "higher" if found & _HIGHER else "none"


def _lacks_trend(words: list[str]) -> bool:
    """Whether these words name a loss that need not fall."""
    found = set(words)
    # Cross-entropy should fall; the entropy of a policy need not.
    if {"cross", "entropy"} <= found:
        found -= {"entropy"}
    if "reg" in found and not found & _BOXES:
        return True
    if {"loss", "losses"} & found and any(
        word == "q" or (word in ("d", "g", "z") and not after.isdigit())
        for word, after in zip(words, [*words[1:], ""], strict=True)
    ):
        return True  # `d_loss`, but not `eval_g0_loss`, where a set is numbered
    return bool(found & _NO_TREND)


def _kind(words: list[str], last: list[str], direction: Direction) -> Kind:
    found = set(words)
    if "lr" in found or "learningrate" in found or {"learning", "rate"} <= found:
        return "learning rate" if not set(last) & _LOWER else "metric"
    if "gnorm" in found or (found & _GRADIENT and found & _NORM):
        return "gradient norm"
    measures = [word for word in last if word in _MEASURES]
    if measures and (direction == "none" or _is_measure(last)):
        return "other"
    return "metric"


def _is_measure(last: list[str]) -> bool:
    """Whether the last word is a measure other than a unit: `loss_time`, not `loss_epoch`."""
    return bool(last) and last[-1] in _MEASURES - _UNITS
