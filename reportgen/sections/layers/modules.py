"""The modules of a model: their paths, tensors and descriptions, and unregistered ones."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from reportgen.error_text import shown_text
from reportgen.pytree import modules_of
from reportgen.sections.layers.result import Unregistered

_MAX_VISITS = 20_000  # limit of the search for unregistered modules: attributes may hold a data set
_NO_DOT = "\u2024"  # replaces a dot inside a module name; paths are split at dots
_MAX_LENGTH = 60
_ADDRESS = re.compile(r"(<[^<>]*)? at 0x[0-9a-fA-F]+>?")
# Modules in which torch.ao's quantized layers store their weights; they are not layers.
_PACKED = ("PackedParams", "PackedParameter")
_PACKED_LISTS = "_all_weight_values"  # in recurrent layers


_PLAIN = (str, bytes, int, float, complex, type(None), type)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class ModuleNode:
    """One registered module under one path."""

    path: str
    depth: int
    module: nn.Module

    @property
    def leaf(self) -> bool:
        """Whether no module that counts as a layer is registered in it."""
        return not any(True for _ in _children(self.module))


def walk(model: nn.Module) -> list[ModuleNode]:
    """Every path of every module, depth first in order of registration; instances may repeat."""
    return list(_walk(model, "", 0, ()))


def first_visits(nodes: list[ModuleNode]) -> list[ModuleNode]:
    """The first node of every module."""
    first: dict[int, ModuleNode] = {}
    for node in nodes:
        first.setdefault(id(node.module), node)
    return list(first.values())


def _walk(module: nn.Module, path: str, depth: int, above: tuple[int, ...]) -> Iterator[ModuleNode]:
    yield ModuleNode(path=path, depth=depth, module=module)
    above = (*above, id(module))
    for name, child in _children(module):
        if id(child) not in above:  # a module can contain its own parent
            yield from _walk(child, join(path, name), depth + 1, above)


def _children(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module._modules.items():
        if child is None or type(child).__name__.endswith(_PACKED) or name == _PACKED_LISTS:
            continue
        yield name.replace(".", _NO_DOT), child


def join(path: str, name: str) -> str:
    """`path.name`; the model itself has the path ``""``."""
    return f"{path}.{name}" if path else name


def is_within(path: str, ancestor: str) -> bool:
    """Whether `path` lies strictly below `ancestor`."""
    return path != ancestor and (not ancestor or path.startswith(f"{ancestor}."))


def own_parameters(node: ModuleNode) -> dict[str, nn.Parameter]:
    """The parameters registered in a module itself, by their full names."""
    held = node.module._parameters.items()
    return {join(node.path, name): p for name, p in held if p is not None}


def parameters_by_name(nodes: list[ModuleNode]) -> dict[str, nn.Parameter]:
    """Parameters by name; a tied parameter has several names."""
    return {name: p for node in nodes for name, p in own_parameters(node).items()}


def quantized_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The packed weights and biases of one of torch's quantized modules, unpacked, by name."""
    # by module name: these layers have no base class of their own in common
    if not type(module).__module__.startswith(("torch.ao.nn.", "torch.nn.quantized")):
        return {}
    found: dict[str, Tensor] = {}
    for name in ("weight", "bias"):  # methods in quantized modules
        read = getattr(module, name, None)
        value = read() if callable(read) and not isinstance(read, Tensor) else None
        if isinstance(value, Tensor):
            found[name] = value
    for name in ("get_weight", "get_bias"):  # recurrent ones
        read = getattr(module, name, None)
        if callable(read):
            found.update(read())
    return found


def own_tensors(node: ModuleNode) -> dict[Hashable, Tensor]:
    """The parameters and packed weights of a module itself, by an identity that all paths share."""
    packed = quantized_tensors(node.module).items()
    found: dict[Hashable, Tensor] = {id(p): p for p in own_parameters(node).values()}
    # unpacking creates a new tensor each time, so packed weights have no stable id
    return found | {(id(node.module), name): tensor for name, tensor in packed}


def count_torchscript_constants(model: nn.Module) -> int:
    """The number of elements in TorchScript constants, which hold the weights after freezing."""
    scripts = [module for module in modules_of(model) if isinstance(module, torch.jit.ScriptModule)]
    inner = {id(part) for script in scripts for part in script.children()}
    count = 0
    for script in scripts:
        if id(script) in inner or not hasattr(script, "forward"):
            continue  # inlined into the code of its parent
        graph: Any = script.inlined_graph  # keeps the nodes alive
        for node in graph.findAllNodes("prim::Constant"):
            count += sum(tensor.numel() for tensor in _tensors_of(node))
    return count


def _tensors_of(constant: Any) -> list[torch.Tensor]:
    """The tensors of a TorchScript constant, which is one or a list, as of an LSTM's weights."""
    kind = constant.kindOf("value") if constant.hasAttribute("value") else ""
    if kind == "t":
        return [constant.t("value")]
    held = constant.ival("value") if kind == "ival" else ()
    return [item for item in held if isinstance(item, torch.Tensor)] if held else []


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Hidden:
    """A module or parameter that a model references but does not register."""

    path: str
    value: nn.Module | nn.Parameter
    bypasses: bool = False  # registration: a tuple of one, or `object.__setattr__`

    @property
    def is_deliberate(self) -> bool:
        """Whether it seems to be hidden on purpose, such as a frozen teacher."""
        return self.bypasses or not any(p.requires_grad for p in self.parameters())

    def parameters(self) -> list[nn.Parameter]:
        """Its parameters, each once."""
        return list(self.value.parameters()) if isinstance(self.value, nn.Module) else [self.value]


def hidden(model: nn.Module) -> list[Hidden]:
    """Unregistered modules and parameters in lists, dicts and objects of a model, each once."""
    return _UnregisteredSearch(model).found


def kept_by_functions(model: nn.Module) -> dict[int, str]:
    """Paths of modules that functions and callable objects of a model reference, by `id`.

    These are reported only if they are called; a hook may also reference a logger, for example.
    """
    return {
        id(part): join(item.path, name) if name else item.path
        for item in _UnregisteredSearch(model, functions=True).found
        if isinstance(item.value, nn.Module)
        for name, part in item.value.named_modules()
    }


class _UnregisteredSearch:
    def __init__(self, model: nn.Module, *, functions: bool = False) -> None:
        self.found: list[Hidden] = []
        self._functions = functions
        self._seen = {id(m) for m in modules_of(model)} | {id(p) for p in model.parameters()}
        self._visits_left = _MAX_VISITS
        for node in walk(model):
            # attributes of a ScriptModule mirror its registered modules
            if not isinstance(node.module, torch.jit.ScriptModule):
                self._visit_attributes(node.path, node.module)

    def _visit_attributes(self, path: str, owner: object) -> None:
        for name, value in list(vars(owner).items()):
            if name not in ("_parameters", "_buffers", "_modules"):
                # plain assignment to a module would have registered it
                self._visit(join(path, name), value, bypasses=isinstance(owner, nn.Module))

    def _visit(self, path: str, value: Any, *, bypasses: bool = False) -> None:
        self._visits_left -= 1
        if id(value) in self._seen or self._visits_left < 0 or isinstance(value, _PLAIN):
            return
        self._seen.add(id(value))
        if isinstance(value, nn.Module):
            self._seen.update(id(part) for part in [*modules_of(value), *value.parameters()])
            self.found.append(Hidden(path=path, value=value, bypasses=bypasses))
        elif isinstance(value, nn.Parameter):
            self.found.append(Hidden(path=path, value=value))
        elif isinstance(value, list | tuple | set | frozenset | deque):
            alone = isinstance(value, tuple) and len(value) == 1
            for index, item in enumerate(value):
                self._visit(f"{path}[{index}]", item, bypasses=alone)
        elif isinstance(value, dict):
            for key, item in list(value.items()):
                self._visit(f"{path}[{key!r}]", item)
        elif not callable(value) or self._functions:
            self._visit_inside(path, value)

    def _visit_inside(self, path: str, value: Any) -> None:
        if isinstance(value, partial):
            self._visit(f"{path}.func", value.func)
            self._visit(f"{path}.args", value.args)
            self._visit(f"{path}.keywords", value.keywords)
        elif isinstance(value, FunctionType):
            for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
                with suppress(ValueError):  # an empty cell
                    self._visit(f"{path} → {name}", cell.cell_contents)
        elif _may_hold_modules(value):
            self._visit_attributes(path, value)


def _may_hold_modules(value: object) -> bool:
    """Whether `value` is an object of a user-defined class."""
    return (
        hasattr(value, "__dict__")
        and not isinstance(value, Tensor)
        and not type(value).__module__.startswith(("torch.", "builtins", "numpy"))
    )


def unregistered(model: nn.Module) -> list[Unregistered]:
    """Unregistered modules and parameters that have elements."""
    return [
        Unregistered(
            path=item.path,
            type=type(item.value).__name__,
            parameters=sum(p.numel() for p in item.parameters()),
            deliberate=item.is_deliberate,
        )
        for item in hidden(model)
        if item.parameters() and not all(is_skeleton(p, model) for p in item.parameters())
    ]


def is_skeleton(parameter: nn.Parameter, model: nn.Module) -> bool:
    """Whether `parameter` is on meta while `model` has weights.

    Ensembles call such a module with other weights (`torch.func.functional_call`); its own
    parameters are placeholders.
    """
    return parameter.is_meta and any(not p.is_meta for p in model.parameters())


def describe(module: nn.Module) -> str:
    """`Conv2d(64, 128, kernel 3x3, stride 2)`, at most 60 characters.

    Common layers of torch.nn show their main arguments; other modules show their `extra_repr`,
    cut if it is too long.
    """
    name = class_of(module).__name__
    arguments = ", ".join(_arguments(module)) or _extra_repr(module)
    text = f"{name}({arguments})" if arguments else name
    text = text if class_of(module) is type(module) else f"{text} parametrized"
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH - 1].rstrip(' ,')}…"


def class_of(module: nn.Module) -> type:
    """The class of a module, without the subclass that a parametrization (`weight_norm`) makes."""
    kind = type(module)
    # torch replaces the class of a parametrized module by a subclass: `ParametrizedLinear`
    if "parametrizations" in module._modules and kind.__name__.startswith("Parametrized"):
        return kind.__bases__[0]
    return kind


def _arguments(module: nn.Module) -> list[str]:
    for kinds, arguments_of in _ARGUMENTS:
        if isinstance(module, kinds):
            try:
                return arguments_of(module)
            except AttributeError:  # a subclass without the attributes of its base class
                return []
    return []


def kernel_of(module: nn.Module) -> tuple[int, ...]:
    """The kernel of a convolution or a pooling, a size per dimension; empty for other layers."""
    size = getattr(module, "kernel_size", None)
    if isinstance(size, int) and not isinstance(size, bool):
        return (size,) * spatial_dimensions(module)
    sizes = tuple(size) if isinstance(size, list | tuple) else ()
    return sizes if all(isinstance(item, int) for item in sizes) else ()


def groups_of(module: nn.Module) -> int | None:
    """The groups of a convolution; None for other layers."""
    groups = getattr(module, "groups", None)
    return groups if isinstance(groups, int) and kernel_of(module) else None


def spatial_dimensions(module: nn.Module) -> int:
    """2 for `Conv2d`; 1 for a class without a digit in its name."""
    # from the class name: a pooling layer, unlike a convolution, keeps a single number as given
    digits = re.findall(r"([123])d", type(module).__name__)
    return int(digits[-1]) if digits else 1


def _size(value: Any) -> str:
    """`3` as `3`, `(3, 3)` as `3x3`."""
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _unless_default(value: Any, default: int, word: str) -> list[str]:
    """`stride 2`, `stride 2x1`; empty if `value` is the default."""
    values = value if isinstance(value, list | tuple) else (value,)
    if all(item == default for item in values):
        return []
    return [f"{word} {values[0] if len(set(values)) == 1 else _size(value)}"]


def _convolution(module: Any) -> list[str]:
    return [
        str(module.in_channels),
        str(module.out_channels),
        f"kernel {_size(module.kernel_size)}",
        *_unless_default(module.stride, 1, "stride"),
        *_unless_default(module.groups, 1, "groups"),
        *_unless_default(module.dilation, 1, "dilation"),
    ]


def _linear(module: Any) -> list[str]:
    bias = [] if module.bias is not None else ["no bias"]
    return [str(module.in_features), str(module.out_features), *bias]


def _recurrent(module: Any) -> list[str]:
    return [
        str(module.input_size),
        str(module.hidden_size),
        *([f"{module.num_layers} layers"] if module.num_layers > 1 else []),
        *(["bidirectional"] if module.bidirectional else []),
    ]


def _pool(module: Any) -> list[str]:
    size = module.kernel_size
    # the default stride of a pooling layer is its kernel size
    stride = [] if module.stride == size else _unless_default(module.stride, 1, "stride")
    return [f"kernel {_size(size)}", *stride]


_ARGUMENTS: tuple[tuple[Any, Callable[[Any], list[str]]], ...] = (
    (nn.modules.conv._ConvNd, _convolution),
    (nn.Linear, _linear),
    (nn.Bilinear, lambda m: [str(m.in1_features), str(m.in2_features), str(m.out_features)]),
    (nn.Embedding, lambda m: [str(m.num_embeddings), str(m.embedding_dim)]),
    (nn.EmbeddingBag, lambda m: [str(m.num_embeddings), str(m.embedding_dim), m.mode]),
    (nn.MultiheadAttention, lambda m: [str(m.embed_dim), f"{m.num_heads} heads"]),
    (nn.RNNBase, _recurrent),
    (nn.RNNCellBase, lambda m: [str(m.input_size), str(m.hidden_size)]),
    (nn.modules.batchnorm._NormBase, lambda m: [str(m.num_features)]),
    (nn.GroupNorm, lambda m: [str(m.num_groups), str(m.num_channels)]),
    (nn.LayerNorm, lambda m: [_size(m.normalized_shape)]),
    (nn.modules.pooling._MaxPoolNd, _pool),
    (nn.modules.pooling._AvgPoolNd, _pool),
    (nn.modules.pooling._AdaptiveAvgPoolNd, lambda m: [_size(m.output_size)]),
    (nn.modules.pooling._AdaptiveMaxPoolNd, lambda m: [_size(m.output_size)]),
    (nn.modules.dropout._DropoutNd, lambda m: [f"{m.p:g}"]),
    (nn.modules.container.ModuleList, lambda m: [f"{len(m)} modules"]),
    (nn.modules.container.ParameterList, lambda m: [f"{len(m)} parameters"]),
)


def _extra_repr(module: nn.Module) -> str:
    """`extra_repr` on one line, without addresses and folders of this machine."""
    # `extra_repr` of a ParameterDict has a line per item; "inplace=True" of a ReLU is no argument
    if isinstance(module, nn.Sequential | nn.ModuleDict | nn.ParameterDict | nn.ReLU):
        return ""
    try:
        words = module.extra_repr()
    except Exception:  # from the user's module
        return ""
    return shown_text(_ADDRESS.sub("", " ".join(str(words).split())))
