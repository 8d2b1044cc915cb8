"""The first lines of the README name both make targets; `test_docs.py` runs its commands."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_lines_have_make_targets_and_a_picture() -> None:
    first = "\n".join(README.splitlines()[:12])
    assert "make report" in first
    assert "make test" in first
    picture = re.search(r"!\[.+\]\((.+\.png)\)", first)
    assert picture is not None
    assert 20_000 < (ROOT / picture[1]).stat().st_size < 200_000


def test_all_make_targets_exist() -> None:
    named = set(re.findall(r"^make ([a-z-]+)", README, re.MULTILINE))
    assert named == {"report", "test"}
    for target in named | {"test-fast", "check", "docs", "clean"}:
        answer = subprocess.run(
            ["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert answer.returncode == 0, answer.stderr
