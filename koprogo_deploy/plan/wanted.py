"""Which release the settings ask for, and how it relates to what is on the host. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from koprogo_deploy import render
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.stack import StackState, digest_reference
from koprogo_deploy.settings import SERVICES, SWITCHED, Settings


@dataclass(frozen=True)
class Wanted:
    """The release that the settings ask for, and how it relates to what is on the host.

    Attributes:
        release: its rendered files.
        exists: `current` or `candidate` when the host has exactly this one, else empty.
        content: hash that it has whatever its colours.
    """

    release: render.Release
    exists: str
    content: str


def known_digests(settings: Settings, state: StackState) -> dict[str, str]:
    """Digest of each service's image, where the settings or a manifest on the host say it.

    A tag is resolved once: the digest in the manifest stands until group data names another tag.
    """
    digests = {}
    for service in SERVICES:
        wanted = settings.image(service)
        if "@sha256:" in wanted:
            digests[service] = digest_reference(wanted, wanted)
            continue
        for manifest in (state.candidate, state.current):
            asked = manifest["requested"].get(service, "") if manifest else ""
            if manifest and wanted in (asked, asked.partition("@")[0]):
                digests[service] = manifest["images"][service]
                break
    return digests


def wanted_release(
    environment: Environment,
    sets: Mapping[str, Mapping[str, str]],
    images: Mapping[str, str],
    state: StackState,
) -> Wanted:
    """Decide which release the settings ask for, colours included. Pure."""
    live = state.live or {"specs": {}, "colours": {}}
    first = render.render(environment.settings, sets, images, dict.fromkeys(SWITCHED, "blue"))
    colours = render.choose_colours(first.specs, live["specs"], live["colours"])
    release = render.render(environment.settings, sets, images, colours)
    for name, manifest in (("candidate", state.candidate), ("current", state.current)):
        if manifest and manifest["hash"] == release.hash:
            return Wanted(release, name, first.hash)
    return Wanted(release, "", first.hash)


def dynamic_hash(release: render.Release) -> str:
    """Of Traefik's dynamic file, as the stack fact tells what lies on the host."""
    return hashlib.sha256(release.files["traefik/dynamic.yaml"].encode()).hexdigest()


def refused(state: StackState, wanted: Wanted) -> str:
    """Why this release is not deployed by itself; empty if nothing stands against it."""
    reason = state.bad.get(wanted.release.hash) or state.bad.get(wanted.content)
    # What serves and counts is no redeploy.
    if not reason or (wanted.exists == "current" and not state.candidate):
        return ""
    plain = reason.startswith(("rolled back", "not routed"))
    told = f"was {'' if plain else 'taken back: '}{reason}"
    return f"this very release {told}. Change something, or give --data retry_bad_release=true"


def to_pull(settings: Settings, stack: StackState) -> list[str]:
    """Services whose image no manifest on the host names. Pure."""
    known = known_digests(settings, stack)
    there = {image for m in (stack.candidate, stack.current) if m for image in m["images"].values()}
    return [service for service in SERVICES if known.get(service) not in there]
