"""The commands."""

import functools
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ParamSpec

import typer
from rich.table import Table

from sandbox import box, containment, engine, images, lifecycle, parts
from sandbox import state as states
from sandbox.console import SandboxError, Steps, err, out
from sandbox.state import IMAGE_LABEL, Sandbox, State

app = typer.Typer(
    help="A VPS in a box: Debian 13, systemd and sshd on 1 CPU and 2 GiB, with a registry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


P = ParamSpec("P")


def guarded(function: Callable[P, None]) -> Callable[P, None]:
    """Errors without a traceback; 130 after Ctrl-C."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except SandboxError as error:
            error.show()
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            err.print("\ninterrupted")
            raise typer.Exit(130) from None

    return call


def here() -> Sandbox:
    """The sandbox of the checkout this package is in."""
    return Sandbox(Path(__file__).resolve().parent.parent)


def existing(sandbox: Sandbox) -> State:
    """The state, or an error that says how to get one."""
    found = states.read(sandbox)
    if found is None:
        raise SandboxError("there is no sandbox in this checkout", "run: python -m sandbox up")
    return found


@app.command()
@guarded
def up() -> None:
    """Bring the box, its registry and its images up."""
    found = lifecycle.up(here())
    out.print(f"ssh    ssh -F {os.path.relpath(found.ssh_config)} vps")
    out.print(f"http   http://127.0.0.1:{found.http_port}")
    out.print(f"https  https://koprogo.localhost:{found.https_port}  "
              f"(curl --cacert {os.path.relpath(found.ca_certificate)})")  # fmt: skip


@app.command()
@guarded
def down() -> None:
    """Remove the box, its registry, volumes and network; built images stay."""
    take_down(here())


def take_down(sandbox: Sandbox) -> None:
    """What `down` and `purge` share."""
    with sandbox.lock():
        steps = Steps(1)
        with steps.step("remove box, registry, volumes, network") as remarks:
            docker = engine.require()
            box.hang_up(sandbox, states.read(sandbox))
            removed = parts.remove(docker, sandbox)
            remarks.append(f"{len(removed)} removed" if removed else "nothing there")
            (sandbox.directory / "state.json").unlink(missing_ok=True)


@app.command()
@guarded
def purge() -> None:
    """`down`, then remove the built images, the keys and the authority."""
    sandbox = here()
    take_down(sandbox)
    docker = engine.require()
    kept = []
    # Other clones share these images: what one of their containers uses stays.
    for tag in docker.owned("image", IMAGE_LABEL):
        if not tag.endswith(":<none>") and docker.call("rmi", tag, check=False).returncode:
            kept.append(tag)
    shutil.rmtree(sandbox.directory)
    shutil.rmtree(sandbox.control, ignore_errors=True)
    used = f"; still in use: {' '.join(kept)}" if kept else ""
    out.print(f"images, keys and authority removed{used}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@guarded
def ssh(context: typer.Context) -> None:
    """Log in, or run a command: `ssh -- uptime`."""
    config = existing(here()).ssh_config
    if not shutil.which("ssh"):
        raise SandboxError("no ssh client here", "install openssh-client")
    sys.stdout.flush()
    os.execvp("ssh", ["ssh", "-F", config, "vps", *context.args])  # noqa: S606


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@guarded
def logs(context: typer.Context) -> None:
    """The box's journal; options are journalctl's: `logs -f -u ssh`."""
    existing(here())
    docker = engine.require()
    options = context.args or ["--lines=200"]
    terminal = ["-t"] if sys.stdout.isatty() and sys.stdin.isatty() else []
    os.execv(  # noqa: S606
        docker.binary,
        [docker.binary, "exec", "-i", *terminal, here().vps, "journalctl", "--no-pager", *options],
    )


@app.command()
@guarded
def reboot(
    hard: Annotated[bool, typer.Option("--hard", help="A hard reset: no clean stop.")] = False,
) -> None:
    """Reboot the box and wait for SSH."""
    sandbox = here()
    with sandbox.lock():
        found = existing(sandbox)
        docker = engine.require()
        if not docker.inspect("container", sandbox.vps):
            raise SandboxError("the box is gone", "run: python -m sandbox up")
        steps = Steps(2)
        with steps.step("hard reset and boot" if hard else "shut down and boot"):
            box.hang_up(sandbox, found)
            box.restart(docker, sandbox, hard=hard)
        with steps.step("wait for ssh"):
            box.wait(docker, sandbox, found)


@app.command()
@guarded
def check() -> None:
    """Prove that engines inside the box stay within 1 CPU and 2 GiB (needs Docker inside)."""
    found = existing(here())
    steps = Steps(3)
    for title, proof in (
        ("containers are below the box's cgroup", containment.place),
        ("two that spin share one CPU", containment.processor),
        ("three of 900 MB are stopped at 2 GiB", containment.memory),
    ):
        with steps.step(title) as remarks:
            remarks.append(proof(found))


@app.command()
@guarded
def status() -> None:
    """What there is, in which state."""
    sandbox = here()
    found = states.read(sandbox)
    docker, reason = engine.connect()
    table = Table(title=f"sandbox {sandbox.id} ({sandbox.root})", title_justify="left")
    for column in ("part", "state", "detail"):
        table.add_column(column, overflow="fold")
    table.add_row("engine", "answers" if docker else "[red]down[/]", reason)
    healthy = docker is not None and found is not None
    for part, name in (("box", sandbox.vps), ("registry", sandbox.registry)):
        entry = parts.container(docker, name) if docker else None
        state = entry["State"]["Status"] if entry else "absent"
        healthy = healthy and state == "running"
        image = entry["Config"]["Labels"].get("koprogo-sandbox.built-from", "") if entry else ""
        table.add_row(part, state if state == "running" else f"[red]{state}[/]", image)
    if found:
        answers = box.banner(found.ssh_port)
        healthy = healthy and answers
        table.add_row(
            "ssh", "answers" if answers else "[red]silent[/]",
            f"{found.ssh_user}@{found.ssh_host}:{found.ssh_port}",
        )  # fmt: skip
        table.add_row("ports", "", f"http {found.http_port}, https {found.https_port}")
        table.add_row("address", "", f"{found.box_address}, machine seen as {found.gateway}")
        wanted = lifecycle.references(images.plan())
        for name, reference in found.images.items():
            fresh = wanted.get(name) == reference
            table.add_row(name, "current" if fresh else "[yellow]outdated: run up[/]", reference)
    for name in parts.other_boxes(docker, sandbox.vps) if docker else ():
        table.add_row("another", "[yellow]running[/]", f"{name}, on the same CPU")
    out.print(table)
    if not healthy:
        raise typer.Exit(3)
