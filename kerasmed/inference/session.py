"""onnxruntime sessions, and the provider that really runs them."""

import logging
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import onnxruntime

from kerasmed.errors import InputError, MachineError, ModelFileError
from kerasmed.runtime.hardware import has_cuda_driver, thread_limit

log = logging.getLogger("kerasmed.inference")


@dataclass(frozen=True)
class _Provider:
    """One way in which onnxruntime computes.

    Attributes:
        name: onnxruntime's name.
        remedy: what to install where it does not run.
        options: its options in onnxruntime.
    """

    name: str
    remedy: str
    options: dict[str, str]


_GPU = "install onnxruntime-gpu with the CUDA 12 libraries (extra `gpu`)"

PROVIDERS: dict[str, _Provider] = {
    "cpu": _Provider("CPUExecutionProvider", "install onnxruntime", {}),
    "cuda": _Provider(
        "CUDAExecutionProvider",
        _GPU,
        # The default search takes seconds, and again for every shape.
        {"cudnn_conv_algo_search": "HEURISTIC"},
    ),
    "tensorrt": _Provider("TensorrtExecutionProvider", f"{_GPU}, and TensorRT 10", {}),
    "openvino": _Provider(
        "OpenVINOExecutionProvider",
        "install onnxruntime-openvino in place of onnxruntime and onnxruntime-gpu",
        {},
    ),
    "coreml": _Provider("CoreMLExecutionProvider", "install onnxruntime on macOS", {}),
}


def open_session(
    path: Path, provider: str = "auto", threads: int | None = None
) -> tuple[onnxruntime.InferenceSession, str]:
    """An onnxruntime session, and the onnxruntime provider that really runs it.

    Args:
        path: an ONNX file.
        provider: a key of PROVIDERS, or "auto" for CUDA where a driver is present, else the CPU.
        threads: threads of one run on a CPU; None for all cores that this process may use.

    Raises:
        InputError: there is no provider of that name.
        ModelFileError: the file is missing or is not ONNX.
        MachineError: another provider runs than the chosen one.
    """
    if provider not in ("auto", *PROVIDERS):
        raise InputError(
            f"Provider: expected one of auto, {', '.join(PROVIDERS)}; received {provider!r}."
        )
    if not path.is_file():
        raise ModelFileError(f"No model file at {path}: expected an ONNX file; correct the path.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # With 0 onnxruntime uses a thread for each physical core of the host.
    options.intra_op_num_threads = threads or thread_limit() or 0
    available = onnxruntime.get_available_providers()
    chosen = provider
    if provider == "auto":
        has_cuda = has_cuda_driver() and PROVIDERS["cuda"].name in available
        chosen = "cuda" if has_cuda else "cpu"
    if chosen in ("cuda", "tensorrt") and hasattr(onnxruntime, "preload_dlls"):
        with redirect_stdout(StringIO()):  # it prints which libraries are missing
            onnxruntime.preload_dlls()
    wanted = [PROVIDERS[name] for name in dict.fromkeys((chosen, "cpu"))]
    try:
        session = onnxruntime.InferenceSession(
            str(path),
            options,
            providers=[(entry.name, entry.options) for entry in wanted if entry.name in available],
        )
    except Exception as error:  # onnxruntime has no public base class of its exceptions
        raise ModelFileError(
            f"{path} is not a model that onnxruntime {onnxruntime.__version__} can load: expected "
            f"an ONNX file, received: {' '.join(str(error).split())[:200]}; export it again."
        ) from None
    running = session.get_providers()[0]
    if provider != "auto" and running != PROVIDERS[provider].name:
        raise MachineError(
            f"Provider: expected {provider}, but onnxruntime runs {running} and offers "
            f"{available}; {PROVIDERS[provider].remedy}, or use cpu."
        )
    log.info("%s runs on %s", path.name, running)
    return session, running


def provider_key(name: str) -> str:
    """The key of PROVIDERS with this onnxruntime name."""
    return next(key for key, provider in PROVIDERS.items() if provider.name == name)
