"""Limits of a server, and the gate that enforces them before a body is read."""

import asyncio
from dataclasses import dataclass

from fastapi import HTTPException
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


@dataclass(frozen=True)
class Limits:
    """Limits of a server.

    Attributes:
        max_body: largest body of a request, in bytes.
        max_pixels: most pixels of one file, before it is reduced.
        max_slices: most slices of one volume, or frames of one file.
        max_waiting: most requests under way at once; further ones are answered 503.
        max_batch: most images run at once.
        lime_samples: masked images of an explanation.
        max_explaining: most explanations that wait or run; further ones are answered 503.
        body_seconds: seconds in which the body of a request must arrive, else 408.
    """

    max_body: int = 16 * 2**20
    max_pixels: int = 50_000_000
    max_slices: int = 1000
    max_waiting: int = 64
    max_batch: int = 16
    lime_samples: int = 300
    max_explaining: int = 4
    body_seconds: float = 60


class Gate:
    """Middleware that refuses large bodies and too many requests before it reads them.

    Args:
        app: the application behind it.
        limits: limits of the server.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self._app = app
        self._limits = limits
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._under_way >= self._limits.max_waiting:
            busy = {"detail": f"{self._under_way} requests are under way; try again."}
            await JSONResponse(busy, 503, {"Retry-After": "1"})(scope, receive, send)
            return
        limit = self._limits.max_body
        too_large = f"Body: expected at most {limit:,} bytes, received more; reduce the image."
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await JSONResponse({"detail": too_large}, 413)(scope, receive, send)
            return
        received, complete = 0, False
        seconds = self._limits.body_seconds
        until = asyncio.get_running_loop().time() + seconds

        async def counted() -> Message:
            nonlocal received, complete
            try:
                # After the body, the application waits for the client to disconnect, without limit.
                async with asyncio.timeout_at(None if complete else until):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"Body: expected within {seconds:g} s.") from None
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, too_large)
            return message

        self._under_way += 1
        try:
            await self._app(scope, counted, send)
        finally:
            self._under_way -= 1
