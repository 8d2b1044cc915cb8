"""Formatting and parsing of bytes, counts, shares and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reportgen import units
from reportgen.visible_text import cut


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (553_430_176, "527.8 MiB"),
     (80 * 2**30, "80.0 GiB"), (2**20 - 1, "1.0 MiB")],
)  # fmt: skip
def test_bytes_have_binary_prefixes(size: int, text: str) -> None:
    assert units.format_bytes(size) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10.0 k"), (138_357_544, "138.4 M"),
     (15_470_264_320, "15.5 G"), (999_960, "1.0 M")],
)  # fmt: skip
def test_counts_have_decimal_prefixes(count: int, text: str) -> None:
    assert units.format_count(count) == text


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_a_share_is_never_rounded_to_all_or_nothing(part: int, rest: int) -> None:
    assert units.format_share(part, part + rest) not in ("100.0 %", "0.0 %")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [(1, 1, "100.0 %"), (0, 5, "0.0 %"), (999_999, 1_000_000, ">99.9 %"), (1, 10**6, "<0.1 %"),
     (1, 3, "33.3 %"), (0, 0, "–")],
)  # fmt: skip
def test_shares(part: int, whole: int, text: str) -> None:
    assert units.format_share(part, whole) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [("24 GiB", 24 * 2**30), ("512MB", 512 * 10**6), ("1.5 kib", 1536), ("7 B", 7)],
)
def test_sizes_are_parsed(text: str, size: int) -> None:
    assert units.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1 GiB", "1 GiBs", "1e3 MB", "1 G", "٣ GiB"])
def test_invalid_sizes_are_errors(text: str) -> None:
    with pytest.raises(ValueError, match="not a valid size"):
        units.parse_bytes(text)


@given(st.integers(0, 2**60))
def test_formatted_bytes_are_parsed_back_within_the_last_digit(size: int) -> None:
    text = units.format_bytes(size)
    assert abs(units.parse_bytes(text.replace(",", "")) - size) <= 0.051 * 1024 ** (
        units._BINARY.index(text.split()[1])
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 µs"),
        (2e-9, "<0.1 µs"),
        (3e-7, "0.3 µs"),
        (0.00085, "850 µs"),
        (0.0123, "12.3 ms"),
        (4.2, "4.2 s"),
        (185, "3 min 05 s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert units.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("count", "lower_bound", "text"),
    [(816, False, "816"), (0, False, "0"), (1816, True, "≥ 1,816"), (0, True, "unknown")],
)
def test_a_lower_bound_is_marked_and_one_of_nothing_is_unknown(
    count: int, lower_bound: bool, text: str
) -> None:
    assert units.format_bound(count, lower_bound) == text


@pytest.mark.parametrize(
    ("text", "limit", "expected"),
    [
        ("one two", 7, "one two"),
        ("one two three", 9, "one two …"),
        ("one two three", 10, "one two …"),
        ("/a/long/path", 6, "/a/lo…"),
    ],
)
def test_a_text_is_cut_between_words(text: str, limit: int, expected: str) -> None:
    assert cut(text, limit) == expected
    assert len(cut(text, limit)) <= limit
