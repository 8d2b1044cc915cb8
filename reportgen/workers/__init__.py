"""One child process per model, with limits on time and memory for each section.

If a section crashes, hangs, is killed or runs out of memory, it is recorded as failed and a new
process continues with the next section. The result of a section is read from a file that the child
writes completely or not at all.
"""

from __future__ import annotations

from reportgen.workers.job import Job, ProgressCallback, SectionCallback, SectionEvent
from reportgen.workers.model_run import ModelOutcomes, analyze_model

__all__ = [
    "Job",
    "ModelOutcomes",
    "ProgressCallback",
    "SectionCallback",
    "SectionEvent",
    "analyze_model",
]
