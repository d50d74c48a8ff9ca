#!/usr/bin/env python3
"""Kills one process of a shared conversion at a random moment, and looks at what is left. Exit 1 on any violation.

  kill_rank_test.py --binary quantbridge [--ranks 3] [--size 300MB] [--kills 20] [--seed 1] [--work DIR] [--launcher "mpirun --oversubscribe"]

`mpirun -n RANKS quantbridge convert` and `quantize`, each in several shards. Each round one rank, or the launcher, gets SIGKILL, or a rank SIGSTOP first so that it is slow to
die. Whatever happens, all ranks must end (Open MPI's own launcher waits now and then for ever for ranks that are gone: that is counted), and OUT is absent, or whole and the same bytes as one process writes. Then the job is run again, by as
many processes or by one: it succeeds with the same bytes, resumed, restarted or from the start.
"""
import argparse
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from kill_test import Case, Violation, rounds, synthesize  # noqa: E402

# As root, as in containers, Open MPI wants to be told twice.
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
PATIENCE = 60  # seconds in which a job must end whose rank was killed


def processes_with(program, word):
    """Ids of the processes that run this program with that word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else []
        except OSError:
            continue
        if line and line[0] == program.encode() and str(word).encode() in line:
            found.append(int(entry.name))
    return sorted(found)


class SharedCase(Case):
    """A case whose line several processes run."""

    def __init__(self, name, binary, work, args, source, launcher, ranks):
        super().__init__(name, binary, work, args, source)
        shutil.rmtree(self.old)
        self.alone, self.line = self.line, [*launcher, "-n", str(ranks), *self.line]
        self.mark = (binary, self.out)
        self.clear()
        if self.clean(self.line) != self.expected:
            raise Violation("several processes write other bytes than one")
        self.seconds = self.took
        self.clear()

    def mine(self):
        return processes_with(*self.mark)


def send(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def state(pid):
    """In the kernel's words: 'S (sleeping)', and where."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return status.split("State:", 1)[1].split("\n", 1)[0].strip() + " in " + Path(f"/proc/{pid}/wchan").read_text()
    except (OSError, IndexError):
        return "gone"


def kill_round(case, rng):
    case.clear()
    launcher = subprocess.Popen(case.line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    time.sleep(case.delay(rng))
    ranks = case.mine()
    how = rng.choice(("rank", "rank", "slow", "launcher"))
    if launcher.poll() is None:
        if how == "launcher" or not ranks:
            launcher.kill()
            how = "launcher"
        else:
            if how == "slow":  # another one cannot answer for a while
                send(rng.choice(ranks), signal.SIGSTOP)
            send(rng.choice(ranks), signal.SIGKILL)
        case.count(f"{how} killed")
    else:
        case.count("finished before the kill")
    try:
        launcher.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        left = case.mine()
        states = ", ".join(f"{pid} {state(pid)}" for pid in (launcher.pid, *left))
        launcher.kill()
        launcher.wait()
        for pid in left:
            send(pid, signal.SIGKILL)
        if left:
            raise Violation(f"the job did not end ({how} killed of {ranks}); still there: {states}")
        case.count("launcher hung, its ranks gone")
    deadline = time.monotonic() + PATIENCE
    while case.mine() and time.monotonic() < deadline:
        time.sleep(0.05)
    if case.mine():
        for pid in case.mine():
            send(pid, signal.SIGKILL)
        raise Violation("the job has ended, and ranks of it have not")
    if case.check_left():
        return
    case.must_succeed(rng.choice((case.line, case.alone)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--size", default="300MB")
    parser.add_argument("--max-shard-size", default="40MB")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--launcher", default="mpirun --oversubscribe")
    parser.add_argument("--work", type=Path, help="directory for everything that is written (default: a temporary one)")
    args = parser.parse_args()
    binary = shutil.which(args.binary)
    if binary is None:
        parser.error(f"no program {args.binary}")
    os.environ.update(ENVIRONMENT)
    rng = random.Random(args.seed)
    failures = []
    with tempfile.TemporaryDirectory(prefix="quantbridge-kill-", dir=args.work) as scratch:
        work = Path(scratch)
        tail = ["--max-shard-size", args.max_shard_size]
        for name, dialect, line in (("convert", "modelopt-nvfp4", ["convert", "--to", "compressed_tensors"]), ("quantize", "dense", ["quantize", "--scheme", "nvfp4"])):
            source = synthesize(work / dialect, args.size, dialect, args.max_shard_size)
            case = SharedCase(name, binary, work, line + tail, source, shlex.split(args.launcher), args.ranks)
            print(f"{name}: {len(case.expected)} files, {args.ranks} ranks, {case.seconds:.2f} s undisturbed", flush=True)
            rounds(case, "ranks", args.kills, kill_round, rng, failures)
            case.clear()
            shutil.rmtree(source)
    print(f"{len(failures)} violations")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
