"""The machine that measured times, without its name."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """The machine that measured times, without its name; figures of another one differ."""

    cpu: str
    cores: int
    memory_bytes: int


def describe_machine(memory_bytes: int) -> Machine:
    """The machine that runs this process, with `memory_bytes` of memory."""
    return Machine(cpu=_cpu(), cores=os.cpu_count() or 1, memory_bytes=memory_bytes)


def _cpu() -> str:
    """The model of the CPU: `AMD EPYC 7B13`; its architecture if the system does not say."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return named[1].strip() if named else platform.machine() or "unknown"
