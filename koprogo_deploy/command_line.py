"""Checks a pyinfra run before it starts: what it was asked for, and the environment's settings.

pyinfra itself exits 0 on an inventory path with a typo, on a `--limit` that matches nothing and
on Ctrl-C; a pipeline would take each for a success.
"""

from __future__ import annotations

import difflib
import fnmatch
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from koprogo_deploy import door, host_keys
from koprogo_deploy.problems import Problem, Refusal, show
from koprogo_deploy.pyinfra_adapter import command_line as pyinfra_adapter
from koprogo_deploy.pyinfra_adapter import known_keys, sha1
from koprogo_deploy.screen import complain

EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
OLD_SERVER = (
    "    its SSH server offers only what is switched off here, such as SHA-1 (group_data/all.py: "
    "ssh_paramiko_connect_kwargs), or what is not known here. sshd -T on the host lists it; "
    "host keys of today: ssh-keygen -A"
)


def check() -> None:
    """Check the pyinfra command line that is being run; exits 2 with every problem found."""
    parameters = pyinfra_adapter.parameters()
    if parameters is None:
        return
    signal.signal(signal.SIGINT, _interrupted)
    pyinfra_adapter.no_traceback_of_failed_hosts()
    sha1.refuse()
    known_keys.ask_first()
    from koprogo_deploy.operations.visibly import show_visibly

    show_visibly()
    # After it: what is explained has been made visible by then.
    pyinfra_adapter.explain("Incompatible ssh peer", OLD_SERVER)
    problems = command_problems(parameters, door.ROOT)
    if problems:
        _refuse(show("Command line", problems))
    if "deploys" not in " ".join(map(str, parameters.get("operations") or ())):
        return  # pyinfra's own verbs: fact, exec, debug-inventory
    try:
        opened = door.open_environment(
            Path(parameters["inventory"]).stem, overrides(parameters.get("data") or ())
        )
        if not opened.host.startswith("@local") and opened.settings.environment != "sandbox":
            name = opened.settings.environment
            host_keys.write(opened.host, opened.connection, name, door.ROOT)
        if opened.settings.plan:
            from koprogo_deploy.plan import given

            given.read(opened.settings.plan, opened)
    except Refusal as refusal:
        _refuse(str(refusal))


def _refuse(text: str) -> None:
    complain(f"\n{text}")
    raise SystemExit(EXIT_REFUSED)


def _interrupted(_signal: int, _frame: object) -> None:
    complain("\nInterrupted. Run the same command again: it goes on from where it is.")
    sys.stderr.flush()
    # At once: greenlets in the middle of a command would swallow an exception.
    import os

    os._exit(EXIT_INTERRUPTED)


def overrides(data: Sequence[str]) -> dict[str, Any]:
    """Values of `--data name=value`, read as pyinfra reads them."""
    return {key: pyinfra_adapter.value(text) for key, _, text in (d.partition("=") for d in data)}


def as_written(name: str, arguments: Sequence[str]) -> str | None:
    """A value of `--data` as it stands on the command line; None if it is not there.

    pyinfra takes an id such as `01234567` or `12e45678` for a number.
    """
    given = [word.removeprefix("--data=") for word in arguments]
    found = [word.partition("=")[2] for word in given if word.startswith(f"{name}=")]
    return found[-1] if found else None


def command_problems(parameters: Mapping[str, Any], root: Path) -> list[Problem]:
    """What is wrong with a pyinfra command line. Pure but for looking at `inventories/`."""
    problems = []
    inventory = Path(str(parameters["inventory"]))
    known = sorted(path.stem for path in (root / "inventories").glob("*.py"))
    if not inventory.exists():
        near = difflib.get_close_matches(inventory.stem, known, n=1, cutoff=0.4)
        fix = f"did you mean inventories/{near[0]}.py?" if near else f"there are: {known}"
        return [Problem("inventory", f"{inventory} does not exist", fix)]
    if inventory.resolve().parent != root / "inventories" or inventory.stem not in known:
        fix = "run from the project's root: pyinfra inventories/production.py deploys/full.py"
        return [Problem("inventory", f"{inventory} is not one of this project's", fix)]
    for operation in parameters.get("operations") or ():
        if str(operation).endswith(".py") and not Path(operation).exists():
            deploys = sorted(path.stem for path in (root / "deploys").glob("*.py"))
            near = difflib.get_close_matches(Path(operation).stem, deploys, n=1, cutoff=0.4)
            fix = f"did you mean deploys/{near[0]}.py?" if near else f"there are: {deploys}"
            problems.append(Problem("deploy", f"{operation} does not exist", fix))
    host, _, unreadable = door.gather(inventory.stem, {}, root)
    groups = ["all", *door.host_groups(inventory.stem, root)[0], inventory.stem]

    def names(pattern: str) -> bool:
        # As in pyinfra: a group by its exact name, a host by pattern.
        return pattern in groups or fnmatch.fnmatch(host, pattern)

    # An inventory that cannot be read has no names to compare; the door says what is wrong with it.
    if host or not unreadable:
        fix = f"the host is {host}; its groups: {', '.join(groups)}"
        problems += [
            Problem("--limit", f'"{limit}" matches no host', fix)
            for limit in parameters.get("limit") or ()
            if not names(limit)
        ]
        problems += [
            Problem("--exclude", f'"{pattern}" leaves no host, and pyinfra exits 0', "leave it out")
            for pattern in parameters.get("exclude") or ()
            if names(pattern)
        ]
    problems += [
        Problem("--data", f'"{data}" has no value', f"write: --data {data}=value")
        for data in parameters.get("data") or ()
        if "=" not in data
    ]
    named = [Path(str(operation)).stem for operation in parameters.get("operations") or ()]
    given = [data.partition("=")[0] for data in parameters.get("data") or ()]
    if "release" in given and named != ["rollback"]:
        fix = "pyinfra inventories/<environment>.py deploys/rollback.py --data release=ID"
        problems.append(Problem("--data release", "only deploys/rollback.py takes it", fix))
    if "backup" in given and named not in (["restore"], ["recover"]):
        fix = "pyinfra inventories/<environment>.py deploys/restore.py --data backup=ID"
        problems.append(Problem("--data backup", "only restore.py and recover.py take it", fix))
    if "backup" not in given and {"restore", "recover"} & set(named):
        fix = "koprogo backups <environment> lists them; then --data backup=ID, or backup=latest"
        problems.append(Problem("--data backup", "which one to restore is not said", fix))
    if "over_data" in given and named != ["recover"]:
        fix = "pyinfra inventories/<environment>.py deploys/recover.py --data over_data=true"
        problems.append(Problem("--data over_data", "only deploys/recover.py takes it", fix))
    if "upgrade" in given and named != ["postgres_upgrade"]:
        fix = "pyinfra inventories/<environment>.py deploys/postgres_upgrade.py --data upgrade=back"
        problems.append(Problem("--data upgrade", "only postgres_upgrade.py takes it", fix))
    if "plan" in given and named != ["full"]:
        fix = "pyinfra inventories/<environment>.py deploys/full.py --data plan=FILE"
        problems.append(Problem("--data plan", "only deploys/full.py takes it", fix))
    if parameters.get("no_wait"):
        fix = "leave it out"
        problems.append(Problem("--no-wait", "pyinfra exits 0 with it when a step fails", fix))
    return problems
