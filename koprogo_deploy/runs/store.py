"""Files of runs: `runs/<environment>/<id>.json` below the project's root, ignored by git."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from koprogo_deploy.door import ROOT
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs.model import FORMAT, Run

FOLDER = ROOT / "runs"


def new_id(profile: str, now: datetime | None = None) -> str:
    """An id that sorts by time within a profile, such as `realistic-20261125T034100Z`."""
    return f"{profile}-{now or datetime.now(UTC):%Y%m%dT%H%M%SZ}"


def save(run: Run, folder: Path | None = None) -> Path:
    """Write a run, at once or not at all.

    Args:
        run: it names its own file.
        folder: where to; the environment's own folder unless given.
    """
    folder = folder or FOLDER / run.environment
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.id}.json"
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.rename(path)
    return path


def load(path: Path) -> Run:
    """Read a run.

    Raises:
        Refusal: there is no such file, or it is not a run of this format.
    """
    try:
        return Run.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _refused(path, error.strerror or str(error)) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(step) for step in first["loc"]) or "the file"
        raise _refused(path, f"not a run of format {FORMAT}: {where}: {first['msg']}") from None


def find(names: Sequence[str], environment: str | None = None) -> list[Path]:
    """Files of runs by what a person writes: a path, an id, or the beginning of one.

    A name that fits several runs stands for all of them, oldest first: `realistic` for every run
    of that profile. `latest` is the newest run.

    Raises:
        Refusal: a name that fits none.
    """
    known = listed(environment)
    found: list[Path] = []
    for name in names:
        if Path(name).is_file():
            found.append(Path(name))
            continue
        fitting = known[-1:] if name == "latest" else [p for p in known if p.stem.startswith(name)]
        if not fitting:
            some = ", ".join(p.stem for p in known[-5:]) or "none yet: koprogo load realistic"
            raise Refusal("Runs", [Problem(name, "no such run or file", f"there are: {some}")])
        found += fitting
    return found


def listed(environment: str | None = None) -> list[Path]:
    """Every kept run, oldest first; of one environment, or of all."""
    paths = FOLDER.glob(f"{environment or '*'}/*.json")
    return sorted(paths, key=lambda path: re.sub(r"^.*-(?=\d{8}T)", "", path.stem))


def _refused(path: Path, what: str) -> Refusal:
    return Refusal("Runs", [Problem(str(path), what, "make one with: koprogo load realistic")])
