"""A small encoder-decoder transformer with tied embeddings."""

import torch
from torch import Tensor, nn


class Translator(nn.Module):
    """Next-token logits for a target sequence, given a source sequence."""

    def __init__(
        self, vocabulary: int = 6000, width: int = 128, heads: int = 4, layers: int = 2
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(torch.randn(256, width) * 0.02)
        self.transformer = nn.Transformer(
            d_model=width,
            nhead=heads,
            num_encoder_layers=layers,
            num_decoder_layers=layers,
            dim_feedforward=4 * width,
            batch_first=True,
        )
        self.output = nn.Linear(width, vocabulary, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits [B, T, vocabulary] of source ids [B, S] and target ids [B, T]."""
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        states = self.transformer(
            self._embed(source), self._embed(target), tgt_mask=mask, tgt_is_causal=True
        )
        logits: Tensor = self.output(states)
        return logits

    def _embed(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.embedding(ids) + self.positions[: ids.shape[1]]
        return vectors
