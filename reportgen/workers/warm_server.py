"""A process that has imported torch once, and forks a child for each model from there.

Importing torch and what the sections need takes three to five seconds, which every child would
spend again. The server itself never runs a model. Linux only: elsewhere a process that has loaded
such libraries cannot be forked safely.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

from reportgen.python_process import python_command
from reportgen.workers.limits import exit_with_parent
from reportgen.workers.model_run import (
    ChildProcess,
    ChildStart,
    child_environment,
    start_python,
)

_LONGEST_REQUEST = 1 << 16
_LONGEST_ANSWER = 64


class WarmChild:
    """A child of the server."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._unread = b""
        self._status: int | None = None
        self.pid = int(self._line())

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; None while nobody has asked."""
        return self._status

    def poll(self) -> int | None:
        """The exit status; None while the child runs."""
        if self._status is None and select.select([self._channel], [], [], 0)[0]:
            self._receive()
        return self._status

    def wait(self) -> int:
        """Wait for the end; the server may release the process id then."""
        status = self._receive()
        self._channel.close()
        return status

    def _receive(self) -> int:
        if self._status is None:
            try:
                self._status = int(self._line())
            except _ServerEndedError:  # its children are killed with it
                self._status = -signal.SIGKILL
        return self._status

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            block = self._channel.recv(_LONGEST_ANSWER)
            if not block:
                raise _ServerEndedError
            self._unread += block
        line, self._unread = self._unread.split(b"\n", 1)
        return line


class _ServerEndedError(Exception):
    pass


class WarmServer:
    """Starts the server at once; `start` may be called by several threads.

    The calling thread must live as long as the server: Linux kills it when that thread ends.
    """

    def __init__(self, modules: Sequence[str], environment: Mapping[str, str]) -> None:
        own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket, self._turn = own, threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                python_command(
                    "reportgen.workers.warm_server",
                    *(str(theirs.fileno()), str(os.getpid()), *modules),
                ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C is the parent's alone
                env=dict(environment),
            )

    def start(self, start: ChildStart) -> ChildProcess:
        """Fork a child, or start a new Python if the server has ended.

        Waits until the server has imported everything.
        """
        job = start.scratch / "job.json"
        # what the manifest leaves out stays left out: an input without a dtype, say
        job.write_text(start.job.model_dump_json(exclude_unset=True))
        request = {
            "job": str(job),
            "environment": child_environment(start.job, start.scratch),
            "folder": start.current_folder and str(start.current_folder),
        }
        ours, theirs = socket.socketpair()
        try:
            with theirs, self._turn:
                descriptors = [start.events, start.log.fileno(), theirs.fileno()]
                socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            return WarmChild(ours)
        except (OSError, _ServerEndedError):
            ours.close()
            return start_python(start)

    def stop(self) -> None:
        """End the server; its children are killed with it."""
        self._socket.close()
        self._process.kill()
        self._process.wait()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Request:
    """What a child is to do: JSON, and descriptors for its messages and for its log."""

    text: bytes
    events: int
    log: int
    server: int


@dataclass(kw_only=True, slots=True)
class _Children:
    """The children of this server, each with the channel that its status goes to."""

    connection: socket.socket
    channels: dict[int, socket.socket] = field(default_factory=dict)
    reported: set[int] = field(default_factory=set)

    def fork(self, request: _Request, channel: int) -> bool:
        """Fork a child for `request`; True in the child."""
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for each in (self.connection, *self.channels.values()):
                each.close()
            os.close(channel)
            return True
        os.close(request.events)
        os.close(request.log)
        self.channels[pid] = socket.socket(fileno=channel)
        self.channels[pid].sendall(b"%d\n" % pid)
        self.report()  # it may have ended already
        return False

    def report(self) -> None:
        """Send the status of those that ended; their ids stay taken until the channel closes."""
        for pid, channel in self.channels.items():
            if pid in self.reported:
                continue
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                by_signal = ended.si_code != os.CLD_EXITED
                status = -ended.si_status if by_signal else ended.si_status
                self.reported.add(pid)
                with contextlib.suppress(OSError):
                    channel.sendall(b"%d\n" % status)

    def release(self, pid: int) -> None:
        """Reap a child that nobody asks for any more."""
        self.channels.pop(pid).close()
        self.reported.discard(pid)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def main() -> int:
    """Import the modules, then fork a child for each request until the parent ends."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    exit_with_parent(int(sys.argv[2]))
    for module in sys.argv[3:]:
        with contextlib.suppress(Exception):  # the child will say what is wrong with it
            import_module(module)
    gc.freeze()  # a collection in a child would copy the pages of all these objects
    asked = _serve(connection)
    return 0 if asked is None else _run(asked)


def _serve(connection: socket.socket) -> _Request | None:
    """Fork children; returns in each of them with its request, and None when the parent ends."""
    children, server = _Children(connection=connection), os.getpid()
    with _waking_pipe() as wake:
        while True:
            by_channel = {channel.fileno(): pid for pid, channel in children.channels.items()}
            for descriptor in _ready(connection, wake, by_channel):
                if descriptor == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                    children.report()
                elif descriptor in by_channel:
                    children.release(by_channel[descriptor])
                else:
                    text, descriptors, _, _ = socket.recv_fds(connection, _LONGEST_REQUEST, 3)
                    if not text:
                        return None
                    events, log, channel = descriptors
                    request = _Request(text=text, events=events, log=log, server=server)
                    if children.fork(request, channel):
                        return request


def _ready(connection: socket.socket, wake: int, channels: Iterable[int]) -> list[int]:
    """Wait for a request, a child that ended, or a channel that the parent closed."""
    poll = select.poll()
    for descriptor in (connection.fileno(), wake):
        poll.register(descriptor, select.POLLIN)
    for descriptor in channels:
        poll.register(descriptor, select.POLLHUP)
    return [descriptor for descriptor, _event in poll.poll()]


@contextlib.contextmanager
def _waking_pipe() -> Iterator[int]:
    """A descriptor that has data when a child has ended; closed in the children as well."""
    read_end, write_end = os.pipe()
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write_end)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        yield read_end
    finally:
        os.close(read_end)
        os.close(write_end)


def _run(request: _Request) -> int:
    """Be the child: take the place that `subprocess` would have made, and analyze the job."""
    from reportgen.workers import child

    asked = json.loads(request.text)
    os.setsid()  # a group of its own, so that it can be killed with what it starts
    exit_with_parent(request.server)
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None  # TMPDIR is another one
    os.dup2(request.log, 1)
    os.dup2(request.log, 2)
    os.close(request.log)
    if asked["folder"]:
        os.chdir(asked["folder"])
    return child.run(Path(asked["job"]).read_bytes(), request.events)
