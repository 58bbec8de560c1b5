"""On the host: limits as the kernel has them, containers, database, system."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest

from koprogo_deploy import door, render
from koprogo_deploy.accounts import KEYS
from koprogo_deploy.database import not_migrated, observer_problems, trust_problems, versions
from koprogo_deploy.monitor.thresholds import SPACE, memory_bounds
from koprogo_deploy.operations.shell import observer_psql
from koprogo_deploy.render import container_names
from koprogo_deploy.settings import SERVICES, SWITCHED
from koprogo_deploy.tuning import tune
from koprogo_deploy.units import MB
from tests.smoke import judge


@pytest.fixture(scope="session")
def containers(seen: Any) -> Any:
    return seen["containers"]


@pytest.fixture(scope="session")
def names(seen: Any) -> dict[str, str]:
    return container_names(seen["manifest"]["colours"])


def test_exactly_the_release_runs(seen: Any, containers: Any, names: dict[str, str]) -> None:
    assert not seen["candidate"], "a release was pushed and does not count yet"
    # Beside a release that verifies itself run what served before, kept warm, and what a run that
    # was cut off had started; the deploy removes both afterwards.
    others = {f"{s}-{colour}" for s in SWITCHED for colour in ("blue", "green")}
    allowed = {*names.values(), *(others if seen["verifying"] else ())}
    assert set(names.values()) <= set(containers) <= allowed
    for service, name in names.items():
        found = containers[name]["inspect"]
        assert found["State"]["Status"] == "running", name
        assert found["State"].get("Health", {}).get("Status", "healthy") == "healthy", name
        assert found["Config"]["Image"] == seen["manifest"]["images"][service]
        assert found["Config"]["Labels"]["koprogo.spec"] == seen["manifest"]["specs"][service]


def test_routes_are_those_of_the_release(seen: Any) -> None:
    assert seen["routes"] == seen["manifest"]["dynamic"], "dynamic.yaml, as Traefik reads it"


@pytest.mark.parametrize("service", SERVICES)
def test_memory_limit_as_the_kernel_has_it(
    settings: Any, containers: Any, names: dict[str, str], service: str
) -> None:
    limits = containers[names[service]]["cgroup"]
    assert int(limits["memory"]) == settings.memory(service)
    if limits.get("memsw"):
        assert int(limits["memsw"]) == settings.memory(service)


@pytest.mark.of_the_host
@pytest.mark.parametrize("service", SERVICES)
def test_container_stays_out_of_swap(containers: Any, names: dict[str, str], service: str) -> None:
    limits = containers[names[service]]["cgroup"]
    if "memsw" in limits:
        pytest.skip("cgroup v1: memory and swap are one limit, seen above")
    assert limits["swap"] == "0"
    # What systemd believes is what the kernel has some seconds after the next daemon-reload.
    if "systemd_swap" in limits:
        assert limits["systemd_swap"] == "0"


@pytest.mark.parametrize("service", SERVICES)
def test_cpu_by_weight_without_a_quota(
    settings: Any, containers: Any, names: dict[str, str], service: str
) -> None:
    limits = containers[names[service]]["cgroup"]
    assert limits["quota"] in ("-1", "max")
    shares = settings.cpu_weight(service)
    if "shares" in limits:
        assert int(limits["shares"]) == shares
    else:
        assert int(limits["weight"]) in judge.cpu_weights(shares)


@pytest.mark.parametrize("service", SERVICES)
def test_container_is_confined(containers: Any, names: dict[str, str], service: str) -> None:
    found = containers[names[service]]
    assert int(found["status"]["CapEff"], 16) == 0
    assert int(found["status"]["CapBnd"], 16) == 0
    assert found["status"]["NoNewPrivs"] == "1"
    assert found["status"]["Uid"].split()[0] != "0"
    assert found["inspect"]["HostConfig"]["PidsLimit"]
    assert found["inspect"]["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
    mounts = [mount["Source"] for mount in found["inspect"]["Mounts"]]
    assert not any("docker.sock" in source for source in mounts)


def test_only_the_proxy_publishes_ports(containers: Any) -> None:
    published = {
        name: sorted(port for port, bound in (c["inspect"]["HostConfig"]["PortBindings"]).items())
        for name, c in containers.items()
        if c["inspect"]["HostConfig"]["PortBindings"]
    }
    assert published == {"traefik": ["443/tcp", "80/tcp"]}


@pytest.mark.of_the_host
def test_only_ssh_listens_besides(settings: Any, seen: Any) -> None:
    ssh_ports = judge.ssh_ports(seen["sshd"])
    assert ssh_ports, "sshd did not say where it listens"
    assert seen["listeners"], "the host told of no listener at all"
    named = settings.expected_listeners
    found = judge.open_to_others(seen["listeners"], ssh_ports, seen["bridges"], named)
    assert not found, judge.expecting(found, named, settings.environment)


def test_superadmin_pages_refuse_who_is_not_listed(settings: Any, seen: Any) -> None:
    here = render.gateway(settings.edge_network)  # the host, as the proxy sees it
    if judge.covers(settings.superadmin_addresses, here):
        pytest.skip(f"superadmin_addresses lists {here}, the host itself")
    if seen["maintenance"] and set(seen["superadmin"].values()) == {"503"}:
        pytest.skip("maintenance is on, and the host itself does not pass by it")
    assert set(seen["superadmin"].values()) == {"403"}, seen["superadmin"]


def test_no_secret_in_inspect_or_logs(
    environment: door.Environment, containers: Any, seen: Any
) -> None:
    assert seen["logs"]["postgres"], "nothing was read of its log, which is never empty"
    shown = json.dumps(containers) + json.dumps(seen["logs"]) + json.dumps(seen["manifest"])
    assert judge.leaked(environment.secrets.values, shown) == []


def test_secret_files_are_readable_by_their_container_alone(seen: Any) -> None:
    assert seen["secrets_directory"] == "0o700"
    assert seen["secrets"]
    for path, (mode, owner) in seen["secrets"].items():
        service = path.split("/")[-2].split("-")[0]
        assert (mode, owner) == ("0o400", render.USERS[service]), path


@pytest.mark.of_the_host  # of the traffic, rather: whichever release serves
def test_traefik_working_set_is_below_its_alert(settings: Any, containers: Any) -> None:
    limits = containers["traefik"]["cgroup"]
    stat = dict(line.split() for line in limits["stat"].splitlines())
    inactive = int(stat.get("total_inactive_file") or stat.get("inactive_file") or 0)
    used = int(limits["used"]) - inactive  # as `docker stats` shows it
    bounds = memory_bounds(None, settings.memory("traefik"))
    assert bounds and used / MB < bounds.alert, f"{used / MB:.0f} MB"


@pytest.mark.of_the_host
def test_traefik_binary_is_locked_in_memory(seen: Any) -> None:
    assert seen["units"]["koprogo-traefik-binary"] == "active"
    assert seen["enabled"]["koprogo-traefik-binary"] == "enabled"


@pytest.mark.of_the_host
def test_engine_runs_and_starts_at_boot(seen: Any) -> None:
    assert (seen["units"]["docker"], seen["enabled"]["docker"]) == ("active", "enabled")


def test_postgres_settings_are_in_force(settings: Any, database: Any) -> None:
    wrong = {
        s.name: (database["settings"].get(s.name.lower()), s.value)
        for s in tune(settings)
        if database["settings"].get(s.name.lower()) != s.value
    }
    assert wrong == {}


def test_schema_is_migrated_and_indexed(seen: Any, database: Any) -> None:
    assert not_migrated(database["schema"], versions(seen["migrations"])) == []


@pytest.mark.of_the_host  # of the data: the release before, or the next one, finds it as well
def test_nobody_but_postgres_is_its_superuser(settings: Any, database: Any) -> None:
    assert trust_problems(database["schema"]["trust"], settings.superadmin_guard) == []


def test_the_observer_reads_and_cannot_write(host: Any, database: Any) -> None:
    assert observer_problems(database["schema"]) == []
    # It is asked, not tried: each refused attempt would be an ERROR in Postgres' log.
    script = """
SELECT current_user, count(*) >= 0,
  (SELECT bool_or(has_any_column_privilege(oid, 'INSERT, UPDATE')
                  OR has_table_privilege(oid, 'DELETE, TRUNCATE'))
   FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')),
  has_any_column_privilege('public.refresh_tokens', 'SELECT'),
  has_column_privilege('public.users', 'password_hash', 'SELECT')
FROM public.buildings"""
    found = host.check_output(f"printf %s {shlex.quote(script)} | sudo -n {observer_psql()}")
    assert found == "koprogo_observer|t|f|f|f"


@pytest.mark.of_the_host
def test_journal_is_bounded(settings: Any, seen: Any) -> None:
    limit = f"SystemMaxUse={settings.journald_limit // MB}M"
    written = [line for line in seen["journald"].splitlines() if line.startswith("SystemMaxUse=")]
    assert written[-1:] == [limit], "the last one counts"


@pytest.mark.of_the_host
def test_ssh_takes_keys_only(seen: Any) -> None:
    lines = seen["sshd"].lower().splitlines()
    assert "passwordauthentication no" in lines
    assert "kbdinteractiveauthentication no" in lines
    assert "permitrootlogin without-password" in lines or "permitrootlogin no" in lines
    # Of accounts that are ours, those that left included: no key in a folder of their own counts.
    own = {
        name
        for name, found in seen["managed"].items()
        if f"authorizedkeysfile {KEYS}/%u" not in found
    }
    assert own == set()


@pytest.mark.of_the_host
def test_swap_is_there_where_asked_for(settings: Any, seen: Any) -> None:
    if settings.swap is None:
        pytest.skip("swap = None")
    assert "/swapfile" in seen["swaps"]


@pytest.mark.of_the_host
def test_sysctl_is_in_force(settings: Any, seen: Any) -> None:
    assert judge.not_in_force(settings.sysctl, seen["sysctl"]) == {}


@pytest.mark.of_the_host
def test_clock_is_kept(settings: Any, seen: Any) -> None:
    if not settings.time_synchronisation:
        pytest.skip("time_synchronisation = False")
    assert seen["units"]["systemd-timesyncd"] == "active"


@pytest.mark.of_the_host
def test_disk_has_room(seen: Any) -> None:
    assert seen["disks"], "the host told of no disk"
    assert {at: used for at, used in seen["disks"].items() if used >= SPACE.alert} == {}
