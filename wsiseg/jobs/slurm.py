"""Slurm: a job array with an element per GPU that shares out a plan, and a merge job that runs after it in any case.

Chunks are cut largest first and shrink towards the end. An element begins with its own and goes on with the next that
nobody has begun (`plan`), so that the model is loaded once per GPU, and fast and slow GPUs end together. An element that
gets its GPU late, or never, leaves nothing undone. Nothing is asked of an accounting database.

What ends a job, and who starts it again:

    preempted, node dead, controller restarted    Slurm requeues the element
    time limit          USR1 comes 90 s before; the program stops in an orderly way, the script requeues the element
    program killed      the script sees 128 + signal and requeues the element (Slurm does not)
    cancelled           nobody; submitting again submits what is missing
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from wsiseg.errors import UsageError, WsisegError
from wsiseg.jobs.folder import JobFolder
from wsiseg.jobs.manifest import Manifest, Slide
from wsiseg.jobs.merge import merge
from wsiseg.jobs.plan import active_keys, claims
from wsiseg.jobs.pool import Event
from wsiseg.jobs.records import Record
from wsiseg.jobs.request import JobRequest, Outcome, plan_event, prepare, reusable
from wsiseg.jobs.shards import PLAN_VARIABLE, guided_chunks, plan_bytes
from wsiseg.jobs.store import is_url
from wsiseg.jobs.work import Summary

FOLDER = "slurm"
RESOURCES = (
    "memory",
    "threads",
    "workers",
    "apart",
    "device_memory",
)  # of a worker's payload; no byte depends on them
OVERHEAD_SECONDS = (
    2.0  # from the last slide of a chunk to the first of the next: nothing is read ahead across it
)
BYTES_PER_SECOND = 50e6  # of slide files in one job, until records tell
GPU_OPTIONS = ("--gres", "--gpus", "-G", "--gpus-per-node", "--gpus-per-task", "--gpus-per-socket")
ARRAY_ONLY = (*GPU_OPTIONS, "--array", "-a", "--cpus-per-gpu", "--mem-per-gpu", "--gpu-bind", "--gpu-freq")

ARRAY = """\
#!/bin/bash
#SBATCH --job-name=wsiseg
#SBATCH --array=0-{last}
#SBATCH --output={folder}/logs/%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
#SBATCH --signal=B:USR1@90
{exports}
cd {cwd} || exit 2

# Signals reach this script; the program gets them from here.
caught='' reason=''
heed() {{ caught=1 reason=$1; kill -s "$1" "$child" 2>/dev/null; }}
trap 'heed USR1' USR1
trap 'heed TERM' TERM
{command} --shard auto &
child=$!
[ -z "$reason" ] || kill -s "$reason" "$child"   # a signal that came before there was a child
code=127
while :; do
  caught=''
  wait "$child"; now=$?
  # a signal ends `wait` early; a second wait for a child that has ended gives 127
  [ "$now" = 127 ] || code=$now
  [ -n "$caught" ] || break
done

requeue() {{
  if [ "${{SLURM_RESTART_COUNT:-0}}" -ge "$1" ]; then
    echo "wsiseg: started ${{SLURM_RESTART_COUNT}} times again already; giving up" >&2
    exit "$code"
  fi
  scontrol requeue "$SLURM_JOB_ID"
  exit "$code"
}}
case $reason:$code in
  USR1:75) requeue 1000 ;;   # the time limit is near
  TERM:*) # cancelled or preempted: only the preempted one goes on, and Slurm does not requeue it if it has ended by itself
    if scontrol show job "$SLURM_JOB_ID" | grep -Eq 'PreemptTime=[0-9]'; then requeue 1000; fi ;;
  *:129|*:13[0-9]|*:14[0-9]|*:15[0-9]) requeue 10 ;;   # killed by a signal: Slurm calls that a failure of the job
esac
exit "$code"
"""

MERGE = """\
#!/bin/bash
#SBATCH --job-name=wsiseg-merge
#SBATCH --output={folder}/logs/merge.log
#SBATCH --open-mode=append
#SBATCH --requeue
{exports}
cd {cwd} || exit 2
{command}
"""


def submit(request: JobRequest, on_event: Callable[[Event], None]) -> Outcome:
    """Writes manifest, plan and scripts, and submits the array and its merge job; or merges, when nothing is missing.

    Raises:
        UsageError: no Slurm here, records behind a URL, sbatch refuses.
    """
    if not request.dry_run and shutil.which("sbatch") is None:
        raise UsageError(
            "--cluster slurm: there is no sbatch on this machine; run it on a login node of the cluster"
        )
    if is_url(request.folder.url):
        raise UsageError(
            "--cluster slurm needs its records in a folder that all nodes see; give --records DIR"
        )
    folder, manifest = prepare(request)
    folder.claim_settings({k: v for k, v in request.spec.payload_of(0).items() if k not in RESOURCES})
    digest = folder.claim(request.identity) if request.identity is not None else folder.digest() or ""
    folder.write_manifest(manifest)
    found = reusable(request, folder, manifest.slides, digest)
    active = active_slides(folder)
    rest = [slide for slide in manifest.slides if slide.key not in found]
    new = [slide for slide in rest if slide.key not in active]
    on_event(plan_event(len(manifest.slides), rest))
    summary = Summary(len(manifest.slides), skipped=len(found))
    if not rest:
        return Outcome(summary, merge(folder, request.out, request.partial, manifest))
    if not new:
        ids = ", ".join(sorted(set(active.values())))
        on_event(
            {
                "type": "note",
                "text": f"nothing to submit: the {len(rest)} slides that are missing are in array {ids}",
            }
        )
        return Outcome(summary, submitted=True)
    script, merge_script, chunks, elements = write_submission(
        request, folder, manifest, new, list(found.values())
    )
    extra = shlex.split(request.sbatch)
    array = ["sbatch", "--parsable", *(() if names_gpu(extra) else ("--gres=gpu:1",)), *extra, str(script)]
    after = ["sbatch", "--parsable", *without(extra, ARRAY_ONLY)]
    if request.dry_run:
        for line in (
            f"{len(new)} slides in {chunks} chunks; nothing was submitted. To submit:",
            f"  array=$({shlex.join(array)})",
            f"  {shlex.join(after)} --dependency=afterany:$array {shlex.quote(str(merge_script))}",
        ):
            on_event({"type": "note", "text": line})
        return Outcome(summary, submitted=True)
    array_id = sbatch(array)
    (script.parent / "array.id").write_text(array_id + "\n")
    merge_id = sbatch([*after, f"--dependency=afterany:{array_id}", str(merge_script)])
    (script.parent / "merge.id").write_text(merge_id + "\n")
    for line in (
        f"submitted array {array_id}: {len(new)} slides in {chunks} chunks, shared out among {elements} jobs; merge job {merge_id}",
        f"watch:  squeue -j {array_id},{merge_id}    wsiseg status {shlex.quote(request.out)}",
        f"logs:   {script.parent}/logs",
    ):
        on_event({"type": "note", "text": line})
    return Outcome(summary, submitted=True)


def write_submission(
    request: JobRequest,
    folder: JobFolder,
    manifest: Manifest,
    slides: Sequence[Slide],
    found: Sequence[Record],
) -> tuple[Path, Path, int, int]:
    """Writes plan and scripts of one submission; returns (array script, merge script, chunks, elements of the array)."""
    overhead = (
        request.overhead if request.overhead is not None else OVERHEAD_SECONDS * bytes_per_second(found)
    )
    indices = guided_chunks([float(max(slide.size, 1)) for slide in slides], request.gpus, overhead)
    elements = min(len(indices), request.gpus, max_array_size())
    chunks = [[slides[i] for i in part] for part in indices]
    here = _next_folder(Path(folder.url) / FOLDER)
    (here / "logs").mkdir()
    plan = f"{FOLDER}/{here.name}/plan.json"
    folder.store.write(plan, plan_bytes(chunks))
    cwd = shlex.quote(os.getcwd())
    path = os.environ.get("PYTHONPATH")
    # some clusters give jobs an empty environment
    exports = f"export PYTHONPATH={shlex.quote(path)}\n" if path else ""
    array, after = here / "array.sh", here / "merge.sh"
    array.write_text(
        ARRAY.format(
            last=elements - 1,
            folder=here,
            exports=f"{exports}export {PLAN_VARIABLE}={shlex.quote(plan)}",
            cwd=cwd,
            command=shlex.join(request.command),
        )
    )
    command = [sys.executable, "-m", "wsiseg", "merge", folder.url, "-o", request.out]
    if request.partial:
        command.append("--partial")
    after.write_text(MERGE.format(folder=here, exports=exports, cwd=cwd, command=shlex.join(command)))
    return array, after, len(chunks), elements


def bytes_per_second(found: Sequence[Record]) -> float:
    """Bytes of slides a job does in a second, from its records when there are enough of them."""
    done = [record for record in found if record.status == "done" and record.seconds > 0]
    if len(done) < 5:
        return BYTES_PER_SECOND
    return sum(record.file_size for record in done) / sum(record.seconds for record in done)


def active_slides(folder: JobFolder) -> dict[str, str]:
    """Keys of slides that an earlier submission still has waiting or running -> the array's id."""
    active: dict[str, str] = {}
    for file in sorted((Path(folder.url) / FOLDER).glob("*/array.id")):
        array_id = file.read_text().strip()
        listing = subprocess.run(
            ["squeue", "-h", "-r", "-j", array_id, "-o", "%K"], capture_output=True, text=True, check=False
        )
        # an id that Slurm has forgotten is an error, and means the same as an empty list
        elements = (
            [int(word) for word in listing.stdout.split() if word.isdigit()]
            if listing.returncode == 0
            else []
        )
        if elements:
            chunks = json.loads((file.parent / "plan.json").read_bytes())
            owners = claims(folder.store, f"{FOLDER}/{file.parent.name}")
            active |= dict.fromkeys(active_keys(chunks, owners, set(elements)), array_id)
    return active


def max_array_size() -> int:
    """The largest array of this cluster; 1000 when it does not tell."""
    try:
        config = subprocess.run(
            ["scontrol", "show", "config"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return 1000
    match = re.search(r"MaxArraySize\s*=\s*(\d+)", config)
    return max(1, int(match[1]) - 1) if match else 1000


def sbatch(command: Sequence[str]) -> str:
    """Submits; returns the job's id.

    Raises:
        WsisegError: with what sbatch says.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        hint = (
            '; without GPUs give --sbatch "--gres=none"'
            if "--gres=gpu:1" in command and "resource" in said
            else ""
        )
        raise WsisegError(f"sbatch refused: {said}{hint} (command: {shlex.join(command)})")
    return done.stdout.strip().split(";")[0]


def names_gpu(options: Sequence[str]) -> bool:
    """Whether the person's own options say which GPUs they want."""
    return any(word.split("=")[0] in GPU_OPTIONS for word in options)


def without(options: Sequence[str], names: Sequence[str]) -> list[str]:
    """Options of sbatch without those named, and without their values."""
    kept, skip = [], False
    for word in options:
        if skip and not word.startswith("-"):
            skip = False
            continue
        name, equals, _ = word.partition("=")
        skip = name in names and not equals
        if name not in names:
            kept.append(word)
    return kept


def _next_folder(parent: Path) -> Path:
    """A new folder 0001, 0002, ... that nobody else has."""
    number = len(list(parent.glob("[0-9]*"))) if parent.is_dir() else 0
    while True:
        number += 1
        folder = parent / f"{number:04d}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            continue
