#!/usr/bin/env python3
"""Kills `quantbridge quantize` (SIGKILL) at random moments, with calibration and without, and says whether anything that looks whole was left that is not, and whether the run that goes on gives the
same bytes as one that nobody stopped. Exit 1 where one of these does not hold.

  killed.py BINARY MODEL SCRATCH [--kills 50] [--seed 1] [--jobs PATTERN]

MODEL: of plain weights, one that runs; a few MB are enough (make_synthetic.py toy --size 3MB --vocab 512). Each job is run once undisturbed, for its bytes and its time; then killed again and again, each time after a random part of
that time, until all its kills are done; one more run goes on to the end.
"""
import argparse
import fnmatch
import hashlib
import random
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path

from safetensors_io import header

JOBS = {
    "rounded": ["--scheme", "nvfp4"],
    "static": ["--scheme", "fp8_tensor:fp8_tensor_static"],
    "gptq": ["--scheme", "int4_g64", "--algorithm", "gptq", "--to", "compressed_tensors"],
    "awq": ["--scheme", "int4_g64", "--algorithm", "awq"],
    "auto": ["--auto", "--bits", "6", "--schemes", "nvfp4,int8_channel", "--auto-tokens", "256", "--auto-points", "0"],
}
CALIBRATED = ("static", "gptq", "awq", "auto")


def digest(directory):
    h = hashlib.sha256()
    for file in sorted(p for p in directory.rglob("*") if p.is_file()):
        h.update(str(file.relative_to(directory)).encode() + file.read_bytes())
    return h.hexdigest()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", type=Path)
    p.add_argument("model", type=Path)
    p.add_argument("scratch", type=Path)
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--jobs", default="*", help="shell pattern")
    args = p.parse_args()
    rng = random.Random(args.seed)
    args.scratch.mkdir(parents=True, exist_ok=True)
    ids = args.scratch / "ids.safetensors"
    ids.write_bytes(header([("input_ids", "I64", (8, 128))]) + struct.pack("<1024q", *(rng.randrange(500) for _ in range(1024))))
    failed = 0
    for name, words in JOBS.items():
        if not fnmatch.fnmatchcase(name, args.jobs):
            continue
        place = args.scratch / name
        shutil.rmtree(place, ignore_errors=True)
        (place / "whole").mkdir(parents=True)
        (place / "killed").mkdir()

        def command(where):
            return [args.binary, "quantize", args.model, place / where / "out", *words, *(["--calibrate", ids] if name in CALIBRATED else []), "--threads", "2", "--quiet"]

        begin = time.monotonic()
        done = subprocess.run(command("whole"), capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{name}: {done.stderr}")
        seconds, wanted = time.monotonic() - begin, digest(place / "whole" / "out")
        out, wrong, finished = place / "killed" / "out", 0, 0
        for _ in range(args.kills):
            run = subprocess.Popen(command("killed"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                run.wait(rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                run.kill()
                run.wait()
            if out.exists():  # whole, or it would not be there: made by a run that ended before the kill, or was killed after
                finished += 1
                wrong += digest(out) != wanted
                shutil.rmtree(place / "killed")
                (place / "killed").mkdir()
        begin = time.monotonic()
        last = subprocess.run(command("killed"), capture_output=True, text=True)
        same = last.returncode == 0 and digest(out) == wanted
        left = sorted(f.name for f in (place / "killed").iterdir())
        usual = sorted(f.name for f in (place / "whole").iterdir())
        failed += wrong > 0 or not same or left != usual
        print(f"{name}: {args.kills} kills of a job of {seconds:.2f} s, {finished} of them after OUT was there, {wrong} of these not whole; the run after them: "
              f"{'the same bytes' if same else 'OTHER BYTES ' + last.stderr[-300:]} in {time.monotonic() - begin:.2f} s, beside OUT: {[f for f in left if f != 'out']}", flush=True)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
