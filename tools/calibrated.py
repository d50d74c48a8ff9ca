#!/usr/bin/env python3
"""Writes docs/calibrated.md: a real model quantized by each algorithm that goes by data, here and by its producer, on the same token ids; both evaluated here.

    tools/calibrated.py --binary build/release/quantbridge --model build/models/SmolLM2-135M-Instruct --producers VENV --cache DIR [--cases PATTERN] [--sets N] [--write docs/calibrated.md]

VENV has llmcompressor 0.14 and nvidia-modelopt 0.47, both for the CPU. What evaluates is the same program for both, so that only the weights differ. --sets measures with N sets of samples, each
of other passages: what one set says is chance of some percent. Every figure is kept in DIR/calibrated.json as soon as it is known: running again goes on where it stopped (remove the file
for another binary). --known measures nothing. Progress goes to stderr.
"""
import argparse
import fnmatch
import hashlib
import json
import math
import os
import shutil
import statistics
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


def mean(values):
    """Of ratios and perplexities: exp of the mean logarithm, and its standard error in percent where there are several."""
    logs = [math.log(v) for v in values]
    error = 100 * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else None
    return math.exp(statistics.fmean(logs)), error


def row(case, both, first):
    """A line of the table. `both`: [(ours, the producer's)] by set, None where it is not known."""
    scheme, algorithm, dialect = CASES[case]
    pairs = [(a["perplexity"], b["perplexity"]) for a, b in both if a and b and "perplexity" in a and "perplexity" in b]
    cells = ["-"] * 3
    if pairs:
        ratio, error = mean([a / b for a, b in pairs])
        worse = 100 * (ratio - 1)
        shown = f"{worse:+.2f} %"
        cells = [f"{mean(side)[0]:.3f}" for side in zip(*pairs)] + [(f"**{shown}**" if worse > BOUND else shown) + (f" ± {error:.2f}" if error is not None else "")]
    equal = f"{100 * first['same']:.2f} %" if first and "same" in first else "-"
    each = ", ".join(f"{100 * (a / b - 1):+.2f}" for a, b in pairs)
    return f"| {case} | `--scheme {scheme} --algorithm {algorithm} --to {dialect}` | {' | '.join(cells)} | {each or '-'} | {equal} |"


def page(model, shape, rows):
    """`rows`: [(case, [(ours, the producer's)] by set, the first layer)]."""
    known = [(case, who, r) for case, both, first in rows for who, r in [*((w, r) for pair in both for w, r in zip(("ours", "the producer's"), pair)), ("the first layer", first)]]
    tokens = max((r["tokens"] for _, _, r in known if r and "tokens" in r), default=0)
    lines = ["# Weights made from data", "", "Made by `tools/calibrated.py`: nobody edits this page.",
             f"{model}, quantized by each algorithm of [quantization.md](quantization.md#algorithms) and by its producer (llm-compressor 0.14, ModelOpt 0.47, on the CPU), of the same float32 weights, on the same {shape[0]}",
             f"samples of {shape[1]} token ids: passages of Python's own documentation. Groups of 64 columns, NVFP4's of 16. Both are evaluated by `quantbridge eval --ctx {accuracy.CTX}` on all regular files in",
             f"{accuracy.TEXTS}: {tokens:,} tokens, in windows that stand alone. So only the weights differ. Less is better; bold: more than {BOUND} % worse than the producer's. What rounding",
             "alone does is in [accuracy.md](accuracy.md). With several sets of samples, perplexities and differences are geometric means, ± is the standard error of the mean difference, and the differences of",
             "each set stand beside it. Same weights: of the model's first layer alone, which part of the numbers are the producer's. Most of the others are ties: where a group's largest weight falls half a",
             "step outside, as llm-compressor's scales have it, the last bit of a sum decides between two codes that are as far away. With these few tokens and four bits that is chance of some percent of",
             "perplexity either way, which grows from layer to layer.", "",
             "| producer | here | ours | producer's | difference | each set, % | same weights |", "| --- | --- | --- | --- | --- | --- | --- |", *(row(*r) for r in rows)]
    missing = list(dict.fromkeys(f"{case} ({who})" for case, both, first in rows for who, r in (("ours", both[0][0]), ("the producer's", both[0][1]), ("the first layer", first)) if r is None))
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    lines += [f"\n* {case} ({who}): {r['refused']}" for case, who, r in known if r and "refused" in r]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--producers", required=True, type=Path, help="the virtual environment that has them")
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--cases", default="*", help="shell pattern")
    parser.add_argument("--sets", type=int, default=1, help="sets of samples")
    parser.add_argument("--side", choices=["ours", "theirs", "first"], help="measure one side only")
    parser.add_argument("--known", action="store_true", help="measure nothing: the page of the figures in --cache, which says what is missing")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()

    args.cache.mkdir(parents=True, exist_ok=True)
    text = accuracy.text_of(1.0)
    text_file = args.cache / "text.txt"
    text_file.write_bytes(text)
    ids, stamps = [], []
    for number in range(args.sets):
        ids.append(args.cache / f"ids-{number}.safetensors")
        if not ids[-1].exists():
            subprocess.run([args.producers / "bin/python", PRODUCERS, "--ids", str(number), args.model, ids[-1]], check=True, stderr=subprocess.DEVNULL)
        stamps.append(hashlib.sha256(ids[-1].read_bytes() + text).hexdigest()[:12])
    data = ids[0].read_bytes()
    shape = json.loads(data[8:8 + int.from_bytes(data[:8], "little")])["input_ids"]["shape"]
    cache_file = args.cache / "calibrated.json"
    cache = json.loads(cache_file.read_text()) if cache_file.exists() else {}

    def key(number, case, who):
        return f"{args.model.name}:{case}:{who}:{stamps[number]}"

    steps = {"ours": lambda case, n: measure(args, ours, case, ids[n], text_file), "theirs": lambda case, n: measure(args, theirs, case, ids[n], text_file), "first": lambda case, n: same_weights(args, case, ids[n])}
    wanted = [(n, case, who) for n in range(args.sets) for case in CASES if fnmatch.fnmatchcase(case, args.cases) for who in steps if n == 0 or who != "first"]
    missing = [w for w in wanted if key(*w) not in cache and not args.known and args.side in (None, w[2])]
    for done, (number, case, who) in enumerate(missing, 1):
        cache[key(number, case, who)] = steps[who](case, number)
        cache_file.with_suffix(".new").write_text(json.dumps(cache, indent=1))
        shutil.move(cache_file.with_suffix(".new"), cache_file)
        print(f"{done} of {len(missing)} {case}, {who}, set {number}: {cache[key(number, case, who)]}", file=sys.stderr, flush=True)
    known = [(case, [tuple(cache.get(key(n, case, who)) for who in ("ours", "theirs")) for n in range(args.sets)], cache.get(key(0, case, "first"))) for case in CASES]
    out = page(args.model.name, shape, known)
    if args.write:
        args.write.write_text(out)
    else:
        print(out, end="")


if __name__ == "__main__":
    main()
