"""Two kinds of sandbox: which one is brought up, and what a deploy is told of each."""

from __future__ import annotations

import io
import json
import runpy
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from sandbox import disk, lifecycle
from sandbox import state as states
from sandbox.console import SandboxError
from sandbox.state import Kind, Sandbox
from tests.project import ROOT


@pytest.mark.parametrize(
    ("present", "asked", "chosen"),
    [
        (None, None, Kind.box),
        (None, Kind.vm, Kind.vm),
        (Kind.vm, None, Kind.vm),
        (Kind.vm, Kind.vm, Kind.vm),
        (Kind.box, None, Kind.box),
    ],
)
def test_what_is_there_is_kept(present: Kind | None, asked: Kind | None, chosen: Kind) -> None:
    assert states.choose_kind(present, asked) is chosen


@pytest.mark.parametrize(("present", "asked"), [(Kind.box, Kind.vm), (Kind.vm, Kind.box)])
def test_another_kind_is_refused(present: Kind, asked: Kind) -> None:
    with pytest.raises(SandboxError, match=f"is a {present}, and a {asked}") as refused:
        states.choose_kind(present, asked)
    assert "make sandbox-down" in refused.value.hint


PORTS = {"ssh": 2222, "http": 8080, "https": 8443}


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    made = Sandbox(tmp_path)
    made.directory.mkdir()
    return made


def save(sandbox: Sandbox, **changes: Any) -> None:
    """Write a state as `up` does."""
    state = lifecycle.describe(sandbox, "10.213.7", PORTS)
    for name, value in changes.items():
        setattr(state, name, value)
    states.save(sandbox, state)


def test_the_kind_is_kept_in_the_state(sandbox: Sandbox) -> None:
    save(sandbox, kind=Kind.vm, accelerator="tcg")
    found = states.read(sandbox)
    assert found and (found.kind, found.accelerator) == (Kind.vm, "tcg")
    assert lifecycle.present(sandbox) is Kind.vm


def test_a_state_of_before_is_a_box(sandbox: Sandbox) -> None:
    save(sandbox)
    path = sandbox.directory / "state.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items()
                                if k not in ("kind", "accelerator")}))  # fmt: skip
    found = states.read(sandbox)
    assert found and found.kind is Kind.box


def test_a_disk_without_a_state_is_a_virtual_machine(sandbox: Sandbox) -> None:
    assert lifecycle.present(sandbox) is None
    sandbox.vm.mkdir()
    (sandbox.vm / "disk.img.new").touch()  # half copied
    assert lifecycle.present(sandbox) is None
    (sandbox.vm / "disk.img").touch()
    assert lifecycle.present(sandbox) is Kind.vm


# --- what a deploy is told -----------------------------------------------------------------------


def group_data(name: str) -> dict[str, Any]:
    return runpy.run_path(str(ROOT / f"group_data/{name}.py"))


def host_data(sandbox: Sandbox) -> dict[str, Any]:
    """The inventory's data for its one host."""
    for name in ("inventories", "group_data"):
        shutil.copytree(ROOT / name, sandbox.root / name, dirs_exist_ok=True)
    [(_, data)] = runpy.run_path(str(sandbox.root / "inventories/sandbox.py"))["vps"]
    return dict(data)


def test_a_box_leaves_the_machines_kernel_alone(sandbox: Sandbox) -> None:
    save(sandbox)
    data = host_data(sandbox)
    assert (data["swap"], data["time_synchronisation"]) == (None, False)
    assert data["sysctl"]
    assert all(key.startswith("net.") for key in data["sysctl"])
    assert data["scan_address"] == "10.213.7.10"
    assert data["load_client_addresses"] == ["10.213.7.1"]


def test_a_virtual_machine_is_set_up_as_production(sandbox: Sandbox) -> None:
    save(sandbox, kind=Kind.vm, gateway="10.0.2.2", box_address="")
    data = host_data(sandbox)
    for name in ("swap", "time_synchronisation", "sysctl"):
        assert name not in data
        assert name not in group_data("sandbox")
        assert name in group_data("all")
    assert data["load_client_addresses"] == data["superadmin_addresses"] == ["10.0.2.2"]
    assert data["scan_address"] is None


def test_a_virtual_machine_with_an_address_of_its_own_is_scanned_there(sandbox: Sandbox) -> None:
    save(sandbox, kind=Kind.vm, gateway="10.0.2.2")
    assert host_data(sandbox)["scan_address"] == "10.213.7.10"


def test_both_kinds_tell_the_same_settings(sandbox: Sandbox) -> None:
    save(sandbox)
    box = set(host_data(sandbox))
    save(sandbox, kind=Kind.vm)
    assert box - set(host_data(sandbox)) == {"swap", "time_synchronisation", "sysctl"}


# --- disks -----------------------------------------------------------------------------------


def test_the_drive_tells_the_first_boot_from_each_one() -> None:
    drive = disk.furnishing({"etc/key": (b"k", 0o600, 0)}, {"etc/hosts": (b"h", 0o644, 1000)})
    with tarfile.open(fileobj=io.BytesIO(drive)) as tar:
        members = {m.name: (m.mode, m.uid) for m in tar}
    assert members == {"first/etc/key": (0o600, 0), "always/etc/hosts": (0o644, 1000)}
    assert len(drive) % 512 == 0


def test_a_half_copied_disk_is_copied_again(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made = disk.made("koprogo-sandbox/vm:abc")
    assert made == tmp_path / "cache/koprogo-sandbox/disk-abc"
    made.mkdir(parents=True)
    for part in disk.PARTS:
        (made / part).write_text(f"whole {part}")
    sandbox.vm.mkdir()
    (sandbox.vm / "disk.img.new").write_text("ha")
    disk.copy("koprogo-sandbox/vm:abc", sandbox.vm)
    assert (sandbox.vm / "disk.img").read_text() == "whole disk.img"
    assert not list(sandbox.vm.glob("*.new"))
