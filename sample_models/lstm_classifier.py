"""A sentence classifier: embedding, two-layer LSTM, mean over time, linear head."""

from torch import Tensor, nn


class LstmClassifier(nn.Module):
    """Classify token ids; the arguments have the names of tokenizer outputs."""

    def __init__(
        self, vocabulary: int = 8000, width: int = 128, hidden: int = 256, classes: int = 5
    ) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        """Logits [B, classes] and the sentence vector [B, hidden] of ids and mask [B, T]."""
        states, _ = self.lstm(self.embedding(input_ids))
        weights = attention_mask.unsqueeze(-1).to(states.dtype)
        sentence = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return {"logits": self.head(sentence), "sentence": sentence}
