"""The web application around one model, and the server that runs it."""

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import uvicorn
from fastapi import FastAPI, File, HTTPException, Query, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from kerasmed import __version__
from kerasmed.data.readers import (
    EXPECTED,
)
from kerasmed.errors import KerasmedError, MachineError, ModelFileError
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.runtime.hardware import cpu_cores
from kerasmed.serve.batching import Batches
from kerasmed.serve.limits import Gate, Limits
from kerasmed.serve.uploads import decode_upload

_THIS_MACHINE = ("127.0.0.1", "localhost")


class Prediction(BaseModel):
    """The answer for one image."""

    predicted: str = Field(description="Name of the most probable class.")
    probabilities: dict[str, float] = Field(description="Of each class, summing to 1.")
    overlay: str | None = Field(
        default=None,
        description="PNG as a data address: the image beside itself with the superpixels that "
        "speak for the predicted class (green) and against it (purple).",
    )
    warnings: list[str] = Field(default=[], description="Why not to rely on the overlay.")
    slice: int | None = Field(
        default=None, description="Number of the slice or frame, of a file that holds several."
    )


class Slices(BaseModel):
    """The answers for a volume, or a file of several frames."""

    slices: list[Prediction] = Field(description="One for each slice, in order.")


class Problem(BaseModel):
    """Why there is no answer."""

    detail: str


def create_app(
    model: OnnxClassifier, limits: Limits | None = None, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """The web application around one model.

    Args:
        model: stays open as long as the application.
        limits: what is taken.
        hosts: names under which requests may call this server, all if "*".
    """
    limits = limits or Limits()
    queue = Batches(model, limits.max_batch)
    decoding, explaining = asyncio.Semaphore(cpu_cores()), asyncio.Semaphore(1)
    asking: set[object] = set()

    @asynccontextmanager
    async def running(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(model.warm_up)
        worker = asyncio.create_task(queue.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    # Its page of the interface needs no network, which hospitals often close.
    app = FastAPIOffline(
        title=f"kerasmed: {model.path.name}",
        version=__version__,
        summary="Class probabilities of medical images. For research, not for diagnosis.",
        lifespan=running,
    )
    app.add_middleware(Gate, limits=limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    page = Path(__file__).with_name("upload.html").read_text(encoding="utf-8")
    problems: dict[int | str, dict[str, Any]] = {
        400: {"model": Problem, "description": "Not a multipart form."},
        408: {"model": Problem, "description": "The body did not come in time."},
        413: {"model": Problem, "description": "The body or the image is too large."},
        415: {"model": Problem, "description": "The file is not a readable image."},
        503: {"model": Problem, "description": "Too many requests under way; try again."},
    }

    @app.exception_handler(KerasmedError)
    async def refuse(_: Any, error: KerasmedError) -> JSONResponse:
        status = 503 if isinstance(error, ModelFileError) else 415
        return JSONResponse({"detail": " ".join(str(error).split())}, status)

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    def upload_page() -> str:
        return page

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the server answers, and what runs the model."""
        return {"status": "ok", "model": model.path.name, "provider": model.provider}

    @app.get("/model")
    def describe() -> dict[str, Any]:
        """What the model file says of itself."""
        return model.metadata

    @app.post("/predict", responses=problems)
    async def predict(
        image: Annotated[UploadFile, File(description=f"{EXPECTED}; the file name says which.")],
        lime: Annotated[
            bool,
            Query(description="Also explain it, in a second or so; of a volume only one slice."),
        ] = False,
        slice: Annotated[int | None, Query(ge=0, description="Only this slice or frame.")] = None,
    ) -> Prediction | Slices:
        """Class probabilities of an image, on request with a LIME overlay, or of every slice."""
        content = await image.read()
        async with decoding:
            images = await run_in_threadpool(
                decode_upload, content, image.filename or "", model, limits, slice
            )
            if len(images) > 1:  # the slices of few volumes at once lie in memory
                return Slices(slices=await asyncio.gather(*(answer(*each) for each in images)))
        only = await answer(*images[0])
        if lime:
            only.overlay, only.warnings = await explain(images[0][1])
        return only

    async def answer(number: int | None, pixels: np.ndarray) -> Prediction:
        row = await queue.predict(pixels)
        return Prediction(
            predicted=model.class_names[int(row.argmax())],
            probabilities=dict(zip(model.class_names, row.tolist(), strict=True)),
            slice=number,
        )

    async def explain(pixels: np.ndarray) -> tuple[str, list[str]]:
        if len(asking) >= limits.max_explaining:
            raise HTTPException(503, "Too many explanations wait; try again.", {"Retry-After": "5"})
        asking.add(turn := object())
        try:
            async with explaining:
                return await run_in_threadpool(_explain, model, pixels, limits.lime_samples)
        finally:
            asking.remove(turn)

    return app


def serve(model: OnnxClassifier, host: str, port: int, limits: Limits) -> None:
    """Answer until SIGINT or SIGTERM; requests under way are then finished.

    Raises:
        MachineError: the address is taken or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise MachineError(
            f"Cannot listen on {host}:{port}: {error.strerror}; take another --port or --host."
        ) from None
    # Without it every answer waits 40 ms; asyncio sets it only where the protocol is named.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A page of another site cannot reach a server on this machine by a name of its own for it.
    here = host in _THIS_MACHINE
    config = uvicorn.Config(
        create_app(model, limits, _THIS_MACHINE if here else ("*",)),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=30,
    )
    print(
        f"http://{host}:{port} serves {model.path.name} by {model.provider}; Ctrl-C stops it.",
        flush=True,
    )
    with listening:
        uvicorn.Server(config).run(sockets=[listening])


def _explain(model: OnnxClassifier, pixels: np.ndarray, samples: int) -> tuple[str, list[str]]:
    """The LIME overlay of the predicted class as a data address, and why not to rely on it."""
    from kerasmed.explain.lime import LimeExplainer
    from kerasmed.explain.records import draw_overlay, png_uri

    explainer = LimeExplainer(model.predict, num_samples=samples, min_samples=samples)
    explanation = explainer.explain(pixels)
    overlay = png_uri(draw_overlay(explanation, explanation.predicted, explainer.top))
    return overlay, explanation.warnings
