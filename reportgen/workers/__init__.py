"""Where a context runs: a process of its own for every model, so that nothing it does costs more.

The parent keeps the clock: every section has a time and a memory limit. A section that crashes,
hangs, is killed or runs out of memory is recorded as failed, and a fresh process goes on with the
sections after it. What comes back is accepted only as a whole file that names its section.
"""

from __future__ import annotations

from reportgen.workers.job import Job, Progress, Step
from reportgen.workers.pool import ModelOutcomes, analyze_all

__all__ = ["Job", "ModelOutcomes", "Progress", "Step", "analyze_all"]
