"""A request is sent once: aiohttp, left alone, sends a GET again when its connection breaks."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import aiohttp
import pytest

from koprogo_deploy.load.generator import Failed, send_nothing_twice, session
from koprogo_deploy.load.plan import Target


async def asked(plain: bool) -> tuple[int, str]:
    """How often the second GET of a kept connection arrives, which the server breaks; the error."""
    arrived = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal arrived
        served = 0
        while await reader.readuntil(b"\r\n\r\n"):
            arrived += 1
            served += 1
            if served == 2 or arrived > 2:
                break
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    timeout = aiohttp.ClientTimeout(total=10)
    target = Target(url=url, address=None, ca=None)
    made = aiohttp.ClientSession() if plain else session(target, 1, timeout)
    async with server, made as client:
        async with client.get(url) as answer:
            assert answer.status == 200
        try:
            async with client.get(url):
                return arrived - 1, ""
        except aiohttp.ClientError as error:
            return arrived - 1, type(error).__name__


def test_a_request_whose_connection_breaks_is_an_error_and_not_sent_again() -> None:
    assert asyncio.run(asked(plain=False)) == (1, "ServerDisconnectedError")
    assert asyncio.run(asked(plain=True))[0] == 2, "what aiohttp does by itself"


@pytest.mark.parametrize("other", [SimpleNamespace(), SimpleNamespace(_retry_connection=3)])
def test_an_aiohttp_without_the_switch_is_refused(other: aiohttp.ClientSession) -> None:
    with pytest.raises(Failed, match="may send a request twice"):
        send_nothing_twice(other)
