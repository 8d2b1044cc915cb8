"""What an executor whose workers are other machines states about them."""

from __future__ import annotations

from abc import abstractmethod
from concurrent.futures import Executor
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """Memory in bytes, and cores."""

    memory: int
    cores: int


class ClusterExecutor(Executor):
    """An executor that knows its workers. `submit` takes a `Task` in JSON as second argument.

    Attributes:
        lost: exceptions of a future that mean that the worker, or the connection to it, was lost.
    """

    lost: tuple[type[BaseException], ...] = ()

    @abstractmethod
    def slots(self) -> int:
        """How many models the workers can analyze at once, at the moment."""

    @abstractmethod
    def share(self) -> Size:
        """What a model gets whose limits are not in the manifest, on every worker."""

    @abstractmethod
    def largest(self) -> Size:
        """What the largest worker has."""
