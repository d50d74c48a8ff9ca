#!/usr/bin/env python3
"""Compares the tensors of two checkpoint directories: same names, dtypes, shapes and bytes, however they are spread over files. Exit 0 when equal, 1 when not.

  compare_tensors.py A B
"""
import sys

from safetensors_io import read_checkpoint

BLOCK = 1 << 24


def same_bytes(a, b):
    with open(a[2], "rb") as fa, open(b[2], "rb") as fb:
        fa.seek(a[3])
        fb.seek(b[3])
        left = a[4]
        while left > 0:
            n = min(left, BLOCK)
            x = fa.read(n)
            if len(x) != n or x != fb.read(n):
                return False
            left -= n
    return True


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    try:
        a, b = read_checkpoint(sys.argv[1]), read_checkpoint(sys.argv[2])
    except OSError as e:
        print(e, file=sys.stderr)
        return 3
    differences = [f"only in {sys.argv[1]}: {n}" for n in sorted(a.keys() - b.keys())] + [f"only in {sys.argv[2]}: {n}" for n in sorted(b.keys() - a.keys())]
    for name in sorted(a.keys() & b.keys()):
        if (a[name][0], a[name][1]) != (b[name][0], b[name][1]):
            differences.append(f"{name}: {a[name][0]} {a[name][1]} against {b[name][0]} {b[name][1]}")
        elif not same_bytes(a[name], b[name]):
            differences.append(f"{name}: same dtype and shape, other bytes")
    for line in differences[:20]:
        print(line)
    if differences:
        print(f"{len(differences)} differences between {len(a)} and {len(b)} tensors")
        return 1
    print(f"{len(a)} tensors, {sum(t[4] for t in a.values()):,} bytes: equal")
    return 0


if __name__ == "__main__":
    sys.exit(main())
