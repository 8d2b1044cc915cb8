"""Recurrent layers: every variant costs gates · hidden · (inputs + state) for each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.counts_cases.case import Case, Lambda


def cell_parameters(gates: int, inputs: int, hidden: int, *, bias: bool = True) -> int:
    """Both matrices and, where there are any, both biases."""
    return gates * hidden * (inputs + hidden + 2 * bias)


def cell_macs(gates: int, inputs: int, hidden: int) -> int:
    """One step of one sample."""
    return gates * hidden * (inputs + hidden)


def packed(self: Any, x: Tensor) -> Tensor:
    output, _ = self.lstm(pack_padded_sequence(x, torch.tensor([5, 3, 1])))
    padded: Tensor = pad_packed_sequence(output)[0]
    return padded


def lstm_steps(self: Any, x: Tensor) -> Tensor:
    h, c = x.new_zeros(x.shape[1], 20), x.new_zeros(x.shape[1], 20)
    for step in x:
        h, c = self.cell(step, (h, c))
    return h


def steps(self: Any, x: Tensor) -> Tensor:
    h = x.new_zeros(x.shape[1], 20)
    for step in x:
        h = self.cell(step, h)
    return h


class Translator(nn.Module):
    """One GRU reads, and the same one writes, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.gru(x)
        token = x[:, -1:]
        for _ in range(3):
            token, h = self.gru(token, h)
            token = self.out(token)
        return token


def dynamic(model: nn.Module, *kinds: type[nn.Module]) -> nn.Module:
    quantized: nn.Module = torch.ao.quantization.quantize_dynamic(
        model.eval(), set(kinds), dtype=torch.qint8
    )
    return quantized


def normed_lstm() -> nn.Module:
    lstm = nn.LSTM(10, 20)
    nn.utils.weight_norm(lstm, "weight_hh_l0")
    return lstm


def _state(*shape: int) -> dict[str, Any]:
    return {"shape": list(shape)}


_SEQUENCE = "5,3,10"  # steps, samples, features
_STEPS = 5 * 3

CASES = (
    Case(
        name="GRU, two layers, both directions",
        source="ptflops#38, calflops#55",
        model=lambda: nn.GRU(10, 20, 2, bidirectional=True),
        inputs=(_SEQUENCE,),
        parameters=2 * (cell_parameters(3, 10, 20) + cell_parameters(3, 40, 20)),
        macs=_STEPS * 2 * (cell_macs(3, 10, 20) + cell_macs(3, 40, 20)),
        outputs={"0": (5, 3, 40), "1": (4, 3, 20)},
    ),
    Case(
        name="RNN of ReLUs without bias, batch first",
        model=lambda: nn.RNN(10, 20, nonlinearity="relu", bias=False, batch_first=True),
        inputs=("batch,5,10",),
        batch=3,
        parameters=cell_parameters(1, 10, 20, bias=False),
        macs=_STEPS * cell_macs(1, 10, 20),
    ),
    Case(
        name="LSTM with a projection",
        source="thop's zero for proj_size",
        model=lambda: nn.LSTM(10, 20, proj_size=7),
        inputs=(_SEQUENCE,),
        parameters=4 * 20 * (10 + 7 + 2) + 20 * 7,
        macs=_STEPS * (4 * 20 * (10 + 7) + 20 * 7),
    ),
    Case(
        name="LSTM with a projection, two layers, both directions, batch first",
        model=lambda: nn.LSTM(10, 20, 2, proj_size=7, bidirectional=True, batch_first=True),
        inputs=("batch,5,10",),
        batch=3,
        parameters=2 * (4 * 20 * (10 + 7 + 2) + 20 * 7 + 4 * 20 * (14 + 7 + 2) + 20 * 7),
        macs=_STEPS * 2 * (4 * 20 * (10 + 7) + 20 * 7 + 4 * 20 * (14 + 7) + 20 * 7),
    ),
    Case(
        name="LSTM given its state",
        model=lambda: nn.LSTM(10, 20),
        inputs=(_SEQUENCE, {"items": [_state(1, 3, 20), _state(1, 3, 20)], "tuple": True}),
        parameters=cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
    Case(
        name="LSTM on an unbatched sequence",
        model=lambda: nn.LSTM(10, 20),
        inputs=("5,10",),
        parameters=cell_parameters(4, 10, 20),
        macs=5 * cell_macs(4, 10, 20),
        outputs={"0": (5, 20), "1.0": (1, 20), "1.1": (1, 20)},
    ),
    Case(
        name="LSTM on a packed sequence of 5, 3 and 1 steps",
        source="packed sequences in summary tools",
        model=lambda: Lambda(packed, lstm=nn.LSTM(10, 20)),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(4, 10, 20),
        macs=9 * cell_macs(4, 10, 20),
    ),
    Case(
        name="GRU on a packed sequence, both directions",
        model=lambda: Lambda(packed, lstm=nn.GRU(10, 20, bidirectional=True)),
        inputs=(_SEQUENCE,),
        parameters=2 * cell_parameters(3, 10, 20),
        macs=9 * 2 * cell_macs(3, 10, 20),
    ),
    Case(
        name="LSTM in bfloat16",
        model=lambda: nn.LSTM(10, 20).bfloat16(),
        inputs=(f"{_SEQUENCE}:bfloat16",),
        parameters=cell_parameters(4, 10, 20),
        parameter_bytes=2 * cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
    Case(
        name="LSTM in double precision",
        model=lambda: nn.LSTM(10, 20).double(),
        inputs=(f"{_SEQUENCE}:float64",),
        parameters=cell_parameters(4, 10, 20),
        parameter_bytes=8 * cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
    Case(
        name="LSTM with a normed recurrent weight",
        source="pytorch's old weight_norm on RNNs",
        model=normed_lstm,
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(4, 10, 20) + 80,
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
    Case(
        name="LSTMCell in a Python loop",
        model=lambda: Lambda(lstm_steps, cell=nn.LSTMCell(10, 20)),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
        calls=(("cell", 5),),
    ),
    Case(
        name="GRUCell in a Python loop",
        source="sksq96/pytorch-summary#185",
        model=lambda: Lambda(steps, cell=nn.GRUCell(10, 20)),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(3, 10, 20),
        macs=_STEPS * cell_macs(3, 10, 20),
        calls=(("cell", 5),),
    ),
    Case(
        name="RNNCell in a Python loop",
        model=lambda: Lambda(steps, cell=nn.RNNCell(10, 20)),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(1, 10, 20),
        macs=_STEPS * cell_macs(1, 10, 20),
        calls=(("cell", 5),),
    ),
    Case(
        name="one GRU that reads six steps and writes three",
        model=Translator,
        inputs=("batch,6,8",),
        batch=2,
        parameters=cell_parameters(3, 8, 8) + 72,
        macs=2 * (9 * cell_macs(3, 8, 8) + 3 * 64),
        calls=(("gru", 4), ("out", 3)),
    ),
    Case(
        name="dynamic int8 LSTM",
        source="torchinfo#29",
        model=lambda: dynamic(nn.Sequential(nn.LSTM(10, 20)), nn.LSTM),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
    Case(
        name="dynamic int8 GRU, both directions",
        source="torchinfo#29",
        model=lambda: dynamic(nn.Sequential(nn.GRU(10, 20, bidirectional=True)), nn.GRU),
        inputs=(_SEQUENCE,),
        parameters=2 * cell_parameters(3, 10, 20),
        macs=_STEPS * 2 * cell_macs(3, 10, 20),
    ),
    Case(
        name="dynamic int8 LSTMCell",
        model=lambda: dynamic(Lambda(lstm_steps, cell=nn.LSTMCell(10, 20)), nn.LSTMCell),
        inputs=(_SEQUENCE,),
        parameters=cell_parameters(4, 10, 20),
        macs=_STEPS * cell_macs(4, 10, 20),
    ),
)
