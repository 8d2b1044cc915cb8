"""GitHub's REST API with the standard library: pages, and another try where the server is busy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from reportgen.errors import ReviewError

_PAGE, _MOST_PAGES = 100, 100
_BUSY = {429, 500, 502, 503, 504}
_WAITS = (1.0, 3.0, 9.0)  # seconds before the second, third and fourth try
_LONGEST_WAIT = 60.0  # a runner is paid by the minute
_TIMEOUT = 30  # seconds
_CHUNK = 2**20


class RefusedError(ReviewError):
    """GitHub refuses a request; `code` is the status: 403 without the right, 404 if not there."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message, hint="check the token and its permissions")
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Github:
    """A repository on GitHub.

    Attributes:
        repository: `owner/name`.
        token: sent with each request, but not to another host that a download redirects to.
        api: address of the API.
        wait: sleeps for a number of seconds.
    """

    repository: str
    token: str
    api: str = "https://api.github.com"
    wait: Callable[[float], None] = time.sleep

    def get(self, path: str, **query: str | int) -> Any:
        """The JSON at `path`, relative to the repository."""
        return self._json("GET", path, query=query)

    def get_all(self, path: str, key: str = "", **query: str | int) -> Iterator[Any]:
        """Every item of a list, page by page; `key` names the list where it is in an object."""
        for page in range(1, _MOST_PAGES + 1):
            answer = self.get(path, **query, per_page=_PAGE, page=page)
            items = answer[key] if key else answer
            yield from items
            if len(items) < _PAGE:
                return

    def post(self, path: str, data: dict[str, Any]) -> Any:
        """Create something, and return it."""
        return self._json("POST", path, data=data)

    def patch(self, path: str, data: dict[str, Any]) -> Any:
        """Change something, and return it."""
        return self._json("PATCH", path, data=data)

    def delete(self, path: str) -> None:
        """Delete something; it may be gone already."""
        try:
            self._send("DELETE", path)
        except RefusedError as error:
            if error.code != 404:
                raise

    def download(self, path: str, most_bytes: int) -> bytes:
        """The bytes at `path`.

        Raises:
            ReviewError: there are more than `most_bytes`.
        """
        content = self._send("GET", path, most_bytes=most_bytes)
        if len(content) > most_bytes:
            raise ReviewError(f"{path} has more than {most_bytes:,} bytes")
        return content

    def _json(self, method: str, path: str, **parts: Any) -> Any:
        return json.loads(self._send(method, path, **parts))

    def _send(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, str | int] | None = None,
        data: dict[str, Any] | None = None,
        most_bytes: int = 2**26,
    ) -> bytes:
        """The body of the answer, cut after `most_bytes` and a rest of any length.

        Raises:
            RefusedError: the status is 400 or higher, and trying again does not help.
            ReviewError: the server cannot be reached, or stays busy.
        """
        address = f"{self.api.rstrip('/')}/repos/{self.repository}/{path}"
        address += f"?{urlencode(query)}" if query else ""
        if not address.startswith(("https://", "http://")):
            raise ReviewError(f"GITHUB_API_URL {self.api!r} is not an http address")
        body = json.dumps(data).encode() if data is not None else None
        for seconds in (*_WAITS, None):
            request = self._request(method, address, body)
            try:
                with urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310 - checked above
                    return _read(answer, most_bytes)
            except HTTPError as error:
                again = _seconds_to_wait(error, seconds)
                if again is None:
                    raise _refused(method, path, error) from error
            except (URLError, HTTPException, OSError) as error:
                if seconds is None:
                    raise ReviewError(f"GitHub cannot be reached: {error}") from error
                again = seconds
            self.wait(again)
        raise AssertionError("the last try returns or raises")

    def _request(self, method: str, address: str, body: bytes | None) -> Request:
        request = Request(address, data=body, method=method)  # noqa: S310 - checked by the caller
        request.add_header("Accept", "application/vnd.github+json")
        request.add_header("X-GitHub-Api-Version", "2022-11-28")
        request.add_header("User-Agent", "reportgen")
        if body is not None:
            request.add_header("Content-Type", "application/json")
        if self.token:
            # An artifact is downloaded from another host, which must not get the token.
            request.add_unredirected_header("Authorization", f"Bearer {self.token}")
        return request


def _read(answer: Any, most_bytes: int) -> bytes:
    parts, size = [], 0
    while size <= most_bytes and (part := answer.read(_CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _seconds_to_wait(error: HTTPError, usual: float | None) -> float | None:
    """How long to wait before another try; None if there is none."""
    limited = error.code == 403 and error.headers.get("Retry-After")
    if usual is None or (error.code not in _BUSY and not limited):
        return None
    asked = error.headers.get("Retry-After", "")
    return min(float(asked), _LONGEST_WAIT) if asked.isdigit() else usual


def _refused(method: str, path: str, error: HTTPError) -> RefusedError:
    try:
        reason = json.loads(error.read())["message"]
    except (ValueError, KeyError, TypeError, OSError):
        reason = error.reason
    return RefusedError(f"GitHub refuses {method} {path}: {error.code} {reason}", code=error.code)
