"""koprogo-data: what it decides, and that it is whole on a host that has Python alone."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pytest

from koprogo_deploy import database, machine
from koprogo_deploy.data import backup, dump, hashes, host, live, main, scratch
from koprogo_deploy.data.host import MB, Config, Failed
from tests.project import settings

SETTINGS = settings()
INSPECTED = (
    'true 4711 "999:999" ["PATH=/usr/lib/postgresql/17/bin:/usr/bin","POSTGRES_PASSWORD=x"]\n'
)


def test_it_runs_from_what_is_installed_and_python_alone(tmp_path: Path) -> None:
    for file in machine.data_files(SETTINGS):
        path = tmp_path / file.path.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.content, encoding="utf-8")
    program = f"{tmp_path}{SETTINGS.install_root}/bin/koprogo-data"
    # -S: without the environment's packages.
    done = subprocess.run(
        [sys.executable, "-I", "-S", program, "--help"], capture_output=True, text=True, check=True
    )
    assert "scratch" in done.stdout
    assert not list(tmp_path.rglob("__pycache__"))


def test_settings_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    [written] = [f for f in machine.data_files(SETTINGS) if f.path.endswith("settings.json")]
    path = tmp_path / host.SETTINGS
    path.parent.mkdir()
    path.write_text(written.content)
    config = host.read_config(tmp_path)
    assert (config.environment, config.memory) == (SETTINGS.environment, SETTINGS.backup_memory)
    assert config.scratch_memory + host.CLIENTS == SETTINGS.backup_memory
    path.write_text("{}")
    with pytest.raises(Failed, match=r"settings\.json cannot be read .* run deploys/full\.py"):
        host.read_config(tmp_path)


def rows(*lines: bytes) -> list[bytes]:
    return [*(line + b"\n" for line in lines), b"\\!\n"]


def test_the_order_of_rows_does_not_matter_and_their_content_does() -> None:
    content = [b"%d\trow \\\\! \\N" % n for n in range(100)]
    shuffled = random.Random(1).sample(content, len(content))
    assert hashes.read_rows(rows(*content)) == hashes.read_rows(rows(*shuffled))
    for other in (content[1:], [*content, content[0]], [b"x", *content[1:]]):
        assert hashes.read_rows(rows(*content)) != hashes.read_rows(rows(*other))


def test_a_row_that_looks_like_the_end_is_not_it() -> None:
    # COPY writes the text \! as \\!.
    assert hashes.read_rows(rows(b"\\\\!"))[0] == 1


def test_rows_that_stop_early_are_not_taken_for_a_table() -> None:
    with pytest.raises(Failed, match="ended in the middle"):
        hashes.read_rows([b"1\n"])


def test_column_names_and_number_of_rows_are_part_of_the_hash() -> None:
    base = hashes.table_hash(["a", "b"], 1, 5)
    assert base == hashes.table_hash(["a", "b"], 1, 5)
    assert len({base, hashes.table_hash(["a"], 1, 5), hashes.table_hash(["a", "b"], 2, 5)}) == 3


def test_the_script_sees_what_the_dump_sees() -> None:
    text = hashes.script([("public", 'od"d', ["a b", "c"]), ("public", "none", [])], "00-1")
    assert text.index("SET TRANSACTION SNAPSHOT '00-1'") < text.index("COPY")
    assert 'COPY "public"."od""d" ("a b", "c") TO STDOUT;\nSELECT \'\\!\';' in text
    assert 'COPY "public"."none" TO STDOUT;' in text
    assert "SNAPSHOT" not in hashes.script([])


def test_files_by_content(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/één.pdf").write_bytes(b"x")
    (tmp_path / "link").symlink_to("a/één.pdf")
    found = hashes.files(tmp_path)
    assert set(found) == {"a/één.pdf"}
    assert found["a/één.pdf"]["bytes"] == 1


def test_differences_say_which_table_and_how() -> None:
    wanted = {"a": {"rows": 1, "hash": "x"}, "b": {"rows": 2, "hash": "y"}, "c": {}}
    found = {"a": {"rows": 1, "hash": "z"}, "b": {"rows": 3, "hash": "y"}, "d": {}}
    assert hashes.differences(wanted, wanted, "table") == []
    assert hashes.differences(wanted, found, "table") == [
        "table c is missing",
        "table d is not in the manifest",
        "table a differs",
        "table b differs (2 rows, 3 found)",
    ]


def test_a_client_runs_as_the_container_s_user_without_its_secrets() -> None:
    command = host.entered(INSPECTED, "koprogo-postgres-1", "psql", "-X")
    assert command[4:7] == ["4711", "999", "999"]
    assert "PATH=/usr/lib/postgresql/17/bin:/usr/bin" in command
    assert command[-3:] == ["--", "psql", "-X"]
    assert not any("PASSWORD" in word for word in command)


def test_a_container_that_does_not_run_is_named() -> None:
    with pytest.raises(Failed, match="koprogo-postgres-1 does not run: docker logs"):
        host.entered('false 0 "999:999" []', "koprogo-postgres-1", "psql")


def test_a_drill_s_login_is_of_the_copy_alone_and_wants_rows_where_there_are_any() -> None:
    first, second = scratch.password(), scratch.password()
    assert first != second
    assert re.fullmatch("[a-z0-9]{64}", first), "as any of KoproGo's secrets may be"
    hashed = scratch.bcrypt(first)
    assert bcrypt.checkpw(first.encode(), hashed.encode())
    assert not bcrypt.checkpw(second.encode(), hashed.encode())
    script = scratch.password_sql("o'neill@x.be", hashed)
    assert "WHERE lower(email) = 'o''neill@x.be'" in script
    assert "'/buildings', (SELECT count(*) FROM (SELECT 1 FROM public.buildings LIMIT 1)" in script
    assert f"\n{hashed}\n" in script, "a row of COPY, and no part of a statement"


def test_the_scratch_server_is_bounded_closed_and_throw_away() -> None:
    command = " ".join(scratch.start_command("postgres@sha256:1", 128 * MB, Path("/k")))
    assert f"--memory {128 * MB} --memory-swap {128 * MB}" in command
    assert "--publish" not in command
    assert " -p " not in command
    assert "fsync=off" in command
    assert "PASSWORD" not in command, "every user of the host reads it"
    assert "--auth-host=reject" in command, "there is no password to ask for while it is made"
    access = scratch.ACCESS["pg_hba.conf"].splitlines()
    assert not any("postgres" in line for line in access if line.startswith("host"))
    # Compose's label would make it a part of the stack.
    assert "com.docker" not in command
    assert Config(Path("/"), "x", SETTINGS.backup_memory).scratch_memory >= 96 * MB


def test_a_backend_is_tried_as_the_live_one_is_and_without_its_uploads() -> None:
    live = {
        "Config": {
            "Entrypoint": ["/bin/sh", "/run/koprogo/start.sh"],
            "Cmd": ["/app/koprogo-api"],
            "Env": ["ACTIX_WORKERS=1"],
            "Image": "backend@sha256:1",
            "User": "1000:1000",
        },
        "HostConfig": {"Memory": 128 * MB},
        "Mounts": [
            {"Type": "bind", "Source": "/opt/s", "Destination": "/run/secrets/jwt_secret"},
            {"Type": "volume", "Source": "/var/lib/x", "Destination": "/app/uploads"},
        ],
    }
    command = " ".join(scratch.backend_command(live, Path("/scratch")))
    assert command.endswith(
        "--entrypoint /bin/sh backend@sha256:1 /run/koprogo/start.sh /app/koprogo-api"
    )
    assert "-v /scratch/jwt_secret:/run/secrets/jwt_secret:ro" in command
    assert "/opt/s" not in command, "what it signs with that, the live one takes"
    assert "/var/lib/x" not in command
    assert f"--network {scratch.NETWORK} --memory {128 * MB}" in command


def test_a_dump_is_refused_with_the_numbers_where_there_is_no_room(tmp_path: Path) -> None:
    dump.room(tmp_path, 1, "it")
    with pytest.raises(Failed, match=r"the dump needs up to \d+ MB in .*: \d+ MB are. Nothing was"):
        dump.room(tmp_path, 1 << 60, "the dump")


def test_dump_options() -> None:
    assert dump.command(0, "00-1") == [
        *("pg_dump", "-U", "postgres", "-Fc", "-Z", "0", "--snapshot=00-1", "koprogo_db"),
    ]
    command = dump.restore_command("x", "koprogo", 5)
    assert command[:5] == ["pg_restore", "-U", "koprogo", "-d", "x"]
    assert {"--exit-on-error", "--no-owner", "/proc/self/fd/5"} <= set(command)


def test_the_owner_restores_all_but_what_only_the_superuser_may() -> None:
    listed = """;
; Archive created at 2026-12-01
;     TOC Entries: 12
3; 2615 16400 SCHEMA - koprogo_deploy postgres
2; 3079 16385 EXTENSION - pg_stat_statements
4; 2615 16404 SCHEMA - keys koprogo
5; 3079 16386 EXTENSION - pgcrypto
6; 3079 16387 EXTENSION - uuid-ossp
3426; 0 0 COMMENT - EXTENSION "uuid-ossp"
3425; 0 0 COMMENT - EXTENSION pgcrypto
3421; 0 0 COMMENT - EXTENSION pg_stat_statements
231; 1255 16401 FUNCTION koprogo_deploy keep_superadmin_password() koprogo_guard
230; 1255 16402 FUNCTION public evil(integer) koprogo
215; 1259 16399 TABLE public users koprogo
216; 1259 16403 TABLE koprogo_deploy superadmin postgres
3400; 0 16399 TABLE DATA public users koprogo
3401; 0 16403 TABLE DATA koprogo_deploy superadmin postgres
3289; 2620 16499 TRIGGER public users koprogo_deploy_superadmin koprogo
3290; 2620 16500 TRIGGER public users zzzz_koprogo_deploy_superadmin koprogo
3291; 2620 16501 TRIGGER public users koprogo_deploy_like koprogo
3277; 3466 16502 EVENT TRIGGER - koprogo_deploy_guard postgres
3420; 0 0 ACL - SCHEMA koprogo_deploy postgres
3422; 0 0 ACL koprogo_deploy TABLE superadmin postgres
3423; 0 0 ACL pg_catalog FUNCTION lo_creat(integer) postgres
3424; 0 0 ACL public TABLE users koprogo
"""
    first, rest = dump.entries(listed, ["uuid-ossp", "pgcrypto"])
    assert [line.split(";")[0] for line in first] == ["2", "3421"]
    # In their order: what the owner may make itself wants its schema first.
    assert [line.split(";")[0] for line in rest] == [
        *("4", "5", "6", "3426", "3425", "230", "215", "3400", "3291", "3424"),
    ]


CONTENTS = """2; 3079 16385 EXTENSION - pg_stat_statements
230; 1255 16402 FUNCTION public evil(integer) koprogo
"""


@pytest.mark.parametrize("way", ["from a file", "from server to server"])
def test_only_the_extensions_are_restored_by_the_superuser(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    @contextlib.contextmanager
    def restoring(
        container: str, database: str, role: str, names: Iterable[str]
    ) -> Iterator[dump._Program]:
        asked.append((role, [name.split()[3] for name in names]))
        yield dump._Program(["true"], ())

    monkeypatch.setattr(dump, "_restoring", restoring)
    monkeypatch.setattr(dump, "inside", lambda _container, *command: [*command])
    monkeypatch.setattr(dump, "sql", lambda *_: "hstore\npgcrypto")
    monkeypatch.setattr(dump, "_read", lambda *_: CONTENTS.encode())
    monkeypatch.setattr(dump, "_fed", lambda *_: CONTENTS.encode())
    if way == "from a file":
        (tmp_path / "x.dump").touch()
        dump.restore(tmp_path / "x.dump")
    else:
        dump._into_scratch(io.BytesIO(b"x"))
    assert asked == [("postgres", ["EXTENSION"]), ("koprogo", ["FUNCTION"])]


def test_whose_session_a_script_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, ...]] = []

    def run(*command: str, **_: Any) -> str:
        ran.append(command)
        return 'true 5 "999:999" ["PATH=/bin"]'

    monkeypatch.setattr(host, "run", run)
    for asked, role in ((host.sql, "postgres"), (host.owner_sql, "koprogo")):
        asked("koprogo-postgres-1", "SELECT 1")
        assert ran[-1][-4:] == ("-U", role, "-d", "koprogo_db")
        assert f"PGOPTIONS={database.SESSION}" in ran[-1]


def test_the_copys_superadmin_is_guarded_before_its_backend_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    (tmp_path / "database_password").write_text("p" * 64)
    monkeypatch.setattr(scratch, "files", lambda *_: tmp_path)

    def sql(_container: str, text: str, *_: str) -> str:
        told.append(text)
        return "{}"

    monkeypatch.setattr(scratch, "sql", sql)
    monkeypatch.setattr(scratch, "owner_sql", sql)
    scratch.let_in(Config(tmp_path, "production", 0), "koprogo_ab", ["database_password"], 1000)
    hashes_kept = re.findall(r"superadmin VALUES \('(\$2b\$[^']+)'\)", told[-1])
    assert len(hashes_kept) == 1
    assert not bcrypt.checkpw(b"admin123", hashes_kept[0].encode())
    login = scratch.known_login("Admin@koprogo.com")
    assert login is not None
    again = re.findall(r"superadmin VALUES \('(\$2b\$[^']+)'\)", told[-2])
    assert bcrypt.checkpw(login["password"].encode(), again[0].encode()), "the guard keeps that one"
    assert again[0] in told[-1]


def test_a_restored_database_has_its_guard_before_anybody_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(live, "sql", lambda *_: done.append("made"))
    monkeypatch.setattr(live, "owner_sql", lambda *_: done.append("analysed"))
    monkeypatch.setattr(dump, "restore", lambda *_: done.append("restored"))
    monkeypatch.setattr(live, "guarded", lambda _config: "$2b$08$kept")
    monkeypatch.setattr(live, "guard", lambda *given: done.append(f"guarded {given[0]} {given[1]}"))
    live.bring(Config(tmp_path, "production", 0), tmp_path / "x.dump")
    assert done == ["made", "restored", "guarded $2b$08$kept koprogo_restored", "analysed"]


def test_a_live_database_that_cannot_be_asked_gives_a_guard_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(*_: str) -> str:
        raise Failed("no answer")

    config = Config(tmp_path, "production", 0)
    (tmp_path / "current").mkdir()
    manifest = tmp_path / "current/manifest.json"
    monkeypatch.setattr(live, "sql", silent)
    assert live.guarded(config).startswith("$2b$"), "without a manifest, too"
    manifest.write_text('{"values": {"superadmin_guard": true}}')
    kept = live.guarded(config)
    assert not bcrypt.checkpw(b"admin123", kept.encode())
    manifest.write_text('{"values": {"superadmin_guard": false}}')
    assert live.guarded(config) == ""
    monkeypatch.setattr(live, "sql", lambda *_: "f")
    assert live.guarded(config) == "", "there is none"


def test_one_at_a_time_and_the_other_one_is_named(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with host.lock(path, 0, "the first"):
        assert Path(f"{path}.holder").read_text() == "the first\n"
        caught: list[Failed] = []

        def second() -> None:
            try:
                with host.lock(path, 0.3):
                    pass
            except Failed as failed:
                caught.append(failed)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "the first holds" in str(caught[0])
    assert not Path(f"{path}.holder").exists()
    with host.lock(path, 0):
        pass


@pytest.mark.parametrize(
    ("fails", "free"), [(False, True), (True, False)], ids=["staged", "not staged"]
)
def test_a_backup_lets_deploys_go_once_all_is_on_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool, free: bool
) -> None:
    """What is left is between restic and the storage; other work on the data still waits."""
    locks = {name: str(tmp_path / name) for name in ("DEPLOY_LOCK", "DATA_LOCK")}
    for name, path in locks.items():
        monkeypatch.setattr(main, name, path)
    config = host.Config(tmp_path, "production", 192, {"wait": 0})
    monkeypatch.setattr(main, "read_config", lambda _root: config)
    monkeypatch.setattr(main, "limit", lambda *_: None)
    monkeypatch.setattr(backup, "write_down", lambda *_, **__: None)
    seen: list[tuple[bool, bool]] = []

    def made(_config: host.Config, staged: Callable[[], None]) -> dict[str, Any]:
        holders = [Path(f"{path}.holder").read_text() for path in locks.values()]
        assert all(host.is_at_the_data(holder) for holder in holders), holders
        if not fails:
            staged()
        seen.append((_free(locks["DEPLOY_LOCK"]), _free(locks["DATA_LOCK"])))
        return {}

    monkeypatch.setitem(main._SCHEDULED, "backup", made)
    assert main.main(tmp_path, ["backup", "--by", "a test"]) == 0
    assert seen == [(free, False)]
    assert all(_free(path) for path in locks.values())


def test_a_list_of_backups_soon_says_who_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "lock")
    monkeypatch.setattr(main, "DATA_LOCK", path)
    monkeypatch.setattr(main, "LIST_WAIT", 0.1)
    config = host.Config(tmp_path, "production", 192, {"wait": 600})
    monkeypatch.setattr(main, "read_config", lambda _root: config)
    monkeypatch.setattr(main, "limit", lambda *_: None)
    drill = host.holder("drill", "the timer")
    with host.lock(path, 0, drill):
        assert main.main(tmp_path, ["list"]) == 1
    assert f"koprogo-data list: {drill} holds {path}" in capsys.readouterr().err


def _free(path: str) -> bool:
    return subprocess.run(["flock", "-n", path, "true"], check=False).returncode == 0


def test_last_words() -> None:
    assert host.last_words("a\n\n b \n", 1) == "a | b"
    assert host.last_words("", 3) == "exit code 3"
    with pytest.raises(Failed, match="false: exit code 1"):
        host.run("false")
    with pytest.raises(Failed, match="no-such-program: No such file"):
        host.run("no-such-program")


@pytest.mark.parametrize(
    ("line", "command"),
    [("scratch up --image x", "scratch"), ("dump /f --hash", "dump"), ("hash --scratch", "hash")],
)
def test_the_contract_s_command_lines(line: str, command: str) -> None:
    assert main.parser().parse_args(line.split()).command == command


def test_failures_are_said_on_stderr_with_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(tmp_path, ["hash"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("koprogo-data hash: ")
    assert json.dumps(str(tmp_path)).strip('"') in said.err
