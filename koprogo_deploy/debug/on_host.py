"""Runs on the host, as root: the logs of our containers, each line under its container's name.

Lines go out as `<container>\t<docker's line>`; what is no line of a log as `\t<JSON>`. Ends when
standard input does, which is when the asking side is gone: no `docker logs --follow` stays behind.
"""

import json
import subprocess
import sys
import threading
from typing import Any

lock = threading.Lock()
children: list[subprocess.Popen[bytes]] = []


def say(event: dict[str, Any]) -> None:
    """Print what is no line of a log."""
    with lock:
        sys.stdout.buffer.write(b"\t" + json.dumps(event).encode() + b"\n")
        sys.stdout.buffer.flush()


def read(name: str, command: list[str]) -> None:
    """Print one container's log to its end, and then how it ended."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    children.append(child)
    prefix, said = name.encode() + b"\t", b""
    assert child.stdout is not None
    for line in child.stdout:
        # Docker's own complaints have no time in front, which every line of a log has.
        if line[:2] != b"20":
            said = line.strip() or said
            continue
        with lock:
            sys.stdout.buffer.write(prefix + line.rstrip(b"\n") + b"\n")
            if follow:
                sys.stdout.buffer.flush()
    code = child.wait()
    say({"end": name, "code": code, "said": said.decode(errors="replace")})


services, since, follow = json.loads(sys.argv[1])
listed = subprocess.run(
    ["docker", "ps", "-aq", "--filter", "label=com.docker.compose.project=koprogo"],
    capture_output=True,
    text=True,
)
if listed.returncode:
    say({"failed": listed.stderr.strip() or "docker ps failed"})
    raise SystemExit(0)
found = []
if ids := listed.stdout.split():
    inspected = subprocess.run(["docker", "inspect", *ids], capture_output=True, text=True)
    found = json.loads(inspected.stdout or "[]")
threads: list[threading.Thread] = []
for item in found:
    label = item["Config"]["Labels"].get("com.docker.compose.service", "")
    if label.partition("-")[0] not in services:
        continue
    driver = item["HostConfig"]["LogConfig"]["Type"]
    say({"container": label, "created": item["Created"], "driver": driver,
         "running": item["State"]["Running"]})  # fmt: skip
    command = ["docker", "logs", "--timestamps", "--since", since]
    command += ["--follow", item["Id"]] if follow else [item["Id"]]
    threads.append(threading.Thread(target=read, args=(label, command), daemon=True))
for thread in threads:
    thread.start()
if follow:

    def stop() -> None:
        """End when the asking side has gone."""
        sys.stdin.buffer.read()
        for child in children:
            child.kill()

    threading.Thread(target=stop, daemon=True).start()
for thread in threads:
    thread.join()
say({"done": True})
sys.stdout.buffer.flush()
