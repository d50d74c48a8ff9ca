#!/usr/bin/env python3
"""How long a checkpoint takes to be quantized to disk without data, here and by llm-compressor (model_free_ptq, as many workers as threads), in turns, and how much memory each takes.

  quantize_speed.py BINARY MODEL SCRATCH --producers VENV [--schemes fp8_channel int8_channel nvfp4] [--threads 2] [--repeats 3]

Beside them `cp` of the model, with a sync at the end. The input comes from the page cache; time ends when what was written is on the disk. Memory: of the process at most (ru_maxrss), of
mapped files too. VENV has llmcompressor 0.14. Prints a table in Markdown.
"""
import argparse
import os
import shutil
import statistics
import sys
import time
from pathlib import Path

PRESETS = {"fp8_channel": "FP8_DYNAMIC", "int8_channel": "W8A8", "nvfp4": "NVFP4A16", "int4_g128": "W4A16"}
ACTIVATIONS = {"fp8_channel": "fp8_channel:fp8_token", "int8_channel": "int8_channel:int8_token"}
FREE = """
import sys
from llmcompressor import model_free_ptq
model_free_ptq(model_stub=sys.argv[1], save_directory=sys.argv[2], scheme=sys.argv[3], ignore=["lm_head"], max_workers=int(sys.argv[4]), device="cpu")
"""


def once(words, out, model):
    """Seconds, and bytes of memory at most."""
    shutil.rmtree(out, ignore_errors=True)
    for file in model.glob("*.safetensors"):
        with open(file, "rb") as f:
            while f.read(1 << 24):
                pass
    os.sync()
    begin = time.monotonic()
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.execvp(str(words[0]), [str(w) for w in words])
    _, status, usage = os.wait4(pid, 0)
    os.sync()
    seconds = time.monotonic() - begin
    if status:
        sys.exit(f"{' '.join(map(str, words))}: status {status}")
    return seconds, usage.ru_maxrss * 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", type=Path)
    p.add_argument("model", type=Path)
    p.add_argument("scratch", type=Path)
    p.add_argument("--producers", type=Path, required=True)
    p.add_argument("--schemes", nargs="*", default=["fp8_channel", "int8_channel", "nvfp4"], choices=PRESETS)
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--repeats", type=int, default=3)
    args = p.parse_args()
    args.scratch.mkdir(parents=True, exist_ok=True)
    out, size = args.scratch / "out", sum(f.stat().st_size for f in args.model.glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB, {args.threads} threads, medians of {args.repeats}\n\n| scheme | ours, s | memory | llm-compressor, s | memory | it takes | cp, s |\n| --- | --- | --- | --- | --- | --- | --- |")
    for scheme in args.schemes:
        ways = {"ours": [args.binary, "quantize", args.model, out, "--scheme", ACTIVATIONS.get(scheme, scheme), "--to", "compressed_tensors", "--threads", args.threads, "--quiet"],
                "theirs": [args.producers / "bin/python", "-c", FREE, args.model, out, PRESETS[scheme], args.threads], "cp": ["cp", "-r", args.model, out]}
        seen = {name: [] for name in ways}
        for _ in range(args.repeats):
            for name, words in ways.items():
                seen[name].append(once(words, out, args.model))
        seconds = {name: statistics.median(s for s, _ in runs) for name, runs in seen.items()}
        memory = {name: max(m for _, m in runs) / 1e6 for name, runs in seen.items()}
        ratio = statistics.median(b[0] / a[0] for a, b in zip(seen["ours"], seen["theirs"]))
        print(f"| {scheme} | {seconds['ours']:.1f} | {memory['ours']:.0f} MB | {seconds['theirs']:.1f} | {memory['theirs']:.0f} MB | {ratio:.1f} times as long | {seconds['cp']:.1f} |", flush=True)
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
