#!/usr/bin/env python3
"""Writes docs/support.md: what the program does with every algorithm of a set of producers' checkpoints, found by doing it.

    tools/support.py --fixtures DIR [--binary build/dev/quantbridge] [--conformance FILE] [--write docs/support.md]

DIR holds <dialect>/<checkpoint>/ with expected.json (SHA-256 of every dequantized matrix) and expected.logits. A row is an algorithm: the producer's word and the
schemes that it was read as. A cell is a count of checkpoints for which the step did what it should, of those that were tried; nothing is copied from a plan.
FILE is what tools/conformance/run printed over the same checkpoints: its verdicts say what the producers' libraries read back.
"""
import argparse
import collections
import hashlib
import json
import re
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import safetensors_io

DIALECTS = ["modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq"]
LOGITS_BOUND = 1e-5  # of the largest logit: float32 sums in another order
FAST_BOUND = 2e-2  # besides, keys and values are rounded to bfloat16 on their way into the cache (2^-9 each, in every layer); the kernels' own tests have derived bounds
# The cases of tools/conformance in which a library reads what was written for it: of each dialect the first that was tried. ModelOpt exports checkpoints and
# loads none; where its dequantization cannot be asked, compressed-tensors reads them once they are converted.
READ_BACK = {
    "modelopt": [("modelopt-values/modelopt/", "ModelOpt"), ("modelopt-ct-modelopt-ct/", "compressed-tensors, converted"), ("modelopt-ct/", "compressed-tensors, converted")],
    "compressed_tensors": [("ct-ct/", "compressed-tensors")],
    "hf_fp8": [("hf-hf/", "transformers")],
    "hf_mxfp4": [("hf_mxfp4-hf_mxfp4/", "transformers")],
    "gptq": [("gptq-values/gptq/", "gptqmodel"), ("gptq-ct/", "compressed-tensors, converted")],
    "awq": [("awq-values/awq/", "AutoAWQ"), ("awq-ct/", "compressed-tensors, converted")],
}


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


def logits_right(binary, checkpoint, scratch, bound, *kernels):
    """These kernels against the logits of the producer's model, weight-only and in float32."""
    expected = checkpoint / "expected.logits"
    ids, out = scratch / "ids.safetensors", scratch / "out.safetensors"
    ids.write_bytes(expected.read_bytes())
    if run(binary, "eval", checkpoint, "--logits", out, "--ids", ids, "--activations", "f32", "--quiet", *kernels).returncode:
        return False
    want, got = floats(expected, "logits_weight_only"), floats(out, "logits")
    return max(abs(a - b) for a, b in zip(want, got)) <= bound * max(map(abs, want))


def known_hosts(binary):
    """The named processors that `explain` plans for."""
    lines = run(binary, "explain", "--host", "list").stdout.splitlines()[1:]
    return [line.split()[0] for line in lines if not line.startswith("this machine")]


def has_fast_kernels(binary, checkpoint, hosts):
    """Whether kernels other than the reference take every linear of the checkpoint, for one token and for many, on every known processor."""
    for host in hosts:
        for tokens in (1, 512):
            explained = run(binary, "explain", checkpoint, "--host", host, "--tokens", tokens, "--json")
            if explained.returncode or any(layer["winner"] == "linear_ref" for layer in json.loads(explained.stdout)["layers"]):
                return False
    return True


def read_verdicts(path):
    """{case: (verdict, figures or reason)} of what tools/conformance/run printed."""
    lines = (re.match(r"(PASS|REFUSED|SKIP|FAIL) +(\S+)  (.*)", line) for line in path.read_text().splitlines())
    return {m[2]: (m[1], m[3]) for m in lines if m}


def read_back(verdicts, dialect, name):
    """(library, verdict, reason) of the first case in which a library was asked; the last reason for which it was not; None without any case."""
    last = None
    for prefix, library in READ_BACK[dialect]:
        verdict, reason = verdicts.get(prefix + name, (None, None))
        if verdict in ("PASS", "FAIL"):
            return library, verdict, reason
        if verdict:
            last = (library, verdict, reason)
    return last


def makeable(binary, schemes, base):
    """Whether `quantize` makes the weights of every scheme, under the numerics of some producer."""
    for scheme in schemes:
        weights = scheme.split("+")[0].split(":")[0]
        tries = [run(binary, "quantize", base, "/nonexistent", "--scheme", weights, "--to", to, "--numerics", numerics, "--dry-run", "--quiet").returncode
                 for to in ("compressed_tensors", "modelopt") for numerics in ("modelopt", "llm-compressor")]
        if all(tries):
            return False
    return True


def measure(binary, checkpoint, base, hosts, scratch):
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
        result["reference"] = logits_right(binary, checkpoint, scratch, LOGITS_BOUND, "--reference")
        result["fast"] = has_fast_kernels(binary, checkpoint, hosts) and logits_right(binary, checkpoint, scratch, FAST_BOUND, "--deny", "linear_ref")
    return result


def written(rows):
    """The dialects that all, or so many, of the checkpoints can be written as."""
    counts = {d: sum(d in r["to"] for _, r in rows) for d in DIALECTS + ["dense"]}
    return ", ".join(d if n == len(rows) else f"{d} ({n} of {len(rows)})" for d, n in counts.items() if n)


def read_back_cell(rows):
    """`n of m` for each library that was asked, and why others were not."""
    asked, reasons = collections.OrderedDict(), collections.OrderedDict()
    for _, r in rows:
        if "back" not in r:
            return "not measured"
        if r["back"] is None:
            reasons["no library reads this back"] = True
            continue
        library, verdict, reason = r["back"]
        if verdict in ("PASS", "FAIL"):
            asked.setdefault(library, []).append(verdict == "PASS")
        else:
            reasons[reason.split(":")[0] if verdict == "REFUSED" else reason] = True
    cells = [f"{sum(ok)} of {len(ok)} ({library})" for library, ok in asked.items()]
    return "; ".join(cells + [f"not tried: {reason}" for reason in reasons])


def table(results):
    by_row = collections.OrderedDict()
    for dialect, name, r in results:
        if r["read"]:
            by_row.setdefault((dialect, r["algorithm"], r["schemes"]), []).append((name, r))
    lines = ["| dialect | algorithm | schemes | read | verified against the producer | made | written as | read back by the producer's library | run, reference | run, fast |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]

    def count(rows, key):
        tried = [r[key] for _, r in rows if key in r]
        return f"{sum(tried)} of {len(tried)}" if tried else "-"

    for (dialect, algorithm, schemes), rows in by_row.items():
        lines.append(f"| {dialect} | {algorithm} | {schemes} | {count(rows, 'read')} | {count(rows, 'values')} | {'yes' if all(r['made'] for _, r in rows) else 'no'} | "
                     f"{written(rows)} | {read_back_cell(rows)} | {count(rows, 'reference')} | {count(rows, 'fast')} |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", required=True, type=Path)
    parser.add_argument("--binary", default="build/dev/quantbridge")
    parser.add_argument("--base", default="base/llama_small", help="a plain checkpoint under DIR, to try what can be made")
    parser.add_argument("--conformance", type=Path, help="what tools/conformance/run printed: fills the column of what libraries read back")
    parser.add_argument("--write", type=Path, help="file to write; without it the page goes to stdout")
    args = parser.parse_args()
    results, hosts = [], known_hosts(args.binary)
    verdicts = read_verdicts(args.conformance) if args.conformance else None
    with tempfile.TemporaryDirectory() as scratch:
        for dialect in DIALECTS:
            for checkpoint in sorted(p.parent for p in (args.fixtures / dialect).glob("*/expected.json")):
                print(f"{dialect}/{checkpoint.name}", file=sys.stderr)
                result = measure(args.binary, checkpoint, args.fixtures / args.base, hosts, Path(scratch))
                if verdicts is not None:
                    result["back"] = read_back(verdicts, dialect, checkpoint.name)
                results.append((dialect, checkpoint.name, result))
    refused = [f"| {dialect}/{name} | {r['refused']} |" for dialect, name, r in results if not r["read"]]
    page = ["# What was tried", "",
            "Made by `tools/support.py` from checkpoints that the producers' own tools wrote: nobody edits this page. A row is an algorithm as its producer calls it and",
            "the schemes (docs/schemes.md) that it was read as; numbers count checkpoints, those that are refused apart (at the end). *Verified*: the SHA-256 of every",
            "dequantized matrix is the expected one. *Made*: `quantize` has a recipe for its weights (activation scales that need calibration apart). *Read back*: the",
            "library loads what was written for it and gives the producer's logits or values, as tools/conformance measures it (docs/conformance.md); in brackets which",
            "library. *Run, reference*: the reference kernels agree with the producer's model to 1e-5 of the largest logit, weight-only. *Run, fast*: the others alone",
            f"do so to 2e-2 (keys and values are bfloat16 then), and none of its linears, with one token or with 512, has the reference for its kernel on any processor of `explain --host list` ({', '.join(hosts)}).", ""]
    page += table(results) + ["", "Refused by name:", "", "| checkpoint | why |", "| --- | --- |"] + refused
    text = "\n".join(page) + "\n"
    if args.write:
        args.write.write_text(text)
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
