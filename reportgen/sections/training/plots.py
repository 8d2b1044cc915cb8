"""Groups curves into plots, and writes each plot as SVG and all of its points as CSV."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reportgen.charts.axes import YRange
from reportgen.charts.curves import (
    CurveLine,
    HorizontalMark,
    VerticalMark,
    curve_plot,
    plot_range,
)
from reportgen.charts.svg import standalone
from reportgen.manifest import LogOptions
from reportgen.sections.training.curve import (
    STEP,
    Curve,
    Floats,
    Kind,
    epochs_of,
    interpolate,
    place_points,
)
from reportgen.sections.training.files import FOLDER, CsvCurve, SectionFolder, slug, spread
from reportgen.sections.training.groups import mean_curve
from reportgen.sections.training.result import Extremum, Plot
from reportgen.sections.training.scalars import Summary, non_finite_kind
from reportgen.training_logs.log_run import ChartLayout

_MOST_LINES = 40  # of one plot; its CSV file has them all
_MOST_MARKS = 120  # of values that are not finite, on one line: a plot has no room for more
_LONGEST_PATTERN, _MOST_REPEATS, _MOST_ALTERNATIVES = 300, 3, 16  # of a tag pattern that is tried
OTHER = "other"
"""The heading of curves that are neither metrics nor settings of the optimizer: times, epochs."""
_COMPOSED = "custom charts"
_LONGEST_PATTERNS = 200  # characters of a note
_UNNAMED = "(tag without a name)"
_HEADINGS: dict[Kind, str] = {
    "metric": "metrics",
    "learning rate": "optimizer",
    "gradient norm": "optimizer",
    "other": OTHER,
}
_KINDS = tuple(_HEADINGS)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PlottedRun:
    """One run to draw; `faded` for an earlier attempt or a member of an averaged group."""

    name: str
    curves: Mapping[str, Curve]
    summaries: Mapping[str, Summary]
    faded: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class DrawnPlots:
    """The plots, and for every tag its (plot key, CSV file).

    `notes` has a sentence for every layout of the log that could not be drawn.
    """

    plots: tuple[Plot, ...]
    plot_of: dict[str, tuple[str, str]]
    notes: tuple[str, ...]


@dataclass(kw_only=True, slots=True)
class _Content:
    title: str
    section: str
    tags: list[str] = field(default_factory=list)
    band: tuple[str, ...] = ()  # (value, lower, upper) of a chart of `add_custom_scalars_margin`


def draw_plots(
    runs: Sequence[PlottedRun],
    means: Mapping[str, Mapping[str, Sequence[Curve]]],
    options: LogOptions,
    layouts: Sequence[ChartLayout],
    folder: SectionFolder,
) -> DrawnPlots:
    """Draw every metric of `runs` once, train and validation together, and the log's layouts.

    Args:
        runs: what to draw, in order; a run keeps its color in all plots.
        means: group -> tag -> the curves to average.
        options: axis, reference lines, marks and ranges of the manifest.
        layouts: plots from `add_custom_scalars`.
        folder: where the drawings and CSV files go.
    """
    writer = _PlotWriter(runs=runs, means=means, options=options, folder=folder)
    plots, plot_of = list[Plot](), dict[str, tuple[str, str]]()
    composed, notes = _composed(layouts, runs)
    for content in [*composed, *_by_family(runs)]:
        plot = writer.write(content)
        plots.append(plot)
        plot_of |= dict.fromkeys(content.tags, (plot.key, plot.csv))
    return DrawnPlots(plots=tuple(plots), plot_of=plot_of, notes=tuple(notes))


def _by_family(runs: Sequence[PlottedRun]) -> list[_Content]:
    """One plot per family of tags: metrics with a direction first, then by name.

    A heading with a single plot is replaced by that of the plot's kind.
    """
    families: dict[str, _Content] = {}
    ranks: dict[str, tuple[int, int]] = {}
    for run in runs:
        for tag, curve in run.curves.items():
            name = curve.name
            content = families.setdefault(
                name.family, _Content(title=tag.strip() or _UNNAMED, section=_section(curve))
            )
            if tag not in content.tags:
                content.tags.append(tag)
            rank = (int(name.direction == "none"), _KINDS.index(name.kind))
            ranks[name.family] = min(ranks.get(name.family, rank), rank)
    members = Counter(content.section for content in families.values())
    for family, content in families.items():
        content.tags.sort()
        if len(content.tags) > 1:
            content.title = family
        if members[content.section] == 1:
            content.section = _HEADINGS[_KINDS[ranks[family][1]]]
    # A heading stands where its best plot belongs, so that its plots stay together.
    first: dict[str, tuple[int, int]] = {}
    for family, content in families.items():
        first[content.section] = min(first.get(content.section, ranks[family]), ranks[family])
    order = sorted(
        families,
        key=lambda family: (
            first[families[family].section],
            _natural(families[family].section),
            ranks[family],
            _natural(family),
        ),
    )
    return [families[family] for family in order]


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts `layer2` before `layer10`."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d{1,18})", text)  # int() refuses more than 4,300 digits
    ]


def _section(curve: Curve) -> str:
    # Families contain no train or validation word, so one heading has both.
    return curve.name.family.rpartition("/")[0] or _HEADINGS[curve.name.kind]


def _composed(
    layouts: Sequence[ChartLayout], runs: Sequence[PlottedRun]
) -> tuple[list[_Content], list[str]]:
    """The plots of the log's layouts, and a sentence for each that matches no curve."""
    composed, notes = list[_Content](), list[str]()
    tags = sorted({tag for run in runs for tag in run.curves})
    for layout in dict.fromkeys(layouts):  # every run of a script logs the same ones
        found = [tag for tag in tags if any(_matches(pattern, tag) for pattern in layout.tags)]
        if not found:
            patterns = ", ".join(map(repr, layout.tags))[:_LONGEST_PATTERNS]
            notes.append(f"chart {layout.title!r} of the log's layout: no curve matches {patterns}")
            continue
        composed.append(
            _Content(
                title=layout.title or found[0],
                section=layout.category or _COMPOSED,
                tags=found,
                band=layout.tags if layout.margin and set(layout.tags) <= set(found) else (),
            )
        )
    return composed, notes


def _matches(pattern: str, tag: str) -> bool:
    # `add_custom_scalars` takes tags and regular expressions alike: `acc(top 5)` is a tag.
    if pattern == tag or not _is_quick(pattern, tag):
        return pattern == tag
    try:
        return re.search(pattern, tag) is not None
    except (re.error, RecursionError, OverflowError):
        return False


def _is_quick(pattern: str, tag: str) -> bool:
    """Whether a search ends soon: `(a+)+$` would try more ways than there are seconds."""
    # Without escaped characters, and without the `?` of a group, which repeats nothing.
    plain = re.sub(r"\\.", "", pattern).replace("(?", "(")
    return (
        len(pattern) <= _LONGEST_PATTERN
        and len(tag) <= _LONGEST_PATTERN
        and not re.search(r"\)[*+?{]", plain)
        and len(re.findall(r"[*+?{][+?]?", plain)) <= _MOST_REPEATS
        and plain.count("|") <= _MOST_ALTERNATIVES
    )


@dataclass(kw_only=True, slots=True)
class _PlotWriter:
    runs: Sequence[PlottedRun]
    means: Mapping[str, Mapping[str, Sequence[Curve]]]
    options: LogOptions
    folder: SectionFolder
    _keys: set[str] = field(default_factory=set)

    def write(self, content: _Content) -> Plot:
        """Write one plot and its points."""
        lines, titles = self._lines(content)
        references = [
            HorizontalMark(label=line.label, value=float(line.value))
            for line in self.options.reference_lines
            if line.metric in content.tags
        ]
        ranges = [self.options.ranges[tag] for tag in content.tags if tag in self.options.ranges]
        drawing = curve_plot(
            content.title,
            lines[:_MOST_LINES],
            x_title=titles[0] if titles else STEP,
            y_range=self._range(content, references),
            references=references,
            marks=self._marks(content),
            valid=ranges[0] if ranges else (None, None),
        )
        key = self._key(content.title)
        return Plot(
            key=key,
            title=content.title,
            section=content.section,
            svg=self.folder.write_text(f"{FOLDER}/plots/{key}.svg", standalone(str(drawing.svg))),
            csv=self.folder.write_csv(f"{FOLDER}/plots/{key}.csv", self._points(content)),
            lines=len(lines),
            x=titles[0] if titles else STEP,
            outside=drawing.outside,
        )

    def _lines(self, content: _Content) -> tuple[list[CurveLine], list[str]]:
        lines, titles = list[CurveLine](), list[str]()
        several_runs = len(self.runs) > 1
        for number, (group, tags) in enumerate(self.means.items(), len(self.runs)):
            for tag in content.tags:
                if len(tags.get(tag, ())) > 1:
                    lines.append(_mean_line(f"mean of {group}", tags[tag], number, content.tags))
        for number, run in enumerate(self.runs):
            if len(content.band) == 3 and set(content.band) <= set(run.curves):
                name = run.name if several_runs else ""
                lines.append(_band_line(name, run.curves, content.band, number))
                continue
            for place, tag in enumerate(content.tags):
                if tag in run.curves:
                    xs, title = place_points(run.curves[tag], self.options.x, run.curves)
                    titles.append(title)
                    name = self._line_name(run, tag, content.tags)
                    color = number if several_runs else place
                    lines.append(_line(name, run, tag, xs, color))
        # Faded ones last: if a plot has too many lines, those are left out.
        return sorted(lines, key=lambda line: line.faded), titles

    def _line_name(self, run: PlottedRun, tag: str, tags: Sequence[str]) -> str:
        """The run's name; with the tag if several of its tags would look alike."""
        if len(self.runs) == 1:
            return tag if len(tags) > 1 else ""  # the caption says it
        roles = [run.curves[each].name.role for each in tags if each in run.curves]
        return run.name if len(set(roles)) == len(roles) else f"{run.name} · {tag}"

    def _range(self, content: _Content, references: Sequence[HorizontalMark]) -> YRange:
        # Over all points: decimated ones would give another range, and another number outside.
        lines = [
            CurveLine(
                name=tag,
                xs=run.curves[tag].steps,
                values=run.curves[tag].values,
                best=(best.step, best.value) if (best := run.summaries[tag].best) else None,
            )
            for run in self.runs[:_MOST_LINES]
            for tag in content.tags
            if tag in run.curves
        ]
        return plot_range(lines, references)

    def _marks(self, content: _Content) -> list[VerticalMark]:
        # Marks and resumes are given in steps.
        if self.options.x != STEP:
            return []
        marks = [VerticalMark(label=m.label, x=float(m.step)) for m in self.options.marks]
        for run in self.runs:
            for tag in content.tags[:1]:  # the sessions of a run are the same in all tags
                if tag in run.curves and not run.faded:
                    resumes = run.curves[tag].resumes
                    marks += [VerticalMark(label="resumed", x=resume.step) for resume in resumes]
        return list(dict.fromkeys(marks))

    def _points(self, content: _Content) -> Iterator[CsvCurve]:
        for run in self.runs:
            for tag in content.tags:
                if (curve := run.curves.get(tag)) is not None:
                    yield CsvCurve(
                        run=run.name,
                        tag=tag,
                        steps=curve.steps.tolist(),
                        values=curve.values.tolist(),
                        times=curve.times.tolist(),
                    )

    def _key(self, title: str) -> str:
        stem = key = slug(title)
        number = 2
        while key in self._keys:
            key, number = f"{stem}-{number}", number + 1
        self._keys.add(key)
        return key


def _line(name: str, run: PlottedRun, tag: str, xs: Floats, color: int) -> CurveLine:
    curve, summary = run.curves[tag], run.summaries[tag]
    kept = summary.kept
    bad = np.flatnonzero(~np.isfinite(curve.values))
    best = summary.best
    place = _place_of(best, curve) if best is not None else -1
    epochs = epochs_of(curve, run.curves)
    return CurveLine(
        name=name,
        role=curve.name.role,
        color=color,
        xs=xs[kept],
        values=curve.values[kept],
        smoothed=summary.smoothed[kept] if len(summary.smoothed) else (),
        non_finite=[
            (float(xs[i]), non_finite_kind(curve.values[i]))
            for i in spread(bad.tolist(), _MOST_MARKS)
        ],
        non_finite_count=len(bad),
        best=(float(xs[place]), best.value) if best is not None else None,
        last=_last_point(xs, curve),
        times=() if np.isnan(curve.times).any() else curve.times[kept],
        epochs=epochs[kept] if epochs is not None else (),
        faded=run.faded,
    )


def _band_line(
    name: str, curves: Mapping[str, Curve], band: Sequence[str], color: int
) -> CurveLine:
    """A value between a lower and an upper bound, all at the steps of the value."""
    value, *bounds = (curves[tag] for tag in band)
    low, high = (interpolate(value, bound) for bound in bounds)
    return CurveLine(
        name=name,
        color=color,
        xs=value.steps,
        values=value.values,
        low=() if low is None else low,
        high=() if high is None else high,
    )


def _mean_line(name: str, curves: Sequence[Curve], color: int, tags: Sequence[str]) -> CurveLine:
    mean = mean_curve(curves)
    return CurveLine(
        name=name if len(tags) == 1 else f"{name} · {curves[0].tag}",
        role=curves[0].name.role,
        color=color,
        xs=mean.steps,
        values=mean.mean,
        low=mean.low,
        high=mean.high,
    )


def _place_of(best: Extremum, curve: Curve) -> int:
    # By step and value: several points may have the step, or the value.
    at_step, equal = curve.steps == best.step, curve.values == best.value
    return int(np.flatnonzero(at_step & equal)[0])


def _last_point(xs: Floats, curve: Curve) -> tuple[float, float] | None:
    last = float(curve.values[-1])
    return (float(xs[-1]), last) if np.isfinite(last) else None
