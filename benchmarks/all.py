"""Every benchmark, one after the other, each in a process of its own; results go to benchmarks/results.

python -m benchmarks.all                    # ten to twenty minutes on two cores
python -m benchmarks.all pipeline memory    # some of them
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time

from benchmarks import tree

# In the order of what matters most. Scripts that are not there, or lack what they need, are told and passed over.
SCRIPTS = (
    "kernels",
    "reader",
    "pipeline",
    "memory",
    "notebook_baseline",
    "startup",
    "presence",
    "scale_out",
    "jobs_overhead",
    "checkpoints",
)


def main() -> int:
    failed = []
    for name in sys.argv[1:] or SCRIPTS:
        if importlib.util.find_spec(f"benchmarks.{name}") is None:
            print(f"== {name}: not there", flush=True)
            continue
        print(f"== {name}", flush=True)
        began = time.perf_counter()
        code = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], cwd=tree.ROOT, env=tree.environment()
        ).returncode
        print(
            f"== {name}: {'done' if code == 0 else f'exit code {code}'} in {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        failed += [name] if code else []
    if failed:
        print("failed:", ", ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
