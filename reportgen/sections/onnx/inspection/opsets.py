"""When each operator set of ONNX was released: a table of facts, read without a clock."""

from __future__ import annotations

# Month of the GitHub release that brought the set, https://github.com/onnx/onnx/releases.
# Sets 2, 3 and 4 were never part of one. A set whose month is not certain is left out.
_RELEASED = {
    1: "December 2017",
    5: "March 2018",
    7: "May 2018",
    8: "August 2018",
    9: "January 2019",
    10: "April 2019",
    11: "September 2019",
    12: "May 2020",
    13: "November 2020",
    14: "April 2021",
    15: "July 2021",
    16: "February 2022",
    17: "June 2022",
    18: "December 2022",
    19: "May 2023",
    20: "October 2023",
    21: "March 2024",
    22: "October 2024",
    23: "May 2025",
    24: "August 2025",
    25: "December 2025",
    27: "June 2026",
}


def opset_month(opset: int) -> str | None:
    """The month of the release that brought a standard operator set; None if not known."""
    return _RELEASED.get(opset)


def opset_release(opset: int) -> str | None:
    """The first ONNX version with a standard operator set: `1.13.0`; None for no such set."""
    import onnx

    found = [row[0] for row in onnx.helper.VERSION_TABLE if row[2] == opset]
    return str(found[0]) if found else None


def newest_opset() -> int:
    """The newest standard operator set that the installed onnx knows."""
    import onnx

    return int(onnx.defs.onnx_opset_version())
