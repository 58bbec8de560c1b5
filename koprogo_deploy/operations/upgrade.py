"""Upgrade: a major version of Postgres up, by dump and restore, and the way back.

What would go wrong is looked for while the site serves: the whole upgrade is rehearsed on a copy.
Then, under the maintenance page, `koprogo-data` has the clusters change places; the page stays
until the smoke tests passed, so that nothing that was written is lost when all is put back.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pyinfra import host, logger, state
from pyinfra.api import FunctionCommand, StringCommand, deploy
from pyinfra.api.exceptions import OperationError

from koprogo_deploy import maintenance, major, render, smoke
from koprogo_deploy.data.host import UPGRADE
from koprogo_deploy.data.upgrade import SERVING
from koprogo_deploy.facts.stack import StackState
from koprogo_deploy.maintenance import Maintenance
from koprogo_deploy.operations import context, planning
from koprogo_deploy.operations.backup import results, told_command
from koprogo_deploy.operations.looks import machine_now
from koprogo_deploy.operations.migrate import backend_migrated, stack, target
from koprogo_deploy.operations.record import note
from koprogo_deploy.operations.release import release_pushed, secrets_pushed
from koprogo_deploy.operations.shell import container
from koprogo_deploy.operations.step import step
from koprogo_deploy.operations.undo import undo_by
from koprogo_deploy.settings import Settings, network
from koprogo_deploy.units import megabytes

BACK, BACK_ANYWAY, DROP_OLD = "back", "back_anyway", "drop_old"  # of --data upgrade=
EXPECTED = (
    "Everybody gets 503 with Retry-After for some 10 s, longer with a large database, and until "
    "requests that are under way have ended; none is lost"
)
RETRY = 10  # seconds, Retry-After of the page

UP, VERIFY, NOTHING = "up", "verify", "nothing"


@dataclass
class Doing:
    """What this run does.

    Attributes:
        kind: `up`; `back`; `verify` what an earlier run brought about; `drop_old`; `nothing`.
        version: Postgres' major version that serves in the end.
        began: when the page went up, by the clock of `time.monotonic`; 0: it did not.
        own_page: the page is this run's, or of an earlier one; else somebody put one up by hand.
        other: group data asks for another version than the one that serves in the end.
    """

    kind: str
    version: int
    began: float = 0.0
    own_page: bool = True
    other: bool = False


_doing: dict[str, Doing] = {}


def doing() -> Doing:
    """What was decided for the current host; nothing, before an earlier run's end is known."""
    return _doing.get(host.name) or Doing(NOTHING, 0)


# --- commands ------------------------------------------------------------------------------------


def program(settings: Settings, words: str) -> str:
    """Command line of `koprogo-data upgrade`."""
    return f"{settings.install_root}/bin/koprogo-data upgrade {words}"


def page(settings: Settings, passing: tuple[str, ...]) -> Maintenance:
    """The maintenance page: it passes whoever runs the smoke tests."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    # A deploy that runs on its own target comes to Traefik by the edge network's gateway.
    own = passing or (network(render.gateway(settings.edge_network)),)
    return Maintenance(now, context.who(), maintenance.UPGRADING, RETRY, own)


def is_ours(found: StackState) -> bool:
    """Whether the maintenance page is one of an upgrade, or there is none."""
    return not found.maintenance or maintenance.parse(found.maintenance).message == (
        maintenance.UPGRADING
    )


def page_off(settings: Settings, own_page: bool) -> str:
    """Shell commands that take the page away, unless clusters still change places."""
    if not own_page:
        return ":"
    waiting = f"{settings.install_root}/{UPGRADE}"
    return f"[ -e {waiting} ] || (\n{maintenance.off_command(settings)}\n)"


def prepare_script(settings: Settings, release: str) -> str:
    """Rehearse; a release that does not get on with the data is not left behind as candidate."""
    command = program(settings, f"prepare --release {shlex.quote(release)}")
    return f"{command} || {{ rm -f {settings.install_root}/candidate; exit 1; }}"


def change_script(
    settings: Settings, words: str, wanted: Maintenance | None, backends: list[str]
) -> str:
    """Shell commands that have the clusters change places while everybody gets the page.

    First the page that lets the smoke tests pass, whose file comes on standard input; above it,
    for as long as nothing serves, one that lets nobody pass, which waits for what is under way.
    The first one stays, unless all was put back. A `koprogo-data` that was killed is put back here;
    where this shell is killed too, the next run does it.

    Args:
        settings: for paths, and Traefik's address.
        words: of `koprogo-data upgrade`.
        wanted: the page; None where somebody has one up already.
        backends: names of the containers whose requests are waited for.
    """
    on = f"(\n{maintenance.on_command(settings, wanted)}\n) || exit 1" if wanted else ":"
    now = datetime.now(UTC)
    changed = f"{program(settings, words)} >&3"
    during = maintenance.during(settings, changed, context.who(), now, backends)
    waiting = f"{settings.install_root}/{UPGRADE}"
    return f"""trap '' HUP PIPE
exec 3>&1
{on}
{during} >/dev/null
failed=$?
if [ "$failed" != 0 ]; then
  [ ! -e {waiting} ] || {program(settings, "resume")} >/dev/null
  [ -e {waiting} ] || rm -f {settings.install_root}/candidate
  {page_off(settings, wanted is not None)}
fi
exit $failed"""


def undo_script(settings: Settings, own_page: bool) -> str:
    """Shell commands that put all back, and let everybody in again."""
    return (
        f"{program(settings, 'undo')} || exit 1\n"
        f"rm -f {settings.install_root}/candidate\n{page_off(settings, own_page)}"
    )


# --- what is to be done --------------------------------------------------------------------------


@step
def chosen() -> Iterator[FunctionCommand]:
    """What this run does: up, back, or the end of what an earlier run began; else refuse."""
    settings = context.current().settings
    found = stack(settings)
    if found.upgrade:
        yield from _ended(settings, found)
        if host.name in _doing:
            return
        found = stack(settings)
    live, asked = found.live, settings.upgrade
    if live is None or not (there := machine_now().postgres_version):
        raise OperationError("nothing is deployed here, so there is no data to bring along")
    if asked == DROP_OLD:
        _doing[host.name] = Doing(DROP_OLD, int(there))
        host.noop("what served before is let go")
        return
    if asked in (BACK, BACK_ANYWAY):
        _back(settings, found)
    elif int(there) < settings.postgres_major:
        _doing[host.name] = Doing(UP, settings.postgres_major, own_page=is_ours(found))
    elif int(there) == settings.postgres_major:
        _doing[host.name] = Doing(NOTHING, int(there))
    else:
        raise OperationError("; ".join(major.other(settings, there) or ()))
    _postgres_alone(live)
    do = doing()
    if do.kind == NOTHING:
        host.noop(f"the data is of Postgres {there} already")
    else:
        logger.info("    Postgres %s -> %s. %s", there, do.version, EXPECTED)
        host.noop(f"from Postgres {there} to {do.version}")


def _postgres_alone(live: dict[str, Any]) -> None:
    """Refuse to change anything besides Postgres: all of it is put back by putting back that."""
    wanted = planning.decide(seeds=False, upgrading=True).seen.wanted
    if others := major.beside_postgres(live, wanted.release):
        raise OperationError(
            f"an upgrade changes Postgres alone, and group data changes {others} as well. Write "
            "postgres_image and postgres_major of before, deploy the rest (deploys/full.py), then "
            "this"
        )
    if doing().kind == NOTHING and wanted.exists != "current":
        raise OperationError(
            f"the data is of Postgres {doing().version} already; what else changed in group data "
            "is brought by deploys/full.py"
        )


def _back(settings: Settings, found: StackState) -> None:
    """To the newest cluster that served before; refused where that loses something unsaid."""
    if not found.clusters:
        raise OperationError(
            "no cluster of before an upgrade is kept here, so there is nothing to go back to; an "
            "older Postgres reads neither the data nor the dumps of a newer one"
        )
    ok, output = host.run_shell_command(
        StringCommand(f"sudo -n sh -c {shlex.quote(program(settings, 'counted'))}")
    )
    if not ok:
        raise OperationError(output.stderr.strip() or f"no answer from {host.name}")
    counted = json.loads(output.stdout_lines[-1])
    refused = major.refuses_back(settings, counted)
    if refused and settings.upgrade != BACK_ANYWAY:
        raise OperationError(refused)
    logger.warning("    %s", major.told_since(counted["since"], counted["until"]))
    kept = found.clusters[-1]
    if other := kept["major"] != settings.postgres_major:
        context.instead(**major.deployed_with(kept))
    _doing[host.name] = Doing(BACK, kept["major"], own_page=is_ours(found), other=other)


def _ended(settings: Settings, found: StackState) -> Iterator[FunctionCommand]:
    """What an earlier run left: taken back if it was in the midst, else verified here."""
    cut, own_page = found.upgrade or {}, is_ours(found)
    asked = settings.upgrade
    resume = program(settings, "resume")
    yield told_command("resume", f"{resume} || exit 1\n{page_off(settings, own_page)}")
    was = results.get("resume", {}).get("was")
    if was != SERVING:
        logger.info("    an earlier run was cut; it was taken back: %s serves", cut["from"])
        return
    if asked in (BACK, BACK_ANYWAY) and not cut["back"]:
        yield told_command("undo", undo_script(settings, own_page))
        since = results.get("undo", {}).get("since", {})
        logger.info("    an earlier run was cut before it was verified; it was taken back")
        if since:
            logger.warning("    %s", major.told_since(since, cut["kept"]["until"]))
        _doing[host.name] = Doing(NOTHING, cut["kept"]["major"])
        context.instead(**major.deployed_with(cut["kept"]))
        return
    candidate = found.candidate
    if asked == DROP_OLD or candidate is None or candidate["id"] != cut["release"]:
        raise OperationError(
            f"an earlier run was cut after release {cut['release']} had its Postgres, and is not "
            f"verified: run {major.command(settings)} alone, or with --data upgrade={BACK}"
        )
    version = int(candidate["values"]["postgres_major"])
    if other := version != settings.postgres_major:
        kept = {"requested": candidate["requested"]["postgres"]}
        kept |= {"image": candidate["images"]["postgres"], "major": version}
        context.instead(**major.deployed_with(kept))
    wanted = planning.decide(seeds=False, upgrading=True).seen.wanted
    if wanted.exists != "candidate":
        raise OperationError(
            f"an earlier run was cut, and group data asks for another release than its "
            f"({cut['release']}) since: write what it had, or give --data upgrade={BACK}"
        )
    logger.info("    an earlier run was cut before it was verified; this one ends it")
    _doing[host.name] = Doing(VERIFY, version, own_page=own_page, other=other)


# --- the upgrade ---------------------------------------------------------------------------------


@step
def rehearsed() -> Iterator[FunctionCommand]:
    """The data goes into a scratch server of the new version, and every table is compared."""
    if doing().kind != UP:
        host.noop("nothing to rehearse")
        return
    settings = context.current().settings
    yield told_command("prepare", prepare_script(settings, target(stack(settings))["id"]))
    if made := results.get("prepare"):
        logger.info(
            "    on a copy in Postgres %s: %s tables (%s rows, %s) and all roles are the same; "
            "%.0f s, of which %.1f s the copy",
            *(made["to"], made["tables"], made["rows"], megabytes(made["bytes"])),
            *(made["seconds"], made["copied"]),
        )
        note(rehearsed=made)


@step
def changed_over() -> Iterator[FunctionCommand]:
    """Under the maintenance page the clusters change places; if that fails, all is put back."""
    do = doing()
    if do.kind not in (UP, BACK):
        host.noop("no cluster changes its place")
        return
    settings = context.current().settings
    found = stack(settings)
    wanted = page(settings, context.own_addresses()) if do.own_page else None
    words = f"change --release {shlex.quote(target(found)['id'])}"
    if do.kind == BACK:
        words += " --back" + (" --anyway" if settings.upgrade == BACK_ANYWAY else "")
    backends = [container(name) for name in found.containers if name.startswith("backend-")]
    do.began = time.monotonic()
    script = change_script(settings, words, wanted, backends)
    yield told_command("change", script, maintenance.render(wanted) if wanted else "")
    if made := results.get("change"):
        steps = ", ".join(f"{name} {took} s" for name, took in made.get("steps", {}).items())
        logger.info(
            "    Postgres %s serves, behind the page; the API was away for %.1f s%s",
            *(made["to"], made["seconds"], f" ({steps})" if steps else ""),
        )
        note(upgrade=made)
        told = f"Postgres {made['from']}"
        undo_by(f"sudo -n sh -c {shlex.quote(undo_script(settings, do.own_page))}", told)


@step
def verified() -> Iterator[StringCommand]:
    """The smoke tests pass by the page. If one fails, the cluster of before serves again."""
    do = doing()
    if not state.is_executing or do.kind not in (UP, BACK, VERIFY):
        return
    settings = context.current().settings
    if do.kind == VERIFY:
        if not stack(settings).maintenance:
            logger.warning("    the page is off already: what fails is not put back by itself")
        else:
            undo = undo_script(settings, do.own_page)
            undo_by(f"sudo -n sh -c {shlex.quote(undo)}", "what served before")
        if do.own_page and stack(settings).maintenance:
            wanted = page(settings, context.own_addresses())  # this machine may be another one
            yield StringCommand(
                maintenance.on_command(settings, wanted), _stdin=maintenance.render(wanted)
            )
    overrides = context.smoke_overrides()
    outcome = smoke.run(settings.environment, overrides=overrides, verifying=True)
    for line in outcome.output.splitlines():
        logger.info("    %s", line)
    note(smoke=outcome.summary)
    if outcome.of_the_host:
        logger.error("    of the host, and no fault of Postgres: %s", outcome.failures)
    elif not outcome.passed:
        raise OperationError(
            f"the smoke tests fail on Postgres {do.version}: {outcome.failures}. They are above; "
            f"what it logged: koprogo ssh {settings.environment}, docker logs koprogo-postgres-1"
        )
    host.noop(f"the smoke tests pass on Postgres {do.version}")


@step
def opened() -> Iterator[FunctionCommand]:
    """Everybody is let in again; the cluster of before stays until it is told to go."""
    do = doing()
    if not state.is_executing or do.kind not in (UP, BACK, VERIFY):
        return
    settings = context.current().settings
    script = f"{program(settings, 'done')} || exit 1\n{page_off(settings, do.own_page)}"
    yield told_command("done", script)
    kept = results.get("done")
    if not kept:
        return
    undo_by("", "")
    run = major.command(settings)
    if do.began:
        away = round(time.monotonic() - do.began, 1)
        note(upgrade={**results.get("change", {}), "page": away})
        logger.info("    the page was up for %.1f s", away)
    logger.info("    Postgres %s is kept, %s:", kept["major"], megabytes(kept["bytes"]))
    logger.info("      back to it     %s --data upgrade=%s", run, BACK)
    logger.info("      let it go      %s --data upgrade=%s", run, DROP_OLD)
    if do.other:
        logger.warning(
            "    group data has to say so as well: postgres_image and postgres_major = %s; until "
            "then deploys/full.py is refused",
            do.version,
        )


@step
def dropped() -> Iterator[FunctionCommand]:
    """Clusters that served before go."""
    if doing().kind != DROP_OLD:
        host.noop("nothing is let go")
        return
    yield told_command("drop", program(context.current().settings, "drop"))
    if gone := results.get("drop"):
        names = ", ".join(gone["dropped"]) or "nothing"
        logger.info("    dropped: %s; %s freed", names, megabytes(gone["bytes"]))
        note(dropped=gone)


def drops() -> bool:
    """Whether this run only lets go what served before; no release is worked on."""
    return context.current().settings.upgrade == DROP_OLD


@deploy("Upgrade")
def choose_stage() -> None:
    """What is to be done, and whether it can be."""
    chosen(name="Decide what is to be done")


@deploy("Release")
def postgres_release_stage() -> None:
    """The release that differs in Postgres alone is on the host, and its image."""
    if not drops():
        secrets_pushed(name="Push the secrets")
        release_pushed(name="Push the release")


@deploy("Upgrade")
def upgrade_stage() -> None:
    """Rehearsed on a copy, changed over under the page, verified; or the old ones let go."""
    if drops():
        dropped(name="Let go what served before")
        return
    rehearsed(name="Rehearse on a copy, while the site serves")
    changed_over(name="Change over, under the maintenance page")
    backend_migrated(name="Bring back the guard and the observer, if they are not there")
    verified(name="Run the smoke tests")
    opened(name="Let everybody in")
