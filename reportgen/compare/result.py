"""The result of a comparison: plain values, as `reportgen compare --format json` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

from reportgen.comparable import Graph, ModuleRecord, TrainingCurve
from reportgen.findings import Finding
from reportgen.viewer.layout import GraphLayout

EditKind = Literal[
    "added",
    "removed",
    "moved",  # another place in the tree
    "renamed",  # the same place, another name
    "shifted",  # indices of a container: 3…5 -> 4…6
    "wrapped",  # the whole old model is a part of the new one
    "unwrapped",
    "exchanged",  # two modules have changed places
    "type",  # another class at the same place
    "changed",  # an attribute, a shape or a dtype
    "tied",
    "untied",
    "split",  # one weight into several
    "merged",
    "reshaped",
    "transposed",
    "repeated",  # n equal blocks -> m equal blocks
    "weights",  # other values of the weights
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Edit:
    """One change of the model, said once; everything that it implies is left out.

    Attributes:
        kind: what happened.
        old: path in the old model; None for what was added.
        new: path in the new model; None for what was removed.
        type: the class of the module in the new model, or in the old one if it was removed.
        field: for `changed`: an attribute (`stride`), or `weight.shape`, `weight.dtype`.
        before: value of `field`, or the class, tensor names or count before.
        after: the same afterwards.
        also: new (else old) paths of equal edits folded into this one.
        modules: number of modules that it covers.
        parameters: difference of the model's parameters that it causes.
        macs: difference of the model's MACs that it causes; None if unknown.
        note: what the reader must know besides: "one of 4 equal ones".
        source: file and line of the class, or of its first call: `net.py:12`.
    """

    kind: EditKind
    old: str | None = None
    new: str | None = None
    type: str = ""
    field: str = ""
    before: str = ""
    after: str = ""
    also: tuple[str, ...] = ()
    modules: int = 1
    parameters: int = 0
    macs: int | None = None
    note: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PathPair:
    """A path or key before and after."""

    old: str
    new: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FieldChange:
    """A value of one module or tensor that differs."""

    path: str
    field: str
    old: JsonValue
    new: JsonValue


@dataclass(frozen=True, kw_only=True, slots=True)
class PathGroup:
    """One module that became several, or several that became one, in the order of their rows."""

    old: tuple[str, ...]
    new: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModulesDiff:
    """What changed in the tree of modules.

    Attributes:
        edits: every change once, in the order of the new model.
        added: paths in the new model that have no counterpart, every module.
        removed: paths in the old model that have no counterpart, every module.
        moved: every module whose path differs and whose counterpart is known.
        changed: every attribute, shape or dtype that differs.
        pairs: old path -> new path of all modules that have a counterpart.
        regrouped: modules whose weights were split or merged.
    """

    edits: tuple[Edit, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    moved: tuple[PathPair, ...] = ()
    changed: tuple[FieldChange, ...] = ()
    pairs: tuple[PathPair, ...] = ()
    regrouped: tuple[PathGroup, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeMismatch:
    """A state-dict key of both models whose shapes differ."""

    key: str
    old: tuple[int, ...]
    new: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """How tensors of an old checkpoint become tensors of the new model.

    `kind` split: `old[0]` is cut along `dim` into `new`, of `sizes`; merge: the reverse; reshape
    to the shape `sizes`, transpose and copy (a tie): one tensor each.
    """

    kind: Literal["split", "merge", "reshape", "transpose", "copy"]
    old: tuple[str, ...]
    new: tuple[str, ...]
    dim: int = 0
    sizes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class StateDictDiff:
    """Whether an old checkpoint loads into the new model with `strict=True`.

    Attributes:
        loads: as it is.
        verdict: `loads`; `rename`: with the map `renamed`; `convert`: with `renamed` and
            `conversions`; `cannot`: some tensors have no source.
        missing: keys of the new model that the old one has not, under the same name.
        unexpected: keys of the old model that the new one has not.
        mismatched: keys of both whose shapes differ.
        renamed: every key whose name differs and whose tensor is known to be the same.
        conversions: recipes beyond renaming.
        without_source: new keys that no old tensor can fill.
        unused: old keys that the new model has no use for; they must be left out.
        rename_map: old prefix -> new prefix, None to leave a key out; the longest prefix counts,
            keys without one stay as they are.
    """

    loads: bool
    verdict: Literal["loads", "rename", "convert", "cannot"]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[ShapeMismatch, ...] = ()
    renamed: tuple[PathPair, ...] = ()
    conversions: tuple[Conversion, ...] = ()
    without_source: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    rename_map: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class OperatorChange:
    """How often an operator occurs."""

    name: str
    old: int
    new: int


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeChange:
    """A node of both graphs that differs, or of one alone (`old` or `new` is None).

    `follows` is the number of nodes of which only the shape differs, because of this one; they
    are not listed.
    """

    operator: str
    module: str  # path in the new model, else in the old one
    old: str | None  # id
    new: str | None  # id
    field: str = ""  # an attribute, or "shape"
    before: str = ""
    after: str = ""
    follows: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphDiff:
    """What changed in one graph.

    Attributes:
        name: `modules`, `autograd` or `onnx`.
        operators: operators whose number differs.
        attributes: of the whole graph: the opset.
        nodes: every node that differs.
        pairs: ids of nodes that are counterparts.
    """

    name: str
    operators: tuple[OperatorChange, ...] = ()
    attributes: tuple[FieldChange, ...] = ()
    nodes: tuple[NodeChange, ...] = ()
    pairs: tuple[PathPair, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class MergedView:
    """A merged graph with its layouts.

    Attributes:
        graph: nodes of the new graph in their order, removed ones where they were.
        marks: of each node `added`, `removed`, `changed`, `moved` or "".
        notes: of each node what changed, a line for each change.
        layouts: for the viewer.
        modules: those of the new model, then removed ones at the paths that they would have there.
    """

    graph: Graph
    marks: tuple[str, ...]
    notes: tuple[tuple[str, ...], ...]
    layouts: tuple[GraphLayout, ...]
    modules: tuple[ModuleRecord, ...] = ()


MetricVerdict = Literal["better", "worse", "changed", "noise"]


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricChange:
    """One metric that differs.

    Attributes:
        key: as in `Metric`.
        label: as in `Metric`.
        unit: as in `Metric`.
        old: None if it was unknown or did not exist.
        new: None if it is unknown or does not exist.
        difference: new minus old; None if either is unknown.
        percent: of old; None if it is 0 or unknown.
        verdict: by the metric's direction; `changed` without one or where only the tool or the
            machine differs; `noise` for a measured metric that cannot be judged.
        note: why it is not judged: "measured on another machine", "torch 2.14 -> 2.15".
        exact: as in `Metric`.
        headline: whether the first page shows it.
        old_text: as a reader sees it.
        new_text: as a reader sees it.
    """

    key: str
    label: str
    unit: str
    old: float | None
    new: float | None
    difference: float | None
    percent: float | None
    verdict: MetricVerdict
    note: str = ""
    exact: bool = True
    headline: bool = False
    old_text: str = ""
    new_text: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostStep:
    """One block's part of the change of a cost; all steps together are the whole change."""

    path: str
    reason: str  # added, removed, changed
    parameters: int
    macs: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FitChange:
    """The safe batch on one GPU, where it differs."""

    gpu: str
    mode: str
    precision: str
    setting: str
    old: int | None
    new: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class FindingsDiff:
    """Findings of one report only, paired by fingerprint."""

    new: tuple[Finding, ...] = ()
    fixed: tuple[Finding, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CurvePair:
    """One curve of both reports."""

    old: TrainingCurve
    new: TrainingCurve


@dataclass(frozen=True, kw_only=True, slots=True)
class NotCompared:
    """A section that one side does not have."""

    section: str  # its title
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelComparison:
    """What changed in one model; parts are None where they cannot be compared."""

    name: str
    status: Literal["added", "removed", "changed", "unchanged"]
    metrics: tuple[MetricChange, ...] = ()
    modules: ModulesDiff | None = None
    state_dict: StateDictDiff | None = None
    graphs: tuple[GraphDiff, ...] = ()
    cost: tuple[CostStep, ...] = ()
    findings: FindingsDiff = FindingsDiff()
    fits: tuple[FitChange, ...] = ()
    curves: tuple[CurvePair, ...] = ()
    files: tuple[FieldChange, ...] = ()  # code, weights, data and logs with another hash
    drawing: str = ""  # SVG of both module graphs in one; not in the JSON
    views: tuple[MergedView, ...] = ()  # both graphs in one, for the viewer; not in the JSON
    not_compared: tuple[NotCompared, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class SideLabel:
    """Where one of the two reports comes from."""

    title: str
    commit: str = ""
    built: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two reports compared.

    Attributes:
        old: the baseline.
        new: the report that is judged.
        verdict: `pass`, `warn` or `fail`: that of the new report.
        environment: versions, machine and manifest that differ.
        models: in the order of the new report; removed ones last.
    """

    old: SideLabel
    new: SideLabel
    verdict: str
    environment: tuple[FieldChange, ...] = ()
    models: tuple[ModelComparison, ...] = ()
