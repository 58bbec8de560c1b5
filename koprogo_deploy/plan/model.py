"""The plan of a deploy, as it is shown, written to a file, and carried out."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

FORMAT = 2

Action = Literal["keep", "start", "switch", "restart", "recreate"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Service(_Part):
    """What happens to one service.

    Attributes:
        name: such as `backend`.
        action: `keep`; `start` (it has no container); `switch` (a new colour beside the old one);
            `restart` (as it is, for it does not serve); `recreate` (another definition, in place).
        container: Compose's name of the container that serves afterwards.
        colour: of a switched service, else empty.
        reasons: `key: old -> new` for each part of the definition that differs.
    """

    name: str
    action: Action
    container: str
    colour: str = ""
    reasons: tuple[str, ...] = ()


class FileChange(_Part):
    """A file that is written or removed.

    Attributes:
        path: on the host; of a release's file relative to the release's directory.
        where: `host`, `release` or `secrets`.
        action: `new`, `changed` or `removed`.
        diff: unified, values of secrets masked; empty for a file that only its reader may read;
            of a service's secrets their names.
    """

    path: str
    where: Literal["host", "release", "secrets"]
    action: Literal["new", "changed", "removed"]
    diff: str = ""


class HostChanges(_Part):
    """What changes on the machine.

    Attributes:
        packages: to be installed.
        files: paths of those that differ.
        does: other steps in words, such as a time zone or a restart of the engine.
        wanted: hash of everything that the machine has to have.
    """

    packages: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    does: tuple[str, ...] = ()
    wanted: str


class Images(_Part):
    """Images by service: what they are, what has to be pulled, what is not known yet.

    Attributes:
        pull: services whose image the host does not have.
        unresolved: services whose tag no registry could be asked about; resolved by the pull.
    """

    pull: tuple[str, ...] = ()
    unresolved: tuple[str, ...] = ()


class Migrations(_Part):
    """The image's migrations against the database's, as sets.

    Attributes:
        pending: of the image and not of the database; None: the image's are not known before it
            is pulled.
        applied: how many the database has; None: it does not run, so nobody knows.
        refusal: why the image could not start on this database; empty if it can.
        rehearsed: they run on a copy of the data first.
        earlier: what the last rehearsal of this very image showed, from the journal.
    """

    pending: tuple[str, ...] | None
    applied: int | None
    refusal: str = ""
    rehearsed: bool = False
    earlier: str = ""


class Memory(_Part):
    """Bytes that may be in use at worst, reserves included, against the machine's."""

    before: int
    during: int
    after: int
    ram: int


class Interruption(_Part):
    """A service that cannot be switched: what its restart means for requests.

    Attributes:
        page: requests get the maintenance page (503 with Retry-After); else nothing answers.
        seconds: expected; the median of `runs` on this host. None: never measured here.
    """

    service: str
    why: str
    page: bool
    seconds: float | None = None
    runs: int = 0


class Duration(_Part):
    """How long it may take: medians of the steps of runs of the same kind on this host.

    Attributes:
        kind: what makes runs alike, such as `("pull", "switch backend")`.
        seconds: None: the first of its kind.
        runs: how many there were.
        steps: the longest ones.
    """

    kind: tuple[str, ...]
    seconds: float | None = None
    runs: int = 0
    steps: dict[str, float] = {}


class Release(_Part):
    """The release that will serve.

    Attributes:
        exists: `current` or `candidate` where the host has exactly this one, else empty.
        hash: over all its files; `content` is the one that it has whatever its colours.
        files: short hash of each, by path.
        dynamic: hash of Traefik's routes.
        requested: the image of each service as group data names it.
        images: digest reference by service; by tag where it is not resolved.
        secrets: directory of each service's secrets.
    """

    exists: str
    hash: str
    content: str
    files: dict[str, str]
    dynamic: str
    specs: dict[str, str]
    colours: dict[str, str]
    requested: dict[str, str]
    images: dict[str, str]
    secrets: dict[str, str]


class Plan(_Part):
    """What a deploy of an environment would do to its host as it was seen.

    Attributes:
        host: as the inventory names it.
        made: ISO time, by the planner's clock.
        by: who planned.
        revision: of the checkout.
        settings: hash of the environment's settings.
        live: id of the serving release; None on a new host.
        stops: containers that stop once the release is verified.
        routes: Traefik's routes change.
        seed: what is done about the realistic data; empty if nothing is.
        unfinished: the host has a release that was pushed and does not count yet.
        problems: why a deploy would refuse.
        warnings: what an operator should look at on the host; no deploy stops for it.
        down: what of the serving release answers nobody now, in words.
        seen: the state of the host that all this rests on, part by part.
    """

    format: int = FORMAT
    environment: str
    host: str
    made: str
    by: str
    revision: str
    settings: str
    live: str | None
    live_since: str = ""
    services: tuple[Service, ...]
    stops: tuple[str, ...]
    routes: bool
    unfinished: bool
    files: tuple[FileChange, ...]
    machine: HostChanges
    images: Images
    migrations: Migrations
    seed: str
    memory: Memory
    interruptions: tuple[Interruption, ...]
    duration: Duration
    release: Release
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    down: tuple[str, ...] = ()
    seen: dict[str, Any]

    @property
    def nothing(self) -> bool:
        """Whether there is nothing to do."""
        return not self.duration.kind

    @property
    def fingerprint(self) -> str:
        """Short hash of what was seen."""
        return hashlib.sha256(json.dumps(self.seen, sort_keys=True).encode()).hexdigest()[:12]

    def service(self, name: str) -> Service:
        """One service by its name."""
        return next(service for service in self.services if service.name == name)
