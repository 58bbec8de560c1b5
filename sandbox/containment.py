"""The proof that the box's limits hold what an engine inside it starts.

Without it every figure measured in the sandbox could be one of the whole machine.
"""

from sandbox import box, vm
from sandbox.console import SandboxError
from sandbox.state import State

SECONDS = 5
CPU_AT_MOST = 1.1
LIMIT = 2 * 1024**3
# The kernel lets a few allocations of its own pass a limit.
SLACK = LIMIT // 100
# Killed first when memory runs out, so that a deploy in the box survives the proof.
RUN = "sudo docker run --rm --detach --oom-score-adj 1000 --entrypoint"


def run(state: State, script: str, timeout: float = 120.0) -> str:
    """Run a shell script in the box; its output."""
    done = box.ssh(state, script, timeout=timeout)
    if done.returncode:
        reason = (done.stderr or done.stdout).strip()
        raise SandboxError(
            f"the proof could not run: {reason}",
            "Docker must be installed in the box: deploy to it first",
        )
    return done.stdout.strip()


def image(state: State) -> str:
    """Any image of the sandbox: each one has a shell and Perl."""
    if not state.images:
        raise SandboxError("no image is published", "run: python -m sandbox up")
    return next(iter(state.images.values()))


def place(state: State) -> str:
    """The cgroup of a container inside is below the box's own."""
    script = f"""
        set -e
        id=$({RUN} sleep {image(state)} 20)
        pid=$(sudo docker inspect -f '{{{{.State.Pid}}}}' "$id")
        sudo grep -m1 -E ':memory:|^0::' /proc/1/cgroup
        sudo grep -m1 -E ':memory:|^0::' "/proc/$pid/cgroup"
        sudo docker rm -f "$id" >/dev/null
    """
    own, inner = (line.split(":", 2)[2] for line in run(state, script).splitlines()[-2:])
    own = own.removesuffix("/init.scope").rstrip("/")
    # Under cgroup v2 the box is the root of its namespace: everything it sees is below it.
    if not inner.startswith(f"{own}/"):
        raise SandboxError(f"a container inside is at {inner}, outside {own or '/'}")
    return inner[:60] + "…"


def processor(state: State) -> str:
    """Two containers that spin get one CPU together."""
    script = f"""
        set -e
        a=$({RUN} sh {image(state)} -c 'while :; do :; done')
        b=$({RUN} sh {image(state)} -c 'while :; do :; done')
        pids=$(sudo docker inspect -f '{{{{.State.Pid}}}}' "$a" "$b")
        used() {{ for p in $pids; do sudo cat "/proc/$p/stat"; done |
            awk '{{ ticks += $14 + $15 }} END {{ print ticks }}'; }}
        sleep 1; first=$(used); t0=$(date +%s%N); sleep {SECONDS}; last=$(used); t1=$(date +%s%N)
        sudo docker rm -f "$a" "$b" >/dev/null
        echo "$first $last $t0 $t1 $(getconf CLK_TCK)"
    """
    first, last, start, end, tick = map(int, run(state, script).split()[-5:])
    used = (last - first) / tick / ((end - start) / 1e9)
    if used > CPU_AT_MOST:
        raise SandboxError(f"two containers used {used:.2f} CPU together")
    return f"{used:.2f} CPU"


def memory(state: State) -> str:
    """Three containers of 900 MB do not fit: at least one is killed, and the box lives on."""
    hog = 'my $x = "x" x (900 * 1048576); sleep 90'
    script = f"""
        set -e
        for n in 1 2 3; do
            sudo docker rm -f "hog$n" >/dev/null 2>&1 || true
            {RUN.replace("--rm ", "")} perl --name "hog$n" {image(state)} -e '{hog}' >/dev/null
        done
        states() {{
            sudo docker inspect -f '{{{{.State.Status}}}}:{{{{.State.ExitCode}}}}' hog1 hog2 hog3
        }}
        until=$(($(date +%s) + 60))
        while [ "$(date +%s)" -lt "$until" ]; do
            case $(states) in *:137*) break ;; esac
            sleep 1
        done
        states
        own=$(sed -n 's/^[0-9]*:[^:]*memory[^:]*://p' /proc/1/cgroup | head -1)
        own=${{own%/init.scope}}
        cat "/sys/fs/cgroup/memory$own/memory.max_usage_in_bytes" 2>/dev/null ||
            cat /sys/fs/cgroup/memory.peak 2>/dev/null || echo 0
        sudo docker rm -f hog1 hog2 hog3 >/dev/null
    """
    *states, peak = run(state, script, timeout=240).split()
    killed = sum(entry.endswith(":137") for entry in states)
    if not killed or int(peak) > LIMIT + SLACK:
        raise SandboxError(f"{killed} of 3 were killed, peak {int(peak) / 2**20:.0f} MiB")
    return f"{killed} killed, peak {int(peak) / 2**20:.0f} MiB"


def hardware(state: State) -> str:
    """A virtual machine's kernel has one CPU, and what it gives is no more than 2 GiB."""
    cpus, size = vm.limits(state)
    if cpus != 1 or size > LIMIT:
        raise SandboxError(f"its kernel has {cpus} CPUs and {size / 2**20:.0f} MiB")
    return f"{cpus} CPU, {size / 2**20:.0f} MiB"
