"""Under what runs were made: what differs between groups, and whether they took turns. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from koprogo_deploy.compare.statistics import changes
from koprogo_deploy.runs.model import Run
from koprogo_deploy.units import MB

Groups = Mapping[str, Sequence[Run]]


@dataclass(frozen=True)
class Difference:
    """A condition that is not the same everywhere.

    Attributes:
        name: such as `image of backend`.
        values: by group, in words; several where a group's own runs differ.
        apart: figures of different values of it are no measurement of one change: another
            machine, another load.
    """

    name: str
    values: dict[str, str]
    apart: bool


def differences(groups: Groups) -> list[Difference]:
    """Everything recorded that differs between the runs, what sets them apart first."""
    found = []
    known = {label: [_conditions(run) for run in runs] for label, runs in groups.items()}
    names = dict.fromkeys(name for each in known.values() for one in each for name in one)
    for name in names:
        values = {
            label: list(dict.fromkeys(one.get(name, "") for one in each))
            for label, each in known.items()
        }
        if len({value for each in values.values() for value in each}) > 1:
            said = {
                label: " / ".join(value or "not recorded" for value in each)
                for label, each in values.items()
            }
            found.append(Difference(name, said, name in _APART))
    return sorted(found, key=lambda difference: not difference.apart)


def stated(groups: Groups) -> dict[str, list[str]]:
    """Under what each group's runs were made, in words."""
    found = {}
    for label, runs in groups.items():
        known = [_conditions(run) for run in runs]
        values = {name: list(dict.fromkeys(one.get(name, "") for one in known)) for name in _STATED}
        found[label] = [
            f"{name}: {' / '.join(value or 'not recorded' for value in each)}"
            for name, each in values.items()
        ]
    return found


_STATED = ("load", "requests", "machine", "CPUs", "memory", "load from", "image of backend")
_APART = ("machine", "CPUs", "memory", "kernel", "load from", "url", "profile", "load", "requests")


def _conditions(run: Run) -> dict[str, str]:
    deployed = run.deployed
    machine = run.machine
    found = {
        "machine": machine.host,
        "CPUs": str(machine.cpus or ""),
        "memory": f"{machine.memory / MB:.0f} MB" if machine.memory else "",
        "kernel": machine.kernel,
        "load from": machine.client,
        "url": run.url,
        "profile": run.profile,
        "load": "; ".join(_shape(run)),
        "requests": ", ".join(
            dict.fromkeys(sorted(one.name for phase in run.phases for one in phase.endpoints))
        ),
        "settings": deployed.settings_hash,
        "seed's scale": str(deployed.seed_scale or ""),
        "revision": run.revision,
    }
    found |= {f"image of {name}": image for name, image in deployed.images.items()}
    found |= {f"limit of {name}": f"{size / MB:.0f} MB" for name, size in deployed.limits.items()}
    return found | {f"Postgres {name}": value for name, value in deployed.postgres.items()}


def _shape(run: Run) -> list[str]:
    phases = [phase for phase in run.phases if phase.judged] or run.phases
    return [
        (f"{phase.asked_rate:g} req/s" if phase.asked_rate is not None else f"{phase.users} users")
        + f", {phase.mode} loop, {phase.seconds:.0f} s"
        for phase in phases
    ]


def unlike(groups: Groups) -> list[str]:
    """Groups whose own runs were not made under the same conditions, in words."""
    found = []
    for label, runs in groups.items():
        own = differences({str(number): [run] for number, run in enumerate(runs)})
        if own:
            names = ", ".join(difference.name for difference in own)
            found.append(f"the runs of {label} differ among themselves: {names}")
    return found


def turns(groups: Groups) -> list[str]:
    """Pairs of the first group with another whose runs did not take turns, in words.

    A machine gets slower and faster by the hour. Only runs that take turns share that.
    """
    first, *others = groups
    found = []
    for other in others:
        both = [(run.began, label) for label in (first, other) for run in groups[label]]
        order = [label for _, label in sorted(both)]
        if len(groups[first]) < 2 or len(groups[other]) < 2:
            continue
        if changes(order) < min(len(groups[first]), len(groups[other])):
            letters = "".join("A" if label == first else "B" for label in order)
            found.append(
                f"{first} (A) and {other} (B) did not take turns: {letters}. A drift of the "
                "machine cannot be told from a change; run them in turns: A B, B A, A B …"
            )
    return found


def at_once(groups: Groups) -> list[str]:
    """Runs that were made at the same time, and disturbed each other, in words."""
    runs = {run.id: run for each in groups.values() for run in each}
    return [
        f"{one.id} and {other.id} ran at the same time"
        for one, other in combinations(sorted(runs.values(), key=lambda run: run.began), 2)
        if other.began < one.began + one.seconds
    ]
