"""Runs the dashboard: a socket on 127.0.0.1, the monitor, and an end that leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import html
import signal
import socket
import tempfile
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from koprogo_deploy import door
from koprogo_deploy.dashboard import app
from koprogo_deploy.dashboard.desk import Desk
from koprogo_deploy.dashboard.guard import Keys
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.screen import complain

ADDRESS = "127.0.0.1"
_ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(port: int) -> socket.socket:
    """A listening socket on 127.0.0.1.

    Args:
        port: 0 for any free one.

    Raises:
        Refusal: the port is taken.
    """
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((ADDRESS, port))
    except OSError as error:
        made.close()
        what = f"cannot listen on {ADDRESS}: {error.strerror}"
        raise Refusal("Dashboard", [Problem(f"--port {port}", what, "leave --port out")]) from None
    made.listen(128)
    return made


class _Server(uvicorn.Server):
    """Signals are ours: the job ends before the program, and the streams before the server."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def serve(
    desk: Desk,
    listening: socket.socket,
    report: Callable[..., str],
    ready: Callable[[Keys], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM; then stop the job, the monitor and the server.

    Args:
        desk: what is served.
        listening: from `listen`; closed at the end.
        report: makes the HTML of runs.
        ready: called with the keys when the page can be opened.
    """
    asyncio.run(_serve(desk, listening, report, ready))


async def _serve(
    desk: Desk,
    listening: socket.socket,
    report: Callable[..., str],
    ready: Callable[[Keys], None],
) -> None:
    keys = Keys(listening.getsockname()[1])
    closing = asyncio.Event()
    server = _Server(
        uvicorn.Config(
            app.build(desk, keys, closing, report),
            log_level="warning",
            access_log=False,  # the link's token would be in it
            server_header=False,
            timeout_graceful_shutdown=2,
        )
    )
    loop = asyncio.get_running_loop()

    def leave() -> None:
        if closing.is_set():
            return
        if desk.jobs.job is not None and desk.jobs.job.running:
            complain(f"\nstopping: {desk.jobs.job.plan.title} …")
        closing.set()
        server.should_exit = True

    for number in _ENDS:
        loop.add_signal_handler(number, leave)
    desk.watch.start()
    try:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        ready(keys)
        await serving
    finally:
        await desk.jobs.close()
        await asyncio.to_thread(desk.watch.stop)
        listening.close()


def open_browser(link: str) -> Path:
    """Open the link in the person's browser, by a private file: an argument could be read by all.

    Returns:
        The file; the caller removes it at the end.
    """
    with tempfile.NamedTemporaryFile(
        "w", prefix="koprogo-dashboard-", suffix=".html", delete=False, encoding="utf-8"
    ) as file:
        file.write(
            '<!doctype html><meta charset="utf-8"><title>KoproGo dashboard</title>'
            f'<meta http-equiv="refresh" content="0; url={html.escape(link)}">'
        )
    webbrowser.open(Path(file.name).as_uri())
    return Path(file.name)


def environment_opener(name: str) -> Callable[[], door.Environment]:
    """Reads an environment anew at each call; its settings may be mended meanwhile."""
    return lambda: door.open_environment(name)
