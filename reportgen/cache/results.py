"""Results of earlier builds: looked up before a model is analyzed, stored afterwards."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reportgen.cache.digests import Digests, digest_of
from reportgen.cache.fingerprint import (
    code_digests,
    code_of_section,
    describe_machine,
    describe_software,
    templates_digest,
)
from reportgen.cache.inputs import Inputs, NotCacheableError, inputs_of
from reportgen.cache.store import Record, Store
from reportgen.error_text import says_out_of_memory
from reportgen.outcome import SectionOutcome
from reportgen.sections import SECTIONS
from reportgen.sections.section import LOADING, AnySection, files_of, outcome_adapter
from reportgen.workers import Job, ModelOutcomes
from reportgen.workers.inputs_read import InputsRead

_FORMAT = 1  # of keys and records
_SHORTAGES = ("no space left", "disk quota", "too many open files", "temporarily unavailable")
_WAITING = ".cached"  # in a model's folder, until the missing sections have been analyzed


@dataclass(frozen=True, slots=True)
class ResultCache:
    """The results in `store`; `started_ns` is when the build began, in nanoseconds.

    `notes` says in sentences what was not stored and why.
    """

    store: Store
    started_ns: int
    notes: list[str] = field(default_factory=list)
    _once: dict[str, Any] = field(default_factory=dict)

    def look_up(self, job: Job) -> ModelOutcomes:
        """The sections of `job` that need not be analyzed; their files wait in its folder."""
        sections, seconds, analyzed = [], {}, {}
        inputs, code = "", tuple[Path, ...]()
        for section in _chosen(job):
            found = None if job.spec.cache.never else self._find(job, section)
            if found is not None:
                record, outcome = found
                sections.append(outcome)
                seconds[section.name] = record["seconds"]
                analyzed[section.name] = record["analyzed"]
                if section.uses_model:
                    inputs = record["example_inputs"]
                    code = tuple(map(Path, record["code"]))
        return ModelOutcomes(
            name=job.spec.name,
            sections=tuple(sections),
            seconds=seconds,
            inputs=inputs,
            code=code,
            analyzed=analyzed,
            cached=frozenset(analyzed),
        )

    def restore_files(self, job: Job) -> None:
        """Move the files of sections that were found to where sections write them.

        After the analysis: what was written now takes the place of what was found.
        """
        waiting = job.folder / _WAITING
        for file in sorted(path for path in waiting.rglob("*") if path.is_file()):
            target = job.folder / file.relative_to(waiting)
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                file.replace(target)
        shutil.rmtree(waiting, ignore_errors=True)

    def save(self, job: Job, outcomes: ModelOutcomes) -> None:
        """Store the sections of `job` that were analyzed in this build."""
        if outcomes.load_error is not None:
            return
        fresh = {each.name: each for each in outcomes.sections if each.name not in outcomes.cached}
        reasons: dict[str, list[str]] = {}
        try:
            for section in _chosen(job):
                if section.name in fresh:
                    try:
                        self._save(job, section, fresh[section.name], outcomes)
                    except NotCacheableError as error:
                        reasons.setdefault(str(error), []).append(section.name)
        except OSError as error:
            text = (error.strerror or str(error)).lower()
            reasons[f"the cache cannot be written: {text}"] = []
        for reason, sections in reasons.items():
            what = f"{job.spec.name} ({', '.join(sections)})" if sections else job.spec.name
            self.notes.append(f"{what} is not cached: {reason}")

    def reuse(self, made_of: list[Any], make: Callable[[], bytes]) -> bytes:
        """What `make` returns, or returned in an earlier build for an equal `made_of`."""
        if "templates" not in self._once:
            self._once["templates"] = templates_digest()
        key = self._key(["page", self._code, self._once["templates"], made_of])
        for path, record in self.store.records(key):
            content = self.store.read(record["objects"][0])
            if content is not None:
                _touch(path)
                return content
        content = make()
        with suppress(OSError), self.store.writing():
            self.store.add_record(key, {"objects": [self.store.add(content)]})
            self._once["stored"] = True
        return content

    def close(self) -> None:
        """Delete what exceeds the cache's size."""
        if self._once.get("stored"):
            with suppress(OSError):
                self.store.evict()

    @property
    def _digests(self) -> Digests:
        digests: Digests = self._once.setdefault("digests", Digests(self.store.digests))
        return digests

    @property
    def _code(self) -> dict[str, str]:
        if "code" not in self._once:
            self._once["code"] = code_digests()
        code: dict[str, str] = self._once["code"]
        return code

    def _key(self, parts: list[Any]) -> str:
        if "software" not in self._once:
            self._once["software"] = _digest_of_json(describe_software())
        everything = [_FORMAT, self._once["software"], *parts]
        return _digest_of_json(everything)

    def _code_of(self, section: str) -> str:
        """The digest of the code that the results of `section` depend on."""
        key = f"code of {section}"
        if key not in self._once:
            self._once[key] = _digest_of_json(code_of_section(self._code, section))
        digest: str = self._once[key]
        return digest

    def _section_key(self, job: Job, section: AnySection) -> str:
        reads = section.reads | (LOADING if section.uses_model else frozenset())
        values: dict[str, Any] = {
            "section": section.name,
            # or a section that reads nothing of its model would have another model's duration
            "model": job.spec.name,
            "code": self._code_of(section.name),
            # what the manifest leaves out is not the same as its default, see `Task.to_json`
            "spec": job.spec.model_dump(mode="json", include=_fields(reads), exclude_unset=True),
            "source kind": job.spec.source.kind,  # without a model, a section may read logs only
        }
        if "targets" in reads:
            values["targets"] = [target.model_dump(mode="json") for target in job.targets]
        if "threads" in reads:
            values["threads"] = job.threads
        if "timings" in reads:
            values["timings"] = describe_machine() if job.timings else None
        if section.uses_model:
            values["folder"] = str(Path.cwd())  # the model's code may open relative paths
        return self._key(["section", values])

    def _find(self, job: Job, section: AnySection) -> tuple[Record, SectionOutcome] | None:
        for path, record in self.store.records(self._section_key(job, section)):
            with suppress(KeyError, ValidationError):  # damaged
                if Inputs.model_validate(record["inputs"]).are_unchanged(self._digests):
                    outcome = self._take(job, section, record)
                    if outcome is not None:
                        _touch(path)
                        return record, outcome
        return None

    def _take(self, job: Job, section: AnySection, record: Record) -> SectionOutcome | None:
        """The outcome in `record`, and its files in the folder of `job`; None if one is damaged."""
        content = self.store.read(record["outcome"])
        if content is None:
            return None
        waiting = job.folder / _WAITING
        for file, digest in record["files"].items():
            if not self.store.take_file(digest, waiting / file, self._digests):
                for other in record["files"]:
                    (waiting / other).unlink(missing_ok=True)
                return None
        outcome = outcome_adapter(section).validate_json(content)
        return SectionOutcome(name=section.name, title=section.title, outcome=outcome)

    def _save(
        self, job: Job, section: AnySection, outcome: SectionOutcome, outcomes: ModelOutcomes
    ) -> None:
        content = _read_outcome(job, section, outcome)
        if content is None:
            return
        read = InputsRead.model_validate_json(job.inputs_file(section.name).read_bytes())
        text = content.decode(errors="replace")
        if says_out_of_memory(text) or any(phrase in text.lower() for phrase in _SHORTAGES):
            raise NotCacheableError("memory, disk space or file descriptors ran out")
        inputs = inputs_of(
            read, job.spec, self.started_ns, self._digests, uses_model=section.uses_model
        )
        if outcomes.machine is not None and inputs != _inputs_of_worker(job, section):
            raise NotCacheableError("its worker has other files, or another CPU")
        with self.store.writing():
            digest = self.store.add(content)
            files = {
                file: self.store.add_file(job.folder / file, self._digests)
                for file in files_of(section, outcome)
            }
            record = {
                "inputs": inputs.model_dump(mode="json"),
                "outcome": digest,
                "files": files,
                "objects": [digest, *files.values()],
                "seconds": outcomes.seconds[section.name],
                "analyzed": outcomes.analyzed[section.name],
                "example_inputs": outcomes.inputs,
                "code": list(map(str, outcomes.code)),
            }
            self.store.add_record(self._section_key(job, section), record)
        self._once["stored"] = True


def _chosen(job: Job) -> Iterator[AnySection]:
    return (section for section in SECTIONS if section.name in job.sections)


def _fields(reads: frozenset[str]) -> dict[str, Any]:
    """Fields of `ModelSpec` as pydantic's `include`: "onnx.opset" is a part of one."""
    fields: dict[str, Any] = {}
    for name in sorted(reads - {"targets", "threads", "timings"}):
        first, _, part = name.partition(".")
        if not part:
            fields[first] = True
        elif fields.get(first) is not True:
            fields.setdefault(first, {})[part] = True
    return fields


def _read_outcome(job: Job, section: AnySection, outcome: SectionOutcome) -> bytes | None:
    """What the child wrote; None if `outcome` was made here, of a crash or a time limit."""
    with suppress(OSError, ValidationError):
        content = job.outcome_file(section.name).read_bytes()
        if outcome_adapter(section).validate_json(content) == outcome.outcome:
            return content
    return None


def _inputs_of_worker(job: Job, section: AnySection) -> Inputs | None:
    with suppress(OSError, ValidationError):
        return Inputs.model_validate_json(job.digests_file(section.name).read_bytes())
    return None


def _digest_of_json(value: object) -> str:
    return digest_of(json.dumps(value, sort_keys=True).encode())


def _touch(path: Path) -> None:
    with suppress(OSError):
        os.utime(path)
