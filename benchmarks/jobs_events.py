"""What becomes of a job when things die? Runs the cluster tests and prints their table of events and outcomes.

    python -m benchmarks.jobs_events

Needs Slurm's daemons and root for the rows of Slurm, and the cluster extra for those of Dask.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import RESULTS, machine

FILES = ("test_local_run.py", "test_slurm.py", "test_dask_cluster.py")


def main() -> int:
    root = RESULTS.parent.parent
    with tempfile.TemporaryDirectory() as folder:
        events = Path(folder) / "events"
        events.touch()
        tests = [str(root / "tests" / "jobs" / name) for name in FILES]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *tests]
        code = subprocess.run(
            command, cwd=root, env={**os.environ, "WSISEG_EVENTS": str(events)}, check=False
        ).returncode
        rows = [json.loads(line) for line in events.read_text().splitlines()]
    sys.path.insert(0, str(root))
    from tests.jobs.conftest import events_table

    facts = ", ".join(f"{key} {value}" for key, value in machine(("distributed", "dask-jobqueue")).items())
    text = f"# What becomes of a job when things die\n\n{facts}\n\n{events_table(rows)}\n"
    (RESULTS / "jobs_events.md").write_text(text)
    print(text)
    return code


if __name__ == "__main__":
    sys.exit(main())
