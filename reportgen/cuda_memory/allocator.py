"""A replica of torch's CUDA caching allocator: same rounding, pools, splits and merges.

The rules are those of c10/cuda/CUDACachingAllocator.cpp (torch 2.6; constants unchanged in
2.15). Addresses are invented but grow like those of cudaMalloc, so that ties are resolved as on a
device.
"""

from __future__ import annotations

import os
from bisect import bisect_left, insort
from dataclasses import dataclass

from .errors import CudaMemoryError

MIB = 1 << 20
# kMinBlockSize, kSmallSize, kSmallBuffer, kMinLargeAlloc and kRoundLarge of c10's AllocatorConfig.h
_MIN_BLOCK = 512
_SMALL_REQUEST = 1 * MIB
_SMALL_SEGMENT = 2 * MIB
_MIN_LARGE_REQUEST = 10 * MIB
_SEGMENT_STEP = 2 * MIB
# an expandable segment reserves more addresses than a GPU has memory: the two pools never meet
_ADDRESS_GAP = 1 << 50


class OutOfMemoryError(CudaMemoryError):
    """A request does not fit, even after the cached segments were released."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AllocatorOptions:
    """The options of PYTORCH_ALLOC_CONF that change sizes; the defaults are torch's."""

    expandable_segments: bool = False
    max_split_size_bytes: int | None = None
    large_segment_size_bytes: int = 20 * MIB
    roundup_power2_divisions: tuple[tuple[int, int], ...] = ()
    garbage_collection_threshold: float = 0.0

    def divisions_for(self, size_bytes: int) -> int:
        """How many steps a power of two is divided into for requests of this size; 0 is off."""
        chosen = 0
        for start_bytes, divisions in self.roundup_power2_divisions:
            if size_bytes >= start_bytes:
                chosen = divisions
        return chosen


class Block:
    """A stretch of one segment, in use or free; neighbors are linked for merging."""

    __slots__ = ("address", "following", "free", "pool", "previous", "size")

    def __init__(
        self,
        pool: Pool,
        address: int,
        size: int,
        previous: Block | None = None,
        following: Block | None = None,
    ) -> None:
        self.pool = pool
        self.address = address
        self.size = size
        self.free = True
        self.previous = previous
        self.following = following

    @property
    def is_split(self) -> bool:
        """Whether its segment holds other blocks too."""
        return self.previous is not None or self.following is not None


class Pool:
    """The free blocks of one kind, sorted by size, then address.

    `least_rest` is the smallest rest of a block that is split off and kept for other requests.
    """

    __slots__ = ("blocks", "is_small", "least_rest")

    def __init__(self, *, is_small: bool, least_rest: int) -> None:
        self.is_small = is_small
        self.least_rest = least_rest
        # no two blocks have the same address: tuples compare without comparing blocks
        self.blocks: list[tuple[int, int, Block]] = []

    def add(self, block: Block) -> None:
        """Insert a free block."""
        insort(self.blocks, (block.size, block.address, block))

    def remove(self, block: Block) -> None:
        """Remove a block that is used, merged or released."""
        del self.blocks[bisect_left(self.blocks, (block.size, block.address))]


class CachingAllocator:
    """One device, one stream: `allocate` and `free` blocks, read the counters.

    `capacity_bytes` is the memory available to cudaMalloc; None is unlimited.
    """

    def __init__(
        self, capacity_bytes: int | None = None, options: AllocatorOptions | None = None
    ) -> None:
        self.capacity_bytes = capacity_bytes
        self.options = options or AllocatorOptions()
        self._has_divisions = bool(self.options.roundup_power2_divisions)
        self._keeps_large_blocks = (
            self.options.max_split_size_bytes is not None and not self.options.expandable_segments
        )
        self.allocated_bytes = 0
        self.reserved_bytes = 0
        self.peak_allocated_bytes = 0
        self.peak_reserved_bytes = 0
        self.flushes = 0
        self.small = Pool(is_small=True, least_rest=_MIN_BLOCK)
        # a smaller rest of a large block stays in it: no request of the large pool would fit
        least = _MIN_BLOCK if self.options.expandable_segments else _SMALL_REQUEST + 1
        self.large = Pool(is_small=False, least_rest=least)
        self._next_address = 0
        self._tails: dict[bool, Block] = {}  # by is_small: the last block of an expandable segment

    def allocate(self, request_bytes: int) -> Block:
        """A block of at least `request_bytes`; raises `OutOfMemoryError` beyond the capacity."""
        size = self.round_size(request_bytes)
        pool = self.small if size <= _SMALL_REQUEST else self.large
        block = self._cached(pool, size) or self._fresh(pool, size)
        if block is None:  # torch releases the cache and retries once before it raises
            self._flush()
            block = self._cached(pool, size) or self._fresh(pool, size)
        if block is None:
            raise OutOfMemoryError(
                f"{request_bytes} bytes do not fit beside {self.allocated_bytes} allocated",
                "use a smaller batch, a lower precision or checkpointing",
            )
        self._use(block, size)
        return block

    def free(self, block: Block) -> None:
        """Return a block to its pool, merged with its free neighbors."""
        if block.free:
            raise CudaMemoryError(f"block at {block.address} freed twice")
        self.allocated_bytes -= block.size
        block.free = True
        pool, following, previous = block.pool, block.following, block.previous
        if following is not None and following.free:
            pool.remove(following)
            self._join(block, following)
        if previous is not None and previous.free:
            pool.remove(previous)
            self._join(previous, block)
            block = previous
        pool.add(block)

    def round_size(self, request_bytes: int) -> int:
        """The request rounded up to 512 bytes, or to a division of a power of two."""
        if request_bytes < _MIN_BLOCK:
            return _MIN_BLOCK
        divisions = self._has_divisions and self.options.divisions_for(request_bytes)
        if divisions > 1 and request_bytes > _MIN_BLOCK * divisions:
            return _round_to_division(request_bytes, divisions)
        return round_up(request_bytes, _MIN_BLOCK)

    def _use(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest >= block.pool.least_rest and not (self._keeps_large_blocks and self._is_kept(size)):
            self._split(block, size, rest)
        block.free = False
        self.allocated_bytes += block.size
        if self.allocated_bytes > self.peak_allocated_bytes:
            self.peak_allocated_bytes = self.allocated_bytes

    def _split(self, block: Block, size: int, rest: int) -> None:
        """Free what follows the first `size` bytes of the block."""
        pool, following = block.pool, block.following
        added = Block(pool, block.address + size, rest, block, following)
        if following is not None:
            following.previous = added
        block.following = added
        block.size = size
        if self._tails and self._tails.get(pool.is_small) is block:
            self._tails[pool.is_small] = added
        pool.add(added)

    def _is_kept(self, size: int) -> bool:
        """`max_split_size_mb` does not split blocks for requests of that size or more."""
        limit = self.options.max_split_size_bytes
        return limit is not None and size > _SMALL_REQUEST and size >= limit

    def _cached(self, pool: Pool, size: int) -> Block | None:
        """The smallest free block of at least `size`, the lowest address among equals."""
        blocks = pool.blocks
        at = bisect_left(blocks, (size,))
        if at == len(blocks):
            return None
        block = blocks[at][2]
        if self._keeps_large_blocks and not self._may_serve(block, size):
            return None
        del blocks[at]
        return block

    def _may_serve(self, block: Block, size: int) -> bool:
        """`max_split_size_mb` keeps big blocks for requests of about their size."""
        limit = self.options.max_split_size_bytes
        if limit is None:
            return True
        if size < limit:
            return block.size < limit
        return block.size < size + self.options.large_segment_size_bytes

    def _fresh(self, pool: Pool, size: int) -> Block | None:
        if self.options.expandable_segments:
            return self._expanded(pool, size)
        segment = self._segment_size(size)
        if not self._has_room(segment):
            return None
        self._reserve(segment)
        block = Block(pool, self._next_address, segment)
        self._next_address += segment
        return block

    def _segment_size(self, size: int) -> int:
        if size <= _SMALL_REQUEST:
            return _SMALL_SEGMENT
        if size < _MIN_LARGE_REQUEST:
            return self.options.large_segment_size_bytes
        return round_up(size, _SEGMENT_STEP)

    def _has_room(self, more_bytes: int) -> bool:
        return self.capacity_bytes is None or (
            self.reserved_bytes + more_bytes <= self.capacity_bytes
        )

    def _reserve(self, more_bytes: int) -> None:
        self.reserved_bytes += more_bytes
        self.peak_reserved_bytes = max(self.peak_reserved_bytes, self.reserved_bytes)

    def _expanded(self, pool: Pool, size: int) -> Block | None:
        """Map pages at the end of the pool's one growing segment; a free end is extended."""
        tail = self._tails.get(pool.is_small)
        reusable = tail.size if tail is not None and tail.free else 0
        growth = round_up(size - reusable, self._page(pool))
        if not self._has_room(growth):
            return None
        self._reserve(growth)
        if tail is not None and tail.free:
            pool.remove(tail)
            tail.size += growth
            return tail
        if tail is None:
            block = Block(pool, _ADDRESS_GAP * (1 if pool.is_small else 2), growth)
        else:
            block = Block(pool, tail.address + tail.size, growth, previous=tail)
            tail.following = block
        self._tails[pool.is_small] = block
        return block

    def _page(self, pool: Pool) -> int:
        return _SMALL_SEGMENT if pool.is_small else self.options.large_segment_size_bytes

    def _join(self, first: Block, second: Block) -> None:
        """Extend `first` by the block that follows it."""
        first.size += second.size
        first.following = second.following
        if second.following is not None:
            second.following.previous = first
        if self._tails and self._tails.get(first.pool.is_small) is second:
            self._tails[first.pool.is_small] = first

    def _flush(self) -> None:
        """Release every whole free segment to the driver, as torch does before it raises."""
        self.flushes += 1
        for pool in (self.small, self.large):
            for _, _, block in list(pool.blocks):
                if self.options.expandable_segments:
                    self._unmap_tail(pool, block)
                elif not block.is_split:  # cudaFree takes whole segments only
                    pool.remove(block)
                    self.reserved_bytes -= block.size

    def _unmap_tail(self, pool: Pool, block: Block) -> None:
        """Unmap the whole pages of the free end; pages between used blocks stay mapped."""
        if self._tails.get(pool.is_small) is not block:
            return
        page = self._page(pool)
        released = block.size // page * page
        if released == 0:
            return
        pool.remove(block)
        self.reserved_bytes -= released
        block.size -= released
        if block.size:
            pool.add(block)
        elif block.previous is None:
            del self._tails[pool.is_small]
        else:
            block.previous.following = None
            self._tails[pool.is_small] = block.previous


def round_up(size: int, step: int) -> int:
    """The smallest multiple of `step` that is at least `size`."""
    return -(-size // step) * step


def _round_to_division(size: int, divisions: int) -> int:
    """Up to the next of `divisions` equal steps between two powers of two."""
    floor = 1 << (size.bit_length() - 1)
    if floor == size:
        return size
    step = max(floor // divisions, _MIN_BLOCK)
    return round_up(size, step)


_VARIABLES = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")  # the second is the older name


def allocator_options(text: str | None = None) -> AllocatorOptions:
    """Parse allocator options in torch's format; by default those of the environment.

    `expandable_segments:True,max_split_size_mb:128,roundup_power2_divisions:[256:1,512:2,>:4]`.
    Options that do not change sizes are ignored. Raises `CudaMemoryError` on a bad value.
    """
    if text is None:
        text = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "")
    values = dict(_pairs(text))
    try:
        return AllocatorOptions(
            expandable_segments=values.get("expandable_segments", "False").lower() == "true",
            max_split_size_bytes=_mebibytes(values.get("max_split_size_mb")),
            large_segment_size_bytes=_mebibytes(values.get("large_segment_size_mb")) or 20 * MIB,
            roundup_power2_divisions=_divisions(values.get("roundup_power2_divisions", "")),
            garbage_collection_threshold=float(values.get("garbage_collection_threshold", "0")),
        )
    except ValueError as err:
        raise CudaMemoryError(
            f"allocator options {text!r} are not valid: {err}",
            "use the format of PYTORCH_ALLOC_CONF: name:value, separated by commas",
        ) from err


def _pairs(text: str) -> list[tuple[str, str]]:
    """Split at commas outside brackets, then at the first colon."""
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char == "[") - (char == "]")
        if char == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    pairs = [part.partition(":") for part in parts if part.strip()]
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def _mebibytes(value: str | None) -> int | None:
    return None if value is None else int(value) * MIB


def _divisions(value: str) -> tuple[tuple[int, int], ...]:
    """`4` for all sizes, or `[256:1,512:2,>:4]` with thresholds in MiB, each up to its size."""
    if not value:
        return ()
    if not value.startswith("["):
        return ((0, int(value)),)
    steps: list[tuple[int, int]] = []
    start = 0
    for part in value.strip("[]").split(","):
        threshold, _, divisions = part.partition(":")
        steps.append((start, int(divisions)))
        if threshold.strip() != ">":
            start = int(threshold) * MIB
    return tuple(steps)
