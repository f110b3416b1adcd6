"""The cores that this process may use: affinity, quotas of control groups, OMP_NUM_THREADS."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kerasmed
from kerasmed.runtime import hardware
from kerasmed.runtime.hardware import CoreLimits, core_limits, cpu_cores, cpu_quota, thread_limit

V2 = "31 23 0:28 {mounted} /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = "33 31 0:30 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
OTHER = "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


@pytest.fixture
def machine(tmp_path):
    """A function that writes a file system's files about control groups, and returns its root."""

    def write(own_group: str, mounts: str, files: dict[str, str]) -> Path:
        files = {
            **{f"sys/fs/cgroup/{name}": content for name, content in files.items()},
            "proc/self/cgroup": own_group,
            "proc/self/mountinfo": "1 0 8:1 / / rw - ext4 /dev/sda rw\n" + mounts,
        }
        for name, content in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("own_group", "mounted", "files", "expected"),
    [
        pytest.param("/", "/", {"cpu.max": "150000 100000\n"}, 1.5, id="container"),
        pytest.param("/", "/", {"cpu.max": "max 100000\n"}, None, id="no quota"),
        pytest.param("/", "/", {}, None, id="host"),
        pytest.param("/a/b", "/", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5,
                     id="quota above"),
        pytest.param("/a/b", "/", {"a/b/cpu.max": "100000 100000", "a/cpu.max": "300000 100000"},
                     1.0, id="quota within a larger one"),
        pytest.param("/a/b", "/a", {"b/cpu.max": "200000 100000"}, 2.0, id="part of the tree"),
        pytest.param("/x/y", "/x/y", {"cpu.max": "200000 100000"}, 2.0, id="own group mounted"),
        pytest.param("/x/y", "/", {"cpu.max": "200000 100000"}, 2.0, id="path of the host"),
        pytest.param("/../../x", "/", {"cpu.max": "200000 100000"}, 2.0, id="outside"),
        pytest.param("/", "/", {"cpu.max": "garbage"}, None, id="garbage"),
        pytest.param("/", "/", {"cpu.max": ""}, None, id="empty"),
        pytest.param("/", "/", {"cpu.max": "100000 0"}, None, id="period of zero"),
        pytest.param("/", "/", {"cpu.max": "-5 100000"}, None, id="negative"),
    ],
)  # fmt: skip
def test_quota_of_version_2(machine, own_group, mounted, files, expected):
    root = machine(f"0::{own_group}\n", V2.format(mounted=mounted), files)
    assert cpu_quota(root) == expected


@pytest.mark.parametrize(
    ("own_group", "mounted", "quotas", "expected"),
    [
        pytest.param("/", "/", {".": "250000"}, 2.5, id="container"),
        pytest.param("/", "/", {".": "-1"}, None, id="no quota"),
        pytest.param("/docker/1", "/docker/1", {".": "100000"}, 1.0, id="own group mounted"),
        pytest.param("/docker/1", "/", {".": "-1", "docker": "-1", "docker/1": "300000"}, 3.0,
                     id="host"),
        pytest.param("/docker/1", "/", {".": "-1", "docker": "100000", "docker/1": "300000"}, 1.0,
                     id="quota above"),
        pytest.param("/docker/1", "/", {".": "100000"}, 1.0, id="path of the host"),
        pytest.param("/", "/", {".": "many"}, None, id="garbage"),
    ],
)  # fmt: skip
def test_quota_of_version_1(machine, own_group, mounted, quotas, expected):
    groups = f"9:memory:/other\n4:cpu,cpuacct:{own_group}\n1:name=systemd:/other\n"
    files = {}
    for group, quota in quotas.items():
        files[f"cpu,cpuacct/{group}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"cpu,cpuacct/{group}/cpu.cfs_period_us"] = "100000\n"
    assert cpu_quota(machine(groups, OTHER + V1.format(mounted=mounted), files)) == expected


def test_period_that_is_missing_is_no_quota(machine):
    files = {"cpu,cpuacct/cpu.cfs_quota_us": "100000"}
    assert cpu_quota(machine("4:cpu,cpuacct:/\n", V1.format(mounted="/"), files)) is None


def test_least_quota_counts_where_both_versions_are_mounted(machine):
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    files = {
        "unified/cpu.max": "300000 100000",
        "cpu,cpuacct/cpu.cfs_quota_us": "200000",
        "cpu,cpuacct/cpu.cfs_period_us": "100000",
    }
    root = machine("4:cpu,cpuacct:/\n0::/\n", unified + V1.format(mounted="/"), files)
    assert cpu_quota(root) == 2.0


@pytest.mark.parametrize(
    ("own_group", "mounts"),
    [("", ""), ("garbage\n::\n:\n", "x\n - \n - cgroup2\n1 2 3 - cgroup2 x rw\n"), ("0::/\n", "")],
)
def test_records_of_groups_that_say_nothing_are_no_quota(machine, own_group, mounts):
    assert cpu_quota(machine(own_group, mounts, {"cpu.max": "100000 100000"})) is None


def test_machine_without_control_groups_has_no_quota(tmp_path):
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("limits", "granted", "usable", "why"),
    [
        (CoreLimits(64, 64), 64, 64, "64 usable (64 of the host)"),
        (CoreLimits(64, 8), 8, 8, "8 usable (64 of the host, CPU affinity 8)"),
        (CoreLimits(64, 64, 1.5), 2, 2, "2 usable (64 of the host, CPU quota 1.5)"),
        (CoreLimits(64, 64, 0.001), 1, 1, "1 usable (64 of the host, CPU quota 0.001)"),
        (CoreLimits(2, 2, 16.0), 2, 2, "2 usable (2 of the host, CPU quota 16)"),
        (CoreLimits(64, 8, 4.0, 3), 4, 3,
         "3 usable (64 of the host, CPU affinity 8, CPU quota 4, OMP_NUM_THREADS 3)"),
        (CoreLimits(2, 2, None, 99), 2, 2, "2 usable (2 of the host, OMP_NUM_THREADS 99)"),
    ],
)  # fmt: skip
def test_least_limit_counts(limits, granted, usable, why):
    assert (limits.granted, limits.usable, str(limits)) == (granted, usable, why)


@pytest.fixture
def four_cores(monkeypatch):
    """A machine of four cores without limits."""
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.setattr(hardware, "cpu_quota", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("threads", "expected"),
    [("1", 1), ("3", 3), ("99", 4), ("", 4), ("0", 4), ("all", 4), ("-2", 4), ("2,1", 4)],
)
def test_no_more_cores_are_used_than_omp_num_threads_allows(
    monkeypatch, four_cores, threads, expected
):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert cpu_cores() == expected


def test_quota_counts_in_every_number_of_cores(monkeypatch, four_cores):
    assert (cpu_cores(), thread_limit()) == (4, None)
    monkeypatch.setattr(hardware, "cpu_quota", lambda: 1.2)
    assert core_limits() == CoreLimits(4, 4, 1.2, None)
    assert (cpu_cores(), thread_limit(), hardware.machine()["cores"]) == (2, 2, 2)


@pytest.mark.parametrize(
    ("quota", "given", "expected"),
    [
        (None, {}, None),
        (2.0, {}, "2"),
        (2.0, {"OPENBLAS_NUM_THREADS": "7"}, "7"),
        (2.0, {"OMP_NUM_THREADS": "1"}, None),  # which OpenBLAS reads itself
    ],
)
def test_quota_holds_for_blas(monkeypatch, four_cores, quota, given, expected):
    monkeypatch.setattr(hardware, "cpu_quota", lambda: quota)
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "restored after the test")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    hardware.limit_blas_threads()
    assert os.environ.get("OPENBLAS_NUM_THREADS") == expected


def test_command_line_limits_blas_before_numpy_is_imported():
    code = (
        "import os, sys\n"
        "from kerasmed.cli import main as cli\n"
        "from kerasmed.runtime import hardware\n"
        "hardware.core_limits = lambda: hardware.CoreLimits(8, 8, quota=1.0)\n"
        "def main(): print('numpy' in sys.modules, os.environ['OPENBLAS_NUM_THREADS'])\n"
        "cli.main = main; cli.entry()"
    )
    environment = {name: value for name, value in os.environ.items() if "NUM_THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == "False 1\n", done.stderr


def test_memory_is_that_of_the_machine():
    expected = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    assert hardware.machine()["memory_gib"] == pytest.approx(expected, abs=0.06)


def test_cores_are_counted_in_one_place():
    package = Path(kerasmed.__file__).parent
    counting = ("cpu_count", "sched_getaffinity", "process_cpu_count")
    counting_files = {
        path.name
        for path in package.rglob("*.py")
        if any(name in path.read_text(encoding="utf-8") for name in counting)
    }
    assert counting_files == {"hardware.py"}
