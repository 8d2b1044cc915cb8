"""The cost of unusual models and operators, each against its closed form."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from layer_models import Examine, Function, quantized, row, tensor
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import reportgen


def shared_convolution() -> nn.Module:
    layer = nn.Conv2d(3, 3, 3, padding=1)
    return Function(lambda self, x: self.d["b"](self.d["a"](x)),
                    d=nn.ModuleDict({"a": layer, "b": layer}))  # fmt: skip


def tied_by_hand() -> nn.Module:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    return Function(lambda self, x: self.b(self.a(x)), a=first, b=second)


def low_rank() -> nn.Module:
    """A LoRA-style parametrization of rank 2: w + B @ A."""
    layer = nn.Linear(4, 4)
    change = Function(lambda self, w: w + self.b @ self.a, a=nn.Parameter(torch.zeros(2, 4)),
                      b=nn.Parameter(torch.zeros(4, 2)))  # fmt: skip
    nn.utils.parametrize.register_parametrization(layer, "weight", change)
    return nn.Sequential(layer)


def expert_loop() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        weight, index = self.gate(x).topk(2, -1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows, columns = torch.where(index == number)
            out[rows] += expert(x[rows]) * weight[rows, columns, None]
        return out

    return Function(forward, gate=nn.Linear(4, 3),
                    experts=nn.ModuleList(nn.Linear(4, 4) for _ in range(3)))  # fmt: skip


def counting_itself() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        self.seen = self.seen + 1
        self.last = x
        out: Tensor = self.f(x)
        return out

    return Function(forward, f=nn.Linear(4, 4), seen=0)


def functional_call() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        weights = {name: value * 2 for name, value in self.f.named_parameters()}
        out: Tensor = torch.func.functional_call(self.f, weights, (x,))
        return out

    return Function(forward, f=nn.Linear(4, 4))


def jagged(x: Tensor) -> Tensor:
    """Two sentences, of five and of three words."""
    return torch.nested.nested_tensor([x[0], x[1, :3]], layout=torch.jagged)


def jagged_attention() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        q = self.f(jagged(x)).unflatten(-1, [2, 3]).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, q, q)
        values: Tensor = out.transpose(1, 2).flatten(-2).values()
        return values

    return Function(forward, f=nn.Linear(4, 6))


def packed() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        words = nn.utils.rnn.pack_padded_sequence(x, [5, 3], batch_first=True)
        out: Tensor = self.r(words)[0].data
        return out

    return Function(forward, r=nn.LSTM(4, 6, batch_first=True))


def statically_quantized() -> nn.Module:
    from torch.ao import quantization as q

    stages = nn.Sequential(q.QuantStub(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(),
                           nn.Linear(144, 5), q.DeQuantStub()).eval()  # fmt: skip
    stages.qconfig = q.get_default_qconfig(torch.backends.quantized.engine)  # type: ignore[no-untyped-call]
    ready = q.prepare(stages)  # type: ignore[no-untyped-call]
    ready(torch.rand(2, 3, 8, 8))
    made: nn.Module = q.convert(ready)  # type: ignore[no-untyped-call]
    return made


def grouped() -> nn.Module:
    return Function(
        lambda self, x: F.grouped_mm(x, self.w, offs=torch.tensor([2, 4, 8], dtype=torch.int32)),
        w=nn.Parameter(torch.zeros(3, 16, 8, dtype=torch.bfloat16)),
    )


def attention_by_einsum() -> nn.Module:
    def forward(_: Any, x: Tensor) -> Tensor:
        scores = torch.einsum("bqd,bkd->bqk", x, x).softmax(-1)
        return torch.einsum("bqk,bkd->bqd", scores, x)

    return Function(forward)


def of(function: Callable[..., Any]) -> Callable[[], nn.Module]:
    """A model of one function of its inputs."""
    return lambda: Function(lambda _, *inputs: function(*inputs))


def vmapped() -> nn.Module:
    return Function(lambda self, x: torch.vmap(lambda r: torch.mv(self.w, r))(x),
                    w=nn.Parameter(torch.zeros(5, 4)))  # fmt: skip


def with_gradient() -> nn.Module:
    return Function(lambda self, x: torch.func.grad(lambda y: self.f(y).sum())(x),
                    f=nn.Linear(4, 4))  # fmt: skip


MODELS: dict[str, tuple[Callable[[], Any], list[Any], int, int]] = {
    # name: how it is made, inputs, batch, multiply-adds
    "bidirectional GRU of two layers": (
        lambda: nn.GRU(4, 6, 2, bidirectional=True, batch_first=True),
        [tensor(5, 4)], 2, 10 * 2 * 3 * 6 * ((4 + 6) + (12 + 6))),
    "bidirectional LSTM with projections": (
        lambda: nn.LSTM(4, 6, 2, bidirectional=True, proj_size=3, batch_first=True),
        [tensor(5, 4)], 2, 10 * 2 * (4 * 6 * (4 + 3) + 6 * 3 + 4 * 6 * (6 + 3) + 6 * 3)),
    "three plain recurrent layers": (
        lambda: nn.RNN(4, 6, 3, bias=False), [{"shape": [7, 4]}], 1,
        7 * 6 * ((4 + 6) + 2 * (6 + 6))),
    "one LSTM cell": (lambda: nn.LSTMCell(4, 6), [tensor(4)], 2, 2 * 4 * 6 * (4 + 6)),
    "a packed sequence": (packed, [tensor(5, 4)], 2, 8 * 4 * 6 * (4 + 6)),
    "depthwise convolution": (
        lambda: nn.Conv2d(8, 8, 3, groups=8), [tensor(8, 6, 6)], 2, 2 * 16 * 8 * 9),
    "grouped, dilated, transposed convolution": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2, dilation=2),
        [tensor(4, 5, 5)], 2, 2 * 25 * 4 * 3 * 9),
    "convolution of three dimensions": (
        lambda: nn.Conv3d(2, 4, (1, 2, 3), dilation=(1, 2, 1)), [tensor(2, 3, 6, 6)], 1,
        3 * 4 * 4 * 4 * 2 * 6),
    "one convolution under two names": (
        shared_convolution, [tensor(3, 8, 8)], 1, 2 * 64 * 3 * 27),
    "weights tied by hand": (tied_by_hand, [tensor(4)], 3, 3 * 2 * 16),
    "low-rank parametrization": (low_rank, [tensor(4)], 2, 4 * 4 * 2 + 2 * 16),
    "checkpointed block": (
        lambda: Function(lambda self, x: checkpoint(self.f, x, use_reentrant=False),
                         f=nn.Linear(4, 4)), [tensor(4)], 3, 3 * 16),
    "vmap of a matrix and a vector": (vmapped, [tensor(4)], 3, 3 * 20),
    "a gradient inside forward": (with_gradient, [tensor(4)], 3, 2 * 3 * 16),
    "jacobian inside forward": (
        lambda: Function(lambda self, x: torch.func.jacrev(self.f)(x[0]), f=nn.Linear(4, 4)),
        [tensor(4)], 1, 16 + 4 * 16),
    "weights swapped by functional_call": (functional_call, [tensor(4)], 3, 3 * 16),
    "data-parallel wrapper": (lambda: nn.DataParallel(nn.Linear(4, 4)), [tensor(4)], 3, 3 * 16),
    "compiled module": (
        lambda: torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU())), [tensor(4)], 3, 3 * 16),
    "compiled part": (
        lambda: Function(lambda self, x: self.f(x), f=torch.compile(nn.Linear(4, 4))),
        [tensor(4)], 3, 3 * 16),
    "experts in a Python loop": (expert_loop, [tensor(4)], 5, 5 * 12 + 5 * 2 * 16),
    "a model that changes itself": (counting_itself, [tensor(4)], 3, 3 * 16),
    "loss and logits in a dict": (
        lambda: Function(lambda self, x: {"loss": self.f(x).mean(), "logits": self.f(x)},
                         f=nn.Linear(4, 3)), [tensor(4)], 2, 2 * 2 * 12),
    "attention by einsum": (attention_by_einsum, [tensor(5, 4)], 2, 2 * 2 * 5 * 5 * 4),
    "tensordot": (
        of(lambda x, y: torch.tensordot(x, y, dims=([1, 2], [0, 1]))),
        [tensor(5, 4), {"shape": [5, 4, 7]}], 2, 2 * 20 * 7),
    "baddbmm": (
        of(torch.baddbmm), [tensor(3, 5), tensor(3, 4), tensor(4, 5)], 2, 2 * 3 * 4 * 5),
    "matrices and vectors": (
        of(lambda a, x: a @ x), [{"shape": [2, 3, 4]}, {"shape": [4]}], 1, 2 * 3 * 4),
    "grouped matrix product": (grouped, [{"shape": [8, 16], "dtype": "bfloat16"}], 1, 8 * 16 * 8),
    "integer matrix product": (
        of(lambda a, b: torch._int_mm(a.to(torch.int8), b.to(torch.int8))),
        [{"shape": [32, 16]}, {"shape": [16, 8]}], 1, 32 * 16 * 8),
    "linear layer of a jagged tensor": (
        lambda: Function(lambda self, x: self.f(jagged(x)).values(), f=nn.Linear(4, 6)),
        [tensor(5, 4)], 2, (5 + 3) * 24),
    "attention of a jagged tensor": (
        jagged_attention, [tensor(5, 4)], 2, (5 + 3) * 24 + 2 * (25 + 9) * 6),
    "linear layer of a nested tensor": (
        lambda: Function(lambda self, x: self.f(torch.nested.nested_tensor(
            [x[0], x[1, :3]])).to_padded_tensor(0.0), f=nn.Linear(4, 6)),
        [tensor(5, 4)], 2, (5 + 3) * 24),
    "compressed sparse rows": (
        lambda: Function(lambda self, x: torch.sparse.mm(self.m, x),
                         m=torch.eye(10).to_sparse_csr()), [{"shape": [10, 3]}], 1, 10 * 3),
    "a choice of two branches": (
        of(lambda x: torch.cond(x.sum() > 0, lambda y: y @ y, lambda y: y + 1, (x,))),
        [{"shape": [4, 4]}], 1, 64),
    "static int8": (statically_quantized, [tensor(3, 8, 8)], 2, 2 * (4 * 36 * 27 + 144 * 5)),
    "dynamic int8 GRU": (
        lambda: quantized(nn.Sequential(nn.GRU(4, 6, 2, bidirectional=True)), nn.GRU),
        [{"shape": [5, 3, 4]}], 1, 15 * 2 * 3 * 6 * ((4 + 6) + (12 + 6))),
    "real Fourier transform": (of(torch.fft.rfft), [tensor(16)], 2, 2 * 16 * 4 * 5 // 4),
    "complex Fourier transform in two dimensions": (
        of(torch.fft.fft2), [tensor(8, 16, dtype="complex64")], 1, 8 * 16 * 7 * 5 // 2),
    "inverse real Fourier transform": (
        of(lambda x: torch.fft.irfft(x, n=16)), [tensor(9, dtype="complex64")], 2, 2 * 16 * 5),
    "distances": (of(torch.cdist), [tensor(30, 4), tensor(20, 4)], 2, 2 * 30 * 20 * 4),
    "distances in another norm": (
        of(lambda a, b: torch.cdist(a, b, p=1.0)), [tensor(30, 4), tensor(20, 4)], 2, 4800),
    "distances within": (of(F.pdist), [{"shape": [6, 4]}], 1, 15 * 4),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_a_model_costs_its_closed_form(look: Examine, name: str) -> None:
    make, inputs, batch, macs = MODELS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = look(make(), *inputs, batch=batch)
    assert result.macs == result.macs_of_rows == macs
    assert result.parameters == result.parameters_of_rows
    assert (result.uncounted, result.unused_parameters) == ((), ())


@pytest.mark.parametrize("make", [torch.jit.script, torch.jit.trace], ids=["script", "trace"])
@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_counted_and_its_inside_is_marked(
    look: Examine, make: Callable[..., nn.Module]
) -> None:
    inner = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval()
    model = make(inner) if make is torch.jit.script else make(inner, torch.zeros(1, 4))
    result = look(model, tensor(4), batch=3)
    assert (result.macs, result.parameters, result.unused_parameters) == (48, 20, ())
    assert [item.executed_via for item in result.layers] == ["called", "weights", "compiled"]
    assert row(result, "").output_shapes == ((3, 4),)


def square(n: int) -> list[Any]:
    return [{"shape": ["batch", n, n]}]


LINEAR_ALGEBRA: dict[str, tuple[Callable[..., Any], list[Any], float]] = {
    # FLOPs of one matrix of 6 by 6, to leading order
    "cholesky": (torch.linalg.cholesky, square(6), 6**3 / 3),
    "det": (torch.linalg.det, square(6), 2 * 6**3 / 3),
    "slogdet": (torch.linalg.slogdet, square(6), 2 * 6**3 / 3),
    "inv": (torch.linalg.inv, square(6), 2 * 6**3),
    "solve": (torch.linalg.solve, [*square(6), tensor(6, 4)], 2 * 6**3 / 3 + 2 * 36 * 4),
    "lu": (torch.linalg.lu, square(6), 2 * 6**3 / 3),
    "triangular": (
        lambda a, b: torch.linalg.solve_triangular(a, b, upper=True),
        [*square(6), tensor(6, 4)],
        36 * 4,
    ),
    "cholesky_solve": (lambda a, b: torch.cholesky_solve(b, a), [*square(6), tensor(6, 4)], 288),
    "qr": (torch.linalg.qr, [tensor(9, 6)], 2 * (2 * 9 * 36 - 2 * 6**3 / 3)),
    "svd": (torch.linalg.svd, [tensor(9, 6)], 14 * 9 * 36 + 8 * 6**3),
    "eigh": (torch.linalg.eigh, square(6), 9 * 6**3),
    "eig": (torch.linalg.eig, square(6), 25 * 6**3),
}


@pytest.mark.parametrize("name", LINEAR_ALGEBRA)
def test_a_factorization_costs_its_leading_term(look: Examine, name: str) -> None:
    function, inputs, each = LINEAR_ALGEBRA[name]
    result = look(Function(lambda _, *given: function(*given)), *inputs, batch=3)
    assert result.flops == 3 * 2 * round(each / 2)
    assert result.uncounted == ()
    assert any("leading order" in note for note in result.notes)


def test_bilinear_forward_and_backward_are_counted_in_two_steps(look: Examine) -> None:
    result = look(nn.Bilinear(3, 4, 5), tensor(3), tensor(4), batch=2)
    assert result.macs == 2 * 5 * 4 * (3 + 1)
    assert result.forward_backward.uncounted == ()
    assert result.forward_backward.macs is not None
    assert result.forward_backward.macs > result.macs


def test_a_quantized_subclass_of_tensor_counts_its_payload(look: Examine) -> None:
    layer = nn.Linear(8, 4)
    packed = Packed(torch.zeros(4, 8, dtype=torch.int8), torch.ones(4, 1))
    layer.weight = nn.Parameter(packed, requires_grad=False)
    result = look(nn.Sequential(layer), tensor(8), batch=2)
    assert (result.parameters, result.quantized_parameters) == (36, 32)
    assert (result.quantized_bytes, result.bytes_by_dtype) == (32, {"float32": 32, "int8": 32})
    assert (result.macs, result.unused_parameters) == (2 * 32, ())


class Packed(torch.Tensor):
    """A float matrix held as int8 and a scale per row, as weight-only quantizers do it."""

    @staticmethod
    def __new__(cls, numbers: Tensor, scale: Tensor) -> Packed:
        made: Packed = torch.Tensor._make_wrapper_subclass(cls, numbers.shape, dtype=torch.float32)
        return made

    def __init__(self, numbers: Tensor, scale: Tensor) -> None:
        self.numbers, self.scale = numbers, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["numbers", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], *_: Any) -> Packed:
        return cls(parts["numbers"], parts["scale"])

    @classmethod
    def __torch_function__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight, *bias = args
            return F.linear(x, weight.numbers.to(x.dtype) * weight.scale, *bias)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, _: Any, args: Any = (), __: Any = None) -> Any:  # type: ignore[override]
        if func in (torch.ops.aten.detach.default, torch.ops.aten.clone.default):
            return cls(args[0].numbers, args[0].scale)
        raise NotImplementedError(func)


def test_a_model_on_the_meta_device_is_examined_by_shapes(look: Examine) -> None:
    with torch.device("meta"):
        model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    result = look(model, tensor(50, 64))
    assert (result.macs, result.method, result.unused_parameters) == (1_958_400, "fake", ())
    assert result.parameter_bytes == 4 * result.parameters
    assert all(parameter.is_meta for parameter in model.parameters())


def test_a_data_dependent_model_without_data_is_an_error(look: Examine) -> None:
    from reportgen.errors import SectionError

    with torch.device("meta"):
        model = Function(lambda self, x: self.f(x) * x.sum().item(), f=nn.Linear(4, 4))
    with pytest.raises(SectionError, match="weights have no values: data-dependent control flow"):
        look(model, tensor(4))


# Operators of one's own ------------------------------------------------------------------------


@torch.library.custom_op("reportgen_tests::product", mutates_args=())
def product(left: Tensor, right: Tensor) -> Tensor:
    """A matrix product that torch knows nothing of."""
    return left @ right


@product.register_fake
def _(left: Tensor, right: Tensor) -> Tensor:
    return left.new_empty(left.shape[0], right.shape[1])


@pytest.fixture
def no_formulas() -> Iterator[None]:
    """Formulas that a test registers are forgotten."""
    from torch.utils.flop_counter import flop_registry

    from reportgen.sections.layers.cost import registration

    before, ours = dict(flop_registry), dict(registration._REGISTERED)
    yield
    for registry, content in ((flop_registry, before), (registration._REGISTERED, ours)):
        registry.clear()
        registry.update(content)


CUSTOM = Function(lambda _, x: torch.ops.reportgen_tests.product(x, x) + 1)


def test_a_custom_operator_without_a_formula_is_uncounted(look: Examine) -> None:
    result = look(CUSTOM, {"shape": [6, 6]})
    (uncounted,) = result.uncounted
    assert (uncounted.operator, uncounted.calls) == ("reportgen_tests.product", 1)
    assert (result.operator_calls, uncounted.bytes) == (2, 3 * 36 * 4)
    assert result.operator_bytes == uncounted.bytes + 2 * 36 * 4


@pytest.mark.parametrize(
    "operator",
    ["reportgen_tests::product", torch.ops.reportgen_tests.product, product,
     torch.ops.reportgen_tests.product.default],
    ids=["name", "packet", "definition", "overload"],
)  # fmt: skip
@pytest.mark.usefixtures("no_formulas")
def test_a_registered_formula_counts(look: Examine, operator: Any) -> None:
    reportgen.register_flops(operator, lambda a, b, **_: 2 * a.numel() * b.shape[-1])
    result = look(CUSTOM, {"shape": [6, 6]})
    assert (result.macs, result.uncounted) == (6**3, ())


@pytest.mark.usefixtures("no_formulas")
def test_a_formula_registered_with_torch_counts_as_well(look: Examine) -> None:
    from torch.utils.flop_counter import register_flop_formula

    @register_flop_formula(torch.ops.reportgen_tests.product)
    def _(left: Any, right: Any, **_: Any) -> int:
        return 2 * int(math.prod(left)) * int(right[-1])

    assert look(CUSTOM, {"shape": [6, 6]}).macs == 6**3


@pytest.mark.usefixtures("no_formulas")
def test_a_formula_that_fails_leaves_its_operator_uncounted(look: Examine) -> None:
    reportgen.register_flops("reportgen_tests::product", lambda a, b: 1)
    result = look(CUSTOM, {"shape": [6, 6]})
    assert [item.operator for item in result.uncounted] == ["reportgen_tests.product"]


def test_register_flops_rejects_bad_arguments() -> None:
    with pytest.raises(ValueError, match="'product' is not an operator: use 'mylib::attend'"):
        reportgen.register_flops("product", lambda: 0)
    with pytest.raises(TypeError, match="a FLOP formula must be a function, got int"):
        reportgen.register_flops("a::b", 7)  # type: ignore[arg-type]
