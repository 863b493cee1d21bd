"""Cores and memory that were granted to this process: from cgroups and the Slurm allocation, never the host alone.

`os.cpu_count()` and the host's RAM are what a machine has; a container or a job step may use a part of it. Here the
smallest of every limit that is visible counts, and each answer says where it comes from. The host's RAM is the
answer only when nothing limits the process. Imports nothing of the package.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

UNLIMITED = 1 << 60  # cgroup v1 writes "no limit" as 2^63 rounded down to a page


@dataclass(frozen=True)
class Limit:
    """A number and where it comes from, for the line that shows it."""

    value: int
    source: str


def available_cores() -> int:
    """Number of cores this process may use, at least 1."""
    return core_limit().value


def available_memory() -> int:
    """Bytes of memory this process tree may use."""
    return memory_limit().value


def available_gpus(environ: Mapping[str, str] | None = None) -> list[str]:
    """NVIDIA GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; [] without a driver.

    The variable, which Slurm and Kubernetes set, goes before what the machine has.
    """
    env = os.environ if environ is None else environ
    if "CUDA_VISIBLE_DEVICES" in env:
        return [
            name.strip() for name in env["CUDA_VISIBLE_DEVICES"].split(",") if name.strip() not in ("", "-1")
        ]
    try:
        listing = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, check=True, timeout=30
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"^GPU (\d+):", listing, re.MULTILINE)


def core_limit(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> Limit:
    """The smallest of: CPU affinity, cgroup quota (rounded up), Slurm's cores of the task.

    Args:
        root: where /proc and /sys are looked up.
        environ: the environment that Slurm's variables are read from; None means `os.environ`.
    """
    env = os.environ if environ is None else environ
    found = [Limit(len(os.sched_getaffinity(0)), "CPU affinity")]
    for directory in _cgroups("cpu", root):
        quota = _cpu_quota(directory)
        if quota is not None:
            found.append(Limit(max(1, math.ceil(quota)), f"cgroup {directory}"))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        cores = _integer(env.get(name))
        if cores:
            found.append(Limit(cores, name))
            break
    return min(found, key=lambda limit: limit.value)


def memory_limit(root: Path = Path("/"), environ: Mapping[str, str] | None = None) -> Limit:
    """The smallest of: cgroup limits (own and every parent's), the Slurm allocation's share of this task, physical RAM."""
    env = os.environ if environ is None else environ
    found = []
    for directory in _cgroups("memory", root):
        for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
            value = _integer(_read(directory / name))
            if value and value < UNLIMITED:
                found.append(Limit(value, f"cgroup {directory}"))
    slurm = _slurm_memory(env)
    if slurm:
        found.append(slurm)
    total = re.search(r"^MemTotal:\s+(\d+) kB", _read(root / "proc/meminfo") or "", re.MULTILINE)
    if total:
        found.append(Limit(int(total[1]) * 1024, "physical memory; nothing limits this process"))
    if not found:
        found.append(Limit(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "physical memory"))
    return min(found, key=lambda limit: limit.value)


def _slurm_memory(env: Mapping[str, str]) -> Limit | None:
    """Slurm's grant in bytes: its variables are in MiB, and 0 means the whole node."""
    per_cpu, per_gpu = _integer(env.get("SLURM_MEM_PER_CPU")), _integer(env.get("SLURM_MEM_PER_GPU"))
    per_node = _integer(env.get("SLURM_MEM_PER_NODE"))
    if per_cpu:
        cores = _integer(env.get("SLURM_CPUS_PER_TASK")) or _integer(env.get("SLURM_CPUS_ON_NODE")) or 1
        return Limit((per_cpu * cores) << 20, "SLURM_MEM_PER_CPU")
    if per_gpu:
        gpus = (
            len([g for g in env.get("SLURM_STEP_GPUS", env.get("SLURM_JOB_GPUS", "")).split(",") if g]) or 1
        )
        return Limit((per_gpu * gpus) << 20, "SLURM_MEM_PER_GPU")
    if per_node:
        # "4(x2),1": several tasks of a step share the node's grant; a batch script has no step
        tasks = _integer(re.split(r"[(,]", env.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0]) or 1
        return Limit((per_node << 20) // tasks, "SLURM_MEM_PER_NODE")
    return None


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Directories of this process for a controller, own first, then every parent up to the mount.

    Inside a container the path in /proc/self/cgroup may be the host's, of which only a tail (or nothing but the mount
    itself) is visible; directories that do not exist are passed over.
    """
    mount = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if names == "":
            bases = [mount, mount / "unified"]
        elif controller in names.split(","):
            bases = [mount / names, mount / controller]
        else:
            continue
        parts = [p for p in path.split("/") if p and p != ".."]
        for base in bases:
            for count in range(len(parts), -1, -1):
                directory = base.joinpath(*parts[:count])
                if directory.is_dir():
                    yield directory


def _cpu_quota(directory: Path) -> float | None:
    """Cores that a cgroup's bandwidth limit allows, or None."""
    both = (_read(directory / "cpu.max") or "").split()
    if len(both) == 2:
        quota, period = _integer(both[0]), _integer(both[1])
    else:
        quota, period = (
            _integer(_read(directory / "cpu.cfs_quota_us")),
            _integer(_read(directory / "cpu.cfs_period_us")),
        )
    return quota / period if quota and period else None


def _integer(text: str | None) -> int | None:
    """A non-negative integer, or None for "max", "-1", nothing and anything else."""
    text = (text or "").strip()
    return int(text) if text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
