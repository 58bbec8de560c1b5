"""Asks which of the locked packages have known vulnerabilities, and judges the answer.

`make audit-packages` runs it. pip-audit asks PyPI about each package; a service that does not
answer, or knows no package, is told as "not checked" and is no failure: nothing can be said then.
With KOPROGO_AUDIT=strict it is one, for a pipeline that has to know.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXCEPTIONS = ROOT / "scripts" / "audit-exceptions.toml"
# All that comes from PyPI: what a deployer installs, what the stand-in runs on, our own tools.
LOCKS = ("requirements.lock", "sandbox/images/backend/requirements.txt", "scripts/tools.lock")
WITHIN = 180  # seconds

# What pip-audit's last words hold when the network or PyPI is at fault.
_UNREACHABLE = ("requests.exceptions.", "ConnectionError", "ServiceError", "vulnerability feed")

EXIT_FOUND = 1
EXIT_BROKEN = 2
EXIT_UNCHECKED = 3  # where it has to be known; scripts/audit-packages ends alike

MODE = "KOPROGO_AUDIT"  # strict, or nothing


@dataclass(frozen=True)
class Accepted:
    """A known vulnerability that passes, until a day."""

    id: str
    package: str
    why: str
    until: datetime.date


@dataclass(frozen=True)
class Verdict:
    """What the answer comes to.

    Attributes:
        findings: vulnerabilities that count; any of them is a failure.
        passed: excepted ones, each with its reason.
        obsolete: exceptions that nothing answers to any more.
        unchecked: packages of which nothing could be learned.
        checked: how many packages were looked up.
    """

    findings: tuple[str, ...]
    passed: tuple[str, ...]
    obsolete: tuple[str, ...]
    unchecked: tuple[str, ...]
    checked: int


def exceptions(text: str) -> list[Accepted]:
    """Read the list of exceptions. Pure.

    Raises:
        ValueError: an entry is not whole, or its end is no date; says which.
    """
    entries = tomllib.loads(text).get("exception", [])
    return [_accepted(number, entry) for number, entry in enumerate(entries, 1)]


def _accepted(number: int, entry: Mapping[str, Any]) -> Accepted:
    for field in ("id", "package", "why"):
        if not isinstance(entry.get(field), str) or not entry[field].strip():
            raise ValueError(f'exception {number}: {field} is missing; write {field} = "…"')
    until = entry.get("until")
    if type(until) is not datetime.date:
        raise ValueError(f"exception {number}: until is no date; write until = 2027-03-01")
    if unknown := sorted(set(entry) - {"id", "package", "why", "until"}):
        raise ValueError(f"exception {number}: {', '.join(unknown)} is unknown; take it out")
    return Accepted(entry["id"], entry["package"].lower(), entry["why"], until)


def judge(answer: Mapping[str, Any], accepted: Sequence[Accepted], today: datetime.date) -> Verdict:
    """Sort what pip-audit answered by what counts. Pure.

    Args:
        answer: pip-audit's JSON.
        accepted: the exceptions.
        today: an exception counts up to and with its day.
    """
    findings: list[str] = []
    passed: list[str] = []
    unchecked = {d["name"] for d in answer["dependencies"] if "skip_reason" in d}
    looked_up = [d for d in answer["dependencies"] if "skip_reason" not in d]
    used: set[Accepted] = set()
    for package in looked_up:
        for flaw in package["vulns"]:
            names = {flaw["id"], *flaw.get("aliases", ())}
            told = f"{package['name']} {package['version']}: {', '.join(sorted(names))}"
            fixed = ", ".join(flaw.get("fix_versions") or ()) or "no version yet"
            match = [e for e in accepted if e.id in names and e.package == package["name"].lower()]
            used.update(match)
            if any(today <= each.until for each in match):
                passed.append(f"{told}: until {match[0].until}: {match[0].why}")
            elif match:
                findings.append(f"{told}, fixed in {fixed}: its exception ended {match[0].until}")
            else:
                findings.append(f"{told}, fixed in {fixed}")
    known = {package["name"].lower() for package in looked_up}
    gone = {name.lower() for name in unchecked}
    obsolete = [
        f"{e.id} of {e.package}: "
        + ("it has none of that name" if e.package in known else "no such package is locked")
        for e in accepted
        if e not in used and e.package not in gone
    ]
    return Verdict(
        tuple(dict.fromkeys(findings)),
        tuple(dict.fromkeys(passed)),
        tuple(obsolete),
        tuple(sorted(unchecked)),
        len({(package["name"], package["version"]) for package in looked_up}),
    )


def report(verdict: Verdict) -> list[str]:
    """The verdict in lines for people. Pure."""
    if not verdict.checked:
        return ["not checked: the service answered for none of the packages"]
    lines = [f"VULNERABLE {line}" for line in verdict.findings]
    lines += [f"passes     {line}" for line in verdict.passed]
    lines += [
        f"obsolete   {line}; take it out of {EXCEPTIONS.relative_to(ROOT)}"
        for line in verdict.obsolete
    ]
    if verdict.unchecked:
        lines.append(f"not checked: {', '.join(verdict.unchecked)}")
    count = len(verdict.findings)
    return [*lines, f"{verdict.checked} packages checked, {count} known vulnerabilities count"]


class NoAnswer(Exception):
    """The service cannot be reached: nothing is known, and nothing is wrong here."""


def ask(command: str, lock: str) -> list[dict[str, Any]]:
    """Have pip-audit ask about the packages of one lock.

    Raises:
        NoAnswer: the service cannot be reached.
        RuntimeError: pip-audit itself fails, such as on a lock that it cannot read.
    """
    arguments = [command, "--format=json", "--aliases=on", "--desc=off"]
    arguments += ["--progress-spinner=off", "--timeout=15"]
    # The locks are whole and hashed: pip need not resolve anything.
    arguments += ["--disable-pip", "--require-hashes", "--requirement", str(ROOT / lock)]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=WITHIN)
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"no answer within {WITHIN} s") from None
    words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        if any(word in done.stderr for word in _UNREACHABLE):
            raise NoAnswer(words) from None
        raise RuntimeError(f"{lock}: {words}") from None
    return packages


def ask_all(command: str) -> dict[str, Any]:
    """The answers about all locks; the first that teaches nothing ends the asking."""
    packages: list[dict[str, Any]] = []
    for lock in LOCKS:
        packages += ask(command, lock)
        if all("skip_reason" in package for package in packages):
            break
    return {"dependencies": packages}


def unchecked() -> int:
    """Exit code where something could not be checked; says how that is no failure, or is one."""
    if os.environ.get(MODE) == "strict":
        print(f"a failure by {MODE}=strict: what was not checked may be vulnerable")
        return EXIT_UNCHECKED
    return 0


def main(command: str) -> int:
    """Ask, judge, tell.

    Exit code 1: something counts; 2: the check itself is broken; 3: something was not checked,
    and has to be.
    """
    if (mode := os.environ.get(MODE, "")) not in ("", "strict"):
        print(f'{MODE} is "{mode}"; write strict, or leave it out', file=sys.stderr)
        return EXIT_BROKEN
    try:
        accepted = exceptions(EXCEPTIONS.read_text(encoding="utf-8"))
        answer = ask_all(command)
    except ValueError as error:
        print(f"{EXCEPTIONS.relative_to(ROOT)}: {error}", file=sys.stderr)
        return EXIT_BROKEN
    except (OSError, RuntimeError) as error:
        print(f"pip-audit failed: {error}", file=sys.stderr)
        return EXIT_BROKEN
    except NoAnswer as error:
        print(f"not checked: {error}")
        return unchecked()
    verdict = judge(answer, accepted, datetime.datetime.now(datetime.UTC).date())
    print("\n".join(report(verdict)))
    if verdict.findings:
        return EXIT_FOUND
    return 0 if verdict.checked and not verdict.unchecked else unchecked()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
