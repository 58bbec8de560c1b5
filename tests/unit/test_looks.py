"""What a run has seen stands until anything is done to the host."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from koprogo_deploy.operations import looks


class Connector:
    def __init__(self) -> None:
        self.ran: list[str] = []

    def run_shell_command(self, command: str) -> int:
        self.ran.append(command)
        return len(self.ran)

    def put_file(self, name: str) -> None:
        if name == "broken":
            raise OSError

    def rsync(self, name: str) -> None:
        pass


@pytest.fixture
def connector(monkeypatch: pytest.MonkeyPatch) -> Connector:
    connector = Connector()

    def get_fact(fact: Any, **arguments: Any) -> int:
        return connector.run_shell_command(f"{fact} {arguments}")

    host = SimpleNamespace(name="box", connector=connector, get_fact=get_fact)
    monkeypatch.setattr(looks, "host", host)
    monkeypatch.setattr(looks, "state", SimpleNamespace(is_executing=True))
    monkeypatch.setattr(looks, "_seen", {})
    return connector


def look(fact: str, **arguments: Any) -> Any:
    return looks.look(fact, **arguments)  # type: ignore[arg-type]


def test_a_second_look_is_remembered_and_another_one_is_not(connector: Connector) -> None:
    looks.watch_commands()
    assert [look("stack"), look("stack"), look("stack", root="/x"), look("stack")] == [1, 1, 2, 1]


def test_every_command_and_upload_makes_it_forget(connector: Connector) -> None:
    looks.watch_commands()
    first = look("stack")
    connector.run_shell_command("rm")
    second = look("stack")
    connector.put_file("x")
    third = look("stack")
    with pytest.raises(OSError):
        connector.put_file("broken")
    assert len({first, second, third, look("stack")}) == 4


def test_what_showed_the_changes_does_not_make_them(
    connector: Connector, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks.watch_commands()
    monkeypatch.setattr(looks, "state", SimpleNamespace(is_executing=False))
    before = look("stack")
    monkeypatch.setattr(looks, "state", SimpleNamespace(is_executing=True))
    assert look("stack") != before


def test_nothing_is_remembered_where_nobody_watches(connector: Connector) -> None:
    assert look("stack") != look("stack")


def test_watching_twice_is_watching_once(connector: Connector) -> None:
    looks.watch_commands()
    watched = connector.run_shell_command
    looks.watch_commands()
    assert connector.run_shell_command == watched
