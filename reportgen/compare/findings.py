"""Findings of two reports, paired by what they are about and never by their text."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from reportgen.compare.result import FindingsDiff
from reportgen.findings import Finding

Fingerprint = tuple[str, str]


def diff_findings(
    old: Iterable[Finding], new: Iterable[Finding], paths: Mapping[str, str]
) -> FindingsDiff:
    """The findings of one report only; those that the manifest ignores are neither new nor fixed.

    Args:
        old: of the baseline.
        new: of the report that is judged.
        paths: old path -> new path of modules that have moved: their findings move with them.
    """
    before: dict[Fingerprint, list[Finding]] = defaultdict(list)
    for finding in old:
        before[finding.code, _moved(finding.where, paths)].append(finding)
    after: dict[Fingerprint, list[Finding]] = defaultdict(list)
    for finding in new:
        after[finding.code, finding.where].append(finding)
    added = [f for key, found in after.items() for f in _unpaired(found, before.get(key, []))]
    fixed = [f for key, found in before.items() for f in _unpaired(found, after.get(key, []))]
    return FindingsDiff(
        new=tuple(finding for finding in added if finding.ignored is None),
        fixed=tuple(finding for finding in fixed if finding.ignored is None),
    )


def _unpaired(these: list[Finding], others: list[Finding]) -> list[Finding]:
    """Those of `these` that have no counterpart in `others`, all of one fingerprint.

    Equal messages pair first: of several findings at one place, the one that is left over is then
    the one that changed. A reworded rule leaves none over, since the rest pairs in any case.
    """
    left = list(these)
    unmatched = []
    for other in others:
        same = next((each for each in left if each.message == other.message), None)
        if same is None:
            unmatched.append(other)
        else:
            left.remove(same)
    return left[len(unmatched) :]


def _moved(where: str, paths: Mapping[str, str]) -> str:
    """`where` in the new model: the path of a module, or a name below it."""
    head = where
    while head:
        if head in paths:
            return paths[head] + where[len(head) :]
        head = head.rpartition(".")[0]
    return where
