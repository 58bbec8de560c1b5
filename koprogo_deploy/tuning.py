"""Postgres settings, computed from what the container has. Pure.

The public calculators (PGTune, timescaledb-tune, pgconfig) assume a database that owns its host;
inside a 512 MB container their shared_buffers=512MB ends in an OOM kill. Here everything follows
from the container's limit. Each formula stands with its reason; any value can be overridden by
`postgres_settings` in group data, and what is then unsafe is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from koprogo_deploy.settings import Settings
from koprogo_deploy.units import GB, MB, parse_size, show_size

SHARED_BUFFERS_CEILING = 0.55  # of the container's limit; above it a full cache ends in a kill
_SERVER = 20 * MB  # postmaster and background processes, measured
_CONNECTION = 3 * MB // 2  # anonymous memory of a used connection, measured
_AUTOVACUUM_WORKERS = 2
_MEMORY = ("shared_buffers", "work_mem", "maintenance_work_mem", "autovacuum_work_mem")
_COUNTS = ("max_connections", "autovacuum_max_workers", "max_parallel_workers")


@dataclass(frozen=True)
class Setting:
    """One line of postgresql.conf: its value as written there, and the reason for it."""

    name: str
    value: str
    reason: str


class Unsafe(ValueError):
    """Values that Postgres would accept and the container would not survive.

    Attributes:
        problems: the setting to change, as group data names it, and what is wrong with it.
    """

    def __init__(self, problems: list[tuple[str, str]]) -> None:
        super().__init__("; ".join(f"{field}: {message}" for field, message in problems))
        self.problems = problems


def tune(settings: Settings) -> list[Setting]:
    """Compute postgresql.conf for the container of `postgres_memory`.

    Args:
        settings: limit, vCPUs, disk and pools are read from it, and `postgres_settings` on top.

    Returns:
        Settings in the order they are written, overrides included.

    Raises:
        Unsafe: an override is not a value Postgres reads, shared_buffers is above 55 % of the
            limit, or the worst case of all memory settings is above the limit.
    """
    computed = {s.name: s for s in _computed(settings)}
    for name, value in settings.postgres_settings.items():
        computed[name] = Setting(name, value, "set in postgres_settings")
    result = list(computed.values())
    problems = _unsafe(settings, {s.name: s.value for s in result})
    if problems:
        raise Unsafe(problems)
    return result


def worst_case(settings: Settings, values: dict[str, str]) -> int:
    """Memory that Postgres may use at once with these values, in bytes.

    Shared buffers and their bookkeeping (about 1/12), the server, every connection's own memory,
    two sorts in each connection of the serving pool and in each parallel worker, one maintenance
    command, the autovacuum workers.
    """
    shared, work, maintenance, autovacuum = (parse_size(values[name]) for name in _MEMORY)
    parallel = int(values["max_parallel_workers"])
    return (
        shared
        + shared // 12
        + _SERVER
        + (int(values["max_connections"]) + parallel) * _CONNECTION
        + 2 * work * (_active(settings) + parallel)
        + maintenance
        + int(values["autovacuum_max_workers"]) * autovacuum
    )


def _active(settings: Settings) -> int:
    # One colour serves; the other one is warm during a switch and sorts nothing.
    return settings.pool_max_connections


def _whole(size: float) -> int:
    return int(size) // MB * MB


def _computed(s: Settings) -> list[Setting]:
    limit, ram, vcpus = s.postgres_memory, s.vps_memory, s.vps_vcpus
    shared = _whole(limit * 3 / 8)
    maintenance = max(16 * MB, _whole(limit * 3 / 32))
    autovacuum = max(8 * MB, maintenance // 2)
    # On one vCPU a parallel plan only adds processes; with more, leave one for everything else.
    # Beyond 4 they cost memory that two workers a query never use.
    parallel = min(4, vcpus - 1)
    left = (
        limit
        - shared * 13 // 12
        - _SERVER
        - (s.max_connections + parallel) * _CONNECTION
        - maintenance
        - _AUTOVACUUM_WORKERS * autovacuum
    )
    work = max(4 * MB, _whole(left / 2 / (2 * (_active(s) + parallel))))
    max_wal = min(4 * GB, max(256 * MB, _whole(s.vps_disk / 20)))
    quick = s.vps_disk_kind != "hdd"
    io = {"hdd": "2", "ssd": "200", "nvme": "500"}[s.vps_disk_kind]

    def size(name: str, value: int, reason: str) -> Setting:
        return Setting(name, show_size(value), reason)

    return [
        Setting("listen_addresses", "*", "reached on the internal network only; no published port"),
        Setting("hba_file", "/etc/postgresql/pg_hba.conf", "ours, read-only"),
        Setting("ident_file", "/etc/postgresql/pg_ident.conf", "ours, read-only"),
        Setting("password_encryption", "scram-sha-256", "the only method pg_hba.conf accepts"),
        Setting(
            "max_connections",
            str(s.max_connections),
            f"2 colours x pool of {s.pool_max_connections} + {s.postgres_connections_reserve} "
            "for superuser, backup, monitor and psql",
        ),
        size("shared_buffers", shared, "3/8 of the container; 55 % is the ceiling"),
        size("effective_cache_size", _whole(ram * 3 / 8), "3/8 of RAM: the box is shared"),
        size("work_mem", work, "half of what is left, two sorts a connection; at least 4MB"),
        size("maintenance_work_mem", maintenance, "3/32 of the container"),
        size("autovacuum_work_mem", autovacuum, "half of maintenance_work_mem"),
        Setting("huge_pages", "off", "of no use below 2 GB of shared buffers"),
        size("max_wal_size", max_wal, "5 % of the disk, at most 4 GB"),
        size("min_wal_size", max_wal // 4, "a quarter of max_wal_size"),
        Setting("wal_compression", "lz4", "30 % less WAL measured at 250 tx/s"),
        Setting("checkpoint_timeout", "15min", "fewer full-page images than every 5 min"),
        Setting("synchronous_commit", "on", "an acknowledged write survives a crash"),
        Setting("random_page_cost", "1.1" if quick else "4", f"{s.vps_disk_kind} disk"),
        Setting("effective_io_concurrency", io, f"{s.vps_disk_kind} disk"),
        Setting("jit", "off", "compiling costs more than these short queries"),
        Setting("max_worker_processes", str(max(4, vcpus + 4)), "autovacuum launcher, parallelism"),
        Setting("max_parallel_workers", str(parallel), f"{vcpus} vCPU"),
        Setting("max_parallel_workers_per_gather", str(min(2, parallel)), f"{vcpus} vCPU"),
        Setting("max_parallel_maintenance_workers", str(min(2, parallel)), f"{vcpus} vCPU"),
        Setting("autovacuum_max_workers", str(_AUTOVACUUM_WORKERS), "memory of each is budgeted"),
        Setting("autovacuum_naptime", "30s", "small tables change quickly"),
        Setting("autovacuum_vacuum_scale_factor", "0.05", "vacuum little and often"),
        Setting("autovacuum_analyze_scale_factor", "0.05", "fresh statistics"),
        Setting("max_wal_senders", "2", "no replica yet; room for a base backup"),
        Setting("shared_preload_libraries", "pg_stat_statements", "koprogo debug reads it"),
        Setting("pg_stat_statements.max", "1000", "a small application"),
        Setting("track_io_timing", "on", "cheap on this clock, tells disk from CPU"),
        Setting("log_min_duration_statement", "250ms", "slow queries are worth a line"),
        Setting("log_error_verbosity", "terse", "a DETAIL is somebody's row, hash and all"),
        Setting("log_parameter_max_length", "0", "values of statements are people's data"),
        Setting("log_parameter_max_length_on_error", "0", "the same for errors"),
        Setting("log_checkpoints", "on", "explains a pause"),
        Setting("log_lock_waits", "on", "explains a wait"),
        Setting("log_temp_files", "0", "a sort that went to disk"),
        Setting("log_autovacuum_min_duration", "1s", "only long ones"),
        Setting("log_timezone", "UTC", "one clock in all logs"),
        Setting("timezone", "UTC", "the application stores UTC"),
    ]


def _unsafe(s: Settings, values: dict[str, str]) -> list[tuple[str, str]]:
    problems = [
        ("postgres_settings", f"{name}: {reason}")
        for name, reason in [(n, _unreadable(n, values[n])) for n in (*_MEMORY, *_COUNTS)]
        if reason
    ]
    if problems:
        return problems
    shared, limit = parse_size(values["shared_buffers"]), s.postgres_memory
    ceiling = _whole(limit * SHARED_BUFFERS_CEILING)
    if shared > ceiling:
        problems.append(
            (
                "postgres_settings",
                f"shared_buffers = {show_size(shared)} is above 55 % of the container's "
                f"{show_size(limit)}, and a full cache would end in an OOM kill; write at most "
                f'"{show_size(ceiling)}", or raise postgres_memory',
            )
        )
    worst = worst_case(s, values)
    if worst > limit:
        ours = [n for n in (*_MEMORY, *_COUNTS) if n in s.postgres_settings]
        field = "postgres_settings" if ours else "postgres_memory"
        what = f"at worst Postgres would use {show_size(_whole(worst))} of its {show_size(limit)}"
        lower = " and ".join(ours) or f"pool_max_connections to {_fitting_pool(s)}"
        problems.append((field, f"{what}; lower {lower}, or raise postgres_memory"))
    return problems


def _fitting_pool(s: Settings) -> int:
    """The largest pool, below the one asked for, that the container has room for; at least 1."""
    for size in range(s.pool_max_connections - 1, 1, -1):
        smaller = s.model_copy(update={"pool_max_connections": size})
        if worst_case(smaller, {t.name: t.value for t in _computed(smaller)}) <= s.postgres_memory:
            return size
    return 1


def _unreadable(name: str, value: str) -> str:
    if name in _COUNTS:
        return "" if value.isdigit() else "not a number; write a whole number"
    try:
        parse_size(value)
    except ValueError as error:
        return str(error)
    return ""
