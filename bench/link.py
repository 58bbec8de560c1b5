"""A slow line to a port of 127.0.0.1, and a count of how often it was crossed and waited for.

It listens on 127.0.0.2 with the same port, so that everything but the address stays as it is.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType

NEAR = "127.0.0.2"
FAR = "127.0.0.1"
_CHUNK = 65536


@dataclass
class Count:
    """What went over one port.

    Attributes:
        connections: TCP connections opened.
        turns: times that the client sent something after it had received something, which is
            how often it waited for the other end: round trips.
        received: bytes from the far end.
    """

    connections: int = 0
    turns: int = 0
    received: int = 0


@dataclass
class Link:
    """Forwards ports of 127.0.0.2 to 127.0.0.1, each direction late by half the round trip.

    Args:
        ports: those to forward.
        round_trip: seconds.
    """

    ports: Sequence[int]
    round_trip: float
    counts: dict[int, Count] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = {port: Count() for port in self.ports}
        self._servers: list[asyncio.Server] = []
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Link:
        self._thread.start()
        for port in self.ports:
            asyncio.run_coroutine_threadsafe(self._listen(port), self._loop).result(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _hang_up(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _listen(self, port: int) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(asyncio.CancelledError):  # on the way out
                await self._serve(port, reader, writer)

        self._servers.append(await asyncio.start_server(serve, NEAR, port))

    async def _serve(
        self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        count = self.counts[port]
        count.connections += 1
        # The kernel has already accepted; on a long line the handshake takes a round trip.
        await asyncio.sleep(self.round_trip)
        try:
            far_reader, far_writer = await asyncio.open_connection(FAR, port)
        except OSError:
            writer.close()
            return
        self._writers |= {writer, far_writer}
        heard = False  # whether the last thing on this line came from the far end

        def sent(_size: int) -> None:
            nonlocal heard
            count.turns += heard
            heard = False

        def received(size: int) -> None:
            nonlocal heard
            heard = True
            count.received += size

        await asyncio.gather(
            self._carry(reader, far_writer, sent), self._carry(far_reader, writer, received)
        )
        far_writer.close()
        writer.close()
        self._writers -= {writer, far_writer}

    async def _carry(
        self,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter,
        tell: Callable[[int], None],
    ) -> None:
        line: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            with suppress(OSError):
                while True:
                    due, data = await line.get()
                    await asyncio.sleep(due - self._loop.time())
                    if not data:
                        target.write_eof()
                        return
                    tell(len(data))
                    target.write(data)
                    await target.drain()

        delivery = asyncio.create_task(deliver())
        data = b"?"
        while data:
            try:
                data = await source.read(_CHUNK)
            except OSError:
                data = b""
            line.put_nowait((self._loop.time() + self.round_trip / 2, data))
        await delivery
