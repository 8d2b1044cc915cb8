"""How a process of our own is started in a new Python."""

from __future__ import annotations

import sys


def python_command(module: str, *arguments: str) -> tuple[str, ...]:
    """The command that runs `main` of `module` in a new Python; `sys.argv[1:]` are `arguments`.

    Garbage is not collected until `main` enables it: imports make many objects that stay, and
    collections among them take a fifth of their time.
    """
    start = f"import gc, sys; gc.disable(); from {module} import main; sys.exit(main())"
    # -P: a `random.py` or `copy.py` in the current folder would hide the standard library's
    return (sys.executable, "-P", "-c", start, *arguments)
