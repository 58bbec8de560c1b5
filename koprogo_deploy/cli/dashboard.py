"""`koprogo dashboard`: a local web page for people who would rather look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from koprogo_deploy import door
from koprogo_deploy.cli.common import EnvironmentOption, Where, out


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(dashboard)


def dashboard(
    environment: EnvironmentOption = Where.sandbox,
    port: Annotated[int, typer.Option(min=0, max=65535, help="on 127.0.0.1; 0: any free one")] = 0,
    open_: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Show a local web page: live charts, releases, objectives, the seed, load runs.

    It is on 127.0.0.1 only, and opens with the link printed here. Ctrl-C ends it, and what it
    has started.
    """
    from koprogo_deploy import report
    from koprogo_deploy.dashboard import server
    from koprogo_deploy.dashboard.desk import Desk
    from koprogo_deploy.dashboard.guard import Keys
    from koprogo_deploy.dashboard.jobs import Jobs
    from koprogo_deploy.dashboard.watch import Watch
    from koprogo_deploy.load.profiles import PROFILES
    from koprogo_deploy.monitor import Monitor

    opened = door.open_environment(environment)
    desk = Desk(
        name=environment.value,
        open=server.environment_opener(environment.value),
        watch=Watch(lambda: Monitor(opened)),
        jobs=Jobs(),
        profiles={name: profile.about for name, profile in PROFILES.items()},
    )
    listening = server.listen(port)
    pages: list[Path] = []

    def ready(keys: Keys) -> None:
        out.print(f"Dashboard of {environment} ({opened.host}). Ctrl-C ends it.")
        out.print(keys.link, soft_wrap=True)
        if open_:
            pages.append(server.open_browser(keys.link))

    try:
        server.serve(desk, listening, report.html, ready)
    finally:
        for page in pages:
            page.unlink(missing_ok=True)
