"""The only ways from `koprogo` to a terminal: whatever goes through them is visible text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from koprogo_deploy.visible import in_json, visible


class Screen(Console):
    """A rich console that shows control characters, and takes no text for markup.

    What is styled says so by `style=` or `Text`; text of a host is then never a tag.
    """

    def __init__(self, *, markup: bool = False, **options: Any) -> None:  # noqa: ANN401
        super().__init__(markup=markup, highlight=False, **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """As rich renders it, made visible; what rich itself sends the terminal stays."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(visible(segment.text, lines=True), segment.style)


def foreign(text: object, style: str = "") -> Text:
    """Text of somebody else for a table's cell or a line, on one line whatever it holds."""
    return Text(visible(str(text)), style=style)


def complain(text: str) -> None:
    """Write lines to standard error."""
    sys.stderr.write(f"{visible(text, lines=True)}\n")


def machine(text: str) -> None:
    """Write to standard output what a program reads: a value, Markdown, a line of text."""
    sys.stdout.write(f"{visible(text, lines=True)}\n")


def machine_json(value: object, indent: int | None = 1, **options: Any) -> None:  # noqa: ANN401
    """Write JSON to standard output: it means what was read, and shows what cannot be seen."""
    json_text(json.dumps(value, indent=indent, **options))


def json_text(text: str) -> None:
    """Write text that is JSON already."""
    sys.stdout.write(f"{in_json(text)}\n")
    sys.stdout.flush()
