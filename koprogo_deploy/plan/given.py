"""A plan that was made before: read from its file, and held against what would be planned now.

Whoever can change the file, such as the author of a pull request whose job made it, decides nothing
by that: what is deployed is what this checkout and the registry say, and the file has to agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from koprogo_deploy.door import ROOT, Environment
from koprogo_deploy.facts.stack import digest_reference
from koprogo_deploy.plan.model import FORMAT, Plan
from koprogo_deploy.plan.seen import differences
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import SERVICES, Settings

WHERE = "--data plan"


def read(file: str, environment: Environment) -> Plan:
    """Read a plan's file.

    Args:
        file: its path, from the project's root or absolute.
        environment: that the plan has to be of.

    Raises:
        Refusal: it cannot be read, or is of another environment or host.
    """
    name = environment.settings.environment
    fix = f"make one: koprogo plan {name} --out {file}"
    try:
        text = (ROOT / Path(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise Refusal("Plan", [Problem(WHERE, f"{file}: {why}", fix)]) from None
    try:
        plan = Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"]))
        what = f"{file} is no plan of this version: {at + ': ' if at else ''}{first['msg']}"
        raise Refusal("Plan", [Problem(WHERE, what, fix)]) from None
    if plan.format != FORMAT:
        what = f"{file} has format {plan.format}, and this version reads {FORMAT}"
        raise Refusal("Plan", [Problem(WHERE, what, fix)])
    if (plan.environment, plan.host) != (name, environment.host):
        what = f"{file} is of {plan.environment} on {plan.host}, not of {name} on"
        raise Refusal("Plan", [Problem(WHERE, f"{what} {environment.host}", fix)])
    if foreign := foreign_images(plan.release.images, environment.settings):
        raise Refusal("Plan", [Problem(WHERE, f"{file}: {what}", fix) for what in foreign])
    return plan


def foreign_images(images: Mapping[str, str], settings: Settings) -> list[str]:
    """Images of a plan that group data does not ask for, whatever the registry may say. Pure.

    Args:
        images: reference by service, as the plan has it.
        settings: they name the repository, and may name the digest.
    """
    found = []
    if set(images) != set(SERVICES):
        found.append(f"it has images for {', '.join(sorted(images)) or 'no service'}")
    for service in SERVICES:
        image, asked = images.get(service, ""), settings.image(service)
        wanted = digest_reference(asked, asked if "@" in asked else image)
        if image and image != wanted and (image != asked or "@" in asked):
            found.append(f"{service} is {image}, and group data asks for {asked}")
    return found


def by_tag(plan: Plan, settings: Settings) -> dict[str, str]:
    """Images that the plan, too, knew by their tag alone: no registry could be asked. Pure."""
    images = plan.release.images
    return {
        s: images[s] for s in SERVICES if images[s] == settings.image(s) and "@" not in images[s]
    }


def stale(before: Plan, now: Plan) -> list[Problem]:
    """Why a plan cannot be carried out as it is; empty if it can. Pure.

    Args:
        before: the plan.
        now: the one that would be made now.
    """
    again = f"look at it and plan anew: koprogo plan {now.environment} --out FILE"
    found = [
        Problem("the host changed since", changed, again)
        for changed in differences(before.seen, now.seen)
    ]
    old, new = before.release, now.release
    files = [p for p in sorted({*old.files, *new.files}) if old.files.get(p) != new.files.get(p)]
    elsewhere = (
        f"the plan is of commit {before.revision or 'unknown'}, this checkout is at "
        f"{now.revision or 'unknown'}"
    )
    for service in sorted(new.requested):
        if old.requested.get(service) != new.requested[service]:
            what = f"asks for {new.requested[service]}, and the plan for"
            what += f" {old.requested.get(service)}; {elsewhere}"
            found.append(Problem("this checkout", what, again))
        elif old.images.get(service) != new.images[service]:
            what = (
                f"{service}: {new.requested[service]} is {new.images[service]} now, and the plan "
            )
            what += f"has {old.images.get(service)}"
            found.append(Problem("the image is another one", what, again))
    if files:
        what = f"renders {', '.join(files)} otherwise; {elsewhere}"
        found.append(Problem("this checkout", what, again))
    elif old.hash != new.hash or old.colours != new.colours:
        what = f"makes release {new.hash}, and the plan is of {old.hash}; {elsewhere}"
        found.append(Problem("this checkout", what, again))
    if old.secrets != new.secrets:
        names = [s for s in sorted(new.secrets) if old.secrets.get(s) != new.secrets[s]]
        what = f"other secrets for {', '.join(names) or 'fewer services'}"
        found.append(Problem(f".env.{now.environment}", what, again))
    if before.machine.wanted != now.machine.wanted:
        what = f"asks for other packages, files or settings of the machine; {elsewhere}"
        found.append(Problem("this checkout", what, again))
    return found
