"""GitHub's API on the loopback interface: comments, pull requests and artifacts of one repository.

It answers as GitHub does: pages of at most 100, 403 for a token that may not write, another host
for downloads, the oldest comment first.
"""

from __future__ import annotations

import io
import json
import re
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

BOT = "github-actions[bot]"


@dataclass
class Repository:
    """The state of the server; tests read and write it."""

    comments: list[dict[str, Any]] = field(default_factory=list)
    pulls: list[dict[str, Any]] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    files: dict[int, bytes] = field(default_factory=dict)  # artifact -> zip
    requests: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, token
    failing: list[int] = field(default_factory=list)  # statuses of the next answers
    read_only: bool = False
    before_post: Callable[[], None] = lambda: None
    address: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add_comment(self, body: str, author: str = BOT) -> dict[str, Any]:
        with self.lock:
            number = 1 + max((c["id"] for c in self.comments), default=0)
            self.comments.append({"id": number, "body": body, "user": {"login": author}})
            return self.comments[-1]

    def add_artifact(self, name: str, commit: str, files: dict[str, bytes], **fields: Any) -> None:
        number = len(self.artifacts) + 1
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file, content in files.items():
                archive.writestr(file, content)
        self.files[number] = packed.getvalue()
        run = {"head_sha": commit, "repository_id": 1, "head_repository_id": 1}
        self.artifacts.append(
            {"id": number, "name": name, "expired": False, "workflow_run": run, **fields}
        )

    def bodies(self, author: str = BOT) -> list[str]:
        return [c["body"] for c in self.comments if c["user"]["login"] == author]


class _Server(ThreadingHTTPServer):
    state: Repository


@contextmanager
def serve(repository: Repository) -> Iterator[str]:
    """The address of the API."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.state = repository
    repository.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield repository.address
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    @property
    def state(self) -> Repository:
        assert isinstance(self.server, _Server)
        return self.server.state

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, status: int, data: Any = None, location: str = "") -> None:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        if location:
            self.send_header("Location", location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def start(self) -> tuple[str, dict[str, str]] | None:
        parts = urlsplit(self.path)
        token = self.headers.get("Authorization", "")
        self.state.requests.append((self.command, self.path, token))
        if self.state.failing:
            if self.command in ("POST", "PATCH"):
                self.body()
            self.answer(self.state.failing.pop(0), {"message": "Server Error"})
            return None
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        return parts.path.removeprefix("/repos/owner/name/"), query

    def page(self, items: list[Any], query: dict[str, str], key: str = "") -> None:
        size = min(100, int(query.get("per_page", 30)))
        first = (int(query.get("page", 1)) - 1) * size
        shown = items[first : first + size]
        self.answer(200, {"total_count": len(items), key: shown} if key else shown)

    def do_GET(self) -> None:
        if (started := self.start()) is None:
            return
        path, query = started
        if re.fullmatch(r"issues/\d+/comments", path):
            self.page(sorted(self.state.comments, key=lambda c: c["id"]), query)
        elif path == "pulls":
            same = [p for p in self.state.pulls if p["head"]["label"] == query["head"]]
            self.page(same, query)
        elif path == "commits":
            start = self.state.commits.index(query["sha"])
            self.page([{"sha": sha} for sha in self.state.commits[start:]], query)
        elif path.startswith("compare/"):
            self.answer(200, {"merge_base_commit": {"sha": self.state.commits[0]}})
        elif path == "actions/artifacts":
            same = [a for a in self.state.artifacts if a["name"] == query["name"]]
            self.page(same, query, "artifacts")
        elif re.fullmatch(r"actions/runs/\d+/artifacts", path):
            self.page(self.state.artifacts, query, "artifacts")
        elif match := re.fullmatch(r"actions/artifacts/(\d+)/zip", path):
            self.answer(302, b"", f"{self.state.address}/blob/{match[1]}")
        elif match := re.fullmatch(r"/blob/(\d+)", path):
            self.answer(200, self.state.files[int(match[1])])
        else:
            self.answer(404, {"message": "Not Found"})

    def refused(self) -> bool:
        if self.state.read_only:
            self.answer(403, {"message": "Resource not accessible by integration"})
        return self.state.read_only

    def do_POST(self) -> None:
        if self.start() is None:
            return
        text = self.body()["body"]
        if not self.refused():
            self.state.before_post()
            self.answer(201, self.state.add_comment(text))

    def do_PATCH(self) -> None:
        if (started := self.start()) is None:
            return
        text = self.body()["body"]
        if not self.refused():
            number = int(started[0].rpartition("/")[2])
            comment = next(c for c in self.state.comments if c["id"] == number)
            comment["body"] = text
            self.answer(200, comment)

    def do_DELETE(self) -> None:
        if (started := self.start()) is None or self.refused():
            return
        number = int(started[0].rpartition("/")[2])
        with self.state.lock:
            left = [c for c in self.state.comments if c["id"] != number]
            found, self.state.comments[:] = len(left) < len(self.state.comments), left
        if found:
            self.send_response(204)
            self.end_headers()
        else:
            self.answer(404, {"message": "Not Found"})
