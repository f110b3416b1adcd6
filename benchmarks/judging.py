"""Time and memory of `kerasmed.judge`, by the number of images a side.

    python benchmarks/judging.py [--images 1000 10000] [--size 64]

So many images were learned from, as many are the reserve and as many the synthetic set: blends of
two phantoms each. No CNN is trained, and features are a random projection of the pixels to 768
numbers, so what is timed is the judging. Each number of images runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx

import kerasmed as km
from kerasmed.data.image_set import Roles
from kerasmed.data.phantoms import FAMILIES, draw_phantom
from kerasmed.runtime.hardware import machine
from kerasmed.runtime.versions import versions

FAMILY, PAINTED, FEATURES = "smear", 1000, 768
CLASSES = sorted(FAMILIES[FAMILY])


def painted(size: int) -> np.ndarray:
    drawn = [draw_phantom(FAMILY, CLASSES[i % 4], i, size, 0)[0] for i in range(PAINTED)]
    return np.stack(drawn)


def blends(phantoms: np.ndarray, count: int, seed: int) -> km.ImageSet:
    """Each of two phantoms of its class, one of them shifted."""
    rng, labels = np.random.default_rng(seed), np.arange(count) % 4
    first, second = (labels + 4 * rng.integers(PAINTED // 4, size=count) for _ in range(2))
    shifts = rng.integers(-8, 8, (count, 2))
    images = np.stack(
        [
            (phantoms[a] * 0.6 + np.roll(phantoms[b], shift, (0, 1)) * 0.4).astype(np.uint8)
            for a, b, shift in zip(first, second, shifts, strict=True)
        ]
    )
    return km.ImageSet.from_arrays(images, labels, CLASSES)


def write_extractor(path: Path, size: int) -> None:
    """A network of one random matrix."""
    helper, kinds = onnx.helper, onnx.TensorProto
    width = size * size * 3
    matrix = np.random.default_rng(0).normal(0, width**-0.5 / 255, (width, FEATURES))
    constants = [
        onnx.numpy_helper.from_array(matrix.astype(np.float32), "matrix"),
        onnx.numpy_helper.from_array(np.int64([0, width]), "shape"),
    ]
    nodes = [
        helper.make_node("Cast", ["images"], ["x"], to=kinds.FLOAT),
        helper.make_node("Reshape", ["x", "shape"], ["y"]),
        helper.make_node("MatMul", ["y", "matrix"], ["z"]),
        helper.make_node("Relu", ["z"], ["features"]),
    ]
    graph = helper.make_graph(
        nodes, "projection",
        [helper.make_tensor_value_info("images", kinds.UINT8, ["n", size, size, 3])],
        [helper.make_tensor_value_info("features", kinds.FLOAT, ["n", FEATURES])],
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    onnx.save(model, path)


def measure(count: int, size: int) -> dict:
    phantoms = painted(size)
    train, reserve, synthetic, test = (blends(phantoms, n, s) for s, n in
                                       enumerate([count, count, count, 100]))  # fmt: skip
    roles = Roles(train, test, test, reserve)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "projection.onnx"
        write_extractor(path, size)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, used = time.monotonic(), time.process_time()
        verdicts = km.judge(
            roles, synthetic, classifiers=[], extractors=[str(path)], symmetry="dihedral"
        )
        return {
            "images": count,
            "minutes": round((time.monotonic() - started) / 60, 2),
            "processor_minutes": round((time.process_time() - used) / 60, 2),
            "memory_before_gib": round(before / 2**20, 2),
            "memory_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "lights": [answer.light for answer in verdicts.answers],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        print(json.dumps(measure(arguments.images[0], arguments.size)))
        return
    print(json.dumps({**machine(), **versions()}))
    for count in arguments.images:
        command = [sys.executable, __file__, "--alone", "--images", str(count)]
        subprocess.run([*command, "--size", str(arguments.size)], check=True)


if __name__ == "__main__":
    main()
