"""Connection to a visdom server: its address, its client, and errors that say what to do."""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from reportgen.errors import PublishError

_DEFAULT_PORT = 8097
_CONNECT_SECONDS, _ANSWER_SECONDS = 3, 60  # an answer comes after large pictures are stored
# visdom has no wheel, and its setup.py needs pkg_resources, which setuptools 81 lacks (visdom#963).
# Two variables: pip 23 ignores the second, and in pip 26 the first has no effect on builds.
_INSTALL = (
    "install it: echo 'setuptools<81' > build.txt; PIP_CONSTRAINT=build.txt "
    "PIP_BUILD_CONSTRAINT=build.txt pip install 'reportgen[visdom]'"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """Where a visdom server is; `path` is its base URL, "" for none."""

    scheme: str
    host: str
    port: int
    path: str
    user: str | None
    password: str | None

    def __str__(self) -> str:
        return f"{self.server}:{self.port}{self.path}"

    @property
    def server(self) -> str:
        """Scheme and host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}"


def parse_address(url: str) -> Address:
    """The parts of `url`; the scheme is http and the port 8097 where it names none.

    Raises:
        PublishError: it is not an http or https address.
    """
    text = url if "://" in url else f"http://{url}"
    # Errors show the address without its password.
    shown, hint = url.rpartition("@")[2], "write it as http://localhost:8097"
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise PublishError(f"--visdom {shown!r}: {error}", hint=hint) from error
    if parts.scheme not in ("http", "https") or not host:
        raise PublishError(f"--visdom {shown!r}: expected an http address", hint=hint)
    return Address(
        scheme=parts.scheme,
        host=host,
        port=port or (443 if parts.scheme == "https" else _DEFAULT_PORT),
        path=parts.path.rstrip("/"),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
    )


def connect(address: Address, env: str) -> Any:
    """A client of the visdom server at `address` for the environment `env`; raises on HTTP errors.

    Raises:
        PublishError: visdom is not installed, or the server is not reachable or rejects the login.
    """
    if importlib.util.find_spec("visdom") is None:
        raise PublishError("the visdom package is not installed", hint=_INSTALL)
    _check_reachable(address)
    visdom: Any = importlib.import_module("visdom")  # its own type stubs are incomplete

    # A class in a function, since visdom is an optional package.
    class Client(visdom.Visdom):  # type: ignore[misc]
        """Raises on HTTP errors, which visdom's own client ignores."""

        def _handle_post(self, url: str, data: Any = None) -> str:
            answer = self.session.post(
                url, data=data or {}, timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS)
            )
            if answer.status_code >= 400:
                endpoint = urlsplit(url).path.rsplit("/", 1)[-1]
                raise PublishError(
                    f"the server at {address} returned HTTP {answer.status_code} for {endpoint!r}",
                    hint="check that it is a visdom server; for one with a login write "
                    "http://user:password@host",
                )
            return str(answer.text)

    # Its warnings are about the socket and the session, which are chosen on purpose.
    logging.getLogger("visdom").setLevel(logging.ERROR)
    try:
        return Client(
            server=address.server,
            port=address.port,
            base_url=address.path or "/",
            env=env,
            username=address.user,
            password=address.password or "",
            use_incoming_socket=False,  # for events of the page, which nothing here handles
            raise_exceptions=True,  # otherwise errors are only printed
        )
    except (ConnectionError, RuntimeError, OSError) as error:
        raise PublishError(
            f"the visdom server at {address} rejected the connection: {error}",
            hint="check the address, user and password",
        ) from error


def _check_reachable(address: Address) -> None:
    # visdom's client would wait for the time limit of the system.
    try:
        socket.create_connection((address.host, address.port), timeout=_CONNECT_SECONDS).close()
    except OSError as error:
        raise PublishError(
            f"no visdom server at {address}: {error.strerror or error}",
            hint="start one with `visdom`, or check host and port",
        ) from error


def parse_json(text: str, address: Address) -> Any:
    """The JSON in a response of the server.

    Raises:
        PublishError: it is not JSON, so the server is not a visdom server.
    """
    try:
        return json.loads(text)
    except ValueError as error:
        raise not_visdom_error(address) from error


def not_visdom_error(address: Address) -> PublishError:
    """The error for a server that answers, but not as visdom does."""
    return PublishError(
        f"the server at {address} is not a visdom server", hint="check host and port"
    )
