"""What each argument of a transformers model may be given, by the sizes of its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reportgen.guessing.choice import constant, filled, indices, tensor
from reportgen.guessing.sizes import Sizes
from reportgen.manifest import InputSpec

_LENGTH = 128
_SAMPLES = 16_000  # one second of sound
_GRID = 4  # patches in each of the three directions


def options(name: str, sizes: Sizes) -> list[InputSpec]:
    """What may be given for the argument `name`, the likeliest first; [] if nothing is known."""
    make = _BY_NAME.get(name)
    if make is not None:
        return list(make(name, sizes))
    return list(_by_ending(name, sizes))


def _ids(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    vocabulary = sizes.text("vocab_size", "text_vocab_size") or 1000
    yield indices(name, "batch", sizes.length(), count=vocabulary, keyword=True)
    yield indices(name, "batch", 16, count=vocabulary, keyword=True)
    books = sizes.text("num_codebooks", "num_vq", "n_codes_total")
    if books:
        small = sizes.audio("audio_vocab_size", "codebook_size") or vocabulary
        yield indices(name, "batch", 16, books, count=min(small, vocabulary), keyword=True)
        yield indices(name, "batch", books, 16, count=min(small, vocabulary), keyword=True)


def _decoder_ids(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    vocabulary = sizes.text("decoder_vocab_size", "vocab_size") or 1000
    length = min(sizes.length(), sizes.text("max_target_positions") or _LENGTH)
    yield indices(name, "batch", length, count=vocabulary, keyword=True)
    yield indices(name, "batch", 16, count=vocabulary, keyword=True)


def _mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield filled(name, "batch", sizes.length(), value=1, keyword=True)
    yield filled(name, "batch", 16, value=1, keyword=True)


def _feature_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    positions = sizes.audio("max_source_positions")
    if positions:
        yield filled(name, "batch", 2 * positions, value=1, keyword=True)
    yield filled(name, "batch", 160, value=1, keyword=True)


def _token_types(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    kinds = sizes.text("type_vocab_size", "token_type_vocab_size") or 2
    yield indices(name, "batch", sizes.length(), count=kinds, keyword=True)


def _boxes(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    # equal corners: a layout model looks up each side's length, which must not be negative
    yield filled(name, "batch", sizes.length(), 4, value=5, keyword=True)


def _pixels(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    channels = sizes.vision("num_channels", "in_channels", "in_chans") or 3
    height, width = sizes.pair("image_size") or sizes.pair("img_size") or (224, 224)
    frames = sizes.vision("num_frames", "frames_per_clip", "num_video_frames")
    patches = _patches(name, sizes, channels)
    if frames and "image_grid_thw" not in name:
        yield tensor(name, "batch", frames, channels, height, width, keyword=True)
    if patches is not None:
        yield patches
    yield tensor(name, "batch", channels, height, width, keyword=True)
    yield tensor(name, "batch", 1, channels, height, width, keyword=True)
    for size in (224, 384, 512, 64, 1536):
        yield tensor(name, "batch", channels, size, size, keyword=True)
    yield tensor(name, "batch", 2, channels, height, width, keyword=True)
    yield tensor(name, "batch", 1, 2, channels, height, width, keyword=True)


def _patches(name: str, sizes: Sizes, channels: int) -> InputSpec | None:
    """Images that come as rows of patches, beside a grid that says how they lie."""
    patch = sizes.vision("patch_size", "spatial_patch_size")
    together = sizes.vision("temporal_patch_size")
    if patch is None or together is None or sizes.vision("spatial_merge_size") is None:
        return None
    return tensor(name, _GRID**3, channels * together * patch * patch, keyword=True)


def _grid(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield filled(name, 1, 3, value=_GRID, keyword=True)


def _video(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    channels = sizes.vision("num_channels", "in_channels", "in_chans") or 3
    height, width = sizes.pair("image_size") or sizes.pair("crop_size") or (224, 224)
    frames = sizes.vision("num_frames", "frames_per_clip", "num_video_frames") or 16
    patches = _patches(name, sizes, channels)
    if patches is not None:
        yield patches
    yield tensor(name, "batch", frames, channels, height, width, keyword=True)
    yield tensor(name, "batch", 2, channels, height, width, keyword=True)


def _hidden(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    channels = sizes.vision("in_channels", "num_channels", "in_chans") or 3
    patches = _patches(name, sizes, channels)
    if patches is not None:
        yield patches
    width = sizes.text("hidden_size", "d_model") or 64
    yield tensor(name, "batch", 16, width, keyword=True)
    yield tensor(name, _GRID**3, width, keyword=True)
    yield tensor(name, "batch", width, 16, keyword=True)


def _flat_patches(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    width = sizes.vision("patch_embed_hidden_size", "patch_size") or 768
    # two leading columns are the row and the column of the patch, and index an embedding
    yield tensor(name, "batch", 64, width + 2, low=0.0, high=1.0, keyword=True)


def _sound(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    bins, most = sizes.audio("num_mel_bins"), sizes.audio("max_length")
    if bins and most and sizes.audio("time_stride"):
        yield tensor(name, "batch", most, bins, keyword=True)
    yield tensor(name, "batch", _SAMPLES, keyword=True)
    channels = sizes.audio("audio_channels", "in_channels") or 1
    yield tensor(name, "batch", channels, _SAMPLES, keyword=True)
    if bins:
        yield tensor(name, "batch", 128, bins, keyword=True)
    width = sizes.audio("hidden_size", "latent_dim") or 64
    yield tensor(name, "batch", width, 16, keyword=True)


def _features(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    """Spectra: bins by time for Whisper's kin, time by bins for the others."""
    bins = [
        sizes.audio("num_mel_bins", "n_mels", "mel_dim"),
        sizes.audio("feature_projection_input_dim"),
        sizes.audio("input_feat_per_channel"),
        sizes.audio("feature_size", "input_feat_size", "input_dim", "feature_dim"),
        sizes.audio("num_mel_channels"),
    ]
    widths = [*dict.fromkeys(b for b in bins if b), 80, 128]
    positions = sizes.audio("max_source_positions")
    if positions and widths:
        yield tensor(name, "batch", widths[0], 2 * positions, keyword=True)
    for width in dict.fromkeys(widths):
        yield tensor(name, "batch", 160, width, keyword=True)
        yield tensor(name, "batch", width, 160, keyword=True)
    yield tensor(name, "batch", 1, 1001, 64, keyword=True)
    yield tensor(name, "batch", _SAMPLES, keyword=True)


def _past(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    channels = sizes.text("num_input_channels", "input_size") or 1
    for length in _past_lengths(sizes):
        if channels > 1:
            yield tensor(name, "batch", length, channels, keyword=True)
        yield tensor(name, "batch", length, keyword=True)
        yield tensor(name, "batch", length, channels, keyword=True)


def _past_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    for length in _past_lengths(sizes):
        yield filled(name, "batch", length, value=1, keyword=True)


def _past_features(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    count = sizes.text("num_time_features") or 1
    for length in _past_lengths(sizes):
        yield tensor(name, "batch", length, count, keyword=True)


def _past_lengths(sizes: Sizes) -> list[int]:
    context = sizes.text("context_length", "prediction_length") or 64
    lags = getattr(sizes.config, "lags_sequence", None) or [0]
    return list(dict.fromkeys([context + max(lags), context]))


def _future(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    count = sizes.text("num_time_features") or 1
    length = sizes.text("prediction_length") or 24
    if name.endswith("features"):
        yield tensor(name, "batch", length, count, keyword=True)
    else:
        yield tensor(name, "batch", length, keyword=True)


def _decoder_sound(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield tensor(name, "batch", 16, sizes.audio("num_mel_bins") or 80, keyword=True)


def _trajectory(width: str, default: int) -> Callable[[str, Sizes], Iterator[InputSpec]]:
    def make(name: str, sizes: Sizes) -> Iterator[InputSpec]:
        yield tensor(name, "batch", 20, sizes.text(width) or default, keyword=True)

    return make


def _steps(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield indices(name, "batch", 20, count=20, keyword=True)


def _embeddings(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    width = sizes.text("hidden_size", "d_model", "n_embd") or 64
    yield tensor(name, "batch", min(32, sizes.length()), width, keyword=True)


def _yes(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield constant(name, True)


def _perceived(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield from _ids(name, sizes)
    yield from _pixels(name, sizes)
    yield from _sound(name, sizes)


def _by_ending(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    if name.endswith(("input_ids", "_tokens", "_codes")):
        yield from _ids(name, sizes)
    elif name.endswith("_mask"):
        yield from _mask(name, sizes)
    elif "pixel_values" in name:
        yield from _pixels(name, sizes)
    elif name.endswith(("_embeds", "_embeddings", "hidden_states")):
        yield from _embeddings(name, sizes)


_BY_NAME: dict[str, Callable[[str, Sizes], Iterator[InputSpec]]] = {
    "input_ids": _ids,
    "decoder_input_ids": _decoder_ids,
    "attention_mask": _mask,
    "decoder_attention_mask": _mask,
    "feature_attention_mask": _feature_mask,
    "input_features_mask": _feature_mask,
    "token_type_ids": _token_types,
    "mm_token_type_ids": _mask,  # one: the token stands for an image
    "bbox": _boxes,
    "pixel_values": _pixels,
    "pixel_values_videos": _video,
    "hidden_states": _hidden,
    "grid_thw": _grid,
    "image_grid_thw": _grid,
    "flattened_patches": _flat_patches,
    "input_values": _sound,
    "audio_values": _sound,
    "input_features": _features,
    "past_values": _past,
    "past_time_features": _past_features,
    "past_observed_mask": _past_mask,
    "future_values": _future,
    "future_time_features": _future,
    "decoder_input_values": _decoder_sound,
    "states": _trajectory("state_dim", 17),
    "actions": _trajectory("act_dim", 4),
    "rewards": _trajectory("reward_dim", 1),
    "returns_to_go": _trajectory("reward_dim", 1),
    "timesteps": _steps,
    "inputs_embeds": _embeddings,
    "inputs": _perceived,
    "return_loss": _yes,
}

WANTED = frozenset(_BY_NAME) - {
    "attention_mask", "decoder_attention_mask", "inputs_embeds", "return_loss"
}  # fmt: skip
"""Arguments that a pass may miss although they are optional."""
