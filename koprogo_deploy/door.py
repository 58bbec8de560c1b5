"""The door: gathers what was set for an environment, says where each value came from, and
lets only valid settings and secrets pass. All problems are reported at once.
"""

from __future__ import annotations

import difflib
import runpy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from koprogo_deploy import budget, secrets, tuning
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Contradictions, Settings

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENTS = ("production", "staging", "sandbox")


@dataclass(frozen=True)
class Environment:
    """A checked environment: its settings, its secrets, and the host it is on."""

    settings: Settings
    secrets: Secrets
    host: str
    connection: dict[str, Any]


@dataclass(frozen=True)
class _Value:
    value: Any
    where: str


def open_environment(
    environment: str, overrides: Mapping[str, Any] | None = None, root: Path = ROOT
) -> Environment:
    """Gather and check everything of an environment.

    Args:
        environment: `production`, `staging` or `sandbox`.
        overrides: values from the command line (`--data`), strongest of all.
        root: the folder with `inventories/`, `group_data/` and the secrets file.

    Raises:
        Refusal: with every problem found in settings, secrets, budget and tuning.
    """
    if environment not in ENVIRONMENTS:
        raise Refusal(
            f"Environment {environment}",
            [Problem("environment", f'"{environment}" is unknown', _closest(environment))],
        )
    host, values, problems = gather(environment, overrides or {}, root)
    settings, found = check(values, environment)
    problems += found
    kept, found = secrets.read(environment, root)
    problems += found
    if problems or settings is None or kept is None:
        raise Refusal(f"Settings of {environment}", problems)
    connection = {k: v.value for k, v in values.items() if _is_connection(k)}
    return Environment(settings, kept, host, connection)


def _closest(name: str) -> str:
    near = difflib.get_close_matches(name, ENVIRONMENTS, n=1)
    return f"did you mean {near[0]}?" if near else f"one of: {', '.join(ENVIRONMENTS)}"


def gather(
    environment: str, overrides: Mapping[str, Any], root: Path
) -> tuple[str, dict[str, _Value], list[Problem]]:
    """Read group data and inventory as pyinfra does, remembering where each value was set.

    Returns:
        The host's name, the values by setting, and problems such as an empty inventory.
    """
    values: dict[str, _Value] = {}
    for name in ("all", environment):
        file = root / "group_data" / f"{name}.py"
        if file.exists():
            for key, value in _module_values(file).items():
                values[key] = _Value(value, f"group_data/{name}.py: {key}")
    inventory = root / "inventories" / f"{environment}.py"
    where = f"inventories/{environment}.py"
    hosts = [host for group in _host_groups(inventory) for host in group]
    if len(hosts) != 1:
        fix = 'one host, such as vps = [("203.0.113.7", {"ssh_user": "debian"})]'
        return "", values, [Problem(where, f"{len(hosts)} hosts; KoproGo runs on one", fix)]
    host, data = hosts[0] if isinstance(hosts[0], tuple) else (hosts[0], {})
    for key, value in data.items():
        values[key] = _Value(value, f"{where}: {key}")
    for key, value in overrides.items():
        values[key] = _Value(value, f"--data {key}")
    problems = []
    if "example.invalid" in host:
        fix = "write the address of your VPS in place of the placeholder"
        problems.append(Problem(where, f"the host is still {host}", fix))
    return host, values, problems


def _module_values(file: Path) -> dict[str, Any]:
    from types import ModuleType

    return {
        key: value
        for key, value in runpy.run_path(str(file)).items()
        if not key.startswith("__") and not isinstance(value, ModuleType) and not callable(value)
    }


def _host_groups(file: Path) -> list[list[Any]]:
    if not file.exists():
        return []
    return [
        value
        for key, value in runpy.run_path(str(file)).items()
        if not key.startswith("_") and isinstance(value, list)
    ]


def _is_connection(key: str) -> bool:
    # What belongs to pyinfra: its SSH connector's keys and its global arguments.
    return key.startswith(("ssh_", "_"))


def check(values: Mapping[str, _Value], environment: str) -> tuple[Settings | None, list[Problem]]:
    """Validate gathered values into settings; budget and tuning are proven on the way."""
    ours = {key: value for key, value in values.items() if not _is_connection(key)}
    problems = _unknown(ours)
    known = {key: v.value for key, v in ours.items() if key in Settings.model_fields}
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        problems += _problems_of(error, ours, environment)
    if settings is None or problems:
        return None, problems
    if settings.environment != environment:
        fix = f'write environment = "{environment}"'
        problems.append(_at(ours, "environment", f"says {settings.environment}", fix, environment))
    too_much = budget.overrun(budget.budget(settings))
    if too_much:
        fix = "lower a limit or take a bigger VPS; see: koprogo plan " + environment
        problems.append(_at(ours, "vps_memory", f"the memory budget {too_much}", fix, environment))
    try:
        tuning.tune(settings)
    except tuning.Unsafe as unsafe:
        field = (
            "postgres_settings"
            if unsafe.name in settings.postgres_settings
            else ("postgres_memory")
        )
        problems.append(_at(ours, field, str(unsafe), "", environment))
    return (None, problems) if problems else (settings, [])


def _unknown(ours: Mapping[str, _Value]) -> list[Problem]:
    problems = []
    for key, value in ours.items():
        if key in Settings.model_fields:
            continue
        near = difflib.get_close_matches(key, Settings.model_fields, n=1, cutoff=0.5)
        fix = f"did you mean {near[0]}?" if near else "group_data/all.py lists every setting"
        problems.append(Problem(value.where, "unknown setting", fix))
    return problems


def _problems_of(
    error: ValidationError, ours: Mapping[str, _Value], environment: str
) -> list[Problem]:
    problems: list[Problem] = []
    for entry in error.errors():
        cause = entry.get("ctx", {}).get("error")
        if isinstance(cause, Contradictions):
            problems += [_at(ours, field, text, "", environment) for field, text in cause.problems]
            continue
        field = str(entry["loc"][0]) if entry["loc"] else "settings"
        if entry["type"] == "missing":
            fix = f"add it to group_data/{environment}.py; group_data/all.py says what it means"
            problems.append(Problem(f"group_data: {field}", "missing", fix))
            continue
        message = str(cause) if cause else _plain(entry["msg"])
        problems.append(_at(ours, field, message, "", environment, entry.get("input")))
    return problems


def _plain(message: str) -> str:
    return message[0].lower() + message[1:]


def _at(
    ours: Mapping[str, _Value],
    field: str,
    what: str,
    fix: str,
    environment: str,
    given: object = None,
) -> Problem:
    where = ours[field].where if field in ours else f"group_data/{environment}.py: {field}"
    what, _, right = what.partition("; ")
    shown = f" = {given!r}" if given is not None and not isinstance(given, dict) else ""
    return Problem(f"{where}{shown}", what, "; ".join(part for part in (right, fix) if part))
