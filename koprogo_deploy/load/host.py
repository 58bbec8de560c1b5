"""What a load run has to know of the host: the machine, the release, and who we are to it."""

from __future__ import annotations

import json
import os
import platform
import shlex
from dataclasses import dataclass, field

from koprogo_deploy import connection, remote, seed
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.host import Host, parse
from koprogo_deploy.load import rows
from koprogo_deploy.operations.shell import psql
from koprogo_deploy.problems import Refusal
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.runs.model import Deployed, Machine
from koprogo_deploy.settings import SERVICES

# What was set, by whomever; defaults say nothing about an environment.
_SETTINGS_SQL = """SELECT json_object_agg(name, current_setting(name)) FROM pg_settings
WHERE source NOT IN ('default', 'override', 'client', 'session', 'environment variable')
  AND name NOT LIKE '%file%' AND name !~ '(directory|directories|log_line_prefix)$';
"""


@dataclass(frozen=True)
class Found:
    """What the host says."""

    machine: Machine
    deployed: Deployed
    client: str = ""  # our address, as the host sees it
    notes: list[str] = field(default_factory=list)


def client_machine() -> str:
    """This machine, in a few words."""
    return f"{platform.node()}: {os.cpu_count()} CPUs, Linux {platform.release()}"


def look(environment: Environment) -> Found:
    """Ask the host.

    Raises:
        Refusal: it cannot be reached, or nothing is deployed.
    """
    settings = environment.settings
    # The variable is the login shell's: sudo does not hand it on.
    facts = commands.text(Host().command())
    said = remote.run(
        environment,
        'printf \'ours\\t%s\\t%s\\t%s\\n\' "${SSH_CLIENT%% *}" "$(nproc)" "$(uname -r)"; '
        f"sudo -n sh -c {shlex.quote(facts)}",
    ).splitlines()
    client, cpus, kernel = said[0].split("\t")[1:]
    state = remote.stack(environment)
    notes = []
    if client == "":
        client = "127.0.0.1" if connection.is_local(environment) else ""
    try:
        tuned = json.loads(remote.run(environment, f"sudo -n {psql()}", _SETTINGS_SQL))
    except (Refusal, ValueError) as error:
        tuned = {}
        notes.append(f"Postgres' settings could not be read: {str(error).splitlines()[-1].strip()}")
    live = state.live or {}
    return Found(
        machine=Machine(
            host=environment.host,
            cpus=int(cpus),
            memory=parse(said[1:]).memory,
            kernel=kernel,
            client=client_machine(),
        ),
        deployed=Deployed(
            release=live.get("id", ""),
            settings_hash=settings.hash,
            images=live.get("images", {}),
            limits={service: settings.memory(service) for service in SERVICES},
            postgres={name: str(value) for name, value in sorted(tuned.items())},
            seed_scale=_seed_scale(environment),
        ),
        client=client,
        notes=notes,
    )


def _seed_scale(environment: Environment) -> int | None:
    """Of the data that is there, which may not be the one that group data asks for."""
    try:
        return seed.scale_of(remote.seed_state(environment))
    except Refusal:
        return None


def clean(
    environment: Environment, run: str | None = None, tokens: list[str] | None = None
) -> dict[str, int]:
    """Remove a run's rows, or every run's; how many went, by table.

    Raises:
        Refusal: the host or the database cannot be reached, or refuses.
    """
    script = rows.clean_sql(run, tokens or [])
    return rows.removed(remote.run(environment, f"sudo -n {psql()}", script))
