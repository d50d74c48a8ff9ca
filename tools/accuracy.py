#!/usr/bin/env python3
"""Writes docs/accuracy.md: a real model in every scheme that `quantize` makes from weights alone, evaluated here and by the library that the checkpoint is written for.

    tools/accuracy.py --binary build/release/quantbridge --model build/models/SmolLM2-135M-Instruct --cache DIR [--venv VENV] [--schemes PATTERN] [--fraction F] [--write docs/accuracy.md]

VENV is what tools/conformance/setup made (default: build/conformance-venv). Every figure is kept in DIR/accuracy.json as soon as it is known: running again goes on where it stopped
(remove the file for another binary). --fraction takes the beginning of each file of the text only, for machines with little time. Progress goes to stderr.
"""
import argparse
import fnmatch
import hashlib
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEXTS = Path("/usr/share/common-licenses")
QUESTION = "What is the capital of France?"
CTX = 512
BOUND = 0.5  # percent
NUMERICS = ("llm-compressor", "modelopt")


class Refused(Exception):
    pass


def tool(binary, *args):
    done = subprocess.run([binary, *map(str, args), "--json", "--quiet"], capture_output=True, text=True)
    report = json.loads(done.stdout) if done.stdout.startswith("{") else {"problems": []}
    if done.returncode:
        raise Refused("; ".join(dict.fromkeys(f"{p['code']}: {p['found']}" for p in report["problems"])) or done.stderr.strip()[:200])
    return report


def text_of(fraction):
    """The text: all regular files, by name, each as a whole or its first lines."""
    out = b""
    for path in sorted(p for p in TEXTS.iterdir() if p.is_file() and not p.is_symlink()):
        data = path.read_bytes()
        out += data if fraction >= 1 else data[:data.index(b"\n", min(int(len(data) * fraction), len(data) - 1)) + 1]
    return out


def schemes_made(binary, hidden):
    """[(scheme, numerics)], each scheme once, in the order of the list: with the numerics of the library that evaluates it where they make it. Groups that the model's width is no multiple of are halved until it is."""
    out = {}
    for s in tool(binary, "quantize", "--list")["shorthands"]:
        if s["made"] in ("", "no recipe") or s["made"].endswith("--calibrate"):
            continue

        def fitting(match):
            g = int(match[1])
            while hidden % g:
                g //= 2
            return f"_g{g}"

        weight, colon, activation = s["scheme"].partition(":")
        scheme = re.sub(r"_g(\d+)", fitting, weight) + colon + activation
        out.setdefault(scheme, next(n for n in NUMERICS if n in s["made"]))
    return list(out.items())


class Library:
    """The text's perplexity through transformers and compressed-tensors, in float32: its own decompression and its own quantization of activations."""

    def __init__(self, model, text, threads):
        sys.path.insert(0, str(ROOT / "tools/conformance"))
        import libraries
        import torch
        import transformers

        self.libraries, self.torch = libraries, torch
        torch.set_num_threads(threads)
        ids = transformers.AutoTokenizer.from_pretrained(model)(text.decode(), add_special_tokens=False)["input_ids"]
        self.windows = torch.tensor(ids[:len(ids) // CTX * CTX]).reshape(-1, CTX)

    def perplexity(self, model, activations):
        total = 0.0
        for ids in self.windows.split(1):  # one at a time: activations with one scale for the tensor have it for a window, as here
            logits = self.libraries.run(model, ids, activations)[:, :-1]
            total += float(self.torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none").double().sum())
        return math.exp(total / (self.windows.shape[0] * (CTX - 1)))

    def model(self, directory):
        model = self.libraries.load(directory)
        self.libraries.decompress(model)
        return model


def size_of(directory):
    return sum(p.stat().st_size for p in directory.glob("*.safetensors"))


def quantize(args, scheme, numerics, directory):
    """The dialect that has a word for the scheme, and why compressed-tensors has none."""
    reason = None
    for dialect in ("compressed_tensors", "modelopt"):
        try:
            tool(args.binary, "quantize", args.model, directory, "--scheme", scheme, "--numerics", numerics, "--to", dialect, "--force")
            return dialect, reason
        except Refused as e:
            if reason:
                raise
            reason = str(e)


def digest_of(directory):
    """Of what a checkpoint means: its tensors' names, types, shapes and bytes, and its config. Notes and checksums in the files' metadata do not count."""
    digest = hashlib.sha256((directory / "config.json").read_bytes())
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("rb") as f:
            header = json.loads(f.read(int.from_bytes(f.read(8), "little")))
            header.pop("__metadata__", None)
            digest.update(json.dumps(header, sort_keys=True).encode())
            while block := f.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def measure(args, scheme, numerics, text_file, library, scratch, weights, known):
    """One row; `weights` has the figures without activations, which schemes of the same weights share; `known` has rows by digest. The source itself has no scheme."""
    directory, dialect, reason = Path(args.model), None, None
    if scheme:
        directory = scratch / "checkpoint"
        try:
            dialect, reason = quantize(args, scheme, numerics, directory)
        except Refused as e:
            return {"refused": str(e)}
    digest = digest_of(directory)
    if digest in known:
        weights |= known[digest][1]
        return known[digest][0]

    def ours(*options):
        report = tool(args.binary, "eval", directory, "--text", text_file, "--ctx", CTX, "--threads", args.threads, *options)
        if report["tokens"] != library.windows.numel():
            raise SystemExit(f"{report['tokens']} tokens here, {library.windows.numel()} in transformers: the tokenizers differ")
        return report["perplexity"]

    result = {"digest": digest, "bytes": size_of(directory), "tokens": library.windows.numel(), "ours": ours(),
              "answer": tool(args.binary, "run", directory, "--chat", "--prompt", QUESTION, "-n", "32")["text"]}
    model = library.model(directory) if dialect != "modelopt" else None
    if model is not None and not weights:
        weights |= {"ours": ours("--activations", "bf16") if ":" in scheme else result["ours"], "library": library.perplexity(model, False)}
    if model is None:
        result["reason"] = reason
    elif ":" in scheme:
        activation = scheme.split(":")[1].removesuffix("_up")
        if activation.startswith("mx"):
            rule = ("--quantization", json.dumps({"linear": {"activation": f"{activation}_even"}}))
            result |= {"even": ours(*rule), "even_f32": ours(*rule, "--kv-cache-dtype", "f32")}
        try:
            result["library"] = library.perplexity(model, True)
        except RuntimeError as e:
            if "unflatten" not in str(e):
                raise
            result["reason"] = "compressed-tensors cannot form groups of activations over a width that is no multiple of them"
    else:
        result["library"] = weights["library"]
    return result


def cell(value):
    return f"{value:.4f}" if value is not None else "-"


def difference(ours, theirs):
    return None if ours is None or theirs is None else 100 * (ours / theirs - 1)


def percent(d):
    return "-" if d is None else f"{d:+.3f} %" if abs(d) <= BOUND else f"**{d:+.3f} %**"


def page(model, rows, fraction):
    whole = f"the first {fraction:.1%} of each regular file" if fraction < 1 else "all regular files"
    missing = [f"`{scheme}` ({numerics})" for scheme, numerics, r, _ in rows if r is None]
    rows = [row for row in rows if row[2] is not None]
    tokens = max((r["tokens"] for _, _, r, _ in rows if "tokens" in r), default=0)
    lines = ["# Accuracy", "",
             "Made by `tools/accuracy.py`: nobody edits this page.", f"{model} in every scheme that `quantize` makes from weights alone (groups halved until the width divides by them),",
             f"evaluated on {whole} in {TEXTS}, in order of names: {tokens // CTX} windows of {CTX} tokens that stand alone, every token of a window but",
             "its first predicted. *Ours*: `quantbridge eval --ctx 512`, fast kernels. *Library*: the same directory in transformers with compressed-tensors in float32, stock code, with its own",
             "quantization of activations. *Weights alone* quantizes no activations: float32 there, bfloat16 here (`--activations bf16`). Equal files are evaluated once. Bold: more than 0.5 % apart.", "",
             "Where activations are quantized, two formulas differ by design: for integers the library scales by amax/127.5 where engines' kernels, and ours, take amax/127; for MX blocks it raises",
             "the exponent from a mantissa of 1.75 on, where OCP's rule, ours by default, does not. *Ours, library's rule* runs the same directory with the library's rule for MX",
             "(`--quantization '{\"linear\": {\"activation\": \"mxfp8_even\"}}'`), once with keys and values in bfloat16, as always, and once in float32, as the library has them (`--kv-cache-dtype f32`);",
             "the difference is that of the latter. *Between*: the library's figure lies between these two. Activations in FP4 turn last bits of sums into other codes, so that the formulas alone do not",
             "decide the third digit.", "",
             "| scheme | numerics | MB | ours | ours, library's rule: bfloat16 | float32 keys and values | library | difference | weights alone: ours | library | difference |",
             "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    notes = {}
    answers = ["", "What each says to \u201c" + QUESTION + "\u201d (chat template, greedy, at most 32 tokens):", "", "| scheme | numerics | answer |", "| --- | --- | --- |"]
    counts, between = {"all": [0, 0], "weights": [0, 0]}, 0
    for scheme, numerics, r, w in rows:
        name = f"`{scheme}`" if scheme else "source (bf16)"
        if "refused" in r:
            notes.setdefault(r["refused"], []).append(name)
            continue
        both, weights = difference(r.get("even_f32", r["ours"]), r.get("library")), difference(w.get("ours"), w.get("library"))
        for key, d in (("all", both), ("weights", weights)):
            if d is not None:
                counts[key][0] += abs(d) <= BOUND
                counts[key][1] += 1
        shown = percent(both)
        if both is not None and abs(both) > BOUND and "even" in r and min(r["even"], r["even_f32"]) <= r["library"] <= max(r["even"], r["even_f32"]):
            shown, between = shown + ", between", between + 1
        lines.append(f"| {name} | {numerics} | {r['bytes'] / 1e6:.1f} | {cell(r['ours'])} | {cell(r.get('even'))} | {cell(r.get('even_f32'))} | {cell(r.get('library'))} | {shown} | "
                     f"{cell(w.get('ours'))} | {cell(w.get('library'))} | {percent(weights)} |")
        if "reason" in r:
            notes.setdefault(r["reason"], []).append(name)
        answers.append(f"| {name} | {numerics} | {' '.join(r['answer'].split()).replace('|', ' ')} |")
    also = f" and {between} between" if between else ""
    lines += ["", f"Within {BOUND} %: {counts['all'][0]} of {counts['all'][1]} as stored{also}, {counts['weights'][0]} of {counts['weights'][1]} of the weights alone."]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    if notes:
        lines += ["", "Where a column has no figure:", ""] + [f"* {', '.join(dict.fromkeys(names))}: {reason}" for reason, names in notes.items()]
    return "\n".join(lines + answers) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--model", required=True, type=Path)
    parser.add_argument("--cache", required=True, type=Path)
    parser.add_argument("--venv", type=Path, default=ROOT / "build/conformance-venv")
    parser.add_argument("--schemes", default="*", help="shell pattern")
    parser.add_argument("--known", action="store_true", help="measure nothing: the page of the figures in --cache, which says what is missing")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--fraction", type=float, default=1.0)
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if Path(sys.prefix).resolve() != args.venv.resolve():
        python = args.venv / "bin/python"
        if not python.exists():
            parser.error(f"no virtual environment at {args.venv}: run tools/conformance/setup, or name one with --venv")
        os.execv(python, [str(python), *sys.argv])

    text = text_of(args.fraction)
    args.cache.mkdir(parents=True, exist_ok=True)
    cache_file = args.cache / "accuracy.json"
    cache = json.loads(cache_file.read_text()) if cache_file.exists() else {}
    stamp = hashlib.sha256(text).hexdigest()[:12]
    hidden = json.loads((args.model / "config.json").read_text())["hidden_size"]
    wanted = [("", "")] + [s for s in schemes_made(args.binary, hidden) if fnmatch.fnmatchcase(s[0], args.schemes)]

    def key(s):
        return f"{args.model.name}:{s[0]}@{s[1]}:{stamp}"

    def weights_key(s):
        return "weights of " + key((s[0].split(":")[0], s[1]))

    missing = [s for s in wanted if key(s) not in cache and not args.known]
    library = Library(args.model, text, args.threads) if missing else None
    with tempfile.TemporaryDirectory(prefix="quantbridge-accuracy-") as scratch:
        text_file = Path(scratch) / "text.txt"
        text_file.write_bytes(text)
        start = time.monotonic()
        for done, s in enumerate(missing, 1):
            weights = cache.setdefault(weights_key(s), {})
            known = {cache[key(k)]["digest"]: (cache[key(k)], cache[weights_key(k)]) for k in wanted if "digest" in cache.get(key(k), {})}
            row = cache[key(s)] = measure(args, *s, text_file, library, Path(scratch), weights, known)
            cache_file.with_suffix(".new").write_text(json.dumps(cache, indent=1))
            shutil.move(cache_file.with_suffix(".new"), cache_file)
            left = (time.monotonic() - start) / done * (len(missing) - done) / 60
            print(f"{done} of {len(missing)} {s[0] or 'source'} {s[1]}: {row.get('ours')} {row.get('library')}, weights {weights}; {left:.0f} minutes left", file=sys.stderr, flush=True)
    out = page(args.model.name, [(*s, cache.get(key(s)), cache.get(weights_key(s), {})) for s in wanted], args.fraction)
    if args.write:
        args.write.write_text(out)
    else:
        print(out, end="")


if __name__ == "__main__":
    main()
