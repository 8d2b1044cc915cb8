"""One comment per manifest on a pull request, found again by its first line and edited in place."""

from __future__ import annotations

from typing import Any

from reportgen.compare.result import Comparison
from reportgen.render.changes import changes_of
from reportgen.render.summary import marker, render_summary
from reportgen.render.text import markdown
from reportgen.report import Report, Verdict
from reportgen.review.github import Github, RefusedError

AUTHOR = "github-actions[bot]"
"""Who posts with the token of a workflow; comments of others are never edited."""


def post_comment(
    github: Github,
    pull_request: int,
    report: Report,
    comparison: Comparison | None = None,
    *,
    link: str = "",
    author: str = AUTHOR,
) -> str:
    """Post or edit the comment on `report`, and return what was done in a sentence.

    Without anything to say nothing is posted, and an existing comment becomes one line. A pull
    request of a fork may not be commented on by its own run; that is no error.

    Args:
        github: the repository.
        pull_request: its number.
        report: what is posted.
        comparison: with the baseline, if there is one.
        link: address of the whole report.
        author: the login that the token belongs to.

    Raises:
        ReviewError: GitHub cannot be reached, or refuses for another reason than missing rights.
    """
    first_line = marker(report.manifest)
    try:
        existing = _find(github, pull_request, first_line, author)
        if not has_something_to_say(report, comparison):
            if not existing:
                return "every model passes and nothing changed: no comment is needed"
            _keep_one(github, existing, _quiet(report, comparison))
            return "every model passes and nothing changed: the comment was taken back"
        body = _body(report, comparison, link)
        if existing:
            _keep_one(github, existing, body)
            return f"updated the comment on pull request {pull_request}"
        github.post(f"issues/{pull_request}/comments", {"body": body})
        # A run that started at the same time may have posted as well, or the first try of a
        # request that seemed to fail.
        _keep_one(github, _find(github, pull_request, first_line, author), body)
        return f"commented on pull request {pull_request}"
    except RefusedError as error:
        if error.code != 403:
            raise
        return (
            f"no comment on pull request {pull_request}: the token may not write comments, "
            "as in runs of a fork; the summary of the job has the same text"
        )


def has_something_to_say(report: Report, comparison: Comparison | None) -> bool:
    """Whether the report does not simply pass, or anything changed."""
    changed = comparison is not None and any(m.status != "unchanged" for m in comparison.models)
    return changed or report.verdict is not Verdict.PASS


def _body(report: Report, comparison: Comparison | None, link: str) -> str:
    footer = f"\n[The whole report]({link})\n" if link else ""
    changes = changes_of(comparison) if comparison is not None else None
    return f"{render_summary(report, changes)}{footer}"


def _quiet(report: Report, comparison: Comparison | None) -> str:
    what = "nothing changed" if comparison is not None else "there is no baseline to compare with"
    return f"{marker(report.manifest)}\n✅ {markdown(report.title)}: every model passes, {what}.\n"


def _find(github: Github, pull_request: int, first_line: str, author: str) -> list[dict[str, Any]]:
    """The comments about this manifest, the oldest first."""
    found = [
        comment
        for comment in github.get_all(f"issues/{pull_request}/comments")
        # Anyone may copy the marker; only our own comments are edited.
        if comment["user"]["login"] == author
        and (comment["body"] or "").partition("\n")[0].strip() == first_line
    ]
    return sorted(found, key=lambda comment: int(comment["id"]))


def _keep_one(github: Github, comments: list[dict[str, Any]], body: str) -> None:
    """Give the oldest comment this text and delete the others."""
    for oldest in comments[:1]:
        # GitHub stores line ends as they were sent, and strips the last one.
        if (oldest["body"] or "").rstrip() != body.rstrip():
            github.patch(f"issues/comments/{oldest['id']}", {"body": body})
    for younger in comments[1:]:
        github.delete(f"issues/comments/{younger['id']}")
