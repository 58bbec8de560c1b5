"""What the original deployment recorded of itself, with its conditions: a baseline to look at.

Single figures, taken in a closed loop over the internet: laid beside ours, never judged against.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from koprogo_deploy.problems import Problem, Refusal

NAME = "original"
FILE = Path(__file__).with_name("original.json")


class Recorded(BaseModel):
    """One recorded test.

    Attributes:
        name: `original` for the test that is most like ours, else `original:<name>`.
        when, test: as the record says.
        conditions: what is known of how it was taken.
        figures: by the name that comparisons use; two numbers are a range. ms, MB, percent.
        also: what was recorded and has no counterpart.
        doubts: where the record contradicts itself.
        unlike: why none of this is a measurement of a change.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    when: str
    test: str
    conditions: list[str]
    figures: dict[str, float | tuple[float, float]]
    also: list[str] = []
    doubts: list[str] = []
    unlike: list[str]

    @property
    def label(self) -> str:
        """As it is written on the command line."""
        return self.name


def recorded(name: str = NAME) -> Recorded:
    """A recorded test by its name.

    Raises:
        Refusal: there is none of that name.
    """
    found = everything().get(name)
    if found is None:
        known = ", ".join(everything())
        raise Refusal("Compare", [Problem(name, "no such record", f"there are: {known}")])
    return found


@cache
def everything() -> dict[str, Recorded]:
    """Every recorded test by its name."""
    kept = json.loads(FILE.read_text(encoding="utf-8"))
    common = {key: kept[key] for key in ("unlike",)}
    records = [
        Recorded.model_validate(
            common | record | {"conditions": kept["conditions"] + record["conditions"]}
        )
        for record in kept["records"]
    ]
    return {record.name: record for record in records}
