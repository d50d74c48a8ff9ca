#!/usr/bin/env python3
"""Writes docs/calibrated.md: a real model quantized by each algorithm that goes by data, here and by its producer, on the same token ids; both evaluated here.

    tools/calibrated.py --binary build/release/quantbridge --model build/models/SmolLM2-135M-Instruct --producers VENV --cache DIR [--cases PATTERN] [--write docs/calibrated.md]

VENV has llmcompressor 0.14 and nvidia-modelopt 0.47, both for the CPU. What evaluates is the same program for both, so that only the weights differ. Every figure is kept in
DIR/calibrated.json as soon as it is known: running again goes on where it stopped (remove the file for another binary). --known measures nothing. Progress goes to stderr.
"""
import argparse
import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import accuracy

PRODUCERS = accuracy.ROOT / "tools/conformance/producers.py"
BOUND = 0.5  # percent that ours may be worse
# The producer's name for it (producers.py), and what makes it here.
CASES = {
    "llm-compressor GPTQ": ("int4_g64", "gptq", "compressed_tensors"),
    "llm-compressor AWQ": ("int4_g64", "awq", "compressed_tensors"),
    "llm-compressor SmoothQuant": ("int8_channel:int8_token", "smoothquant", "compressed_tensors"),
    "ModelOpt INT4_AWQ": ("int4_g64", "awq", "modelopt"),
    "ModelOpt NVFP4_AWQ_LITE": ("nvfp4:nvfp4", "awq", "modelopt"),
    "ModelOpt NVFP4_AWQ_CLIP": ("nvfp4:nvfp4", "awq_clip", "modelopt"),
    "ModelOpt NVFP4_AWQ_FULL": ("nvfp4:nvfp4", "awq+awq_clip", "modelopt"),
}


def ours(args, case, ids, out):
    scheme, algorithm, dialect = CASES[case]
    wide = args.cache / "float32"  # what the producers get, too
    if not (wide / "config.json").exists():
        accuracy.tool(args.binary, "convert", args.model, wide, "--to", "dense", "--dtype", "f32")
    accuracy.tool(args.binary, "quantize", wide, out, "--scheme", scheme, "--algorithm", algorithm, "--to", dialect, "--calibrate", ids, "--threads", args.threads, "--force")


def theirs(args, case, ids, out):
    done = subprocess.run([args.producers / "bin/python", PRODUCERS, case, args.model, ids, out, "--threads", str(args.threads)], capture_output=True, text=True)
    if done.returncode:
        raise accuracy.Refused(done.stderr.strip()[-300:])


def measure(args, make, case, ids, text_file):
    with tempfile.TemporaryDirectory(prefix="quantbridge-calibrated-", dir=args.cache) as scratch:
        out, start = Path(scratch) / "checkpoint", time.monotonic()
        try:
            make(args, case, ids, out)
            seconds = time.monotonic() - start
            report = accuracy.tool(args.binary, "eval", out, "--text", text_file, "--ctx", accuracy.CTX, "--threads", args.threads)
        except accuracy.Refused as e:
            return {"refused": str(e)}
        return {"perplexity": report["perplexity"], "tokens": report["tokens"], "bytes": accuracy.size_of(out), "seconds": round(seconds)}


def page(model, shape, rows):
    tokens = max((r["tokens"] for _, both in rows for r in both if r and "tokens" in r), default=0)
    lines = ["# Weights made from data", "", "Made by `tools/calibrated.py`: nobody edits this page.",
             f"{model}, quantized by each algorithm of [quantization.md](quantization.md#algorithms) and by its producer (llm-compressor 0.14, ModelOpt 0.47, on the CPU), of the same float32 weights, on the same {shape[0]}",
             f"samples of {shape[1]} token ids: passages of Python's own documentation. Groups of 64 columns, NVFP4's of 16. Both are evaluated by `quantbridge eval --ctx {accuracy.CTX}` on all regular files in",
             f"{accuracy.TEXTS}: {tokens:,} tokens, in windows that stand alone. So only the weights differ. Less is better; bold: more than {BOUND} % worse than the producer's. What rounding",
             "alone does is in [accuracy.md](accuracy.md).", "",
             "| producer | here | ours | producer's | difference |", "| --- | --- | --- | --- | --- |"]
    missing, refused = [], []
    for case, (a, b) in rows:
        scheme, algorithm, dialect = CASES[case]
        figures = [None if r is None else r.get("perplexity") for r in (a, b)]
        for who, r in (("ours", a), ("the producer's", b)):
            if r is None:
                missing.append(f"{case} ({who})")
            elif "refused" in r:
                refused.append(f"{case} ({who}): {r['refused']}")
        d = accuracy.difference(*figures)
        shown = "-" if d is None else f"**{d:+.3f} %**" if d > BOUND else f"{d:+.3f} %"
        lines.append(f"| {case} | `--scheme {scheme} --algorithm {algorithm} --to {dialect}` | {accuracy.cell(figures[0])} | {accuracy.cell(figures[1])} | {shown} |")
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    lines += [f"\n* {r}" for r in refused]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--producers", required=True, type=Path, help="the virtual environment that has them")
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--cases", default="*", help="shell pattern")
    parser.add_argument("--side", choices=["ours", "theirs"], help="measure one side only")
    parser.add_argument("--known", action="store_true", help="measure nothing: the page of the figures in --cache, which says what is missing")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()

    args.cache.mkdir(parents=True, exist_ok=True)
    ids = args.cache / "ids.safetensors"
    if not ids.exists():
        subprocess.run([args.producers / "bin/python", PRODUCERS, "--ids", args.model, ids], check=True, stderr=subprocess.DEVNULL)
    data = ids.read_bytes()
    shape = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["input_ids"]["shape"]
    text = accuracy.text_of(1.0)
    stamp = hashlib.sha256(data + text).hexdigest()[:12]
    cache_file = args.cache / "calibrated.json"
    cache = json.loads(cache_file.read_text()) if cache_file.exists() else {}
    text_file = args.cache / "text.txt"
    text_file.write_bytes(text)

    def key(who, case):
        return f"{args.model.name}:{case}:{who}:{stamp}"

    wanted = [(who, make, case) for case in CASES if fnmatch.fnmatchcase(case, args.cases) for who, make in (("ours", ours), ("theirs", theirs))]
    missing = [w for w in wanted if key(w[0], w[2]) not in cache and not args.known and args.side in (None, w[0])]
    for done, (who, make, case) in enumerate(missing, 1):
        cache[key(who, case)] = measure(args, make, case, ids, text_file)
        cache_file.with_suffix(".new").write_text(json.dumps(cache, indent=1))
        shutil.move(cache_file.with_suffix(".new"), cache_file)
        print(f"{done} of {len(missing)} {case}, {who}: {cache[key(who, case)]}", file=sys.stderr, flush=True)
    out = page(args.model.name, shape, [(case, [cache.get(key(who, case)) for who in ("ours", "theirs")]) for case in CASES])
    if args.write:
        args.write.write_text(out)
    else:
        print(out, end="")


if __name__ == "__main__":
    main()
