"""Rendered files, read by those who will read them: Compose, Traefik, Postgres.

Needs the sandbox's images on the outer engine, and for `docker compose config` the box itself
with an engine in it. Nothing is deployed and nothing is published.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from koprogo_deploy import connection, door, tuning
from koprogo_deploy.settings import SERVICES, Settings
from koprogo_deploy.units import MB, parse_size
from sandbox import authority
from tests import project
from tests.integration.rig import Rig

VARIANTS: dict[str, Settings] = {
    "production": project.settings(),
    "sandbox": project.settings("sandbox"),
    "with everything": project.settings(
        access_log="stdout",
        load_client_addresses=["198.51.100.4", "2001:db8::/64"],
        superadmin_addresses=[],
        acme_ca_certificate="ca.crt",
        backend_environment={"GREETING": "5 $ for ${HOME} # 'quoted': \"yes\""},
        frontend_read_only=True,
        swap=None,
    ),
    "a bigger VPS": project.settings(
        vps_vcpus=4,
        vps_memory="8GB",
        vps_disk="160GB",
        vps_disk_kind="nvme",
        postgres_memory="4GB",
        pool_max_connections=30,
        postgres_settings={"work_mem": "7MB", "pg_stat_statements.max": "2000"},
    ),
}
variants = pytest.mark.parametrize("asked", VARIANTS.values(), ids=VARIANTS.keys())


@pytest.fixture(scope="module", autouse=True)
def images(undeployed: Rig) -> None:
    """The sandbox has built its images."""


def docker(*arguments: str, timeout: float = 60, check: bool = True) -> str:
    """One call of the outer engine; stdout and stderr together."""
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}"
    return done.stdout


def image(part: str) -> str:
    """The newest of the sandbox's images of one part."""
    found = docker("images", f"koprogo-sandbox/{part}", "--format", "{{.Repository}}:{{.Tag}}")
    if not found.strip():
        pytest.fail(f"no image koprogo-sandbox/{part}; make it with: make sandbox-up")
    return found.split()[0]


@contextmanager
def container(
    part: str, files: Mapping[str, Path], *arguments: str, options: tuple[str, ...] = ()
) -> Iterator[str]:
    """A created container without network, holding these folders; removed at the end."""
    name = f"koprogo-test-{uuid.uuid4().hex[:12]}"
    docker("create", "--name", name, "--network", "none", *options, image(part), *arguments)
    try:
        for inside, folder in files.items():
            docker("cp", f"{folder}/.", f"{name}:{inside}")
        yield name
    finally:
        docker("rm", "-f", "-v", name, check=False)


def folder(root: Path, files: Mapping[str, str]) -> Path:
    """Write files that any user may read."""
    root.mkdir(parents=True)
    root.chmod(0o755)
    for name, text in files.items():
        (root / name).write_text(text)
        (root / name).chmod(0o644)
    return root


# --- Compose -------------------------------------------------------------------------------------


def against_schema(compose: str, where: Path) -> subprocess.CompletedProcess[str]:
    file = where / "compose.yaml"
    file.write_text(compose)
    schema = ["--builtin-schema", "vendor.compose-spec", "--no-cache"]
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *schema, str(file)],
        capture_output=True,
        text=True,
        check=False,
    )


@variants
def test_the_compose_schema_accepts_compose_yaml(asked: Settings, tmp_path: Path) -> None:
    done = against_schema(project.release(asked).files["compose.yaml"], tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_compose_schema_would_refuse_a_wrong_key(tmp_path: Path) -> None:
    compose = project.release(project.settings()).files["compose.yaml"]
    done = against_schema(compose.replace("memswap_limit:", "memory_swap:"), tmp_path)
    assert done.returncode == 1
    assert "memory_swap" in done.stdout


@pytest.fixture(scope="module")
def box(rig: Rig) -> door.Environment:
    """The box with an engine and Compose in it, which the first deploy brings."""
    return door.open_environment("sandbox")


def compose_config(box: door.Environment, compose: str) -> subprocess.CompletedProcess[str]:
    command = "sudo docker compose -f - config --format json"
    return subprocess.run(
        connection.ssh_command(box, command),
        input=compose,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@variants
def test_compose_reads_what_was_meant(box: door.Environment, asked: Settings) -> None:
    """Limits to the byte, and values as they were written, whatever `$` is in them."""
    done = compose_config(box, project.release(asked).files["compose.yaml"])
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    services = json.loads(done.stdout)["services"]
    for service in SERVICES:
        name = f"{service}-blue" if service in project.COLOURS else service
        assert int(services[name]["mem_limit"]) == asked.memory(service)
        assert int(services[name]["memswap_limit"]) == asked.memory(service)
        assert int(services[name]["cpu_shares"]) == asked.cpu_weight(service)
    written = services["backend-blue"]["environment"]
    # `config` doubles each `$` again, so that its output is a Compose file too.
    expected = {k: v.replace("$", "$$") for k, v in asked.backend_environment.items()}
    assert expected.items() <= written.items()
    assert services["backend-blue"]["command"] == asked.backend_command


def test_compose_would_refuse_a_wrong_size(box: door.Environment) -> None:
    compose = project.release(project.settings()).files["compose.yaml"]
    assert "mem_limit: 80MB" in compose
    done = compose_config(box, compose.replace("mem_limit: 80MB", "mem_limit: 80XB"))
    assert done.returncode != 0
    assert "80XB" in done.stderr


# --- Traefik -------------------------------------------------------------------------------------

# An ACME account cannot be made without a network, and that is all Traefik may complain of. What it
# answers to us before it has read its routes stands in the access log.
EXPECTED = re.compile(
    r'(?i:acme).*(dial tcp|lookup |network is unreachable)|^\{"ClientAddr":"127\.0\.0\.1:'
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Traefik's secrets; the certificate's names do not matter here."""
    made = tmp_path_factory.mktemp("made")
    authority.root(made, "koprogo-test")
    names = {"tls_certificate": "ca.crt", "tls_key": "ca.key", "acme_ca": "ca.crt"}
    files = {name: (made / file).read_text() for name, file in names.items()}
    return folder(tmp_path_factory.mktemp("tls") / "secrets", files)


def ask(name: str, path: str) -> Any:
    """Traefik's API on its internal entry point, asked from inside its own network."""
    script = (
        "exec 3<>/dev/tcp/127.0.0.1/8082; "
        rf"printf 'GET {path} HTTP/1.0\r\nHost: x\r\n\r\n' >&3; cat <&3"
    )
    answer = docker("exec", name, "bash", "-c", script, check=False)
    head, _, body = answer.partition("\n\n")
    return json.loads(body) if " 200 " in head.partition("\n")[0] else None


def complaints(files: Mapping[str, str], certificate: Path, where: Path) -> list[str]:
    """What Traefik itself has against its two files; empty when it serves all of them."""
    static = folder(where / "static", {"traefik.yaml": files["traefik/traefik.yaml"]})
    dynamic = folder(where / "dynamic", {"dynamic.yaml": files["traefik/dynamic.yaml"]})
    acme = folder(where / "acme", {})
    inside = {
        "/etc/traefik": static,
        "/dynamic": dynamic,
        "/acme": acme,
        "/run/secrets": certificate,
    }
    wanted = yaml.safe_load(files["traefik/dynamic.yaml"])["http"]
    with container("traefik", inside, "--configFile=/etc/traefik/traefik.yaml") as name:
        docker("start", name)
        found = []
        for kind in ("routers", "services", "middlewares"):
            entries = eventually(name, f"/api/http/{kind}?per_page=100", set(wanted[kind]))
            missing = {f"{n}@file" for n in wanted[kind]} - {entry["name"] for entry in entries}
            found += [f"{kind}: {missed} is not served" for missed in sorted(missing)]
            for entry in entries:
                if entry.get("status") != "enabled" or entry.get("error"):
                    found.append(f"{kind}: {entry['name']}: {entry.get('error') or entry}")
        log = docker("logs", name)
    return found + [line for line in log.splitlines() if not EXPECTED.search(line)]


def eventually(name: str, path: str, wanted: set[str]) -> list[dict[str, Any]]:
    """Traefik's answer once it has read everything; else, when it complains, the last one."""
    entries: list[dict[str, Any]] = []
    for _ in range(50):
        entries = ask(name, path) or entries
        if {f"{n}@file" for n in wanted} <= {entry["name"] for entry in entries}:
            break
        if "ERR" in docker("logs", name) or not running(name):
            break
        time.sleep(0.1)
    return entries


def running(name: str) -> bool:
    return docker("inspect", "-f", "{{.State.Running}}", name).strip() == "true"


@variants
def test_traefik_serves_every_router_middleware_and_service(
    asked: Settings, certificate: Path, tmp_path: Path
) -> None:
    assert complaints(project.release(asked).files, certificate, tmp_path) == []


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("dynamic", "certResolver: acme", "certResolver: acne", "acne"),
        ("static", 'storage: "/acme/', 'storage: "/nowhere/', "/nowhere/"),
        ("dynamic", "middlewares: [headers, login-limit", "middlewares: [headers, limit", "limit@"),
        ("dynamic", "Method(`OPTIONS`)", "Methods(`OPTIONS`)", "Methods"),
        ("dynamic", "dialTimeout: 2s", "dialTimeout: soon", "soon"),
        ("dynamic", "minResponseBodyBytes", "minBytes", "minBytes"),
        ("static", "maxHeaderBytes", "maxHeaders", "maxHeaders"),
    ],
)
def test_traefik_would_tell_of_a_broken_file(
    file: str, right: str, wrong: str, told: str, certificate: Path, tmp_path: Path
) -> None:
    files = dict(project.release(project.settings()).files)
    path = "traefik/dynamic.yaml" if file == "dynamic" else "traefik/traefik.yaml"
    assert right in files[path]
    files[path] = files[path].replace(right, wrong)
    assert told in "\n".join(complaints(files, certificate, tmp_path))


# --- Postgres ------------------------------------------------------------------------------------

POSTGRES = r"""
set -eu
initdb -D /tmp/data -U postgres --auth=peer >/dev/null
with="-D /tmp/data -c config_file=/etc/postgresql/postgresql.conf"
for name in $NAMES; do printf 'C\t%s\t%s\n' "$name" "$(postgres $with -C "$name")"; done
postgres $with -c unix_socket_directories=/tmp >/tmp/log 2>&1 &
for _ in $(seq 100); do
  pg_isready -q -h /tmp && break
  kill -0 $! 2>/dev/null || break
  sleep 0.1
done
pg_isready -q -h /tmp || { cat /tmp/log; exit 1; }
psql -XqAt -h /tmp -U postgres -d postgres -F "$(printf '\t')" <<'END'
SELECT 'unit', name, setting, unit FROM pg_settings;
SELECT 'error', file_name, line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL;
SELECT 'error', sourcefile, sourceline, error FROM pg_file_settings WHERE error IS NOT NULL;
SELECT 'error', file_name, line_number, error FROM pg_ident_file_mappings WHERE error IS NOT NULL;
SELECT 'map', map_name, sys_name, pg_username FROM pg_ident_file_mappings;
SELECT 'rule', type, database, user_name, address, auth_method FROM pg_hba_file_rules;
END
kill %1; wait
"""


def ask_postgres(files: Mapping[str, str], asked: Settings, where: Path) -> list[list[str]]:
    """What Postgres makes of its files: it is asked by `-C`, and then started with them."""
    own = {n.removeprefix("postgres/"): t for n, t in files.items() if n.startswith("postgres/")}
    # peer wants the socket's caller to be postgres, and the image's own user is.
    names = " ".join(setting.name for setting in tuning.tune(asked))
    bounds = ("--user", "999:999", "--memory", str(asked.postgres_memory))
    options = (*bounds, "--entrypoint", "bash", "-e", f"NAMES={names}")
    inside = {"/etc/postgresql": folder(where / "postgresql", own)}
    with container("postgres", inside, "-c", POSTGRES, options=options) as name:
        output = docker("start", "-a", name, timeout=120, check=False)
    return [line.split("\t") for line in output.splitlines()]


UNITS = {"": 1, "B": 1, "kB": 1024, "8kB": 8192, "MB": MB, "ms": 1, "s": 1000, "min": 60_000}


def same(written: str, found: str, unit: str) -> bool:
    """Whether a value as we write it is the one Postgres holds in its own unit."""
    if match := re.fullmatch(r"(\d+)(ms|s|min)", written):
        return int(match[1]) * UNITS[match[2]] == int(found) * UNITS[unit]
    try:
        size = parse_size(written)
    except ValueError:
        number = re.fullmatch(r"[\d.]+", written) and re.fullmatch(r"[\d.]+", found)
        return float(written) == float(found) if number else written == found
    return size == int(found) * UNITS[unit]


@variants
def test_postgres_holds_every_tuned_value(asked: Settings, tmp_path: Path) -> None:
    lines = ask_postgres(project.release(asked).files, asked, tmp_path)
    # Postgres writes TimeZone, and reads it in any case.
    units = {line[1].lower(): line[3] for line in lines if line[0] == "unit"}
    printed = {line[1]: line[2] for line in lines if line[0] == "C"}
    running = {line[1].lower(): line[2] for line in lines if line[0] == "unit"}
    assert [line for line in lines if line[0] == "error"] == []
    for setting in tuning.tune(asked):
        name, value = setting.name, setting.value
        assert same(value, printed[name], units[name]), (name, value, printed[name], units[name])
        assert same(value, running[name], units[name]), (name, value, running[name], units[name])


def test_postgres_lets_only_these_in(tmp_path: Path) -> None:
    asked = project.settings()
    lines = ask_postgres(project.release(asked).files, asked, tmp_path)
    assert [line[1:] for line in lines if line[0] == "rule"] == [
        ["local", "{all}", "{postgres}", "", "peer"],
        ["local", "{koprogo_db}", "{koprogo_observer}", "", "peer"],
        ["local", "{all}", "{koprogo}", "", "peer"],
        ["host", "{koprogo_db}", "{koprogo,+koprogo}", "samenet", "scram-sha-256"],
    ]
    assert [line[1:] for line in lines if line[0] == "map"] == [
        ["observer", "postgres", "koprogo_observer"],
        ["owner", "postgres", "koprogo"],
    ]


@pytest.mark.parametrize(
    ("path", "right", "wrong", "told"),
    [
        ("postgres/pg_hba.conf", "scram-sha-256", "scram-sha-255", "scram-sha-255"),
        ("postgres/postgresql.conf", "work_mem =", "work_memory =", "work_memory"),
    ],
)
def test_postgres_would_tell_of_a_broken_file(
    path: str, right: str, wrong: str, told: str, tmp_path: Path
) -> None:
    asked = project.settings()
    files = dict(project.release(asked).files)
    assert right in files[path]
    files[path] = files[path].replace(right, wrong)
    lines = ask_postgres(files, asked, tmp_path)
    assert any(told in part for line in lines for part in line), lines
    assert not any(line[0] == "rule" and "koprogo" in line[3] for line in lines)


def test_postgres_would_tell_of_a_broken_map(tmp_path: Path) -> None:
    asked = project.settings()
    files = dict(project.release(asked).files)
    line = "observer   postgres         koprogo_observer"
    assert line in files["postgres/pg_ident.conf"]
    files["postgres/pg_ident.conf"] = "observer   postgres\n"
    lines = ask_postgres(files, asked, tmp_path)
    assert any("missing entry" in part for line in lines for part in line), lines
