"""dask.distributed as an executor: a cluster that is there, or one of this machine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reportgen.errors import EnvironmentFault, ReportgenError
from reportgen.executors.cluster import ClusterExecutor, Size
from reportgen.executors.task import Task

MEMORY, CORES = "MEM", "CORES"
"""Resources of a dask worker, as `--resources "MEM=64e9 CORES=16"` declares them."""

_PREFIX = "dask://"
_CONNECT_SECONDS = 20
_FIRST_WORKER_SECONDS = 120  # its process imports this package, perhaps from a network drive
_CONFIG = {
    # A queued model must not wait behind one that hangs, nor be lost with its worker.
    "distributed.scheduler.worker-saturation": 1.0,
    # Each loss comes back at once, so that the next attempt asks for more memory.
    "distributed.scheduler.allowed-failures": 0,
    "distributed.nanny.pre-spawn-environ": {},  # the number of threads is ours
}


@contextmanager
def open_dask(spec: str, share: Size, parallel: int) -> Iterator[DaskExecutor]:
    """The cluster that `--executor` names.

    Args:
        spec: `dask` for a cluster of this machine, or `dask://` and a scheduler file or address.
        share: what each model gets of this machine.
        parallel: how many workers a cluster of this machine has.

    Raises:
        ReportgenError: dask is not installed, `spec` is none of these, or nothing answers there.
    """
    if spec != "dask" and not spec.startswith(_PREFIX):
        raise ReportgenError(
            f"unknown executor {spec!r}",
            hint="use dask, dask://SCHEDULER_FILE or dask://HOST:PORT",
        )
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise EnvironmentFault(
            "--executor dask requires dask.distributed", hint="pip install 'reportgen[dask]'"
        ) from error
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("distributed"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # each loss is in the report
    with dask.config.set(_CONFIG):
        if spec == "dask":
            with (
                LocalCluster(
                    n_workers=parallel,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",  # any port: 8787 may be in use
                    resources={MEMORY: share.memory, CORES: share.cores},
                    silence_logs=logging.CRITICAL,
                ) as cluster,
                Client(cluster) as client,
            ):
                yield DaskExecutor(client)
        else:
            with _connect(Client, spec.removeprefix(_PREFIX)) as client:
                yield DaskExecutor(client)


def _connect(client: Any, place: str) -> Any:
    file = Path(place)
    if file.suffix == ".json" and not file.is_file():
        raise EnvironmentFault(
            f"no scheduler file {place}", hint=f"start `dask scheduler --scheduler-file {place}`"
        )
    where = {"scheduler_file": place} if file.is_file() else {"address": place}
    try:
        return client(**where, timeout=_CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise EnvironmentFault(
            f"no dask scheduler answers at {place}",
            hint="name a scheduler file, or HOST:PORT as the scheduler prints it",
        ) from error


class DaskExecutor(ClusterExecutor):
    """The workers of a dask cluster: each thread of a worker analyzes one model at a time."""

    lost: tuple[type[BaseException], ...]

    def __init__(self, client: Any) -> None:
        from distributed.client import ClosedClientError
        from distributed.scheduler import KilledWorker

        self.lost = (KilledWorker, ClosedClientError)
        self._client = client
        # Tasks are never equal: the same model may be analyzed twice.
        self._executor = client.get_executor(pure=False, retries=0)
        self._slots, self._counted = 0, 0.0
        try:
            client.wait_for_workers(1, timeout=_FIRST_WORKER_SECONDS)
        except TimeoutError as error:
            raise EnvironmentFault(
                f"the dask scheduler at {client.scheduler.address} has no workers",
                hint="start `dask worker` for it",
            ) from error
        self._workers = list(client.scheduler_info()["workers"].values())
        # What no worker declares must not be asked for: dask would wait for it without a word.
        self._declared = [
            name
            for name in (MEMORY, CORES)
            if all(name in worker["resources"] for worker in self._workers)
        ]

    def submit(self, fn: Callable[..., Any], /, *args: Any, **_: Any) -> Future[Any]:
        """Start `fn` with a `Task` in JSON on a worker that has its memory and cores."""
        job = Task.model_validate_json(args[0]).job
        needed = {MEMORY: job.memory_bytes, CORES: job.threads}
        resources = {name: needed[name] for name in self._declared}
        future: Future[Any] = self._executor.submit(_on_worker, fn, *args, resources=resources)
        return future

    def slots(self) -> int:
        """The threads of all workers; workers that join later count as well.

        Raises:
            EnvironmentFault: the connection to the scheduler is lost.
        """
        if time.monotonic() - self._counted > 1:
            broken: tuple[type[BaseException], ...] = (*self.lost, OSError, TypeError, ValueError)
            try:
                self._slots = sum(self._client.nthreads().values())
            except broken as error:
                if self._client.status == "closed":  # and not connecting again
                    raise EnvironmentFault(
                        "the connection to the dask scheduler was lost",
                        hint="start it and build again; finished models are in the cache",
                    ) from error
            self._counted = time.monotonic()
        return self._slots

    def share(self) -> Size:
        """What each thread of the smallest worker has."""
        sizes = [(_size(worker), worker["nthreads"]) for worker in self._workers]
        return Size(
            memory=min(size.memory // threads for size, threads in sizes),
            cores=min(max(1, size.cores // threads) for size, threads in sizes),
        )

    def largest(self) -> Size:
        """The most memory and the most cores of any worker."""
        sizes = [_size(worker) for worker in self._workers]
        return Size(
            memory=max(size.memory for size in sizes), cores=max(size.cores for size in sizes)
        )


def _size(worker: dict[str, Any]) -> Size:
    return Size(
        memory=int(worker["resources"].get(MEMORY) or worker["memory_limit"]),
        cores=int(worker["resources"].get(CORES) or worker["nthreads"]),
    )


def _on_worker(fn: Callable[..., Any], text: str) -> Any:
    """Run `fn` until its task is cancelled, as Ctrl-C in the build does."""
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def is_cancelled() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    return fn(text, is_cancelled=is_cancelled)
