"""Where models are analyzed: in threads of this process, or by the workers of any executor.

A task goes to a worker as JSON, and its answer comes back as a tar of JSON and files, which is
checked before it is unpacked. A model that fails is a value; only a lost worker is an exception.
"""

from __future__ import annotations

from reportgen.executors.cluster import ClusterExecutor, Size
from reportgen.executors.dispatch import analyze_all, remaining_sections
from reportgen.executors.task import Remote

__all__ = ["ClusterExecutor", "Remote", "Size", "analyze_all", "remaining_sections"]
