"""What `auto` means in group data: sizes that follow the machine. Pure.

On the smallest machine (1 vCPU, 2 GB) they are the figures the objectives were measured with; a
bigger VPS in the inventory gives bigger ones, and the budget proves them all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from koprogo_deploy.units import GB, MB, parse_size, show_size

# From RAM in bytes and vCPUs.
RULES: dict[str, Callable[[int, int], str | int]] = {
    # A quarter: the database gains most from memory, and shares the box.
    "postgres_memory": lambda ram, _: show_size(ram // 4 // MB * MB),
    # Four workers of KoproGo's use 69 MB (2026), 7 MB (2025).
    "backend_memory": lambda _, vcpus: show_size(128 * MB * vcpus),
    # A login hashes a password for 0.4 s on the worker that took it, and whoever waits for that
    # worker waits as long. Four for each vCPU leave one free: P99 13 ms in place of 459 ms.
    "backend_workers": lambda _, vcpus: 4 * vcpus,
    # More connections than this only queue in Postgres instead of in the backend; each one also
    # needs its memory there, so 2 GB have room for 8 however many vCPUs there are.
    "pool_max_connections": lambda ram, vcpus: max(2, min(32, 8 * vcpus, 8 * ram // (2 * GB))),
    "page_cache_memory": lambda ram, _: show_size(ram * 3 // 32 // MB * MB),
}


def resolve(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace every `auto` by its value for this machine.

    Args:
        values: settings as written; a `vps_memory` or `vps_vcpus` that is wrong is reported by
            its own validation, so the smallest machine stands in for it here.
    """
    try:
        ram = parse_size(values.get("vps_memory"))
    except ValueError:
        ram = 2 * GB
    vcpus = values.get("vps_vcpus")
    if not isinstance(vcpus, int) or vcpus < 1:
        vcpus = 1
    computed = {k: rule(ram, vcpus) for k, rule in RULES.items() if values.get(k) == "auto"}
    return {**values, **computed}
