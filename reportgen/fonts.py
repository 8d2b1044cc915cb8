"""The fonts shipped with the templates, and a fontconfig file for other programs."""

from __future__ import annotations

from html import escape
from pathlib import Path

_HERE = Path(__file__).resolve().parent
_SYSTEM_CONFIGURATIONS = (
    "/etc/fonts/fonts.conf",
    "/opt/homebrew/etc/fonts/fonts.conf",
    "/usr/local/etc/fonts/fonts.conf",
)


def fonts_folder() -> Path | None:
    """The folder of the shipped fonts: next to the package in a checkout, inside it in a wheel."""
    for folder in (_HERE.parent / "templates" / "fonts", _HERE / "templates" / "fonts"):
        if folder.is_dir():
            return folder
    return None


def write_font_configuration(folder: Path) -> Path:
    """Write a fontconfig file to `folder` that adds the shipped fonts to those of the system.

    Programs use it if `FONTCONFIG_FILE` is its path. Fontconfig's cache is in `folder` too.
    """
    shipped = fonts_folder()
    lines = [f'<include ignore_missing="yes">{name}</include>' for name in _SYSTEM_CONFIGURATIONS]
    if shipped is not None:
        lines.append(f"<dir>{escape(str(shipped))}</dir>")
    lines.append(f"<cachedir>{escape(str(folder / 'cache'))}</cachedir>")
    file = folder / "fonts.conf"
    file.write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n<fontconfig>\n'
        + "\n".join(lines)
        + "\n</fontconfig>\n",
        encoding="utf-8",
    )
    return file
