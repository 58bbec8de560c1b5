"""Text that did not come from us, made safe to show: nothing in it is interpreted. Pure.

Logs, names on the host, lines of the audit log and answers of servers may hold what an attacker
chose. An escape sequence would write to the terminal's clipboard or hide lines, a bidi mark would
turn a line around, and a line of `::add-mask::` is a command to GitHub Actions. Here each becomes
characters that a person sees: `\\x1b`, `\\u202e`, `\\x3a:`.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

# Letters by their category, and yet without a glyph: fillers, joiners, selectors of variants.
_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# As GitHub Actions reads them: the first behind nothing but white space, the others anywhere. Where
# the second `::` of the first would be is not asked: the next cell of a table may bring it.
_COMMAND = re.compile(r"(?<!\S):(?=:[A-Za-z])|#(?=#(?:vso)?\[)")
# What cannot need a change; nearly all text is such.
_HARMLESS = re.compile(r"[\x20-\x22\x24-\x39\x3b-\x7e\xa0-\xac\xae-\xff]*")
_COLOURS = re.compile(r"(\x1b\[(?:0|1|3[1-6])m)")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with everything that a terminal, a log or a browser would act on spelled out.

    Twice the same as once.

    Args:
        text: whatever it holds, lone surrogates included.
        lines: line breaks and tabs stay; else they are spelled out too, so that one value cannot
            look like two lines.
    """
    if _HARMLESS.fullmatch(text):
        return text
    kept = "\n\t" if lines else ""
    shown = "".join(c if c in kept or _shows(c) else _spelled(c) for c in text)
    return _COMMAND.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)


def _shows(character: str) -> bool:
    if character in _BLANK:
        return False
    # Python calls spaces other than its own unprintable; a narrow one is part of French.
    return character.isprintable() or unicodedata.category(character) == "Zs"


def _spelled(character: str) -> str:
    code = ord(character)
    if character in _NAMED:
        return _NAMED[character]
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def beside_colours(text: str) -> str:
    """As `visible` with line breaks, of text that our own colours are in already."""
    parts = _COLOURS.split(text)
    return "".join(p if n % 2 else visible(p, lines=True) for n, p in enumerate(parts))


def quoted(text: str) -> str:
    """Lines of a container's log, each behind a bar: whose words they are is seen at once."""
    return "\n".join(f"| {visible(line)}" for line in text.splitlines())


def in_json(text: str) -> str:
    """JSON whose strings hold no such character as it is, but its escape: the same value."""
    if _HARMLESS.fullmatch(text):
        return text
    return "".join(c if c == "\n" or _shows(c) else json.dumps(c)[1:-1] for c in text).replace(
        "\x7f", "\\u007f"
    )


def finalized(value: Any) -> Any:  # noqa: ANN401 - whatever a template shows
    """For Jinja's `finalize`: text of a page is visible; what is markup already stays."""
    return visible(value, lines=True) if type(value) is str else value


def everywhere(value: Any) -> Any:  # noqa: ANN401 - whatever JSON holds
    """A value for JSON whose strings, keys included, are `visible` with their line breaks."""
    if isinstance(value, str):
        return visible(value, lines=True)
    if isinstance(value, Mapping):
        return {everywhere(key): everywhere(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [everywhere(each) for each in value]
    return value
