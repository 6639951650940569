"""Keys: who may use a server that other machines can reach."""

import hmac
from collections.abc import Sequence

from fastapi import Request

from etaflow.serve.messages import Refused


class Keys:
    """The keys of a server; without any, everybody may use it."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    @property
    def demanded(self) -> bool:
        """Whether there are keys."""
        return bool(self._keys)

    def has(self, given: bytes) -> bool:
        """Whether this is one of the keys, in UTF-8; it takes as long for each that is not."""
        found = False
        for each in self._keys:  # all of them, whichever fits
            found |= hmac.compare_digest(given, each)
        return found

    def login(self, user: str, password: str) -> bool:
        """Whether the page opens: the password is a key, whatever the user is called."""
        return self.has(password.encode(errors="replace"))

    async def demand(self, request: Request) -> None:
        """Refuse a request (401) that brings no key, where keys are demanded."""
        if not self.demanded:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else ""
        # Starlette decodes the bytes of headers by Latin-1, whatever they are.
        if not self.has((request.headers.get("x-api-key") or given).encode("latin-1")):
            raise Refused(
                401, "a key is needed, as `Authorization: Bearer KEY` or `X-API-Key: KEY`"
            )
