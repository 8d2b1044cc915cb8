"""Pages: what they say, that whatever comes from outside stays text, that they stand alone."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from fontTools.pens.recordingPen import RecordingPen
from fontTools.ttLib import TTFont
from jinja2 import UndefinedError
from report_values import (
    full_report,
    hostile_report,
    metrics_of,
    model,
    small_report,
    work_folder,
)

from reportgen.findings import Severity
from reportgen.outcome import Done, Failed, SectionOutcome, Skipped
from reportgen.pdf.places import Sheet
from reportgen.render import (
    render_chapter,
    render_index,
    render_model,
    render_print,
    render_summary,
    templates_dir,
)
from reportgen.render.drawings import inline_svg
from reportgen.render.environment import of_model, page_environment
from reportgen.render.filters import ports, ratio
from reportgen.render.fonts import FACES, Face, common, common_file, cut
from reportgen.render.how_made import how_made
from reportgen.render.text import markdown, shortened
from reportgen.report import ModelReport, Report, Verdict
from reportgen.sections import SECTIONS
from reportgen.sections.graphs import Graphs
from reportgen.sections.layers import Layer
from reportgen.sections.layers.outline import outline, pruned, rows
from reportgen.sections.layers.page import common_path
from reportgen.sections.memory import Memory
from reportgen.units import format_milliseconds
from reportgen.visible_text import visible

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return work_folder(full_report(), tmp_path_factory.mktemp("work"))


def _model(name: str) -> ModelReport:
    return next(each for each in full_report().models if each.name == name)


def _for_paper(report: Report, folder: Path, *, brief: bool = False) -> list[str]:
    """The chapters of all models, one sheet each, then the rest of the report."""
    models = len(report.models)
    chapters = [
        render_chapter(each, folder, number=number, models=models, brief=brief)
        for number, each in enumerate(report.models, start=1)
    ]
    anchors = [re.findall(r'id="(model-[^"]*)"', chapter) for chapter in chapters]
    sheets = [(Sheet(landscape=False, anchors=tuple(each)),) for each in anchors]
    return [*chapters, render_print(report, sheets, brief=brief)]


def _printed(report: Report, folder: Path, *, brief: bool = False) -> str:
    return "".join(_for_paper(report, folder, brief=brief))


def _page(name: str, folder: Path) -> str:
    return render_model(full_report(), _model(name), folder)


class _Reader(HTMLParser):
    """The elements of a page, their attributes, and its text without style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._mute = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._mute = tag if tag in {"style", "script"} else self._mute

    def handle_endtag(self, tag: str) -> None:
        self._mute = "" if tag == self._mute else self._mute

    def handle_data(self, data: str) -> None:
        if not self._mute:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _scrubbed(page: str) -> str:
    """A page without its style, script and drawings: what a person reads, and its structure."""
    page = re.sub(r"<style>.*?</style>", "<style/>", page, flags=re.S)
    page = re.sub(r"<script>.*?</script>", "<script/>", page, flags=re.S)
    page = re.sub(r"'sha256-[^']*'", "'sha256-…'", page.replace("&#39;", "'"))
    page = re.sub(r"<svg.*?</svg>", "<svg/>", page, flags=re.S)
    return re.sub(r"\n\s*\n+", "\n", page)


def _compare(file: str, text: str, request: pytest.FixtureRequest) -> None:
    path = GOLDEN / file
    if request.config.getoption("--update-golden", default=False):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), f"run with --update-golden to renew {file}"


def test_the_summary_is_as_agreed(request: pytest.FixtureRequest) -> None:
    _compare("summary.md", render_summary(full_report()), request)


def test_the_first_page_is_as_agreed(request: pytest.FixtureRequest) -> None:
    _compare("index.html", _scrubbed(render_index(full_report())), request)


def test_the_page_of_a_model_is_as_agreed(request: pytest.FixtureRequest, folder: Path) -> None:
    _compare("transformer.html", _scrubbed(_page("transformer", folder)), request)


def test_the_same_report_gives_the_same_bytes(folder: Path) -> None:
    report = small_report()
    for each in report.models:
        assert render_model(report, each, folder) == render_model(report, each, folder)
    assert render_index(report) == render_index(report)
    assert _printed(report, folder) == _printed(report, folder)


def test_fonts_are_cut_to_the_same_bytes_every_time() -> None:
    file = templates_dir() / "fonts" / "Inter-Regular.otf"
    made = [cut(file, frozenset("report 123")) for _ in range(2)]
    assert made[0] == made[1]
    assert len(made[0]) < 20_000


@pytest.mark.parametrize("face", [face for face in FACES if face.latin], ids=lambda f: f.file)
def test_the_shipped_cut_of_a_font_has_the_glyphs_of_most_pages(face: Face) -> None:
    # not its bytes, which depend on the versions of fontTools and brotli
    path = templates_dir() / "fonts" / face.file
    shipped = _glyphs(base64.b64decode(common_file(path).read_bytes()))
    assert shipped == _glyphs(cut(path, common(path))), "call reportgen.render.fonts.write_common"
    assert set(shipped) == set(map(ord, common(path)))


def _glyphs(font: bytes) -> dict[int, tuple[int, list[tuple[str, tuple[object, ...]]]]]:
    """Code point -> width and outline."""
    found = {}
    with TTFont(io.BytesIO(font)) as opened:
        glyphs = opened.getGlyphSet()
        for code, name in opened.getBestCmap().items():
            pen = RecordingPen()
            glyphs[name].draw(pen)
            found[code] = (glyphs[name].width, pen.value)
    return found


def test_a_page_brings_the_glyphs_of_its_korean_text(folder: Path) -> None:
    page = _page("감정-분류기", folder)
    rule = re.search(
        r"font-family:'Report Hangul';font-weight:400.*?base64,([^)]*)\)", page, flags=re.S
    )
    assert rule is not None
    with TTFont(io.BytesIO(base64.b64decode(rule[1]))) as font:
        assert set("감정분류기영화리뷰") <= set(map(chr, font.getBestCmap()))
        assert len(font.getBestCmap()) < 100


def test_a_page_without_korean_carries_no_korean_font() -> None:
    report = replace(full_report(), models=(_model("vgg16"),))
    assert "font-family:'Report Hangul'" not in render_index(report)


def test_the_fonts_lie_beside_their_licenses_and_stay_small() -> None:
    fonts = templates_dir() / "fonts"
    for file in [*fonts.glob("*.ttf"), *fonts.glob("*.otf")]:
        license_file = fonts / f"{file.stem.partition('-')[0]}-OFL.txt"
        assert "SIL OPEN FONT LICENSE" in license_file.read_text(encoding="utf-8")
    assert sum(file.stat().st_size for file in fonts.iterdir()) < 8_000_000


def test_templates_are_compiled_to_the_same_code_for_screen_and_paper() -> None:
    screen, paper = (
        of_model(page_environment(on_paper=on_paper), Path(), "") for on_paper in (False, True)
    )
    for file in templates_dir().rglob("*.html.j2"):
        text, name = file.read_text(encoding="utf-8"), file.name
        assert screen.compile(text, name, raw=True) == paper.compile(text, name, raw=True), name


def test_every_section_has_a_template_and_every_template_a_section() -> None:
    found = [path.name for path in (templates_dir() / "sections").glob("*.html.j2")]
    whole = {name for name in found if "_" not in name}
    assert whole == {f"{section.name}.html.j2" for section in SECTIONS}
    owners = {f"{name.partition('.')[0].partition('_')[0]}.html.j2" for name in found}
    assert owners == whole, "a part bears the name of its section"


def test_hostile_text_stays_text_on_every_page(tmp_path: Path) -> None:
    report = hostile_report()
    for page in (
        render_index(report),
        render_model(report, report.models[0], tmp_path),
        _printed(report, tmp_path),
    ):
        reader = _Reader(page)
        tags = [tag for tag, _ in reader.elements]
        assert "img" not in tags
        assert tags.count("script") <= 1
        assert "{{ 7*7 }}" in reader.text
        assert "</script><img src=x onerror=alert(1)>" in reader.text
        assert "\u202e" not in page
        assert "\\u202e" in reader.text
        for _, attributes in reader.elements:
            assert not [name for name in attributes if name.startswith("on")]


def test_paper_shows_what_no_font_of_ours_can_draw_by_its_number(tmp_path: Path) -> None:
    page = _printed(hostile_report(), tmp_path)
    assert "🤖" not in page
    assert "\\u{1f916}" in page
    assert "한국어" in page


def test_no_address_on_a_page_leads_out_of_the_report(folder: Path) -> None:
    for page in (render_index(full_report()), _page("vit_b_16", folder)):
        for tag, attributes in _Reader(page).elements:
            for name in ("href", "src", "action", "data", "srcset", "xlink:href"):
                value = attributes.get(name)
                assert value is None or not re.match(r"[a-z]+:|//", value), (tag, value)
        assert "@import" not in page
        assert not re.search(r"url\((?!data:|#)", page)


def test_the_policy_of_a_page_forbids_everything_but_its_own_script(folder: Path) -> None:
    page = _page("tanh", folder)
    policy = next(
        attributes["content"] or ""
        for tag, attributes in _Reader(page).elements
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    script = re.search(r"<script>(.*?)</script>", page, flags=re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "script-src" not in render_index(full_report())


def test_a_misspelled_field_in_a_template_is_an_error_not_a_blank() -> None:
    template = page_environment(on_paper=False).from_string("{{ result.paramters }}")
    with pytest.raises(UndefinedError, match="paramters"):
        template.render(result=full_report())


def test_figures_stand_in_full_and_in_short(folder: Path) -> None:
    text = _Reader(_page("vgg16", folder)).text
    assert "138.4 M 138,357,544" in text
    assert "527.8 MiB 553,430,176 B" in text


def test_what_is_unknown_is_said_to_be_unknown(folder: Path) -> None:
    text = _Reader(_page("transformer", folder)).text
    assert "torchinfo unknown" in text
    assert "torchinfo failed: RuntimeError" in text


def test_a_failed_and_a_skipped_section_say_why_and_the_others_stand(folder: Path) -> None:
    text = _Reader(_page("transformer", folder)).text
    assert "This section failed. the branch at transformer.py:41" in text
    assert "What to do: replace the branch by torch.where" in text
    assert "Not run: the manifest names no logs for this model." in text
    assert "Largest batch that is safe" in text


def test_a_reason_that_fails_every_section_is_told_once() -> None:
    crash = Failed(error="the process crashed with SIGSEGV", hint="see the log")
    whole = _model("transformer")
    sections = tuple(replace(section, outcome=crash) for section in whole.sections)
    report = replace(full_report(), models=(replace(whole, sections=sections),))
    summary = render_summary(report)
    assert summary.count("the process crashed with SIGSEGV") == 1
    assert "**transformer**, every section: the process crashed" in summary
    assert "(every section failed" in summary


def test_sections_that_failed_for_one_reason_share_a_line_and_others_do_not() -> None:
    whole = _model("transformer")
    errors = dict(zip([c.name for c in whole.sections], ["a", "b", "a"], strict=False))
    sections = tuple(
        replace(c, outcome=Failed(error=f"reason {errors[c.name]}")) if c.name in errors else c
        for c in whole.sections
    )
    lines = render_summary(
        replace(full_report(), models=(replace(whole, sections=sections),))
    ).splitlines()
    first, second, third = (c.title for c in sections[:3])
    assert f"- ❌ **transformer**, {first}, {third}: reason a" in lines
    assert f"- ❌ **transformer**, {second}: reason b" in lines


def test_a_drawing_that_paper_has_no_room_for_is_said_to_be_elsewhere(folder: Path) -> None:
    report, whole = full_report(), _model("vgg16")

    def bare(section: SectionOutcome) -> SectionOutcome:
        outcome = section.outcome
        if not isinstance(outcome, Done) or not isinstance(outcome.result, Graphs):
            return section
        autograd = replace(outcome.result.autograd, tiles=())
        return replace(section, outcome=Done(result=replace(outcome.result, autograd=autograd)))

    wide = replace(whole, sections=tuple(map(bare, whole.sections)))
    said = "Not printed: too large to be read on paper, or not laid out for it in time."
    text = _Reader(_printed(replace(report, models=(wide,)), folder)).text
    assert text.count(said) == 1
    assert f"{said} graphs/autograd.svg of the model's folder shows it." in text
    assert said not in _Reader(_printed(replace(report, models=(whole,)), folder)).text


def test_estimates_of_several_batches_are_told_apart(folder: Path) -> None:
    one = _Reader(_page("vgg16", folder)).text
    assert "Peak at the manifest's batch of 8 Step" in one
    report, whole = full_report(), _model("vgg16")
    more = replace(whole, sections=tuple(_with_a_second_batch(c, 512) for c in whole.sections))
    page = render_model(report, more, folder)
    text = _Reader(page).text
    assert "Peak at the manifest's batch of 8, and at 512 for a budget Step" in text
    assert "train · fp32 · batch 8" in page
    assert "train · fp32 · batch 512" in page


def _with_a_second_batch(section: SectionOutcome, batch: int) -> SectionOutcome:
    outcome = section.outcome
    if not isinstance(outcome, Done) or not isinstance(outcome.result, Memory):
        return section
    estimates = outcome.result.estimates
    both = (*estimates, *(replace(each, batch=batch) for each in estimates))
    return replace(section, outcome=Done(result=replace(outcome.result, estimates=both)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0127, "0.013"), (0.4, "0.4"), (1.23, "1.2"), (31.4, "31"), (1234.5, "1,234"), (0, "0")],
)
def test_a_ratio_is_never_rounded_to_nothing(value: float, text: str) -> None:
    assert ratio(value) == text


def test_failed_sections_and_broken_budgets_are_counted_beside_the_findings(folder: Path) -> None:
    report = full_report()
    text = _Reader(render_index(report)).text
    failed = sum(
        isinstance(section.outcome, Failed) for model in report.models for section in model.sections
    )
    broken = sum(check.passed is False for model in report.models for check in model.budgets)
    assert (failed > 0, broken > 0) == (True, True)
    assert f"Failed sections {failed}" in text
    assert f"Budgets exceeded {broken}" in text
    sentence = render_summary(report).splitlines()[3]
    assert f"{failed} failed section" in sentence
    assert f"{broken} exceeded budget" in sentence
    passing = replace(report, models=(_model("vgg16"),))
    assert "Failed sections" not in _Reader(render_index(passing)).text


def test_figures_of_a_clock_stand_in_labeled_blocks_and_go_away_without_timings(
    folder: Path,
) -> None:
    report = full_report()
    assert "All sections took" in render_index(report)
    untimed = replace(report, timings=None)
    for page in (
        render_index(untimed),
        render_model(untimed, _model("transformer"), folder),
        _printed(replace(untimed, models=(_model("transformer"),)), folder),
    ):
        assert "Measured on this machine" not in page
        assert "Time taken" not in page


def test_findings_come_worst_first_and_ignored_ones_with_their_reason(folder: Path) -> None:
    text = _Reader(render_index(full_report())).text
    assert text.index("GRA001") < text.index("LAY004") < text.index("MEM002")
    assert "LAY001" not in text
    assert "Reason: 어휘는 제품 요구사항입니다" in _Reader(_page("감정-분류기", folder)).text


def test_a_report_without_models_has_pages_too(tmp_path: Path) -> None:
    empty = Report(title="Nothing", environment={}, timings=None, models=())
    assert "The report holds no model." in render_index(empty)
    assert "The report holds no model." in _printed(empty, tmp_path)
    assert "The report holds no model." in render_summary(empty)


def test_models_with_different_sections_share_a_comparison(tmp_path: Path) -> None:
    only = SectionOutcome(name="memory", title="Memory", outcome=Skipped(reason="no target"))
    report = replace(
        full_report(), models=(model("bare", Verdict.PASS, sections=(only,)), _model("tanh"))
    )
    assert "bare" in render_index(report)
    [row] = [line for line in render_summary(report).splitlines() if line.startswith("| bare")]
    cells = [cell.strip() for cell in row.strip("| ").split("|")]
    assert cells[1] == "✅ pass"
    assert set(cells[2:]) == {"–", "not run"}


def test_models_that_cannot_be_trained_are_compared_by_inference(folder: Path) -> None:
    """A detector without targets has no training step."""
    models = tuple(map(_without_training, full_report().models))
    report = replace(full_report(), models=models)
    pages = render_index(report), _printed(report, folder), render_summary(report)
    words = [_Reader(page).text for page in pages]
    assert all("safe inference batch" in text.lower() for text in words)
    assert "safe training batch" not in (words[0] + words[2]).lower()


def _without_training(model: ModelReport) -> ModelReport:
    def changed(section: SectionOutcome) -> SectionOutcome:
        if not isinstance(section.outcome, Done) or not isinstance(section.outcome.result, Memory):
            return section
        memory = section.outcome.result
        fits = tuple(fit for fit in memory.fits if fit.mode == "inference")
        return replace(section, outcome=Done(result=replace(memory, fits=fits)))

    sections = tuple(map(changed, model.sections))
    return replace(model, sections=sections, metrics=metrics_of(sections))


def test_what_every_sample_brings_is_one_port() -> None:
    images = {f"images.{n}": (3, 8, 8) for n in range(64)}
    found = ports({**images, "scale": (1,), "x1": (2,), "x2": (2,), "x3": (2,), "x4": (2,)})
    assert [(port.name, port.number) for port in found] == [
        ("images.*", 64), ("scale", 1), ("x1", 1), ("x2", 1), ("x3", 1), ("x4", 1),
    ]  # fmt: skip
    assert [port.name for port in ports({"0.a": (1,), "1.a": (1,), "2.a": (1,)})] == [
        "0.a", "1.a", "2.a",
    ]  # fmt: skip


def test_equal_neighbors_are_one_row_with_their_number() -> None:
    branches = outline(_model("vit_b_16").sections[0].outcome.result.layers)
    repeated = [branch for branch in rows(branches) if branch.times > 1]
    assert [(branch.name, branch.times) for branch in repeated] == [
        ("encoder_layer_0 … encoder_layer_11", 12)
    ]


def test_rows_and_their_repeats_add_up_to_the_model() -> None:
    for each in full_report().models:
        (root,) = outline(each.sections[0].outcome.result.layers)
        own = sum(_total_own(branch, 1) for branch in (root,))
        assert own == root.layer.parameters


def _total_own(branch: object, times: int) -> int:
    times *= branch.times  # type: ignore[attr-defined]
    children = sum(_total_own(child, times) for child in branch.children)  # type: ignore[attr-defined]
    return times * branch.layer.own_parameters + children  # type: ignore[attr-defined]


def test_the_printed_table_is_cut_by_levels_to_its_limit() -> None:
    layers: tuple[Layer, ...] = _model("resnet50").sections[0].outcome.result.layers
    tree = outline(layers)
    for most in (1, 8, 30, 80, 10_000):
        cut = list(rows(pruned(tree, most)))
        assert len(cut) <= most
        everything = sum(1 for _ in rows(tree))
        assert len(cut) + sum(branch.hidden for branch in cut) == everything


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0031, "3.1 µs"),
        (0.25, "250 µs"),
        (1.25, "1.25 ms"),
        (38.42, "38.4 ms"),
        (1204, "1,204 ms"),
    ],
)
def test_a_latency_is_never_rounded_to_nothing(value: float, text: str) -> None:
    assert format_milliseconds(value) == text


def test_paths_that_differ_in_one_name_share_a_star() -> None:
    assert common_path(["a.b_0.c", "a.b_1.c", "a.b_11.c"]) == "a.b_*.c"
    assert common_path(["a.b"]) == "a.b"


def test_a_drawing_is_stripped_of_whatever_acts_or_leads_out(tmp_path: Path) -> None:
    file = tmp_path / "g.svg"
    file.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'width="9pt" height="9pt" viewBox="0 0 9 9" onload="a()"><script>x</script>'
        '<style>@import url(http://e.x)</style><foreignObject/><image href="http://e.x/i"/>'
        '<a xlink:href="javascript:x"><g id="n1" class="node"><title>n &lt;1&gt;</title>'
        '<path d="M0 0" fill="url(#g1)" stroke="url(http://e.x)"/></g></a></svg>'
    )
    svg = inline_svg(file, "modules-")
    for bad in ("script", "onload", "http://e.x", "javascript", "foreignObject", "<image"):
        assert bad not in svg
    assert 'id="modules-n1"' in svg
    assert 'fill="url(#modules-g1)"' in svg
    assert "n &lt;1&gt;" in svg


def test_an_id_that_has_its_prefix_already_keeps_it(tmp_path: Path) -> None:
    file = tmp_path / "g.svg"
    file.write_text(
        '<svg xmlns="http://www.w3.org/2000/svg" id="modules-svg">'
        "<style>#modules-svg .node{fill:red}</style></svg>"
    )
    svg = inline_svg(file, "modules-")
    assert 'id="modules-svg"' in svg
    assert "#modules-svg .node" in svg


def test_ids_on_a_page_are_unique(folder: Path) -> None:
    for page in (_page("vit_b_16", folder), *_for_paper(full_report(), folder)):
        ids = [attributes["id"] for _, attributes in _Reader(page).elements if "id" in attributes]
        assert len(ids) == len(set(ids))


def test_links_to_places_on_a_page_have_a_place(folder: Path) -> None:
    for page in (_page("vit_b_16", folder), *_for_paper(full_report(), folder)):
        elements = _Reader(page).elements
        ids = {attributes.get("id") for _, attributes in elements}
        for _, attributes in elements:
            href = attributes.get("href") or ""
            assert not href.startswith("#") or href[1:] in ids


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", r"a\|b"),
        ("@octocat", "@&#8203;octocat"),
        ("<b>", r"\<b\>"),
        ("fixes #12", r"fixes \#&#8203;12"),
        ("GH-12", "GH&#8203;-12"),
        ("see https://e.x", "see https&#8203;://e.x"),
        ("one\ntwo\r\n| three", r"one two \| three"),
        ("[a](b)", r"\[a\](b)"),
        ("&amp;", r"\&amp;"),
        ("`x`", r"\`x\`"),
        ("a\u202eb\x1b[0m", r"a\\u202eb\\u001b\[0m"),
        ("한국어 vit_b", r"한국어 vit\_b"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


def test_no_text_can_add_a_cell_or_a_row_to_the_table_of_the_summary() -> None:
    lines = render_summary(hostile_report()).splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 3
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1


def test_hidden_characters_are_written_out_and_others_left_alone() -> None:
    assert visible("a\x00b\u200f") == r"a\u0000b\u200f"
    assert visible("한국어 été مرحبا") == "한국어 été مرحبا"


def test_a_shortened_text_keeps_both_ends() -> None:
    assert shortened("abcdefghij", 5) == "ab…ij"
    assert shortened("abc", 5) == "abc"


def test_rendering_needs_neither_torch_nor_weasyprint() -> None:
    code = "import sys, reportgen.render; print({'torch', 'weasyprint'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_appendix_names_each_method_once_and_the_models_it_was_used_for() -> None:
    made = how_made(full_report().models)
    methods = [(each.method, each.tools) for each in made.figures]
    assert len(methods) == len(set(methods))
    keys = {metric.key for model in full_report().models for metric in model.metrics}
    assert set().union(*(each.keys for each in made.figures)) == keys
    by_label = {each.labels[0]: each for each in made.figures}
    assert by_label["Parameters"].models == ()  # of all models
    assert by_label["ONNX file"].models == ("vgg16", "resnet50", "vit_b_16", "tanh")
    assert "Safe training batch on T4, RTX 4090, A100-80GB, H200" in by_label
    assert [each.name for each in made.models] == [each.name for each in full_report().models]


def test_a_heading_of_the_comparison_leads_to_how_its_figures_were_made() -> None:
    page = _Reader(render_index(full_report()))
    places = {attributes.get("id") for _, attributes in page.elements}
    links = [
        attributes
        for tag, attributes in page.elements
        if tag == "a" and str(attributes.get("href")).startswith("#how-")
    ]
    assert len(links) > 8
    assert {str(link["href"])[1:] for link in links} <= places
    assert any("model.parameters()" in str(link.get("title")) for link in links)


def test_a_brief_pdf_cuts_long_lists_and_says_so(folder: Path) -> None:
    one = _model("vgg16")
    found = tuple(
        replace(one.findings[0], where=f"layers.{number}", severity=Severity.WARNING)
        for number in range(8)
    )
    report = replace(full_report(), models=(replace(one, findings=found),))
    text = _Reader(_printed(report, folder, brief=True)).text
    assert "layers.4" in text
    assert "layers.5" not in text
    assert "And 3 more findings: see the page of the model" in text
    assert "How each figure was made" not in text
    assert "Comparison of all models" not in text  # of one there is none


def test_a_brief_pdf_shows_why_a_section_failed(folder: Path) -> None:
    text = _Reader(_printed(small_report(), folder, brief=True)).text
    assert "This section failed." in text
    assert "transformer.py:41: if mask.any():" in text


def test_a_finding_links_to_what_its_rule_means(folder: Path) -> None:
    report = full_report()
    model = next(each for each in report.models if each.findings)
    code = model.findings[0].code
    page = render_model(report, model, folder)
    assert f'href="#rule-{code}"' in page
    assert f'id="rule-{code}"' in page
    href = f"models/{model.name}/index.html#rule-{code}"
    assert f'href="{href}"' in render_index(report)


def test_style_sheets_of_paper_have_no_media_rule() -> None:
    """WeasyPrint warns of widths in them, and its warnings are errors."""
    sheets = [templates_dir() / name for name in ("report.css", "print.css")]
    assert [file.name for file in sheets if "@media" in file.read_text(encoding="utf-8")] == []
