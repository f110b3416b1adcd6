"""Requests a second and latency of ``kerasmed serve``, batched against one image at a time.

    python benchmarks/serving.py MODEL.onnx IMAGE --seconds 10

Each server runs in a process of its own, the clients in this one, on the same machine: every client
sends the image, waits for the answer, and sends it again.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np

from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

_SERVER = """
import sys
from kerasmed.inference.classifier import OnnxClassifier
from kerasmed.serve.limits import Limits
from kerasmed.serve.app import serve
limits = Limits(max_batch=int(sys.argv[3]))
serve(OnnxClassifier(sys.argv[1]), "127.0.0.1", int(sys.argv[2]), limits)
"""


async def load(address: str, content: bytes, name: str, clients: int, seconds: float) -> dict:
    latencies: list[float] = []

    async def send_until_end(client: httpx2.AsyncClient) -> None:
        while time.perf_counter() < end:
            started = time.perf_counter()
            answer = await client.post(f"{address}/predict", files={"image": (name, content)})
            answer.raise_for_status()
            latencies.append(1000 * (time.perf_counter() - started))

    limits = httpx2.Limits(max_connections=clients)
    async with httpx2.AsyncClient(limits=limits, timeout=60) as client:
        end = time.perf_counter() + seconds / 5
        await asyncio.gather(*(send_until_end(client) for _ in range(clients)))
        latencies.clear()
        started = time.perf_counter()
        end = started + seconds
        await asyncio.gather(*(send_until_end(client) for _ in range(clients)))
        taken = time.perf_counter() - started
    p50, p99 = np.percentile(latencies, [50, 99])
    rate = len(latencies) / taken
    return {"requests_per_s": round(rate, 1), "p50_ms": round(p50, 1), "p99_ms": round(p99, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("image", type=Path)
    parser.add_argument("--seconds", type=float, default=10)
    arguments = parser.parse_args()
    print(json.dumps({**machine(), **versions()}))
    content = arguments.image.read_bytes()
    for max_batch in (1, 16):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-c", _SERVER, arguments.model, str(port), str(max_batch)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            server.stdout.readline()
            time.sleep(2)
            for clients in (1, 8, 32):
                rates = asyncio.run(
                    load(
                        f"http://127.0.0.1:{port}",
                        content,
                        arguments.image.name,
                        clients,
                        arguments.seconds,
                    )
                )
                print(json.dumps({"max_batch": max_batch, "clients": clients, **rates}))
            server.terminate()


if __name__ == "__main__":
    main()
