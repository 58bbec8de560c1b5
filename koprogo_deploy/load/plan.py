"""What a run will do, decided before anything is touched: phases, target, bounds. Pure.

A load test is a weapon: it goes to the sandbox on this machine, and elsewhere only by a word on
the command line and within the environment's bounds.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from koprogo_deploy.load.profiles import PROFILES, Profile, Stretch
from koprogo_deploy.load.schedule import weights
from koprogo_deploy.problems import Problem
from koprogo_deploy.settings import Settings

LOGINS = ("admin@small.be", "admin@medium.be", "admin@large.be")
# KoproGo's tokens live 15 minutes.
RENEW_AFTER = 12 * 60.0
TIMEOUT = 30.0
# More requests than this under way are a server that does not answer; they cost memory here.
MOST_UNDER_WAY = 10_000
# Requests a second: about what one generator can send, with a CPU of its own. Beyond that a run
# would measure nothing but its backlog.
MOST_RATE = 11_000
# Of an address that no environment has bounds for.
FOREIGN_MAX_RATE, FOREIGN_MAX_SECONDS = 1000.0, 600
# Without settings there is no objective; this is the default of group data.
OBJECTIVE_RATE = 200


@dataclass(frozen=True)
class Options:
    """What the command line adds to a profile.

    Attributes:
        rate: requests a second: the phases after the warm-up become open loops.
        users: the phases after the warm-up become closed loops.
        seconds: length of each phase after the warm-up.
        connections: kept connections, at most.
        think: seconds that a user of a closed loop waits between answer and next request.
        keep: leave what was written.
        monitor: watch the host meanwhile.
        on: the word: the environment's name, or the host's of `url`.
        url: base URL in place of an environment.
        logins: e-mail addresses, in place of the seeded ones.
        password: of those; for the seeded ones the environment knows it.
        seed: of the generator's random numbers; None: another one each time.
        renew_after: seconds until a token is renewed.
        timeout: seconds until a request is given up.
        command: the command line, for the record.
    """

    rate: float | None = None
    users: int | None = None
    seconds: int | None = None
    connections: int | None = None
    think: float = 0.0
    keep: bool = False
    monitor: bool = True
    on: str = ""
    url: str = ""
    logins: tuple[str, ...] = ()
    password: str = field(default="", repr=False)
    seed: int | None = None
    renew_after: float = RENEW_AFTER
    timeout: float = TIMEOUT
    command: str = ""


@dataclass(frozen=True)
class Account:
    """A login."""

    email: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Target:
    """Where requests go.

    Attributes:
        url: ends in `/api/v1`.
        address: connect to this in place of the URL's host, whose name stays in Host and SNI.
        ca: file that signs the certificate, if no public authority does.
    """

    url: str
    address: str | None = None
    ca: str | None = None

    @property
    def host(self) -> str:
        """Name in the URL."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True)
class PhasePlan:
    """A phase with all its numbers; `mix` holds whole-number weights by kind of request."""

    name: str
    seconds: int
    mix: tuple[tuple[str, int], ...]
    rate: float | None = None
    users: int | None = None
    think: float = 0.0
    judged: bool = False
    warm_up: bool = False
    pause: int = 0

    @property
    def writes(self) -> bool:
        """Whether it leaves rows behind."""
        return any(name.startswith("POST ") for name, _ in self.mix)


@dataclass(frozen=True)
class Plan:
    """All that the generator has to know.

    Attributes:
        run: eight hexadecimal characters, in every row that is written.
        seed: of its random numbers.
        cpus: those of this machine that it keeps to; None: all.
    """

    target: Target
    accounts: tuple[Account, ...]
    phases: tuple[PhasePlan, ...]
    run: str
    seed: int
    connections: int
    renew_after: float = RENEW_AFTER
    timeout: float = TIMEOUT
    most_under_way: int = MOST_UNDER_WAY
    cpus: tuple[int, ...] | None = None

    @property
    def writes(self) -> bool:
        """Whether the run leaves rows behind."""
        return any(phase.writes for phase in self.phases)

    @property
    def seconds(self) -> int:
        """Planned length, pauses included."""
        return sum(phase.seconds + phase.pause for phase in self.phases)


def phases(profile: Profile, options: Options, objective_rate: float) -> tuple[PhasePlan, ...]:
    """A profile's phases with what the command line says.

    An open loop is judged, unless it is a warm-up. A closed loop is not: it asks as fast as it is
    answered, and so makes its own rate and load average.
    """
    return tuple(_phase(stretch, options, objective_rate) for stretch in profile.stretches)


def _phase(stretch: Stretch, options: Options, objective_rate: float) -> PhasePlan:
    users, rate, seconds = stretch.users, stretch.rate, stretch.seconds
    if stretch.of_objective is not None:
        rate = stretch.of_objective * objective_rate
    if options.rate is not None:
        # A warm-up never asks for more than what it warms up for.
        share = 0.5 if stretch.warm_up else 1.0
        rate = options.rate * share if stretch.rate is None else min(stretch.rate, options.rate)
        users = None
    if options.users is not None and not stretch.warm_up:
        rate, users = None, options.users
    if options.seconds is not None:
        # Nor does it take longer.
        seconds = min(seconds, options.seconds) if stretch.warm_up else options.seconds
    return PhasePlan(
        name=stretch.name,
        seconds=seconds,
        mix=tuple(weights(stretch.mix).items()),
        rate=rate,
        users=users,
        think=options.think if users else 0.0,
        judged=users is None and not stretch.warm_up,
        warm_up=stretch.warm_up,
        pause=stretch.pause,
    )


def connections(profile: Profile, options: Options, planned: Sequence[PhasePlan]) -> int:
    """Kept connections: as asked, else the profile's; a user of a closed loop has one at least."""
    users = max((phase.users or 0 for phase in planned), default=0)
    return max(options.connections or profile.connections, users)


def profile_named(name: str) -> Profile | Problem:
    """A profile by its name."""
    if name in PROFILES:
        return PROFILES[name]
    near = difflib.get_close_matches(name, PROFILES, n=1, cutoff=0.5)
    fix = f"did you mean {near[0]}?" if near else f"there are: {', '.join(PROFILES)}"
    return Problem("profile", f'"{name}" is unknown', fix)


def problems(
    profile: Profile, options: Options, planned: Sequence[PhasePlan], settings: Settings | None
) -> list[Problem]:
    """Why a run is refused: every reason, before anything is touched.

    Args:
        profile: as asked for.
        options: of the command line.
        planned: the phases that come of both.
        settings: the environment's; None with `--url`.
    """
    found = _numbers(options)
    highest = max((phase.rate or 0.0 for phase in planned), default=0.0)
    if highest > MOST_RATE:
        what = f"{highest:.0f} requests a second are more than this generator can send"
        where = "--rate" if options.rate is not None else "objective_rate"
        found.append(Problem(where, what, f"{MOST_RATE} or less"))
    if settings is None:
        found += _foreign(options, planned)
    elif settings.environment == "sandbox":
        found += _sandbox(settings)
        if options.on not in ("", "sandbox"):
            found.append(Problem("--on", f'"{options.on}" is not sandbox', "leave it out"))
    else:
        found += _real(settings, options, planned, profile.name)
    return found


def _numbers(options: Options) -> list[Problem]:
    found = []
    if options.rate is not None and options.users is not None:
        fix = "--rate for arrivals at a rate, or --users for users who wait for their answer"
        found.append(Problem("--rate, --users", "an open and a closed loop at once", fix))
    for name in ("rate", "users", "seconds", "connections"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            found.append(Problem(f"--{name}", f"{value:g} is not above 0", "write 1 or more"))
    return found


def is_loopback(host: str) -> bool:
    """Whether an address or name can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _sandbox(settings: Settings) -> list[Problem]:
    address = settings.public_address or settings.api_domain
    try:
        here = ipaddress.ip_address(address).is_loopback
    except ValueError:
        here = False
    if here:
        return []
    fix = 'load on the sandbox stays on this machine: public_address = "127.0.0.1"'
    return [Problem("public_address", f"{address} is not an address of this machine", fix)]


def _real(
    settings: Settings, options: Options, planned: Sequence[PhasePlan], profile: str
) -> list[Problem]:
    name = settings.environment
    found = []
    if options.on != name:
        what = f"{name} is no place for a load test without saying so"
        if options.on:
            what = f'"{options.on}" is not {name}'
        fix = f"koprogo load {profile} --env {name} --on {name}"
        found.append(Problem("--on", what, fix))
    return found + _bounded(
        planned, settings.load_max_rate, settings.load_max_duration, f"group_data/{name}.py: "
    )


def _foreign(options: Options, planned: Sequence[PhasePlan]) -> list[Problem]:
    parts = urlsplit(options.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        fix = "such as https://api.koprogo.example.be"
        return [Problem("--url", f"{options.url} is not a URL", fix)]
    found = []
    host = parts.hostname
    if not is_loopback(host):
        if options.on != host:
            fix = f"if it is yours: --on {host}"
            found.append(Problem("--on", f"{host} is not this machine", fix))
        found += _bounded(planned, FOREIGN_MAX_RATE, FOREIGN_MAX_SECONDS, "")
    if any(phase.writes for phase in planned) and not options.keep:
        fix = "--env removes what it wrote; with --url say --keep, or take a profile that reads"
        found.append(Problem("--url", "what is written could not be removed again", fix))
    if not options.logins:
        found.append(Problem("--login", "no login for this URL", "--login you@example.be"))
    elif not options.password:
        fix = "export KOPROGO_LOAD_PASSWORD=…"
        found.append(Problem("KOPROGO_LOAD_PASSWORD", "no password of the login", fix))
    return found


def _bounded(
    planned: Sequence[PhasePlan], rate: float, seconds: int, setting: str
) -> list[Problem]:
    found = []
    highest = max((phase.rate or 0.0 for phase in planned), default=0.0)
    if highest > rate:
        where = f"{setting}load_max_rate" if setting else "--rate"
        fix = f"--rate {rate:g} or less"
        found.append(Problem(where, f"{highest:g} requests a second are above {rate:g}", fix))
    length = sum(phase.seconds + phase.pause for phase in planned)
    if length > seconds:
        where = f"{setting}load_max_duration" if setting else "--seconds"
        fix = "a shorter --seconds"
        found.append(Problem(where, f"a run of {length} s is above {seconds} s", fix))
    if any(phase.users for phase in planned):
        what = "users who ask as fast as they are answered have no bound on their rate"
        found.append(Problem("--users", what, f"--rate {rate:g} or less"))
    return found


def ungateable(planned: Sequence[PhasePlan], profile: str) -> list[Problem]:
    """Why a run could not pass or fail a gate: nothing in it is judged."""
    if any(phase.judged for phase in planned):
        return []
    fix = f"koprogo load realistic --gate, or koprogo load {profile} --rate 220 --gate"
    what = "nothing in it is judged: warm-ups and closed loops, which make their own rate"
    return [Problem(f"--gate with {profile}", what, fix)]


def parse_seconds(text: str) -> int:
    """Seconds of `90`, `90s` or `3min`.

    Raises:
        ValueError: neither of these.
    """
    match = re.fullmatch(r"(\d+)\s*(s|min|m|)", text.strip())
    if not match:
        raise ValueError(f'"{text}" is not a duration; write, for instance, 90, 90s or 3min')
    return int(match[1]) * (60 if match[2].startswith("m") else 1)
