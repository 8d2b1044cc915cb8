"""Images and videos for transformers models: whole, in tiles, or as rows of patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any

from reportgen.dummy_inputs.candidate import filled, fixed_values, tensor
from reportgen.dummy_inputs.config_sizes import Sizes
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_GRID = 4  # patches in time, height and width; even, so that 2 × 2 patches can be merged
_SIDES = (224, 384, 512, 64, 1536)
_CHANNELS = ("num_channels", "in_channels", "in_chans", "num_image_channels")
_FRAMES = ("num_frames", "frames_per_clip", "num_video_frames")


def pixels(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A batch of images; videos first if the configuration has a number of frames."""
    channels = sizes.vision(*_CHANNELS) or 3
    height, width = _side(sizes)
    frames = sizes.vision(*_FRAMES)
    patches = rows(name, sizes)
    if frames and "image_grid_thw" not in name:
        yield tensor(name, "batch", frames, channels, height, width, keyword=True)
    if patches is not None:
        yield patches
    yield tensor(name, "batch", channels, height, width, keyword=True)
    yield tensor(name, "batch", 1, channels, height, width, keyword=True)
    for size in _SIDES:
        yield tensor(name, "batch", channels, size, size, keyword=True)
    yield tensor(name, "batch", 2, channels, height, width, keyword=True)
    yield tensor(name, "batch", 1, 2, channels, height, width, keyword=True)
    # Llama 3.2 Vision (mllama): images, tiles of each image
    yield tensor(name, "batch", 1, sizes.vision("max_num_tiles") or 4, channels, height, width,
                 keyword=True)  # fmt: skip
    patch = sizes.vision("patch_size", "spatial_patch_size")
    if patch is not None:
        yield tensor(name, "batch", _GRID**2, channels * patch * patch, keyword=True)
        yield tensor(name, _GRID**3, channels, patch, patch, keyword=True)
        yield tensor(name, 1, _GRID**3, channels, patch, patch, keyword=True)


def video(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A batch of videos."""
    channels = sizes.vision(*_CHANNELS) or 3
    height, width = sizes.pair("image_size") or sizes.pair("crop_size") or (224, 224)
    frames = sizes.vision(*_FRAMES) or 16
    patches = rows(name, sizes)
    if patches is not None:
        yield patches
    yield tensor(name, "batch", frames, channels, height, width, keyword=True)
    yield tensor(name, "batch", 2, channels, height, width, keyword=True)


def rows(name: str, sizes: Sizes) -> InputSpec | None:
    """Images as rows of patches, for models that also take the grid of patches."""
    patch = sizes.vision("patch_size", "spatial_patch_size")
    together = sizes.vision("temporal_patch_size")
    if patch is None or together is None or sizes.vision("spatial_merge_size") is None:
        return None
    channels = sizes.vision(*_CHANNELS) or 3
    return tensor(name, _GRID**3, channels * together * patch * patch, keyword=True)


def grid(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    """The grid of patches of one image in time, height and width, matching `rows`."""
    if name.endswith("hw") and "thw" not in name:
        yield filled(name, 1, 2, value=_GRID, keyword=True)
        return
    yield filled(name, 1, 3, value=_GRID, keyword=True)
    # GLM-4V and HunYuan-VL support images only, whose time is 1; the product is the same
    yield fixed_values(name, 1, 3, values=(1, _GRID, _GRID**2))


def image_sizes(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """Height and width of each original image in pixels."""
    yield filled(name, "batch", 2, value=_side(sizes)[0], keyword=True)
    yield filled(name, "batch", 1, 2, value=_side(sizes)[0], keyword=True)


def patch_counts(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """Height and width of each image in patches."""
    patch = sizes.vision("patch_size", "spatial_patch_size") or 16
    for count in dict.fromkeys([_GRID, max(1, _side(sizes)[0] // patch), 14]):
        yield filled(name, "batch", 2, value=count, dtype="int64", keyword=True)


def patch_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A mask of pixels or patches without padding."""
    height, width = _side(sizes)
    yield filled(name, "batch", height, width, value=1, keyword=True)
    yield filled(name, "batch", _GRID**2, value=1, keyword=True)
    yield filled(name, "batch", 1, height, width, value=1, keyword=True)
    yield tensor(name, "batch", 1, height, width, dtype="bool", keyword=True)


def patch_positions(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    """Column and row of each patch."""
    yield filled(name, "batch", _GRID**2, 2, value=1, keyword=True)
    yield filled(name, _GRID**3, 2, value=1, keyword=True)


def tile_ids(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    """The index of the tile arrangement of each image: 1, a single tile (mllama)."""
    yield filled(name, "batch", 1, value=1, keyword=True)


def tile_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A mask of tiles without padding."""
    yield filled(name, "batch", 1, sizes.vision("max_num_tiles") or 4, value=1, keyword=True)


def cross_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A cross-attention mask that allows every token to attend to every image."""
    yield filled(name, "batch", sizes.length(), 1, value=1, keyword=True)
    tiles = sizes.vision("max_num_tiles") or 4
    yield filled(name, "batch", sizes.length(), 1, tiles, value=1, keyword=True)


def image_token_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """A mask of the tokens that image features replace."""
    count = sizes.vision("latent_query_num") or sizes.length()
    yield filled(name, "batch", count, value=1, keyword=True)


def packed(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """Padded rows of patches and their mask, for SigLIP 2 and LFM2-VL (`spatial_shapes`)."""
    patch, channels = sizes.vision("patch_size") or 16, sizes.vision(*_CHANNELS) or 3
    if name == "pixel_values":
        yield tensor(name, "batch", _GRID**2, channels * patch * patch, keyword=True)
    elif name.endswith("attention_mask") and name != "attention_mask":
        yield filled(name, "batch", _GRID**2, value=1, keyword=True)


def patch_embedding_inputs(model: nn.Module, name: str) -> Iterator[InputSpec]:
    """Rows of patches whose width is that of the patch embedding's weight."""
    from torch import nn

    for path, module in model.named_modules():
        held: Any = module
        if "patch" not in path:
            continue
        if isinstance(module, nn.Linear):
            yield tensor(name, _GRID**3, held.in_features, keyword=True)
            return
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            kernel = held.kernel_size
            flat = tensor(name, _GRID**3, held.in_channels * prod(kernel), keyword=True)
            whole = tensor(name, _GRID**3, held.in_channels, *kernel, keyword=True)
            # Qwen2-VL's Conv3d reshapes rows itself
            yield from (whole, flat) if isinstance(module, nn.Conv2d) else (flat, whole)
            return


def merged_patches(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """Images of the patches that are merged into one token, channels last."""
    patch, merge = sizes.vision("patch_size"), sizes.vision("spatial_merge_size", "merge_size")
    if patch is not None and merge is not None:
        side, channels = patch * merge, sizes.vision(*_CHANNELS) or 3
        yield tensor(name, _GRID**3, side, side, channels, keyword=True)


def _side(sizes: Sizes) -> tuple[int, int]:
    return sizes.pair("image_size") or sizes.pair("img_size") or (224, 224)


BY_NAME: dict[str, Callable[[str, Sizes], Iterator[InputSpec]]] = {
    "pixel_values": pixels,
    "pixel_values_videos": video,
    "grid_thw": grid,
    "grid_thws": grid,
    "image_grid_thw": grid,
    "video_grid_thw": grid,
    "image_grid_hw": grid,
    "image_grid_hws": grid,
    "grid_hw": grid,
    "image_sizes": image_sizes,
    "target_sizes": patch_counts,
    "tgt_sizes": patch_counts,
    "spatial_shapes": patch_counts,
    "pixel_mask": patch_mask,
    "pixel_attention_mask": patch_mask,
    "padding_mask": patch_mask,
    "pixel_position_ids": patch_positions,
    "image_position_ids": patch_positions,
    "aspect_ratio_ids": tile_ids,
    "aspect_ratio_mask": tile_mask,
    "image_attention_mask": cross_mask,
    "cross_attention_mask": cross_mask,
    "image_embeds_position_mask": image_token_mask,
}
