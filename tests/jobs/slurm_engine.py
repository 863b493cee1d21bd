"""A real Slurm on loopback for tests: munge, slurmctld and a few slurmd, in one folder, ended by their own pid files.

Root only (munge and slurmd want it). No systemd, no cgroups, no accounting. What the configuration is for:

- `cred_expire=5`: a requeued job starts after seconds, not after two minutes.
- `NoInAddrAny`: every daemon listens on 127.0.0.1 only.
- `config_overrides`: nodes may have more cores than the machine; without it they are INVAL.
- a gres file must be a device node: a twin of /dev/null stands in for a GPU.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged")

CONF = """\
ClusterName=wsiseg
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
AuthType=auth/munge
AuthInfo=socket={dir}/munge/sock,cred_expire=5
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/state/%n
SlurmctldPidFile={dir}/run/slurmctld.pid
SlurmdPidFile={dir}/run/slurmd-%n.pid
SlurmctldLogFile={dir}/log/slurmctld.log
SlurmdLogFile={dir}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
SlurmdParameters=config_overrides
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MailProg=/bin/true
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=100000,bf_interval=1
SlurmdTimeout=5
SlurmctldTimeout=10
MessageTimeout=5
InactiveLimit=0
KillWait=5
MinJobAge=300
MaxArraySize=1001
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=2
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """Why there can be no Slurm here, or ""."""
    absent = [
        name for name in PROGRAMS if shutil.which(name) is None and not os.path.exists(f"/usr/sbin/{name}")
    ]
    if absent:
        return f"no Slurm here ({', '.join(absent)} missing): apt-get install slurmctld slurmd slurm-client munge"
    return "" if os.geteuid() == 0 else "a Slurm of one's own needs root (munged and slurmd)"


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


class Slurm:
    """A running Slurm.

    Attributes:
        env: what a client needs in its environment.
        nodes: names of the nodes; each has two "GPUs".
    """

    def __init__(
        self, folder: Path, nodes: int, wait_for: Callable[[Callable[[], object], str], None]
    ) -> None:
        self.dir, self._wait_for = folder, wait_for
        self.nodes = [f"wsi{i + 1}" for i in range(nodes)]
        self.env = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        for part in ("state", "log", "run", "munge"):
            (folder / part).mkdir(parents=True, mode=0o755)
        key = folder / "munge/key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        controller_port, *ports = free_ports(nodes + 1)
        host = socket.gethostname().split(".")[0]
        lines, gres = [], []
        for name, port in zip(self.nodes, ports, strict=True):
            for gpu in range(2):
                os.mknod(folder / f"run/{name}.{gpu}", 0o020666, os.makedev(1, 3))
            lines.append(
                f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
            )
            gres.append(f"NodeName={name} Name=gpu File={folder}/run/{name}.[0-1]")
        (folder / "slurm.conf").write_text(
            CONF.format(dir=folder, host=host, controller_port=controller_port, nodes="\n".join(lines))
        )
        (folder / "gres.conf").write_text("\n".join(gres) + "\n")
        m = folder / "munge"
        self._run(
            "munged", "--force", "--num-threads=2", f"--key-file={m}/key", f"--socket={m}/sock",
            f"--pid-file={m}/pid", f"--log-file={m}/log", f"--seed-file={m}/seed",
        )  # fmt: skip
        self.start_controller()
        for name in self.nodes:
            (folder / "state" / name).mkdir()
            self.start_node(name)
        self.wait_idle()

    # -- daemons

    def start_controller(self) -> None:
        self._run("slurmctld", "-f", self.env["SLURM_CONF"])
        self._wait_for(lambda: "UP" in self.ask("scontrol", "ping"), "the controller")

    def kill_controller(self) -> None:
        os.kill(self.pid("slurmctld"), signal.SIGKILL)
        self._wait_for(lambda: not running(self.pid("slurmctld")), "the controller's end")

    def has_saved(self, text: str) -> bool:
        """Whether the saved state of the controller knows a job with this text in it."""
        file = self.dir / "state/job_state"
        return file.exists() and text.encode() in file.read_bytes()

    def start_node(self, name: str) -> None:
        self._run("slurmd", "-N", name, "-f", self.env["SLURM_CONF"])

    def kill_node(self, name: str) -> None:
        """As death does it: slurmd first, then its steps, then the programs. Another order looks like a failed job."""
        os.kill(self.pid(f"slurmd-{name}"), signal.SIGKILL)
        steps = [
            pid
            for pid, environ in processes()
            if f"SLURMD_NODENAME={name}" in environ and str(self.dir) in environ
        ]
        stepds = [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self._is_step_of(pid, name)
        ]
        for pid in [*stepds, *steps]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _is_step_of(self, pid: int, name: str) -> bool:
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            if not line.startswith("slurmstepd"):
                return False
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
            spool = any(
                f"{self.dir}/state/{name}" in os.readlink(f"/proc/{pid}/fd/{fd}")
                for fd in os.listdir(f"/proc/{pid}/fd")
            )
            ours = (f"SLURMD_NODENAME={name}", str(self.dir))
            inside = any(all(text in environ_of(int(child)) for text in ours) for child in children)
        except (OSError, ValueError):
            return False
        return spool or inside

    def wait_idle(self) -> None:
        self._wait_for(
            lambda: (
                self.ask("sinfo", "-h", "-N", "-p", "gpu", "-o", "%T").split().count("idle")
                == len(self.nodes)
            ),
            "idle nodes",
        )

    def stop(self) -> None:
        """Cancels all jobs and ends the daemons, by the pids in their own files."""
        self.ask("scancel", "--full", "-u", "root")
        for state in ("PENDING", "RUNNING", "SUSPENDED"):
            self.ask("scancel", "-t", state, "-u", "root")
        with suppress(BaseException):
            self._wait_for(lambda: not self.ask("squeue", "-h"), "the last job's end")
        pids = [
            pid
            for pid in (
                *(self.pid(f"slurmd-{n}") for n in self.nodes),
                self.pid("slurmctld"),
                self.pid("munge"),
            )
            if pid
        ]
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._wait_for(lambda: not any(map(running, pids)), "the daemons' end")

    def pid(self, daemon: str) -> int:
        file = self.dir / ("munge/pid" if daemon == "munge" else f"run/{daemon}.pid")
        try:
            return int(file.read_text())
        except (OSError, ValueError):
            return 0

    # -- clients

    def _run(self, *command: str) -> str:
        return subprocess.run(
            command, env=self.env | {"LANG": "C"}, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    def ask(self, *command: str) -> str:
        """What a client says, or "" when the controller does not answer."""
        try:
            return subprocess.run(
                command, env=self.env, check=False, capture_output=True, text=True, timeout=60
            ).stdout
        except subprocess.TimeoutExpired:
            return ""

    def state(self, job: str) -> str:
        """The state of a job, or of the first element of an array."""
        words = self.ask("scontrol", "-o", "show", "job", job).split()
        return next((word.partition("=")[2] for word in words if word.startswith("JobState=")), "")

    def log(self) -> str:
        return (self.dir / "log/slurmctld.log").read_text(errors="replace")


def running(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return pid > 0 and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def environ_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().replace(b"\0", b"\n").decode(errors="replace")
    except OSError:
        return ""


def processes() -> list[tuple[int, str]]:
    """(pid, environment) of every process with one."""
    return [
        (pid, environ)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if (environ := environ_of(pid))
    ]
