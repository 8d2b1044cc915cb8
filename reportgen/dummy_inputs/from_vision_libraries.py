"""Candidate inputs of torchvision and timm models, by task and configured image size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import Candidate, tensor
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

# detectors resize images to the size in their name, such as ssd300, else to about 800
_DETECTION = (("300", 300), ("320", 320))
_DETECTION_SIZE = 800
_SEGMENTATION_SIZE = 520  # resize_size of torchvision's segmentation weights
_FLOW_SIZE = (520, 960)  # divisible by 8, as RAFT requires
_FRAMES = 16  # MViT takes 16 frames only, S3D at least 14


def torchvision_candidates(name: str, model: nn.Module) -> Iterator[Candidate]:
    """Images of the model's `image_size`, the size of the default weights, and common sizes."""
    from torchvision import models

    task = models.get_model_builder(name).__module__.removeprefix("torchvision.models.")
    area = task.split(".")[0]
    if area == "detection":
        yield _detection(name)
        return
    if area == "optical_flow":
        images = (tensor(key, "batch", 3, *_FLOW_SIZE) for key in ("image1", "image2"))
        yield Candidate(inputs=tuple(images))
        return
    default = _default_weights(models, name)
    fallback = _SEGMENTATION_SIZE if area == "segmentation" else 224
    sizes = [getattr(model, "image_size", None), _crop(default), fallback, 224, 299]
    frames = (_frames(default),) if area == "video" else ()
    for size in dict.fromkeys(s for s in sizes if isinstance(s, int)):
        yield Candidate(inputs=(tensor("x", "batch", 3, *frames, size, size),))


def _detection(name: str) -> Candidate:
    size = next((size for mark, size in _DETECTION if mark in name), _DETECTION_SIZE)
    # detectors expect images in 0-1 and normalize them
    image = tensor(None, 3, size, size, low=0.0, high=1.0)
    return Candidate(
        inputs=(InputSpec(name="images", items=(image,), per_sample=True),),
        notes=("a detector takes a list of images, one for each sample of the batch",),
    )


def _default_weights(models: Any, name: str) -> Any:
    return next((w for w in models.get_model_weights(name) if w.name == "DEFAULT"), None) or next(
        iter(models.get_model_weights(name)), None
    )


def _crop(weights: Any) -> int | None:
    if weights is None:
        return None
    transforms = weights.transforms()
    for key in ("crop_size", "resize_size"):
        size = getattr(transforms, key, None)
        if size:
            return int(size[0] if isinstance(size, list | tuple) else size)
    return None


def _frames(weights: Any) -> int:
    least = weights.meta.get("min_temporal_size", 1) if weights is not None else 1
    return max(_FRAMES, int(least or 1))


_SIZES = (224, 256, 288, 384, 64, 32)


def timm_candidates(model: nn.Module, arguments: dict[str, Any]) -> Iterator[Candidate]:
    """Images of the configured size, then common sizes; `img_size` and `in_chans` override it."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = config.get("input_size") or (3, 224, 224)
    channels = arguments.get("in_chans", channels)
    chosen = arguments.get("img_size")
    if chosen is not None:
        height, width = (chosen, chosen) if isinstance(chosen, int) else tuple(chosen)
    for size in dict.fromkeys([(height, width), *((s, s) for s in _SIZES)]):
        yield Candidate(inputs=(tensor("x", "batch", channels, *size),))
