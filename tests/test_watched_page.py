"""The page that `reportgen watch` keeps up to date, open in a real browser."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser
from test_watching import folder, points, until, watching, write_steps  # noqa: F401

pytestmark = pytest.mark.slow


def test_an_open_page_reloads_itself_and_keeps_its_place(folder: Path, browser: Browser) -> None:  # noqa: F811
    with watching(folder):
        until(lambda: points(folder) == 30)
        page = browser.new_page(viewport={"width": 900, "height": 500})
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((folder / "out" / "models" / "a" / "index.html").as_uri())
        page.fill(".curve-tools input[type=search]", "los")
        page.evaluate("document.querySelector('figure.plot').scrollIntoView()")
        before = page.evaluate("document.querySelector('figure.plot').getBoundingClientRect().top")
        time.sleep(1.1)
        write_steps(folder / "runs", 30, 44)
        until(lambda: points(folder) == 44)
        page.get_by_role("cell", name="44", exact=True).first.wait_for()  # points of the run
        assert page.input_value(".curve-tools input[type=search]") == "los"
        after = page.evaluate("document.querySelector('figure.plot').getBoundingClientRect().top")
        assert abs(after - before) <= 3
        assert problems == []
