"""What this machine has, found by trying it."""

from tempfile import TemporaryDirectory
from typing import Any

from kerasmed.config import RuntimeConfig
from kerasmed.errors import KerasmedError
from kerasmed.hardware import machine
from kerasmed.runtime import resolve_runtime, versions


def examine() -> dict[str, Any]:
    """Versions, backend, devices, precision, XLA, and the provider that onnxruntime really gets."""
    found = {**machine(), **versions()}
    runtime = resolve_runtime(RuntimeConfig())
    found |= {
        "Keras backend": runtime.backend,
        "device": runtime.device,
        "precision (auto)": runtime.precision,
        "XLA (auto)": "on" if runtime.jit_compile else "off",
        "onnxruntime provider": _running_provider(),
    }
    return found


def _running_provider() -> str:
    """The provider of a real session over a tiny network."""
    from pathlib import Path

    import onnx

    from kerasmed.inference import open_session

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", float32, [1])],
        [helper.make_tensor_value_info("y", float32, [1])],
    )
    # onnx 1.23 writes IR 14, onnxruntime 1.26 reads up to 13.
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save(model, path)
        try:
            return open_session(path)[1]
        except KerasmedError as error:
            return f"none: {error}"
