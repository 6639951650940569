"""Bodies of requests: read within limits, and taken apart."""

import asyncio
import base64
import binascii
import sys
from collections.abc import AsyncGenerator, Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from etaflow.serve.messages import Refused

Body = TypeVar("Body", bound=BaseModel)
MAX_FIELD = 1000  # bytes of a form's field that is no file
# Files of a form would lie on the disk.
MultiPartParser.spool_max_size = sys.maxsize
DRAINED = 4  # times the limit that is read and thrown away of a larger body


class LimitBodies:
    """Refuses bodies that are too large (413) or too slow (408), of all routes and of the page."""

    def __init__(self, app: ASGIApp, max_bytes: int, seconds: float) -> None:
        """Wrap an application.

        Args:
            app: to protect.
            max_bytes: of a body.
            seconds: that it may take to arrive.
        """
        self.app, self.max_bytes, self.seconds = app, max_bytes, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the application with a body that is read under watch."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        until = asyncio.get_running_loop().time() + self.seconds
        count, ended = 0, False

        async def watched() -> Message:
            nonlocal count, ended
            if ended:
                return await receive()  # waits for the end of the connection
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
                    count += len(message.get("body", b""))
                    if count > self.max_bytes:
                        await self._drain(receive, count, message.get("more_body", False))
            except TimeoutError as error:
                raise HTTPException(
                    408, f"the request's body did not arrive within {self.seconds:g} s"
                ) from error
            ended = not message.get("more_body", False)
            if count > self.max_bytes:
                raise HTTPException(
                    413, f"the request's body has more than {self.max_bytes / 1e6:g} MB"
                )
            return message

        await self.app(scope, watched, send)

    async def _drain(self, receive: Receive, count: int, more: bool) -> None:
        """Read on for a while: who still sends would not read the answer."""
        while more and count < DRAINED * self.max_bytes:
            message = await receive()
            count += len(message.get("body", b""))
            more = message.get("more_body", False)


def read_json(body: bytes, model: type[Body]) -> Body:
    """The JSON of a body.

    Raises:
        Refused: 400, it is no JSON; 422, it is not as the model says.
    """
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _refused(error) from None


def read_fields(fields: Mapping[str, str], model: type[Body]) -> Body:
    """The fields of a form, whose values are text.

    Raises:
        Refused: 422, they are not as the model says.
    """
    try:
        return model.model_validate(fields, strict=False)
    except ValidationError as error:
        raise _refused(error) from None


def _refused(error: ValidationError) -> Refused:
    """What is wrong, without what was sent, which may be long."""
    wrong = error.errors(include_url=False, include_input=False, include_context=False)
    if wrong[0]["type"] == "json_invalid":
        return Refused(400, f"the body is no JSON: {wrong[0]['msg']}")
    told = [f"{'.'.join(map(str, each['loc']))[:80] or 'body'}: {each['msg']}" for each in wrong]
    return Refused(422, "; ".join(told[:5]))


def from_base64(name: str, text: str) -> bytes:
    """The bytes of a field.

    Raises:
        Refused: 422, it is no base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(422, f"{name} is no base64: {error}") from None


class Form:
    """The files and fields of a multipart body."""

    def __init__(self, files: dict[str, list[bytes]], fields: dict[str, str]) -> None:
        self.files, self.fields = files, fields

    def file(self, name: str) -> bytes:
        """The one file of this name.

        Raises:
            Refused: 422, there is none, or several.
        """
        found = self.files.get(name, [])
        if len(found) != 1:
            raise Refused(422, f"{len(found)} files called {name!r}; one is needed")
        return found[0]


async def read_form(
    body: bytes, headers: Headers, files: set[str], fields: set[str], most: int
) -> Form:
    """Take a multipart body apart.

    Args:
        body: of the request.
        headers: of the request.
        files: names that files may have.
        fields: names that other fields may have.
        most: files that there may be.

    Raises:
        Refused: 400, it is no multipart body; 422, a name is another, or there are too many files.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    # One more than allowed, so that it is said how many are.
    parser = MultiPartParser(
        headers, stream(), max_files=most + 1, max_fields=len(fields), max_part_size=MAX_FIELD
    )
    try:
        parts = (await parser.parse()).multi_items()
    except (MultiPartException, KeyError, ValueError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", None) or type(error).__name__
        raise Refused(400, f"the body is no form that can be read: {reason}") from None
    form = Form({}, {})
    for name, value in parts:
        if isinstance(value, UploadFile) and name in files:
            form.files.setdefault(name, []).append(await value.read())
        elif isinstance(value, str) and name in fields:
            form.fields[name] = value
        else:
            kind = "a file" if isinstance(value, UploadFile) else "a field"
            raise Refused(
                422,
                f"{kind} called {name[:50]!r}: there are the files {', '.join(sorted(files))}"
                + (f", and the fields {', '.join(sorted(fields))}" if fields else ""),
            )
    if sum(map(len, form.files.values())) > most:
        raise Refused(422, f"more than {most} files")
    return form
