"""What a run has seen of the host: it stands until anything is done to the host.

Stages look at the same things, each for itself, so that each runs alone too. A stage that changed
nothing need not make the next one look again. Every command and every upload, whoever runs it,
makes the run forget all it has seen; only a look does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from pyinfra import host, state
from pyinfra.api import FactBase

from koprogo_deploy import machine
from koprogo_deploy.facts.host import Host, HostState
from koprogo_deploy.operations import context
from koprogo_deploy.pyinfra_adapter import connection

_seen: dict[object, Any] = {}
_looking = False


def watch_commands() -> None:
    """Begin to remember looks on this host: from here on each command is noticed."""
    connection.wrap_commands(host, _forgetting)


def _forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passes through as it is
        if _looking:
            return method(*args, **kwargs)
        _seen.clear()
        try:
            return method(*args, **kwargs)
        finally:
            _seen.clear()

    return call


@contextlib.contextmanager
def only_looking() -> Iterator[None]:
    """What is run meanwhile changes nothing, so that what was seen still stands."""
    global _looking
    _looking = True
    try:
        yield
    finally:
        _looking = False


def look(fact: type[FactBase], **arguments: Any) -> Any:  # noqa: ANN401 - what the fact gives
    """A fact of the current host: remembered if nothing was done since, else gathered.

    What was seen to show the changes is not used to make them: a person may have thought about
    the prompt for an hour.
    """
    if not connection.is_wrapped(host):
        return host.get_fact(fact, **arguments)
    key = (host.name, state.is_executing, fact, repr(sorted(arguments.items())))
    if key not in _seen:
        with only_looking():
            _seen[key] = host.get_fact(fact, **arguments)
    return _seen[key]


def machine_now() -> HostState:
    """The machine as it is now: all that any stage compares, in one look."""
    found: HostState = look(Host, **machine.compared(context.current().settings))
    return found
