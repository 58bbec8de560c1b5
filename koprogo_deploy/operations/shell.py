"""Shell fragments that more than one stage uses. Pure text; nothing is run here."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from koprogo_deploy.database import CATALOG, OBSERVER, OWNER, SESSION
from koprogo_deploy.units import KB, MB

PROJECT = "koprogo"
ENGINE = "/var/lib/docker"
LITTLE = 100 * MB  # free on a disk, and it may be the reason of what went wrong
DRAIN = 30  # seconds for the requests that a container is at


def container(service: str) -> str:
    """The container's name of a Compose service of ours."""
    return f"{PROJECT}-{service}-1"


def compose_up(release_directory: str, *services: str, fresh: bool = False) -> str:
    """Start or recreate these services of a release, and no other.

    Args:
        release_directory: where its compose.yaml lies.
        services: Compose's names of them.
        fresh: recreate the containers even if their definitions are right: they do not serve.
    """
    # The other colour is no orphan to be warned of.
    return (
        "COMPOSE_IGNORE_ORPHANS=true docker compose --progress quiet "
        f"-f {shlex.quote(release_directory)}/compose.yaml "
        f"up -d --no-deps --no-build --pull never {'--force-recreate ' if fresh else ''}"
        f"{shlex.join(services)}"
    )


def little_room() -> str:
    """Say on stderr, in numbers, which disk of images, containers or data has next to no room."""
    told = '"    no room: %d MB free of %d MB on the disk at %s\\n", $4 / 1024, $2 / 1024, $6'
    awk = f"NR > 1 && $4 < {LITTLE // KB} && !told[$6]++ {{ printf {told} }}"
    places = f"{ENGINE}/volumes/koprogo_postgres_data/_data {ENGINE}/tmp {ENGINE}"  # noqa: S108
    return f"df -Pk {places} 2>/dev/null | awk {shlex.quote(awk)} >&2"


def wait_until_healthy(
    service: str, seconds: int, settle: int = 0, stop_failed: bool = False, answers: str = ":"
) -> str:
    """Wait until a service's container is healthy; else show why, on stderr, and fail.

    Ends at once when the container exits, restarts or is reported unhealthy: a crash loop is not
    waited out.

    Args:
        service: Compose's name of it.
        seconds: how long at most.
        settle: seconds it must then stay so, without a restart: some crash a moment later.
        stop_failed: stop a container that failed, so that it does not crash on beside the live
            one; it stays for `docker logs`.
        answers: shell command that succeeds when the service answers; for one that has no
            healthcheck, and would pass for well in the moment before it exits.
    """
    name = container(service)
    stop = f"docker stop -t 5 {name} >/dev/null" if stop_failed else ":"
    # All that is known of a container that runs, logs nothing, and is not healthy.
    probe = (
        "docker inspect -f '{{if .State.Health}}{{range .State.Health.Log}}"
        "{{if .ExitCode}}{{json .Output}}{{println}}{{end}}{{end}}{{end}}'"
    )
    look = "docker inspect -f '{{.RestartCount}} {{.State.Status}} "
    look += "{{if .State.Health}}{{.State.Health.Status}}{{end}}'"
    return f"""
end=$(( $(date +%s) + {seconds} )); first=; why=; healthy=0
while :; do
  state=$({look} {name} 2>/dev/null || echo '0 gone')
  [ -n "$first" ] || first=${{state%% *}}
  case "$state" in
    "$first running healthy"|"$first running ")
      if {answers}; then
        healthy=$((healthy + 1)); [ "$healthy" -le {settle * 5} ] || break
      else
        [ "$(date +%s)" -lt "$end" ] || why="it runs, and does not answer within {seconds} s"
      fi ;;
    "$first running starting"|"$first created"*)
      [ "$(date +%s)" -lt "$end" ] || why="not healthy within {seconds} s" ;;
    "$first running unhealthy") why="its healthcheck fails" ;;
    "$first "*) why="its container is: ${{state#* }}" ;;
    *) why="it stopped and was started again" ;;
  esac
  if [ -n "$why" ]; then
    echo "{service} did not come up: $why. Last lines of its log:" >&2
    docker logs --tail 20 {name} 2>&1 | sed 's/^/    | /' >&2
    {probe} {name} 2>/dev/null | tail -n 1 | sed 's/^/    healthcheck: /' >&2
    {little_room()}
    {stop}
    exit 1
  fi
  sleep 0.2
done"""


def drained(containers: Iterable[str], late: str) -> str:
    """Wait until nobody is connected to these containers any more, for `DRAIN` seconds at most.

    Traefik closes a connection that has nothing to do after 2 s; one that is left is at work. The
    healthcheck's own does not count. Those that are there are in `$there` afterwards.

    Args:
        containers: backends and frontends; those that are not there are left out.
        late: what is said of one, `$c`, that is at work even then.
    """
    return f"""
connected() {{
  for n in /proc/"$1"/net/tcp /proc/"$1"/net/tcp6; do
    [ -r "$n" ] && awk -v port=":$(printf %04X "$2")$" \\
      '$4 == "01" && $2 ~ port && $2 !~ /0100007F:/ {{ f = 1 }} END {{ exit !f }}' "$n" && return
  done
  return 1
}}
end=$(( $(date +%s) + {DRAIN} )); there=
for c in {shlex.join(containers)}; do
  pid=$(docker inspect -f '{{{{.State.Pid}}}}' "$c" 2>/dev/null) || continue
  there="$there $c"
  case "$c" in *-frontend-*) port=80 ;; *) port=8080 ;; esac
  while [ "$pid" != 0 ] && connected "$pid" "$port"; do
    [ "$(date +%s)" -lt "$end" ] || {{ echo "{late}" >&2; break; }}
    sleep 0.1
  done
done"""


def stop(*names: str, remove: bool = False) -> str:
    """Stop containers of old or failed colours, each when nobody is connected to it any more.

    Traefik sends them nothing new; requests that they are at end, and connections kept for more
    end with Traefik's idle timeout. What lasts longer than `DRAIN` has the application's own
    grace. Stopped, not removed, unless asked: their logs say what was wrong.

    Args:
        names: Compose's; those without a container are left out.
        remove: the containers too.
    """
    gone = "docker rm $there >/dev/null" if remove else ":"
    return f"""{drained(map(container, names), "$c is stopped with requests at work")}
if [ -n "$there" ]; then docker stop -t 35 $there >/dev/null; {gone}; fi"""


def psql(database: str = "koprogo_db") -> str:
    """psql as superuser in the Postgres container; the script comes on standard input.

    For catalogs, roles and what is our own. It runs nothing that is called as something in the
    application's schema; rows of the application are `owner_psql`'s.
    """
    return _psql("postgres", database, SESSION)


def owner_psql(database: str = "koprogo_db") -> str:
    """psql as the application's own role: whatever its tables set off, runs as that.

    A session of its own, since a trigger may go back from a role that a superuser has taken on.
    """
    return _psql(OWNER, database)


def observer_psql() -> str:
    """psql as the read-only observer of koprogo_db; the script comes on standard input."""
    return _psql(OBSERVER, "koprogo_db", CATALOG)


def _psql(user: str, database: str, options: str = "") -> str:
    given = f"-e PGOPTIONS={shlex.quote(options)} " if options else ""
    return (
        f"docker exec {given}-i {container('postgres')} "
        f"psql -XqAt -v ON_ERROR_STOP=1 -U {user} -d {shlex.quote(database)}"
    )
