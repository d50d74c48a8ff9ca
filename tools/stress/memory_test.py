#!/usr/bin/env python3
"""Whether memory stays below the budget, whatever the checkpoint's size. Exit 1 when a run fails or uses more.

  memory_test.py --binary quantbridge [--sizes 2GB,6GB] [--budget 128MiB] [--data-limit 262144] [--threads 1,4] [--work DIR]

For each size a synthetic checkpoint is written, then `convert` (ModelOpt NVFP4 to compressed_tensors), `quantize` (dense to NVFP4, rotated too, and to FP8 blocks) and `convert --to dense` run
under `ulimit -d` (KiB of private memory, heap and thread stacks included): more is refused by the kernel, and the run fails. Printed: exit code, the largest RssAnon that
the program itself reports (peak_anonymous_bytes), time. The limit for RssAnon is the budget plus 32 MiB for tables, stacks and the C library. Everything written is
deleted; a size needs at most 5 times as much disk (NVFP4 to BF16), for the large one twice.
"""
import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from make_synthetic import parse_size  # noqa: E402

RUNS = [("modelopt-nvfp4", ["convert", "--to", "compressed_tensors"]), ("modelopt-nvfp4", ["convert", "--to", "dense", "--dtype", "bf16"]),
        ("dense", ["quantize", "--scheme", "nvfp4"]), ("dense", ["quantize", "--scheme", "nvfp4", "--algorithm", "hadamard"]),
        ("dense", ["quantize", "--scheme", "fp8_128x128:fp8_g128", "--to", "compressed_tensors"])]
LARGE = parse_size("3GB")


def run(binary, source, out, line, budget, limit_kib, threads):
    """(exit code, peak RssAnon, seconds, what it said)."""
    command = [binary, line[0], str(source), str(out), *line[1:], "--memory-budget", budget, "--threads", str(threads), "--json"]
    start = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit_kib * 1024, limit_kib * 1024)))
    text, err = process.communicate()
    seconds = time.monotonic() - start
    try:
        report = json.loads(text)
    except ValueError:
        return process.returncode, 0, seconds, f"no JSON; {err[-200:]}"
    words = "; ".join(f"{p['code']}: {p['found']}" for p in report["problems"])
    return process.returncode, report.get("peak_anonymous_bytes", 0), seconds, words


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--sizes", default="2GB,6GB")
    parser.add_argument("--budget", default="128MiB")
    parser.add_argument("--data-limit", type=int, default=262144, metavar="KIB")
    parser.add_argument("--threads", default="1,4")
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    binary = shutil.which(args.binary)
    if binary is None:
        parser.error(f"no program {args.binary}")
    allowed = parse_size(args.budget) + (32 << 20)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="quantbridge-memory-", dir=args.work) as scratch:
        for size in args.sizes.split(","):
            for dialect in dict.fromkeys(d for d, _ in RUNS):
                source, out = Path(scratch) / "source", Path(scratch) / "out"
                need, free = (5 if parse_size(size) <= LARGE else 2) * parse_size(size), shutil.disk_usage(scratch).free
                if free < need + (1 << 30):
                    print(f"SKIP  {size} {dialect}: {need >> 20} MiB of disk are needed, {free >> 20} are free")
                    continue
                subprocess.run([sys.executable, HERE.parent / "make_synthetic.py", source, "--size", size, "--dialect", dialect, "--shard-size", "2GB"], check=True,
                               stdout=subprocess.DEVNULL)
                for d, line in RUNS:
                    # Dequantized NVFP4 is 3.5 times as large: for the large size that shows nothing more.
                    if d != dialect or ("dense" in line and parse_size(size) > LARGE):
                        continue
                    for threads in args.threads.split(","):
                        code, peak, seconds, words = run(binary, source, out, line, args.budget, args.data_limit, threads)
                        good = code == 0 and 0 < peak <= allowed and not Path(str(out) + ".partial").exists()
                        failures += not good
                        print(f"{'PASS' if good else 'FAIL'}  {size} {' '.join(line)}, {threads} threads: exit {code}, RssAnon {peak / 2**20:.1f} MiB of {allowed >> 20}, {seconds:.1f} s {words}", flush=True)
                        shutil.rmtree(out, ignore_errors=True)
                shutil.rmtree(source)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
