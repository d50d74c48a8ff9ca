#!/usr/bin/env python3
"""What `quantize --auto` gives on a real model, beside each scheme by itself: KL divergence from the source on text that nothing was measured on.

  mixing.py MODEL OUT_DIR [--binary build/release/quantbridge] [--bits 4.5 5 6] [--to modelopt] [--schemes NAMES] [--tokens 2048] [--points 6] [--sensitivity kl] [--text /usr/share/common-licenses] [--bytes 2000] [--ctx 512]

Prints a table in Markdown. What is there already is not made or evaluated again, so a run that was stopped goes on. The text: the first --bytes bytes of every regular file
in the directory --text, in order of names.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path


def call(binary, *args):
    r = subprocess.run([binary, *map(str, args)], capture_output=True, text=True)
    if r.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))}: exit {r.returncode}: {r.stderr[-2000:]} {r.stdout[-2000:]}")
    return json.loads(r.stdout)


def kept(path, make):
    """What `make` returns, from the file `path` where it was made before."""
    if not path.exists():
        path.write_text(json.dumps(make(), indent=1))
    return json.loads(path.read_text())


def row(name, report, evaluated):
    predicted = f"{report['predicted']:.4f}"
    measured = "-" if report["measured"] is None else f"{report['measured']:.4f}"
    against = evaluated["against"]
    return (f"| {name} | {report['bits']:.3f} | {report['bytes'] / 1e6:.1f} | {predicted} | {measured} | {against['kl']:.4f} | {100 * against['top1']:.1f} % "
            f"| {evaluated['perplexity']:.3f} |")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", type=Path)
    p.add_argument("out", type=Path)
    p.add_argument("--binary", default="build/release/quantbridge")
    p.add_argument("--bits", type=float, nargs="+", default=[4.5, 5, 6])
    p.add_argument("--to", default="modelopt")
    p.add_argument("--schemes", default="")
    p.add_argument("--tokens", type=int, default=2048)
    p.add_argument("--sensitivity", default="kl")
    p.add_argument("--points", type=int, default=6)
    p.add_argument("--text", type=Path, default=Path("/usr/share/common-licenses"))
    p.add_argument("--bytes", type=int, default=2000)
    p.add_argument("--ctx", type=int, default=512)
    o = p.parse_args()
    o.out.mkdir(parents=True, exist_ok=True)
    text = o.out / "text.txt"
    parts = [f.read_bytes()[:o.bytes] for f in sorted(o.text.iterdir()) if f.is_file() and not f.is_symlink()]
    text.write_text("\n\n".join(part.decode("utf-8", "ignore") for part in parts))

    def evaluated(name, *how):
        return kept(o.out / f"{name}.eval.json", lambda: call(o.binary, "eval", *how, "--against", o.model, "--text", text, "--ctx", o.ctx, "--json"))

    rows = []
    for bits in o.bits:
        name = f"auto-{bits:g}"
        out = o.out / name
        report = kept(o.out / f"{name}.json", lambda: call(o.binary, "quantize", o.model, out, "--auto", "--bits", f"{bits:g}", "--auto-tokens", o.tokens, "--to", o.to,
                                                           "--force", "--json", "--auto-points", o.points, "--sensitivity", o.sensitivity,
                                                           *(["--schemes", o.schemes] if o.schemes else [])))["auto"]
        rows.append((report["chosen"]["bytes"], row(f"`--auto --bits {bits:g}`", report["chosen"], evaluated(name, out))))
    for uniform in report["uniform"]:
        name = uniform["scheme"]
        scheme, _, recipe = name.partition("/")
        how = json.dumps({"default": {"weight": scheme, "recipe": recipe}}) if recipe else name
        numerics = "modelopt" if o.to == "modelopt" or recipe.endswith(".modelopt") else "llm-compressor"
        rows.append((uniform["bytes"], row(f"`{name}`", uniform, evaluated(name.replace("/", "-"), o.model, "--quantization", how, "--numerics", numerics))))
    tokens = json.loads((o.out / f"auto-{o.bits[0]:g}.eval.json").read_text())["tokens"]
    print(f"Measured on {report['tokens']} tokens of the text that comes with the program, evaluated on {tokens} tokens: the first {o.bytes} bytes of each regular file in {o.text}, windows of {o.ctx}.\n")
    print("| | bits | MB | KL predicted | measured | KL on other text | same likeliest token | perplexity |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(line for _, line in sorted(rows)))


main()
