"""The door: gathers what was set for an environment, says where each value came from, and
lets only valid settings and secrets pass. All problems are reported at once.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import runpy
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import ValidationError

from koprogo_deploy import backups, budget, host_keys, render, secrets, tuning
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.secrets import Secrets
from koprogo_deploy.settings import Contradictions, Settings, contradictions, valid_part

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
    settings = None
    if values:  # else a file could not be read, and every setting would be missing
        settings, found = check(values, environment)
        problems += found + _certificate(values, environment, root)
        problems += _way_to_the_host(host, values, environment, root)
    kept, found = secrets.read(environment, root)
    problems += found
    if settings and kept:
        problems += backups.missing_secrets(settings, kept)
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
        The host's name, the values by setting, and problems such as an empty inventory. Without
        name and values if a file cannot be read.
    """
    values: dict[str, _Value] = {}
    problems: list[Problem] = []
    off: set[str] = set()
    for name in ("all", environment):
        file = root / "group_data" / f"{name}.py"
        if file.exists():
            found, trouble = _module_values(file)
            problems += [Problem(f"group_data/{name}.py", *t) for t in trouble]
            for key, value in found.items():
                values[key] = _Value(value, f"group_data/{name}.py: {key}")
        off |= _switched_off(values)
    where = f"inventories/{environment}.py"
    groups, trouble = host_groups(environment, root)
    problems += [Problem(where, *t) for t in trouble]
    if problems:
        return "", {}, problems
    hosts = [host for group in groups.values() for host in group]
    host = ""
    data: dict[str, Any] = {}
    match hosts:
        case [str(name)]:
            host = name
        case [(str(name), dict(given))]:
            host, data = name, given
        case _:
            fix = 'one host, such as vps = [("203.0.113.7", {"ssh_user": "debian"})]'
            problems.append(Problem(where, f"{len(hosts)} hosts; KoproGo runs on one", fix))
    for key, value in data.items():
        values[key] = _Value(value, f"{where}: {key}")
    for key, value in overrides.items():
        values[key] = _Value(value, f"--data {key}")
    problems += _lets_in(values, off)
    if "example.invalid" in host:
        fix = "write the address of your VPS in place of the placeholder"
        problems.append(Problem(where, f"the host is still {host}", fix))
    return host, values, problems


_PARAMIKO = "ssh_paramiko_connect_kwargs"


def _switched_off(values: Mapping[str, _Value]) -> set[str]:
    """The SSH algorithms that paramiko is not to use, such as `keys ssh-rsa`."""
    given = values[_PARAMIKO].value if _PARAMIKO in values else None
    off = given.get("disabled_algorithms") if isinstance(given, dict) else None
    kinds = off.items() if isinstance(off, dict) else ()
    return {f"{kind} {name}" for kind, names in kinds for name in names}


def _lets_in(values: Mapping[str, _Value], wanted: set[str]) -> list[Problem]:
    """An inventory's own value takes the place of the one for all, and may forget half of it."""
    if not (missing := sorted(wanted - _switched_off(values))):
        return []
    what = f"lets in what group_data/all.py switches off: {', '.join(missing)}"
    fix = "add its disabled_algorithms to yours, or leave yours out"
    return [Problem(values[_PARAMIKO].where, what, fix)]


def _run(file: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Run a Python file of the operator's; a mistake in it is told by its line, not its stack."""
    try:
        return runpy.run_path(str(file)), []
    except SystemExit as refused:
        what, _, fix = str(refused.code).partition(". ")
        return {}, [(what, fix)]
    except Exception as error:
        lines = [
            f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file)
        ]
        line = error.lineno if isinstance(error, SyntaxError) else (lines or [None])[-1]
        message = error.msg if isinstance(error, SyntaxError) else str(error)
        return {}, [(f"line {line}: {type(error).__name__}: {message}", "mend that line")]


def _module_values(file: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    found, trouble = _run(file)
    values = {
        key: value
        for key, value in found.items()
        if not key.startswith("__") and not isinstance(value, ModuleType) and not callable(value)
    }
    return values, trouble


def host_groups(environment: str, root: Path) -> tuple[dict[str, list[Any]], list[tuple[str, str]]]:
    """Host groups of an environment's inventory by name, and what is wrong with the file."""
    file = root / "inventories" / f"{environment}.py"
    if not file.exists():
        return {}, [("the inventory is missing", "bring it back: git checkout inventories")]
    found, trouble = _run(file)
    groups = {k: v for k, v in found.items() if not k.startswith("_") and isinstance(v, list)}
    return groups, trouble


_PRIVATE = ("tls_key", "backup_ssh_key")
_PEM_FILES = ("tls_certificate", "tls_key", "acme_ca_certificate", "ca_certificate")


def _certificate(values: Mapping[str, _Value], environment: str, root: Path) -> list[Problem]:
    """Files that group data names and that cannot be read from here."""
    ours = dict(values)
    problems = []
    for field in (*_PEM_FILES, "backup_ssh_key"):
        named = ours[field].value if field in ours else None
        unused = field.startswith("tls_") and ("tls" not in ours or ours["tls"].value != "files")
        if isinstance(named, str) and not unused and not os.access(root / named, os.R_OK):
            kind = "PEM file" if field in _PEM_FILES else "private key"
            fix = f"write the path of a {kind}, from the project's root or absolute"
            problems.append(_at(ours, field, f'no file "{named}" to read', fix, environment))
        elif isinstance(named, str) and not unused and field in _PRIVATE:
            problems += _seen_by_others(ours, field, root / named, environment)
    named = ours["ssh_key"].value if "ssh_key" in ours else None
    if isinstance(named, str) and (root / Path(named).expanduser()).is_file():
        path = root / Path(named).expanduser()  # pyinfra tells of one that is not there
        problems += _seen_by_others(ours, "ssh_key", path, environment)
    return problems


def _seen_by_others(
    ours: Mapping[str, _Value], field: str, path: Path, environment: str
) -> list[Problem]:
    """A private key that others may read or change. A link counts as the file it leads to."""
    found = path.stat()
    if found.st_mode & 0o077:
        what = f"others may read {path.name} (mode {found.st_mode & 0o777:04o})"
        return [_at(ours, field, what, f"chmod 600 {path}", environment)]
    if found.st_uid not in (os.getuid(), 0):
        what = f"{path.name} belongs to somebody else"
        return [_at(ours, field, what, "make it your own file", environment)]
    return []


def _is_connection(key: str) -> bool:
    # What belongs to pyinfra: its SSH connector's keys and its global arguments.
    return key.startswith(("ssh_", "_"))


def _way_to_the_host(
    host: str, values: Mapping[str, _Value], environment: str, root: Path
) -> list[Problem]:
    """What of the inventory's connection data another host, or an option of ssh, could come by."""
    if not host or "example.invalid" in host:
        return []  # what is wrong there is said already
    connection = {key: v.value for key, v in values.items() if _is_connection(key)}
    problems = []
    for key in ("ssh_hostname", "ssh_user", "ssh_key", "ssh_known_hosts_file"):
        value = connection.get(key)
        if value is not None and not re.fullmatch(r"(?!-)[^\x00-\x1f\x7f\"]+", str(value)):
            fix = "one line that does not begin with -, without quotes"
            problems.append(Problem(f"{values[key].where} = {value!r}", "no such thing", fix))
    port = connection.get("ssh_port")
    if port is not None and (type(port) is not int or not 0 < port < 65536):
        fix = "a number from 1 to 65535, without quotes: 22"
        problems.append(Problem(f"{values['ssh_port'].where} = {port!r}", "is no port", fix))
    if not re.fullmatch(r"@?(?!-)[A-Za-z0-9._:/-]+", host):
        fix = "an address or a name, such as 203.0.113.7"
        problems.append(Problem(f"inventories/{environment}.py", f"{host!r} is no host", fix))
    if problems or environment == "sandbox" or host.startswith("@local"):
        return problems  # the sandbox's own key is made with it, and pinned in its inventory
    return [
        Problem(values[key].where if key in values else f"group_data/all.py: {key}", what, fix)
        for key, what, fix in host_keys.wrong(host, connection, environment, root)
    ]


def check(values: Mapping[str, _Value], environment: str) -> tuple[Settings | None, list[Problem]]:
    """Validate gathered values into settings; budget and tuning are proven on the way."""
    ours = {key: value for key, value in values.items() if not _is_connection(key)}
    problems = _unknown(ours)
    known = {key: v.value for key, v in ours.items() if key in Settings.model_fields}
    missing: tuple[type[Exception], ...] = ()
    try:
        settings = Settings.model_validate(known)
    except ValidationError as error:
        # A proof that needs a refused value waits for the next run; all the others are made now.
        missing = (AttributeError,)
        problems += _problems_of(error, ours, environment)
        settings = valid_part(known)
        problems += [_at(ours, *wrong, "", environment) for wrong in contradictions(settings, True)]
    for prove in (_proven_name, _proven_budget, _proven_tuning):
        with contextlib.suppress(*missing):
            problems += prove(settings, ours, environment)
    if not problems:
        problems = [_without_limit(service) for service in render.unlimited_services(settings)]
    return (None, problems) if problems else (settings, [])


def _without_limit(service: str) -> Problem:
    what = f"{service} has no memory limit, so the budget proves nothing"
    fix = "give it mem_limit and the same memswap_limit, as the others have"
    return Problem("templates/compose.yaml.j2", what, fix)


def _proven_name(s: Settings, ours: Mapping[str, _Value], environment: str) -> list[Problem]:
    if s.environment == environment:
        return []
    fix = f'write environment = "{environment}"'
    return [_at(ours, "environment", f"says {s.environment}", fix, environment)]


def _proven_budget(s: Settings, ours: Mapping[str, _Value], environment: str) -> list[Problem]:
    proven = budget.budget(s)
    if proven.fits:
        return []
    field = f"{budget.largest(proven).name}_memory"
    fix = f"lower {field} or another limit, or take a bigger VPS; see: koprogo plan {environment}"
    return [
        _at(ours, "vps_memory", f"the memory budget {budget.overrun(proven)}", fix, environment)
    ]


def _proven_tuning(s: Settings, ours: Mapping[str, _Value], environment: str) -> list[Problem]:
    try:
        tuning.tune(s)
    except tuning.Unsafe as unsafe:
        return [_at(ours, *wrong, "", environment) for wrong in unsafe.problems]
    return []


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
            continue  # the caller asks for them itself, whatever else is wrong
        field = str(entry["loc"][0])
        if entry["type"] == "missing":
            fix = f"add it to group_data/{environment}.py; group_data/all.py says what it means"
            problems.append(_at(ours, field, "missing", fix, environment))
            continue
        message = str(cause) if cause else _plain(entry["msg"])
        problem = _at(ours, field, message, "", environment, entry.get("input"))
        inside = "".join(f"[{step!r}]" for step in entry["loc"][1:] if step != "[key]")
        where, equals, given = problem.where.partition(" = ")
        problems.append(Problem(f"{where}{inside}{equals}{given}", problem.what, problem.fix))
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
