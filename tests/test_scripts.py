"""The scripts of the pages are type-checked: JSDoc comments have the types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TSC = Path(sys.prefix, "npm/node_modules/.bin/tsc")


@pytest.mark.slow
@pytest.mark.skipif(not TSC.exists(), reason="make test installs the type checker where npm is")
def test_the_scripts_of_the_viewer_have_no_type_errors() -> None:
    found = subprocess.run(
        [TSC, "-p", ROOT / "templates/viewer"], capture_output=True, text=True, check=False
    )
    assert found.stdout == ""
    assert found.returncode == 0
