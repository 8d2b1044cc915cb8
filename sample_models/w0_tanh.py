"""A minimal model: one linear layer and a tanh."""

from collections import OrderedDict

from torch import nn


def w0_tanh() -> nn.Module:
    """`Sequential(W0: Linear(8, 16), tanh)`, the example in torchviz's documentation."""
    return nn.Sequential(OrderedDict(W0=nn.Linear(8, 16), tanh=nn.Tanh()))
