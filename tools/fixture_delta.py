#!/usr/bin/env python3
"""Stores the weights of damaged checkpoints as what differs from a good one: tests/suite.cc puts them together again.

    tools/fixture_delta.py CASE... --from DIR [--write]

For each *.safetensors of a CASE directory the file under DIR that has most of its bytes is found, and FILE.delta is written in place of FILE with --write: JSON,
{"from": path relative to FILE, "pieces": [...]}, where a piece is [offset, length] of that file, or a string: bytes in base64. What saves less than half is left alone.
"""
import argparse
import base64
import json
import os
from pathlib import Path

BLOCK = 64


def pieces_of(data, base):
    """Greedy: at each place the longest run of `base` that begins with one of its blocks at a multiple of BLOCK."""
    blocks = {}
    for at in range(0, len(base) - BLOCK + 1, BLOCK):
        blocks.setdefault(base[at:at + BLOCK], []).append(at)
    out, literal, at = [], bytearray(), 0

    def flush():
        if literal:
            out.append(base64.b64encode(bytes(literal)).decode())
            literal.clear()

    def common(a, b):
        n = 0
        while data[a + n:a + n + 4096] == base[b + n:b + n + 4096] and a + n < len(data):
            n += min(4096, len(data) - a - n)
        while a + n < len(data) and b + n < len(base) and data[a + n] == base[b + n]:
            n += 1
        return n

    while at < len(data):
        runs = [(common(at, b), b) for b in blocks.get(data[at:at + BLOCK], [])[:16]]
        if not runs:
            literal.append(data[at])
            at += 1
            continue
        length, start = max(runs)
        back = 0  # what stands before the block may belong to the run
        while back < len(literal) and start > back and literal[-1 - back] == base[start - back - 1]:
            back += 1
        if back:
            del literal[-back:]
        flush()
        out.append([start - back, length + back])
        at += length
    flush()
    return out


def join(pieces, base):
    return b"".join(base64.b64decode(p) if isinstance(p, str) else base[p[0]:p[0] + p[1]] for p in pieces)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--from", dest="source", required=True, type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    mine = {c.resolve() for c in args.cases}
    bases = {p: p.read_bytes() for p in sorted(args.source.rglob("*.safetensors")) if p.parent.resolve() not in mine}
    blocks = {p: {base[at:at + BLOCK] for at in range(0, len(base), BLOCK)} for p, base in bases.items()}
    for case in args.cases:
        for path in sorted(case.glob("*.safetensors")):
            data = path.read_bytes()
            windows = {data[at:at + BLOCK] for at in range(0, len(data), 8)}
            near = sorted(bases, key=lambda p: -sum(b in windows for b in blocks[p]))[:2]
            found = min(((len(json.dumps(pieces_of(data, bases[p]))), str(p)) for p in near), default=(len(data), ""))
            if found[0] > len(data) / 2:
                print(f"{path}: {len(data)} bytes, best delta {found[0]}: left alone")
                continue
            source = Path(found[1])
            pieces = pieces_of(data, bases[source])
            assert join(pieces, bases[source]) == data
            print(f"{path}: {len(data)} bytes -> {found[0]} from {source}")
            if args.write:
                document = {"from": os.path.relpath(source, path.parent), "pieces": pieces}
                path.with_name(path.name + ".delta").write_text(json.dumps(document) + "\n")
                path.unlink()


if __name__ == "__main__":
    main()
