"""pyinfra's inside is used in one package; the rest keeps to what pyinfra documents."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyinfra.api import BaseStateCallback, Config, Inventory, State, StringCommand

from koprogo_deploy.pyinfra_adapter import commands, connection, events
from koprogo_deploy.pyinfra_adapter.within import within
from tests.project import ROOT

ADAPTER = "koprogo_deploy/pyinfra_adapter/"
FOLDERS = ("koprogo_deploy", "deploys", "group_data", "inventories", "sandbox", "bench", "scripts")
FOREIGN = ("pyinfra", "pyinfra_cli", "gevent", "paramiko", "greenlet")
# What pyinfra documents for inventories, deploys, operations and facts.
DOCUMENTED = {
    "pyinfra": {"host", "inventory", "logger", "state"},
    "pyinfra.api": {"FactBase", "FunctionCommand", "StringCommand", "deploy", "operation"},
    "pyinfra.api.exceptions": {"OperationError", "PyinfraError"},
}
# Of the objects of a run, by their name in pyinfra.
ATTRIBUTES = {
    "host": {"data", "get_fact", "name", "noop", "run_shell_command"},
    "inventory": {"get_override_data"},
    "logger": {"debug", "error", "info", "warning"},
    "state": {"is_executing"},
}
# On any object: nothing else of ours has these names.
INSIDE = {
    *("connector", "callback_handlers", "add_callback_handler", "get_op_meta", "operation_meta"),
    *("get_raw_value", "connector_arguments", "get_transport", "_koprogo_watched"),
}


class Uses(ast.NodeVisitor):
    """What a module uses of pyinfra's inside, gevent and paramiko."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.bound: dict[str, str] = {}  # names here, by what they are in pyinfra
        self.shadowed: list[set[str]] = []

    def visit_Import(self, node: ast.Import) -> None:
        names = [n.name for n in node.names if n.name.partition(".")[0] in FOREIGN]
        self.found += [f"{node.lineno}: import {name}" for name in names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if node.level or module.partition(".")[0] not in FOREIGN:
            return
        for name in node.names:
            if name.name not in DOCUMENTED.get(module, ()):
                self.found.append(f"{node.lineno}: from {module} import {name.name}")
            self.bound[name.asname or name.name] = name.name

    def _function(self, node: ast.FunctionDef | ast.Lambda) -> None:
        a = node.args
        names = {each.arg for each in (*a.posonlyargs, *a.args, *a.kwonlyargs)}
        stores = (n for n in ast.walk(node) if isinstance(n, ast.Name))
        names |= {n.id for n in stores if isinstance(n.ctx, ast.Store)}
        self.shadowed.append(names)
        self.generic_visit(node)
        self.shadowed.pop()

    visit_FunctionDef = visit_Lambda = _function  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if node.attr in INSIDE:
            self.found.append(f"{node.lineno}: .{node.attr}")
        elif isinstance(node.value, ast.Name) and not any(
            node.value.id in names for names in self.shadowed
        ):
            what = self.bound.get(node.value.id, "")
            if what in ATTRIBUTES and node.attr not in ATTRIBUTES[what]:
                self.found.append(f"{node.lineno}: {what}.{node.attr}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        # How it recognises the function's arguments is written nowhere.
        if isinstance(node.func, ast.Name) and self.bound.get(node.func.id) == "FunctionCommand":
            self.found.append(f"{node.lineno}: FunctionCommand(…)")
        self.generic_visit(node)


def uses(text: str) -> list[str]:
    visitor = Uses()
    visitor.visit(ast.parse(text))
    return visitor.found


def modules() -> Iterator[Path]:
    yield ROOT / "config.py"
    for folder in FOLDERS:
        yield from (ROOT / folder).rglob("*.py")


def test_nothing_but_the_adapter_leans_on_pyinfras_inside() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{use}"
        for path in modules()
        if not str(path.relative_to(ROOT)).startswith(ADAPTER)
        for use in uses(path.read_text(encoding="utf-8"))
    ]
    assert not found, "put it behind a function of koprogo_deploy/pyinfra_adapter: " + str(found)


def test_tests_import_what_is_documented_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{use}"
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in ("test_pyinfra_adapter.py", "test_sha1.py")  # of the adapter itself
        for use in uses(path.read_text(encoding="utf-8"))
        if "import" in use
    ]
    assert not found


@pytest.mark.parametrize(
    "line",
    [
        "import gevent",
        "import pyinfra.api.state",
        "from gevent import sleep",
        "from pyinfra_cli.util import parse_cli_arg",
        "from pyinfra.api.state import BaseStateCallback",
        "from pyinfra.connectors.ssh import SSHConnector",
        "from pyinfra import host as here\nhere.connector",
        "from pyinfra import host\nhost.put_file('x', 'y')",
        "from pyinfra import state\ndef f():\n    return state.inventory",
        "from pyinfra.api import FunctionCommand as Call\nCall(print, [], {})",
        "command.get_raw_value()",
        "def f():\n    import paramiko",
    ],
)
def test_the_guard_sees(line: str) -> None:
    assert uses(line)


def test_the_guard_lets_pass_what_is_documented() -> None:
    assert not uses("from pyinfra import host, state\nhost.noop('x') if state.is_executing else 0")
    assert not uses("from pyinfra import state\ndef f(state):\n    return state.current")


def test_the_adapter_knows_nothing_of_ours() -> None:
    for path in (ROOT / ADAPTER).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                module = node.module or ""
                assert not module.startswith("koprogo_deploy") or module.startswith(
                    "koprogo_deploy.pyinfra_adapter"
                ), path


# --- what it leans on is as it takes it for ------------------------------------------------------


@pytest.mark.parametrize(
    "name", [n for n in vars(events._Bridge) if n.startswith(("operation_", "host_"))]
)
def test_pyinfra_calls_back_as_the_bridge_expects(name: str) -> None:
    theirs = inspect.signature(getattr(BaseStateCallback, name)).parameters
    assert list(theirs) == list(inspect.signature(getattr(events._Bridge, name)).parameters)[1:]


class Heard(events.Listener):
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def step_began(self, step: events.Step) -> None:
        self.told.append(f"began {step.key}")

    def step_failed(self, step: events.Step, host: Any) -> None:
        self.told.append(f"failed {step.name} on {host}")

    def step_ended(self, step: events.Step) -> None:
        self.told.append(f"ended {step.changed}")


def test_who_listens_hears_of_each_step_once(monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(Inventory((["@local"], {})), Config())
    meta = SimpleNamespace(names={"Cut over | Switch"})
    done = SimpleNamespace(operation_meta=SimpleNamespace(did_change=lambda: True))
    monkeypatch.setattr(events, "current", state)
    monkeypatch.setattr(state, "get_op_meta", lambda _: meta)
    monkeypatch.setattr(state, "get_op_data_for_host", lambda *_: done)
    hosts = SimpleNamespace(get_active_hosts=lambda: ["box"])
    monkeypatch.setattr(state, "inventory", hosts, raising=False)
    told: list[str] = []
    for _ in range(2):
        events.listen(Heard(told))
    state.trigger_callbacks("operation_start", "k")
    state.trigger_callbacks("operation_host_error", "box", "k", 0, 0)
    state.trigger_callbacks("operation_end", "k")
    state.trigger_callbacks("host_connect", "box")
    assert told == ["began k", "failed Cut over | Switch on box", "ended True"]


def test_who_came_first_hears_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(Heard):
        pass

    state = State(Inventory((["@local"], {})), Config())
    monkeypatch.setattr(events, "current", state)
    first: list[str] = []
    events.listen(Heard(first))
    events.listen(Other(first))
    assert [type(h.listener) for h in state.callback_handlers] == [Heard, Other]


@pytest.mark.parametrize("well", [True, False])
def test_a_function_gets_the_host_and_its_answer_counts(well: bool) -> None:
    asked: list[object] = []

    def answer(host: object) -> bool:
        asked.append(host)
        return well

    assert commands.calling(answer).execute(None, "box", {}) is well
    assert asked == ["box"]


def test_the_text_of_a_command_is_what_the_shell_gets() -> None:
    assert commands.text("id") == commands.text(StringCommand("id")) == "id"


def test_what_takes_too_long_ends_with_a_timeout_error() -> None:
    import gevent

    with pytest.raises(TimeoutError), within(0.01):
        gevent.sleep(5)


def test_a_command_of_the_local_connector_lives_as_long_as_it_is_kept() -> None:
    host = SimpleNamespace(connector=SimpleNamespace())
    keeper, lines = connection.begin(host, "echo held; cat >/dev/null; echo gone", 5)
    assert next(iter(lines)) == "held\n"
    assert keeper.poll() is None  # type: ignore[attr-defined]
    keeper.stdin.close()  # type: ignore[attr-defined]
    assert list(lines) == ["gone\n"]
    assert keeper.wait(5) == 0  # type: ignore[attr-defined]
