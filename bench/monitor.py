"""What watching costs: the box's CPU with the monitor and without, in turns.

    python -m bench.monitor                    six rounds of 20 s each way: 4 minutes
    python -m bench.monitor --rounds 2

The box is idle, so that nothing hides the cost; under load it is in `bench.overhead`. It starts
nothing and deploys nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from bench.figures import Figures
from koprogo_deploy import door, remote
from koprogo_deploy.monitor import Monitor

# The whole box's CPU time, in nanoseconds, cgroup version 1 or 2; see monitor.probe.groups.
_USED = """
path=$(awk -F: '$2 == "cpuacct" || $2 == "cpu,cpuacct" {print $3}' /proc/1/cgroup)
if [ -n "$path" ]; then
  cat "/sys/fs/cgroup/cpuacct${path%/init.scope}/cpuacct.usage"
else
  path=$(sed -n 's/^0:://p' /proc/1/cgroup)
  awk '$1 == "usage_usec" {print $2 * 1000}' "/sys/fs/cgroup${path%/init.scope}/cpu.stat"
fi
"""


@dataclass(frozen=True)
class Cost:
    """What watching cost, in percent of one CPU.

    Attributes:
        without, watched: the whole box's use, each round's.
        own: what the monitor says of itself, mean: the probe, and the database's part for it.
    """

    without: tuple[float, ...]
    watched: tuple[float, ...]
    own: float

    @property
    def more(self) -> float:
        """Median of the differences, round by round."""
        pairs = zip(self.watched, self.without, strict=True)
        return statistics.median(watched - without for watched, without in pairs)


def used(environment: door.Environment, seconds: float) -> float:
    """CPU that the whole box uses for so long, in percent of one."""
    began, before = time.monotonic(), int(remote.run(environment, _USED))
    time.sleep(seconds)
    after, ended = int(remote.run(environment, _USED)), time.monotonic()
    return (after - before) / 1e7 / (ended - began)


def cost(environment: door.Environment, rounds: int = 6, seconds: float = 20.0) -> Cost:
    """Measure it, the two ways in turns, each first as often as the other."""
    without, watched, own = [], [], []
    for number in range(rounds):
        for watching in (True, False) if number % 2 else (False, True):
            with Monitor(environment) if watching else contextlib.nullcontext() as monitor:
                if monitor:
                    monitor.wait(20)
                    time.sleep(2)  # its start is not what is measured
                found = used(environment, seconds)
                if monitor:
                    watched.append(found)
                    shares = [s.monitor_cpu_percent for s in monitor.samples[1:]]
                    own += [share for share in shares if share is not None]
                else:
                    without.append(found)
    return Cost(tuple(without), tuple(watched), statistics.fmean(own))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.monitor", description=__doc__)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--markdown", action="store_true", help="the table for the README")
    asked = parser.parse_args(arguments)
    found = cost(door.open_environment("sandbox"), asked.rounds, asked.seconds)
    figures = Figures(
        "What watching an idle box costs, % of one CPU",
        f"python -m bench.monitor --rounds {asked.rounds} --seconds {asked.seconds:g}",
        ("", "median", "lowest", "highest"),
    )
    for name, values in (("without the monitor", found.without), ("with it", found.watched)):
        three = (statistics.median(values), min(values), max(values))
        figures.rows.append((name, *(f"{value:.2f}" for value in three)))
        figures.measured[name] = values
    figures.measured["more"], figures.measured["own"] = found.more, found.own
    figures.notes.append(
        f"more with it, median of the rounds: {found.more:.2f} % of one CPU; "
        f"it says {found.own:.2f} % of itself (probe and database, without SSH and Traefik)"
    )
    figures.finish("monitor", asked.markdown)


if __name__ == "__main__":
    main()
