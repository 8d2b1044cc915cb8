"""An error as one line that can be stored and shown on any machine."""

from __future__ import annotations

import pytest

from reportgen.error_text import one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\n first \n second", "first"),
        ("", "no message"),
        ("no signature for <M object at 0x7fb0a1b2c3d4>", "no signature for <M object>"),
        ("No such file: '/home/me/data/x.pth'", "No such file: 'x.pth'"),
        ("data=file:///home/me/data, x", "data=data, x"),
        ("transformers:/home/me/config.json", "transformers:config.json"),
        ("see http://pytorch.org/docs/stable", "see http://pytorch.org/docs/stable"),
        ("expected 2/3 or and/or", "expected 2/3 or and/or"),
        ("\x1b[31mred\x1b[0m \u202eback", "red \\u202eback"),
        ("lone \ud800 surrogate", "lone \\ud800 surrogate"),
    ],
)
def test_the_text_has_no_addresses_folders_or_hidden_characters(text: str, shown: str) -> None:
    assert one_line(ValueError(text)) == shown


def test_a_long_text_is_cut_between_words() -> None:
    shown = one_line(ValueError("several words " * 50), 40)
    assert shown == "several words several words several …"
    assert len(one_line(ValueError("x" * 500), 40)) == 40
