"""Another major version of Postgres: what is said of it, and what goes along with it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koprogo_deploy.plan.wanted import dynamic_hash
from koprogo_deploy.render import Release
from koprogo_deploy.settings import SERVICES, Settings


def command(settings: Settings) -> str:
    """What brings the data to another version."""
    return f"pyinfra inventories/{settings.environment}.py deploys/postgres_upgrade.py"


def other(settings: Settings, there: str) -> tuple[str, str] | None:
    """Why a deploy cannot run on the data, and what to do; None where it can.

    Args:
        settings: name the image's version.
        there: version of the data, as its files say; empty where there is none.
    """
    wanted = settings.postgres_major
    if not there or there == str(wanted):
        return None
    what = f"the data is of Postgres {there}, the image of {wanted}"
    back = f"write postgres_image and postgres_major of {there}"
    if there.isdigit() and int(there) < wanted:
        return what, f"{command(settings)} takes it along; until then {back}"
    return what, (
        f"a lower version cannot read it: {back}. Where the cluster of before an upgrade is kept "
        f"(koprogo status says so): {command(settings)} --data upgrade=back"
    )


def beside_postgres(live: Mapping[str, Any], release: Release) -> str:
    """What else a release would change than Postgres; empty if nothing.

    Args:
        live: manifest of the serving release.
        release: the one that the settings ask for.
    """
    others = [
        service
        for service in SERVICES
        if service != "postgres" and release.specs[service] != live["specs"][service]
    ]
    if not others and dynamic_hash(release) != live["dynamic"]:
        others = ["the proxy's routes"]
    return ", ".join(others)


def deployed_with(kept: Mapping[str, Any]) -> dict[str, object]:
    """Settings that a cluster which served before is deployed with again.

    Args:
        kept: what was written down of it.
    """
    requested = kept["requested"]
    digest = kept["image"].partition("@")[2]
    image = requested if "@" in requested or not digest else f"{requested}@{digest}"
    return {"postgres_image": image, "postgres_major": kept["major"]}


def told_since(since: Mapping[str, int], until: str) -> str:
    """What was written since a cluster stopped serving, table by table.

    Args:
        since: by how many rows each table that changed is ahead.
        until: when it stopped, ISO time.
    """
    at = until[:16].replace("T", " ")
    if not since:
        return f"nothing was written since {at} UTC"
    parts = [f"{name.removeprefix('public.')} {rows:+d}" for name, rows in since.items() if rows]
    same = sorted(name.removeprefix("public.") for name, rows in since.items() if not rows)
    if same:
        parts.append(f"changed without a row more or less: {', '.join(same)}")
    return f"written since {at} UTC, and not in it: {'; '.join(parts)} (rows)"


def refuses_back(settings: Settings, counted: Mapping[str, Any]) -> str:
    """Why going back asks for a word more; empty if nothing that people wrote would be lost.

    Args:
        settings: for the command.
        counted: what `koprogo-data upgrade counted` said.
    """
    if not counted["lost"]:
        return ""
    return (
        f"going back to Postgres {counted['major']} leaves behind what was "
        f"{told_since(counted['since'], counted['until'])}. The cluster that has it would be kept. "
        f"If that is meant: {command(settings)} --data upgrade=back_anyway"
    )
