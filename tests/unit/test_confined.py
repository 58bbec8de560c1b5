"""A program of an image, run from the host: what it cannot do there."""

import os
import platform
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from koprogo_deploy.data import confined, host
from koprogo_deploy.data.host import Failed

ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def judged(machine: str, number: int, first: int = 0, architecture: int | None = None) -> int:
    """What the filter answers to a system call: the kernel's own steps, one by one."""
    program = list(struct.iter_unpack("=HBBI", confined.seccomp_filter(machine)))
    arch = confined.MACHINES[machine][1] if architecture is None else architecture
    shown = {0: number, 4: arch, 16: first}
    at, loaded = 0, 0
    while True:
        code, yes, no, value = program[at]
        at += 1
        match code:
            case 0x20:
                loaded = shown[value]
            case 0x15:
                at += yes if loaded == value else no
            case 0x25:
                at += yes if loaded > value else no
            case 0x45:
                at += yes if loaded & value else no
            case 0x06:
                return int(value)


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_what_reaches_deeper_into_the_kernel_is_refused(machine: str, column: int) -> None:
    for numbers in confined.REFUSED.values():
        if (number := numbers[column]) is not None:
            assert judged(machine, number) == ERROR | 1
    assert judged(machine, confined.CLONE3) == ERROR | 38
    assert judged(machine, confined.NEWEST + 1) == ERROR | 38
    assert judged(machine, 0x40000000 + 1) == ERROR | 38, "x32's numbers pass"
    assert judged(machine, 1, architecture=0x40000003) == KILL, "32-bit calls pass"


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_a_process_may_be_made_and_a_namespace_may_not(machine: str, column: int) -> None:
    clone, socket = confined.CLONE[column], confined.SOCKET[column]
    assert judged(machine, clone, first=0x01200011) == ALLOW
    for flag in (0x20000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert judged(machine, clone, first=flag | 17) == ERROR | 1
    assert judged(machine, socket, first=1) == judged(machine, socket, first=2) == ALLOW
    assert judged(machine, socket, first=38) == judged(machine, socket, first=40) == ERROR | 97
    assert judged(machine, 1 if machine == "x86_64" else 64) == ALLOW


def test_a_machine_whose_calls_are_not_known_runs_nothing() -> None:
    with pytest.raises(ValueError, match="riscv64: x86_64, aarch64 are known"):
        confined.seccomp_filter("riscv64")


@pytest.mark.skipif(platform.machine() not in confined.MACHINES, reason="no table for this machine")
def test_the_kernel_takes_the_filter_and_keeps_to_it() -> None:
    program = (
        "import ctypes, os, platform, socket\n"
        "from koprogo_deploy.data import confined\n"
        "kernel = confined.Kernel()\n"
        "kernel.control(confined._SET_NO_NEW_PRIVS, 1)\n"
        "kernel.filter(confined.seccomp_filter(platform.machine()))\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == 1\n"
        "socket.socket(socket.AF_UNIX).close()\n"
        "status = open('/proc/self/status').read()\n"
        "assert 'NoNewPrivs:\\t1' in status and 'Seccomp:\\t2' in status\n"
        "if os.fork() == 0: os._exit(0)\n"
        "assert os.wait()[1] == 0\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(host.__file__).parents[2])


def test_only_a_container_s_user_by_number_is_run_as_and_not_root() -> None:
    for user in ('""', '"0"', '"0:0"', '"postgres"', '"999:0"'):
        with pytest.raises(Failed, match="not root's"):
            host.entered(f'true 4711 {user} ["PATH=/bin"]', "koprogo-postgres-1", "psql")


def test_a_container_s_program_is_run_by_the_one_that_confines() -> None:
    command = host.entered('true 4711 "999" ["PATH=/a:/b"]', "koprogo-postgres-1", "psql", "-X")
    assert command[1:3] == ["-I", "-S"]
    assert os.path.basename(command[3]) == "confined.py"  # noqa: PTH119
    assert command[4:7] == ["4711", "999", "999"]
    end = command.index("--")
    assert {"PATH=/a:/b", "LC_ALL=C.UTF-8"} <= set(command[7:end])
    assert command[end + 1 :] == ["psql", "-X"]
