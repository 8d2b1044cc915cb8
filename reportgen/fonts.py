"""The folder of the templates and their fonts, and a fontconfig file for other programs."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

# Where Debian, Homebrew on Apple silicon, and Homebrew on Intel keep it; fontconfig reads no other
# file than the one that FONTCONFIG_FILE names.
_SYSTEM_CONFIGURATIONS = (
    "/etc/fonts/fonts.conf",
    "/opt/homebrew/etc/fonts/fonts.conf",
    "/usr/local/etc/fonts/fonts.conf",
)


@cache
def templates_dir() -> Path:
    """The folder of the templates: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).resolve().parent
    for folder in (package / "templates", package.parent / "templates"):
        if (folder / "model.html.j2").is_file():
            return folder
    raise FileNotFoundError(f"the templates of reportgen are neither in {package} nor beside it")


def write_font_configuration(folder: Path) -> Path:
    """Write a fontconfig file to `folder` that adds the shipped fonts to those of the system.

    Programs use it if `FONTCONFIG_FILE` is its path. Fontconfig's cache is in `folder` too.
    """
    lines = [f'<include ignore_missing="yes">{name}</include>' for name in _SYSTEM_CONFIGURATIONS]
    lines.append(f"<dir>{escape(str(templates_dir() / 'fonts'))}</dir>")
    lines.append(f"<cachedir>{escape(str(folder / 'cache'))}</cachedir>")
    file = folder / "fonts.conf"
    file.write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "fonts.dtd">\n<fontconfig>\n'
        + "\n".join(lines)
        + "\n</fontconfig>\n",
        encoding="utf-8",
    )
    return file
