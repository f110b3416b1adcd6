import keras
import pytest

from kerasmed import hardware, runtime
from kerasmed.config import RuntimeConfig
from kerasmed.hardware import cpu_cores
from kerasmed.runtime import precision_policy, resolve_runtime


@pytest.mark.parametrize(("flags", "expected"), [
    ("fpu avx512_bf16", "mixed_bfloat16"), ("fpu amx_bf16", "mixed_bfloat16"), ("fpu", "float32"),
])  # fmt: skip
def test_auto_precision_follows_the_processor(monkeypatch, flags, expected):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": flags})
    found = resolve_runtime(RuntimeConfig())
    assert (found.precision, found.jit_compile) == (expected, False)


def test_classifiers_stay_in_float32_on_a_cpu(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(hardware, "cpu_fields", lambda: {"flags": "fpu avx512_bf16"})
    assert resolve_runtime(RuntimeConfig(), cpu_bfloat16=False).precision == "float32"


def test_auto_on_a_gpu_is_bfloat16_with_xla(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: ["gpu:0"])
    found = resolve_runtime(RuntimeConfig())
    assert (found.precision, found.jit_compile) == ("mixed_bfloat16", True)
    assert found.device == "1 x GPU"


def test_jax_is_compiled_on_a_cpu_too(monkeypatch):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda kind=None: [])
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    assert resolve_runtime(RuntimeConfig()).jit_compile


def test_what_was_asked_for_is_taken():
    asked = RuntimeConfig(precision="mixed_float16", jit_compile=True)
    found = resolve_runtime(asked)
    assert (found.precision, found.jit_compile) == ("mixed_float16", True)


def test_policy_is_restored_also_after_an_error():
    inside = []

    def fail():
        with precision_policy("mixed_bfloat16"):
            inside.append(keras.mixed_precision.dtype_policy().name)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert inside == ["mixed_bfloat16"]
    assert keras.mixed_precision.dtype_policy().name == "float32"


def test_record_names_processor_and_versions():
    assert hardware.machine()["cores"] >= 1
    assert {"python", "keras", "numpy", "kerasmed"} <= runtime.versions().keys()


@pytest.mark.parametrize(
    ("said", "expected"), [("1", 1), ("3", 3), ("99", 4), ("", 4), ("0", 4), ("all", 4)]
)
def test_no_more_cores_are_used_than_omp_num_threads_allows(monkeypatch, said, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert cpu_cores() == expected
