"""Whether a model does something else while it is exported than when it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reportgen.onnx.export.arguments import bind_arguments
from reportgen.onnx.export.capture import capture, exporting
from reportgen.sections.onnx.parity.case import Sides, copies, named_outputs

if TYPE_CHECKING:
    from torch import Tensor


def captured_output(sides: Sides, name: str) -> Tensor | None:
    """An output as the program gives it that torch.export captures of this very call.

    The program is the model's Python, written down while it ran; no ONNX is involved. None where
    it says nothing: the model draws random numbers, or cannot be captured at these sizes.
    """
    if sides.drew:
        return None
    context, examples = sides.context, sides.examples()
    sides.state.restore()
    try:
        arguments = bind_arguments(
            context.model, context.spec.inputs, examples.args, examples.kwargs, ()
        )
        with exporting():
            program = capture(context.model, arguments, strict=False).module()
            output = program(*arguments.args, **arguments.kwargs)
        return copies(named_outputs(output, [name])).get(name)
    except Exception:  # whatever torch.export has to say: the file was exported in another way
        return None
    finally:
        sides.state.restore()
