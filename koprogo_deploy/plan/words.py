"""A plan in sentences, for the deploy's output and for people at a terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from koprogo_deploy.plan.model import Duration, Interruption, Plan, Service
from koprogo_deploy.units import megabytes

# Measured in the sandbox (1 CPU); a host's own runs take their place.
MEASURED = {"postgres": 6.0, "traefik": 2.5}

_PAST = {"start": "starts", "restart": "restarts", "recreate": "is recreated", "keep": "stays"}


def action(service: Service) -> str:
    """What happens to a service: `switch to green`, `keep`."""
    return f"switch to {service.colour}" if service.action == "switch" else service.action


def services(found: Iterable[Service]) -> str:
    """One line about all of them."""
    found = list(found)
    parts = []
    for service in found:
        if service.action == "switch":
            parts.append(f"{service.name} switches to {service.colour}")
        elif service.action != "keep":
            parts.append(f"{service.name} {_PAST[service.action]}")
    kept = [service.name for service in found if service.action == "keep"]
    if kept:
        parts.append(f"{', '.join(kept)} {'stay' if len(kept) > 1 else 'stays'}")
    return "; ".join(parts)


def images(plan: Plan) -> str:
    """What is pulled; empty if nothing is."""
    if not plan.images.pull:
        return ""
    names = [
        f"{s} (its digest is known then)" if s in plan.images.unresolved else s
        for s in plan.images.pull
    ]
    return ", ".join(names)


def migrations(plan: Plan) -> str:
    """What is pending, and what is done about it."""
    found = plan.migrations
    if found.refusal:
        return found.refusal
    if found.pending is None and plan.live is None:
        return "all of the image's, on an empty database"
    if found.pending is None:
        told = "known once the image is pulled"
        if found.applied is None:
            told = "not known, for the database does not answer"
        return f"{told}; what is pending is rehearsed on a copy first" if found.rehearsed else told
    if not found.pending:
        return "none is pending"
    first = ", ".join(found.pending[:3]) + (" …" if len(found.pending) > 3 else "")
    told = f"{len(found.pending)} pending ({first})"
    if found.rehearsed:
        told += ", rehearsed on a copy of the data first"
    return f"{told}. {found.earlier}" if found.earlier else told


def memory(plan: Plan) -> str:
    """Before, during and after, against the machine's."""
    found = plan.memory
    steps = " -> ".join(megabytes(size) for size in (found.before, found.during, found.after))
    return f"{steps} (before, during, after), of {megabytes(found.ram)}"


def requests(plan: Plan) -> list[str]:
    """Whether requests can be lost, and why."""
    if plan.live is None:
        return ["nothing serves yet"]
    now = [f"not all are served as it is: {each}" for each in plan.down]
    if plan.interruptions:
        return now + [interruption(each) for each in plan.interruptions]
    if now:
        return [*now, "nothing else is interrupted"]
    return ["none is lost: nothing that serves is interrupted"]


def interruption(found: Interruption) -> str:
    """One of them: why, what users get, and for how long."""
    if found.seconds is not None:
        times = "once" if found.runs == 1 else f"{found.runs} times"
        length = f"{found.seconds:g} s (measured here {times})"
    else:
        length = f"{MEASURED[found.service]:g} s (measured in the sandbox; never yet here)"
    if found.page:
        return f"{found.why}. Everybody gets 503 with Retry-After for about {length}; none is lost"
    return f"{found.why}. Nothing answers for about {length}: requests are lost"


def duration(found: Duration) -> str:
    """How long it may take."""
    if found.seconds is None:
        return "unknown, first time: " + ", ".join(found.kind)
    of = "the one run" if found.runs == 1 else f"the {found.runs} runs"
    return f"{found.seconds:.0f} s, by {of} of this kind here"


def short(plan: Plan) -> list[str]:
    """The plan in a few lines, as a deploy says it before it begins."""
    if plan.nothing:
        return ["nothing to do"]
    lines = [services(plan.services)]
    machine = plan.machine
    if machine.packages:
        lines.append(f"packages: {', '.join(machine.packages)}")
    changed = [file.path for file in plan.files]
    if changed:
        named = ", ".join(changed[:6]) + (f" and {len(changed) - 6} more" if changed[6:] else "")
        lines.append(f"files: {named}")
    lines += machine.does
    if pulled := images(plan):
        lines.append(f"images to pull: {pulled}")
    if plan.migrations.pending != ():
        lines.append(f"migrations: {migrations(plan)}")
    if plan.seed:
        lines.append(f"seed: {plan.seed}")
    lines.append(f"memory: {memory(plan)}")
    lines += [f"requests: {line}" for line in requests(plan)]
    if plan.stops:
        lines.append(f"stops once the release is verified: {', '.join(plan.stops)}")
    lines.append(f"takes: {duration(plan.duration)}")
    return lines
