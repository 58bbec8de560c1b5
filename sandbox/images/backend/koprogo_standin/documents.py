"""Documents: uploads in a form, downloads, and removal. Its errors are bare JSON strings, as there.

The file comes first, into the upload folder's volume, then its row: what is cut off in between
leaves a file without a row, never a row without its file.
"""

import asyncio
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.requests import Request
from starlette.responses import Response

from koprogo_standin import context, database, extract, lists, tokens
from koprogo_standin.errors import HttpError, JsonError, TextError, answer

MOST = 50 * 1024 * 1024
# All of a file lies in the temporary folder first, as there, and nowhere else if it cannot: Python
# would keep the first megabyte in memory, and look for another folder.
MultiPartParser.spool_max_size = 1
tempfile.tempdir = os.environ.get("TMPDIR", "/tmp")
TYPES = ("meeting_minutes", "financial_statement", "invoice", "contract", "regulation",
         "works_quote", "other")  # fmt: skip
REQUIRED = ("file", "building_id", "document_type", "title", "uploaded_by")
NAMES = {lists.pascal(name): name for name in TYPES} | {name: name for name in TYPES}


class StringError(HttpError):
    """What a document handler says."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(answer(text, status))


async def upload(request: Request) -> Response:
    caller = tokens.caller(request)
    form = await read_form(request)
    try:
        if caller.organization_id is None:
            raise JsonError(401, "User does not belong to an organization")
        values = fields(form)
        file = form["file"]
        assert isinstance(file, UploadFile)
        content = await file.read()
        name, kind = file.filename or "unnamed", file.content_type or "application/octet-stream"
    finally:
        await form.close()
    if not content:
        raise StringError(500, "File content cannot be empty")
    shared = context.of(request)
    path = f"{values['building_id']}/{uuid4()}_{harmless(name)}"
    try:
        await asyncio.to_thread(write, shared.settings.upload_dir / path, content)
    except OSError as error:
        raise StringError(500, f"Failed to write file: {error.strerror}") from error
    if not values["title"]:
        raise StringError(500, "Title cannot be empty")
    now = datetime.now(UTC)
    row = {
        **values, "id": uuid4(), "organization_id": caller.organization_id, "file_path": path,
        "file_size": len(content), "mime_type": kind, "created_at": now, "updated_at": now,
    }  # fmt: skip
    places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
    insert = (
        f"INSERT INTO documents ({', '.join(row)}) VALUES ({places})"
        f" RETURNING {', '.join(lists.DOCUMENTS.columns)}"
    )
    try:
        stored = await shared.row(insert, *row.values())
    except database.DatabaseError as error:
        raise StringError(500, database.message(error)) from error
    assert stored is not None
    return answer(lists.DOCUMENTS.shown(stored, listed=False), 201)


async def read_form(request: Request) -> FormData:
    """The form's fields; the file is in the temporary folder."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind:
        raise TextError(400, "Could not find Content-Type header")
    if kind != "multipart/form-data":
        text = 'Parsed Content-Type did not have "multipart" top-level media type'
        raise TextError(400, text)
    size = request.headers.get("content-length", "")
    if size.isdigit() and int(size) > MOST:
        raise TextError(413, "Payload reached size limit")
    try:
        form = await request.form(max_files=1, max_fields=10)
    except HTTPException as error:
        raise TextError(400, f"Multipart error: {error.detail}") from error
    except OSError as error:
        raise TextError(500, "An error occurred processing field: file") from error
    for name in REQUIRED:
        if name not in form or isinstance(form[name], UploadFile) != (name == "file"):
            await form.close()
            raise TextError(400, f"Required field is missing: {name}")
    return form


def fields(form: FormData) -> dict[str, Any]:
    """What the row takes from the form."""
    text = {name: str(form[name]) for name in REQUIRED if name != "file"}
    if (building := extract.as_uuid(text["building_id"])) is None:
        raise StringError(400, "Invalid building_id")
    if text["document_type"] not in NAMES:
        raise StringError(400, "Invalid document_type")
    if (uploader := extract.as_uuid(text["uploaded_by"])) is None:
        raise StringError(400, "Invalid uploaded_by")
    description = form.get("description")
    return {
        "building_id": building,
        "document_type": NAMES[text["document_type"]],
        "title": text["title"],
        "description": None if description is None else str(description),
        "uploaded_by": uploader,
    }


def harmless(name: str) -> str:
    """A file's name without a way out of its folder."""
    return name.replace("..", "_").replace("/", "_").replace("\\", "_")


def write(path: Path, content: bytes) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


async def found(request: Request, wanted: UUID) -> dict[str, Any]:
    """The row of a document, whosever it is: nobody asks for a token there."""
    statement = f"{lists.DOCUMENTS.select()} WHERE id = $1"
    try:
        row = await context.of(request).row(statement, wanted)
    except database.DatabaseError as error:
        raise StringError(404, database.message(error)) from error
    if row is None:
        raise StringError(404, "Document not found")
    return row


async def single(request: Request) -> Response:
    row = await found(request, extract.path_id(request))
    return answer(lists.DOCUMENTS.shown(row, listed=False))


async def download(request: Request) -> Response:
    row = await found(request, extract.path_id(request))
    path = context.of(request).settings.upload_dir / row["file_path"]
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError as error:
        raise StringError(404, "File not found") from error
    name = row["file_path"].rpartition("/")[2]
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(content, media_type=row["mime_type"], headers=headers)


async def delete(request: Request) -> Response:
    """The row, then its file; by anyone with a token."""
    tokens.caller(request)
    wanted = extract.path_id(request)
    try:
        path = await context.of(request).value(
            "DELETE FROM documents WHERE id = $1 RETURNING file_path", wanted
        )
    except database.DatabaseError as error:
        raise StringError(500, database.message(error)) from error
    if path is None:
        raise StringError(500, "Document not found")
    file = context.of(request).settings.upload_dir / path
    await asyncio.to_thread(file.unlink, missing_ok=True)
    return Response(status_code=204)
