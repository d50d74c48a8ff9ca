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


def wide(args):
    """The model in float32, which is what the producers' models run in."""
    out = args.cache / "float32"
    if not (out / "config.json").exists():
        accuracy.tool(args.binary, "convert", args.model, out, "--to", "dense", "--dtype", "f32")
    return out


def ours(args, case, ids, out, model):
    scheme, algorithm, dialect = CASES[case]
    accuracy.tool(args.binary, "quantize", model, out, "--scheme", scheme, "--algorithm", algorithm, "--to", dialect, "--calibrate", ids, "--threads", args.threads, "--force")


def producer(args, *words):
    done = subprocess.run([args.producers / "bin/python", PRODUCERS, *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise accuracy.Refused(done.stderr.strip()[-300:])
    return done.stdout


def theirs(args, case, ids, out, model):
    producer(args, case, model, ids, out, "--threads", args.threads)


def same_weights(args, case, ids):
    """Which part of the first layer's weights are the producer's."""
    with tempfile.TemporaryDirectory(prefix="quantbridge-calibrated-", dir=args.cache) as scratch:
        tmp = Path(scratch)
        try:
            producer(args, "--first", 1, args.model, tmp / "first")
            for name, make in (("ours", ours), ("theirs", theirs)):
                make(args, case, ids, tmp / name, tmp / "first")
                accuracy.tool(args.binary, "convert", tmp / name, tmp / f"{name}-dense", "--to", "dense", "--dtype", "f32")
            return {"same": float(producer(args, "--compare", tmp / "ours-dense", tmp / "theirs-dense").split()[-1])}
        except accuracy.Refused as e:
            return {"refused": str(e)}


def measure(args, make, case, ids, text_file):
    with tempfile.TemporaryDirectory(prefix="quantbridge-calibrated-", dir=args.cache) as scratch:
        out, start = Path(scratch) / "checkpoint", time.monotonic()
        try:
            make(args, case, ids, out, wide(args))
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
             "alone does is in [accuracy.md](accuracy.md). Same weights: of the model's first layer alone, which part of the numbers are the producer's. Most of the others are ties: where a group's largest weight",
             "falls half a step outside, as llm-compressor's scales have it, the last bit of a sum decides between two codes that are as far away. With these few tokens and four bits that is chance of some percent",
             "of perplexity either way, which grows from layer to layer.", "",
             "| producer | here | ours | producer's | difference | same weights |", "| --- | --- | --- | --- | --- | --- |"]
    missing, refused = [], []
    for case, (a, b, first) in rows:
        scheme, algorithm, dialect = CASES[case]
        equal = "-" if first is None or "same" not in first else f"{100 * first['same']:.2f} %"
        figures = [None if r is None else r.get("perplexity") for r in (a, b)]
        for who, r in (("ours", a), ("the producer's", b), ("the first layer", first)):
            if r is None:
                missing.append(f"{case} ({who})")
            elif "refused" in r:
                refused.append(f"{case} ({who}): {r['refused']}")
        d = accuracy.difference(*figures)
        shown = "-" if d is None else f"**{d:+.3f} %**" if d > BOUND else f"{d:+.3f} %"
        lines.append(f"| {case} | `--scheme {scheme} --algorithm {algorithm} --to {dialect}` | {accuracy.cell(figures[0])} | {accuracy.cell(figures[1])} | {shown} | {equal} |")
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
    parser.add_argument("--side", choices=["ours", "theirs", "first"], help="measure one side only")
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

    steps = {"ours": lambda case: measure(args, ours, case, ids, text_file), "theirs": lambda case: measure(args, theirs, case, ids, text_file), "first": lambda case: same_weights(args, case, ids)}
    wanted = [(who, case) for case in CASES if fnmatch.fnmatchcase(case, args.cases) for who in steps]
    missing = [w for w in wanted if key(*w) not in cache and not args.known and args.side in (None, w[0])]
    for done, (who, case) in enumerate(missing, 1):
        cache[key(who, case)] = steps[who](case)
        cache_file.with_suffix(".new").write_text(json.dumps(cache, indent=1))
        shutil.move(cache_file.with_suffix(".new"), cache_file)
        print(f"{done} of {len(missing)} {case}, {who}: {cache[key(who, case)]}", file=sys.stderr, flush=True)
    out = page(args.model.name, shape, [(case, [cache.get(key(who, case)) for who in steps]) for case in CASES])
    if args.write:
        args.write.write_text(out)
    else:
        print(out, end="")


if __name__ == "__main__":
    main()
