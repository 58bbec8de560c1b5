"""A dashboard of an environment that there is none of: `python -m tests.fake_dashboard production`.

Settings are valid, the host answers nobody. What it starts is real, and is refused at the door.
"""

from __future__ import annotations

import sys

from koprogo_deploy import door
from koprogo_deploy.dashboard import server
from koprogo_deploy.dashboard.desk import Desk
from koprogo_deploy.dashboard.jobs import Jobs
from koprogo_deploy.dashboard.watch import Watch
from koprogo_deploy.load.profiles import PROFILES
from koprogo_deploy.monitor import Monitor
from tests import project


def main(name: str) -> None:
    """Serve it until it is interrupted."""
    nobody = {"ssh_hostname": "127.0.0.1", "ssh_port": 9, "ssh_user": "nobody"}
    opened = door.Environment(project.settings(name), project.SECRETS, "vps.example.be", nobody)
    desk = Desk(
        name=name,
        open=lambda: opened,
        watch=Watch(lambda: Monitor(opened)),
        jobs=Jobs(),
        profiles={profile.name: profile.about for profile in PROFILES.values()},
    )
    server.serve(desk, server.listen(0), lambda runs: "", lambda keys: print(keys.link, flush=True))


if __name__ == "__main__":
    main(sys.argv[1])
