"""``kerasmed serve``: an exported CNN over HTTP, for tools that are not Python and for browsers.

One queue: what waits while a batch runs becomes the next batch. The number of requests under way
and the size of each are bounded, so memory is too.
"""

import asyncio
import io
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from tempfile import NamedTemporaryFile
from typing import Annotated, Any

import numpy as np
from PIL import Image

from kerasmed import __version__
from kerasmed.data.raster import count_pixels
from kerasmed.data.readers import (
    EXPECTED,
    SUFFIXES,
    is_dicom_start,
    starts_as_dicom,
    suffix_of,
)
from kerasmed.errors import DataError, KerasmedError, MachineError, ModelFileError
from kerasmed.hardware import cpu_cores
from kerasmed.inference import OnnxClassifier

try:
    import uvicorn
    from fastapi import FastAPI, File, HTTPException, Query, UploadFile
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import HTMLResponse, JSONResponse
    from fastapi_offline import FastAPIOffline
    from pydantic import BaseModel, Field
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise MachineError(f"kerasmed serve needs {error.name}: install kerasmed[serve].") from None


_THIS_MACHINE = ("127.0.0.1", "localhost")
_BOMB = 10**12  # pixels of what Pillow does not even open


@dataclass(frozen=True)
class Limits:
    """What a server takes.

    Attributes:
        max_body: bytes of one request.
        max_pixels: of one file, before it is reduced.
        max_slices: of one volume, or frames of one file.
        max_waiting: requests under way at once; further ones are answered 503.
        max_batch: images run at once.
        lime_samples: masked images of an explanation.
        max_explaining: explanations that wait or run; further ones are answered 503.
        body_seconds: in which the body of a request must have come, else 408.
    """

    max_body: int = 16 * 2**20
    max_pixels: int = 50_000_000
    max_slices: int = 1000
    max_waiting: int = 64
    max_batch: int = 16
    lime_samples: int = 300
    max_explaining: int = 4
    body_seconds: float = 60


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
    queue = _Batches(model, limits.max_batch)
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
    app.add_middleware(_Gate, limits=limits)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    page = Path(__file__).with_name("serve.html").read_text(encoding="utf-8")
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
                _decode, content, image.filename or "", model, limits, slice
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


class _Batches:
    """Images that wait are run together, up to a limit."""

    def __init__(self, model: OnnxClassifier, max_batch: int):
        self._model = model
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = (
            asyncio.Queue()
        )

    async def predict(self, pixels: np.ndarray) -> np.ndarray:
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        await self._waiting.put((pixels, answer))
        return await answer

    async def work(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            images = np.stack([pixels for pixels, _ in batch])
            try:
                found = await run_in_threadpool(self._model.predict, images)
            except Exception as error:  # goes to those who wait; the next batch may fare better
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(batch, found, strict=True):
                if not answer.done():  # the client may have gone
                    answer.set_result(row)


class _Gate:
    """Refuses what is too large or too much before it is read into memory."""

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
                # After the body it waits for the client to go, which may take as long as it likes.
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


def _decode(
    content: bytes, name: str, model: OnnxClassifier, limits: Limits, number: int | None
) -> list[tuple[int | None, np.ndarray]]:
    """The images of an uploaded file with their numbers: uint8 (input_size, input_size, 3).

    Args:
        content: of the file.
        name: which says the format.
        model: that they are for.
        limits: of pixels and slices.
        number: the only slice or frame wanted; all if None.

    Raises:
        DataError: it cannot be read.
        HTTPException: it has too many pixels or slices.
    """
    ending = PurePath(name).name.lower()
    suffix = next((each for each in sorted(SUFFIXES) if ending.endswith(each)), ".png")
    if is_dicom_start(content[:132]):
        suffix = ".dcm"
    with NamedTemporaryFile(suffix=suffix) as file:
        file.write(content)
        file.flush()
        path = Path(file.name)
        pixels = _count_pixels(path, suffix_of(path))
        if pixels > limits.max_pixels:
            raise HTTPException(
                413,
                f"Image: expected at most {limits.max_pixels:,} pixels, received {pixels:,}; "
                "reduce it.",
            )
        wanted = path if number is None else path.with_name(f"{path.name}#{number}")
        try:
            images = list(islice(model.read_all(wanted), limits.max_slices + 1))
        except (DataError, MachineError) as error:
            raise type(error)(str(error).replace(file.name, "the uploaded file")) from None
    if len(images) > limits.max_slices:
        raise HTTPException(
            413, f"Volume: expected at most {limits.max_slices:,} slices; ask for one by slice=."
        )
    return images


def _count_pixels(path: Path, suffix: str) -> int:
    """Pixels as the file's header states them, before any is decoded.

    Raises:
        HTTPException: a header that states none, or a DICOM file that may decode to far more.
    """
    try:
        if suffix in (".dcm", ".dicom", ".ima"):
            return _count_dicom_pixels(path)
        if suffix in (".nii", ".nii.gz"):
            from kerasmed.data.nifti import count_values

            return count_values(path)
        return count_pixels(path)
    except HTTPException:
        raise
    except Image.DecompressionBombError:
        return _BOMB
    except ModuleNotFoundError as error:
        raise MachineError(
            f"{suffix} files need {error.name}; install kerasmed[medical]."
        ) from None
    except Exception:  # decoders meet broken files with exceptions of every kind
        raise HTTPException(
            415,
            "Cannot read the uploaded file: expected an image whose header states its size; "
            "replace it.",
        ) from None


def _count_dicom_pixels(path: Path) -> int:
    from pydicom import dcmread
    from pydicom.uid import DeflatedExplicitVRLittleEndian, RLELossless

    from kerasmed.data.dicom import read_syntax
    from kerasmed.data.dicom_grey import integer

    is_dicom = starts_as_dicom(path)
    syntax = read_syntax(path)
    if syntax == DeflatedExplicitVRLittleEndian:  # already reading the header inflates all of it
        raise HTTPException(415, "DICOM: expected a file that is not deflated; save it otherwise.")
    header = dcmread(path, stop_before_pixels=True, force=is_dicom)
    frames = max(1, integer(header, "NumberOfFrames", 1))
    pixels = integer(header, "Rows", 0) * integer(header, "Columns", 0) * frames
    if syntax == RLELossless:
        samples, bits = integer(header, "SamplesPerPixel", 3), integer(header, "BitsAllocated", 16)
        largest = pixels * samples * bits // 8
        if path.stat().st_size > 2 * largest + 2**20:
            raise HTTPException(415, "DICOM: expected RLE of the size that its header states.")
    elif syntax is None or syntax.is_encapsulated:
        pixels = max(pixels, _count_encoded_pixels(path, is_dicom))
    return pixels


def _count_encoded_pixels(path: Path, is_dicom: bool) -> int:
    """Pixels as the JPEG and JPEG 2000 streams in a DICOM file state them; 0 where it has none."""
    from pydicom import dcmread
    from pydicom.encaps import generate_frames

    from kerasmed.data.dicom_grey import integer

    dataset = dcmread(path, force=is_dicom)
    if "PixelData" not in dataset or not dataset["PixelData"].is_undefined_length:
        return 0
    frames = max(1, integer(dataset, "NumberOfFrames", 1))
    pixels = 0
    for frame in generate_frames(dataset.PixelData, number_of_frames=frames):
        with suppress(Image.UnidentifiedImageError), Image.open(io.BytesIO(frame)) as image:
            pixels += image.width * image.height
    return pixels


def _explain(model: OnnxClassifier, pixels: np.ndarray, samples: int) -> tuple[str, list[str]]:
    """The LIME overlay of the predicted class as a data address, and why not to rely on it."""
    from kerasmed.explain.explainers import LimeExplainer
    from kerasmed.explain.records import draw_overlay, png_uri

    explainer = LimeExplainer(model.predict, num_samples=samples, min_samples=samples)
    explanation = explainer.explain(pixels)
    overlay = png_uri(draw_overlay(explanation, explanation.predicted, explainer.top))
    return overlay, explanation.warnings
