"""The leash of a child process: its memory, its lifetime, its place in the queue of victims."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def memory_of_machine() -> int:
    """Physical memory in bytes, or the container's limit where that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return min(limits)


def limit_memory(limit_bytes: int) -> None:
    """Let allocations beyond `limit_bytes` of private memory fail in this process.

    RLIMIT_DATA counts private writable memory only, so the gigabytes of mapped CUDA libraries do
    not count. macOS does not enforce it; there the machine's own limit is all there is.
    """
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            limit_bytes = min(limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


def die_with(parent: int) -> None:
    """Die when process `parent` dies, and before it when memory runs out (Linux)."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")
    if os.getppid() != parent:
        os._exit(1)
