"""What people see: a table, a line for a log, a summary."""

from __future__ import annotations

from rich.console import Console

from koprogo_deploy.monitor import table
from koprogo_deploy.runs.sample import (
    ContainerSample,
    HostSample,
    PostgresSample,
    Sample,
    TraefikSample,
)
from tests.unit.monitor import samples


def shown(part: object, width: int = 120) -> str:
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_the_table_shows_every_part() -> None:
    text = shown(table.screen(samples.sample(), "sandbox, vps"))
    for words in (
        "sandbox, vps", "0.40 % of a CPU", "backend    20.0 %  33.0 MB", "normal",
        "load 0.40", "480 of 2048 MB", "vda", "1.20 ms", "out 2.9 MB/s", "1 active, 7 idle of 25",
        "commits 200/s", "cache hit 99.9 %", "2xx 198.0/s", "open connections 8",
    ):  # fmt: skip
        assert words in text, f"{words!r} is not in\n{text}"
    assert "?" not in text


def test_a_load_that_was_counted_says_so() -> None:
    made = samples.sample(host=samples.host(load_source="tasks"))
    assert "load 0.40 (its own tasks)" in shown(table.screen(made, ""))


def test_nothing_read_shows_no_number_and_no_normal() -> None:
    nothing = Sample(
        at=1.0,
        host=HostSample(disks={}),
        containers={"backend": ContainerSample()},
        unread={"host": "gone", "containers": "gone", "postgres": "gone", "traefik": "gone"},
    )
    text = shown(table.screen(nothing, ""))
    assert "normal" not in text
    assert "unknown" in text
    assert "0 " not in text.partition("costs")[2]
    assert "unread: postgres: gone" in text
    line = table.line(nothing)
    assert "CPU ? load ? mem ?" in line and "req ? 5xx ?" in line and "unread" in line


def test_what_has_nothing_to_measure_is_a_dash_not_a_question() -> None:
    idle = samples.host().disks["vda"].model_copy(update={"read_ms": None})
    made = samples.sample(
        host=samples.host(disks={"vda": idle}), unread={"host.disks.vda.read_ms": "no reads"}
    )
    text = shown(table.screen(made, ""))
    assert "read 0 B/s –" in text
    assert "unread" not in text


def test_alerts_come_first_and_in_the_log_line_too() -> None:
    made = samples.with_container("backend", samples.container(cpu=95, memory=300))
    text = shown(table.screen(made, ""))
    assert text.index("alert: backend CPU 95 % (alert: > 80 %)") < text.index("raised: backend mem")
    assert "ALERT backend CPU 95 %" in table.line(made)


def test_a_lost_connection_is_shown() -> None:
    assert "connection lost" in shown(table.screen(samples.sample(), "", "connection lost"))


def test_the_summary_counts_in_how_many_samples_a_figure_was_read() -> None:
    some = [samples.sample(host=samples.host(cpu_percent=float(n))) for n in range(1, 101)]
    some.append(samples.sample(host=samples.host(cpu_percent=None), traefik=TraefikSample()))
    text = shown(table.summary(some))
    (row,) = [line for line in text.splitlines() if line.startswith("host CPU")]
    assert row.split()[2:] == ["50.5", "%", "95.0", "%", "100.0", "%", "100", "of", "101"]
    never = [samples.sample(postgres=PostgresSample())]
    (row,) = [r for r in shown(table.summary(never)).splitlines() if r.startswith("postgres commi")]
    assert row.split()[2:] == ["?", "?", "?", "0", "of", "1"]
