"""Makes example inputs for a model from the manifest's input specs."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.error_text import one_line
from reportgen.errors import ModelError
from reportgen.manifest import InputSpec, ModelSpec, split_array_path
from reportgen.pytree import named_tensors

if TYPE_CHECKING:
    import numpy as np
    import torch
    from torch import Tensor, nn

_DEFAULT_INTEGERS = 2  # without `high`: 0 and 1 are valid indices of almost any table


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examples:
    """The arguments of one call of a model.

    Attributes:
        args: the positional arguments, nested structures of tensors and constants.
        kwargs: the keyword arguments by name.
        names: the names of the positional arguments in the manifest, else `input0`, `input1`, …
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    names: tuple[str, ...]

    def call(self, model: nn.Module) -> Any:
        """The model's output for these inputs, in the current grad mode."""
        return model(*self.args, **self.kwargs)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the inputs by its path, such as `options.ids`."""
        positional = dict(zip(self.names, self.args, strict=True))
        return named_tensors(positional | self.kwargs)


def make_examples(spec: ModelSpec, batch: int, seed: int, *, device: str = "cpu") -> Examples:
    """Make inputs for `batch` samples, reproducible for the same arguments.

    Floats are standard normal, or uniform if the manifest sets `low` or `high`. Integers are
    uniform in their range; booleans are true with probability 0.5. The global random state is not
    used. On the device `meta` the inputs have no values.

    Raises:
        ModelError: an array file cannot be read, or does not match its shape and dtype.
    """
    import torch

    # a generator of its own, on the CPU: the same values whatever ran before, on every device
    maker = _Maker(
        sizes={**spec.dims, "batch": batch}, generator=torch.Generator().manual_seed(seed)
    )
    made = [(item, _to_device(maker.make(item), device)) for item in spec.inputs]
    positional = [(item, value) for item, value in made if not item.keyword]
    return Examples(
        args=tuple(value for _, value in positional),
        kwargs={str(item.name): value for item, value in made if item.keyword},
        names=tuple(item.name or f"input{index}" for index, (item, _) in enumerate(positional)),
    )


def describe_inputs(inputs: Sequence[InputSpec], dims: Mapping[str, int]) -> str:
    """The inputs in a line, as a manifest has them: `ids=batch,time:int64<99, time=16`."""
    parts = [_describe(item) for item in inputs]
    return ", ".join([*parts, *(f"{name}={size}" for name, size in dims.items())])


def _describe(item: InputSpec) -> str:
    name = f"{item.name}=" if item.name else ""
    if item.items is not None:
        each = " per sample" if item.per_sample else ""
        return f"{name}[{', '.join(map(_describe, item.items))}]{each}"
    if item.fields is not None:
        parts = (f"{key}: {_describe(part)}" for key, part in item.fields.items())
        return f"{name}{{{', '.join(parts)}}}"
    if item.value is not None:
        return f"{name}{item.value.value!r}"
    if item.file is not None:
        return f"{name}{item.file.name}"  # without its folder, which is about a machine
    return f"{name}{','.join(map(str, item.shape or ()))}:{_describe_values(item)}"


def _describe_values(item: InputSpec) -> str:
    if item.values is not None:
        return f"{item.dtype} {list(item.values)}"
    low = "" if item.low is None else f"{item.low}≤"
    high = "" if item.high is None else f"<{item.high}"
    return f"{low}{item.dtype}{high}"


def _to_device(value: Any, device: str) -> Any:
    import torch
    from torch.utils._pytree import tree_map_only

    return value if device == "cpu" else tree_map_only(torch.Tensor, lambda t: t.to(device), value)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Maker:
    sizes: Mapping[str, int]
    generator: torch.Generator

    def make(self, item: InputSpec) -> Any:
        if item.value is not None:
            return item.value.value
        if item.items is not None:
            times = self.sizes["batch"] if item.per_sample else 1
            values = [self.make(part) for part in item.items * times]
            return tuple(values) if item.as_tuple else values
        if item.fields is not None:
            return {key: self.make(part) for key, part in item.fields.items()}
        return self._from_file(item) if item.file is not None else self._random(item)

    def _shape(self, item: InputSpec) -> tuple[int, ...]:
        return tuple(self.sizes[dim] if isinstance(dim, str) else dim for dim in item.shape or ())

    def _random(self, item: InputSpec) -> Tensor:
        import torch

        dtype, shape = getattr(torch, item.dtype), self._shape(item)
        if item.values is not None:
            # clone, because an expanded tensor shares memory and cannot be changed in place
            return torch.tensor(item.values, dtype=dtype).expand(shape).clone()
        if dtype == torch.bool:
            return torch.randint(0, 2, shape, generator=self.generator).bool()
        if not (dtype.is_floating_point or dtype.is_complex):
            low = int(item.low or 0)
            high = low + _DEFAULT_INTEGERS if item.high is None else int(item.high)
            return torch.randint(low, high, shape, generator=self.generator, dtype=dtype)
        if item.low is None and item.high is None:
            # drawn in float32, so that inputs in half precision are the same, rounded
            wide = torch.complex64 if dtype.is_complex else torch.float32
            return torch.randn(shape, generator=self.generator, dtype=wide).to(dtype)
        low_end = 0.0 if item.low is None else float(item.low)
        high_end = low_end + 1.0 if item.high is None else float(item.high)
        uniform = torch.rand(shape, generator=self.generator, dtype=torch.float32)
        return (low_end + (high_end - low_end) * uniform).to(dtype)

    def _from_file(self, item: InputSpec) -> Tensor:
        assert item.file is not None
        path, key = split_array_path(item.file)
        tensor = _read_npy(path) if path.suffix == ".npy" else _read_safetensors(path, key)
        return tensor if item.shape is None else self._to_shape(tensor, item)

    def _to_shape(self, tensor: Tensor, item: InputSpec) -> Tensor:
        """Repeat or cut named dims to their size; the other dims must match the file."""
        shape = self._shape(item)
        if tensor.ndim != len(shape):
            raise self._mismatch(tensor, item)
        for axis, (dim, size) in enumerate(zip(item.shape or (), shape, strict=True)):
            if isinstance(dim, str) and tensor.shape[axis]:
                repeats = -(-size // tensor.shape[axis])  # rounded up
                tensor = tensor.repeat_interleave(repeats, dim=axis).narrow(axis, 0, size)
        if tuple(tensor.shape) != shape or str(tensor.dtype) != f"torch.{item.dtype}":
            raise self._mismatch(tensor, item)
        return tensor

    def _mismatch(self, tensor: Tensor, item: InputSpec) -> ModelError:
        found = f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
        expected = f"{self._shape(item)} {item.dtype}"
        return ModelError(
            f"{item.file.name if item.file else 'the file'} contains {found}, expected {expected}",
            hint="fix shape and dtype in the manifest, or remove them",
        )


def make_feed(examples: Examples, names: Sequence[str]) -> dict[str, np.ndarray[Any, Any]]:
    """The tensors of `examples` as arrays for the inputs `names` of an ONNX file.

    They are matched by name if all names occur, else by position. bfloat16 arrays have the dtype of
    ml_dtypes, as in `onnx`.

    Raises:
        ModelError: there are fewer tensors than inputs.
    """
    tensors = examples.tensors()
    if len(tensors) < len(names):
        raise ModelError(
            f"the file has {len(names)} inputs, the manifest specifies {len(tensors)}",
            hint=f"specify {', '.join(names)}",
        )
    # an exporter may rename the inputs, but keeps their order
    if not set(names) <= set(tensors):
        tensors = dict(zip(names, tensors.values(), strict=False))
    return {name: _as_array(tensors[name]) for name in names}


def text_array(shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """An object array filled with \"text\", for an ONNX input of strings."""
    import numpy as np

    return np.full(tuple(shape), "text", dtype=object)


def _as_array(tensor: Tensor) -> np.ndarray[Any, Any]:
    import ml_dtypes
    import torch

    if tensor.dtype == torch.bfloat16:
        # numpy has no bfloat16, and Tensor.numpy() raises for it
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _read_npy(path: Path) -> Tensor:
    import numpy as np
    import torch

    try:
        # a pickle would run code
        array = np.load(path, allow_pickle=False)
        # torch.from_numpy rejects arrays in the other byte order and warns about read-only ones
        native_order = np.require(array, array.dtype.newbyteorder("="), ["W", "A"])
        return torch.from_numpy(native_order)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ModelError(
            f"{path.name} is not a numeric .npy array",
            hint="write it with numpy.save(path, array)",
        ) from error


def _read_safetensors(path: Path, key: str | None) -> Tensor:
    """The tensor `key`, or the only tensor if `key` is None."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            keys = sorted(file.keys())
            if key is None and len(keys) == 1:
                key = keys[0]
            if key in keys:
                tensor: Tensor = file.get_tensor(key)
                return tensor
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path.name} is not a valid safetensors file (truncated?): {one_line(error)}",
            hint="write it with safetensors.torch.save_file({'x': tensor}, path)",
        ) from error
    near = difflib.get_close_matches(key or "", keys, n=1) or keys[:1]
    found = f"no tensor {key!r}" if key is not None else f"{len(keys)} tensors, expected one"
    raise ModelError(
        f"{path.name} contains {found}",
        hint=f"select one: {path.name}:{near[0]}" if near else "save a tensor in it",
    )
