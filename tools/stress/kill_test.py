#!/usr/bin/env python3
"""Kills quantbridge at random moments and looks at what is left. Exit 1 on any violation.

  kill_test.py --binary quantbridge [--size 300MB] [--dense DIR] [--quantized DIR] [--kills 50] [--seed 1] [--work DIR] [--every-call] [--only NAME]

For `convert` (a ModelOpt NVFP4 checkpoint to compressed_tensors), `quantize` (a dense one to NVFP4) and `calibrate` (a small dense one by AWQ and GPTQ, on token ids), each in several shards:
  kill       SIGKILL at --kills random moments of the measured run time: OUT is absent, or whole and the same bytes as a clean run. Running again succeeds with the same bytes.
             Half of the times the second run is killed too before a third has to succeed.
  input      killed, then the input changes: what the killed run had finished must not be used.
  signal     SIGTERM, SIGINT: exit code 143 or 130 and no OUT, or 0 and a whole one.
  force      --force over an older OUT: OUT is the old one or the new one, whole, at every moment, and running again gives the new one.
  every call (--every-call, needs strace, on a small checkpoint) SIGKILL at the entry of each system call that changes the file system, one after the other, with and without --force.
"""
import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHANGING_CALLS = ("mkdir", "rename", "renameat2", "unlink", "unlinkat", "rmdir", "openat", "ftruncate", "fallocate", "fsync", "fdatasync", "write", "pwrite64", "copy_file_range", "sendfile")


def hashes(directory):
    """{relative name: SHA-256}; None when there is no such directory."""
    if not directory.is_dir():
        return None
    out = {}
    for p in sorted(directory.rglob("*")):
        if p.is_file():
            with open(p, "rb") as f:
                out[str(p.relative_to(directory))] = hashlib.file_digest(f, "sha256").hexdigest()
    return out


class Violation(Exception):
    pass


class Case:
    """One command line, the bytes that it must give, and how long it takes."""

    def __init__(self, name, binary, work, args, source):
        self.name, self.out, self.source = name, work / f"{name}-out", source
        self.partial, self.calibration = Path(str(self.out) + ".partial"), Path(str(self.out) + ".calibration")
        self.line = [binary, args[0], str(source), str(self.out), *args[1:]]
        self.other_line = self.line + ["--no-checksums"]  # other bytes of the same meaning: what --force replaces
        self.counts = {}
        self.clear()
        self.expected = self.clean(self.line)
        self.seconds = self.took
        self.clear()
        self.clean(self.line)
        self.seconds = min(self.seconds, self.took)
        self.clear()
        self.old = work / f"{name}-old"
        self.clean(self.other_line)
        self.out.rename(self.old)
        self.old_expected = hashes(self.old)

    def clear(self):
        for p in (self.out, self.partial, self.calibration):
            shutil.rmtree(p, ignore_errors=True)

    def count(self, what):
        self.counts[what] = self.counts.get(what, 0) + 1

    def clean(self, line):
        start = time.monotonic()
        done = subprocess.run(line, capture_output=True, text=True)
        self.took = time.monotonic() - start
        self.text = done.stderr
        if done.returncode != 0:
            raise Violation(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
        for p in (self.partial, self.calibration):
            if p.exists():
                raise Violation(f"{p.name} is left after a successful run")
        return hashes(self.out)

    def must_succeed(self, line):
        got = self.clean(line)
        if got != self.expected:
            raise Violation(f"running again gave other bytes: {differing(got, self.expected)}")
        if "calibration went on" in self.text:
            self.count("calibration went on")
        self.count("resumed" if "resumed" in self.text else "restarted" if "restarted" in self.text else "from the start")

    def start_and_kill(self, line, delay, number=signal.SIGKILL):
        """The exit code, or minus the signal that ended it."""
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        process.communicate()
        return process.returncode

    def check_left(self):
        left = hashes(self.out)
        if left is not None and left != self.expected:
            raise Violation(f"OUT is there, but not whole: {differing(left, self.expected)}")
        self.count("OUT absent" if left is None else "OUT whole")
        return left is not None

    def delay(self, rng):
        """Anywhere in the run time, one time in four near its ends, where directories are made and renamed."""
        u = rng.random()
        where = rng.uniform(0, 0.1) if u < 0.125 else rng.uniform(0.85, 1.1) if u < 0.25 else rng.uniform(0, 1.05)
        return self.seconds * where

    def restore_old(self):
        """Hard links: a tool that wrote into the old files instead of replacing them would be seen in self.old."""
        self.clear()
        shutil.copytree(self.old, self.out, copy_function=os.link)


def differing(a, b):
    a, b = a or {}, b or {}
    return ", ".join(sorted(n for n in a.keys() | b.keys() if a.get(n) != b.get(n))[:4]) or "nothing"


def kill_round(case, rng):
    case.clear()
    for _ in range(rng.choice((1, 1, 2))):
        case.start_and_kill(case.line, case.delay(rng))
        if case.check_left():
            again = subprocess.run(case.line, capture_output=True).returncode
            if again != 2 or hashes(case.out) != case.expected:
                raise Violation(f"OUT was whole; running again gave exit code {again} instead of 2, or changed it")
            return
    case.must_succeed(case.line)


def input_round(case, rng):
    """After a kill one tensor byte of the input changes; the next run must give what a run on the new input gives."""
    case.clear()
    case.start_and_kill(case.line, case.seconds * rng.uniform(0.5, 0.95))
    if case.out.exists():
        case.count("finished before the kill")
        return
    shard = sorted(case.source.glob("*.safetensors"))[0]
    with open(shard, "r+b") as f:
        size = f.seek(0, 2)
        f.seek(size - 64)
        old = f.read(1)
        f.seek(size - 64)
        f.write(bytes([old[0] ^ 1]))
    try:
        got = case.clean(case.line)
        case.clear()
        if got != case.clean(case.line):
            raise Violation("the input changed after a kill, and the output still has something of the old one")
        if got == case.expected:
            raise Violation("the changed byte of the input does not show in the output: this test shows nothing")
        case.count("new input, new output")
    finally:
        with open(shard, "r+b") as f:
            f.seek(size - 64)
            f.write(old)


def signal_round(case, rng):
    case.clear()
    number = rng.choice((signal.SIGTERM, signal.SIGINT))
    code = case.start_and_kill(case.line, case.seconds * rng.uniform(0.02, 0.98), number)
    if code == 0:
        if not case.check_left():
            raise Violation("exit code 0 without OUT")
        return
    if code == -number and not case.partial.exists() and not case.calibration.exists():
        case.count("before the handler was there")
    elif code != 128 + number:
        raise Violation(f"{number.name}: exit code {code} instead of {128 + number}")
    if case.out.exists():
        raise Violation(f"{number.name}: exit code {code}, but OUT is there")
    case.count(f"exit {128 + number}" + (", OUT.partial kept" if case.partial.exists() else ""))
    case.must_succeed(case.line)


def force_round(case, rng):
    case.restore_old()
    line = case.line + ["--force"]
    case.start_and_kill(line, case.delay(rng))
    left = hashes(case.out)
    if left not in (case.expected, case.old_expected):
        raise Violation(f"OUT is neither the old nor the new one: against the new one {differing(left, case.expected)}; against the old one {differing(left, case.old_expected)}")
    case.count("old" if left == case.old_expected else "new")
    case.must_succeed(line)
    if hashes(case.old) != case.old_expected:
        raise Violation("the replaced files were written into")


def every_call(case, force):
    """One run for each call that changes the file system, killed as it enters that call."""
    line = case.line + (["--force"] if force else []) + ["--threads", "1"]
    killed = 0
    for call in CHANGING_CALLS:
        number = 0  # strace counts each call of each thread on its own
        while True:
            number += 1
            case.restore_old() if force else case.clear()
            strace = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
            done = subprocess.run([*strace, *line], capture_output=True, text=True)
            if done.returncode == 0:
                break
            if done.returncode != -signal.SIGKILL:
                raise Violation(f"under strace: exit code {done.returncode}: {done.stderr[-200:]}")
            killed += 1
            left = hashes(case.out)
            if left not in ((case.expected, case.old_expected) if force else (None, case.expected)):
                raise Violation(f"{call} {number}: OUT is not whole: {differing(left, case.expected)}")
            if not force and left is not None:
                case.count("OUT whole")
                continue
            try:
                case.must_succeed(line)
            except Violation as v:
                raise Violation(f"killed at {call} {number}, then: {v}") from None
    return killed


def write_ids(path, rng, samples=8, tokens=64, vocabulary=500):
    """Token ids to calibrate on."""
    ids = [rng.randrange(vocabulary) for _ in range(samples * tokens)]
    header = json.dumps({"input_ids": {"dtype": "I32", "shape": [samples, tokens], "data_offsets": [0, 4 * len(ids)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack(f"<{len(ids)}i", *ids))
    return path


def synthesize(path, size, dialect, shard):
    subprocess.run([sys.executable, HERE.parent / "make_synthetic.py", path, "--size", size, "--dialect", dialect, "--shard-size", shard], check=True, stdout=subprocess.DEVNULL)
    return path


def rounds(case, name, count, function, rng, failures):
    case.counts = {}
    bad = 0
    for i in range(count):
        try:
            function(case, rng)
        except Violation as v:
            bad += 1
            print(f"VIOLATION {case.name} {name} {i}: {v}", flush=True)
    failures += [name] * bad
    print(f"{'FAIL' if bad else 'PASS'}  {case.name:8} {name:8} {count} rounds, {bad} violations; " + ", ".join(f"{n} {k}" for k, n in sorted(case.counts.items())), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--size", default="300MB")
    parser.add_argument("--dense", type=Path, help="quantize this checkpoint instead of a synthetic one (it is copied)")
    parser.add_argument("--quantized", type=Path, help="convert this ModelOpt checkpoint instead of a synthetic one (it is copied)")
    parser.add_argument("--max-shard-size", default="40MB")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--work", type=Path, help="directory for everything that is written (default: a temporary one)")
    parser.add_argument("--every-call", action="store_true")
    parser.add_argument("--only", default="", choices=("", "convert", "quantize", "calibrate"))
    args = parser.parse_args()
    binary = shutil.which(args.binary)
    if binary is None:
        parser.error(f"no program {args.binary}")
    rng = random.Random(args.seed)
    failures = []
    with tempfile.TemporaryDirectory(prefix="quantbridge-kill-", dir=args.work) as scratch:
        work = Path(scratch)
        size, shard = ("4MB", "1MB") if args.every_call else (args.size, args.max_shard_size)
        sources = {}
        for dialect, given in (("modelopt-nvfp4", args.quantized), ("dense", args.dense)):
            sources[dialect] = shutil.copytree(given, work / dialect) if given else synthesize(work / dialect, size, dialect, shard)
            (sources[dialect] / "tokenizer.json").write_text('{"version": "1.0"}\n')  # one of the files that are copied
        sources["small"] = synthesize(work / "small", "1MB" if args.every_call else "4MB", "dense", "1MB")
        tail = ["--max-shard-size", shard]
        by_data = ["quantize", "--scheme", "int4_g32", "--algorithm", "awq+gptq", "--to", "compressed_tensors", "--calibrate", str(write_ids(work / "ids.safetensors", rng))]
        for name, dialect, line in (("convert", "modelopt-nvfp4", ["convert", "--to", "compressed_tensors"]), ("quantize", "dense", ["quantize", "--scheme", "nvfp4"]), ("calibrate", "small", by_data)):
            if args.only not in ("", name):
                continue
            case = Case(name, binary, work, line + tail, sources[dialect])
            print(f"{name}: {len(case.expected)} files, {case.seconds:.2f} s undisturbed", flush=True)
            if args.every_call:
                for force in (False, True):
                    case.counts = {}
                    try:
                        print(f"PASS  {name} {'with' if force else 'without'} --force: killed at each of {every_call(case, force)} calls; "
                              + ", ".join(f"{n} {k}" for k, n in sorted(case.counts.items())), flush=True)
                    except Violation as v:
                        failures.append(name)
                        print(f"FAIL  {name} {'with' if force else 'without'} --force: {v}", flush=True)
                continue
            rounds(case, "kill", args.kills, kill_round, rng, failures)
            rounds(case, "force", args.kills, force_round, rng, failures)
            rounds(case, "signal", max(1, args.kills // 2), signal_round, rng, failures)
            rounds(case, "input", max(1, args.kills // 10), input_round, rng, failures)
            shutil.rmtree(case.old)
            case.clear()
    print(f"{len(failures)} violations")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
