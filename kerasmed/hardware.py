"""What this machine is made of; the standard library alone, so that the engine may import it."""

import ctypes
import os
import platform
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, cores and operating system, for the record beside every figure."""
    return {
        "processor": cpu_fields().get("model name") or platform.processor() or "unknown",
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cpu_fields() -> dict[str, str]:
    """The first processor's entry of /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_multiplies(*extensions: str) -> bool:
    """Whether the processor names one of these instruction sets, such as amx_int8."""
    return not set(extensions).isdisjoint(cpu_fields().get("flags", "").split())


def cpu_cores() -> int:
    """Cores that this process may use: of the machine, and no more than ``OMP_NUM_THREADS``."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        cores = os.cpu_count() or 1
    return min(cores, thread_limit() or cores)


def thread_limit() -> int | None:
    """``OMP_NUM_THREADS``, which Ray sets for each of its tasks; None where it is no number."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return int(limit) if limit.isdecimal() and int(limit) else None


def has_cuda_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
