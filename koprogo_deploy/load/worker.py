"""The generator's process: a pickled plan on standard input, events on standard output as lines.

It ends when its standard input does: whoever started it and is killed takes it along.
"""

from __future__ import annotations

import asyncio
import os
import pickle
from contextlib import suppress
from pathlib import Path

import orjson
import uvloop

from koprogo_deploy.load.generator import Event, Failed, Generator, in_words
from koprogo_deploy.load.plan import Plan

PRIORITY = -10


async def _work(plan: Plan) -> None:
    loop = asyncio.get_running_loop()
    # Never blocked by a reader that is busy: what is told may take several pipes' room.
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(os.dup(1), "wb", buffering=0)
    )
    output = asyncio.StreamWriter(transport, protocol, None, loop)

    def emit(event: Event) -> None:
        output.write(orjson.dumps(event) + b"\n")

    generator = Generator(plan, emit)

    def on_input() -> None:
        word = os.read(0, 64)
        generator.stop()
        if not word:  # nobody is there to read what is told
            os._exit(1)

    loop.add_reader(0, on_input)
    try:
        await generator.run()
    except Failed as failed:
        emit({"event": "failed", "text": str(failed)})
    except Exception as error:
        emit({"event": "failed", "text": f"in the generator: {in_words(error)}"})
    while transport.get_write_buffer_size():
        await asyncio.sleep(0.01)
    transport.close()


def _ahead_of_others() -> None:
    """Others on this machine would make it late. Where this is not allowed, lateness is told."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    # Linux weighs sessions first, and processes within their session; this one is our own.
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(PRIORITY))


def main() -> None:
    """Read the plan, do it, tell. In a session of its own: Ctrl-C is for who started it."""
    head = os.read(0, 8)
    size, plan = int.from_bytes(head, "big"), b""
    while len(plan) < size:
        plan += os.read(0, size - len(plan))
    found: Plan = pickle.loads(plan)  # noqa: S301 - from our own parent, by its pipe
    if found.cpus:
        os.sched_setaffinity(0, found.cpus)
    _ahead_of_others()
    uvloop.run(_work(found))


if __name__ == "__main__":
    main()
