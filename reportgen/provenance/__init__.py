"""What a report was made from: hashes of files, the commit, the machine that measured."""

from __future__ import annotations

from reportgen.provenance.files import InputFile, hash_file
from reportgen.provenance.git import Commit, commit_of, repository_of
from reportgen.provenance.machine import Machine, describe_machine
from reportgen.provenance.model_files import input_files, library_of, manifest_files, named_files

__all__ = [
    "Commit",
    "InputFile",
    "Machine",
    "commit_of",
    "describe_machine",
    "hash_file",
    "input_files",
    "library_of",
    "manifest_files",
    "named_files",
    "repository_of",
]
