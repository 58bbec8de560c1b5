"""What only a plan with changes reads: files, a registry's answer, an image's layers, a journal."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from koprogo_deploy.facts import details
from koprogo_deploy.facts.details import DetailsFact, Resolved


def text_of(command: object) -> str:
    return command.get_raw_value()  # type: ignore[attr-defined,no-any-return]


def test_files_release_and_journal_come_back_whole(tmp_path: Path) -> None:
    release = tmp_path / "releases" / "r1"
    for name in ("traefik", "postgres", "backend"):  # an older release: it has no frontend
        (release / name).mkdir(parents=True)
        (release / name / "file").write_text(f"of {name}\n")
    (release / "compose.yaml").write_text("name: é\n")
    (tmp_path / "one file").write_text("a\tb\nc\n")
    lines = ['{"kind":"run","seconds":1}', "cut sho", '{"kind":"gate"}']
    (tmp_path / "journal.jsonl").write_text("\n".join(lines) + "\n")
    command = DetailsFact().command(
        root=str(tmp_path), files=(str(tmp_path / "one file"), "/nowhere"), release="r1"
    )
    done = subprocess.run(
        ["sh", "-c", text_of(command)], capture_output=True, text=True, check=True
    )
    found = DetailsFact().process(done.stdout.splitlines())
    assert found.files == {str(tmp_path / "one file"): "a\tb\nc\n"}
    assert found.release["compose.yaml"] == "name: é\n"
    assert found.release["postgres/file"] == "of postgres\n"
    assert [entry["kind"] for entry in found.journal] == ["run", "gate"]
    assert found.migrations is None


def test_nothing_there_is_nothing_found(tmp_path: Path) -> None:
    command = DetailsFact().command(root=str(tmp_path))
    done = subprocess.run(
        ["sh", "-c", text_of(command)], capture_output=True, text=True, check=True
    )
    assert DetailsFact().process(done.stdout.splitlines()) == details.Details()


def test_a_registrys_digest_keeps_the_name_that_was_asked_for() -> None:
    answer = json.dumps({"Descriptor": {"digest": "sha256:abc"}})
    lines = [
        f"docker.io/library/traefik:v3\t{answer}",
        'r.test:5000/k/backend:nope\t{"message":"manifest unknown"}',
        "r.test:5000/k/frontend:1\t",
    ]
    assert Resolved().process(lines) == {
        "docker.io/library/traefik:v3": "docker.io/library/traefik@sha256:abc"
    }


def layer(root: Path, *names: str) -> str:
    folder = root / "app" / "migrations"
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch()
    return str(root)


def in_layers(driver: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["python3", "-c", details._IN_LAYERS, "/app/migrations"],
        input=json.dumps(driver),
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_images_files_are_read_from_its_layers(tmp_path: Path) -> None:
    upper = layer(tmp_path / "upper", "2_b.sql")
    lower = layer(tmp_path / "lower", "1_a.sql", "2_b.sql")
    (tmp_path / "empty").mkdir()
    data = {"UpperDir": upper, "LowerDir": f"{tmp_path / 'empty'}:{lower}"}
    done = in_layers({"Name": "overlay2", "Data": data})
    assert (done.returncode, done.stdout.split()) == (0, ["1_a.sql", "2_b.sql"])


def test_what_an_upper_layer_took_away_is_gone(tmp_path: Path) -> None:
    upper = layer(tmp_path / "upper", "3_c.sql")
    lower = layer(tmp_path / "lower", "1_a.sql")
    made = subprocess.run(
        ["mknod", f"{upper}/app/migrations/1_a.sql", "c", "0", "0"],
        check=False,
        capture_output=True,
    )
    if made.returncode:
        pytest.skip("this user cannot make a device file, which is how a layer hides a file")
    done = in_layers({"Name": "overlay2", "Data": {"UpperDir": upper, "LowerDir": lower}})
    assert done.stdout.split() == ["3_c.sql"]


def test_another_storage_driver_is_not_guessed_at() -> None:
    done = in_layers({"Name": "btrfs", "Data": None})
    assert (done.returncode, done.stdout) == (1, "")
    assert DetailsFact().process(["migrations\t"]).migrations is None


def test_a_link_in_an_image_is_not_followed_into_the_host(tmp_path: Path) -> None:
    """An image's author chooses where it points to; root reads it."""
    (tmp_path / "host/migrations").mkdir(parents=True)
    (tmp_path / "host/migrations/of_the_host.sql").write_text("")
    upper, above = tmp_path / "upper", tmp_path / "above"
    (upper / "app").mkdir(parents=True)
    (upper / "app/migrations").symlink_to(tmp_path / "host/migrations")
    above.mkdir()
    (above / "app").symlink_to(tmp_path / "host")
    for layer in (upper, above):
        done = in_layers({"Name": "overlay2", "Data": {"UpperDir": str(layer)}})
        assert (done.returncode, done.stdout) == (1, "")
