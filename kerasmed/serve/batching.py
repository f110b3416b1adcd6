"""Images that wait while a batch runs become the next batch."""

import asyncio

import numpy as np
from fastapi.concurrency import run_in_threadpool

from kerasmed.inference.classifier import OnnxClassifier


class Batches:
    """Runs waiting images together.

    Args:
        model: the model that predicts them.
        max_batch: largest number of images in one batch.
    """

    def __init__(self, model: OnnxClassifier, max_batch: int):
        self._model = model
        self._max_batch = max_batch
        self._waiting: asyncio.Queue[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = (
            asyncio.Queue()
        )

    async def predict(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities (classes,) of an image, uint8 (input_size, input_size, 3)."""
        answer: asyncio.Future[np.ndarray] = asyncio.get_running_loop().create_future()
        await self._waiting.put((pixels, answer))
        return await answer

    async def work(self) -> None:
        """Run batches until it is cancelled."""
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self._max_batch and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            images = np.stack([pixels for pixels, _ in batch])
            try:
                probabilities = await run_in_threadpool(self._model.predict, images)
            except Exception as error:  # goes to the waiting requests; the next batch may succeed
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), row in zip(batch, probabilities, strict=True):
                if not answer.done():  # the client may have disconnected
                    answer.set_result(row)
