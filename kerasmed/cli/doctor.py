"""What this machine can run, found by trying it."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kerasmed.errors import KerasmedError, brief
from kerasmed.parallel.config import RuntimeConfig
from kerasmed.parallel.resolve import resolve_runtime
from kerasmed.runtime.hardware import core_limits, machine
from kerasmed.runtime.keras_settings import ignored_settings
from kerasmed.runtime.versions import versions


def examine() -> dict[str, Any]:
    """Versions, backend, devices, precision, XLA, and the provider that onnxruntime really uses.

    For anything that does not work the value is "none", with the reason and a remedy.
    """
    ignored = ignored_settings()  # before Keras is loaded, which unsets some of these variables
    return {
        **machine(),
        "cores": str(core_limits()),
        **versions(),
        **_tried("Keras backend", _keras, "install kerasmed again"),
        **_tried("onnxruntime provider", _running_provider, "install onnx and onnxruntime again"),
        **ignored,
    }


def _tried(name: str, check: Callable[[], dict[str, str]], remedy: str) -> dict[str, str]:
    """The findings of one check, or why it failed."""
    try:
        return check()
    except KerasmedError as error:
        return {name: f"none: {' '.join(str(error).split())}"}
    except Exception as error:  # a broken installation can raise anything
        return {name: f"none: {brief(error)}; {remedy}."}


def _keras() -> dict[str, str]:
    runtime = resolve_runtime(RuntimeConfig())
    from kerasmed.diffusion.cost import matrix_product_rate  # Keras is loaded by now

    dtype = runtime.precision.removeprefix("mixed_")
    return {
        "Keras backend": runtime.backend,
        "device": runtime.device,
        "precision (auto)": runtime.precision,
        "XLA (auto)": "on" if runtime.jit_compile else "off",
        f"matrix products ({dtype})": f"{matrix_product_rate(dtype) / 1e9:.0f} GFLOP/s",
    }


def _running_provider() -> dict[str, str]:
    """The provider of a real session with a tiny network."""
    import onnx

    from kerasmed.inference.session import open_session

    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [helper.make_tensor_value_info("x", float32, [1])],
        [helper.make_tensor_value_info("y", float32, [1])],
    )
    # onnx 1.23 writes IR 14 by default; onnxruntime 1.26 reads up to 13.
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 18)])
    with TemporaryDirectory() as folder:
        path = Path(folder) / "probe.onnx"
        onnx.save(model, path)
        return {"onnxruntime provider": open_session(path)[1]}
