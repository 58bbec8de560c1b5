"""KVM or translation: decided by what is there, by what was found, and last by booting."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sandbox import accelerator, qemu
from sandbox.qemu import Accelerator


def never() -> bool:
    raise AssertionError("nothing was to be probed")


def test_without_the_device_nothing_is_probed() -> None:
    assert accelerator.decide(False, Accelerator.kvm, never)[0] is Accelerator.tcg


@pytest.mark.parametrize("found", [*Accelerator])
def test_what_was_found_before_is_not_probed_again(found: Accelerator) -> None:
    assert accelerator.decide(True, found, never)[0] is found


@pytest.mark.parametrize(("boots", "chosen"), [(True, "kvm"), (False, "tcg")])
def test_a_device_is_believed_when_a_kernel_boots_by_it(boots: bool, chosen: str) -> None:
    assert accelerator.decide(True, None, lambda: boots)[0] == chosen


@pytest.mark.parametrize(
    ("shown", "then", "boots"),
    [
        (accelerator.PROOF, "", True),
        (accelerator.PROOF, "time.sleep(60)", True),
        ("Linux version 6.12", "", False),
        ("", "time.sleep(60)", False),
    ],
)
def test_a_guest_boots_that_shows_the_proof_in_time(shown: str, then: str, boots: bool) -> None:
    script = f"import time; print({shown!r}, flush=True); {then}"
    assert accelerator.boots([sys.executable, "-c", script], within=1) is boots


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ('{"one": "kvm", "two": "hvf"}', {"one": "kvm"}),
        ('["kvm"]', {}),
        ('{"one": "kv', {}),
        (None, {}),
    ],
)
def test_memory_that_cannot_be_read_is_none(
    tmp_path: Path, text: str | None, known: dict[str, str]
) -> None:
    path = tmp_path / "accelerator.json"
    if text is not None:
        path.write_text(text)
    assert accelerator.recall(path) == known


def folder_of(path: Path) -> Path:
    folder = path / "disk-of-a-test"
    folder.mkdir()
    for part in ("vmlinuz", "initrd"):
        (folder / part).write_text(part)
    return folder


def test_it_is_probed_once_for_each_pair_of_kernel_and_qemu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes: list[list[str]] = []

    def probe(command: list[str]) -> bool:
        probes.append(command)
        return False

    folder, memory = folder_of(tmp_path), tmp_path / "memory.json"
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(accelerator, "DEVICE", device)
    monkeypatch.setattr(accelerator, "boots", probe)
    monkeypatch.setattr(qemu, "version", lambda: "QEMU 1")
    assert accelerator.choose(folder, memory)[0] is Accelerator.tcg
    assert accelerator.choose(folder, memory)[0] is Accelerator.tcg
    assert len(probes) == 1
    monkeypatch.setattr(qemu, "version", lambda: "QEMU 2")
    accelerator.choose(folder, memory)
    assert len(probes) == 2
    (folder / "vmlinuz").write_text("another kernel")
    accelerator.choose(folder, memory)
    assert len(probes) == 3
