"""The pages in a real browser: nothing overflows, everything answers, nothing leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from playwright.sync_api import Browser, Page
from report_values import full_report, hostile_report, work_folder, write_in

pytestmark = pytest.mark.slow
PAGES = ["index.html", *(f"models/{each.name}/index.html" for each in full_report().models)]
FORMATS = frozenset({"html", "json", "md"})


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    for name, report in (("full", full_report()), ("hostile", hostile_report())):
        work = work_folder(report, root / f"work-{name}")
        write_in(root / name, report, work, FORMATS)
    return root


class _Watched:
    """A page with everything it complains of and everything it asks for."""

    def __init__(self, browser: Browser, *, width: int = 1280, scheme: str = "light") -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
        )
        self.page: Page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))

    def open(self, path: Path) -> Page:
        self.page.goto(path.as_uri())
        return self.page


@pytest.fixture
def watched(browser: Browser) -> Iterator[_Watched]:
    each = _Watched(browser)
    yield each
    each.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_no_page_overflows_complains_or_asks_for_anything(
    browser: Browser, site: Path, width: int, scheme: str
) -> None:
    watched = _Watched(browser, width=width, scheme=scheme)
    for name in PAGES:
        page = watched.open(site / "full" / name)
        over = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert over <= 0, name
    assert watched.complaints == []
    assert [url for url in watched.requests if urlparse(url).scheme not in {"file", "data"}] == []
    assert len([url for url in watched.requests if url.startswith("file:")]) == len(PAGES)
    watched.context.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_hostile_text_runs_nothing_and_widens_nothing(
    browser: Browser, site: Path, width: int
) -> None:
    watched = _Watched(browser, width=width)
    dialogs: list[str] = []
    watched.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    name = hostile_report().models[0].name
    for file in ("index.html", f"models/{name}/index.html"):
        page = watched.open(site / "hostile" / file)
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0
        assert page.locator("img").count() == 0
    assert dialogs == []
    assert watched.complaints == []
    watched.context.close()


def test_every_link_leads_to_a_file_or_a_place_that_is_there(watched: _Watched, site: Path) -> None:
    home = site / "full"
    (home / "report.pdf").touch()  # left out of this build, which is about HTML
    for name in PAGES:
        page = watched.open(home / name)
        links = page.eval_on_selector_all("a[href]", "links => links.map(link => link.href)")
        assert links
        for link in links:
            address = urlparse(link)
            target = Path(unquote(address.path))
            assert target.is_file(), (name, link)
            in_viewer = address.fragment.startswith("graph=")
            if address.fragment and not in_viewer and target == home / name:
                assert page.locator(f'[id="{address.fragment}"]').count() == 1, (name, link)


@pytest.mark.parametrize("width", [1280, 400])
def test_a_figure_says_how_it_was_made_on_hover_and_focus_without_scripts(
    browser: Browser, site: Path, width: int
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, java_script_enabled=False
    )
    page = context.new_page()
    page.goto((site / "full/models/resnet50/index.html").as_uri())
    first, second = (page.locator("header .figure").nth(n) for n in (0, 1))
    made = first.locator(".made")
    assert not made.is_visible()
    first.focus()
    assert made.is_visible()
    assert "model.parameters()" in made.inner_text()
    box = made.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
    second.hover()
    assert second.locator(".made").is_visible()
    context.close()


def test_the_colors_of_a_page_follow_the_reader(browser: Browser, site: Path) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        watched = _Watched(browser, scheme=scheme)
        page = watched.open(site / "full/index.html")
        shades[scheme] = page.evaluate(
            "() => ['backgroundColor', 'color'].map(k => getComputedStyle(document.body)[k])"
        )
        watched.context.close()
    assert shades["light"][0] == "rgb(255, 255, 255)"
    assert shades["dark"][0] != shades["light"][0]
    assert shades["dark"][1] != shades["light"][1]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Browser, site: Path, scheme: str) -> None:
    watched = _Watched(browser, scheme=scheme)
    page = watched.open(site / "full/models/transformer/index.html")
    for selector in (".legend", ".verdict", ".box .what", ".finding .advice", "nav a", ".n"):
        assert page.evaluate(_CONTRAST, selector) >= 4.5, selector
    watched.context.close()


_CONTRAST = """selector => {
  const channels = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, n) => sum + c * [0.2126, 0.7152, 0.0722][n], 0);
  const element = document.querySelector(selector);
  let behind = element;
  while (channels(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
  const pair = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map(text => light(channels(text))).sort();
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


def test_the_tree_of_layers_opens_and_closes(watched: _Watched, site: Path) -> None:
    page = watched.open(site / "full/models/vit_b_16/index.html")
    row = page.locator(".tree").get_by_text("self_attention").first
    assert not row.is_visible()
    page.locator(".tree summary", has_text="layers Sequential").click()
    page.locator("summary", has_text="×12").click()
    assert row.is_visible()


def test_the_columns_of_the_tree_stand_under_each_other(watched: _Watched, site: Path) -> None:
    page = watched.open(site / "full/models/vgg16/index.html")
    edges = page.eval_on_selector_all(
        ".tree .row .n:last-child",
        "cells => cells.map(c => Math.round(c.getBoundingClientRect().right))",
    )
    assert len(set(edges)) == 1


def test_a_page_can_be_read_without_scripts(browser: Browser, site: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "full/models/resnet50/index.html").as_uri())
    assert page.locator(".pictures svg").first.is_visible()
    assert not page.locator("#graph-viewer").is_visible()
    assert page.get_by_text("25,557,032").first.is_visible()
    context.close()


def test_korean_is_drawn_with_the_font_that_the_page_brings(watched: _Watched, site: Path) -> None:
    page = watched.open(site / "full/models/감정-분류기/index.html")
    page.evaluate("document.fonts.ready")
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    assert '"Report Hangul"' in loaded or "Report Hangul" in loaded


def test_a_row_of_a_table_leads_to_its_node_and_back(watched: _Watched, site: Path) -> None:
    page = watched.open(site / "full/models/resnet50/index.html")
    page.set_default_timeout(5000)
    page.locator(".drawing .node-box").first.wait_for()
    row = page.locator('[data-module="layer1.0.conv1"]')
    page.evaluate(
        "document.querySelectorAll('.tree details').forEach((each) => (each.open = true))"
    )
    row.hover()
    row.get_by_label("Show layer1.0.conv1 in the graph").click()
    selected = page.locator(".node-box.selected")
    selected.wait_for()
    assert "conv1" in str(selected.text_content())
    assert "#graph=modules&node=layer1.0.conv1" in page.url
    page.locator(".card").get_by_role("button", name="Table of layers").click()
    assert row.evaluate("row => row.classList.contains('shown')")
    assert watched.complaints == []
