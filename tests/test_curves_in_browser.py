"""The script of the training section in a real browser, on a page of its own."""

from __future__ import annotations

import base64
import hashlib
import html
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlparse

import numpy as np
import pytest
from markupsafe import escape
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from reportgen.charts.curves import CurveLine, HorizontalMark, VerticalMark, curve_plot
from reportgen.charts.sparkline import sparkline

pytestmark = pytest.mark.slow
TEMPLATES = Path(__file__).parents[1] / "templates"
HOSTILE = "</metadata><script>alert(1)</script><img src=x onerror=alert(2)> \"'"
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhg"
    "GAWjR9awAAAABJRU5ErkJggg=="
)
STEPS = np.arange(0, 2000, 10.0)


def _line(name: str, color: int = 0, role: str = "train", *, spike: bool = False) -> CurveLine:
    ys = 0.5 + 0.1 * color + 2 * np.exp(-STEPS / 300)
    if spike:
        ys[100] = 1e6
    low = int(ys.argmin())
    return CurveLine(
        name=name, color=color, role=role, xs=STEPS, values=ys, smoothed=ys,  # type: ignore[arg-type]
        times=1.7e9 + STEPS * 6, epochs=STEPS / 100, best=(float(STEPS[low]), float(ys[low])),
        last=(float(STEPS[-1]), float(ys[-1])),
    )  # fmt: skip


def _plots() -> list[tuple[str, str]]:
    losses = [_line("run a"), _line("run b", 1), _line("run a", 0, "validation")]
    lost = CurveLine(
        name="run a", xs=STEPS[:50], values=[None if n == 7 else n / 50 for n in range(50)],
        non_finite=[(70.0, "nan")],
    )  # fmt: skip
    plain = CurveLine(name="", xs=[1, 2, 3], values=[0.5, 0.6, 0.7])
    drawn = {
        "train/loss": curve_plot(
            "train/loss", losses, marks=[VerticalMark(label="resumed", x=1000)],
            references=[HorizontalMark(label="target", value=0.6)], valid=(0.55, None),
        ),
        "train/spike": curve_plot("train/spike", [_line("run a", spike=True)]),
        "train/nan": curve_plot("train/nan", [lost]),
        "val/acc": curve_plot("val/acc", [plain], x_title="epoch"),
    }  # fmt: skip
    return [(title, plot.svg) for title, plot in drawn.items()]


def _figure(title: str, svg: str) -> str:
    name = "plot-" + re.sub(r"\W", "-", title)
    caption = f"<figcaption>{escape(title)}</figcaption>"
    return f'<figure class="plot" data-title="{escape(title)}" id="{name}">{caption}{svg}</figure>'


def _group(name: str, plots: Sequence[tuple[str, str]], *, is_open: bool = True) -> str:
    figures = "".join(_figure(title, svg) for title, svg in plots)
    return (
        f'<details class="plot-group"{" open" if is_open else ""}><summary>{name} '
        f'<span class="count">{len(plots)} plots</span></summary>'
        f'<div class="plots">{figures}</div></details>'
    )


def _images() -> str:
    logged = [("samples", step) for step in (0, 100, 200)] + [("masks", step) for step in (0, 150)]
    figures = "".join(
        f'<figure class="logged-image" data-tag="{tag}" data-step="{step}" data-run="a">'
        f'<img src="{PIXEL}" alt="" width="64" height="64">'
        f"<figcaption>{tag} {step}</figcaption></figure>"
        for tag, step in logged
    )
    return f'<div class="image-grid">{figures}</div>'


def _page(groups: Sequence[str], *, live: str = "") -> str:
    style = "".join(
        (TEMPLATES / f"{name}.css").read_text("utf-8") for name in ("report", "screen", "curves")
    )
    script = "".join(
        (TEMPLATES / f"{name}.js").read_text("utf-8") for name in ("curve_plot", "curves")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}' 'strict-dynamic'; "
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    stamp = f' data-live="{live}"' if live else ""
    return (
        f'<!DOCTYPE html><html lang="en"{stamp}><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><style>{style}</style><title>t</title>'
        '</head><body><nav class="side"></nav><main><section id="training"><h2>Training</h2>'
        f'<div class="curves" data-curves>{"".join(groups)}</div>{_images()}</section></main>'
        f"<script>{script}</script></body></html>"
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("curves")
    small = [
        (f"layer/{n}", sparkline(f"layer/{n}", [_line("run a"), _line("run b", 1)]))
        for n in range(6)
    ]
    groups = [_group("train", _plots()), _group("layer", small, is_open=False)]
    (root / "page.html").write_text(_page(groups), encoding="utf-8")
    hostile = [(HOSTILE, curve_plot(HOSTILE, [_line(HOSTILE), _line("b", 1)], x_title=HOSTILE).svg)]
    (root / "hostile.html").write_text(_page([_group("x", hostile)]), encoding="utf-8")
    return root


class _Watched:
    def __init__(self, context: BrowserContext) -> None:
        self.page: Page = context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def page(browser: Browser, site: Path) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": 1280, "height": 900}, timezone_id="Europe/Berlin"
    )
    watched = _Watched(context)
    watched.page.goto((site / "page.html").as_uri())
    yield watched.page
    assert watched.complaints == []
    context.close()


def _plot(page: Page, title: str) -> Locator:
    return page.locator(f'figure.plot[data-title="{title}"]')


def _texts(plot: Locator) -> list[str]:
    return plot.locator("svg text").all_text_contents()


def _point(page: Page, title: str, share: float, down: float = 0.4) -> tuple[float, float]:
    """A place in the area of a plot: `share` of its width from the left."""
    box = _plot(page, title).locator("svg").bounding_box()
    assert box is not None
    left, right = 40 / 360, 348 / 360
    return box["x"] + box["width"] * (left + share * (right - left)), box["y"] + box[
        "height"
    ] * down


def _drag(page: Page, title: str, start: float, end: float) -> None:
    page.mouse.move(*_point(page, title, start))
    page.mouse.down()
    page.mouse.move(*_point(page, title, end), steps=5)
    page.mouse.up()
    _settle(page)


def _settle(page: Page) -> None:
    page.evaluate("() => new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))")


# ---- the page as it comes ------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_no_overflow_no_error_and_no_request(
    browser: Browser, site: Path, width: int, scheme: str
) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme,  # type: ignore[arg-type]
    )  # fmt: skip
    watched = _Watched(context)
    watched.page.goto((site / "page.html").as_uri())
    watched.page.get_by_placeholder("regular expression").wait_for()
    over = watched.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    assert over <= 0
    assert watched.complaints == []
    assert [urlparse(url).scheme for url in watched.requests if not url.startswith("data:")] == [
        "file"
    ]
    context.close()


def test_without_scripts_every_plot_and_image_is_there_and_no_tool(
    browser: Browser, site: Path
) -> None:
    context = browser.new_context(java_script_enabled=False)
    bare = context.new_page()
    bare.goto((site / "page.html").as_uri())
    assert bare.locator("figure.plot svg").count() == 10
    assert _plot(bare, "train/loss").is_visible()
    assert bare.locator(".logged-image:visible").count() == 5
    assert bare.locator("input, select, button").count() == 0
    context.close()


def test_hostile_names_run_nothing(browser: Browser, site: Path) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = _Watched(context)
    watched.page.goto((site / "hostile.html").as_uri())
    watched.page.locator(".run-filter summary").click()
    watched.page.get_by_label("y axis").select_option("log")
    watched.page.locator("figure.plot svg.live").hover()
    assert HOSTILE in watched.page.locator(".read-out").inner_text()
    assert watched.page.locator(".curves img").count() == 0
    assert watched.complaints == []
    context.close()


# ---- filters -------------------------------------------------------------------------------------


def test_the_filter_hides_plots_and_empty_groups_and_opens_folded_ones(page: Page) -> None:
    box = page.get_by_placeholder("regular expression")
    folded = page.locator("details.plot-group").nth(1)
    box.fill("layer/[12]|acc")
    page.locator(".found", has_text="3 of 10").wait_for()
    assert page.locator("figure.plot:visible").count() == 3
    assert folded.get_attribute("open") is not None
    assert folded.locator(".count").inner_text() == "2 of 6 plots"
    box.fill("acc$")
    page.locator(".found", has_text="1 of 10").wait_for()
    assert not folded.is_visible()
    box.fill("")
    page.locator(".found", has_text=re.compile("^10 plots$")).wait_for()
    assert folded.get_attribute("open") is None
    assert page.locator("figure.plot:visible").count() == 4


def test_an_invalid_expression_is_marked_and_changes_nothing(page: Page) -> None:
    box = page.get_by_placeholder("regular expression")
    box.fill("(loss")
    page.wait_for_selector("input[aria-invalid=true]")
    assert page.locator("figure.plot:visible").count() == 4
    box.fill("(loss)")
    page.locator(".found", has_text="1 of 10").wait_for()
    assert box.get_attribute("aria-invalid") is None


def test_runs_can_be_left_out(page: Page) -> None:
    page.locator(".run-filter summary").click()
    page.locator(".run-list").get_by_label("run b").uncheck()
    _settle(page)
    assert page.locator(".run-filter summary").inner_text() == "Runs (1 of 2)"
    plot = _plot(page, "train/loss")
    assert plot.locator("svg.live .curve").count() == 2
    assert plot.locator("svg.live .curve.l1").count() == 0
    assert "run b" not in _texts(plot)
    page.get_by_role("button", name="None").click()
    page.get_by_role("button", name="All").click()
    _settle(page)
    assert plot.locator("svg.live").count() == 0


# ---- read-out ------------------------------------------------------------------------------------


def test_the_read_out_names_the_nearest_point_of_each_line(page: Page) -> None:
    page.mouse.move(*_point(page, "train/loss", 0.5))
    text = page.locator(".read-out").inner_text()
    step = int(re.search(r"step ([\d,]+)", text)[1].replace(",", ""))  # type: ignore[index]
    assert abs(step - 1000) <= 20
    value = 0.5 + 2 * math.exp(-step / 300)
    assert f"{value:.5g}".rstrip("0") in text
    assert f"{value + 0.1:.5g}".rstrip("0") in text
    assert f"epoch {step / 100:g}" in text
    assert "1 h 4" in text  # 6 s a step
    assert page.locator(".read-out .line").count() == 3
    assert page.locator(".cursor circle").count() == 3
    page.mouse.move(5, 5)
    assert not page.locator(".read-out").is_visible()


def test_keys_move_the_read_out(page: Page) -> None:
    plot = _plot(page, "train/loss")
    plot.locator("svg").focus()
    page.keyboard.press("End")
    about = page.locator(".read-out .about").first
    assert about.inner_text().startswith("step 1,990")
    page.keyboard.press("ArrowLeft")
    assert about.inner_text().startswith("step 1,980")
    first = page.locator(".read-out .first")
    assert first.inner_text().startswith("run a train")
    page.keyboard.press("ArrowDown")
    assert first.inner_text().startswith("run b train")
    assert about.inner_text().startswith("step 1,980")
    page.keyboard.press("Home")
    assert about.inner_text().startswith("step 0")
    page.keyboard.press("Escape")
    assert not page.locator(".read-out").is_visible()


def test_nan_is_read_out_as_nan(page: Page) -> None:
    _plot(page, "train/nan").locator("svg").focus()
    page.keyboard.press("Home")
    for _ in range(7):
        page.keyboard.press("ArrowRight")
    assert "step 70" in page.locator(".read-out").inner_text()
    assert "NaN" in page.locator(".read-out .first").inner_text()


# ---- axes ----------------------------------------------------------------------------------------


def test_dragging_zooms_and_escape_and_double_click_reset(page: Page) -> None:
    plot = _plot(page, "train/loss")
    page.get_by_label("Lines").wait_for()
    _drag(page, "train/loss", 0.5, 0.75)
    ticks = [int(t.replace(",", "")) for t in _texts(plot) if re.fullmatch(r"1,\d00", t)]
    assert ticks
    assert all(1000 <= tick <= 1500 for tick in ticks)
    assert page.get_by_role("button", name="Reset zoom").is_visible()
    assert _plot(page, "train/spike").locator("svg.live").count() == 0
    plot.locator("svg").dblclick()
    _settle(page)
    assert plot.locator("svg.live").count() == 0
    _drag(page, "train/loss", 0.2, 0.4)
    plot.locator("svg").focus()
    page.keyboard.press("Escape")
    _settle(page)
    assert plot.locator("svg.live").count() == 0


def test_all_plots_can_zoom_together(page: Page) -> None:
    page.get_by_label("zoom all together").check()
    _drag(page, "train/loss", 0.5, 0.75)
    assert _plot(page, "train/spike").locator("svg.live").count() == 1
    page.get_by_role("button", name="Reset zoom").click()
    _settle(page)
    assert page.locator("svg.live").count() == 0


def test_the_y_axis_can_be_logarithmic(page: Page) -> None:
    page.get_by_label("y axis").select_option("log")
    _settle(page)
    assert any("log scale" in text for text in _texts(_plot(page, "train/loss")))
    page.get_by_label("y axis").select_option("auto")
    _settle(page)
    assert page.locator("svg.live").count() == 0


def test_the_x_axis_can_be_epochs_or_time(page: Page) -> None:
    plot = _plot(page, "train/loss")
    page.locator(".run-filter").wait_for()
    page.get_by_label("x axis").select_option("epoch")
    _settle(page)
    assert {"epoch", "0", "5", "10", "15", "20"} <= set(_texts(plot))
    page.get_by_label("x axis").select_option("relative")
    _settle(page)
    assert {"time since the start", "1 h", "3 h"} <= set(_texts(plot))
    page.get_by_label("x axis").select_option("wall")
    _settle(page)
    # 1.7e9 s are 23:13 in Berlin
    assert {"wall time", "00:00", "02:00"} <= set(_texts(plot))
    assert "the log has no times" in _texts(_plot(page, "val/acc"))


def test_outliers_can_be_shown(page: Page) -> None:
    plot = _plot(page, "train/spike")
    assert "1 point outside, max 1e6 at step 1,000" in _texts(plot)
    page.get_by_label("show outliers").check()
    _settle(page)
    assert "1M" in _texts(plot)
    assert not any("outside" in text for text in _texts(plot))


def test_lines_can_be_raw_smoothed_or_smoothed_again_which_is_said(page: Page) -> None:
    plot = _plot(page, "train/loss")
    curve = plot.locator("svg.live .curve").first
    page.get_by_label("Lines").select_option("raw")
    _settle(page)
    assert curve.locator("path").count() == 1
    page.get_by_label("Lines").select_option("strong")
    _settle(page)
    assert curve.locator("path").count() == 2
    assert any("of the plotted points" in text for text in _texts(plot))


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["click", "key", "button"])
def test_a_sparkline_becomes_a_plot_and_back(page: Page, way: str) -> None:
    page.locator("details.plot-group > summary").nth(1).click()
    plot = _plot(page, "layer/1")
    plot.scroll_into_view_if_needed()
    button = plot.get_by_role("button", name="Enlarge")
    button.wait_for(state="attached")
    if way == "click":
        plot.locator("svg").click()
    elif way == "key":
        plot.locator("svg").focus()
        page.keyboard.press("Enter")
    else:
        button.click()
    assert plot.locator("svg.live .curve").count() == 2
    width = plot.bounding_box()["width"]  # type: ignore[index]
    assert width > 800
    assert "step" in _texts(plot)
    plot.get_by_role("button", name="Shrink").click()
    assert plot.locator("svg.spark").count() == 1


# ---- images --------------------------------------------------------------------------------------


def test_one_slider_sets_the_step_of_all_images(page: Page) -> None:
    shown = page.locator(".logged-image:visible figcaption")
    slider = page.get_by_role("slider")
    assert shown.all_text_contents() == ["samples 200", "masks 150"]
    for index, captions in enumerate(
        [["samples 0", "masks 0"], ["samples 100", "masks 0"], ["samples 100", "masks 150"]]
    ):
        slider.fill(str(index))
        assert shown.all_text_contents() == captions
    page.get_by_label("all steps").check()
    assert shown.count() == 5


# ---- reload --------------------------------------------------------------------------------------


def test_a_reload_keeps_filter_zoom_step_and_open_groups(page: Page) -> None:
    page.locator("details.plot-group > summary").nth(1).click()
    _drag(page, "train/loss", 0.5, 0.75)
    page.get_by_label("y axis").select_option("linear")
    page.get_by_role("slider").fill("1")
    page.get_by_placeholder("regular expression").fill("loss|layer")
    page.locator(".found", has_text="7 of 10").wait_for()
    _plot(page, "layer/3").scroll_into_view_if_needed()
    before = _plot(page, "layer/3").bounding_box()
    page.reload()
    page.locator(".found", has_text="7 of 10").wait_for()
    _settle(page)
    _settle(page)
    assert page.get_by_placeholder("regular expression").input_value() == "loss|layer"
    assert page.get_by_label("y axis").input_value() == "linear"
    assert page.get_by_role("slider").input_value() == "1"
    assert page.get_by_role("button", name="Reset zoom").is_visible()
    assert page.locator("details.plot-group").nth(1).get_attribute("open") is not None
    after = _plot(page, "layer/3").bounding_box()
    assert before is not None
    assert after is not None
    assert after["y"] == pytest.approx(before["y"], abs=30)


def test_a_live_page_reloads_itself_when_its_stamp_changes(
    browser: Browser, tmp_path: Path
) -> None:
    file, live = tmp_path / "page.html", tmp_path / "live.js"
    file.write_text(_page([_group("train", _plots())], live="1"), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = _Watched(context)
    opened = watched.page
    opened.goto(file.as_uri())
    opened.get_by_placeholder("regular expression").fill("loss")
    opened.locator(".found", has_text="1 of 4").wait_for()
    # live.js is not there yet, then it has the stamp of the page, then a newer one.
    live.write_text('window.reportgenLive("1")', encoding="utf-8")
    with opened.expect_request(lambda request: "live.js" in request.url):
        pass
    file.write_text(_page([_group("train", _plots()[:2])], live="2"), encoding="utf-8")
    with opened.expect_navigation():
        live.write_text('window.reportgenLive("2")', encoding="utf-8")
    opened.locator(".found", has_text="1 of 2").wait_for()
    assert opened.evaluate("document.documentElement.dataset.live") == "2"
    live.write_text('window.reportgenLive("")', encoding="utf-8")
    opened.wait_for_timeout(1500)
    asked = len(watched.requests)
    opened.wait_for_timeout(1500)
    assert len(watched.requests) == asked
    assert [text for text in watched.complaints if "ERR_FILE_NOT_FOUND" not in text] == []
    context.close()


# ---- many plots ----------------------------------------------------------------------------------


def test_three_thousand_plots_make_a_page_under_5_megabytes_that_responds(
    browser: Browser, tmp_path: Path
) -> None:
    svg = sparkline("tag", [_line("run a")])
    groups = [
        _group(f"layer{g}", [(f"layer{g}/{n}", svg) for n in range(60)], is_open=g < 5)
        for g in range(50)
    ]
    file = tmp_path / "many.html"
    file.write_text(_page(groups), encoding="utf-8")
    assert file.stat().st_size < 5e6
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    watched = _Watched(context)
    watched.page.goto(file.as_uri())
    watched.page.locator(".found", has_text="3000 plots").wait_for()
    # Only what is near the window has been prepared.
    assert 0 < watched.page.locator("svg[tabindex]").count() < 200
    watched.page.get_by_placeholder("regular expression").fill("layer4[89]/5$")
    watched.page.locator(".found", has_text="2 of 3000").wait_for()
    assert watched.page.locator("figure.plot:visible").count() == 2
    assert watched.complaints == []
    context.close()
