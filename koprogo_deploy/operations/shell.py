"""Shell fragments that more than one stage uses. Pure text; nothing is run here."""

from __future__ import annotations

import shlex

PROJECT = "koprogo"


def container(service: str) -> str:
    """The container's name of a Compose service of ours."""
    return f"{PROJECT}-{service}-1"


def compose_up(release_directory: str, service: str) -> str:
    """Start or recreate one service of a release, and no other."""
    return (
        f"docker compose --progress quiet -f {shlex.quote(release_directory)}/compose.yaml "
        f"up -d --no-deps --no-build --pull never {shlex.quote(service)}"
    )


def wait_until_healthy(service: str, seconds: int) -> str:
    """Wait until a service's container is healthy; else show why, on stderr, and fail.

    Ends at once when the container exits, restarts or is reported unhealthy: a crash loop is not
    waited out.
    """
    name = container(service)
    look = "docker inspect -f '{{.RestartCount}} {{.State.Status}} "
    look += "{{if .State.Health}}{{.State.Health.Status}}{{end}}'"
    return f"""
end=$(( $(date +%s) + {seconds} )); first=; why=
while :; do
  state=$({look} {name} 2>/dev/null || echo '0 gone')
  [ -n "$first" ] || first=${{state%% *}}
  case "$state" in
    "$first running healthy"|"$first running ") break ;;
    "$first running starting"|"$first created"*)
      [ "$(date +%s)" -lt "$end" ] || why="not healthy within {seconds} s" ;;
    "$first running unhealthy") why="its healthcheck fails" ;;
    "$first "*) why="its container is: ${{state#* }}" ;;
    *) why="it stopped and was started again" ;;
  esac
  if [ -n "$why" ]; then
    echo "{service} did not come up: $why. Last lines of its log:" >&2
    docker logs --tail 20 {name} 2>&1 | sed 's/^/    /' >&2
    exit 1
  fi
  sleep 0.2
done"""


def psql(database: str = "koprogo_db") -> str:
    """psql as superuser in the Postgres container; the script comes on standard input."""
    return (
        f"docker exec -i {container('postgres')} "
        f"psql -XqAt -v ON_ERROR_STOP=1 -U postgres -d {shlex.quote(database)}"
    )
