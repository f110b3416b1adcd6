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
from kerasmed.data.readers import EXPECTED
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
        description="PNG as a data URI: the image, and next to it the image with the superpixels "
        "that speak for the predicted class (green) and against it (purple).",
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


_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "Not a multipart form."},
    408: {"model": Problem, "description": "The body did not arrive in time."},
    413: {"model": Problem, "description": "The body or the image is too large."},
    415: {"model": Problem, "description": "The file is not a readable image."},
    503: {"model": Problem, "description": "Too many requests under way; try again."},
}


class _Service:
    """The routes of the application around one model."""

    def __init__(self, model: OnnxClassifier, limits: Limits):
        self._model = model
        self._limits = limits
        self._queue = Batches(model, limits.max_batch)
        self._decoding = asyncio.Semaphore(cpu_cores())
        self._explaining = asyncio.Semaphore(1)
        self._explanations_under_way = 0
        self._page = Path(__file__).with_name("upload.html").read_text(encoding="utf-8")

    @asynccontextmanager
    async def run(self, _: FastAPI) -> AsyncIterator[None]:
        """Predict batches for as long as the application runs."""
        await run_in_threadpool(self._model.warm_up)
        worker = asyncio.create_task(self._queue.work())
        yield
        worker.cancel()
        with suppress(asyncio.CancelledError):
            await worker

    def upload_page(self) -> str:
        return self._page

    def health(self) -> dict[str, str]:
        """Whether the server answers, and what runs the model."""
        return {"status": "ok", "model": self._model.path.name, "provider": self._model.provider}

    def describe(self) -> dict[str, Any]:
        """Metadata of the model file."""
        return self._model.metadata

    async def predict(
        self,
        image: Annotated[UploadFile, File(description=f"{EXPECTED}; the file name says which.")],
        lime: Annotated[
            bool,
            Query(description="Also explain it, in a second or so; of a volume only one slice."),
        ] = False,
        slice: Annotated[int | None, Query(ge=0, description="Only this slice or frame.")] = None,
    ) -> Prediction | Slices:
        """Class probabilities of an image, on request with a LIME overlay, or of every slice."""
        content, name = await image.read(), image.filename or ""
        async with self._decoding:
            images = await run_in_threadpool(
                decode_upload, content, name, self._model, self._limits, slice
            )
            if len(images) > 1:  # within the semaphore, so that few volumes are in memory at once
                answers = (self._predict(number, pixels) for number, pixels in images)
                return Slices(slices=await asyncio.gather(*answers))
        number, pixels = images[0]
        prediction = await self._predict(number, pixels)
        if lime:
            prediction.overlay, prediction.warnings = await self._explain(pixels)
        return prediction

    async def _predict(self, number: int | None, pixels: np.ndarray) -> Prediction:
        class_names = self._model.class_names
        probabilities = await self._queue.predict(pixels)
        return Prediction(
            predicted=class_names[int(probabilities.argmax())],
            probabilities=dict(zip(class_names, probabilities.tolist(), strict=True)),
            slice=number,
        )

    async def _explain(self, pixels: np.ndarray) -> tuple[str, list[str]]:
        if self._explanations_under_way >= self._limits.max_explaining:
            raise HTTPException(503, "Too many explanations wait; try again.", {"Retry-After": "5"})
        self._explanations_under_way += 1
        try:
            async with self._explaining:
                samples = self._limits.lime_samples
                return await run_in_threadpool(_draw_explanation, self._model, pixels, samples)
        finally:
            self._explanations_under_way -= 1


def create_app(
    model: OnnxClassifier, limits: Limits | None = None, hosts: Sequence[str] = ("*",)
) -> FastAPI:
    """The web application around one model.

    Args:
        model: must stay open as long as the application.
        limits: limits of the requests.
        hosts: names under which requests may address this server, all if "*".
    """
    limits = limits or Limits()
    service = _Service(model, limits)
    # Its page of the interface needs no network, which hospitals often close.
    app = FastAPIOffline(
        title=f"kerasmed: {model.path.name}",
        version=__version__,
        summary="Class probabilities of medical images. For research, not for diagnosis.",
        lifespan=service.run,
    )
    app.add_middleware(Gate, limits=limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    app.exception_handler(KerasmedError)(_refuse)
    app.get("/", response_class=HTMLResponse, include_in_schema=False)(service.upload_page)
    app.get("/health")(service.health)
    app.get("/model")(service.describe)
    app.post("/predict", responses=_PROBLEMS)(service.predict)
    return app


async def _refuse(_: Any, error: KerasmedError) -> JSONResponse:
    status = 503 if isinstance(error, ModelFileError) else 415
    return JSONResponse({"detail": " ".join(str(error).split())}, status)


def serve(model: OnnxClassifier, host: str, port: int, limits: Limits) -> None:
    """Answer requests until SIGINT or SIGTERM; those under way are then finished.

    Raises:
        MachineError: the address is in use, or is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise MachineError(
            f"Cannot listen on {host}:{port}: {error.strerror}; choose another --port or --host."
        ) from None
    # Otherwise every answer waits 40 ms: asyncio sets it only for sockets that name their protocol.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # Against pages of other sites that reach this machine by a host name of theirs (DNS rebinding).
    hosts = _THIS_MACHINE if host in _THIS_MACHINE else ("*",)
    config = uvicorn.Config(
        create_app(model, limits, hosts),
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


def _draw_explanation(
    model: OnnxClassifier, pixels: np.ndarray, samples: int
) -> tuple[str, list[str]]:
    """The LIME overlay of the predicted class as a data URI, and reasons not to rely on it."""
    from kerasmed.data.thumbnails import png_uri
    from kerasmed.explain.lime import LimeExplainer

    explainer = LimeExplainer(model.predict, num_samples=samples, min_samples=samples)
    explanation = explainer.explain(pixels)
    overlay = png_uri(np.asarray(explanation.overlay(top=explainer.top)))
    return overlay, explanation.warnings
