"""The allocator replica against cases computed by hand, and against its invariants."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reportgen.cuda_memory import (
    AllocatorOptions,
    CachingAllocator,
    CudaMemoryError,
    OutOfMemoryError,
    allocator_options,
)
from reportgen.cuda_memory.allocator import Block

MIB = 1 << 20
KIB = 1 << 10


def test_a_small_request_takes_a_two_mebibyte_segment_and_rounds_to_512_bytes() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1)
    allocator.allocate(513)
    assert allocator.allocated_bytes == 512 + 1024
    assert allocator.reserved_bytes == 2 * MIB


def test_one_mebibyte_is_still_small_and_one_more_byte_is_large() -> None:
    allocator = CachingAllocator()
    allocator.allocate(1 * MIB)
    assert allocator.reserved_bytes == 2 * MIB
    allocator.allocate(1 * MIB + 1)
    assert allocator.reserved_bytes == 22 * MIB


def test_requests_of_ten_mebibytes_and_more_get_their_own_segment_rounded_to_two_mebibytes() -> (
    None
):
    allocator = CachingAllocator()
    allocator.allocate(10 * MIB + 1)
    assert allocator.reserved_bytes == 12 * MIB
    assert allocator.allocated_bytes == 10 * MIB + 512


def test_a_large_block_is_split_only_if_more_than_one_mebibyte_remains() -> None:
    allocator = CachingAllocator()
    first = allocator.allocate(20 * MIB)
    allocator.free(first)
    kept_whole = allocator.allocate(19 * MIB)
    assert kept_whole.size == 20 * MIB
    allocator.free(kept_whole)
    split = allocator.allocate(19 * MIB - 512)
    assert split.size == 19 * MIB - 512


def test_the_best_fit_is_the_smallest_block_and_the_lowest_address_on_ties() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.allocate(size * MIB) for size in (40, 30, 30)]
    addresses = [block.address for block in blocks]
    for block in blocks:
        allocator.free(block)
    assert allocator.allocate(30 * MIB).address == addresses[1]


def test_neighbors_merge_when_freed_in_any_order() -> None:
    allocator = CachingAllocator()
    blocks = [allocator.allocate(6 * MIB) for _ in range(3)]
    assert allocator.reserved_bytes == 20 * MIB
    for at in (0, 2, 1):
        allocator.free(blocks[at])
    assert allocator.allocate(20 * MIB).address == blocks[0].address
    assert allocator.reserved_bytes == 20 * MIB


def test_when_memory_runs_out_whole_cached_segments_are_released_first() -> None:
    allocator = CachingAllocator(capacity_bytes=100 * MIB)
    allocator.free(allocator.allocate(60 * MIB))
    allocator.allocate(80 * MIB)
    assert allocator.flushes == 1
    assert allocator.reserved_bytes == 80 * MIB
    assert allocator.peak_reserved_bytes == 80 * MIB


def test_a_split_segment_cannot_be_released_so_the_request_fails() -> None:
    allocator = CachingAllocator(capacity_bytes=100 * MIB)
    whole = allocator.allocate(60 * MIB)
    allocator.free(whole)
    allocator.allocate(30 * MIB)
    with pytest.raises(OutOfMemoryError):
        allocator.allocate(50 * MIB)


def test_freeing_a_block_twice_raises() -> None:
    allocator = CachingAllocator()
    block = allocator.allocate(512)
    allocator.free(block)
    with pytest.raises(CudaMemoryError, match="freed twice"):
        allocator.free(block)


def test_power_of_two_divisions_round_requests_up_to_the_next_step() -> None:
    options = AllocatorOptions(roundup_power2_divisions=((0, 4),))
    allocator = CachingAllocator(options=options)
    assert allocator.round_size(1200 * KIB) == 1280 * KIB
    assert allocator.round_size(1024 * KIB) == 1024 * KIB


def test_max_split_size_keeps_big_blocks_for_big_requests() -> None:
    options = AllocatorOptions(max_split_size_bytes=64 * MIB)
    allocator = CachingAllocator(options=options)
    allocator.free(allocator.allocate(100 * MIB))
    allocator.allocate(30 * MIB)
    assert allocator.reserved_bytes == 130 * MIB


def test_expandable_segments_grow_by_pages() -> None:
    allocator = CachingAllocator(options=AllocatorOptions(expandable_segments=True))
    first = allocator.allocate(50 * MIB)
    assert allocator.reserved_bytes == 60 * MIB
    allocator.free(first)
    allocator.allocate(70 * MIB)
    assert allocator.reserved_bytes == 80 * MIB


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", AllocatorOptions()),
        ("expandable_segments:True", AllocatorOptions(expandable_segments=True)),
        ("max_split_size_mb:128", AllocatorOptions(max_split_size_bytes=128 * MIB)),
        (
            "roundup_power2_divisions:[256:1,512:2,>:4],expandable_segments:False",
            AllocatorOptions(
                roundup_power2_divisions=((0, 1), (256 * MIB, 2), (512 * MIB, 4)),
            ),
        ),
    ],
)
def test_options_are_parsed_in_the_format_of_torch(text: str, expected: AllocatorOptions) -> None:
    assert allocator_options(text) == expected


def test_invalid_options_raise_with_a_hint() -> None:
    with pytest.raises(CudaMemoryError, match="are not valid") as caught:
        allocator_options("max_split_size_mb:lots")
    assert caught.value.hint


requests = st.one_of(
    st.integers(1, 2 * KIB), st.integers(1, 3 * MIB), st.integers(1 * MIB, 64 * MIB)
)
histories = st.lists(st.tuples(requests, st.integers(0, 7)), min_size=1, max_size=60)
settings_of_allocator = st.sampled_from(
    [
        AllocatorOptions(),
        AllocatorOptions(expandable_segments=True),
        AllocatorOptions(max_split_size_bytes=32 * MIB),
        AllocatorOptions(roundup_power2_divisions=((0, 4),)),
    ]
)


def run(allocator: CachingAllocator, history: list[tuple[int, int]]) -> list[Block]:
    """Allocate every request; free one live block after it for odd choices."""
    live: list[Block] = []
    for request, choice in history:
        live.append(allocator.allocate(request))
        if choice % 2 and live:
            allocator.free(live.pop(choice % len(live)))
    return live


@given(histories, settings_of_allocator)
def test_blocks_in_use_never_overlap(
    history: list[tuple[int, int]], options: AllocatorOptions
) -> None:
    live = run(CachingAllocator(options=options), history)
    spans = sorted((block.address, block.address + block.size) for block in live)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


@given(histories, settings_of_allocator)
def test_bytes_are_conserved(history: list[tuple[int, int]], options: AllocatorOptions) -> None:
    allocator = CachingAllocator(options=options)
    live = run(allocator, history)
    free = sum(size for pool in (allocator.small, allocator.large) for size, *_ in pool.blocks)
    assert allocator.allocated_bytes == sum(block.size for block in live)
    assert allocator.allocated_bytes + free == allocator.reserved_bytes
    assert allocator.allocated_bytes <= allocator.reserved_bytes


@given(histories, settings_of_allocator)
def test_after_all_frees_every_segment_is_whole_again(
    history: list[tuple[int, int]], options: AllocatorOptions
) -> None:
    allocator = CachingAllocator(options=options)
    for block in run(allocator, history):
        allocator.free(block)
    assert allocator.allocated_bytes == 0
    free = [b for pool in (allocator.small, allocator.large) for _, _, b in pool.blocks]
    assert not any(block.is_split for block in free)
    assert sum(block.size for block in free) == allocator.reserved_bytes


@settings(deadline=None)
@given(histories, st.integers(1, 40))
def test_what_fits_within_the_peak_of_an_unlimited_run_needs_no_flush(
    history: list[tuple[int, int]], more_mebibytes: int
) -> None:
    unlimited = CachingAllocator()
    run(unlimited, history)
    peak = unlimited.peak_reserved_bytes
    for capacity in (peak, peak + more_mebibytes * MIB):
        limited = CachingAllocator(capacity_bytes=capacity)
        run(limited, history)
        assert limited.flushes == 0
        assert limited.peak_reserved_bytes == peak


@given(histories)
def test_too_little_memory_is_never_exceeded(history: list[tuple[int, int]]) -> None:
    allocator = CachingAllocator(capacity_bytes=48 * MIB)
    with suppress(OutOfMemoryError):
        run(allocator, history)
    assert allocator.peak_reserved_bytes <= 48 * MIB
