"""Uploads as large as KoproGo takes them pass, and the backend stays within its memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from koprogo_deploy.data.host import INCOMING
from koprogo_deploy.outside import Outside
from koprogo_deploy.units import MB
from tests.integration.rig import Rig
from tests.integration.traffic import UPLOADS, upload_form

SIZE = 40 * MB


@pytest.fixture(scope="module")
def mine(rig: Rig) -> Iterator[Rig]:
    """The rig; what was uploaded goes, and group data's release serves in the end."""
    yield rig
    rig.sql("DELETE FROM documents WHERE title LIKE 'large-%';")
    rig.on_host(f"find {UPLOADS} -name '*_large-*' -delete")
    rig.converge()


def upload(rig: Rig, content: bytes) -> tuple[httpx2.Response, bytes]:
    """The answer to an upload through the front door, and what a download of it gives."""
    with Outside(rig.environment.settings, timeout=50) as outside:
        login = outside.login("admin@small.be", rig.environment.secrets["SEED_PASSWORD"]).json()
        headers = {"Authorization": f"Bearer {login['token']}"}
        building = outside.api.get("/buildings", headers=headers).json()["data"][0]["id"]
        form, boundary = upload_form(
            f"large-{time.time_ns()}", content, building, login["user"]["id"]
        )
        headers["Content-Type"] = f"multipart/form-data; boundary={boundary}"
        answer = outside.api.post("/documents", content=form, headers=headers)
        if answer.status_code != 201:
            return answer, b""
        return answer, outside.api.get(f"/documents/{answer.json()['id']}/download").content


def killed(rig: Rig) -> Any:
    """Whether the kernel ended anything in the backend's container, and how often it restarted."""
    state = rig.containers()[f"backend-{rig.manifest()['colours']['backend']}"]
    return state["State"]["OOMKilled"], state["RestartCount"]


def test_an_upload_of_40_mb_comes_back_as_it_was_sent(mine: Rig) -> None:
    limit = mine.environment.settings.backend_memory
    started = mine.started()["backend"]
    for _ in range(3):
        content = os.urandom(SIZE)
        answer, back = upload(mine, content)
        assert answer.status_code == 201, answer.text
        assert answer.json()["file_size"] == SIZE
        assert hashlib.sha256(back).digest() == hashlib.sha256(content).digest()
        service = f"backend-{mine.manifest()['colours']['backend']}"
        used = mine.cgroup(service)
        print(f"after it, the backend: {used}")
        assert used["used"] < limit
    assert killed(mine) == (False, 0)
    assert mine.started()["backend"] == started
    assert mine.on_host(f"find {UPLOADS}/{INCOMING} -type f").split() == []


def test_what_a_killed_backend_left_of_an_upload_goes_at_a_later_start(mine: Rig) -> None:
    """Not at the next one: the other colour may be at work in there."""
    place = f"{UPLOADS}/{INCOMING}"
    mine.on_host(f"cd {place}; touch .tmpnew; touch -d '2 hours ago' .tmpold; chown 1000 .tmp*")
    name = f"koprogo-backend-{mine.manifest()['colours']['backend']}-1"
    mine.on_host(f"docker restart -t 35 {name}")
    mine.wait_until_healthy()
    assert mine.on_host(f"ls -A {place}").split() == [".tmpnew"]
    mine.on_host(f"rm {place}/.tmpnew")


@pytest.mark.slow
def test_in_the_memory_of_tmp_it_would_not_pass(mine: Rig) -> None:
    """As it was: 16 MB of /tmp are full, and the answer is an error."""
    mine.converge(backend_environment={"TMPDIR": "/tmp"})
    answer, _ = upload(mine, os.urandom(SIZE))
    assert (answer.status_code, answer.text) == (500, "An error occurred processing field: file")
    assert upload(mine, b"small")[0].status_code == 201
