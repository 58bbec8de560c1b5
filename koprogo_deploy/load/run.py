"""A load run from beginning to end: hold, look, clean, watch, send, clean again, judge."""

from __future__ import annotations

import getpass
import os
import pickle
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from queue import SimpleQueue
from typing import Any

import orjson

from koprogo_deploy import objectives
from koprogo_deploy.door import Environment
from koprogo_deploy.load import host
from koprogo_deploy.load import plan as plans
from koprogo_deploy.load.hold import LEEWAY, Hold, exempt_for_good
from koprogo_deploy.load.ledger import Ledger, Progress
from koprogo_deploy.load.plan import Account, Options, Plan, Target
from koprogo_deploy.load.profiles import Profile
from koprogo_deploy.monitor import Monitor
from koprogo_deploy.operations.context import revision
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.runs import store
from koprogo_deploy.runs.model import Cleanup, Generator, Machine, Run

# The application's own seed knows one password.
API_SEED_PASSWORD = "admin123"  # noqa: S105 - public in KoproGo's repository
MONITOR_WITHIN = 15.0
LAST_SAMPLE = 1.2  # seconds until the run's last one has been seen

# A step in words, or how the run is getting on.
Tell = Callable[[str | Progress], None]


class LoadFailed(RuntimeError):
    """The run could not be done; the message says why."""


def prepare(environment: Environment | None, profile: Profile, options: Options) -> Plan:
    """Decide everything.

    Args:
        environment: None with `options.url`.
        profile: what to run.
        options: of the command line.

    Raises:
        Refusal: with every reason; nothing was touched.
    """
    settings = environment.settings if environment else None
    objective = settings.objective_rate if settings else plans.OBJECTIVE_RATE
    phases = plans.phases(profile, options, objective)
    problems = plans.problems(profile, options, phases, settings)
    accounts: tuple[Account, ...] = ()
    if options.logins:
        accounts = tuple(Account(email, options.password) for email in options.logins)
        if not options.password and settings:
            problems.append(
                Problem("KOPROGO_LOAD_PASSWORD", "no password of the login",
                        "export KOPROGO_LOAD_PASSWORD=…")
            )  # fmt: skip
    elif environment and settings:
        password = environment.secrets.values.get("SEED_PASSWORD", "")
        if settings.seed_via == "api":
            password = API_SEED_PASSWORD
        accounts = tuple(Account(email, password) for email in plans.LOGINS)
    cpus = tuple(settings.load_cpus) if settings and settings.load_cpus else None
    if cpus and not set(cpus) <= os.sched_getaffinity(0):
        mine = sorted(os.sched_getaffinity(0))
        problems.append(
            Problem("load_cpus", f"{list(cpus)} are not all CPUs of this process: {mine}",
                    "name some of these, or None")
        )  # fmt: skip
    if problems:
        raise Refusal("Load", problems)
    return Plan(
        target=_target(environment, options),
        accounts=accounts,
        phases=phases,
        run=secrets.token_hex(4),
        seed=options.seed if options.seed is not None else secrets.randbits(32),
        connections=plans.connections(profile, options, phases),
        renew_after=options.renew_after,
        timeout=options.timeout,
        cpus=cpus,
    )


def _target(environment: Environment | None, options: Options) -> Target:
    if environment is None:
        url = options.url.rstrip("/")
        return Target(url if url.endswith("/api/v1") else f"{url}/api/v1")
    settings = environment.settings
    return Target(settings.api_url, settings.public_address, settings.ca_certificate)


def execute(
    environment: Environment | None,
    profile: Profile,
    options: Options,
    tell: Tell = lambda _: None,
) -> Run:
    """Do a run; it is judged, and not saved.

    Ctrl-C (KeyboardInterrupt) ends it early: what was written is removed, and the run says that it
    was interrupted.

    Args:
        environment: whose site; None with `options.url`.
        profile: what to run.
        options: of the command line.
        tell: is called with each step's words and each second's progress.

    Raises:
        Refusal: before anything was touched.
        LoadFailed: it could not be done; what was written is removed all the same.
    """
    plan = prepare(environment, profile, options)
    ledger = Ledger(plan)
    run = Run(
        id=store.new_id(profile.name),
        environment=environment.settings.environment if environment else plan.target.host,
        url=plan.target.url,
        profile=profile.name,
        began=datetime.now(UTC).timestamp(),
        seconds=0.0,
        command=options.command,
        revision=revision(),
        phases=[],
        series=[],
        generator=_nothing(plan),
        machine=Machine(host=plan.target.host, client=host.client_machine()),
    )
    with ExitStack() as stack:
        stack.enter_context(_pinned(plan))
        hold = _on_host(stack, environment, plan, run, tell) if environment else None
        monitor = _monitor(stack, environment, options, run, plan.seconds + LEEWAY, tell)
        cleanup = _Cleaner(environment, plan, ledger, run, options, tell)
        stack.callback(cleanup)
        tell(_what(plan))
        run.interrupted = generate(plan, ledger, tell)
        _fill(run, ledger)
        if hold is not None and hold.lost:
            run.notes.append("the connection to the host broke during the run")
        _watched(monitor, run)
    if ledger.failed:
        raise LoadFailed(ledger.failed)
    if environment and any(phase.judged for phase in run.phases):
        run.verdict = objectives.judge(run, environment.settings)
    return run


def _nothing(plan: Plan) -> Generator:
    return Generator(
        valid=False, cpu_percent_mean=0, cpu_percent_max=0, late_p99_ms=0, late_max_ms=0,
        connections=plan.connections,
    )  # fmt: skip


def _what(plan: Plan) -> str:
    shapes = []
    for phase in plan.phases:
        load = f"{phase.rate:g} requests a second" if phase.rate else f"{phase.users} users"
        shapes.append(f"{phase.name} {phase.seconds} s, {load}")
    return f"{plan.target.url}: {'; '.join(shapes)}; at most {plan.connections} connections"


@contextmanager
def _pinned(plan: Plan) -> Iterator[None]:
    """Keep to the plan's CPUs, with all that is started meanwhile."""
    if not plan.cpus:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, plan.cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _on_host(stack: ExitStack, environment: Environment, plan: Plan, run: Run, tell: Tell) -> Hold:
    """Take the lock and the exemption, look at the host, remove what a killed run left."""
    found = host.look(environment)
    run.machine, run.deployed = found.machine, found.deployed
    run.notes += found.notes
    client: str | None = found.client
    if not found.client:
        client = None
        run.notes.append("the host does not say who we are: no exemption from the rate limiter")
    elif exempt_for_good(environment.settings, found.client):
        client = None
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    holder = f"{who} since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {run.id}"
    if client:
        tell(f"exempting {client} from the rate limiter, for the time of the run")
    hold = Hold(environment, holder, client, plan.seconds + LEEWAY)
    stack.enter_context(hold)

    def let_go() -> None:
        if problem := hold.let_go():
            run.notes.append(problem)
            tell(problem)
        elif client:
            tell(f"{client} is no longer exempt from the rate limiter")

    stack.callback(let_go)
    if left := host.clean(environment):
        text = f"removed what an earlier run had left behind: {_rows(left)}"
        run.notes.append(text)
        tell(text)
    return hold


def _rows(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {table}" for table, count in counts.items())


def _monitor(
    stack: ExitStack,
    environment: Environment | None,
    options: Options,
    run: Run,
    seconds: int,
    tell: Tell,
) -> Monitor | None:
    if environment is None:
        run.monitor_problem = "no host to watch with --url"
        return None
    if not options.monitor:
        run.monitor_problem = "switched off with --no-monitor"
        return None
    tell("starting the monitor on the host")
    monitor = stack.enter_context(Monitor(environment, longest=float(seconds)))
    if not monitor.wait(MONITOR_WITHIN):
        tell(f"the monitor has seen nothing yet: {monitor.problem or 'no sample'}")
    return monitor


def _watched(monitor: Monitor | None, run: Run) -> None:
    if monitor is None:
        return
    time.sleep(LAST_SAMPLE)
    run.samples = list(monitor.samples)
    run.monitor_problem = monitor.problem
    run.clock_offset = monitor.clock_offset


class _Cleaner:
    """Removes what the run wrote, whatever became of it."""

    def __init__(
        self,
        environment: Environment | None,
        plan: Plan,
        ledger: Ledger,
        run: Run,
        options: Options,
        tell: Tell,
    ) -> None:
        self._environment, self._plan, self._ledger = environment, plan, ledger
        self._run, self._options, self._tell = run, options, tell

    def __call__(self) -> None:
        cleanup = Cleanup(kept=self._options.keep, created=self._ledger.created())
        self._run.cleanup = cleanup
        if self._environment is None or self._options.keep:
            return
        name = self._environment.settings.environment
        again = f"remove them with: koprogo load clean --env {name}"
        if name != "sandbox":
            again += f" --on {name}"
        try:
            cleanup.removed = host.clean(self._environment, self._plan.run, self._ledger.tokens)
        except KeyboardInterrupt:
            self._tell(f"rows are left: interrupted; {again}")
            raise
        except (Refusal, ValueError, OSError) as error:
            why = error.problems[0].what if isinstance(error, Refusal) else str(error)
            cleanup.problem = f"rows are left: {why}; {again}"
            self._tell(cleanup.problem)
            return
        if cleanup.removed:
            self._tell(f"removed what the run wrote: {_rows(cleanup.removed)}")
        missing = {
            table: count - cleanup.removed.get(table, 0)
            for table, count in cleanup.created.items()
            if cleanup.removed.get(table, 0) < count
        }
        if missing:
            self._run.notes.append(
                f"rows that the API said it created were not in the database: {_rows(missing)}"
            )


def generate(plan: Plan, ledger: Ledger, tell: Tell = lambda _: None) -> bool:
    """Run the generator's process to its end.

    Args:
        plan: what it does.
        ledger: takes in what it tells, also why it failed.
        tell: is called with each step's words and each second's progress.

    Returns:
        Whether it was interrupted by a KeyboardInterrupt.
    """
    interrupted = False
    pickled = pickle.dumps(plan)
    with (
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            [sys.executable, "-m", "koprogo_deploy.load.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        process.stdin.write(len(pickled).to_bytes(8, "big") + pickled)
        process.stdin.flush()
        told: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        # Taken in by a thread: an interruption in the middle of it would lose what was told.
        reader = threading.Thread(target=_read, args=(process, ledger, told), daemon=True)
        reader.start()
        while True:
            try:
                while (event := told.get()) is not None:
                    _show(event, ledger, tell)
                break
            except KeyboardInterrupt:
                if interrupted:  # a second time: at once
                    process.kill()
                interrupted = True
                tell("interrupted: waiting for the last answers, then cleaning up")
                with suppress(OSError):
                    process.stdin.write(b"stop\n")
                    process.stdin.flush()
        reader.join()
        with suppress(OSError):
            process.stdin.close()
        code = process.wait()
        complaints.seek(0)
        words = complaints.read().decode("utf-8", "replace").strip()
    if not ledger.done and not ledger.failed and not interrupted:
        last = words.splitlines()[-1] if words else f"exit code {code}"
        ledger.failed = f"the generator ended before its time: {last}"
    return interrupted


def _read(
    process: subprocess.Popen[bytes], ledger: Ledger, told: SimpleQueue[dict[str, Any] | None]
) -> None:
    assert process.stdout is not None
    try:
        for line in process.stdout:
            event = orjson.loads(line)
            ledger.take(event)
            told.put(event)
    except Exception as error:  # whoever waits for the queue has to hear of it
        ledger.failed = ledger.failed or f"reading from the generator: {error!r}"
        process.kill()
    finally:
        told.put(None)


def _show(event: dict[str, Any], ledger: Ledger, tell: Tell) -> None:
    match event["event"]:
        case "ready":
            tell(f"logged in: {', '.join(account.email for account in ledger.plan.accounts)}")
        case "note":
            tell(event["text"])
        case "rows" if event["at"]:
            tell(ledger.progress)


def _fill(run: Run, ledger: Ledger) -> None:
    """The run's figures."""
    if ledger.began is not None:
        run.began = ledger.began
    run.phases = ledger.phases()
    run.series = ledger.series()
    run.seconds = round(ledger.seconds, 3)
    run.generator = ledger.generator(run.phases)
    run.notes += ledger.notes
    run.notes += [
        f"{kind}: {example}" for kind, examples in ledger.words.items() for example in examples
    ]
