"""Runs on the host: a program of a container's image, confined as in there, in our memory limit.

`docker exec` would charge the program to the container's memory limit. Here it stays in ours, and
the rest is as Docker has it: the container's namespaces, its user, no capability and none to gain,
`no_new_privs`, and a filter of system calls. What lies in an image is somebody else's: a
setuid-root program in there must not be root out here.

    python3 -I confined.py PID UID GID NAME=VALUE ... -- PROGRAM [ARGUMENT ...]

The standard library alone; once inside, nothing is imported, opened or run but that program.
"""

import contextlib
import ctypes
import os
import platform
import struct
import sys
from collections.abc import Sequence

# The mount namespace last: until then we see our own files. With clone's flag of each, without
# which systemd's RestrictNamespaces lets nobody enter one.
NAMESPACES = {
    "cgroup": 0x02000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "net": 0x40000000,
    "pid": 0x20000000,
    "mnt": 0x00020000,
}

# System calls by number on x86_64 and aarch64: what Docker's own profile refuses to a container
# without capabilities. Most want a capability anyway; the rest are ways deeper into the kernel.
# None: not there.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    "_sysctl": (156, None),
    "acct": (163, 89),
    "add_key": (248, 217),
    "adjtimex": (159, 171),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_adjtime": (305, 266),
    "clock_settime": (227, 112),
    "create_module": (174, None),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "get_mempolicy": (239, 236),
    "init_module": (175, 105),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_uring_setup": (425, 425),
    "ioperm": (173, None),
    "iopl": (172, None),
    "kcmp": (312, 272),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "lookup_dcookie": (212, 18),
    "mbind": (237, 235),
    "migrate_pages": (256, 238),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "move_pages": (279, 239),
    "name_to_handle_at": (303, 264),
    "nfsservctl": (180, 42),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "personality": (135, 92),
    "pidfd_getfd": (438, 438),
    "pivot_root": (155, 41),
    "process_madvise": (440, 440),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "set_mempolicy": (238, 237),
    "setdomainname": (171, 162),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (164, 170),
    "swapoff": (168, 225),
    "swapon": (167, 224),
    "sysfs": (139, None),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "uselib": (134, None),
    "userfaultfd": (323, 282),
    "ustat": (136, None),
    "vhangup": (153, 58),
}
NEWEST = 450  # a call that is newer than this list is answered as by an older kernel
CLONE3 = 435  # its flags lie in memory, where no filter can look: libc then takes clone
CLONE, SOCKET = (56, 220), (41, 198)
NEW_NAMESPACES = 0x7E020000  # of clone's flags
FAMILIES = (1, 2, 10, 16)  # of sockets: unix, IPv4, IPv6, netlink
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

_LOAD, _EQUAL, _GREATER, _ANY_BIT, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # where they lie in what the filter is shown
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS, _EAFNOSUPPORT = 1, 38, 97

_SET_DUMPABLE, _SET_PDEATHSIG, _SET_SECCOMP = 4, 1, 22
_CAPBSET_READ, _CAPBSET_DROP, _MOST_CAPABILITIES = 23, 24, 64
_SET_NO_NEW_PRIVS, _CAP_AMBIENT, _AMBIENT_CLEAR = 38, 47, 4
_FILTER, _SIGKILL = 2, 9
_CAPABILITIES = 0x20080522  # version of capset's header


def seccomp_filter(machine: str) -> bytes:
    """The filter as the kernel takes it, eight bytes an instruction. Pure.

    Raises:
        ValueError: the numbers of this machine's system calls are not known here.
    """
    if machine not in MACHINES:
        raise ValueError(
            f"no filter of system calls for {machine}: {', '.join(MACHINES)} are known"
        )
    column, architecture = MACHINES[machine]
    refused = sorted(n for each in REFUSED.values() if (n := each[column]) is not None)

    def answer(error: int) -> tuple[int, int, int, int]:
        return _RETURN, 0, 0, _ERROR | error

    allow = (_RETURN, 0, 0, _ALLOW)
    program = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_GREATER, 0, 1, NEWEST),  # those of x32 as well
        answer(_ENOSYS),
        (_EQUAL, 0, 1, CLONE3),
        answer(_ENOSYS),
    ]
    for number in refused:
        program += [(_EQUAL, 0, 1, number), answer(_EPERM)]
    program += [
        (_EQUAL, 0, 4, CLONE[column]),
        (_LOAD, 0, 0, _FIRST),
        (_ANY_BIT, 0, 1, NEW_NAMESPACES),
        answer(_EPERM),
        allow,
        (_EQUAL, 1, 0, SOCKET[column]),
        allow,
        (_LOAD, 0, 0, _FIRST),
    ]
    for family in FAMILIES:
        program += [(_EQUAL, 0, 1, family), allow]
    program.append(answer(_EAFNOSUPPORT))
    return b"".join(struct.pack("=HBBI", *each) for each in program)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class _NotThereError(Exception):
    """The image does not have that program."""


class Kernel:
    """The system calls that Python does not have, each an error if it fails."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._setns, self._prctl, self._capset = libc.setns, libc.prctl, libc.capset
        self._prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4

    def _checked(self, result: int, what: str) -> None:
        if result < 0:
            code = ctypes.get_errno()
            raise OSError(code, f"{what}: {os.strerror(code)}")

    def enter(self, descriptor: int, kind: str) -> None:
        """Join a namespace."""
        self._checked(
            self._setns(descriptor, NAMESPACES[kind]), f"the container's {kind} namespace"
        )

    def control(self, option: int, *values: int) -> None:
        """prctl."""
        padded = [*values, 0, 0, 0, 0][:4]
        self._checked(self._prctl(option, *padded), f"prctl {option}")

    def bound_nothing(self) -> None:
        """No program that is run from here on gains a capability."""
        # Up to the first that the kernel does not know; /proc may not say which is the last.
        for capability in range(_MOST_CAPABILITIES):
            if self._prctl(_CAPBSET_READ, capability, 0, 0, 0) < 0:
                break
            self.control(_CAPBSET_DROP, capability)
        self.control(_CAP_AMBIENT, _AMBIENT_CLEAR)

    def hold_nothing(self) -> None:
        """No capability is held, nor handed on."""
        header = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
        self._checked(self._capset(header, (ctypes.c_uint32 * 6)()), "capset")

    def filter(self, program: bytes) -> None:
        """System calls are filtered from here on."""
        text = ctypes.create_string_buffer(program, len(program))
        whole = _Program(len(program) // 8, ctypes.addressof(text))
        self.control(_SET_SECCOMP, _FILTER, ctypes.addressof(whole))


def _inside(
    kernel: Kernel, mount: int, ids: tuple[int, int], program: bytes, run: Sequence[str]
) -> None:
    """Confine this process and have it become the program; returns only by an error."""
    uid, gid = ids
    variables = dict(word.split("=", 1) for word in run[: run.index("--")])
    command = list(run[run.index("--") + 1 :])
    kernel.control(_SET_DUMPABLE, 0)
    kernel.bound_nothing()
    sys.path.clear()  # from here on they would be the image's
    sys.meta_path.clear()
    kernel.enter(mount, "mnt")
    os.chdir("/")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kernel.hold_nothing()
    kernel.control(_SET_PDEATHSIG, _SIGKILL)  # or it would outlive the one that waits for it
    kernel.control(_SET_NO_NEW_PRIVS, 1)
    kernel.filter(program)
    for folder in [""] if "/" in command[0] else variables["PATH"].split(":"):
        file = f"{folder}/{command[0]}" if folder else command[0]
        with contextlib.suppress(FileNotFoundError):
            os.execve(file, command, variables)  # noqa: S606 - no shell is wanted
    raise _NotThereError(command[0])


def main(arguments: Sequence[str]) -> int:
    """Run the program and wait for it; its exit code, 128 and the signal's number if one ended it.

    Args:
        arguments: as in the module's text.
    """
    pid, uid, gid, *run = arguments
    kernel, program = Kernel(), seccomp_filter(platform.machine())
    opened = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in NAMESPACES}
    for kind in list(NAMESPACES)[:-1]:
        kernel.enter(opened[kind], kind)
    child = os.fork()  # only a child is in the container's namespace of processes
    if not child:
        code = 126
        try:
            _inside(kernel, opened["mnt"], (int(uid), int(gid)), program, run)
        except _NotThereError as error:
            code = 127
            os.write(2, f"{error}: not found in the container\n".encode())
        except BaseException as error:
            os.write(2, f"{run[run.index('--') + 1]} cannot be confined: {error}\n".encode())
        os._exit(code)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
