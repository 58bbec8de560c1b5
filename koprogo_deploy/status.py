"""What serves on a host and whether all is well: how to look, and what follows. Pure."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from koprogo_deploy import backups, cut, database, direct, front, maintenance
from koprogo_deploy.data.host import DEPLOY_LOCK as LOCK
from koprogo_deploy.data.host import LOAD_LOCK, is_at_the_data
from koprogo_deploy.facts.stack import Container, StackState, not_serving, unreadable
from koprogo_deploy.front import Front
from koprogo_deploy.journal import Journal
from koprogo_deploy.load.hold import ROUTER
from koprogo_deploy.load.hold import UNIT as EXEMPTION
from koprogo_deploy.monitor.thresholds import SPACE
from koprogo_deploy.operations.shell import ENGINE, psql
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import SERVICES
from koprogo_deploy.units import megabytes
from koprogo_deploy.visible import visible

DISK_ALERT = SPACE.alert / 100
ANSWER = 20  # seconds for the database; a host without a CPU to spare needs more than one
TOO_LATE = 124  # exit code of `timeout`
# Units whose failure the journal tells, until one of them succeeds, whoever started that.
_TOLD = {"koprogo-backup.service": "backup", "koprogo-drill.service": "drill"}
_AFTER = 600  # seconds that a unit may take to its end when its failure is written down
# Files of routes that are ours; each but the load test's is told of by itself.
_ROUTES = {f"{name}.yaml" for name in ("dynamic", maintenance.BY_HAND, maintenance.RESTART)}
GOOD = ("deployed", "rolled back", "done")  # outcomes after which nobody has to look


@dataclass(frozen=True)
class Kept:
    """A release on the host: who made it and when, and why it is bad if it is."""

    id: str
    made: str
    by: str
    bad: str


@dataclass
class Now:
    """What the facts of a deploy do not hold.

    Attributes:
        clock: seconds since 1970 on the host.
        since: when `current` last moved, in the same.
        disk: where the fullest of the disks is mounted that hold system, containers and releases.
        running: who holds the deploy's lock and since when; empty if nobody does.
        replaced: what served before restores and rollbacks with data, and is still there, by name.
        applied: versions of the migrations in the database; empty where it does not answer.
        trust: what `database.trust_query` gave; None where it does not answer.
        clusters: bytes of each cluster that served before an upgrade of Postgres, by name.
        database: the application's database answers a query.
        refused: why it gave an error instead; empty where it was silent for too long.
        failed: systemd units that failed; None where systemd could not be asked.
        ended: when those of them failed whose failure the journal should tell.
        reboot: why one is pending; empty where none is known to be.
        routes: names of the files that Traefik reads its routes from.
        exempt: a load test is under way, or a timer ends what it was exempt from.
        again: how often the engine started a container of the project again by itself, by name.
        killed: processes that the kernel killed for want of memory since `since`.
    """

    clock: int = 0
    since: int = 0
    disk_size: int = 1
    disk_free: int = 0
    disk: str = "/"
    running: str = ""
    replaced: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)
    trust: dict[str, Any] | None = None
    clusters: dict[str, int] = field(default_factory=dict)
    database: bool = False
    refused: str = ""
    failed: list[str] | None = None
    ended: dict[str, int] = field(default_factory=dict)
    reboot: str = ""
    routes: list[str] = field(default_factory=list)
    exempt: bool = False
    again: dict[str, int] = field(default_factory=dict)
    killed: int = 0
    kept: list[Kept] = field(default_factory=list)


def look_command(root: str) -> str:
    """Shell command whose output `parse` reads; changes nothing."""
    return (
        f"root={shlex.quote(root)}; lock={LOCK}; within={ANSWER}; told='{' '.join(_TOLD)}'; "
        f"engine={ENGINE}; load={LOAD_LOCK}; "
        f"exempt={ROUTER}.yaml; unit={EXEMPTION}\n"
        f"asked={shlex.quote(database.applied_query())}\n"
        "said=$(mktemp 2>/dev/null) || said=/dev/null\n"
        f'database=$(printf \'%s\' "$asked" | timeout $within {psql()} 2>"$said"); code=$?\n'
        r"""
[ "$code" = 0 ] || {
  database=
  words=$(grep -E 'rror|FATAL|ERROR|PANIC' "$said" | tail -n 1)
  printf 'silent\t%s\t%s\n' "$code" "$(
    printf '%s' "${words:-$(tail -n 1 "$said")}" | tr '\t' ' ')"
}
[ "$said" = /dev/null ] || rm -f "$said"
printf 'clock\t%s\n' "$(date +%s)"
# The system's, the engine's and ours may be three: the fullest one counts.
df -PB1 / "$engine" "$root" 2>/dev/null | awk 'NR > 1 && $2 {
  free = $4 / $2; where = $6; for (i = 7; i <= NF; i++) where = where " " $i
  if (!told || free < least) { told = "disk\t" $2 "\t" $4 "\t" where; least = free }
} END { print told ? told : "disk" }'
[ -L "$root/current" ] && printf 'since\t%s\n' "$(stat -c %Y "$root/current")"
# Held for an instant, and shared: a deploy that begins meanwhile waits for it.
if [ -e "$lock" ] && ! flock -sn "$lock" true; then
  holder=$(head -n 1 "$lock.holder" 2>/dev/null | tr '\t' ' ')
  printf 'running\t%s\n' "${holder:-nobody could say who}"
fi
# All that Traefik reads there, in whatever folder.
find "$root/traefik/dynamic" ! -type d '(' -name '*.yaml' -o -name '*.yml' -o -name '*.toml' ')' \
  -printf '%P\0' 2>/dev/null | tr '\n\t\0' '??\n' | sort | sed 's/^/routes\t/'
if [ -e "$root/traefik/dynamic/$exempt" ]; then
  if { [ -e "$load" ] && ! flock -sn "$load" true; } ||
    systemctl is-active -q "$unit.timer" >/dev/null 2>&1; then printf 'exempt\tyes\n'; fi
fi
{
  for old in /var/lib/docker/volumes/koprogo_uploads/koprogo_before_*; do
    [ -d "$old" ] && printf '%s\n' "${old##*/}"
  done
  # A rollback with its data leaves a database and no uploads. One that is silent is asked once.
  [ -z "$database" ] || timeout $within docker exec koprogo-postgres-1 \
    psql -XqAt -U postgres -l 2>/dev/null | cut -d '|' -f 1
} | grep '^koprogo_before_' | sort -u | sed 's/^/replaced\t/'
[ -z "$database" ] || printf 'database\t%s\n' "$(printf %s "$database" | base64 -w 0)"
for old in /var/lib/docker/volumes/koprogo_postgres_data/koprogo_before_*; do
  [ -d "$old" ] && printf 'cluster\t%s\t%s\n' "${old##*/}" "$(du -sB1 "$old" | cut -f1)"
done
failed=$(systemctl list-units --state=failed --plain --no-legend --no-pager 2>/dev/null) &&
  printf 'failed\t%s\n' "$(printf %s "$failed" | cut -d ' ' -f 1 | tr '\n' ' ')"
for unit in $told; do
  case "$failed" in *"$unit"*) ;; *) continue ;; esac
  at=$(LC_ALL=C TZ=UTC systemctl show -P StateChangeTimestamp "$unit" 2>/dev/null) &&
    at=$(date -d "${at:-unknown}" +%s 2>/dev/null) && printf 'ended\t%s\t%s\n' "$unit" "$at"
done
# The newest kernel on the disk; a machine that brings its own from outside has none.
newest=$(ls -d /boot/vmlinuz-* 2>/dev/null | sed 's/.*vmlinuz-//' | sort -V | tail -n 1)
[ -n "$newest" ] && [ "$newest" != "$(uname -r)" ] &&
  printf 'reboot\tkernel %s is installed, and %s runs\n' "$newest" "$(uname -r)"
[ -e /run/reboot-required ] && printf 'reboot\t%s\n' \
  "$(head -n 1 /run/reboot-required | grep . || echo 'the system asks for one')"
ids=$(docker ps -aq --filter label=com.docker.compose.project=koprogo 2>/dev/null)
form='{{index .Config.Labels "com.docker.compose.service"}}={{.RestartCount}}'
[ -n "$ids" ] && docker inspect --format "$form" $ids 2>/dev/null |
  sed -n 's/^\([^=]*\)=\([0-9]*\)$/again\t\1\t\2/p'
[ -L "$root/current" ] && printf 'killed\t%s\n' "$(timeout 5 journalctl -kq --no-pager -o cat \
  -S "@$(stat -c %Y "$root/current")" 2>/dev/null | grep -c 'oom-kill:')"
for manifest in "$root"/releases/*/manifest.json; do
  [ -f "$manifest" ] || continue
  value() { sed -n "s/^ \"$1\": \"\(.*\)\",\$/\1/p" "$manifest"; }
  printf 'kept\t%s\t%s\t%s\t%s\n' "$(value id)" "$(value made)" "$(value by)" \
    "$(head -n 1 "${manifest%/*}/bad" 2>/dev/null)"
done
true"""
    )


def parse(lines: Iterable[str]) -> Now:
    """Read the output of `look_command`.

    Raises:
        Refusal: part of it has no answer: what nobody looked at is not well.
    """
    lines = list(lines)
    try:
        return _parse(lines)
    except (ValueError, IndexError, TypeError) as error:
        what = f"its answer cannot be read: {error}"
        raise Refusal("Status", [Problem("host", what, "koprogo ssh, df /, date")]) from None


def _parse(lines: Iterable[str]) -> Now:
    now = Now()
    for line in lines:
        key, *values = line.split("\t")
        match key:
            case "clock":
                now.clock = int(values[0])
            case "disk":
                now.disk_size, now.disk_free = int(values[0]), int(values[1])
                now.disk = values[2]
            case "since":
                now.since = int(values[0])
            case "running":
                now.running = values[0]
            case "replaced":
                now.replaced.append(values[0])
            case "database":
                found = database.answer(base64.b64decode(values[0]).decode())
                now.applied = list(database.parse_migrations(found.get("migrations")))
                now.trust = found["trust"]
                now.database = True
            case "silent":
                if values[0] != str(TOO_LATE):
                    now.refused = values[1].strip() or f"exit code {values[0]}"
            case "routes":
                now.routes.append(values[0])
            case "exempt":
                now.exempt = True
            case "cluster":
                now.clusters[values[0]] = int(values[1])
            case "failed":
                now.failed = values[0].split()
            case "ended":
                now.ended[values[0]] = int(values[1])
            case "reboot":
                now.reboot = values[0]
            case "again":
                now.again[values[0]] = int(values[1])
            case "killed":
                now.killed = int(values[0])
            case "kept":
                now.kept.append(Kept(*values))
            case _:
                raise ValueError(f"unexpected output of the look at the host: {line!r}")
    return now


@dataclass(frozen=True)
class Trouble:
    """Something that is not well, and what to do about it, in a line each."""

    what: str
    do: str


def front_troubles(fronts: Sequence[Front], stack: StackState, environment: str) -> list[Trouble]:
    """What is not well as seen from outside; empty when all is.

    Args:
        fronts: what each name answers.
        stack: a page that it knows of is told of elsewhere.
        environment: its name, for the commands.
    """
    told = bool(stack.maintenance) or stack.restarting
    found = []
    for each in fronts:
        if not each.problem or (each.page and told):
            continue
        do = f"curl -v https://{each.name}{each.path}; koprogo debug logs traefik -e {environment}"
        if not each.address:
            do = f"set its DNS record to the host, or public_address; dig {each.name}"
        if front.REFUSED in each.problem:
            setting = f"ca_certificate in group_data/{environment}.py"
            do += f". If a test CA or one of your own signed it: {setting}"
        found.append(Trouble(f"from outside, {each.name}: {each.problem}", do))
    do = "koprogo debug logs traefik says why it was not renewed; does port 80 answer the world?"
    return found + [Trouble(what, do) for what in front.ending(fronts, front.FAIL)]


def told_by_journal(unit: str, now: Now, journal: Journal) -> bool:
    """Whether the journal has a word of a unit's failure: then `data_troubles` judges it.

    That it failed was written down about when it did, or one that came later was made.
    """
    last = backups.newest(journal, _TOLD.get(unit, ""))
    failed = now.ended.get(unit)
    if last is None or failed is None:
        return False
    since = _seconds(last["at"]) - failed
    return since > (-_AFTER if last["outcome"] == "failed" else 0)


def host_troubles(now: Now, journal: Journal, environment: str) -> list[Trouble]:
    """What is not well with the system under the site."""
    ssh = f"koprogo ssh {environment}"
    if now.failed is None:
        do = f"{ssh}, systemctl is-system-running"
        return [Trouble("systemd does not answer, so nobody knows which units failed", do)]
    failed = [unit for unit in now.failed if not told_by_journal(unit, now, journal)]
    if not failed:
        return []
    do = f"{ssh}, systemctl status {failed[0]}; once mended: sudo systemctl reset-failed"
    return [Trouble(f"failed units of the system: {', '.join(failed)}", do)]


def problems(stack: StackState, now: Now, journal: Journal) -> list[str]:
    """What is not well, each in a line; empty when all is."""
    return [trouble.what for trouble in troubles(stack, now, journal, "production")]


def troubles(
    stack: StackState, now: Now, journal: Journal, environment: str, guarded: bool = False
) -> list[Trouble]:
    """What is not well, and what to do; empty when all is.

    Args:
        stack: releases, containers, routes.
        now: disk, and whether a deploy runs.
        journal: its chain followed.
        environment: its name, for the commands.
        guarded: the superadmin's password should be kept.
    """
    deploy = f"pyinfra inventories/{environment}.py deploys/full.py"
    ssh = f"koprogo ssh {environment}"
    found = [
        Trouble(
            f"the journal is broken: {gap}",
            f"find out who wrote to it: koprogo history {environment} shows the lines around it",
        )
        for gap in journal.broken
    ]
    if stack.current and not journal.entries and not journal.broken:
        what = f"release {stack.current['id']} counts, and the journal is empty"
        do = f"find out who took it away: koprogo history {environment} --check"
        found.append(Trouble(what, do))
    used = 1 - now.disk_free / now.disk_size
    if used > DISK_ALERT:
        room = "sudo journalctl --vacuum-size=100M, docker image ls; then a lower releases_kept"
        at = "" if now.disk == "/" else f" at {now.disk}"
        found.append(Trouble(f"the disk{at} is {used:.0%} full", f"make room: {ssh}, {room}"))
    if not stack.docker:
        what = "the Docker Engine does not answer"
        return [*found, Trouble(what, f"{ssh}, sudo journalctl -u docker -n 50; then {deploy}")]
    data = cut.found(stack, environment)
    if stack.maintenance:
        told = maintenance.told(maintenance.parse(stack.maintenance))
        do = f"to let everybody in: koprogo maintenance off {environment}"
        found.append(Trouble(told, "it goes when that ends" if data else do))
    if stack.unreadable:
        broken = unreadable()
        return [*found, Trouble(f"{broken.where} {broken.what}", broken.fix)]
    live = stack.live
    if live is None:
        return [*found, Trouble("nothing is deployed", deploy)]
    if stack.restarting and not now.running:
        what = "the page of a deploy that restarted Postgres is still up: everybody gets 503"
        found.append(Trouble(what, f"its run was cut; this takes it away: {deploy}"))
    if stack.upgrade and not now.running:
        what = "an upgrade of Postgres was cut, and its maintenance page may still be up"
        upgrade = f"pyinfra inventories/{environment}.py deploys/postgres_upgrade.py"
        found.append(Trouble(what, f"this ends it, or takes it back: {upgrade}"))
    if data and not now.running:
        what = f"{data.what} was cut: the data is in between, or not verified"
        found.append(Trouble(what, f"this ends it: {data.ends}"))
        if stack.restoring or data.kind == cut.RETURN:
            deploy = data.ends
    postgres = stack.containers.get("postgres")
    if not now.database and postgres and postgres.serving:
        what = f"the database does not answer within {ANSWER} s, though its container runs"
        if now.refused:
            what = f"the database gives an error, though its container runs: {visible(now.refused)}"
        logs = f"{ssh}, sudo docker logs --tail 50 koprogo-postgres-1"
        found.append(Trouble(what, f"{logs}; koprogo debug locks says who waits for whom"))
    if stack.dynamic != live["dynamic"]:
        what = f"Traefik's routes are not those of release {live['id']}"
        found.append(Trouble(what, f"put them back: {deploy}"))
    for name in now.routes:
        if name in _ROUTES or (name == f"{ROUTER}.yaml" and now.exempt):
            continue
        what = f"Traefik reads routes that no release has, from {visible(name)}"
        if name == f"{ROUTER}.yaml":
            what = (
                f"an address is exempt from the rate limits, and no load test is under way: {name}"
            )
        do = f"{ssh}, look at it in install_root/traefik/dynamic and remove it: it counts at once"
        found.append(Trouble(what, do))
    for service, name in container_names(live["colours"]).items():
        container = stack.containers.get(name)
        if wrong := _wrong(container, live["specs"][service]):
            logs = f"{ssh}, sudo docker logs koprogo-{name}-1; then " if container else ""
            found.append(Trouble(f"{name}: {wrong}", f"{logs}{deploy} brings it up"))
    if now.trust and not now.running and not data:
        for what in database.trust_problems(now.trust, guarded):
            do = f"find out who did that and how: koprogo debug logs, {ssh}; then {deploy}"
            found.append(Trouble(f"Postgres: {what}", do))
    newer = direct.lacking(stack, dict.fromkeys(now.applied, True))
    if newer and not now.running and not data:
        what = direct.lacks(live["id"], newer)
        found.append(Trouble(what, direct.ways_out(live["id"], environment)))
    if live is stack.candidate and not now.running:
        found.append(
            Trouble(
                f"release {live['id']} serves and does not count yet: the run was cut; "
                "run it again",
                deploy,
            )
        )
    return found


def _wrong(container: Container | None, spec: str) -> str:
    if container is None or not container.serving:
        return not_serving(container)
    return "" if container.spec == spec else "runs, and not as the release says"


def data_troubles(
    stack: StackState, now: Now, journal: Journal, environment: str, longest: Mapping[str, int]
) -> list[Trouble]:
    """What is wrong with backups and drills: the newest one failed, or is too old.

    Args:
        stack: what is deployed; without a live release there is nothing to back up.
        now: for the host's clock.
        journal: what was done.
        environment: its name, for the commands.
        longest: `backups.longest` of the settings.
    """
    live, found = stack.live, []
    again = {
        "backup": f"pyinfra inventories/{environment}.py deploys/backup.py makes one now",
        "drill": f"koprogo ssh {environment}, sudo systemctl start koprogo-drill runs it now",
    }
    if live is None:
        return []
    for kind, seconds in longest.items():
        last, done = backups.newest(journal, kind), backups.newest(journal, kind, "done")
        if last and last is not done:
            what = f"the newest {kind} ({_minute(last['at'])}) failed: {last.get('reason')}"
            found.append(Trouble(what, f"mend that; then {again[kind]}"))
        age = now.clock - _seconds(done["at"] if done else _first(journal, live))
        if age > seconds:
            since = "ever was made" if not done else f"since {_minute(done['at'])}"
            what = f"no {kind} {since}; one is due every {duration(seconds)} at the latest"
            found.append(Trouble(what, again[kind]))
    return found


def _first(journal: Journal, live: Mapping[str, Any]) -> str:
    """Since when there is something to back up, as far as is known."""
    return str(journal.runs[0]["at"] if journal.runs else live["made"])


def _seconds(moment: str) -> int:
    return int(datetime.fromisoformat(moment).timestamp())


def data(journal: Journal, now: Now) -> dict[str, Any]:
    """The newest backup and drill: outcome, when, how long ago, and what it says of itself."""
    found: dict[str, Any] = {}
    for kind in backups.KINDS:
        last = backups.newest(journal, kind)
        about = ("outcome", "at", "backup", "reason", "repository", "seconds")
        found[kind] = last and {
            **{name: last[name] for name in about if name in last},
            "age": now.clock - _seconds(last["at"]),
        }
    return found


def notes(stack: StackState, now: Now, journal: Journal) -> list[str]:
    """What somebody may want to know, though the site is well."""
    found = []
    if now.running:
        who = now.running
        found.append(f"{who} is running" if is_at_the_data(who) else f"a deploy is running: {who}")
    last = journal.runs[-1] if journal.runs else None
    if last and last["outcome"] not in GOOD:
        where = f" at {last['step']}" if last.get("step") else ""
        why = f": {last['reason']}" if last.get("reason") else ""
        found.append(
            f"the last run ({_minute(last['at'])}) ended as: {last['outcome']}{where}{why}"
        )
    if stack.candidate and stack.live is not stack.candidate and not now.running:
        found.append(f"release {stack.candidate['id']} was pushed and never served")
    if now.replaced:
        found.append(
            f"what served before a restore, or a rollback with data, is kept "
            f"({', '.join(now.replaced)}): deploys/restore.py --data backup=drop_old lets it go"
        )
    for old in stack.clusters:
        size = megabytes(now.clusters.get(old["name"], 0))
        found.append(
            f"the Postgres {old['major']} that served until {_minute(old['until'])} is kept, "
            f"{size}: deploys/postgres_upgrade.py --data upgrade=back goes back to it, "
            "--data upgrade=drop_old lets it go"
        )
    found += [
        f"line {number} of the journal was cut short while it was written"
        for number in journal.torn
    ]
    if stack.live and now.applied and not stack.migrations.get(stack.live["id"]):
        found.append(
            f"which migrations release {stack.live['id']} knows is not written on the host, so "
            "nobody can say whether it would start again on its database"
        )
    if now.reboot:
        found.append(f"a reboot is pending: {now.reboot}")
    if again := {name: times for name, times in sorted(now.again.items()) if times}:
        told = ", ".join(f"{name} {times} ×" for name, times in again.items())
        found.append(f"started again by the engine since they were made: {told}")
    if now.killed:
        found.append(
            f"the kernel killed for want of memory, {now.killed} × since the release: "
            "journalctl -k -g oom-kill says whom"
        )
    return found


def of_newest(journal: Journal, known: Sequence[str]) -> list[str]:
    """What the newest backup says that it does not hold, without what is known already."""
    last = backups.newest(journal, "backup", "done")
    said = (last or {}).get("warnings") or []
    return [f"the newest backup: {each}" for each in said if each not in known]


def _minute(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M} UTC"


def since(stack: StackState, now: Now, journal: Journal) -> dict[str, str]:
    """Since when the live release serves, by whom and why, as far as is known."""
    live = stack.live
    if live is None:
        return {}
    for run in reversed(journal.runs):
        if run.get("serves") == live["id"] and run["outcome"] in ("deployed", "rolled back"):
            return {"at": run["at"], "by": run["by"], "why": run.get("why", "")}
    moved = datetime.fromtimestamp(now.since, UTC).isoformat() if now.since else live["made"]
    return {"at": moved, "by": live["by"], "why": ""}


def report(
    stack: StackState,
    now: Now,
    journal: Journal,
    *,
    environment: str = "production",
    longest: Mapping[str, int] | None = None,
    warnings: Sequence[str] = (),
    fronts: Sequence[Front] = (),
    guarded: bool = False,
) -> dict[str, Any]:
    """Everything, as JSON has it: `advice` is what to do about each of `problems`.

    Args:
        stack: what is deployed.
        now: what its facts do not hold.
        journal: what was done.
        environment: its name, for the commands.
        longest: after how many seconds a backup and a drill are too old; None: not judged.
        warnings: what is to be said of every backup.
        fronts: what the site answers from outside.
        guarded: the superadmin's password should be kept.
    """
    live = stack.live
    services = {}
    for service in SERVICES if live else ():
        assert live is not None
        name = container_names(live["colours"])[service]
        container = stack.containers.get(name)
        services[service] = {
            "colour": live["colours"].get(service),
            "image": live["images"][service],
            "asked": live["requested"][service],
            "state": container.status if container else "missing",
            "health": container.health if container else "",
            "started": container.started if container else None,
            "up": up_seconds(container, now) if container else None,
            "wrong": _wrong(container, live["specs"][service]) or None,
        }
    wrong = front_troubles(fronts, stack, environment) if live else []
    wrong += troubles(stack, now, journal, environment, guarded)
    wrong += host_troubles(now, journal, environment)
    wrong += data_troubles(stack, now, journal, environment, longest or {})
    return {
        "well": not wrong,
        "problems": told(wrong),
        "advice": [trouble.do for trouble in wrong],
        "asked": True,
        "notes": [
            *outside_notes(fronts, wrong),
            *notes(stack, now, journal),
            *warnings,
            *of_newest(journal, warnings),
        ],
        "outside": [vars(each) for each in fronts],
        "data": data(journal, now),
        "release": live["id"] if live else None,
        "since": since(stack, now, journal),
        "services": services,
        "disk": {"size": now.disk_size, "free": now.disk_free, "at": now.disk},
        "last": journal.runs[-1] if journal.runs else None,
        "running": now.running or None,
        "kept": [vars(kept) for kept in reversed(now.kept)],
        "bad": {kept.id: kept.bad for kept in now.kept if kept.bad},
    }


def outside_notes(fronts: Sequence[Front], wrong: Sequence[Trouble]) -> list[str]:
    """What somebody may want to know of the site from outside, without what is wrong with it."""
    soon = [what for what in front.ending(fronts, front.WARN) if what not in told(wrong)]
    return soon + front.nowhere(fronts)


def told(troubles: Iterable[Trouble]) -> list[str]:
    """What each says."""
    return [trouble.what for trouble in troubles]


def unreachable(why: str, fronts: Sequence[Front], environment: str) -> dict[str, Any]:
    """The report where the host itself cannot be asked: never well.

    Args:
        why: what SSH, or the host's answer, says.
        fronts: what the site answers from outside.
        environment: its name, for the commands.
    """
    silent = Trouble(f"the host cannot be asked: {why}", f"koprogo ssh {environment} true")
    wrong = [silent, *front_troubles(fronts, StackState(), environment)]
    return {
        "well": False,
        "problems": told(wrong),
        "advice": [trouble.do for trouble in wrong],
        "notes": outside_notes(fronts, wrong),
        "outside": [vars(each) for each in fronts],
        "release": None,
        "asked": False,
    }


def up_seconds(container: Container, now: Now) -> int | None:
    """For how long a container runs; None if it does not."""
    if container.status != "running":
        return None
    # Nanoseconds are more than datetime reads.
    started = datetime.fromisoformat(container.started[:19] + "+00:00")
    return max(0, now.clock - int(started.timestamp()))


def duration(seconds: float) -> str:
    """A length of time in its two largest units: `3 d 4 h`, `12 min`, `40 s`."""
    days, rest = divmod(int(seconds), 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{rest} s"
