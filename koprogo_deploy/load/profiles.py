"""The profiles: which requests, in what proportion, at what rate or by how many users, how long.

Data only. Weights and shapes are those of KoproGo's own load tests. What those could not do is
left out: GET /users (403 for everybody but the superadmin) and requests without a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Mode = Literal["open", "closed"]


@dataclass(frozen=True)
class Mix:
    """Requests by weight; `read_percent` of all are reads, whatever the two sums of weights."""

    reads: Mapping[str, int]
    writes: Mapping[str, int]
    read_percent: int


@dataclass(frozen=True)
class Stretch:
    """A stretch of a profile with one shape of load.

    Attributes:
        seconds: how long.
        mix: which requests.
        users: of a closed loop, each asking again right after its last answer; None: open loop.
        rate: of an open loop, in requests a second; None: `of_objective`.
        of_objective: of an open loop, as a multiple of the environment's `objective_rate`.
        warm_up: brings caches and connections to temperature; not judged.
        pause: seconds of rest before it.
    """

    name: str
    seconds: int
    mix: Mix
    users: int | None = None
    rate: float | None = None
    of_objective: float | None = None
    warm_up: bool = False
    pause: int = 0

    @property
    def mode(self) -> Mode:
        """Closed loop if it has users."""
        return "open" if self.users is None else "closed"


@dataclass(frozen=True)
class Profile:
    """A named load.

    Attributes:
        about: what it is for, in a few words.
        connections: kept connections, at most; arrivals of an open loop wait for a free one.
    """

    name: str
    about: str
    connections: int
    stretches: tuple[Stretch, ...]


HEALTH = Mix({"GET /health": 1}, {}, 100)

BROWSE = Mix(
    {
        "GET /health": 5,
        "GET /buildings": 40,
        "GET /units": 25,
        "GET /owners": 15,
        "GET /expenses": 10,
        "GET /meetings": 5,
    },
    {},
    100,
)

REALISTIC = Mix(
    {
        "GET /buildings": 25,
        "GET /units": 25,
        "GET /owners": 15,
        "GET /expenses": 15,
        "GET /auth/me": 5,
    },
    {"POST /buildings": 30, "POST /units": 30, "POST /owners": 20, "POST /expenses": 20},
    70,
)

# A little more than the objective asks: a rate of exactly so many cannot be above it.
ABOVE_OBJECTIVE = 1.1

_WARM_UP = Stretch("warm-up", 30, HEALTH, rate=50, warm_up=True)
_LIGHT = Stretch("light", 120, BROWSE, users=10)
_MEDIUM = Stretch("medium", 300, BROWSE, users=50)
_HEAVY = Stretch("heavy", 180, BROWSE, users=100)


def _short_warm_up(mix: Mix, users: int) -> Stretch:
    return Stretch("warm-up", 10, mix, users=users, warm_up=True)


def _after(seconds: int, stretch: Stretch) -> Stretch:
    return Stretch(stretch.name, stretch.seconds, stretch.mix, stretch.users, pause=seconds)


PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile("warmup", "GET /health at 50 requests a second", 5, (_WARM_UP,)),
        Profile("light", "reads by 10 users", 10, (_LIGHT,)),
        Profile("medium", "reads by 50 users", 50, (_short_warm_up(BROWSE, 10), _MEDIUM)),
        Profile("heavy", "reads by 100 users: as much as it can", 100, (_HEAVY,)),
        Profile(
            "realistic",
            "70 % reads, 30 % writes, at the objective's rate: what the gate judges",
            20,
            (
                Stretch("warm-up", 10, REALISTIC, of_objective=0.5, warm_up=True),
                Stretch("realistic", 180, REALISTIC, of_objective=ABOVE_OBJECTIVE),
            ),
        ),
        Profile(
            "spike",
            "reads by 10, 50, 200, 50 and 10 users",
            200,
            tuple(
                Stretch(f"spike {users}", seconds, BROWSE, users=users, pause=5 if number else 0)
                for number, (users, seconds) in enumerate(
                    ((10, 30), (50, 30), (200, 60), (50, 30), (10, 30))
                )
            ),
        ),
        Profile(
            "soak",
            "reads for half an hour at the objective's rate",
            25,
            (
                Stretch("warm-up", 10, BROWSE, of_objective=0.5, warm_up=True),
                Stretch("soak", 1800, BROWSE, of_objective=ABOVE_OBJECTIVE),
            ),
        ),
        Profile(
            "suite",
            "warmup, light, medium and heavy, one after the other",
            100,
            (_WARM_UP, *(_after(10, stretch) for stretch in (_LIGHT, _MEDIUM, _HEAVY))),
        ),
    )
}
