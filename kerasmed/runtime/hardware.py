"""Processor, cores and memory; what the engine asks for needs the standard library only."""

import ctypes
import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kerasmed.errors import MachineError


def machine() -> dict[str, object]:
    """Processor, cores, memory and operating system, for the record of every figure."""
    import psutil  # which the engine does without

    return {
        "processor": cpu_fields().get("model name") or platform.processor() or "unknown",
        "cores": cpu_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def require_memory(needed: float, what: str) -> None:
    """Refuse work that needs more memory than is free, which would end this process unasked.

    Args:
        needed: bytes.
        what: the work, for the message.

    Raises:
        MachineError: less memory is free.
    """
    import psutil

    free = psutil.virtual_memory().available
    if free < needed:
        raise MachineError(
            f"{what}: expected {needed / 2**30:.1f} GiB of free memory, received "
            f"{free / 2**30:.1f}; close other programs, or use a machine with more memory."
        )


def cpu_fields() -> dict[str, str]:
    """The first processor's entry in /proc/cpuinfo; empty if there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def cpu_multiplies(*extensions: str) -> bool:
    """Whether the processor has one of these instruction sets, such as amx_int8."""
    return not set(extensions).isdisjoint(cpu_fields().get("flags", "").split())


@dataclass(frozen=True)
class CoreLimits:
    """The limits on the cores that this process may use.

    Attributes:
        host: cores of the machine.
        affinity: cores on which the scheduler may run this process.
        quota: CPU seconds per second granted by the control group of a container or job; None if
            unlimited.
        omp_threads: ``OMP_NUM_THREADS``, which Ray sets for each of its tasks; None if it is not a
            positive number.
    """

    host: int
    affinity: int
    quota: float | None = None
    omp_threads: int | None = None

    @property
    def granted(self) -> int:
        """Cores for this process and its children: affinity and quota, rounded up."""
        return self.affinity if self.quota is None else min(self.affinity, math.ceil(self.quota))

    @property
    def usable(self) -> int:
        """Cores for the threads of this process."""
        return min(self.granted, self.omp_threads or self.granted)

    def __str__(self) -> str:
        """The number of usable cores and the limits on it."""
        bounds = [f"{self.host} of the host"]
        if self.affinity < self.host:
            bounds.append(f"CPU affinity {self.affinity}")
        if self.quota is not None:
            bounds.append(f"CPU quota {self.quota:g}")
        if self.omp_threads is not None:
            bounds.append(f"OMP_NUM_THREADS {self.omp_threads}")
        return f"{self.usable} usable ({', '.join(bounds)})"


def core_limits() -> CoreLimits:
    """The current limits of this process."""
    host = os.cpu_count() or 1
    try:
        affinity = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such call
        affinity = host
    threads = os.environ.get("OMP_NUM_THREADS", "")
    omp_threads = int(threads) if threads.isdecimal() and int(threads) else None
    return CoreLimits(host, affinity, cpu_quota(), omp_threads)


def cpu_cores() -> int:
    """Cores for the threads of this process: the least of affinity, quota and OMP_NUM_THREADS."""
    return core_limits().usable


def thread_limit() -> int | None:
    """Threads for a library that counts the host's cores; None if it may use all of them."""
    limits = core_limits()
    return limits.usable if limits.usable < limits.host else None


def limit_blas_threads() -> None:
    """Limit NumPy's and SciPy's OpenBLAS to the usable cores; call it before they are imported.

    OpenBLAS respects affinity and OMP_NUM_THREADS, but not quotas.
    """
    limits = core_limits()
    if limits.omp_threads is None and limits.usable < limits.affinity:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", str(limits.usable))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """CPU seconds per second granted by this process's control group and those above it.

    Args:
        root: root of the file system.

    Returns:
        The smallest quota, above 0; None without a quota or without Linux.
    """
    quotas = []
    for version, folder, mount_point in _cpu_groups(root):
        read = _read_cpu_max if version == 2 else _read_cfs_quota
        for group in (folder, *folder.parents):
            with suppress(OSError, ValueError):
                quotas.append(read(group))
            if group == mount_point:
                break
    return min((quota for quota in quotas if 0 < quota < math.inf), default=None)


def _cpu_groups(root: Path) -> Iterator[tuple[int, Path, Path]]:
    """Version, folder and mount point of each control group that can limit CPU time."""
    try:
        own_groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (root / "proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    paths = {}
    for line in own_groups:
        _, _, controllers_and_path = line.partition(":")
        controllers, _, path = controllers_and_path.partition(":")
        if not controllers:
            paths[2] = path
        elif "cpu" in controllers.split(","):
            paths[1] = path
    for line in mounts:
        mount, _, source = line.partition(" - ")
        fields, (kind, _, options) = mount.split(), (source.split() + 3 * [""])[:3]
        version = 2 if kind == "cgroup2" else 1
        is_cpu = kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))
        if is_cpu and version in paths and len(fields) > 4:
            mount_point = root / fields[4].lstrip("/")
            yield version, _folder_of(paths[version], fields[3], mount_point), mount_point


def _folder_of(path: str, mounted: str, mount_point: Path) -> Path:
    """The folder of a group; a container often mounts only its own group or a subtree."""
    group = PurePosixPath(path)
    if group.is_relative_to(mounted) and ".." not in group.parts:
        folder = mount_point / group.relative_to(mounted)
        if folder.is_dir():
            return folder
    return mount_point


def _read_cpu_max(group: Path) -> float:
    quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
    return math.inf if quota == "max" else _ratio(quota, period)


def _read_cfs_quota(group: Path) -> float:
    quota, period = (
        (group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period")
    )
    return _ratio(quota, period)  # -1 stands for no quota


def _ratio(quota: str, period: str) -> float:
    if int(period) <= 0:
        raise ValueError(f"period {period}")
    return int(quota) / int(period)


def has_cuda_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True
