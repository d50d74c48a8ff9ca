"""Safetensors files with the standard library alone: what the tools beside this file share. The format: https://github.com/huggingface/safetensors#format."""
import json
import struct
from pathlib import Path

ITEM_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "BF16": 2, "F16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U8": 1, "I8": 1, "BOOL": 1}


def tensor_bytes(dtype, shape):
    n = ITEM_BYTES[dtype]
    for d in shape:
        n *= d
    return n


def header(tensors):
    """The header of a file that holds `tensors`, (name, dtype, shape) each, back to back in this order."""
    table, at = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype, shape in tensors:
        end = at + tensor_bytes(dtype, shape)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def read_header(path):
    """{name: (dtype, shape, offset in the file, bytes)} of one file."""
    with open(path, "rb") as f:
        (n,) = struct.unpack("<Q", f.read(8))
        table = json.loads(f.read(n))
    table.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], 8 + n + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0]) for name, t in table.items()}


def read_checkpoint(directory):
    """{name: (dtype, shape, file, offset, bytes)} of a checkpoint directory: the shards that its index names, or model.safetensors."""
    directory = Path(directory)
    index = directory / "model.safetensors.index.json"
    files = sorted(set(json.loads(index.read_text())["weight_map"].values())) if index.exists() else ["model.safetensors"]
    out = {}
    for file in files:
        for name, (dtype, shape, offset, size) in read_header(directory / file).items():
            out[name] = (dtype, shape, directory / file, offset, size)
    return out
