"""The tensors that a file stores, and their values without a second copy in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reportgen.onnx.model.protos import PACKED_BITS, dtype_name, tensor_bytes
from reportgen.sections.onnx.file_result import StoredTensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Stored:
    """An initializer, or the value of a Constant node.

    Attributes:
        tensor: the TensorProto; for a sparse initializer its values.
        folder: where its external data lies, if it has any.
        bytes: what it takes, indices of a sparse one included.
        sparse: whether it is one; its values stand for part of its elements only.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    external: bool
    sparse: bool
    tensor: Any
    folder: Path

    @property
    def told(self) -> StoredTensor:
        """What the report says of it."""
        return StoredTensor(name=self.name, dtype=self.dtype, shape=self.shape, bytes=self.bytes)

    def raw(self) -> memoryview | None:
        """Its bytes as they lie in the file; None where they do not lie there as a whole.

        External data is mapped into memory, not read; outside of the model's folder it is not
        looked at, as no runtime does.
        """
        import numpy as np

        if not self.external:
            return memoryview(self.tensor.raw_data) if self.tensor.raw_data else None
        where = {entry.key: entry.value for entry in self.tensor.external_data}
        path = self.folder / where.get("location", "")
        offset, length = int(where.get("offset", 0)), int(where.get("length", self.bytes))
        if not path.resolve().is_relative_to(self.folder.resolve()):
            return None
        if not path.is_file() or offset + length > path.stat().st_size or not length:
            return None
        return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=length).data

    def values(self) -> Array | None:
        """Its values as a flat array, None where they are missing or text."""
        import numpy as np
        import onnx

        if self.dtype == "string":
            return None
        dtype = onnx.helper.tensor_dtype_to_np_dtype(self.tensor.data_type)
        bits = PACKED_BITS.get(onnx.TensorProto.DataType.Name(self.tensor.data_type))
        raw = self.raw()
        if raw is not None and bits is None:
            flat: np.ndarray[Any, Any] = np.frombuffer(raw, dtype=dtype)
            return flat
        if self.external:
            return None
        array: np.ndarray[Any, Any] = onnx.numpy_helper.to_array(self.tensor).reshape(-1)
        return array


def stored_tensors(model: Any, folder: Path) -> list[Stored]:
    """Every initializer of the graph and of its subgraphs, sparse ones included."""
    return [stored for graph in all_graphs(model.graph) for stored in _of_graph(graph, folder)]


def constant_tensors(model: Any, folder: Path) -> list[Stored]:
    """The value of every Constant node of the graph and its subgraphs, by its output's name."""
    return [
        stored
        for graph in all_graphs(model.graph)
        for node in graph.node
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx")
        for attribute in node.attribute
        if attribute.HasField("t")
        for stored in (_stored(attribute.t, node.output[0], folder),)
    ]


def external_files(stored: Iterable[Stored]) -> list[Path]:
    """The files in which external data lies, each once, in the order of the file."""
    places = (
        tensor.folder / entry.value
        for tensor in stored
        if tensor.external
        for entry in tensor.tensor.external_data
        if entry.key == "location"
    )
    return list(dict.fromkeys(places))


def all_graphs(graph: Any) -> Iterator[Any]:
    """`graph` and every graph inside its nodes, the outer ones first."""
    yield graph
    for node in graph.node:
        yield from subgraphs(node)


def subgraphs(node: Any) -> Iterator[Any]:
    """Every graph inside a node: branches and loop bodies, and those inside them."""
    for attribute in node.attribute:
        inner = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
        for graph in inner:
            yield from all_graphs(graph)


def drop_weights(model: Any, small: int) -> None:
    """Forget the values of every tensor of more than `small` bytes, to save memory."""
    for graph in all_graphs(model.graph):
        for tensor in graph.initializer:
            if len(tensor.raw_data) > small:
                tensor.ClearField("raw_data")


def _of_graph(graph: Any, folder: Path) -> Iterator[Stored]:
    for tensor in graph.initializer:
        yield _stored(tensor, tensor.name, folder)
    for sparse in graph.sparse_initializer:
        values = _stored(sparse.values, sparse.values.name, folder)
        yield Stored(
            name=values.name,
            dtype=values.dtype,
            shape=tuple(sparse.dims),
            bytes=values.bytes + tensor_bytes(sparse.indices),
            external=values.external,
            sparse=True,
            tensor=sparse.values,
            folder=folder,
        )


def _stored(tensor: Any, name: str, folder: Path) -> Stored:
    return Stored(
        name=name,
        dtype=dtype_name(tensor.data_type),
        shape=tuple(tensor.dims),
        bytes=tensor_bytes(tensor),
        external=tensor.data_location == tensor.EXTERNAL,
        sparse=False,
        tensor=tensor,
        folder=folder,
    )
