"""Whether onnxruntime opens a file of one node: the last word on what it has kernels for."""

from __future__ import annotations

from typing import Any

from reportgen.sections.onnx.inspection.node_types import TypedNode

_SILENT = 4
_IR_VERSION = 10


def opens_alone(typed: TypedNode) -> bool | None:
    """True if a session on the CPU opens for a file of this node with its dtypes alone.

    False if onnxruntime says that an implementation is missing; None where a dtype is not known,
    the node holds a graph of its own, or onnxruntime objects to something else.
    """
    model = _lone(typed)
    return None if model is None else _opens(model)


def _lone(typed: TypedNode) -> bytes | None:
    import onnx

    node = typed.node
    held = any(a.HasField("g") or a.graphs or a.ref_attr_name for a in node.attribute)
    inputs, outputs = _values(node.input, typed), _values(node.output, typed)
    if held or typed.generic or inputs is None or outputs is None:
        return None
    graph = onnx.helper.make_graph([node], "probe", inputs, outputs)
    opset = onnx.helper.make_opsetid(typed.domain, typed.opset)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)
    return bytes(model.SerializeToString())


def _values(names: Any, typed: TypedNode) -> list[Any] | None:
    import onnx

    values = []
    for name in dict.fromkeys(filter(None, names)):
        dtype = typed.types.get(name, "")
        if not dtype.startswith("tensor("):
            return None
        number = onnx.TensorProto.DataType.Value(dtype[len("tensor(") : -1].upper())
        values.append(onnx.helper.make_tensor_value_info(name, number, None))
    return values


def _opens(model: bytes) -> bool | None:
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as Missing

    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Missing:
        return False
    except Exception:  # the whole file will be told of whatever it is
        return None
    return True
