"""From what was seen to the plan. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from koprogo_deploy import accounts, budget, database, machine, maintenance
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.facts.stack import StackState, not_serving
from koprogo_deploy.files import differing
from koprogo_deploy.plan import expected, text
from koprogo_deploy.plan.host import data_problems
from koprogo_deploy.plan.model import (
    FileChange,
    HostChanges,
    Images,
    Interruption,
    Memory,
    Migrations,
    Plan,
    Release,
    Service,
)
from koprogo_deploy.plan.seen import Seen, facets, host_files, readable
from koprogo_deploy.plan.services import changes, old_containers
from koprogo_deploy.plan.wanted import dynamic_hash, refused
from koprogo_deploy.problems import Problem
from koprogo_deploy.rehearsal import tables
from koprogo_deploy.render import container_names, secret_directories, short_hash
from koprogo_deploy.settings import SERVICES, SWITCHED, Settings
from koprogo_deploy.units import megabytes, parse_size

# What cannot be switched, and what answers meanwhile.
WHY = {
    "postgres": "Postgres is recreated in place: two servers cannot have one data directory",
    "traefik": "Traefik is recreated in place: it alone has ports 80 and 443",
}


@dataclass(frozen=True)
class Planner:
    """Who plans, when, and from which commit."""

    made: datetime
    by: str
    revision: str


def make(
    environment: Environment,
    sets: Mapping[str, Mapping[str, str]],
    seen: Seen,
    planner: Planner,
    upgrading: bool = False,
    refusals: Sequence[Problem] = (),
) -> Plan:
    """Decide everything that a deploy does.

    Args:
        environment: what is wanted.
        sets: secret files by service.
        seen: the host.
        planner: for the record.
        upgrading: it brings the data to another major version of Postgres.
        refusals: what else a deploy's first look at the host stops at.
    """
    settings = environment.settings
    stack, release, journal = seen.stack, seen.wanted.release, seen.details.journal
    live = stack.live
    hide = text.mask(sets)
    services = tuple(
        each.model_copy(update={"reasons": tuple(map(hide, each.reasons))})
        for each in services_of(settings, seen)
    )
    stops = stops_of(seen)
    on_machine = machine_changes(settings, seen)
    kind = kind_of(seen, services, on_machine, stops)
    images = _images(seen, kind)
    migrations = _migrations(seen, services)
    memory = memory_of(settings, seen, services)
    problems = [migrations.refusal, memory_problem(memory)]
    data = data_problems(settings, seen.machine, stack, upgrading)
    problems += [f"{each.where}: {each.what}; {each.fix}" for each in (*refusals, *data)]
    if seen.seeding and seen.seeding.action == "refuse":
        problems.append(seen.seeding.message)
    if not settings.retry_bad_release:
        problems.append(refused(stack, seen.wanted))
    return Plan(
        environment=settings.environment,
        host=environment.host,
        made=planner.made.isoformat(timespec="seconds"),
        by=planner.by,
        revision=planner.revision,
        settings=settings.hash,
        live=live["id"] if live else None,
        live_since=live["made"] if live else "",
        services=services,
        stops=stops,
        routes=stack.dynamic != dynamic_hash(release),
        unfinished=stack.candidate is not None,
        files=(
            *_host_files(settings, seen, hide),
            *_secret_files(sets, seen),
            *_release_files(seen, hide),
        ),
        machine=on_machine,
        images=images,
        migrations=migrations,
        seed=seen.seeding.message if seen.seeding and seen.seeding.changes else "",
        memory=memory,
        interruptions=_interruptions(seen, services, journal),
        duration=expected.duration(journal, kind),
        release=Release(
            exists=seen.wanted.exists,
            hash=release.hash,
            content=seen.wanted.content,
            files={path: short_hash(content) for path, content in sorted(release.files.items())},
            dynamic=dynamic_hash(release),
            specs=release.specs,
            colours=release.colours,
            requested={service: settings.image(service) for service in SERVICES},
            images=release.images,
            secrets=secret_directories(sets),
        ),
        problems=tuple(filter(None, problems)),
        warnings=tuple(accounts.warnings(seen.machine.other_logins)),
        down=down(stack),
        seen=facets(seen),
    )


# --- services --------------------------------------------------------------------------------


def services_of(settings: Settings, seen: Seen) -> tuple[Service, ...]:
    """What happens to each service, and why."""
    requested = {service: settings.image(service) for service in SERVICES}
    stack = seen.stack
    return tuple(changes(stack.live, seen.wanted.release, requested, stack.containers))


def stops_of(seen: Seen) -> tuple[str, ...]:
    """Containers of the project that the wanted release does not have."""
    return tuple(old_containers(seen.stack.containers, seen.wanted.release.colours))


def kind_of(
    seen: Seen, services: Sequence[Service], on_machine: HostChanges, stops: Sequence[str]
) -> tuple[str, ...]:
    """What makes a run like others; empty where there is nothing to do."""
    stack, wanted = seen.stack, seen.wanted
    live = stack.live
    if live is None:
        return ("first",)
    routes = stack.dynamic != dynamic_hash(wanted.release)
    left = set(stops) - set(container_names(live["colours"]).values())
    tags = {
        "new image": bool(_new_images(seen)),
        "machine": bool(on_machine.packages or on_machine.does or on_machine.files),
        "release": wanted.exists != "current",
        "routes": routes,
        "unfinished": stack.candidate is not None or bool(left),
        "migrations": bool(_pending(seen)),
        "seed": bool(seen.seeding and seen.seeding.changes),
    }
    tags |= {f"{s.action} {s.name}": s.action != "keep" for s in services}
    return tuple(sorted(tag for tag, true in tags.items() if true))


def _new_images(seen: Seen) -> list[str]:
    old = seen.stack.live["images"] if seen.stack.live else {}
    new = seen.wanted.release.images
    return [service for service in SERVICES if new[service] != old.get(service)]


# --- the machine -----------------------------------------------------------------------------

_RESTARTS = {
    "/etc/systemd/journald.conf.d/60-koprogo.conf": "systemd-journald restarts",
    "/etc/ssh/sshd_config.d/00-koprogo.conf": "sshd reads its configuration again; sessions go on",
    machine.BINARY_UNIT: "Traefik's binary is locked in memory anew",
}


def machine_changes(settings: Settings, seen: Seen) -> HostChanges:
    """Packages, files and other steps on the machine."""
    found, stack = seen.machine, seen.stack
    engine = list(machine.ENGINE_PACKAGES.get((found.os, found.os_version), ()))
    missing = [p for p in (*machine.packages(settings), *engine) if p not in found.packages]
    files = host_files(settings, seen.wanted, seen.secret_files)
    changed = [file.path for file in differing(files, found.files)]
    ours = {file.path for file in files}
    does = [f"{path} is removed" for path in sorted(found.matches - ours)]
    does += _accounts(settings, found)
    if found.sysctl != settings.sysctl:
        wrong = (f"{k} = {v}" for k, v in settings.sysctl.items() if found.sysctl.get(k) != v)
        does.append(f"kernel parameters are set: {', '.join(wrong)}")
    if settings.swap and machine.SWAP_FILE not in found.swap.split():
        does.append(f"a swap file of {megabytes(settings.swap)} is made")
    if found.timezone != settings.timezone:
        does.append(f"time zone: {found.timezone or 'none'} -> {settings.timezone}")
    does += [_RESTARTS[path] for path in changed if path in _RESTARTS]
    installed = not any(package in missing for package in engine)
    if installed and machine.daemon_file().path in changed:
        does.append("Docker Engine restarts; containers go on meanwhile (live-restore)")
    elif installed and found.units.get("docker.service") != "active enabled":
        does.append("Docker Engine is started")
    elif stack.live and stack.binary_unit != "active" and machine.BINARY_UNIT not in changed:
        does.append(_RESTARTS[machine.BINARY_UNIT])
    needless = set(machine.backup_secret_paths(settings)) - ours
    does += [f"{path} is removed" for path in sorted(needless & set(found.files))]
    units = {file.path for file in machine.backup_units(settings)}
    timers = any(found.units.get(timer) != "active enabled" for timer in machine.TIMERS)
    if units & set(changed) or timers:
        does.append("backups and drills are scheduled")
    wanted = [settings.sysctl, settings.swap, settings.timezone, sorted(settings.admin_users)]
    states = {file.path: file.state for file in files}
    return HostChanges(
        packages=tuple(missing),
        files=tuple(changed),
        does=tuple(does),
        wanted=short_hash(json.dumps([machine.packages(settings), states, wanted], sort_keys=True)),
    )


def _accounts(settings: Settings, found: HostState) -> list[str]:
    wanted, there = settings.admin_users, found.accounts
    does = [f"account {name} is made" for name in accounts.new(wanted, there)]
    does += [f"account {name} is managed" for name in accounts.joining(wanted, there)]
    does += [f"account {name} is unlocked" for name in accounts.returning(wanted, there)]
    return does + [
        f"account {name} is locked, its sessions and jobs end"
        for name in accounts.leaving(wanted, there)
    ]


_LONG = 40  # lines of a new file from which on only their number is shown


# --- files -----------------------------------------------------------------------------------


def _host_files(settings: Settings, seen: Seen, hide: text.Mask) -> list[FileChange]:
    found = []
    for file in differing(host_files(settings, seen.wanted, seen.secret_files), seen.machine.files):
        there = file.path in seen.machine.files
        old = seen.details.files.get(file.path, "")
        diff = text.unified(old, file.content, hide) if readable(file) else ""
        if not there and file.path.endswith(".py"):
            diff = ""  # a program of ours, as it stands in this checkout
        elif not there and diff.count("\n") > _LONG:
            diff = f"{file.content.count(chr(10))} lines"
        if there and not diff:
            diff = f"mode and owner: {seen.machine.files[file.path].partition(' ')[2]} -> "
            diff += file.state.partition(" ")[2]
        found.append(
            FileChange(
                path=file.path, where="host", action="changed" if there else "new", diff=diff
            )
        )
    return found


def _secret_files(sets: Mapping[str, Mapping[str, str]], seen: Seen) -> list[FileChange]:
    """Their contents are never shown; which of a service's files changed is not known here."""
    old = (seen.stack.live or {}).get("definitions", {})
    found = []
    for service, directory in secret_directories(sets).items():
        if directory in seen.stack.secrets:
            continue
        before = {p.rpartition("/")[2] for p in old.get(service, {}).get("secrets", ())}
        now = set(sets[service])
        parts = {
            "new": now - before,
            "without": before - now,
            "changed, one or more of" if len(before & now) > 1 else "changed": before & now,
        }
        told = "; ".join(f"{what}: {', '.join(sorted(n))}" for what, n in parts.items() if n)
        action = _action(bool(before), True)
        found.append(
            FileChange(path=f"secrets/{service}", where="secrets", action=action, diff=told)
        )
    return found


def _release_files(seen: Seen, hide: text.Mask) -> list[FileChange]:
    live, release = seen.stack.live, seen.wanted.release
    if live is not None and live["hash"] == release.hash:
        return []
    old = {p: without_id(c, live) for p, c in seen.details.release.items()}
    found = []
    for path in sorted({*old, *release.files}):
        before, after = old.get(path), release.files.get(path)
        if before == after:
            continue
        found.append(
            FileChange(
                path=path,
                where="release",
                action=_action(before is not None, after is not None),
                # A first release is new from its first line to its last.
                diff=text.unified(before or "", after or "", hide) if before else "",
            )
        )
    return found


def _action(before: bool, after: bool) -> Literal["new", "changed", "removed"]:
    return "new" if not before else "changed" if after else "removed"


def without_id(content: str, live: Mapping[str, Any] | None) -> str:
    """A release's file without the id in its heading, which is another one each time."""
    return content.replace(f"release {live['id']}.", "release .", 1) if live else content


# --- images, migrations ----------------------------------------------------------------------


def _images(seen: Seen, kind: Sequence[str]) -> Images:
    images = seen.wanted.release.images
    if not kind:
        return Images()
    there = seen.details.images
    return Images(
        pull=tuple(s for s in SERVICES if images[s] not in there),
        unresolved=seen.unresolved,
    )


def _image_migrations(seen: Seen) -> set[str] | None:
    """Migrations of the wanted backend's image; None where it is not on the host yet."""
    backend = seen.wanted.release.images["backend"]
    for manifest in (seen.stack.candidate, seen.stack.current):
        if manifest and manifest["images"]["backend"] == backend:
            files: Sequence[str] | None = seen.stack.migrations.get(manifest["id"])
            if files:
                return database.versions(files)
    files = seen.details.migrations
    return database.versions(files) if files else None


def _pending(seen: Seen) -> list[str]:
    image = _image_migrations(seen)
    return sorted((image or set()) - set(seen.applied or ()))


def _migrations(seen: Seen, services: Sequence[Service]) -> Migrations:
    image, applied = _image_migrations(seen), seen.applied
    refusal = ""
    if image is not None and applied and (why := database.cannot_start(applied, image)):
        refusal = f"the backend cannot start: {why}"
    pending = None if image is None else tuple(_pending(seen))
    return Migrations(
        pending=pending if applied is not None else None,
        applied=None if applied is None else len(applied),
        refusal=refusal,
        # A database without data has nothing to rehearse.
        rehearsed=bool(applied) and pending != (),
        earlier=_rehearsed_earlier(seen),
    )


def _rehearsed_earlier(seen: Seen) -> str:
    backend = seen.wanted.release.images["backend"]
    for entry in reversed(seen.details.journal):
        rehearsal = entry.get("rehearsal")
        if not rehearsal or (entry.get("images") or {}).get("backend") != backend:
            continue
        locks = tables(rehearsal.get("locks") or ())
        longest = max((float(lock["seconds"]) for lock in locks), default=0.0)
        took = sum(float(s) for s in (rehearsal.get("migrations") or {}).values())
        passed = "passed" if rehearsal.get("passed") else "failed"
        table = next((lock["table"] for lock in locks if float(lock["seconds"]) == longest), "")
        held = f", {table} locked for {longest:g} s" if table else ", no long lock"
        if rehearsal.get("locks") is None:
            held = ", its locks were not watched"
        return f"the rehearsal of {str(entry.get('at', ''))[:16]} {passed}: {took:.1f} s{held}"
    return ""


# --- memory ----------------------------------------------------------------------------------


def memory_of(settings: Settings, seen: Seen, services: Sequence[Service]) -> Memory:
    """What may be in use before, during and after: limits of containers, and the reserves."""
    stack = seen.stack
    reserves = sum(line.size for line in budget.budget(settings).lines if line.kind == "reserve")
    before = {
        name: _limit(settings, seen, name)
        for name, found in stack.containers.items()
        if found.status == "running"
    }
    wanted = {each.container: settings.memory(each.name) for each in services}
    during = {name: max(before.get(name, 0), wanted.get(name, 0)) for name in {*before, *wanted}}
    return Memory(
        before=sum(before.values()) + reserves,
        during=sum(during.values()) + reserves,
        after=sum(wanted.values()) + reserves,
        ram=seen.machine.memory,
    )


def _limit(settings: Settings, seen: Seen, container: str) -> int:
    for manifest in (seen.stack.current, seen.stack.candidate):
        names = container_names(manifest["colours"]) if manifest else {}
        for service, name in names.items():
            if manifest and name == container:
                return parse_size(manifest["definitions"][service]["mem_limit"])
    service = container.partition("-")[0]  # the colour of an older release
    return settings.memory(service) if service in SERVICES else 0


def memory_problem(memory: Memory) -> str:
    """Why the memory does not suffice while both colours run; empty if it does."""
    if memory.during <= memory.ram:
        return ""
    return (
        f"while the old and the new containers run, {megabytes(memory.during)} may be in use, and "
        f"the machine has {megabytes(memory.ram)}: lower the limit in two steps, or stop for a "
        "moment what is not needed"
    )


# --- requests --------------------------------------------------------------------------------


def down(stack: StackState) -> tuple[str, ...]:
    """What of the serving release answers nobody now, whatever a deploy does."""
    if stack.live is None:
        return ()
    found = [maintenance.told(maintenance.parse(stack.maintenance))] if stack.maintenance else []
    for name in container_names(stack.live["colours"]).values():
        if why := not_serving(stack.containers.get(name)):
            found.append(f"{name} {why}")
    return tuple(found)


# --- interruptions ---------------------------------------------------------------------------


def _interruptions(
    seen: Seen, services: Sequence[Service], journal: Sequence[Mapping[str, Any]]
) -> tuple[Interruption, ...]:
    if seen.stack.live is None:
        return ()
    found = []
    for each in services:
        if each.name in SWITCHED or each.action == "keep":
            continue
        seconds, runs = expected.interrupted(journal, each.name)
        page = each.name == "postgres" and _proxy_serves(seen)
        found.append(
            Interruption(
                service=each.name, why=WHY[each.name], page=page, seconds=seconds, runs=runs
            )
        )
    return tuple(found)


def _proxy_serves(seen: Seen) -> bool:
    traefik = seen.stack.containers.get("traefik")
    return bool(traefik and traefik.serving)
