"""Secrets: generated strong, read from a private file, and never shown."""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path

import pytest
from typer.testing import CliRunner

from koprogo_deploy import door, secrets
from koprogo_deploy.cli.app import app
from koprogo_deploy.problems import Refusal
from koprogo_deploy.secrets import WANTED, Secrets

STRONG = {wanted.name: sha256(wanted.name.encode()).hexdigest() for wanted in WANTED}
FILE = ".env.production"


def lines(**changes: str) -> str:
    return "\n".join(f"{name}={value}" for name, value in (STRONG | changes).items())


def write(root: Path, text: str | None = None, mode: int = 0o600, **changes: str) -> Path:
    path = root / FILE
    path.write_text(lines(**changes) if text is None else text)
    path.chmod(mode)
    return path


def problems(root: Path) -> list[tuple[str, str, str]]:
    kept, found = secrets.read("production", root)
    assert (kept is None) == bool(found)
    return [(problem.where, problem.what, problem.fix) for problem in found]


def test_generated_secrets_are_accepted_as_they_are(tmp_path: Path) -> None:
    path = secrets.initialise("production", tmp_path)
    kept, found = secrets.read("production", tmp_path)
    assert found == []
    assert kept is not None
    assert set(kept.values) == {wanted.name for wanted in WANTED}
    assert all(re.fullmatch("[0-9a-f]{64}", value) for value in kept.values.values())
    assert len(set(kept.values.values())) == len(WANTED)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_secrets_file_is_never_overwritten(tmp_path: Path) -> None:
    before = secrets.initialise("production", tmp_path).read_text()
    with pytest.raises(FileExistsError):
        secrets.initialise("production", tmp_path)
    assert (tmp_path / FILE).read_text() == before


def test_a_missing_file_says_how_to_make_it(tmp_path: Path) -> None:
    fix = "make it with: koprogo secrets init production"
    assert problems(tmp_path) == [(FILE, "the secrets file is missing", fix)]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o777])
def test_a_file_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    write(tmp_path, mode=mode)
    what = f"others may read it (mode {mode:04o})"
    assert problems(tmp_path) == [(FILE, what, f"chmod 600 {FILE}")]


def test_a_folder_or_bytes_in_its_place_are_no_traceback(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert problems(tmp_path)[0][1] == "the secrets file is missing"
    (tmp_path / FILE).rmdir()
    write(tmp_path).write_bytes(b"JWT_SECRET=\xff\xfe")
    assert problems(tmp_path)[0][1] == "is not a text file in UTF-8"


def test_every_missing_secret_is_named(tmp_path: Path) -> None:
    write(tmp_path, "")
    fix = "koprogo secrets init production adds what is missing, and changes nothing else"
    assert problems(tmp_path) == [(FILE, f"{wanted.name} is missing", fix) for wanted in WANTED]


def test_what_an_older_file_lacks_is_added_and_the_rest_stays(tmp_path: Path) -> None:
    path = write(tmp_path, "# mine\nBACKUP_S3_ACCESS_KEY=AK/+\nJWT_SECRET=" + STRONG["JWT_SECRET"])
    added = secrets.complete("production", tmp_path)
    assert set(added) == {wanted.name for wanted in WANTED} - {"JWT_SECRET"}
    assert path.read_text().startswith(
        "# mine\nBACKUP_S3_ACCESS_KEY=AK/+\nJWT_SECRET=" + STRONG["JWT_SECRET"]
    )
    kept, found = secrets.read("production", tmp_path)
    assert found == []
    assert kept is not None
    assert kept["JWT_SECRET"] == STRONG["JWT_SECRET"]
    before = path.read_text()
    assert secrets.complete("production", tmp_path) == []
    assert path.read_text() == before


OUT = "take the line out; a variable that is no secret goes into backend_environment"
RENEW = "generate one: openssl rand -hex 32"


@pytest.mark.parametrize(
    ("value", "what", "fix"),
    [
        ("", "is empty", RENEW),
        ("''", "is empty", RENEW),
        ("a" * 31, "is shorter than 32 characters (31)", RENEW),
        ("koprogo123", "is a publicly known default", RENEW),
        ("admin123", "is a publicly known default", RENEW),
        ("super-secret-key-change-in-production", "is a publicly known default", RENEW),
        ("Super-Secret-Key-CHANGE-in-production", "is a publicly known default", RENEW),
        ("admin123" * 8, "is a publicly known default", RENEW),
        ("a" * 40, "is a pattern, and can be guessed", RENEW),
        ("abcd" * 12, "is a pattern, and can be guessed", RENEW),
        ("0123456789abcdef" * 2, "is a pattern, and can be guessed", RENEW),
        *(
            (
                "a" * 40 + odd,
                "has characters that Compose or a URL mangles",
                f"letters, digits and _ . - only; {RENEW}",
            )
            for odd in "$@:/?%&+=é"
        ),
    ],
)
def test_a_weak_secret_is_refused_and_not_shown(
    tmp_path: Path, value: str, what: str, fix: str
) -> None:
    write(tmp_path, JWT_SECRET=value)
    found = problems(tmp_path)
    assert found == [(FILE, f"JWT_SECRET {what}", fix)]
    assert len(value) < 3 or value not in str(found)


def test_one_value_for_two_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path, JWT_SECRET=STRONG["DATABASE_PASSWORD"])
    [(where, what, fix)] = problems(tmp_path)
    assert where == FILE
    assert what in (
        "DATABASE_PASSWORD and JWT_SECRET have one value",
        "JWT_SECRET and DATABASE_PASSWORD have one value",
    )
    assert fix.startswith("generate one for each")


def test_the_totp_key_is_32_bytes_in_hexadecimal(tmp_path: Path) -> None:
    write(tmp_path, TOTP_ENCRYPTION_KEY="z" * 64)
    what = "TOTP_ENCRYPTION_KEY must be 64 hexadecimal digits"
    assert problems(tmp_path) == [(FILE, what, RENEW)]


def test_an_unknown_name_is_told_the_nearest_one(tmp_path: Path) -> None:
    write(tmp_path, JWT_SECRT="b" * 64, GREETING="c" * 64)
    assert problems(tmp_path) == [
        (FILE, "JWT_SECRT is not a secret of KoproGo", "did you mean JWT_SECRET?"),
        (FILE, "GREETING is not a secret of KoproGo", OUT),
    ]


def test_a_line_without_a_value_and_a_name_twice_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_text(
        f"{path.read_text()}\nthis is not a line\nJWT_SECRET={sha256(b'another').hexdigest()}\n"
    )
    found = problems(tmp_path)
    assert len(found) == 2
    assert any("twice" in what for _, what, _ in found)


@pytest.mark.parametrize("name", secrets.OPTIONAL)
def test_a_known_optional_secret_passes(tmp_path: Path, name: str) -> None:
    write(tmp_path, lines(**{name: sha256(b"another").hexdigest()[:40]}))
    assert problems(tmp_path) == []


@pytest.mark.parametrize("name", [*secrets.FROM_OTHERS, *secrets.ISSUED])
def test_what_others_issue_has_their_length_and_letters(tmp_path: Path, name: str) -> None:
    write(tmp_path, lines(**{name: "AK/+x=$!"}))
    assert problems(tmp_path) == []
    write(tmp_path, lines(**{name: ""}))
    assert problems(tmp_path) == [(FILE, f"{name} is empty", "write what was issued to you")]
    write(tmp_path, lines(**{name: "minioadmin"}))
    [(_, what, _)] = problems(tmp_path)
    assert what == f"{name} is a publicly known default"


def test_of_a_name_that_is_not_known_nothing_else_is_said(tmp_path: Path) -> None:
    write(tmp_path, GREETING="hi")
    assert problems(tmp_path) == [(FILE, "GREETING is not a secret of KoproGo", OUT)]


def test_secrets_never_show_their_values() -> None:
    kept = Secrets({"JWT_SECRET": "hidden"})
    assert "hidden" not in f"{kept} {kept!r} {[kept]}"


def test_what_a_newer_checkout_needs_is_added_and_a_whole_file_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `make deploy` and `make test` do for the sandbox, whatever there is."""
    monkeypatch.setattr(door, "ROOT", tmp_path)
    ask = ["secrets", "init", "sandbox", "--missing"]
    assert CliRunner().invoke(app, ask).exit_code == 0
    path = secrets.path_for("sandbox", tmp_path)
    whole = path.read_text(encoding="utf-8")
    again = CliRunner().invoke(app, ask)
    assert (again.exit_code, again.output, path.read_text(encoding="utf-8")) == (0, "", whole)
    kept = "".join(line for line in whole.splitlines(True) if "BACKUP_PASSWORD" not in line)
    path.write_text(kept, encoding="utf-8")
    added = CliRunner().invoke(app, ask)
    assert added.exit_code == 0
    assert "added to .env.sandbox: BACKUP_PASSWORD" in added.output
    assert path.read_text(encoding="utf-8").startswith(kept)
    assert secrets.read("sandbox", tmp_path)[1] == []
    assert isinstance(CliRunner().invoke(app, ask[:-1]).exception, Refusal), "init alone is told"


def test_a_link_or_a_file_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    ((where, what, fix),) = problems(tmp_path)
    assert (where, what) == (FILE, "is a link, or belongs to somebody else")
    assert "as the user who deploys" in fix
    path.unlink()
    (tmp_path / "elsewhere").rename(path)
    assert problems(tmp_path) == []
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    assert problems(tmp_path) == [(where, what, fix)]
