"""Who comes, who leaves, and what would lock somebody out."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from koprogo_deploy import accounts
from koprogo_deploy import machine as on_machine
from koprogo_deploy.accounts import Account, Arrival
from koprogo_deploy.door import Environment
from koprogo_deploy.facts.host import HostState
from koprogo_deploy.operations import context, host
from koprogo_deploy.plan.host import login_problems
from tests import project

MANAGED, MARKED, FOREIGN = Account(managed=True), Account(marked=True), Account()
LEFT = Account(managed=True, locked=True)
BY_KEY = Arrival("publickey", project.KEY)


def test_who_comes_who_stays_and_who_leaves() -> None:
    found = {"anna": MANAGED, "bert": MARKED, "carl": LEFT, "debian": FOREIGN}
    wanted = ["anna", "bert", "carl", "dora"]
    assert accounts.new(wanted, found) == ["dora"]
    assert accounts.joining(wanted, found) == ["bert"]
    assert accounts.returning(wanted, found) == ["carl"]
    assert accounts.leaving(wanted, found) == []
    assert accounts.leaving([], found) == ["anna", "bert"], "carl left before, debian is not ours"


def test_one_who_was_interrupted_while_leaving_still_leaves() -> None:
    remaining = Account(managed=True, locked=True, remains=True)
    assert accounts.leaving([], {"anna": remaining, "bert": LEFT}) == ["anna"]


def problems(
    wanted: dict[str, list[str]],
    found: dict[str, Account],
    connected: str = "debian",
    arrival: Arrival = BY_KEY,
    **changes: Any,
) -> list[str]:
    state = HostState(accounts=found, connected=connected, **changes)
    told = login_problems(project.settings(admin_users=wanted), state, arrival)
    return [f"{each.where}: {each.what} -> {each.fix}" for each in told]


def test_the_account_of_this_run_cannot_leave() -> None:
    for found in ({"anna": MANAGED}, {"anna": MARKED}):
        (told,) = problems({}, found, connected="anna")
        assert "anna is not in it, and is the account that this run came with" in told
        assert "put it back, or connect as another one: ssh_user" in told
    assert problems({}, {"anna": MANAGED}) == []
    assert problems({}, {}, connected="debian") == [], "who was there before is not ours"


def test_the_key_of_this_run_stays_on_the_list() -> None:
    found = {"anna": MANAGED}
    kept, other = {"anna": [f"{project.KEY} laptop"]}, {"anna": [project.OTHER_KEY]}
    assert problems(kept, found, connected="anna") == []
    (told,) = problems(other, found, connected="anna")
    assert "the key that this run came with is not among those of anna" in told
    assert problems(other, found, connected="anna", arrival=Arrival("publickey")) == []


def test_an_account_that_was_there_before_is_not_taken_over() -> None:
    (told,) = problems({"debian": [project.KEY]}, {"debian": FOREIGN})
    assert "debian is an account of the host that was not made by this project" in told


@pytest.mark.parametrize("method", ["password", "keyboard-interactive"])
def test_a_run_that_came_without_a_key_is_refused(method: str) -> None:
    (told,) = problems({}, {}, arrival=Arrival(method))
    assert f"this run came by {method}, and sshd will take nothing but keys" in told
    assert "ssh-copy-id debian@HOST" in told


def test_on_the_host_itself_there_has_to_be_a_key() -> None:
    local = Arrival("local")
    assert len(problems({}, {}, arrival=local)) == 1
    assert problems({}, {}, arrival=local, own_keys=1) == []
    assert problems({"anna": [project.KEY]}, {}, arrival=local) == []
    assert problems({}, {}, arrival=local, files={accounts.SSHD_FILE: "x"}) == []


# --- who else can log in --------------------------------------------------------------------------

HOMES = {  # uid, shell, day of expiry, authorized_keys
    "debian": (1000, "/bin/bash", "", project.KEY),  # who the run came with
    "listed": (1001, "/bin/bash", "", project.KEY),
    "member": (1002, "/bin/bash", "", project.KEY),
    "before": (1003, "/bin/bash", "", f"# mine\n{project.KEY}"),
    "no_shell": (1004, "", "", project.KEY),  # which is /bin/sh
    "locked": (1005, "/bin/bash", "1", project.KEY),
    "later": (1006, "/bin/bash", "99999", project.KEY),
    "comment": (1007, "/bin/bash", "", "# none\n\n"),
    "no_keys": (1008, "/bin/bash", "", None),
    "service": (1009, "/usr/sbin/nologin", "", project.KEY),
    "daemon": (999, "/bin/bash", "", project.KEY),
    "nobody": (65534, "/bin/bash", "", project.KEY),
}


def test_who_else_can_log_in_is_found_and_told_with_what_to_do(tmp_path: Path) -> None:
    passwd = []
    for name, (uid, shell, _, keys) in HOMES.items():
        passwd.append(f"{name}:x:{uid}:{uid}:a b,,,:{tmp_path / name}:{shell}")
        (tmp_path / name / ".ssh").mkdir(parents=True)
        if keys is not None:
            (tmp_path / name / ".ssh/authorized_keys").write_text(f"{keys}\n")
    expiry = "\n".join(
        f"{name}) echo '{name}:!::::::{day}:' ;;" for name, (*_, day, _) in HOMES.items()
    )
    (tmp_path / "passwd").write_text("\n".join(passwd) + "\n")
    getent = f"""case "$1 $2" in
"passwd ") cat {tmp_path}/passwd ;;
"passwd --") grep "^$3:" {tmp_path}/passwd ;;
"group koprogo-admins") echo koprogo-admins:x:998:member ;;
"shadow --") case "$3" in {expiry} esac ;;
esac"""
    for program, text in {"getent": getent, "id": "echo debian"}.items():
        (tmp_path / program).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / program).chmod(0o755)
    done = subprocess.run(
        ["sh", "-c", accounts.look(["listed"])],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    found = [name for kind, name, *_ in lines if kind == "login"]
    assert found == ["before", "no_shell", "later"]
    assert ["connected", "debian", "1"] in lines
    assert accounts.warnings(["before"]) == [
        "before can log in by ~/.ssh/authorized_keys, and is not in admin_users: if nobody should, "
        "on the host: usermod --lock --expiredate 1 before"
    ]


# --- what is done about them, in order -----------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `configured` would run on a host with these accounts, in order."""

    def of(wanted: dict[str, list[str]], **changes: Any) -> list[str]:
        settings = project.settings(swap=None, admin_users=wanted)
        files = {f.path: f.state for f in on_machine.host_files(project.settings())}
        values = {"files": files, "sysctl": settings.sysctl, "timezone": settings.timezone}
        state = HostState(**{**values, **changes})
        environment = Environment(settings, project.SECRETS, "h", {})
        monkeypatch.setattr(context, "current", lambda: environment)
        monkeypatch.setattr(host, "machine_now", lambda: state)
        monkeypatch.setattr(host, "host", SimpleNamespace(noop=print))
        configured: Any = host.configured
        steps = configured._inner.__wrapped__()
        return [str(getattr(step, "bits", [step])[0]) for step in steps]

    return of


def test_keys_of_an_earlier_version_go_when_sshd_looks_in_the_new_place(commands: Any) -> None:
    old = f"{accounts.FORMER_KEYS}/anna"
    found = commands(
        {"anna": [project.KEY]},
        files={},
        accounts={"anna": MARKED},
        matches={old},
    )
    text = "\n---\n".join(found)
    placed = text.index(f"mv -T {accounts.KEYS}/anna.new {accounts.KEYS}/anna")
    joined = text.index("usermod -aG koprogo-admins anna")
    reloaded = text.index("systemctl try-reload-or-restart ssh")
    removed = text.index(f"rm -f {old}")
    assert placed < joined < reloaded < removed
    assert "adduser" not in text


def test_who_leaves_is_out_first_and_who_comes_has_sudo_checked_before(commands: Any) -> None:
    found = commands({"bert": [project.KEY]}, accounts={"anna": MANAGED})
    assert found[0] == accounts.leave_command("anna")
    checked = found.index(
        "visudo -cqf /etc/sudoers.d/60-koprogo-bert.new && mv -T "
        "/etc/sudoers.d/60-koprogo-bert.new /etc/sudoers.d/60-koprogo-bert || "
        "{ rm -f /etc/sudoers.d/60-koprogo-bert.new; exit 1; }"
    )
    assert checked < found.index(accounts.make_command("bert"))


def test_who_comes_back_is_unlocked_and_others_files_are_left_alone(commands: Any) -> None:
    found = commands({"anna": [project.KEY]}, accounts={"anna": LEFT})
    assert accounts.return_command("anna") in found
    assert not any("adduser" in command for command in found)
    assert "/etc/ssh/authorized_keys.d/*" not in on_machine.compared(project.settings())["patterns"]


# --- sshd's file, by the real script with a stand-in for sshd and systemctl -----------------------


def sshd(tmp_path: Path, *, valid: bool = True, reload: bool = True, force: bool = True) -> Any:
    """Run the script in a folder of its own; its exit code and what it said."""
    folder, fake = tmp_path / "sshd_config.d", tmp_path / "bin"
    folder.mkdir()
    fake.mkdir()
    (tmp_path / "sshd_config").write_text(f"Include {folder}/*.conf\nPort 22\n")
    (folder / "00-koprogo.conf").write_text("old\n")
    (folder / "00-koprogo.conf.new").write_text("new\n")
    (folder / "50-cloud.conf").write_text("other\n")
    log = tmp_path / "log"
    programs = {
        # It reads what the configuration that it is given includes, as sshd does.
        "sshd": f"""for f; do :; done
cat $(sed -n 's/^Include //p' "$f") >> {log}
case $1 in -T) echo 'passwordauthentication {"no" if force else "yes"}';; *) {valid:d}; esac""",
        "systemctl": f"""echo reload: $(cat {folder}/00-koprogo.conf) >> {log}
grep -q old {folder}/00-koprogo.conf || [ {reload:d} = 1 ]""",
    }
    for name, text in programs.items():
        text = text.replace("*) 1;", "*) true;").replace("*) 0;", "*) false;")
        (fake / name).write_text(f"#!/bin/sh\n{text}\n")
        (fake / name).chmod(0o755)
    done = subprocess.run(
        [
            "sh",
            "-c",
            host.place_sshd_command(f"{folder}/00-koprogo.conf", f"{tmp_path}/sshd_config"),
        ],
        env={"PATH": f"{fake}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    return (
        done,
        (folder / "00-koprogo.conf").read_text(),
        log.read_text(),
        sorted(path.name for path in folder.iterdir()),
    )


NAMES = ["00-koprogo.conf", "50-cloud.conf"]


def test_sshd_gets_its_file_once_the_whole_was_checked_with_it(tmp_path: Path) -> None:
    done, now, log, names = sshd(tmp_path)
    assert (done.returncode, now, names) == (0, "new\n", NAMES), done.stderr
    assert log == "new\nother\nnew\nother\nreload: new\n"


@pytest.mark.parametrize(
    ("case", "words", "loads"),
    [
        ({"valid": False}, "sshd refuses the new", ""),
        ({"force": False}, "would not be in force", ""),
        ({"reload": False}, "sshd did not take", "reload: new\nreload: old\n"),
    ],
)
def test_a_file_that_sshd_does_not_take_is_never_left(
    tmp_path: Path, case: dict[str, bool], words: str, loads: str
) -> None:
    done, now, log, names = sshd(tmp_path, **case)
    assert (done.returncode, now, names) == (1, "old\n", NAMES)
    assert words in done.stderr
    assert "".join(line for line in log.splitlines(True) if "reload" in line) == loads
