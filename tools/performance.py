#!/usr/bin/env python3
"""Writes the tables of docs/performance.md: what kernels and models reach, as fractions of what the machine allows in the same run.

  performance.py PROGRAM [MODEL[=SCHEME,SCHEME...] ...] [--threads N] [--repeats N] [--into docs/performance.md]

A model is measured as it is stored, and once for each scheme that it is quantized to while it is loaded. With --into, the text between the marks of the file
becomes the tables; otherwise they are printed.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

BEGIN, END = "<!-- tables: tools/performance.py -->\n", "<!-- end of tables -->\n"


def run(*args):
    done = subprocess.run([str(a) for a in args], stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, args))} failed with {done.returncode}")
    return json.loads(done.stdout)


def spread(s, digits=2):
    return f"{s['median']:.{digits}f} [{s['min']:.{digits}f}..{s['max']:.{digits}f}]"


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    return "\n".join(lines + ["| " + " | ".join(map(str, r)) + " |" for r in rows]) + "\n"


def kernels(program, options):
    j = run(program, "bench", "--json", *options)
    limits = j["machine"]["limits"][-1]
    text = (f"Machine: {j['machine']['features']}, {limits['threads']} thread{'s' * (limits['threads'] > 1)} of {j['machine']['processors']}; medians of "
            f"{limits['clock_ghz']['count']}.\n\n")
    rows = []
    for k in j["kernels"]:
        if k["threads"] != limits["threads"]:
            continue
        what = "a plain read" if k["bound"] == "read" else "the peak of its product"
        rows.append((k["scheme"], k["kernel"].removeprefix("linear_"), f"{k['m']} x {k['n']} x {k['k']}", spread(k["of_bound"]), what))
    rows.sort(key=lambda r: (r[4], r[0]))
    return text + table(("scheme", "kernel", "tokens x outputs x inputs", "fraction [least..most]", "of"), rows)


def models(program, wanted, options):
    rows = []
    for one in wanted:
        path, _, schemes = one.partition("=")
        for scheme in [None] + [s for s in schemes.split(",") if s]:
            m = run(program, "bench", path, "--json", "--tokens", "16", *options, *(["--quantization", scheme] if scheme else []))["model"]
            rows.append((Path(path).name, scheme or "as stored", spread(m["prefill_of_peak"]), spread(m["decode_of_read"]),
                         f"{m['weight_bytes_per_step'] / m['batch'] / 1e6:.0f} MB"))
    return table(("model", "scheme", "prefill, of the peak", "decode, of a plain read", "weights read for a token"), rows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program")
    p.add_argument("models", nargs="*")
    p.add_argument("--threads", default=None)
    p.add_argument("--repeats", default="9")
    p.add_argument("--into", type=Path)
    a = p.parse_args()
    threads = ["--threads", a.threads] if a.threads else []
    text = "### Kernels\n\n" + kernels(a.program, threads + ["--repeats", a.repeats])
    if a.models:
        text += "\n### Models\n\n" + models(a.program, a.models, threads)
    if a.into is None:
        print(text, end="")
        return
    old = a.into.read_text()
    before, rest = old.split(BEGIN, 1)
    a.into.write_text(before + BEGIN + text + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
