"""The lines of Python that load an old checkpoint into the new model."""

from __future__ import annotations

import json
from collections.abc import Iterator

from reportgen.compare.result import Conversion, StateDictDiff

_RENAME = (
    "state = {renames[p] + key[len(p):]: value for key, value in checkpoint.items()"
    " for p in [max(filter(key.startswith, renames), key=len)] if renames[p] is not None}"
)


def rename_map_json(diff: StateDictDiff) -> str:
    """The rename map as JSON: old prefix -> new prefix, null to leave a key out."""
    return json.dumps(dict(diff.rename_map), indent=1, ensure_ascii=False)


def load_snippet(diff: StateDictDiff) -> str:
    """Python that loads `checkpoint`, a state dict of the old model, into `model`.

    Without conversions it is the map and three lines. If some tensors of the new model have no
    source, these keep their initialization.
    """
    lines: list[str] = []
    if diff.rename_map or diff.conversions or diff.unused:
        lines += _renaming(diff)
    else:
        lines.append("state = dict(checkpoint)")
    lines += [line for each in diff.conversions for line in _converting(each)]
    if diff.without_source:
        lines.append("model.load_state_dict(state, strict=False)  # the others keep their values")
    else:
        lines.append("model.load_state_dict(state)")
    uses_torch = any(each.kind == "merge" for each in diff.conversions)
    return "\n".join([*(["import torch"] if uses_torch else []), *lines]) + "\n"


def _renaming(diff: StateDictDiff) -> Iterator[str]:
    # as Python, in which JSON's null is None
    rules = {"": "", **diff.rename_map}
    yield "renames = {"
    for old, new in rules.items():
        value = "None" if new is None else json.dumps(new, ensure_ascii=False)
        yield f"    {json.dumps(old, ensure_ascii=False)}: {value},"
    yield "}"
    yield _RENAME


def _converting(each: Conversion) -> Iterator[str]:
    old = [f"checkpoint[{json.dumps(key)}]" for key in each.old]
    new = [f"state[{json.dumps(key)}]" for key in each.new]
    match each.kind:
        case "split":
            yield f"{', '.join(new)} = {old[0]}.split({list(each.sizes)}, dim={each.dim})"
        case "merge":
            yield f"{new[0]} = torch.cat([{', '.join(old)}], dim={each.dim})"
        case "reshape":
            yield f"{new[0]} = {old[0]}.reshape({list(each.sizes)})"
        case "transpose":
            yield f"{new[0]} = {old[0]}.t()"
        case "copy":
            yield f"{new[0]} = {old[0]}"
