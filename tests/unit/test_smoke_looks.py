"""The smoke tests' own eyes: what they gather on a host, and what they make of it.

The gathering is run as it is on a host, by programs that stand in for the host's.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest

from koprogo_deploy import door, smoke
from tests import project
from tests.smoke import judge, test_application, test_host

GATHER = door.ROOT / "tests" / "smoke" / "gather.py"
DOCKER = r"""
case "$1 $2" in
  "ps -q") echo abc ;;
  "inspect abc") cat <<END
[{"Id": "abc", "State": {"Pid": PID},
  "Config": {"Labels": {"com.docker.compose.service": "postgres"}},
  "NetworkSettings": {"Networks": {
    "edge": {"Gateway": "172.30.80.1", "IPPrefixLen": 24},
    "data": {"Gateway": "", "IPPrefixLen": 16}}}}]
END
  ;;
  "logs abc") LOGS ;;
esac
"""
SS = """
case "$*" in *u*) cat <<END
udp   UNCONN 0 0      127.0.0.1%lo:323        0.0.0.0:*
udp   UNCONN 0 0             [::]:5353           [::]:*
END
esac
case "$*" in *t*) cat <<END
tcp   LISTEN 0 128        0.0.0.0:22         0.0.0.0:*
tcp   LISTEN 0 4096             *:9100             *:*
END
esac
"""


def gathered(where: Path, **programs: str) -> dict[str, Any]:
    """What the smoke tests get from a host whose programs do this."""
    (where / "programs").mkdir()
    (where / "secrets").mkdir()
    told = {
        "docker": DOCKER.replace("PID", str(os.getpid())).replace("LOGS", "echo out; echo err >&2"),
        "ss": SS,
        "sshd": "echo port 22",
        "curl": "printf '403\\n403\\n403\\n'",
        "df": "echo head; echo / 1 1 1 5% /",
    }
    quiet = dict.fromkeys(("systemctl", "systemd-analyze", "sysctl"), "true")
    for name, script in {**quiet, **told, **programs}.items():
        program = where / "programs" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    given = f"ROOT, VERIFYING = {str(where)!r}, False\nAPI, LISTED = 'api.x.be', '203.0.113.7'\n"
    done = subprocess.run(
        [sys.executable, "-c", given + GATHER.read_text()],
        env={**os.environ, "PATH": f"{where / 'programs'}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def docker(logs: str) -> str:
    return DOCKER.replace("PID", str(os.getpid())).replace("LOGS", logs)


def test_a_log_is_read_from_both_of_its_streams_from_its_beginning_and_to_its_end(
    tmp_path: Path,
) -> None:
    many = "seq 1000 | sed 's/^/line-/'"
    last = 'case "$3" in --tail) echo last;; *) echo first-out; echo first-err >&2; ' + many
    shown = gathered(tmp_path, docker=docker(last + "; esac"))["logs"]["postgres"]
    assert set(shown.split()) >= {"first-out", "first-err", "last", "line-100"}
    assert "line-900" not in shown, "the middle of a long log is not carried over the line"


def test_a_log_that_cannot_be_read_is_no_log(tmp_path: Path) -> None:
    cannot = "echo 'the logging driver does not support reading' >&2; exit 1"
    assert gathered(tmp_path, docker=docker(cannot))["logs"] == {"postgres": ""}


def test_listeners_of_both_protocols_and_families_are_told(tmp_path: Path) -> None:
    found = gathered(tmp_path)
    assert found["listeners"] == [
        ["udp", "127.0.0.1%lo", "323"],
        ["udp", "[::]", "5353"],
        ["tcp", "0.0.0.0", "22"],
        ["tcp", "*", "9100"],
    ]
    assert found["bridges"] == ["172.30.80.1/24"]
    assert judge.open_to_others(found["listeners"], {22}, found["bridges"]) == [
        "tcp *:9100",
        "udp [::]:5353",
    ]


def test_a_listener_that_is_expected_is_none_to_tell_of() -> None:
    there = [("udp", "0.0.0.0", "51820"), ("udp", "[::]", "123"), ("tcp", "10.8.0.1", "9100")]
    named = ["udp/51820"]
    found = judge.open_to_others(there, {22}, (), named)
    assert found == ["tcp 10.8.0.1:9100", "udp [::]:123"]
    told = judge.expecting(found, named, "production")
    assert told.startswith("others reach tcp 10.8.0.1:9100, udp [::]:123; ")
    value = '["udp/51820", "tcp/9100", "udp/123"]'
    assert f"expected_listeners = {value} in group_data/production.py" in told
    assert judge.open_to_others(there, {22}, (), json.loads(value)) == []
    assert judge.open_to_others([("tcp", "*", "51820")], {22}, (), named), "of UDP alone"


def test_numbers_of_a_kernel_parameter_are_parted_by_any_white_space() -> None:
    name = "net.ipv4.ip_local_port_range"
    settings = project.settings(sysctl={name: "1024 \t 65535", "a.b": "1", "c.d": "2"})
    assert settings.sysctl[name] == "1024 65535"
    found = {name: "1024\t65535", "a.b": "3", "e.f": "4"}
    assert judge.not_in_force(settings.sysctl, found) == {"a.b": "3", "c.d": None}


def test_a_secret_is_found_as_it_is_or_as_json_writes_it_and_none_by_chance() -> None:
    kept = {"JWT_SECRET": "ab" * 32, "MQTT_PASSWORD": "1234", "SMTP_PASSWORD": 'a"b\\cdéfg'}
    kept["S3_ACCESS_KEY"] = "koprogo-storage"
    assert judge.leaked(kept, 'port 1234, "koprogo-storage"') == []
    shown = json.dumps({"log": f"{kept['JWT_SECRET']} {kept['SMTP_PASSWORD']}"})
    assert judge.leaked(kept, shown) == ["JWT_SECRET", "SMTP_PASSWORD"]


def test_the_disk_of_the_engine_and_of_the_releases_are_looked_at_as_well(tmp_path: Path) -> None:
    df = 'echo head; [ "$*" = "-P / /var/lib/docker $ROOT" ] && printf "%s\\n" '
    df += '"a 1 1 1 5% /" "b 1 1 1 99% /var" "a 1 1 1 5% /"'
    found = gathered(tmp_path, df=df.replace("$ROOT", str(tmp_path)))
    assert found["disks"] == {"/": 5, "/var": 99}


def test_the_routes_are_compared_with_what_the_release_says(tmp_path: Path) -> None:
    assert gathered(tmp_path)["routes"] == "", "none is no good answer"
    other = tmp_path / "other"
    file = other / "traefik" / "dynamic" / "dynamic.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("http: {}\n")
    found = gathered(other)
    right = hashlib.sha256(b"http: {}\n").hexdigest()
    test_host.test_routes_are_those_of_the_release({**found, "manifest": {"dynamic": right}})
    with pytest.raises(AssertionError):
        test_host.test_routes_are_those_of_the_release({**found, "manifest": {"dynamic": "r1"}})


@pytest.mark.parametrize(("rows", "shown"), [(0, 0), (3, 3), (3, 0)])
def test_a_list_that_has_no_row_to_show_is_not_said_to_have_shown_any(
    rows: int, shown: int
) -> None:
    page = {"data": [{}] * shown, "pagination": {"total_items": shown}}
    answer = SimpleNamespace(status_code=200, text="", json=lambda: page)
    site: Any = SimpleNamespace(api=SimpleNamespace(get=lambda *_, **__: answer))
    opened: Any = SimpleNamespace(secrets=project.SECRETS)
    data = {"tenant": {"organization": "o1", "rows": {"/units": rows}}}

    def look() -> None:
        test_application.test_a_tenant_reads_what_the_database_holds(opened, site, data, "/units")

    if not rows:
        with pytest.raises(pytest.skip.Exception) as skipped:
            look()
        said = f"SKIPPED [1] tests/smoke/test_application.py:52: {skipped.value}"
        assert smoke.Outcome(True, said).untried == [
            "no row of /units was tried: the tenant has none. Its answer was tried"
        ]
    elif shown:
        look()
    else:
        with pytest.raises(AssertionError):
            look()


def test_the_superadmins_pages_are_asked_for_by_somebody_who_claims_to_be_listed(
    tmp_path: Path,
) -> None:
    asked = tmp_path / "asked"
    found = gathered(tmp_path, curl=f"echo \"$@\" > {asked}; printf '403\\n401\\n403\\n'")
    assert found["superadmin"] == {
        "/api/v1/users": "403",
        "/api/v1/organizations": "401",
        "/api/v1/stats/dashboard": "403",
    }
    assert "X-Forwarded-For: 203.0.113.7" in asked.read_text()
    assert "--resolve api.x.be:443:127.0.0.1" in asked.read_text()


@pytest.mark.parametrize(
    ("listener", "others"),
    [
        (("tcp", "127.0.0.1", "5432"), False),
        (("tcp", "[::1]", "5432"), False),
        (("tcp", "[::ffff:127.0.0.1]", "5432"), False),
        (("udp", "127.0.0.53%lo", "53"), False),
        (("udp", "10.0.0.4%eth0", "68"), False),
        (("tcp", "172.30.80.1", "2377"), False),
        (("tcp", "172.99.1.1", "2377"), True),
        (("tcp", "10.0.0.4", "9100"), True),
        (("tcp", "0.0.0.0", "68"), True),
        (("udp", "*", "53"), True),
        (("udp", "0.0.0.0", "443"), True),
        (("tcp", "[fe80::1]%eth0", "9100"), True),
        (("tcp", "0.0.0.0", "443"), False),
        (("tcp", "[::]", "2222"), False),
        (("tcp", "[::]", "2223"), True),
    ],
)
def test_who_else_reaches_a_listener(listener: tuple[str, str, str], others: bool) -> None:
    found = judge.open_to_others([listener], judge.ssh_ports("Port 2222\n"), ["172.30.80.1/24"])
    assert bool(found) == others


# Read in `cpu.weight` of a container, by runc 1.3.1 and by 1.4.0-rc.1.
@pytest.mark.parametrize(("shares", "weights"), [(1024, {39, 100}), (2000, {77, 170}), (2, {1})])
def test_the_weight_that_an_engine_makes_of_shares(shares: int, weights: set[int]) -> None:
    assert judge.cpu_weights(shares) == weights


def test_who_is_listed() -> None:
    assert judge.covers(["203.0.113.7/32", "172.16.0.0/12"], "172.30.80.1")
    assert not judge.covers(["203.0.113.7/32", "2001:db8::/32"], "172.30.80.1")


def test_a_page_links_its_own_files_once_each() -> None:
    page = """<link href="/a.css"><script src='/b.js'></script><script src="/b.js"></script>
    <a href="https://x.be/c">c</a><link href="//cdn.x.be/d.css"><link rel="icon" href="data:,">"""
    assert judge.linked(page) == ["/a.css", "/b.js"]


@pytest.mark.parametrize(
    ("kind", "size", "worth"),
    [
        ("text/html; charset=utf-8", 1400, True),
        ("application/javascript", 1400, True),
        ("text/html", 1399, False),
        ("image/png", 5000, False),
    ],
)
def test_what_is_worth_compressing(kind: str, size: int, worth: bool) -> None:
    answer = httpx2.Response(200, headers={"Content-Type": kind}, content=b"x" * size)
    assert judge.worth_compressing(answer) == worth
