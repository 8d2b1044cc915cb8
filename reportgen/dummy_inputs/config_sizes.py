"""Looks up sizes in a transformers configuration and its nested configurations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_TOKENS = 128
# parts of the names under which a composite configuration nests the others, best first
_TEXT = ("text", "llm", "language", "decoder", "thinker", "generator")
_VISION = ("vision", "image", "visual", "video", "vit", "backbone", "encoder")
_AUDIO = ("audio", "speech", "acoustic", "encoder")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """The sizes in a configuration and its nested configurations."""

    config: Any

    def text(self, *names: str) -> int | None:
        """The first of `names` in a text configuration, else at the top, else in any nested one."""
        return self._first(names, _TEXT)

    def vision(self, *names: str) -> int | None:
        """As `text`, but vision configurations first."""
        return self._first(names, _VISION)

    def audio(self, *names: str) -> int | None:
        """As `text`, but audio configurations first."""
        return self._first(names, _AUDIO)

    def pair(self, name: str, parts: tuple[str, ...] = _VISION) -> tuple[int, int] | None:
        """Height and width, stored as one number, a list or a dict."""
        for config in self._configs(parts):
            value = getattr(config, name, None)
            if isinstance(value, int) and value > 0:
                return value, value
            if isinstance(value, dict):
                value = [value.get("height"), value.get("width")]
            sizes = list(value)[:2] if isinstance(value, list | tuple) else []
            if len(sizes) == 2 and all(isinstance(s, int) and s > 0 for s in sizes):
                return sizes[0], sizes[1]
        return None

    def length(self) -> int:
        """The number of tokens: 128, or fewer if the model has fewer positions."""
        # RoBERTa reserves the first padding_idx + 1 = 2 positions
        most = self.text("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx")
        return max(1, min(_MAX_TOKENS, (most or _MAX_TOKENS + 2) - 2))

    def placeholder(self) -> int | None:
        """The id of the placeholder token of images or audio, if there is one."""
        # every family of models has its own name for it
        names = ("image_token_id", "image_token_index", "audio_token_id", "audio_token_index",
                 "video_token_id", "speech_token_id", "im_token_id", "media_token_id",
                 "image_pad_token_id", "media_placeholder_token_id")  # fmt: skip
        return self._first(names, ())

    def _first(self, names: tuple[str, ...], parts: tuple[str, ...]) -> int | None:
        for config in self._configs(parts):
            for name in names:
                value = getattr(config, name, None)
                if isinstance(value, int) and not isinstance(value, bool) and value > 0:
                    return value
        return None

    def _configs(self, parts: tuple[str, ...]) -> list[Any]:
        nested = list(_nested(self.config))
        preferred = [c for part in parts for key, c in nested if part in key]
        return [*preferred, self.config, *(c for _, c in nested)]


def _nested(config: Any, depth: int = 3) -> Iterator[tuple[str, Any]]:
    from transformers import PreTrainedConfig

    for key, value in vars(config).items():
        if isinstance(value, PreTrainedConfig) and depth:
            yield key, value
            yield from _nested(value, depth - 1)
