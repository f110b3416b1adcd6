"""From a new process to the first answer of an exported CNN: seconds and peak memory.

    python benchmarks/cold_start.py MODEL.onnx [--python bare/bin/python]

The clock runs from the start of the interpreter, so imports count. ``--python`` starts that of
another environment, such as one with only NumPy, Pillow, onnxruntime and kerasmed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from kerasmed.runtime.hardware import machine

_VERSIONS = "from kerasmed.runtime.versions import versions; print(versions())"
_CHILD = """
import resource, sys
import numpy as np
import kerasmed as km
model = km.OnnxClassifier(sys.argv[1], provider="cpu")
model.predict(np.zeros((1, model.input_size, model.input_size, 3), np.uint8))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    print(json.dumps(machine()), flush=True)
    subprocess.run([arguments.python, "-c", _VERSIONS], check=True)
    seconds, mebibytes = [], []
    for _ in range(arguments.rounds + 1):  # the first one fills the file cache
        started = time.perf_counter()
        command = [arguments.python, "-c", _CHILD, arguments.model]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds.append(time.perf_counter() - started)
        mebibytes.append(float(done.stdout))
    print(
        f"Cold start: {statistics.median(seconds[1:]):.2f} s in the median "
        f"({min(seconds[1:]):.2f} to {max(seconds[1:]):.2f}), "
        f"{statistics.median(mebibytes[1:]):.0f} MiB at the peak."
    )


if __name__ == "__main__":
    main()
