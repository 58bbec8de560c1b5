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

from sandbox import box, containment, disk, engine, images, lifecycle, parts, qemu, vm
from sandbox import state as states
from sandbox.console import SandboxError, Steps, err, out
from sandbox.state import IMAGE_LABEL, Kind, Sandbox, State

app = typer.Typer(
    help="A VPS in a box, or in a virtual machine: Debian 13, systemd and sshd on 1 CPU and 2 GiB, "
    "with a registry.",
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
def up(
    kind: Annotated[
        Kind | None,
        typer.Option(help="a container, or a machine with a kernel of its own; as it is, or a box"),
    ] = None,
) -> None:
    """Bring the VPS, its registry and its images up."""
    found = lifecycle.up(here(), kind)
    out.print(f"ssh    ssh -F {os.path.relpath(found.ssh_config)} vps")
    out.print(f"http   http://127.0.0.1:{found.http_port}")
    out.print(f"https  https://koprogo.localhost:{found.https_port}  "
              f"(curl --cacert {os.path.relpath(found.ca_certificate)})")  # fmt: skip


@app.command()
@guarded
def down() -> None:
    """Remove the VPS, its registry, volumes and network; built images stay."""
    take_down(here())


def take_down(sandbox: Sandbox) -> None:
    """What `down` and `purge` share."""
    with sandbox.lock():
        steps = Steps(1)
        with steps.step("remove VPS, registry, volumes, network") as remarks:
            box.hang_up(sandbox, states.read(sandbox))
            # A virtual machine needs no engine to run, and none to end.
            removed = ["virtual machine"] if qemu.stop(sandbox) else []
            shutil.rmtree(sandbox.vm, ignore_errors=True)
            docker = engine.require()
            removed += parts.remove(docker, sandbox)
            removed += [sandbox.tap] if vm.disconnect(sandbox) else []
            remarks.append(f"{len(removed)} removed" if removed else "nothing there")
            (sandbox.directory / "state.json").unlink(missing_ok=True)


@app.command()
@guarded
def purge() -> None:
    """`down`, then remove the built images and disks, the keys and the authority."""
    sandbox = here()
    take_down(sandbox)
    docker = engine.require()
    kept = []
    # Other clones share these images: what one of their containers uses stays.
    for tag in docker.owned("image", IMAGE_LABEL):
        if not tag.endswith(":<none>") and docker.call("rmi", tag, check=False).returncode:
            kept.append(tag)
    disk.purge()
    shutil.rmtree(sandbox.directory)
    shutil.rmtree(sandbox.control, ignore_errors=True)
    used = f"; still in use: {' '.join(kept)}" if kept else ""
    out.print(f"images, disks, keys and authority removed{used}")


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
    """The VPS's journal; options are journalctl's: `logs -f -u ssh`."""
    found = existing(here())
    options = context.args or ["--lines=200"]
    interactive = sys.stdout.isatty() and sys.stdin.isatty()
    if found.kind is Kind.vm:
        command = vm.journal(found, options, terminal=interactive)
        os.execvp(command[0], command)  # noqa: S606
    docker = engine.require()
    terminal = ["-t"] if interactive else []
    os.execv(  # noqa: S606
        docker.binary,
        [docker.binary, "exec", "-i", *terminal, here().vps, "journalctl", "--no-pager", *options],
    )


@app.command()
@guarded
def reboot(
    hard: Annotated[bool, typer.Option("--hard", help="A hard reset: no clean stop.")] = False,
) -> None:
    """Reboot the VPS and wait for SSH."""
    sandbox = here()
    with sandbox.lock():
        found = existing(sandbox)
        steps = Steps(2)
        with steps.step("hard reset and boot" if hard else "shut down and boot"):
            box.hang_up(sandbox, found)
            lifecycle.restart(sandbox, found, hard=hard)
        with steps.step("wait for ssh"):
            lifecycle.wait(sandbox, found)


@app.command()
@guarded
def check() -> None:
    """Prove that all inside stays within 1 CPU and 2 GiB (in a box this needs Docker inside)."""
    found = existing(here())
    proofs = BOX_PROOFS if found.kind is Kind.box else VM_PROOFS
    steps = Steps(len(proofs))
    for title, proof in proofs:
        with steps.step(title) as remarks:
            remarks.append(proof(found))


BOX_PROOFS = (
    ("containers are below the box's cgroup", containment.place),
    ("two that spin share one CPU", containment.processor),
    ("three of 900 MB are stopped at 2 GiB", containment.memory),
)
# What its kernel does not have, nothing inside can use.
VM_PROOFS = (("its kernel has 1 CPU and no more than 2 GiB", containment.hardware),)


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
    if found and found.kind is Kind.vm:
        pid = qemu.running(sandbox)
        healthy = healthy and pid is not None
        detail = f"process {pid}, {found.accelerator}, {found.box_image}"
        table.add_row("vm", "running" if pid else "[red]off[/]", detail if pid else found.box_image)
    names = [("registry", sandbox.registry)]
    if found is None or found.kind is Kind.box:
        names.insert(0, ("box", sandbox.vps))
    for part, name in names:
        entry = parts.container(docker, name) if docker else None
        state = entry["State"]["Status"] if entry else "absent"
        healthy = healthy and state == "running"
        image = entry["Config"]["Labels"].get("koprogo-sandbox.built-from", "") if entry else ""
        table.add_row(part, state if state == "running" else f"[red]{state}[/]", image)
    if found:
        answers = lifecycle.answers(found)
        healthy = healthy and answers
        table.add_row(
            "ssh", "answers" if answers else "[red]silent[/]",
            f"{found.ssh_user}@{found.ssh_host}:{found.ssh_port}",
        )  # fmt: skip
        table.add_row("ports", "", f"http {found.http_port}, https {found.https_port}")
        address = found.box_address or "by forwarded ports alone"
        table.add_row("address", "", f"{address}, machine seen as {found.gateway}")
        wanted = lifecycle.references(images.plan())
        for name, reference in found.images.items():
            fresh = wanted.get(name) == reference
            table.add_row(name, "current" if fresh else "[yellow]outdated: run up[/]", reference)
    rivals = parts.other_boxes(docker, sandbox.vps) if docker else []
    for name in rivals + qemu.others(sandbox.vps):
        table.add_row("another", "[yellow]running[/]", f"{name}, on the same CPU")
    out.print(table)
    if not healthy:
        raise typer.Exit(3)
