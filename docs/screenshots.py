"""Takes the pictures of docs/ from the sample report: `python docs/screenshots.py [--readme]`.

They go to docs/images/, which `make docs` fills. `--readme` makes reports/sample/report.png, which
the README shows, from pages of the sample report's PDF. Chromium and poppler are required.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pikepdf
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from reportgen.compare.reports import compare_reports
from reportgen.render import changes_of, render_comparison

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "manifest"
IMAGES = ROOT / "docs" / "images"
README_PICTURE = ROOT / "reports" / "sample" / "report.png"
README_PAGES = (  # bookmarks of report.pdf
    ("Comparison of all models",),
    ("vit_b_16", "Graphs", "Module graph"),
    ("vit_b_16", "ONNX"),
    ("vit_b_16", "Memory", "Memory over one training step"),
    ("lstm_classifier", "Training"),
)
_PAGE_WIDTH = 558  # pixels
_GAP, _BACKGROUND = 16, (230, 233, 240)
_MARGIN = 16
_COMPARED = ("layers", "graphs", "memory")
_COLORS = 256  # enough for text and charts, and a third of the bytes


@dataclass(frozen=True, slots=True)
class Picture:
    """A part of a page: from the top of `first` to the top of `after`, both CSS selectors."""

    name: str
    page: str
    first: str
    after: str


_RESNET, _LSTM = "models/resnet50/index.html", "models/lstm_classifier/index.html"
PICTURES = (
    Picture("start", "index.html", "h1", "#headlines, #table-1"),
    Picture("layers", _RESNET, "#layers h2", 'h3:has-text("Heaviest layers")'),
    Picture("behavior", _RESNET, "#behavior h2", 'h3:has-text("Evaluation and training mode")'),
    Picture("graphs", _RESNET, "#graphs h2", "#onnx"),
    Picture("onnx", _RESNET, 'h3:has-text("Parity")', 'h3:has-text("Operators")'),
    Picture("memory", _RESNET, 'h3:has-text("one training step")', 'h3:has-text("Modules at")'),
    Picture("training", _LSTM, 'h3:has-text("Curves")', 'summary:has-text("optimizer")'),
    Picture("comparison", "comparison.html", "h1", "#changes-1"),
    Picture("notebook", "notebook.html", "main", "footer"),
)


def take_pictures(report: Path, images: Path) -> None:
    """Write every picture of `PICTURES` from the pages in `report`."""
    images.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, _open_browser() as page:
        own = _own_pages()
        for name, text in own.items():
            Path(folder, name).write_text(text, encoding="utf-8")
        for picture in PICTURES:
            home = Path(folder) if picture.page in own else report
            page.goto((home / picture.page).as_uri())
            _save(_shot(page, picture), images / f"{picture.name}.png")


@contextmanager
def _open_browser() -> Iterator[Page]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
        )
        yield browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
        browser.close()


def _shot(page: Page, picture: Picture) -> Image.Image:
    first, after = page.locator(picture.first).first, page.locator(picture.after).first
    first.scroll_into_view_if_needed()
    page.wait_for_timeout(500)  # a chart or a graph is drawn when it comes into view
    top, bottom = (each.evaluate("e => e.getBoundingClientRect().top + scrollY")
                   for each in (first, after))  # fmt: skip
    left, right = page.locator("main").evaluate(
        "e => { const box = e.getBoundingClientRect(); return [box.left, box.right]; }"
    )
    clip = {"x": left, "y": top - _MARGIN, "width": right - left, "height": bottom - top}
    return Image.open(BytesIO(page.screenshot(full_page=True, clip=clip)))  # type: ignore[arg-type]


def _own_pages() -> dict[str, str]:
    """Pages on two small networks: their comparison, and what a notebook shows of the second."""
    from torch import nn

    import reportgen

    def block(width: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, width, 3, stride, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )

    def net(width: int, stride: int) -> nn.Module:
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
        return nn.Sequential(block(width, stride), head)

    old, new = (
        reportgen.analyze(net(*size), (8, 3, 64, 64), name="classifier", sections=_COMPARED)
        for size in ((16, 1), (24, 2))
    )
    comparison = compare_reports(old.data, new.data, draw=True)
    notebook = (
        f"<!doctype html><meta charset=utf-8><main>{new._repr_html_()}</main><footer></footer>"
    )
    return {
        "comparison.html": render_comparison(comparison, changes_of(comparison)),
        "notebook.html": notebook,
    }


def make_readme_picture(report: Path, file: Path) -> None:
    """Write five pages of `report.pdf` side by side."""
    pages = [_page_image(report / "report.pdf", path) for path in README_PAGES]
    height = max(page.height for page in pages)
    width = sum(page.width + _GAP for page in pages) + _GAP
    picture = Image.new("RGB", (width, height + 2 * _GAP), _BACKGROUND)
    for index, page in enumerate(pages):
        picture.paste(page, (_GAP + index * (page.width + _GAP), _GAP))
    _save(picture, file)


def _page_image(pdf: Path, bookmarks: tuple[str, ...]) -> Image.Image:
    number = str(_page_number(pdf, bookmarks))
    command = ["pdftoppm", "-png", "-f", number, "-l", number, "-scale-to-x", str(_PAGE_WIDTH)]
    made = subprocess.run(
        [*command, "-scale-to-y", "-1", str(pdf)], check=True, capture_output=True
    )
    return Image.open(BytesIO(made.stdout))


def _page_number(file: Path, bookmarks: tuple[str, ...]) -> int:
    """The number, from 1, of the page that a path of bookmarks leads to."""
    with pikepdf.open(file) as pdf, pdf.open_outline() as outline:
        entries = outline.root
        for title in bookmarks:
            entry = next(each for each in entries if each.title == title)
            entries = entry.children
        target = entry.destination[0].objgen  # type: ignore[index]
        return 1 + next(n for n, page in enumerate(pdf.pages) if page.objgen == target)


def _save(image: Image.Image, file: Path) -> None:
    palette = image.convert("RGB").quantize(_COLORS, Image.Quantize.FASTOCTREE)
    palette.save(file, optimize=True)


if __name__ == "__main__":
    if "--readme" in sys.argv:
        make_readme_picture(REPORT, README_PICTURE)
    else:
        take_pictures(REPORT, IMAGES)
