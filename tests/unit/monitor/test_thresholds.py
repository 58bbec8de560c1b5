"""Normal, raised, alert: the guide's bounds; and unknown, which is never normal."""

from __future__ import annotations

import pytest

from koprogo_deploy.monitor import reading, table
from koprogo_deploy.monitor.thresholds import (
    CONTAINERS,
    Finding,
    Level,
    findings,
    load_bounds,
    memory_bounds,
    worst,
)
from koprogo_deploy.runs.sample import ContainerSample, PostgresSample, Sample
from koprogo_deploy.units import GB, MB
from tests.unit.monitor import samples

LIMITS = {"backend": 128, "postgres": 512, "traefik": 80, "frontend": 32}


def found(sample: Sample, subject: str, name: str) -> Finding:
    (one,) = [f for f in findings(sample) if (f.subject, f.threshold.name) == (subject, name)]
    return one


@pytest.mark.parametrize(
    ("subject", "figure", "value", "level"),
    [
        ("backend", "cpu", 5, "normal"),
        ("backend", "cpu", 30, "normal"),
        ("backend", "cpu", 79, "raised"),
        ("backend", "cpu", 81, "alert"),
        ("backend", "memory", 64, "normal"),
        ("backend", "memory", 119, "raised"),
        ("backend", "memory", 121, "alert"),
        ("postgres", "cpu", 30, "normal"),
        ("postgres", "cpu", 61, "alert"),
        ("postgres", "memory", 255, "normal"),
        ("postgres", "memory", 479, "raised"),
        ("postgres", "memory", 481, "alert"),
        ("frontend", "memory", 16, "normal"),
        ("frontend", "memory", 31, "alert"),
        ("traefik", "memory", 59, "normal"),
        ("traefik", "memory", 70, "raised"),
        ("traefik", "memory", 76, "alert"),
        ("backend-green", "cpu", 81, "alert"),  # the second colour, during a switch
    ],
)
def test_the_bounds_of_containers(subject: str, figure: str, value: float, level: str) -> None:
    limit = LIMITS[subject.partition("-")[0]] * MB
    made = samples.container(**{figure: value, "memory_limit": limit})
    one = found(samples.with_container(subject, made), subject, figure.replace("cpu", "CPU"))
    assert one.level == level


def test_an_alert_comes_before_the_kernel_kills_whatever_the_limit_is() -> None:
    for size in (16, 48, 80, 128, 512, 4096):
        for guide in (None, *(memory for _, memory in CONTAINERS.values())):
            bounds = memory_bounds(guide, size * MB)
            assert bounds is not None
            assert bounds.normal <= bounds.alert < size
    for _, guide in CONTAINERS.values():
        assert memory_bounds(guide, None) == guide, "without a limit the guide's word stands"
    assert memory_bounds(None, None) is None


def test_a_larger_machine_may_bear_a_larger_load() -> None:
    assert [load_bounds(cpus).alert for cpus in (None, 1, 2, 4)] == [3.0, 3.0, 6.0, 12.0]


@pytest.mark.parametrize(
    ("load", "level"), [(1.4, "normal"), (1.6, "raised"), (3.0, "raised"), (3.1, "alert")]
)
def test_the_guides_bounds_of_the_load(load: float, level: str) -> None:
    one = found(samples.sample(host=samples.host(load1=load)), "host", "load average")
    assert one.level == level


@pytest.mark.parametrize(("busy", "level"), [(19, "normal"), (50, "raised"), (81, "alert")])
def test_the_guides_bounds_of_a_disk(busy: float, level: str) -> None:
    disk = samples.host().disks["vda"].model_copy(update={"busy_percent": busy})
    one = found(samples.sample(host=samples.host(disks={"vda": disk})), "disk vda", "busy")
    assert one.level == level


@pytest.mark.parametrize(
    ("count", "level"), [(16, "normal"), (17, "raised"), (22, "raised"), (23, "alert")]
)
def test_connections_are_counted_in_every_state(count: int, level: str) -> None:
    states = {"idle": count - 2, "idle in transaction": 1, "active": 1}
    made = samples.sample(postgres=samples.postgres(connections=states))
    assert found(made, "postgres", "connections").level == level


def test_a_kill_at_the_limit_is_an_alert() -> None:
    made = samples.with_container("backend", samples.container(oom_kills=1))
    assert found(made, "backend", "processes killed at the limit").level is Level.alert


def test_space_is_what_is_left_of_what_can_be_used() -> None:
    made = samples.sample(host=samples.host(disk_free=1 * GB, disk_total=25 * GB))
    assert found(made, "host", "disk space used").value == pytest.approx(96)


def test_a_host_that_is_well_has_nothing_to_say() -> None:
    sample = samples.sample()
    assert {finding.level for finding in findings(sample)} == {Level.normal}
    assert table.remarks(sample, findings(sample)) == []


def test_what_was_not_read_is_unknown_with_its_reason_and_never_normal() -> None:
    made = samples.with_container(
        "backend",
        ContainerSample(),
        postgres=PostgresSample(),
        unread={"containers.backend": "not running", "postgres": "it says: too many clients"},
    )
    about = [f for f in findings(made) if f.subject in ("backend", "postgres")]
    unknown = [f for f in about if f.value is None]
    assert {f.subject for f in unknown} == {"backend", "postgres"}
    assert {f.level for f in unknown} == {Level.unknown}
    assert str(unknown[0]) == "backend CPU: unknown, not running"
    assert worst([f for f in about if f.subject == "backend"]) is Level.unknown
    assert worst([]) is Level.unknown


def test_no_disk_at_all_is_unknown_too() -> None:
    made = samples.sample(host=samples.host(disks={}), unread={"host.disks": "no such file"})
    (one,) = [f for f in findings(made) if f.threshold.name == "busy"]
    assert (one.level, one.why) == (Level.unknown, "no such file")


def test_an_alert_outweighs_the_unknown() -> None:
    made = samples.with_container("backend", samples.container(cpu=None, memory=500))
    own = [f for f in findings(made) if f.subject == "backend"]
    assert worst(own) is Level.alert


def test_a_finding_says_how_far_it_is() -> None:
    made = samples.with_container("traefik", samples.container(memory=77, memory_limit=80 * MB))
    assert str(found(made, "traefik", "memory")) == "traefik memory 77 MB (alert: > 75 MB)"


def test_each_missing_value_has_the_reason_of_itself_or_of_what_it_is_part_of() -> None:
    made = samples.with_container(
        "backend",
        samples.container(cpu=None, memory_limit=None),
        postgres=PostgresSample(),
        unread={"containers.backend.memory_limit": "no limit", "postgres": "not connected"},
    )
    missing = reading.missing(made)
    assert missing["containers.backend.memory_limit"] == "no limit"
    assert missing["postgres.commits"] == "not connected"
    assert missing["containers.backend.cpu_percent"] == reading.NO_REASON
    # A missing limit is no trouble; what has no reason is.
    assert reading.troubles(made) == {
        "postgres": "not connected",
        "containers.backend.cpu_percent": reading.NO_REASON,
    }


def test_sizes_are_compared_as_docker_counts_them() -> None:
    own = samples.container(memory=75, memory_limit=80 * MB)
    made = samples.with_container("traefik", own)
    assert made.containers["traefik"].memory == 75 * MB
    assert found(made, "traefik", "memory").level is Level.raised
