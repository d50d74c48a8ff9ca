#!/usr/bin/env python3
"""Writes docs/support.md: what the program does with every algorithm of a set of producers' checkpoints, found by doing it.

    tools/support.py --fixtures DIR [--binary build/dev/quantbridge] [--write docs/support.md]

DIR holds <dialect>/<checkpoint>/ with expected.json (SHA-256 of every dequantized matrix) and expected.logits. A row is an algorithm: the producer's word and the
schemes that it was read as. A cell is a count of checkpoints for which the step did what it should, of those that were tried; nothing is copied from a plan.
"""
import argparse
import collections
import hashlib
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors_io

DIALECTS = ["modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"]
LOGITS_BOUND = 1e-5  # of the largest logit: float32 sums in another order


def run(binary, *args):
    return subprocess.run([binary, *map(str, args)], capture_output=True, text=True)


def tensors(directory):
    out = {}
    for name, (_, shape, file, offset, size) in safetensors_io.read_checkpoint(directory).items():
        with open(file, "rb") as f:
            f.seek(offset)
            out[name] = (shape, f.read(size))
    return out


def floats(path, name):
    _, _, offset, size = safetensors_io.read_header(path)[name]
    with open(path, "rb") as f:
        f.seek(offset)
        return struct.unpack(f"<{size // 4}f", f.read(size))


def values_right(binary, checkpoint, scratch):
    """Whether every matrix of expected.json has its hash after dequantization."""
    want = json.loads((checkpoint / "expected.json").read_text())["weights"]
    out = scratch / "dense"
    if run(binary, "convert", checkpoint, out, "--to", "dense", "--stored", "--dtype", "f32", "--force", "--quiet").returncode:
        return False
    got = tensors(out)
    return all(name in got and hashlib.sha256(got[name][1]).hexdigest() == w["sha256"] for name, w in want.items())


def logits_right(binary, checkpoint, scratch):
    """The reference kernels against the logits of the producer's model, weight-only and in float32."""
    expected = checkpoint / "expected.logits"
    ids, out = scratch / "ids.safetensors", scratch / "out.safetensors"
    ids.write_bytes(expected.read_bytes())
    if run(binary, "eval", checkpoint, "--logits", out, "--ids", ids, "--reference", "--activations", "f32", "--quiet").returncode:
        return False
    want, got = floats(expected, "logits_weight_only"), floats(out, "logits")
    return max(abs(a - b) for a, b in zip(want, got)) <= LOGITS_BOUND * max(map(abs, want))


def has_fast_kernels(binary, checkpoint):
    """Whether a kernel other than the reference takes every linear of the checkpoint on this machine."""
    explained = run(binary, "explain", checkpoint, "--json")
    if explained.returncode:
        return False
    return all(layer["winner"] != "linear_ref" for layer in json.loads(explained.stdout)["layers"])


def makeable(binary, schemes, base):
    """Whether `quantize` makes the weights of every scheme, under the numerics of some producer."""
    for scheme in schemes:
        weights = scheme.split("+")[0].split(":")[0]
        tries = [run(binary, "quantize", base, "/nonexistent", "--scheme", weights, "--to", to, "--numerics", numerics, "--dry-run", "--quiet").returncode
                 for to in ("compressed_tensors", "modelopt") for numerics in ("modelopt", "llm-compressor")]
        if all(tries):
            return False
    return True


def measure(binary, checkpoint, base, scratch):
    inspected = run(binary, "inspect", checkpoint, "--json")
    about = json.loads(inspected.stdout) if inspected.stdout.startswith("{") else {}
    schemes = sorted(s["scheme"] for s in about.get("schemes", []) if s["scheme"] not in ("bf16", "f16", "f32"))
    kv = about.get("kv_cache")
    words = ", ".join(schemes + ([kv["scheme"]] if kv else []))
    read = about.get("ok", False) and run(binary, "check", checkpoint).returncode == 0
    result = {"read": read, "algorithm": about.get("quant_algo") or "-", "schemes": words}
    if not read:
        problems = [p for p in about.get("problems", []) if p["severity"] == "error"]
        result["refused"] = f"{problems[0]['code']}: {problems[0]['found']}" if problems else "refused"
        return result
    result["values"] = values_right(binary, checkpoint, scratch)
    result["to"] = [d for d in DIALECTS + ["dense"]
                    if run(binary, "convert", checkpoint, scratch / d, "--to", d, "--dry-run", "--quiet").returncode == 0]
    result["made"] = bool(schemes) and makeable(binary, schemes, base)
    if (checkpoint / "expected.logits").exists():
        result["logits"] = logits_right(binary, checkpoint, scratch)
        result["fast"] = has_fast_kernels(binary, checkpoint)
    return result


def table(results):
    by_row = collections.OrderedDict()
    for dialect, name, r in results:
        if r["read"]:
            by_row.setdefault((dialect, r["algorithm"], r["schemes"]), []).append((name, r))
    lines = ["| dialect | algorithm | schemes | read, values right | can be made | logits right (reference) | fast kernels | can be written as |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]

    def count(rows, key):
        tried = [r[key] for _, r in rows if key in r]
        return f"{sum(tried)} of {len(tried)}" if tried else "-"

    for (dialect, algorithm, schemes), rows in by_row.items():
        common = [d for d in DIALECTS + ["dense"] if all(d in r["to"] for _, r in rows)]
        lines.append(f"| {dialect} | {algorithm} | {schemes} | {count(rows, 'values')} | {'yes' if all(r['made'] for _, r in rows) else 'no'} | "
                     f"{count(rows, 'logits')} | {count(rows, 'fast')} | {', '.join(common)} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", required=True, type=Path)
    parser.add_argument("--binary", default="build/dev/quantbridge")
    parser.add_argument("--base", default="base/llama_small", help="a plain checkpoint under DIR, to try what can be made")
    parser.add_argument("--write", type=Path, help="file to write; without it the page goes to stdout")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for dialect in DIALECTS:
            for checkpoint in sorted(p.parent for p in (args.fixtures / dialect).glob("*/expected.json")):
                print(f"{dialect}/{checkpoint.name}", file=sys.stderr)
                results.append((dialect, checkpoint.name, measure(args.binary, checkpoint, args.fixtures / args.base, Path(scratch))))
    refused = [f"| {dialect}/{name} | {r['refused']} |" for dialect, name, r in results if not r["read"]]
    page = ["# What was tried", "",
            "Made by `tools/support.py` from checkpoints that the producers' own tools wrote: nobody edits this page. A row is an algorithm as its producer calls it and",
            "the schemes (docs/schemes.md) that it was read as; numbers count checkpoints. *Values right*: the SHA-256 of every dequantized matrix is the expected one.",
            "*Logits right*: the reference kernels agree with the producer's model to 1e-5 of the largest logit, weight-only. *Fast kernels*: none of its linears needs",
            "the reference on the machine that this was made on. *Can be made*: `quantize` has a recipe for its weights (activation scales that need calibration apart).",
            "Whether the producers' libraries read back what is written is measured by tools/conformance (docs/conformance.md).", ""]
    page += table(results) + ["", "Refused by name:", "", "| checkpoint | why |", "| --- | --- |"] + refused
    text = "\n".join(page) + "\n"
    if args.write:
        args.write.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
