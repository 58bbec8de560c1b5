"""`koprogo maintenance`: 503 from Traefik itself for everybody but listed addresses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

import httpx2
import typer

from koprogo_deploy import door, maintenance
from koprogo_deploy.cli.common import Environment, out
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.outside import Outside
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import foreign
from koprogo_deploy.settings import network

maintenance_app = typer.Typer(
    no_args_is_help=True,
    help="""The maintenance page: 503 with Retry-After, from Traefik itself; no other container is
needed. It stays on through deploys and reboots until it is switched off.""",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(maintenance_app, name="maintenance")


@maintenance_app.command()
def on(
    environment: Environment,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="an address or network that passes, besides this machine's own"),
    ] = None,
    message: Annotated[
        str, typer.Option(help=f"one line of ASCII, sent as the header {maintenance.HEADER}")
    ] = maintenance.MESSAGE,
    retry_after: Annotated[
        int, typer.Option(min=1, help="seconds after which clients may ask again")
    ] = 300,
) -> None:
    """Answer 503 to everybody but this machine and the addresses of --allow.

    Given again, it replaces what was on.
    """
    from koprogo_deploy import remote
    from koprogo_deploy.operations import context

    opened = door.open_environment(environment)
    given = [_checked("--allow", address, network) for address in allow or ()]
    text = _checked("--message", message, maintenance.one_line)
    # As the host sees this machine; empty where the command runs on the host itself.
    own = remote.run(opened, 'echo "${SSH_CONNECTION%% *}"').strip()
    passing = tuple(dict.fromkeys([*given, *([network(own)] if own else [])]))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    wanted = Maintenance(now, context.who(), text, retry_after, passing)
    command = maintenance.on_command(opened.settings, wanted)
    remote.as_root(opened, command, maintenance.render(wanted))
    remote.write_down(opened, "maintenance", outcome="on", why=text, allow=passing)
    out.print(foreign(maintenance.told(wanted)))
    _from_here(opened)


@maintenance_app.command()
def off(environment: Environment) -> None:
    """Let everybody in again."""
    from koprogo_deploy import remote

    opened = door.open_environment(environment)
    before = maintenance.parse_look(
        remote.as_root(opened, maintenance.look_command(opened.settings))
    )
    remote.as_root(opened, maintenance.off_command(opened.settings))
    if before.wanted is None:
        out.print("maintenance was off already")
        return
    remote.write_down(opened, "maintenance", outcome="off")
    out.print("maintenance is off: everybody is let in")


@maintenance_app.command()
def status(environment: Environment) -> None:
    """Say whether it is on, and whether Traefik does so. Exits 1 if file and Traefik differ."""
    from koprogo_deploy import remote

    opened = door.open_environment(environment)
    seen = maintenance.parse_look(remote.as_root(opened, maintenance.look_command(opened.settings)))
    out.print(foreign(maintenance.told(seen.wanted) if seen.wanted else "maintenance is off"))
    if seen.served is None:
        words = "Traefik does not answer, so whether it does so is not known"
        out.print(words, style="red")
    elif not seen.agreed:
        out.print(f"Traefik {'does' if seen.served else 'does not'} answer 503", style="red")
    elif seen.wanted:
        _from_here(opened)
    raise typer.Exit(0 if seen.agreed else 1)


def _from_here(opened: door.Environment) -> None:
    """Say what this machine gets, seen from outside."""
    with Outside(opened.settings, timeout=5) as outside:
        try:
            answer = outside.api.get("/health")
        except httpx2.HTTPError as error:
            out.print(f"from here the site does not answer: {error!r}", markup=False)
            return
    if maintenance.ours(answer.headers):
        out.print(
            f"this machine gets {answer.status_code}: towards the site it has another address than "
            "towards SSH. To pass, name it: --allow ADDRESS"
        )
    else:
        out.print(
            f"this machine passes: {answer.status_code} from {opened.settings.api_url}/health"
        )


def _checked(option: str, value: str, check: Callable[[str], str]) -> str:
    try:
        return check(value)
    except ValueError as wrong:
        what, _, fix = str(wrong).partition("; ")
        raise Refusal("Command line", [Problem(option, what, fix)]) from None
