"""Inputs of any module: from its first layers and the signature of its forward."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

from reportgen.guessing.choice import Choice, Dims, indices, tensor
from reportgen.manifest import InputSpec

if TYPE_CHECKING:
    from torch import nn

_LENGTH = 16
_IDS = ("ids", "tokens", "index", "indices", "idx")
_SIDES = (224, 64, 32, 28, 299, 16, 8)
_WIDTHS = (3, 4, 8, 10, 16, 32, 64, 128, 256, 512, 784)


def signature_choices(model: nn.Module) -> Iterator[Choice]:
    """Choices for the arguments that forward must be given; optional ones stay away at first."""
    parameters = _arguments(model)
    needed = [p for p in parameters if p.default is p.empty]
    counts = [len(needed)] if needed else [0, min(1, len(parameters))]
    proposals = _proposals(model)
    for count in dict.fromkeys(counts):
        names = [p.name for p in (needed or parameters)[:count]]
        yield from _combined(names, proposals)


def _arguments(model: nn.Module) -> list[inspect.Parameter]:
    own = list(inspect.signature(model.forward).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    found = [p for p in own if p.kind in positional or p.kind is p.KEYWORD_ONLY]
    variadic = any(p.kind is p.VAR_POSITIONAL for p in own)
    if variadic and not found:
        return [inspect.Parameter("x", inspect.Parameter.POSITIONAL_ONLY)]
    return [p for p in found if p.kind is not p.KEYWORD_ONLY]


def _combined(names: list[str], proposals: list[_Proposal]) -> Iterator[Choice]:
    """The same proposal for every argument first, then every mixture, likely ones first."""
    if not names:
        yield Choice(inputs=())
        return
    ranked = [_ranked(name, proposals) for name in names]
    for number in range(max(map(len, ranked))):
        chosen = [options[min(number, len(options) - 1)] for options in ranked]
        yield _choice(names, chosen)
    if len(names) > 1:
        for mixture in product(*(options[:4] for options in ranked)):
            yield _choice(names, list(mixture))


def _choice(names: list[str], chosen: list[_Proposal]) -> Choice:
    pairs = zip(names, chosen, strict=True)
    return Choice(inputs=tuple(proposal(name) for name, proposal in pairs))


class _Proposal:
    """A tensor that might be an argument; called with the argument's name."""

    def __init__(self, *dims: int | str, count: int | None = None, mask: bool = False) -> None:
        self.dims: Dims = dims
        self.count = count
        self.mask = mask

    def __call__(self, name: str) -> InputSpec:
        if self.mask:
            return tensor(name, *self.dims, dtype="int64", low=1, high=2)
        if self.count is not None:
            return indices(name, *self.dims, count=self.count)
        return tensor(name, *self.dims)


def _ranked(name: str, proposals: list[_Proposal]) -> list[_Proposal]:
    """Proposals that suit the argument's name first."""
    lowered = name.lower()
    if "mask" in lowered:
        ones = [_Proposal("batch", _LENGTH, mask=True)]
        return [*ones, *proposals]
    is_index = lowered.endswith(_IDS)
    return sorted(proposals, key=lambda p: (p.count is None) if is_index else False)


def _proposals(model: nn.Module) -> list[_Proposal]:
    """What the first layers of each kind take, in the order of the modules; then common sizes."""
    found: dict[tuple[Dims, int | None], _Proposal] = {}
    for module in list(model.modules())[:200]:
        for proposal in _of_layer(module):
            found.setdefault((proposal.dims, proposal.count), proposal)
        if len(found) > 24:
            break
    common = [
        *(_Proposal("batch", 3, side, side) for side in _SIDES[:3]),
        *(_Proposal("batch", width) for width in _WIDTHS),
        _Proposal("batch", _LENGTH, count=10),
    ]
    for proposal in common:
        found.setdefault((proposal.dims, proposal.count), proposal)
    return list(found.values())


def _of_layer(module: nn.Module) -> Iterator[_Proposal]:
    """The inputs that one layer would take by itself."""
    from torch import nn

    held: Any = module
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        for side in _SIDES:
            yield _Proposal("batch", _channels(held), side, side)
    elif isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
        for length in (128, 1024, 16_000):
            yield _Proposal("batch", _channels(held), length)
    elif isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
        for side in (32, 64, 112):
            yield _Proposal("batch", _channels(held), 16, side, side)
    elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
        yield _Proposal("batch", _LENGTH, count=held.num_embeddings)
        yield _Proposal("batch", count=held.num_embeddings)
    else:
        yield from _of_dense(held)


def _of_dense(held: Any) -> Iterator[_Proposal]:
    from torch import nn

    if isinstance(held, nn.RNNBase):
        dims = ("batch", _LENGTH) if held.batch_first else (_LENGTH, "batch")
        yield _Proposal(*dims, held.input_size)
    elif isinstance(held, nn.RNNCellBase):
        yield _Proposal("batch", held.input_size)
    elif isinstance(held, nn.MultiheadAttention):
        yield _Proposal("batch", _LENGTH, held.embed_dim)
    elif isinstance(held, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
        yield _Proposal("batch", _LENGTH, held.linear1.in_features)
    elif isinstance(held, nn.Bilinear):
        yield _Proposal("batch", held.in1_features)
        yield _Proposal("batch", held.in2_features)
    elif isinstance(held, nn.Linear) and held.in_features:  # a lazy one does not know yet
        yield _Proposal("batch", held.in_features)
        yield _Proposal("batch", _LENGTH, held.in_features)
        yield from _unflattened(held.in_features)
    elif isinstance(held, nn.modules.batchnorm._BatchNorm):
        yield from _normed(held)


def _channels(convolution: Any) -> int:
    """What a convolution takes; a lazy one takes anything, so three."""
    return int(convolution.in_channels) or 3


def _unflattened(width: int) -> Iterator[_Proposal]:
    """Images that a first Flatten makes `width` numbers of."""
    for channels in (1, 3):
        side = round((width / channels) ** 0.5)
        if side > 3 and side * side * channels == width:
            yield _Proposal("batch", channels, side, side)


def _normed(held: Any) -> Iterator[_Proposal]:
    from torch import nn

    if isinstance(held, nn.BatchNorm2d):
        yield _Proposal("batch", held.num_features, 32, 32)
    elif isinstance(held, nn.BatchNorm1d):
        yield _Proposal("batch", held.num_features)
