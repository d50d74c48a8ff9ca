#!/usr/bin/env python3
"""Damages good checkpoints at random and counts what `check --deep` says: a rate for each kind of damage.

    tools/stress/mutate.py CHECKPOINT... --binary quantbridge [--count 1000] [--seed 1] [--kind PATTERN] [--every-tensor] [--written] [--keep DIR]

Each mutant is one checkpoint with one change: a tensor dropped or renamed, its dtype or shape changed in the header, a file cut, a bit flipped in a header, a
scale set to NaN, infinity, 0 or its negative, a bit flipped in a scale, in codes or in a plain weight, a value of a document's quantization keys changed. The
same seed gives the same mutants; --kind takes those of some kinds alone ('scale*'); with --every-tensor each tensor of each checkpoint is dropped once, nothing at
random. Structural damage and numbers that no scale may have must be found each time (exit code 1 of this program otherwise); of the
rest the rate is reported: a flipped bit of a code makes another good code. With --written the checkpoints are written anew by `convert` first, with checksums:
then every changed byte must be found. A crash, or an exit code that check does not have, is an error always. Needs Python 3 alone.
"""
import argparse
import copy
import fnmatch
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

WIDTH = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "BOOL": 1}
# numbers by dtype: NaN, infinity (where there is one), zero; the sign is the highest bit
SPECIAL = {"F32": {"nan": b"\x00\x00\xc0\x7f", "inf": b"\x00\x00\x80\x7f", "zero": bytes(4)}, "BF16": {"nan": b"\xc0\x7f", "inf": b"\x80\x7f", "zero": bytes(2)},
           "F16": {"nan": b"\x00\x7e", "inf": b"\x00\x7c", "zero": bytes(2)}, "F8_E4M3": {"nan": b"\x7f"}}
MUST = {"drop a tensor", "rename a tensor", "another dtype", "another shape", "cut the file", "scale: nan", "scale: inf", "scale: zero", "scale: sign"}


class Checkpoint:
    """A directory with one file of weights, in memory."""

    def __init__(self, path):
        self.path = Path(path)
        whole = (self.path / "model.safetensors").read_bytes()
        (n,) = struct.unpack("<Q", whole[:8])
        self.table, self.data = json.loads(whole[8:8 + n]), bytearray(whole[8 + n:])
        self.names = [k for k in self.table if k != "__metadata__"]
        self.documents = {f.name: f.read_bytes() for f in self.path.iterdir() if f.suffix == ".json"}

    def scales(self):
        """Names of float scales whose numbers may not be NaN, infinite, negative or zero."""
        last = lambda name: name.rsplit(".", 1)[-1]
        return [n for n in self.names if "scale" in last(n) and self.table[n]["dtype"] in SPECIAL and self.table[n]["data_offsets"][1] > self.table[n]["data_offsets"][0]]

    def others(self):
        return [n for n in self.names if n not in set(self.scales()) and self.table[n]["data_offsets"][1] > self.table[n]["data_offsets"][0]]


def write(into, table, data, documents, cut=0, raw_header=None):
    text = raw_header if raw_header is not None else json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + bytes(data)
    (into / "model.safetensors").write_bytes(whole[:len(whole) - cut])
    for name, content in documents.items():
        (into / name).write_bytes(content)


def without(c, name):
    """The table and the data without one tensor: no hole is left."""
    table, data = {}, bytearray()
    for n, t in c.table.items():
        if n == "__metadata__":
            table[n] = t
        elif n != name:
            begin, end = t["data_offsets"]
            table[n] = {**t, "data_offsets": [len(data), len(data) + end - begin]}
            data += c.data[begin:end]
    return table, data


def leaves(value, path=()):
    if isinstance(value, dict):
        for k, v in value.items():
            yield from leaves(v, path + (k,))
    elif isinstance(value, list):
        for i, v in enumerate(value):
            yield from leaves(v, path + (i,))
    else:
        yield path, value


def mutate(c, rng, into, wanted="*", drop=None):
    """Writes one mutant, or the one without the tensor `drop`; returns its kind and what was changed."""
    table, data, documents = copy.deepcopy(c.table), bytearray(c.data), dict(c.documents)
    kinds = ["drop a tensor", "rename a tensor", "another dtype", "another shape", "cut the file", "a bit of the header", "a bit of data", "a document's value"]
    if c.scales():
        kinds += ["scale: nan", "scale: inf", "scale: zero", "scale: sign", "a bit of a scale"]
    kinds = [k for k in kinds if fnmatch.fnmatch(k, wanted)]
    if not kinds:
        return None, ""
    kind = rng.choice(kinds) if drop is None else "drop a tensor"
    name = drop or rng.choice(c.scales() if kind.startswith("scale") or kind == "a bit of a scale" else c.others() if kind == "a bit of data" else c.names)
    t = table[name]
    begin, end = t["data_offsets"]
    what = name
    if kind == "drop a tensor":
        table, data = without(c, name)
    elif kind == "rename a tensor":
        new = name[:-1] + ("x" if name[-1] != "x" else "y")
        table = {new if n == name else n: v for n, v in table.items()}
    elif kind == "another dtype":
        same = [d for d, w in WIDTH.items() if w == WIDTH[t["dtype"]] and d != t["dtype"]]
        t["dtype"] = rng.choice(same + ["F64" if t["dtype"] != "F64" else "U8"])
        what += " as " + t["dtype"]
    elif kind == "another shape":
        if not t["shape"]:
            t["shape"] = [2]
        else:
            t["shape"][rng.randrange(len(t["shape"]))] += rng.choice([-1, 1, 7])
    elif kind == "cut the file":
        cut = rng.randrange(1, len(data))
        write(into, table, data, documents, cut=cut)
        return kind, f"{cut} bytes"
    elif kind == "a bit of the header":
        text = bytearray(json.dumps(table, separators=(",", ":")).encode())
        at = rng.randrange(len(text))
        text[at] ^= 1 << rng.randrange(8)
        write(into, table, data, documents, raw_header=bytes(text))
        return kind, f"byte {at}"
    elif kind in ("a bit of data", "a bit of a scale"):
        data[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    elif kind == "a document's value":
        config = json.loads(documents["config.json"])
        places = [(p, v) for p, v in leaves(config.get("quantization_config", config)) if isinstance(v, (int, str)) and v is not None]
        place, value = rng.choice(places)
        at = config.get("quantization_config", config)
        for step in place[:-1]:
            at = at[step]
        at[place[-1]] = (not value) if isinstance(value, bool) else value + 1 if isinstance(value, int) else value + "x"
        documents["config.json"] = json.dumps(config).encode()
        what = ".".join(map(str, place))
    else:
        width, special = WIDTH[t["dtype"]], kind.split(": ")[1]
        at = begin + rng.randrange((end - begin) // width) * width
        if special == "sign":
            data[at + width - 1] ^= 0x80
        elif special in SPECIAL[t["dtype"]]:
            data[at:at + width] = SPECIAL[t["dtype"]][special]
        else:
            return None, name  # this format has none, or such a block may be empty
        if data == c.data:
            return None, name
    write(into, table, data, documents)
    return kind, what


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="+")
    parser.add_argument("--binary", default="build/release/quantbridge")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", default="*", metavar="PATTERN")
    parser.add_argument("--every-tensor", action="store_true")
    parser.add_argument("--written", action="store_true")
    parser.add_argument("--keep", type=Path, help="a directory for mutants that were missed and should not have been")
    o = parser.parse_args()
    rng = random.Random(o.seed)
    made, found, warned, bad = defaultdict(int), defaultdict(int), defaultdict(int), 0
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        paths = [Path(p) for p in o.checkpoints if (Path(p) / "model.safetensors").exists()]
        if o.written:
            again = []
            for i, p in enumerate(paths):
                for to in ("modelopt", "compressed_tensors", "hf_fp8", "awq", "gptq", "dense"):
                    out = scratch / f"{i}-{to}"
                    if subprocess.run([o.binary, "convert", str(p), str(out), "--to", to, "--quiet"], capture_output=True).returncode == 0:
                        again.append(out)
                        break
            paths = again
        good = [Checkpoint(p) for p in paths]
        clean = {}
        for c in good:  # what check says of the undamaged one is no finding
            said = json.loads(subprocess.run([o.binary, "check", "--deep", "--json", str(c.path)], capture_output=True, text=True).stdout)
            clean[c.path] = {(p["code"], p["tensor"], p["module"]) for p in said["problems"]}
        done = 0
        drops = [(c, name) for c in good for name in c.names]
        count = len(drops) if o.every_tensor else o.count
        while done < count:
            c, drop = drops[done] if o.every_tensor else (rng.choice(good), None)
            into = scratch / "mutant"
            shutil.rmtree(into, ignore_errors=True)
            into.mkdir()
            kind, what = mutate(c, rng, into, o.kind, drop)
            if kind is None:
                continue
            done += 1
            run = subprocess.run([o.binary, "check", "--deep", "--json", str(into)], capture_output=True, text=True, timeout=120)
            made[kind] += 1
            if run.returncode not in (0, 1):
                bad += 1
                print(f"exit code {run.returncode}: {kind}, {what} of {c.path}\n{run.stderr[-500:]}", flush=True)
                continue
            problems = json.loads(run.stdout)["problems"]
            new = [p for p in problems if (p["code"], p["tensor"], p["module"]) not in clean[c.path]]
            found[kind] += run.returncode == 1 or bool(new)
            warned[kind] += run.returncode == 0 and bool(new)
            changed_bytes = o.written and (kind.startswith("a bit of data") or kind.startswith("a bit of a scale"))
            if not new and run.returncode == 0 and (kind in MUST or changed_bytes):
                bad += 1
                print(f"missed: {kind}, {what} of {c.path}", flush=True)
                if o.keep:
                    shutil.copytree(into, o.keep / f"{done}-{kind.replace(' ', '-').replace(':', '')}", dirs_exist_ok=True)
            if sys.stderr.isatty() and done % 50 == 0:
                print(f"\r{done} of {count}", end="", file=sys.stderr)
    print(f"{'damage':24} {'mutants':>8} {'found':>8} {'rate':>8}  (of these as warnings)")
    for kind in sorted(made):
        print(f"{kind:24} {made[kind]:8} {found[kind]:8} {100 * found[kind] / made[kind]:7.1f}%  ({warned[kind]})")
    print(f"{done} mutants of {len(good)} checkpoints, {bad} wrong")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
