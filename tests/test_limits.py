"""Limits are the smallest of what cgroups and Slurm grant, in any mix of cgroup versions."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsiseg import limits

GIB = 1 << 30


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = {"proc/meminfo": "MemTotal:       65536000 kB\nMemFree: 1 kB\n"}


def test_nothing_limits_gives_the_hosts_memory_and_says_so(tmp_path: Path) -> None:
    limit = limits.memory_limit(tree(tmp_path, MEMINFO), {})
    assert limit.value == 65536000 * 1024
    assert "nothing limits" in limit.source


def test_cgroup_v2_parent_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MEMINFO
        | {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/b/memory.max": "max\n",
            "sys/fs/cgroup/a/memory.max": f"{2 * GIB}\n",
            "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
            "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
        },
    )
    assert limits.memory_limit(root, {}).value == 2 * GIB
    assert limits.core_limit(root, {}).value == 1
    assert "sys/fs/cgroup/a" in limits.memory_limit(root, {}).source


def test_cgroup_v1_with_a_path_of_the_host_only(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MEMINFO
        | {
            "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert limits.memory_limit(root, {}).value == 3 * GIB
    assert limits.core_limit(root, {}).value == 1


def test_cgroup_v1_no_limit_values_are_ignored(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        MEMINFO
        | {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        },
    )
    assert limits.memory_limit(root, {}).value == 65536000 * 1024
    assert limits.core_limit(root, {}).source == "CPU affinity"


@pytest.mark.parametrize(
    ("env", "mib"),
    [
        ({"SLURM_MEM_PER_NODE": "4000"}, 4000),
        ({"SLURM_MEM_PER_NODE": "4000", "SLURM_STEP_TASKS_PER_NODE": "2(x3)"}, 2000),
        ({"SLURM_MEM_PER_CPU": "500", "SLURM_CPUS_PER_TASK": "3"}, 1500),
        ({"SLURM_MEM_PER_GPU": "700", "SLURM_JOB_GPUS": "0,1"}, 1400),
        ({"SLURM_MEM_PER_NODE": "0"}, 64000),
    ],
)
def test_slurm_memory(tmp_path: Path, env: dict[str, str], mib: int) -> None:
    assert limits.memory_limit(tree(tmp_path, MEMINFO), env).value == mib << 20


def test_slurm_cores(tmp_path: Path) -> None:
    assert limits.core_limit(tmp_path, {"SLURM_CPUS_PER_TASK": "1", "SLURM_CPUS_ON_NODE": "20"}).value == 1


def test_this_machine_answers() -> None:
    assert limits.available_cores() >= 1
    assert limits.available_memory() > 1 << 20
