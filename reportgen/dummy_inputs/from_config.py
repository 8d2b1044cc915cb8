"""Candidate values for each argument of a transformers model, by the sizes in its configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reportgen.dummy_inputs.candidate import constant, filled, indices, tensor
from reportgen.dummy_inputs.config_sizes import Sizes
from reportgen.dummy_inputs.from_images import BY_NAME, pixels, rows
from reportgen.manifest import InputSpec

_SAMPLES = 16_000  # one second of sound
_HALF_FRAMES = ("max_source_positions", "n_window")  # a convolution halves the frames
_SIDE = 8  # of a map of features


def options(name: str, sizes: Sizes) -> list[InputSpec]:
    """The options for the argument `name`, the most likely first; [] if it is unknown."""
    make = _BY_NAME.get(name)
    if make is not None:
        return list(make(name, sizes))
    return list(_by_ending(name, sizes))


def generic_options(name: str, sizes: Sizes, *, beside_images: bool) -> Iterator[InputSpec]:
    """Generic options for a required argument that is unknown."""
    is_image = "image" in name or "pixel" in name
    if is_image:
        yield from pixels(name, sizes)
    if "mask" in name:
        yield from _mask(name, sizes)
    bins = sizes.audio("model_in_dim", "num_mel_bins", "input_feat_size", "input_dim") or 80
    spectra = tensor(name, "batch", 32, bins, keyword=True)
    if "mel" in name:
        yield spectra
    yield from _embeddings(name, sizes)
    yield spectra
    yield tensor(name, "batch", sizes.text("hidden_size", "d_model") or 64, keyword=True)
    yield filled(name, "batch", 16, value=1, keyword=True)
    yield filled(name, "batch", value=1, keyword=True)
    yield indices(name, "batch", 16, count=1, keyword=True)
    if beside_images and not is_image:
        yield from pixels(name, sizes)


def _ids(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    vocabulary = sizes.text("vocab_size", "text_vocab_size") or 1000
    yield indices(name, "batch", sizes.length(), count=vocabulary, keyword=True)
    yield indices(name, "batch", 16, count=vocabulary, keyword=True)
    # audio language models take one token of each codebook per step, in either order
    books = sizes.text("num_codebooks", "num_vq", "n_codes_total")
    if books:
        small = sizes.audio("audio_vocab_size", "codebook_size") or vocabulary
        yield indices(name, "batch", 16, books, count=min(small, vocabulary), keyword=True)
        yield indices(name, "batch", books, 16, count=min(small, vocabulary), keyword=True)
    yield from _channels_of_ids(name, sizes, vocabulary)


def _decoder_ids(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    vocabulary = sizes.text("decoder_vocab_size", "vocab_size") or 1000
    length = min(sizes.length(), sizes.text("max_target_positions") or sizes.length())
    yield indices(name, "batch", length, count=vocabulary, keyword=True)
    yield indices(name, "batch", 16, count=vocabulary, keyword=True)
    yield from _channels_of_ids(name, sizes, vocabulary)


def _channels_of_ids(name: str, sizes: Sizes, vocabulary: int) -> Iterator[InputSpec]:
    """Token ids of several channels per step, as the decoder of Dia takes."""
    channels = sizes.text("num_channels")
    if channels:
        yield indices(name, "batch", 16, channels, count=vocabulary, keyword=True)


def _mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield filled(name, "batch", sizes.length(), value=1, keyword=True)
    yield filled(name, "batch", 16, value=1, keyword=True)


def _feature_mask(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    positions = sizes.audio(*_HALF_FRAMES)
    if positions:
        yield filled(name, "batch", 2 * positions, value=1, keyword=True)
    yield filled(name, "batch", 160, value=1, keyword=True)


def _token_types(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    kinds = sizes.text("type_vocab_size", "token_type_vocab_size") or 2
    yield indices(name, "batch", sizes.length(), count=kinds, keyword=True)


def _boxes(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    # equal corners: a layout model looks up each side's length, which must not be negative
    yield filled(name, "batch", sizes.length(), 4, value=5, keyword=True)


def _hidden(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    patches = rows(name, sizes)
    if patches is not None:
        yield patches
    width = sizes.text("hidden_size", "d_model") or 64
    yield tensor(name, "batch", 16, width, keyword=True)
    yield tensor(name, 64, width, keyword=True)
    yield tensor(name, "batch", width, 16, keyword=True)


def _flat_patches(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    width = sizes.vision("patch_embed_hidden_size", "patch_size") or 768
    # two leading columns are the row and the column of the patch, and index an embedding
    yield tensor(name, "batch", 64, width + 2, low=0.0, high=1.0, keyword=True)


def _sound(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    bins, most = sizes.audio("num_mel_bins"), sizes.audio("max_length")
    # the Audio Spectrogram Transformer has a position for each patch of its maximum length
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
    """Spectrograms: (bins, time) for models like Whisper, (time, bins) for the others."""
    bins = [
        sizes.audio("num_mel_bins", "n_mels", "mel_dim"),
        sizes.audio("feature_projection_input_dim"),
        sizes.audio("input_feat_per_channel"),
        sizes.audio("feature_size", "input_feat_size", "input_dim", "feature_dim"),
        sizes.audio("num_mel_channels"),
    ]
    widths = [*dict.fromkeys(b for b in bins if b), 80, 128]
    positions = sizes.audio(*_HALF_FRAMES)
    if positions and widths:
        yield tensor(name, "batch", widths[0], 2 * positions, keyword=True)
    for width in dict.fromkeys(widths):
        yield tensor(name, "batch", 160, width, keyword=True)
        yield tensor(name, "batch", width, 160, keyword=True)
    # CLAP: 10 s at 48 kHz in hops of 480 samples, 64 mel bins
    yield tensor(name, "batch", 1, 1001, 64, keyword=True)
    yield tensor(name, "batch", _SAMPLES, keyword=True)
    yield tensor(name, widths[0], 2 * (positions or 80), keyword=True)  # of all sounds in a row


def _past_values(name: str, sizes: Sizes) -> Iterator[InputSpec]:
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
    # Autoformer and Informer require the longest lag before the context too
    return list(dict.fromkeys([context + max(lags), context]))


def _future_values(name: str, sizes: Sizes) -> Iterator[InputSpec]:
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
    yield tensor(name, "batch", width, _SIDE, _SIDE, keyword=True)
    yield tensor(name, 1, "batch", width, _SIDE, _SIDE, keyword=True)  # maps of several scales


def _languages(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    # X-MOD: the index of an adapter
    count = len(getattr(sizes.config, "languages", None) or [0])
    yield indices(name, "batch", count=count, keyword=True)


def _language_of_tokens(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield indices(name, "batch", sizes.length(), count=sizes.text("n_langs") or 1, keyword=True)


def _sound_lengths(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    positions = sizes.audio(*_HALF_FRAMES)
    yield filled(name, "batch", value=2 * positions if positions else 160, keyword=True)


def _entities(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield indices(name, "batch", 4, count=sizes.text("entity_vocab_size") or 1, keyword=True)


def _points(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield tensor(name, "batch", 1, 1, 2, low=0.0, high=32.0, keyword=True)


def _point_boxes(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield tensor(name, "batch", 1, 4, low=0.0, high=32.0, keyword=True)


def _timestep(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield filled(name, "batch", value=1, keyword=True)


def _positions(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield indices(name, "batch", sizes.length(), count=sizes.length(), keyword=True)
    yield indices(name, "batch", 16, count=16, keyword=True)


def _true(name: str, _sizes: Sizes) -> Iterator[InputSpec]:
    yield constant(name, True)


def _perceiver_inputs(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    yield from _ids(name, sizes)
    yield from pixels(name, sizes)
    yield from _sound(name, sizes)


def _by_ending(name: str, sizes: Sizes) -> Iterator[InputSpec]:
    if name.endswith(("input_ids", "_tokens", "_codes")):
        yield from _ids(name, sizes)
    elif name.endswith("_mask"):
        yield from _mask(name, sizes)
    elif "pixel_values" in name:
        yield from pixels(name, sizes)
    elif name.endswith(("_embeds", "_embeddings", "hidden_states", "hidden_state")):
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
    "hidden_states": _hidden,
    "flattened_patches": _flat_patches,
    "input_values": _sound,
    "audio_values": _sound,
    "input_features": _features,
    "past_values": _past_values,
    "past_time_features": _past_features,
    "past_observed_mask": _past_mask,
    "future_values": _future_values,
    "future_time_features": _future_values,
    "decoder_input_values": _decoder_sound,
    "states": _trajectory("state_dim", 17),
    "actions": _trajectory("act_dim", 4),
    "rewards": _trajectory("reward_dim", 1),
    "returns_to_go": _trajectory("reward_dim", 1),
    "timesteps": _steps,
    "inputs_embeds": _embeddings,
    "inputs": _perceiver_inputs,
    "return_loss": _true,
    "lang_ids": _languages,
    "langs": _language_of_tokens,
    "token_ids": _ids,
    "audio_feature_lengths": _sound_lengths,
    "feature_lens": _sound_lengths,
    "entity_ids": _entities,
    "encoder_hidden_states": _embeddings,
    "encoder_outputs": _embeddings,
    "input_points": _points,
    "input_boxes": _point_boxes,
    "timestep": _timestep,
    "class_labels": _timestep,
    "position_ids": _positions,
    **BY_NAME,
}

OPTIONAL_INPUTS = frozenset(_BY_NAME) - {
    "attention_mask", "decoder_attention_mask", "inputs_embeds", "return_loss",
    "encoder_outputs", "position_ids"
}  # fmt: skip
"""Optional arguments that a model may require anyway."""
