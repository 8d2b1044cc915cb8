"""Limits on a child process: memory, lifetime, priority for the out-of-memory killer."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def machine_memory() -> int:
    """Physical memory in bytes, or the container's limit if that is lower."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [total]
    # cgroup v2 and v1; without a limit the first has "max", the second a number near 2**63.
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path(file).read_text()))
    return min(limits)


def limit_memory(limit_bytes: int) -> None:
    """Make allocations fail in this process once it has `limit_bytes` of private memory.

    RLIMIT_DATA counts private writable memory only, not the gigabytes of mapped CUDA libraries.
    macOS does not enforce it.
    """
    with contextlib.suppress(ValueError, OSError):  # where it cannot be set, there is no limit
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        if hard != resource.RLIM_INFINITY:
            limit_bytes = min(limit_bytes, hard)  # only root may exceed a hard limit
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


def exit_with_parent(parent: int) -> None:
    """Linux: end when process `parent` ends, and be killed before it if memory runs out."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("900")  # of 1000, which is killed first
    if os.getppid() != parent:  # it ended before prctl took effect
        os._exit(1)
