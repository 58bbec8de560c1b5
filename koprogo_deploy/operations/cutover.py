"""Cut over: the proxy sends requests to the release's colours; the old ones stay warm."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from pyinfra import host, logger
from pyinfra import state as pyinfra_state
from pyinfra.api import StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy.facts.host import Certificates
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.files import archive, differing, unpack_command
from koprogo_deploy.machine import binary_files, image_note
from koprogo_deploy.operations import context, interrupt, take_back
from koprogo_deploy.operations.looks import look, machine_now, only_looking
from koprogo_deploy.operations.migrate import (
    as_wanted,
    bring_up,
    release_directory,
    stack,
    target,
)
from koprogo_deploy.operations.notes import about, note
from koprogo_deploy.operations.routes import (
    START_TIMEOUT,
    mark_bad,
    or_put_away,
    place_dynamic,
    read_back,
)
from koprogo_deploy.operations.shell import container
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.trial import new_frontend_answers
from koprogo_deploy.plan.services import old_containers
from koprogo_deploy.pyinfra_adapter import commands
from koprogo_deploy.settings import SERVICES, Settings

CERTIFICATE_TIMEOUT = 120  # seconds; an ACME challenge takes 2 to 8 when all is well


@step
def traefik_binary_kept() -> Iterator[StringCommand | str]:
    """Traefik's binary stays in RAM outside its container.

    Its pages are otherwise charged to the container that first touches them: after a reboot they
    alone fill 80 MB, and Traefik answers nothing while it reads them again and again.
    """
    settings = context.current().settings
    files = binary_files(settings)
    state = stack(settings)
    image = target(state)["images"]["traefik"]
    noted = image_note(settings, image)
    found = machine_now().files
    changed = differing([*files, noted], found)
    if not changed and state.binary_unit == "active":
        host.noop("Traefik's binary is locked in memory")
        return
    if changed:
        yield StringCommand(unpack_command("/"), _stdin=archive(changed))
    yield (
        f"set -e; {settings.install_root}/bin/traefik-binary find; systemctl daemon-reload; "
        "systemctl enable -q koprogo-traefik-binary.service; "
        "systemctl restart koprogo-traefik-binary.service"
    )


@step
def services_up() -> Iterator[str]:
    """Frontend beside the old one, and Traefik if its own definition changed."""
    settings = context.current().settings
    state = stack(settings)
    steps = []
    if not state.dynamic:
        # Traefik's first start reads it.
        steps.append(place_dynamic(settings.install_root, release_directory(settings, state)))
    missing = [s for s in ("frontend", "traefik") if not as_wanted(state, s)]
    interrupts = "traefik" in missing and state.live is not None
    together = [s for s in missing if s == "frontend" or not interrupts]
    if together:
        up = bring_up(settings, state, START_TIMEOUT, *together)
        steps.append(or_put_away(settings, state, target(state), "frontend", up))
    if missing:
        note(**about(target(state), state))
    if steps:
        yield "set -e\n" + "\n".join(steps)
    if interrupts:
        # Alone, so that nothing else takes its time: until it is back nothing answers.
        up = bring_up(settings, state, START_TIMEOUT, "traefik")
        up = or_put_away(settings, state, target(state), "traefik", up)
        command = f"set -e\n{interrupt.watched(settings.domain, up)}"
        yield interrupt.timed(command, "traefik", "nothing answered")
    if not missing and not steps:
        host.noop("frontend and Traefik run as the release says")


@step
def switched() -> Iterator[str]:
    """Requests go to the release. What served before stays warm until this one is verified."""
    settings = context.current().settings
    state = stack(settings)
    manifest, directory = target(state), release_directory(settings, state)
    root = settings.install_root
    take_back.if_a_later_step_fails()
    placed = state.dynamic == manifest["dynamic"]
    if not placed or not traefik_agrees(settings, state):
        sick = [service for service in SERVICES if not as_wanted(state, service)]
        if sick and not context.planned():
            raise OperationError(
                f"not switching to release {manifest['id']}: not healthy or not as it says: "
                f"{', '.join(sick)}; run deploys/migrate.py, or see docker logs on the host"
            )
        back = read_back(settings, manifest["colours"])
        yield f"set -e\n{mark_left(root)}{place_dynamic(root, directory)}\n{back}"
    elif (going := context.going_back()) and going.left not in ("", manifest["id"], *state.marked):
        yield f"set -e\n{mark_left(root)}"
    else:
        host.noop(f"requests go to release {manifest['id']}")


def traefik_agrees(settings: Settings, found: StackState) -> bool:
    """Whether Traefik serves what its file says, asked where something is about to be removed.

    A run may have been cut between the file's rename and Traefik's own word: then Traefik may
    still send requests to what the next stage takes away.
    """
    manifest = target(found)
    doubtful = found.candidate or old_containers(found.containers, manifest["colours"])
    if not (doubtful and pyinfra_state.is_executing):
        return True
    command = f"sudo -n sh -c {shlex.quote(read_back(settings, manifest['colours']))}"
    with only_looking():
        ok, output = host.run_shell_command(StringCommand(command))
    if not ok:
        logger.warning("    %s; its file is put in place again", output.stderr_lines[0])
    return bool(ok)


def mark_left(root: str) -> str:
    """In a rollback: mark the release that is left, so that no run brings it back by itself."""
    going = context.going_back()
    if going is None or not going.left:
        return ""
    return f"{mark_bad(root, going.left, going.mark)}\n"


@step
def certificates_issued() -> Iterator[str]:
    """With ACME: both names have their certificate, or the deploy says why not.

    Traefik asks for one when it first sees a name; until then it refuses the handshake.
    """
    settings = context.current().settings
    names = (settings.domain, settings.api_domain)
    if not look(Certificates, names=names):
        yield wait_for_certificates(names)
    else:
        host.noop("both names have their certificate")


def wait_for_certificates(names: tuple[str, str]) -> str:
    """Wait until Traefik has a certificate for each name; else show what it says."""
    checks = commands.text(Certificates().command(names=names))
    return f"""
end=$(( $(date +%s) + {CERTIFICATE_TIMEOUT} ))
until [ "$({checks})" = "{len(names)}" ]; do
  if [ "$(date +%s)" -ge "$end" ]; then
    echo "no certificate for {" and ".join(names)} after {CERTIFICATE_TIMEOUT} s:" >&2
    echo "do both names point to this host, and is port 80 open to the world? Traefik says:" >&2
    docker logs --tail 10 {container("traefik")} 2>&1 | sed 's/^/    | /' >&2
    exit 1
  fi
  sleep 1
done"""


@deploy("Cut over")
def cutover_stage() -> None:
    """Proxy and frontend up, requests switched; the old colours stay warm."""
    traefik_binary_kept(name="Keep Traefik's binary in memory")
    services_up(name="Run frontend and Traefik")
    new_frontend_answers(name="Ask the new frontend for a page, unrouted")
    switched(name="Switch to the release")
    if context.current().settings.tls == "acme":
        certificates_issued(name="Have certificates for both names")
