"""What a run holds on the host, by a root shell whose standard input is this process: the lock (one
load test at a time) and, where the client is not exempt for good, the rate limiter's exemption.

A run that is killed closes that input, and the shell takes the exemption back. If the shell itself
is killed a timer does, and after a reboot systemd-tmpfiles.
"""

from __future__ import annotations

import ipaddress
import shlex
import subprocess
from types import TracebackType

from koprogo_deploy import connection, render
from koprogo_deploy.data.host import LOAD_LOCK as LOCK
from koprogo_deploy.data.host import RUN
from koprogo_deploy.door import Environment
from koprogo_deploy.problems import Problem, Refusal
from koprogo_deploy.settings import Settings

ROUTER = "load-client"
UNIT = "koprogo-load-exemption"
BOOT_FILE = "/etc/tmpfiles.d/koprogo-load.conf"
# After the planned end of a run, before the timer takes the exemption back: logins, answers that
# are waited for, clean-up.
LEEWAY = 120


def exempt_for_good(settings: Settings, client: str) -> bool:
    """Whether group data exempts this client from the limits already."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return any(address in ipaddress.ip_network(n) for n in settings.load_client_addresses)


def exemption_file(settings: Settings) -> str:
    """Beside `dynamic.yaml`, in the directory that Traefik watches."""
    return f"{settings.install_root}/traefik/dynamic/{ROUTER}.yaml"


def exemption(settings: Settings, client: str) -> str:
    """The file's content: the router of the API without the limits, for one client address.

    Raises:
        ValueError: that is no address.
    """
    address = ipaddress.ip_address(client)
    rule = (
        f"Host(`{settings.api_domain}`) && PathPrefix(`/api/v1/`) && "
        f"(Method(`GET`) || Method(`POST`)) && ClientIP(`{address}`)"
    )
    return render.template("traefik/load-client.yaml", settings=settings, rule=rule)


def hold_script(settings: Settings, holder: str, client: str | None, seconds: int) -> str:
    """The root shell's script.

    Prints `held`, or `busy` and who holds the lock, or `failed` and why. When its standard input
    ends it takes back what it put there, and prints `gone` when Traefik has seen it.

    Args:
        settings: of the environment.
        holder: who runs the load test, for others to read.
        client: address to exempt; None: nothing to exempt.
        seconds: how long the exemption may last at most.
    """
    script = (
        "trap '' HUP PIPE INT TERM\n"
        f"umask 077; mkdir -p {RUN}; exec 9>>{LOCK}\n"
        f'flock -n 9 || {{ echo "busy $(cat {LOCK}.holder 2>/dev/null)"; exit 0; }}\n'
        f"printf '%s\\n' {shlex.quote(holder)} > {LOCK}.holder\n"
    )
    file = exemption_file(settings)
    api = f"http://{render.traefik_address(settings.edge_network)}:8082/api/http/routers"
    # Whoever held the lock before and was killed in the middle: nothing of it stays.
    back = (
        f"rm -f {file} {BOOT_FILE}; "
        f"systemctl stop {UNIT}.timer 2>/dev/null; "
        f"systemctl reset-failed {UNIT}.service 2>/dev/null"
    )
    code = f"curl -s -m 2 -o /dev/null -w '%{{http_code}}' {api}/{ROUTER}@file"
    wait = (
        "seen() { n=0; while [ $n -lt 100 ]; do "
        f'[ "$({code})" = "$1" ] && return 0; sleep 0.1; n=$((n+1)); done; return 1; }}\n'
    )
    if client is None:
        return script + f"[ -e {file} ] && {{ {back}; }}\necho held\ncat >/dev/null\n"
    new = f"{file.rpartition('/')[0]}/.{ROUTER}"
    return (
        script
        + wait
        + f"{back}\n"
        # At boot, before Docker: the file is gone when Traefik starts.
        + f"printf 'r! %s\\n' {file} {BOOT_FILE} > {BOOT_FILE}\n"
        + f"systemd-run -q --collect --unit={UNIT} --on-active={seconds} "
        + f"rm -f {file} {BOOT_FILE} || {{ echo 'failed no timer to take it back'; exit 0; }}\n"
        + f"printf '%s' {shlex.quote(exemption(settings, client))} > {new} && "
        + f"chmod 644 {new} && mv -T {new} {file}\n"
        + f"seen 200 || {{ {back}; echo 'failed Traefik does not read {file}'; exit 0; }}\n"
        + "echo held\ncat >/dev/null\n"
        + f"{back}\nseen 404 && echo gone\n"
    )


class Hold:
    """Holds the lock, and the exemption where it is needed, until it is left.

    Args:
        environment: whose host.
        holder: who runs the load test.
        client: address to exempt; None: nothing to exempt.
        seconds: how long at most.

    Raises:
        Refusal: on entering: another load test is running, or the exemption cannot be put there.
    """

    def __init__(
        self, environment: Environment, holder: str, client: str | None, seconds: int
    ) -> None:
        self._environment = environment
        self._script = hold_script(environment.settings, holder, client, seconds)
        self._client = client
        self._shell: subprocess.Popen[str] | None = None

    def __enter__(self) -> Hold:
        command = f"sudo -n sh -c {shlex.quote(self._script)}"
        self._shell = subprocess.Popen(
            connection.ssh_command(self._environment, command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C is for the run; what it holds is let go of at its end.
            start_new_session=True,
        )
        assert self._shell.stdout is not None
        answer = self._shell.stdout.readline().strip()
        if answer == "held":
            return self
        self._shell.kill()
        _, words = self._shell.communicate()
        raise _refused(self._environment, answer, words)

    @property
    def lost(self) -> bool:
        """Whether the shell has ended by itself: what it held is gone."""
        return self._shell is not None and self._shell.poll() is not None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.let_go()

    def let_go(self) -> str:
        """Take everything back; what is not right about it, or nothing."""
        if self._shell is None:
            return ""
        try:
            output, words = self._shell.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._shell.kill()
            return "the host did not say within 30 s that the exemption is taken back"
        finally:
            shell, self._shell = self._shell, None
        if self._client is not None and "gone" not in output:
            return f"the exemption may still be in force: {words.strip() or shell.returncode}"
        return ""


def _refused(environment: Environment, answer: str, words: str) -> Refusal:
    what, _, rest = answer.partition(" ")
    if what == "busy":
        other = rest or "nobody could say who"
        fix = "wait for it; koprogo load runs one at a time on a host"
        return Refusal("Load", [Problem("host", f"another load test is running: {other}", fix)])
    why = rest or (words.strip().splitlines() or ["no answer"])[-1]
    name = environment.settings.environment
    fix = f"see: koprogo ssh {name}; or exempt the client for good: load_client_addresses"
    return Refusal("Load", [Problem("rate limiter's exemption", why, fix)])
