"""Findings about shapes and dtypes that cost time without a benefit."""

from __future__ import annotations

from collections.abc import Iterator

from reportgen.findings import Hit, Severity, rule
from reportgen.sections.layers.result import Layer, Layers
from reportgen.units import format_share

_DOUBLE = {"float64", "complex128"}
_ALIGNED = 8  # elements of 16 bits that tensor cores read at once
_LEAST_SHARE = 0.02  # of the MACs
_LEAST_MACS = 10**7
_LEAST_FEATURES = 16
_LEAST_CONVOLUTIONS = 3
_LEAST_SIZE = 32  # height and width
_SHOWN = 3


@rule(
    "LAY016",
    Severity.WARNING,
    advice="cast the constant or array that it comes from to the dtype of the input, such as with "
    "`.to(x.dtype)`",
    bad="""
        class Scaled(nn.Module):
            def forward(self, x):
                return x * torch.arange(8, dtype=torch.float64)

        model = nn.Sequential(nn.Linear(8, 8), Scaled())
        inputs = ["x=batch,8"]
    """,
    good="""
        class Scaled(nn.Module):
            def forward(self, x):
                return x * torch.arange(8, dtype=x.dtype)

        model = nn.Sequential(nn.Linear(8, 8), Scaled())
        inputs = ["x=batch,8"]
    """,
)
def double_precision_outputs(result: Layers) -> Iterator[Hit]:
    """A module returns float64, although neither inputs nor parameters are.

    One NumPy array or `torch.float64` constant is enough to make everything behind it float64:
    twice the memory, and up to 64 times slower on a consumer GPU. Computing in float64 inside a
    module and returning float32 is not reported.
    """
    dtypes = {dtype for row in result.layers for dtype in row.dtype.split(", ")}
    if _DOUBLE & (dtypes | set(result.input_dtypes.values())):
        return
    for row in result.layers:
        if _DOUBLE & set(row.output_dtype.split(", ")) and row.leaf:
            yield Hit(row.path, f"{row.type} returns {row.output_dtype}")
            return


@rule(
    "LAY017",
    Severity.NOTE,
    advice="round the number of features up to a multiple of 8, 64 where possible; pad a "
    "vocabulary with unused tokens",
    bad="""
        model = nn.Sequential(nn.Linear(1024, 1023), nn.ReLU(), nn.Linear(1023, 1024))
        inputs = ["x=batch,1024"]
        options = {"batch": 16}
    """,
    good="""
        model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024))
        inputs = ["x=batch,1024"]
        options = {"batch": 16}
    """,
)
def misaligned_features(result: Layers) -> Iterator[Hit]:
    """A large layer has a number of features or channels that is no multiple of 8.

    Tensor cores multiply blocks of 8 elements in half precision: other sizes are padded or run by
    slower kernels (NVIDIA, Deep Learning Performance Guide). A vocabulary of 50,257 is the known
    case. Only linear layers and convolutions without groups are checked that have 2 % of the
    model's MACs or more, and sizes below 16 are left out, such as the channels of an image.
    """
    rows = [row for row in result.layers if _is_misaligned(row, result)]
    if rows:
        names = ", ".join(row.path or "the model" for row in rows[:_SHOWN])
        more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
        share = format_share(sum(row.own_macs for row in rows), result.macs)
        yield Hit(
            rows[0].path,
            f"the sizes of {names}{more} are no multiples of {_ALIGNED}: {rows[0].type} "
            f"({share} of the MACs)",
            key="sizes",
        )


def _is_misaligned(row: Layer, result: Layers) -> bool:
    names = ("in_features", "out_features", "in_channels", "out_channels")
    sizes = [size for name in names if isinstance(size := row.attributes.get(name), int)]
    return (
        len(sizes) == 2
        and (row.groups or 1) == 1
        and row.own_macs >= max(_LEAST_MACS, _LEAST_SHARE * result.macs)
        and any(size % _ALIGNED for size in sizes if size >= _LEAST_FEATURES)
    )


@rule(
    "LAY018",
    Severity.NOTE,
    advice="reduce height and width early, with a stride of 2 or pooling",
    bad="""
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
        inputs = ["x=batch,3,64,64"]
    """,
    good="""
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
        inputs = ["x=batch,3,64,64"]
    """,
)
def full_resolution_classifier(result: Layers) -> Iterator[Hit]:
    """A classifier computes all its convolutions at the full size of the image.

    The cost of a convolution grows with height and width, and a classifier reduces both to one
    value at its end anyway. Reported if an image of 32 pixels or more goes in, a vector for each
    sample comes out, and none of at least three convolutions works at a reduced size.
    """
    sizes = [shape[2:] for shape in result.input_shapes.values() if len(shape) == 4]
    vectors = result.output_shapes and all(len(s) == 2 for s in result.output_shapes.values())
    if len(sizes) != 1 or not vectors or min(sizes[0]) < _LEAST_SIZE:
        return
    convolutions = [row for row in result.layers if row.groups and row.output_shapes]
    maps = [row.output_shapes[0][2:] for row in convolutions if len(row.output_shapes[0]) == 4]
    # without padding a convolution loses a few pixels, which is no reduction
    reduced = [size for size in maps if 2 * min(size, default=0) <= min(sizes[0])]
    if len(maps) >= _LEAST_CONVOLUTIONS and not reduced:
        height, width = sizes[0]
        yield Hit("", f"all {len(maps)} convolutions compute at {height}×{width}", key="size")


EFFICIENCY_RULES = (double_precision_outputs, misaligned_features, full_resolution_classifier)
