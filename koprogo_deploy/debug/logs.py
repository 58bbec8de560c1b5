"""The containers' logs in one stream: levels, durations and requests of five formats.

A log that cannot be read is said to be so: nothing found in what was not read means nothing.
"""

from __future__ import annotations

import json
import os
import re
import select
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from koprogo_deploy import connection
from koprogo_deploy.debug.ask import without_literals
from koprogo_deploy.door import Environment
from koprogo_deploy.settings import Settings

LEVELS = ("trace", "debug", "info", "warn", "error")
_WORDS = {
    "TRACE": "trace",
    "TRC": "trace",
    "DEBUG": "debug",
    "DBG": "debug",
    "INFO": "info",
    "INF": "info",
    "NOTICE": "info",
    "LOG": "info",  # Postgres': "of interest to administrators"
    "WARN": "warn",
    "WRN": "warn",
    "WARNING": "warn",
    "ERROR": "error",
    "ERR": "error",
    "CRITICAL": "error",
    "CRIT": "error",
    "ALERT": "error",
    "EMERG": "error",
    "FATAL": "error",
    "FTL": "error",
    "PANIC": "error",
    "PNC": "error",
}


@dataclass
class Entry:
    """One entry of a log: a line, and those that belong to it.

    Attributes:
        time: when Docker got it, in UTC.
        service: `backend`, `frontend`, `postgres`, `traefik`; `container` says its colour as well.
        level: one of LEVELS; None where nobody can tell.
        text: without its own time and level, which are told already.
        formatted: whether it has the form that its service gives to its lines.
        more: further lines: a traceback, the statement of an error.
        duration_ms: of the request or the statement, where the line tells.
    """

    time: datetime
    container: str
    level: str | None
    text: str
    more: list[str] = field(default_factory=list)
    duration_ms: float | None = None
    status: int | None = None
    method: str | None = None
    path: str | None = None
    process: str | None = None
    formatted: bool = True

    @property
    def service(self) -> str:
        """The container's name without its colour."""
        return self.container.partition("-")[0]

    @property
    def whole(self) -> str:
        """All its text."""
        return "\n".join((self.text, *self.more))


@dataclass(frozen=True)
class Wanted:
    """What to show of the logs; None: all.

    Attributes:
        level: this one and worse, and entries whose level nobody can tell.
        slow_ms: what took so long or longer.
        request: part of a path, of an id, of any text.
    """

    level: str | None = None
    slow_ms: float | None = None
    request: str | None = None

    def takes(self, entry: Entry) -> bool:
        """Whether an entry is wanted."""
        if self.level and entry.level and LEVELS.index(entry.level) < LEVELS.index(self.level):
            return False
        if self.slow_ms is not None and (entry.duration_ms or -1.0) < self.slow_ms:
            return False
        return self.request is None or self.request.casefold() in (
            f"{entry.path or ''}\n{entry.whole}".casefold()
        )


# --- one line ------------------------------------------------------------------------------------

_DOCKER = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d) ?(.*)", re.DOTALL
)
# [2025-10-25T12:00:00Z WARN  koprogo_api] env_logger; [2026-01-01 12:00:00,123 INFO name] stand-in
_BRACKETED = re.compile(
    r"\[\d{4}-\d\d-\d\d[T ][\d:.,]+Z? +(?P<level>[A-Z]+) +(?P<name>\S+)\] (?P<text>.*)"
)
# 2025-10-25T12:00:00.123456Z  WARN koprogo_api: text (tracing)
_TRACING = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z +(?P<level>[A-Z]+) +(?P<text>.*)")
# actix: 172.30.80.2 "GET /api/v1/units HTTP/1.1" 200 1234 "-" "agent" 0.004321; the stand-in's is
# the same without size, referrer and agent.
_REQUEST = re.compile(
    r'(?P<peer>\S+) (?:\S+ \S+ \[[^]]+\] )?"(?P<method>[A-Z]+) (?P<path>\S+)(?: HTTP/[\d.]+)?" '
    r'(?P<status>\d{3})(?: (?:\d+|-))?(?: ".*")?(?: (?P<seconds>\d+\.\d+))?'
)
_POSTGRES = re.compile(
    r"\d{4}-\d\d-\d\d [\d:.]+ \w+ \[(?P<pid>\d+)\] (?:\S+ )??(?P<level>[A-Z]+\d?):  (?P<text>.*)",
    re.DOTALL,
)
_BELONGS = ("STATEMENT", "DETAIL", "HINT", "CONTEXT", "QUERY", "LOCATION")
# Failing row contains (…; Key (email)=(…; COPY users, line 1: …: to the end, for it may be a row.
_ROWS = re.compile(r"(contains \(|=\(|line \d+[^:]*: ).*", re.DOTALL)
_DURATION = re.compile(r"duration: (?P<ms>[\d.]+) ms")
_DIED = re.compile(r"was terminated by signal|out of memory|could not (?:fork|write)|No space left")
_NGINX = re.compile(r"\d{4}/\d\d/\d\d [\d:]+ \[(?P<level>[a-z]+)\] (?P<text>.*)")
_TRAEFIK = re.compile(r"\d{4}-\d\d-\d\dT\S+ (?P<level>[A-Z]{3}) (?P<text>.*)")
_LOGFMT = re.compile(r'\blevel="?(?P<level>\w+)"?')
_BAD = re.compile(r"panicked at|^Traceback|\b(?:fatal|panic)\b", re.IGNORECASE)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def parse_time(line: str) -> tuple[datetime, str] | None:
    """Docker's time in front of a line, and the line; None where there is none."""
    match = _DOCKER.match(line)
    if not match:
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    moment = datetime.fromisoformat(f"{match[1]}.{(match[2] or '0')[:6]:0<6}{zone}")
    return moment.astimezone(UTC), match[4]


def parse(container: str, time: datetime, line: str) -> Entry | None:
    """An entry of the container's own format; None for a line that continues the one before."""
    text = _COLOUR.sub("", line).rstrip()
    if text[:1] in ("\t", " ") or not text:
        return None
    service = container.partition("-")[0]
    entry = Entry(time, container, None, text)
    readers = {"postgres": _postgres, "traefik": _traefik, "frontend": _frontend}
    entry.formatted = readers.get(service, _backend)(entry)
    if not entry.formatted and _BAD.search(text):
        entry.level = "error"
    return entry


def _request(entry: Entry, text: str) -> bool:
    match = _REQUEST.fullmatch(text)
    if not match:
        return False
    entry.method, entry.path = match["method"], match["path"]
    entry.status = int(match["status"])
    if match["seconds"]:
        entry.duration_ms = float(match["seconds"]) * 1000
    return True


def _by_status(entry: Entry) -> None:
    # Whatever level it was logged at, an answer of 500 is an error.
    if entry.status is not None and (entry.status >= 500 or entry.level is None):
        entry.level = "error" if entry.status >= 500 else "info"


def _backend(entry: Entry) -> bool:
    match = _BRACKETED.fullmatch(entry.text) or _TRACING.fullmatch(entry.text)
    if match:
        entry.level = _WORDS.get(match["level"])
        entry.text = match["text"]
        if not _request(entry, match["text"]) and match.groupdict().get("name"):
            entry.text = f"{match['name']}: {match['text']}"
        _by_status(entry)
    elif entry.text.startswith("{"):
        _json(entry)
    return entry.level is not None


def _postgres(entry: Entry) -> bool:
    match = _POSTGRES.fullmatch(entry.text)
    if not match:
        # Of the image's start script, before Postgres itself speaks.
        if re.match(r"PostgreSQL (?:Database|init)", entry.text):
            entry.level = "info"
        return entry.level is not None
    entry.process = match["pid"]
    level = match["level"]
    entry.text = without_literals(match["text"])
    if level in ("DETAIL", "CONTEXT"):
        entry.text = _ROWS.sub(r"\1…", entry.text)
    if level in _BELONGS:
        entry.text = f"{level}: {entry.text}"
        return True
    entry.level = "debug" if level.startswith("DEBUG") else _WORDS.get(level)
    if _DIED.search(entry.text):
        entry.level = "error"
    if level in ("FATAL", "PANIC"):
        entry.text = f"{level}: {entry.text}"
    if duration := _DURATION.search(entry.text):
        entry.duration_ms = float(duration["ms"])
    return True


def _traefik(entry: Entry) -> bool:
    if entry.text.startswith("{"):
        return _json(entry)
    match = _TRAEFIK.fullmatch(entry.text)
    if match:
        entry.level, entry.text = _WORDS.get(match["level"]), match["text"]
    elif match := _LOGFMT.search(entry.text):
        entry.level = _WORDS.get(match["level"].upper())
        if message := re.search(r'\bmsg="((?:[^"\\]|\\.)*)"', entry.text):
            entry.text = message[1]
    elif _request(entry, entry.text):
        _by_status(entry)
    return entry.level is not None


def _frontend(entry: Entry) -> bool:
    match = _NGINX.fullmatch(entry.text)
    if match:
        entry.level, entry.text = _WORDS.get(match["level"].upper()), match["text"]
        if asked := re.search(r'request: "([A-Z]+) (\S+)', entry.text):
            entry.method, entry.path = asked[1], asked[2]
    elif _request(entry, entry.text):
        _by_status(entry)
    elif entry.text.startswith(("/docker-entrypoint.sh:", "10-listen-on-ipv6")):
        entry.level = "info"
    return entry.level is not None


def _json(entry: Entry) -> bool:
    try:
        values = json.loads(entry.text)
    except ValueError:
        return False
    if not isinstance(values, dict):
        return False
    entry.level = _WORDS.get(str(values.get("level", "")).upper())
    if "RequestPath" in values:  # Traefik's access log; its Duration is in nanoseconds
        entry.method, entry.path = values.get("RequestMethod"), values["RequestPath"]
        entry.status = values.get("DownstreamStatus")
        if isinstance(values.get("Duration"), int | float):
            entry.duration_ms = values["Duration"] / 1e6
        _by_status(entry)
        origin = values.get("OriginDuration")
        where = f", {origin / 1e6:.1f} ms of it in {values.get('ServiceName')}" if origin else ""
        client = values.get("ClientHost") or values.get("ClientAddr") or "-"
        entry.text = (
            f'{client} "{entry.method} {entry.path}" {entry.status} '
            f"{entry.duration_ms or 0:.1f} ms{where}"
        )
        return True
    message = values.pop("message", None) or values.pop("msg", None)
    if message is not None:
        rest = {k: v for k, v in values.items() if k not in ("level", "time", "timestamp")}
        entry.text = " ".join([str(message), *(f"{k}={v}" for k, v in rest.items())])
    return entry.level is not None


class Grouper:
    """Puts lines of one container together to entries; an entry is known when the next begins."""

    def __init__(self, container: str) -> None:
        self.container = container
        self.open: Entry | None = None

    def feed(self, time: datetime, line: str) -> Entry | None:
        """Take a line; give the entry that it ends, if any."""
        entry = parse(self.container, time, line)
        last = self.open
        if last and (entry is None or self._belongs(last, entry)):
            last.more.append(_COLOUR.sub("", line).rstrip() if entry is None else entry.text)
            return None
        if entry is None:
            if not line.strip():
                return None
            entry = Entry(time, self.container, None, line.strip())
        self.open = entry
        return last

    @staticmethod
    def _belongs(last: Entry, entry: Entry) -> bool:
        if entry.process is not None:  # DETAIL, STATEMENT: of the same process
            return entry.level is None and entry.process == last.process
        # The last line of a traceback, the message of a panic: at the left margin, right after.
        soon = (entry.time - last.time).total_seconds() < 0.1
        if entry.formatted or not soon:
            return False
        if entry.text.startswith("Traceback"):  # of the record that Python's logging just wrote
            return last.level in ("warn", "error")
        return last.level == "error" or (bool(last.more) and entry.level is None)

    def end(self) -> Entry | None:
        """The entry that is open, when nothing more comes."""
        last, self.open = self.open, None
        return last


@dataclass
class Repeat:
    """An entry that came again and again: how often after the first time, and until when."""

    count: int
    until: datetime


class Repeats:
    """Counts entries that say the same as the one before, of the same container."""

    def __init__(self) -> None:
        self._last: Entry | None = None
        self._repeat: Repeat | None = None

    def add(self, entry: Entry) -> bool:
        """Whether an entry repeats the one before; it is then counted."""
        last = self._last
        if last and (last.container, last.level, last.whole) == (
            entry.container,
            entry.level,
            entry.whole,
        ):
            self._repeat = Repeat(self._repeat.count + 1 if self._repeat else 1, entry.time)
            return True
        self._last = entry
        return False

    def take(self) -> Repeat | None:
        """The count so far, which begins anew."""
        repeat, self._repeat = self._repeat, None
        return repeat


def mask(text: str, secrets: Sequence[str]) -> str:
    """A text without our secrets, should one of them ever be in a log."""
    for secret in secrets:
        text = text.replace(secret, "…")
    return text


# --- what the settings keep out of the logs ------------------------------------------------------


def blind_spots(settings: Settings, services: Sequence[str], wanted: Wanted) -> list[str]:
    """Why finding nothing may mean nothing: what is not logged at all with these settings."""
    found = []
    requests = wanted.request is not None or wanted.slow_ms is not None
    level = settings.backend_log_level
    if "backend" in services:
        if level in ("warn", "error") and (requests or wanted.level in (None, "info", "debug")):
            found.append(
                f"backend_log_level = {level}: the backend logs no requests; info logs each"
            )
        if level == "error" and wanted.level == "warn":
            found.append("backend_log_level = error: the backend logs no warnings")
        if wanted.level in ("debug", "trace") and level != "debug":
            found.append(f"backend_log_level = {level}: the backend logs no {wanted.level} lines")
    if "traefik" in services:
        if settings.access_log == "off" and (requests or wanted.level != "error"):
            found.append("access_log = off: Traefik logs no requests, so no 5xx either")
        if wanted.level in ("info", "debug", "trace"):
            found.append("Traefik's own log begins at WARN")
    if "postgres" in services and wanted.slow_ms is not None:
        least = _least_duration(settings)
        if least is None:
            found.append("log_min_duration_statement = -1: Postgres logs no slow statement")
        elif least > wanted.slow_ms:
            found.append(
                f"log_min_duration_statement = {least:g} ms: Postgres logs no quicker statement"
            )
    return found


def _least_duration(settings: Settings) -> float | None:
    from koprogo_deploy.tuning import tune

    value = next((s.value for s in tune(settings) if s.name == "log_min_duration_statement"), "-1")
    try:
        milliseconds = parse_duration(value if re.search(r"[a-z]", value) else f"{value}ms")
    except ValueError:
        return None
    return milliseconds


_UNITS = {"ms": 1.0, "s": 1e3, "m": 6e4, "min": 6e4, "h": 3.6e6, "d": 8.64e7}
_DURATIONS = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|min|m|h|d))+")


def parse_duration(text: str) -> float:
    """Milliseconds of a duration such as `250ms`, `1.5s`, `10m`, `1h30m`.

    Raises:
        ValueError: it is none; the message says what to write.
    """
    written = text.strip()
    if not _DURATIONS.fullmatch(written):
        raise ValueError(
            f'"{text}" is no duration; write a number and ms, s, m, h or d: 250ms, 10m'
        )
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|min|m|h|d)", written)
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


# --- reading -------------------------------------------------------------------------------------

_SCRIPT = Path(__file__).with_name("on_host.py")
_IDLE = 0.3  # seconds after which a followed entry counts as complete


@dataclass
class Reading:
    """How the reading went.

    Attributes:
        created: each container's creation: older lines went with the container before it.
        unread: what could not be read and why, by service or container.
        lines: lines read.
        oldest: time of the oldest one.
        ended: containers whose log ended while it was followed.
        complete: the host's side said that it was through.
    """

    created: dict[str, datetime] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    lines: int = 0
    oldest: datetime | None = None
    ended: list[str] = field(default_factory=list)
    complete: bool = False


def command(services: Sequence[str], since: str, follow: bool) -> str:
    """The command for the host; it ends with its standard input when it follows."""
    arguments = json.dumps([list(services), since_argument(since), follow])
    script = _SCRIPT.read_text(encoding="utf-8")
    return f"sudo -n python3 -c {shlex.quote(script)} {shlex.quote(arguments)}"


def read(
    environment: Environment,
    services: Sequence[str],
    since: str,
    follow: bool,
    reading: Reading,
) -> Iterator[Entry]:
    """Entries of the services' containers: sorted by time, or as they come while following.

    Args:
        environment: whose host.
        services: whose logs, both colours.
        since: as `docker logs --since` takes it: `10m`, or a time of RFC 3339.
        follow: go on until interrupted, or until the last container ends.
        reading: is filled on the way; look at `unread` afterwards.
    """
    process = subprocess.Popen(
        connection.ssh_command(environment, command(services, since, follow)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        lines = _lines(process, _IDLE if follow else None)
        entries = group(lines, reading, follow)
        yield from entries if follow else sorted(entries, key=lambda e: e.time)
    finally:
        # The far side ends with its standard input.
        process.stdin.close() if process.stdin else None
        if follow:
            process.terminate()
    said = process.stderr.read().decode(errors="replace") if process.stderr else ""
    code = process.wait()
    if code != 0 or not reading.complete:
        reading.unread.setdefault(
            "all", (said.strip().splitlines() or [f"the connection ended with code {code}"])[-1]
        )
    for service in services:
        if "all" in reading.unread:
            break
        if not any(name.partition("-")[0] == service for name in reading.created):
            reading.unread[service] = "it has no container on the host"


def _lines(process: subprocess.Popen[bytes], idle: float | None) -> Iterator[bytes | None]:
    """Lines as they come; None whenever none came for `idle` seconds."""
    assert process.stdout is not None
    if idle is None:
        yield from process.stdout
        return
    handle, rest = process.stdout.fileno(), b""
    while True:
        ready, _, _ = select.select([handle], [], [], idle)
        if not ready:
            yield None
            continue
        chunk = os.read(handle, 65536)
        if not chunk:
            return
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


def group(
    lines: Iterator[bytes | None] | Sequence[bytes | None], reading: Reading, follow: bool = False
) -> Iterator[Entry]:
    """Entries from what the host's script prints; notes in `reading` what is no line of a log."""
    groupers: dict[str, Grouper] = {}
    for raw in lines:
        if raw is None:
            for grouper in groupers.values():
                if entry := grouper.end():
                    yield entry
            continue
        name, _, line = raw.rstrip(b"\n").decode(errors="replace").partition("\t")
        if not name:
            event = json.loads(line)
            _note(event, reading)
            if "end" in event and event["end"] in groupers:
                if entry := groupers.pop(event["end"]).end():
                    yield entry
                if follow:
                    reading.ended.append(event["end"])
            continue
        parsed = parse_time(line)
        if parsed is None:
            continue
        time, text = parsed
        reading.lines += 1
        reading.oldest = min(reading.oldest or time, time)
        grouper = groupers.setdefault(name, Grouper(name))
        if entry := grouper.feed(time, text):
            yield entry
    for grouper in groupers.values():
        if entry := grouper.end():
            yield entry


def _note(event: Mapping[str, Any], reading: Reading) -> None:
    if "failed" in event:
        reading.unread["all"] = event["failed"]
    if "container" in event:
        parsed = parse_time(event["created"])
        if parsed:
            reading.created[event["container"]] = parsed[0]
    if event.get("code"):
        reading.unread[event["end"]] = event["said"] or f"docker logs ended with {event['code']}"
    if event.get("done"):
        reading.complete = True


def since_argument(since: str) -> str:
    """A duration or a time as `docker logs --since` takes it: it knows no days."""
    try:
        return f"{parse_duration(since) / 1000:.3f}s"
    except ValueError:
        return _moment(since).isoformat()


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    # As all times here are shown.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def summary(reading: Reading, shown: int, since: str) -> list[str]:
    """What was read, so that "nothing found" can be judged."""
    if "all" in reading.unread:
        return []
    names = ", ".join(sorted(reading.created)) or "no container"
    found = [f"{shown} of {reading.lines} lines since {since} of {names}"]
    try:
        begin = datetime.now(UTC).timestamp() - parse_duration(since) / 1000
    except ValueError:
        begin = _moment(since).timestamp()
    for name, created in sorted(reading.created.items()):
        if created.timestamp() > begin:
            found.append(
                f"{name} exists since {created:%H:%M:%S}: older lines went with the container "
                "before it"
            )
    return found


def as_dict(entry: Entry) -> dict[str, Any]:
    """An entry for machines; the keys stay."""
    return {
        "time": entry.time.isoformat(),
        "service": entry.service,
        "container": entry.container,
        "level": entry.level,
        "duration_ms": entry.duration_ms,
        "status": entry.status,
        "method": entry.method,
        "path": entry.path,
        "text": entry.text,
        "more": entry.more,
    }
