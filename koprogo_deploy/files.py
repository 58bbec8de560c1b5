"""Files on the host: compared in one fact, pushed as one tar over standard input."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import time
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class RemoteFile:
    """A file as it has to be on the host: absolute path, content, mode such as `644`, owner."""

    path: str
    content: str
    mode: str = "644"
    uid: int = 0

    @property
    def state(self) -> str:
        """As the host fact tells it: `sha256 mode owner:group`, for files of root."""
        return f"{hashlib.sha256(self.content.encode()).hexdigest()} {self.mode} root:root"


def differing(files: Iterable[RemoteFile], found: dict[str, str]) -> list[RemoteFile]:
    """Those of the files that are missing or not as they have to be."""
    return [file for file in files if found.get(file.path) != file.state]


def archive(files: Iterable[RemoteFile]) -> str:
    """A gzipped tar of the files, as base64 text that goes through standard input.

    Names are relative to `/`; files get the present as their time.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for file in files:
            data = file.content.encode()
            entry = tarfile.TarInfo(file.path.lstrip("/"))
            entry.size, entry.mode = len(data), int(file.mode, 8)
            entry.uid = entry.gid = file.uid
            entry.mtime = time.time()
            tar.addfile(entry, io.BytesIO(data))
    packed = gzip.compress(buffer.getvalue(), mtime=0)
    return base64.encodebytes(packed).decode()


def unpack_command(destination: str) -> str:
    """Shell command that unpacks an `archive` from standard input, modes and owners kept."""
    return f"umask 022 && base64 -d | tar -xzpf - --same-owner -C {destination}"
