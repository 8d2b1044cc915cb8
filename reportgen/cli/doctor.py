"""`reportgen doctor`: check the installation."""

from __future__ import annotations

import typer

from reportgen.cli.printing import print_text


def doctor() -> None:
    """Check that all dependencies are installed and compatible."""
    from reportgen.environment import check_environment

    failed = False
    for result in check_environment():
        print_text(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.found}")
        if not result.passed:
            print_text(f"      {result.hint}")
            failed = True
    print_text(f"ok    {_describe_cache()}")
    raise typer.Exit(1 if failed else 0)


def _describe_cache() -> str:
    """Folder and size of the cache for reports in the default folder."""
    from reportgen.cache import Store, cache_folder, size_limit
    from reportgen.pipeline import DEFAULT_PARENT
    from reportgen.units import format_bytes

    store = Store(cache_folder(DEFAULT_PARENT / "manifest").absolute(), size_limit())
    return f"cache: {format_bytes(store.size())} of {format_bytes(store.limit)} in {store.root}"
