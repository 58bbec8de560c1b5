"""The maintenance page: what Traefik is told, and what is made of its answer."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml

from koprogo_deploy import maintenance, status
from koprogo_deploy.facts.stack import parse_stack
from koprogo_deploy.journal import FIRST, Journal
from koprogo_deploy.maintenance import Maintenance
from tests import project

SETTINGS = project.settings()
WANTED = Maintenance(
    "2026-01-01T00:00:00+00:00", "anna@laptop", 'back at "ten", $5', 300, ("10.0.0.7", "fe80::/10")
)
LINE = maintenance.render(WANTED).splitlines()[0].removeprefix("# ")


def answer(wanted: Maintenance) -> str:
    """As Traefik's API gives it."""
    router = {"service": maintenance.service(wanted), "priority": 100000, "status": "enabled"}
    return json.dumps(router, separators=(",", ":"))


def test_everybody_but_the_listed_gets_503_with_the_words_and_when_to_ask_again() -> None:
    http = yaml.safe_load(maintenance.render(WANTED))["http"]
    router = http["routers"]["maintenance"]
    assert router["rule"] == "PathPrefix(`/`) && !ClientIP(`10.0.0.7`) && !ClientIP(`fe80::/10`)"
    assert http["services"][router["service"]] == {"loadBalancer": {"servers": []}}
    headers = http["middlewares"]["maintenance"]["headers"]["customResponseHeaders"]
    assert headers["Retry-After"] == "300"
    assert headers[maintenance.HEADER] == WANTED.message


def test_it_stands_above_every_route_of_a_release() -> None:
    routes = yaml.safe_load(project.release(SETTINGS).files["traefik/dynamic.yaml"])
    highest = max(r.get("priority", 0) for r in routes["http"]["routers"].values())
    page = yaml.safe_load(maintenance.render(WANTED))["http"]
    assert page["routers"]["maintenance"]["priority"] > highest
    for kind in ("routers", "services", "middlewares"):
        assert not set(page[kind]) & set(routes["http"][kind])


def test_what_was_asked_for_is_read_from_the_first_line() -> None:
    assert maintenance.parse(LINE) == WANTED
    assert "anna@laptop" in maintenance.told(WANTED)


def test_file_and_traefik_agree_or_not() -> None:
    other = Maintenance(**{**vars(WANTED), "allow": ()})
    missing = '{"message":"router not found: maintenance@file"}'
    cases = [
        (f"{LINE}\t{answer(WANTED)}", True, True),
        (f"{LINE}\t{answer(other)}", False, False),  # it has not read the new one
        (f"{LINE}\t{missing}", False, False),
        (f"\t{missing}", False, True),
        (f"\t{answer(WANTED)}", True, False),
        (f"{LINE}\t", None, False),
    ]
    for output, served, agreed in cases:
        seen = maintenance.parse_look(output)
        assert (seen.served, seen.agreed) == (served, agreed), output
        assert seen.wanted == (WANTED if output.startswith("{") else None)


@pytest.mark.parametrize("message", ["", "two\nlines", "à demain", "{{", "}}"])
def test_a_message_that_no_header_can_carry_is_refused(message: str) -> None:
    with pytest.raises(ValueError, match=r"; (write|leave)"):
        maintenance.one_line(message)
    assert maintenance.one_line(WANTED.message) == WANTED.message


def test_our_503_is_told_from_any_other() -> None:
    assert maintenance.ours({"x-maintenance": "back at ten"})
    assert not maintenance.ours({"Retry-After": "300"})


def test_status_is_not_well_while_it_is_on() -> None:
    stack = parse_stack([f"maintenance\t{LINE}", "docker\tyes"])
    found = status.problems(stack, status.Now(disk_free=1), Journal([], [], [], FIRST))
    assert found[0].startswith("maintenance is on since 2026-01-01 00:00 UTC by anna@laptop")


def test_commands_are_shell_that_parses() -> None:
    for command in (
        maintenance.on_command(SETTINGS, WANTED),
        maintenance.off_command(SETTINGS),
        maintenance.look_command(SETTINGS),
    ):
        done = subprocess.run(["sh", "-n"], input=command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), command
