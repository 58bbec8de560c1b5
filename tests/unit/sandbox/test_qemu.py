"""QEMU's command line and process: what is forwarded where, and whose process is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox import qemu
from sandbox.qemu import Accelerator
from sandbox.state import Sandbox

PORTS = {"ssh": 2222, "http": 8080, "https": 8443}


def value(command: list[str], option: str) -> str:
    """What follows an option that stands there once."""
    assert command.count(option) == 1
    return command[command.index(option) + 1]


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path / "checkout, with a comma")


def test_one_cpu_and_two_gib(sandbox: Sandbox) -> None:
    command = qemu.command_line(sandbox, Accelerator.tcg, PORTS)
    assert (value(command, "-smp"), value(command, "-m")) == ("1", "2048")


def test_ports_are_forwarded_from_loopback_alone(sandbox: Sandbox) -> None:
    network = value(qemu.command_line(sandbox, Accelerator.tcg, PORTS), "-netdev").split(",")
    assert [part for part in network if part.startswith("hostfwd")] == [
        "hostfwd=tcp:127.0.0.1:2222-:22",
        "hostfwd=tcp:127.0.0.1:8080-:80",
        "hostfwd=tcp:127.0.0.1:8443-:443",
    ]


@pytest.mark.parametrize(
    ("accelerator", "processor"), [(Accelerator.kvm, "host"), (Accelerator.tcg, "max")]
)
def test_the_processor_follows_the_accelerator(
    sandbox: Sandbox, accelerator: Accelerator, processor: str
) -> None:
    command = qemu.command_line(sandbox, accelerator, PORTS)
    assert (value(command, "-accel"), value(command, "-cpu")) == (accelerator, processor)


def test_only_a_translated_guest_is_given_time(sandbox: Sandbox) -> None:
    given = {
        each: value(qemu.command_line(sandbox, each, PORTS), "-append").split()
        for each in Accelerator
    }
    assert set(given[Accelerator.kvm]) < set(given[Accelerator.tcg])
    assert "systemd.default_timeout_start_sec=900" in given[Accelerator.tcg]


def test_a_second_interface_is_there_where_there_is_a_device(sandbox: Sandbox) -> None:
    without = qemu.command_line(sandbox, Accelerator.tcg, PORTS)
    command = qemu.command_line(sandbox, Accelerator.tcg, PORTS, sandbox.tap)
    assert len(sandbox.tap) <= 15  # IFNAMSIZ
    assert set(command) - set(without) == {
        f"tap,id=link,ifname={sandbox.tap},script=no,downscript=no",
        "virtio-net-pci,romfile=,netdev=link",
    }
    cards = [part for part in command if part.startswith("virtio-net-pci")]
    assert cards[0].endswith("netdev=net"), "the guest's eth0 is the user network"


def test_a_comma_in_a_path_does_not_end_it(sandbox: Sandbox) -> None:
    root = next(p for p in qemu.command_line(sandbox, Accelerator.tcg, PORTS) if "id=root" in p)
    assert f"file={str(sandbox.vm / 'disk.img').replace(',', ',,')},format=raw" in root


def test_what_the_guest_flushes_reaches_the_disk(sandbox: Sandbox) -> None:
    root = next(p for p in qemu.command_line(sandbox, Accelerator.tcg, PORTS) if "id=root" in p)
    assert "cache=writeback" in root.split(",")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["/usr/bin/qemu-system-x86_64", "-name", "koprogo-sandbox-abcdef-vps"],
         "koprogo-sandbox-abcdef-vps"),
        (["qemu-system-x86_64", "-m", "1", "-name", "other"], "other"),
        (["qemu-system-x86_64", "-name"], None),
        (["grep", "qemu-system-x86_64", "-name", "koprogo-sandbox-abcdef-vps"], None),
        ([], None),
    ],
)  # fmt: skip
def test_only_a_qemu_has_a_guest(arguments: list[str], name: str | None) -> None:
    assert qemu.name_of(arguments) == name


def test_a_stale_pid_file_is_not_believed(sandbox: Sandbox) -> None:
    """After a hard stop of the machine its number may be anybody's: here it is this test's."""
    sandbox.vm.mkdir(parents=True)
    (sandbox.vm / "pid").write_text(f"{os.getpid()}\n")
    assert qemu.running(sandbox) is None
    assert not qemu.stop(sandbox)


def test_a_guest_is_found_without_its_pid_file(sandbox: Sandbox, tmp_path: Path) -> None:
    program = tmp_path / qemu.BINARY
    program.symlink_to(sys.executable)
    # Python keeps what follows `-c` in its arguments, as QEMU keeps its own.
    script = "import time; print(flush=True); time.sleep(60)"
    with subprocess.Popen(
        [str(program), "-c", script, "-name", sandbox.vps], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert qemu.running(sandbox) == process.pid
        assert sandbox.vps in qemu.others("another")
        assert qemu.others(sandbox.vps) == [n for n in qemu.others("another") if n != sandbox.vps]
        assert qemu.stop(sandbox)
        assert process.wait(timeout=5) != 0
    assert qemu.running(sandbox) is None
