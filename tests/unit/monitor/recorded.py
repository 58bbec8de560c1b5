"""Files in the form that kernels give them: one container in both versions of control groups.

Version 1 was read in the sandbox (values changed where a test needs it); version 2 is written to
the kernel's documentation with the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ID = "cbe9e465bf4e6ef436cfd5a0bc308a449d3d6c8c9d17acf693cfb1cc7be0ca55"

# Linux 6.18, version 1.
V1 = {
    "memory/memory.usage_in_bytes": "22269952\n",
    "memory/memory.limit_in_bytes": "83886080\n",
    "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    "memory/memory.stat": (
        "cache 8192\nrss 21016576\npgmajfault 3\ninactive_file 1\n"
        "hierarchical_memory_limit 83886080\n"
        "total_cache 49373184\ntotal_rss 21016576\ntotal_shmem 0\ntotal_swap 12288\n"
        "total_pgfault 8417\ntotal_pgmajfault 130\ntotal_inactive_anon 21008384\n"
        "total_active_anon 4096\ntotal_inactive_file 409600\ntotal_active_file 4096\n"
        "total_unevictable 0\n"
    ),
    "cpuacct/cpuacct.usage": "1787935407\n",
    "cpu/cpu.stat": "nr_periods 61\nnr_throttled 56\nthrottled_time 2500000000\nnr_bursts 0\n",
    "cpu/cpu.cfs_quota_us": "25000\n",
    "cpu/cpu.cfs_period_us": "100000\n",
}
# The same container under version 2.
V2 = {
    "memory.current": "22269952\n",
    "memory.max": "83886080\n",
    "memory.swap.current": "12288\n",
    "memory.events": "low 0\nhigh 0\nmax 41\noom 2\noom_kill 2\noom_group_kill 0\n",
    "memory.stat": (
        "anon 21016576\nfile 413696\nkernel 815104\nslab_reclaimable 102400\nshmem 0\n"
        "inactive_anon 21008384\nactive_anon 4096\ninactive_file 409600\nactive_file 4096\n"
        "unevictable 0\nslab 262144\npgfault 8417\npgmajfault 130\n"
    ),
    "cpu.stat": (
        "usage_usec 1787935\nuser_usec 1200000\nsystem_usec 587935\nnr_periods 61\n"
        "nr_throttled 56\nthrottled_usec 2500000\n"
    ),
    "cpu.max": "25000 100000\n",
    "cpu.pressure": "some avg10=1.59 avg60=5.62 avg300=11.25 total=72415166\n"
    "full avg10=0.91 avg60=2.54 avg300=5.02 total=29038445\n",
}

DISKSTATS = (
    "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
    " 254       0 vda {} 18029 {} {} {} 282711 {} {} 0 {} 269352 107233 67 12856208 7209 1 1\n"
    " 254       1 vda1 9 1 9 9 9 9 9 9 0 9 9 0 0 0 0 0 0\n"
    " 253       0 zram0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
)
NET_DEV = (
    "Inter-|   Receive                                                |  Transmit\n"
    " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop "
    "fifo colls carrier compressed\n"
    "    lo:     900       9    0    0    0     0          0         0      900       9    0    0 "
    "   0     0       0          0\n"
    "docker0:       5       1    0    0    0     0          0         0        5       1    0    2 "
    "   0     0       0          0\n"
    "veth28eeb2e: 39981118   37104    0    0    0     0          0         0  5798492   45774    0 "
    "   0    0     0       0          0\n"
    "  eth0:{received}   70024    1    2    0     0          0         0 {sent}   62557    3    4 "
    "   0     0       0          0\n"
)
MEMINFO = (
    "MemTotal:       2014140 kB\nMemFree:         102400 kB\nMemAvailable:    1205248 kB\n"
    "Buffers:           88884 kB\nCached:          943408 kB\nSwapTotal:       524284 kB\n"
    "SwapFree:        524000 kB\n"
)


def write(root: Path, files: Mapping[str, str]) -> Path:
    """Write texts under a folder."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v1(root: Path, path: str = f"/docker/{ID}") -> Path:
    """A version 1 tree with this container in it."""
    files = {}
    for name, text in V1.items():
        controller, _, file = name.partition("/")
        files[f"{controller}{path}/{file}"] = text
    return write(root, files)


def v2(root: Path, path: str = f"/system.slice/docker-{ID}.scope") -> Path:
    """A version 2 tree with this container in it."""
    return write(root, {f"{path}/{name}".lstrip("/"): text for name, text in V2.items()})


def v1_paths(path: str = f"/docker/{ID}") -> dict[str, str]:
    """What /proc/<pid>/cgroup says of it, as parsed."""
    return dict.fromkeys(("memory", "cpu", "cpuacct", "name=systemd", ""), path)
