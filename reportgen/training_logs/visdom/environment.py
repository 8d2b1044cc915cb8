"""A visdom environment as its server saves it: `{"jsons": {window: pane}, "reload": {}}`.

The panes hold the last state of each window and no wall times. Other members of the document
are accepted: coming versions of the server write more of them.
"""

from __future__ import annotations

from reportgen.errors import LogError
from reportgen.training_logs.growing_file import DocumentReader, FileAccount
from reportgen.training_logs.json_scan import Entry, Gap, JsonMember, JsonScan
from reportgen.training_logs.log_run import LogRun
from reportgen.training_logs.visdom.embedded_pictures import TextStore
from reportgen.training_logs.visdom.panes import (
    Pane,
    assemble,
    decode_pane,
    is_pane,
    take_pictures,
)
from reportgen.training_logs.visdom.traces import BadPane


class VisdomReader(DocumentReader):
    """One environment file."""

    format = "visdom"

    def _decode(self, text: str, run: LogRun, account: FileAccount) -> None:
        scan = JsonScan(text, "jsons", "{", is_pane)
        store = TextStore(self.path, scan.text)
        panes: list[Pane] = []
        refused = False
        for part in scan.parts():
            if isinstance(part, Gap):
                account.add_damage(part.start, part.end - part.start, part.reason)
            elif isinstance(part, Entry):
                self._add_pane(part, panes, store, account)
            elif part.key == "jsons":
                self._refuse(part, account)
                refused = True
        # A damaged environment is still one; a file without the member is something else.
        if not scan.found_container and not refused:
            raise LogError(f"{self.path}: not a visdom environment: it has no member 'jsons'")
        account.file.records = len(panes)
        assemble(panes, run)

    def _add_pane(
        self, entry: Entry, panes: list[Pane], store: TextStore, account: FileAccount
    ) -> None:
        try:
            pane = entry.value
            if isinstance(pane, dict) and "content" in pane:
                content = take_pictures(pane.get("type"), pane["content"], store.keep)
                pane = {**pane, "content": content}
            panes.append(decode_pane(pane, entry.key or "", store.keep))
        except BadPane as error:
            window = f"window {entry.key!r}: " if entry.key else ""
            account.add_damage(entry.start, entry.end - entry.start, f"{window}{error}")

    def _refuse(self, part: JsonMember, account: FileAccount) -> None:
        kind = type(part.value).__name__
        account.add_damage(part.start, part.end - part.start, f"jsons is a {kind}, not an object")
