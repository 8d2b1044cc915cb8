"""What need not run again: results and PDFs of earlier builds, by everything they depend on.

As in ccache's direct mode, a key of what is known beforehand (code, versions, the manifest's
entry) leads to records of the files that were read, with their digests. If one record's files
have the same content now, its result is used, without loading the model or importing torch.
"""

from __future__ import annotations

import time
from pathlib import Path

from reportgen.cache.location import cache_folder, size_limit
from reportgen.cache.results import ResultCache
from reportgen.cache.store import Store

__all__ = ["ResultCache", "Store", "cache_folder", "open_cache", "size_limit"]


def open_cache(folder: Path) -> ResultCache:
    """The cache in `folder`, for a build that begins now; nothing is created yet.

    Raises:
        ReportgenError: `$REPORTGEN_CACHE_SIZE` is not a size.
    """
    return ResultCache(store=Store(folder, size_limit()), started_ns=time.time_ns())
