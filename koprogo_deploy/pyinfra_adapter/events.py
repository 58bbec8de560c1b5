"""What happens in a run: steps begin, fail and end, and who listens hears of it."""

from __future__ import annotations

from typing import Any

from pyinfra import state as current
from pyinfra.api.state import BaseStateCallback


class Step:
    """A step of the run.

    Attributes:
        key: the same for the same step, whatever happens to it.
    """

    def __init__(self, state: Any, key: str) -> None:  # noqa: ANN401 - pyinfra's own type
        self._state = state
        self.key = key

    @property
    def name(self) -> str:
        """Its title, such as `Cut over | Certificates`."""
        return ", ".join(self._state.get_op_meta(self.key).names)

    @property
    def changed(self) -> bool:
        """Whether it changed something on any host; known when it has ended."""
        return any(
            self._state.get_op_data_for_host(host, self.key).operation_meta.did_change()
            for host in self._state.inventory.get_active_hosts()
        )


class Listener:
    """Hears of each step; a subclass overrides what it wants to hear of."""

    def step_began(self, step: Step) -> None:
        """A step begins."""

    def step_failed(self, step: Step, host: Any) -> None:  # noqa: ANN401 - pyinfra's own type
        """A step failed on a host; it can still be talked to, if its connection lives."""

    def step_ended(self, step: Step) -> None:
        """A step has ended on all hosts, well or not."""


class _Bridge(BaseStateCallback):
    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def operation_start(self, state: Any, op_hash: str) -> None:  # noqa: ANN401
        self.listener.step_began(Step(state, op_hash))

    def operation_host_error(
        self,
        state: Any,  # noqa: ANN401
        host: Any,  # noqa: ANN401
        op_hash: str,
        retry_count: int = 0,
        max_retries: int = 0,
    ) -> None:
        self.listener.step_failed(Step(state, op_hash), host)

    def operation_end(self, state: Any, op_hash: str) -> None:  # noqa: ANN401
        self.listener.step_ended(Step(state, op_hash))


def listen(listener: Listener) -> None:
    """Have it hear of the run's steps from here on; one of its class, however often it is asked.

    Who came first hears first.
    """
    if not any(_is_like(handler, listener) for handler in current.callback_handlers):
        current.add_callback_handler(_Bridge(listener))


def _is_like(handler: object, listener: Listener) -> bool:
    return isinstance(handler, _Bridge) and type(handler.listener) is type(listener)
