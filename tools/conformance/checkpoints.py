"""Checkpoint directories as this target compares them: tensors by name with their bytes, configs in meaning, and which fixture came from which source model."""
import fnmatch
import json
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from safetensors_io import read_checkpoint  # noqa: E402

# Values that only calibration data give: what is made from weights alone cannot have them.
CALIBRATED = ("input_scale", "input_global_scale", "k_scale", "v_scale", "q_scale")


def read_json(path):
    return json.loads(Path(path).read_text())


class Checkpoint:
    """{name: (dtype, shape, bytes)} on demand."""

    def __init__(self, directory):
        self.directory = Path(directory)
        self.entries = read_checkpoint(self.directory)
        self.config = read_json(self.directory / "config.json")

    def __contains__(self, name):
        return name in self.entries

    def data(self, name):
        _, _, file, offset, size = self.entries[name]
        with open(file, "rb") as f:
            f.seek(offset)
            return f.read(size)

    def quantization(self):
        return self.config.get("quantization_config") or self.config.get("compression_config") or {}


# In a checkpoint: a projection of one expert of many.
EXPERT = re.compile(r"\.experts\.\d+\.\w+\.")


def beyond_stock(checkpoint):
    """Why transformers 5.17 cannot load a compressed-tensors checkpoint, whoever wrote it; None where it can. Experts are stacked while loading, by code of their own."""
    names = checkpoint.entries
    if any("embed_tokens." in n and n.endswith("_scale") for n in names):
        return "has no place for quantized embeddings"
    if any(n.endswith(("_input.weight", "_output.weight")) for n in names) and "transform_config" in checkpoint.quantization():
        return "has no place for the matrices of transforms at run time"
    experts = [n for n in names if EXPERT.search(n)]
    for n in experts:
        module = n.rsplit(".", 1)[0]
        if n.endswith("weight_global_scale"):
            return "drops the global scales of stacked experts"
        if n.endswith("weight_zero_point"):
            return "has no zero points in stacked experts"
        if names.get(module + ".weight", ("",))[0] == "I8":
            return "does not unpack stacked experts that are int-quantized"
        if n.endswith("weight_scale") and names.get(module + ".weight", ("",))[0] == "F8_E4M3" and len(names[n][1]) == 2 and names[n][1][1] > 1:
            return "multiplies stacked FP8 experts by one scale or one for each row only"
    if checkpoint.config["model_type"] == "gpt_oss" and experts:
        return "has this family's experts stacked, on disk too (llm-compressor writes them one by one, for vLLM)"
    if checkpoint.config["model_type"] == "mixtral" and any(n.split(".")[-2] == "gate_proj" for n in experts):
        return "looks for w1, w2, w3 in this family"
    return None


def calibrated(name):
    return name.rsplit(".", 1)[-1] in CALIBRATED


def wider(ours, theirs, name):
    """Whether the producer wrote a BF16 tensor of its source as float32 numbers of the same values: transformers keeps some biases of routers so."""
    if ours.entries[name][:2] != ("BF16", theirs.entries[name][1]) or theirs.entries[name][0] != "F32":
        return False
    halves = ours.data(name)
    return theirs.data(name) == b"".join(b"\0\0" + halves[i:i + 2] for i in range(0, len(halves), 2))


def compare_bytes(ours, theirs):
    """(tensors equal, calibrated tensors left out, first differences)."""
    a = {n for n in ours.entries if not calibrated(n)}
    b = {n for n in theirs.entries if not calibrated(n)}
    differences = [f"only in the output: {n}" for n in sorted(a - b)] + [f"only in the producer's: {n}" for n in sorted(b - a)]
    equal = 0
    for n in sorted(a & b):
        if wider(ours, theirs, n):
            equal += 1
        elif ours.entries[n][:2] != theirs.entries[n][:2]:
            differences.append(f"{n}: {ours.entries[n][:2]} against {theirs.entries[n][:2]}")
        else:
            x, y = ours.data(n), theirs.data(n)
            if x == y:
                equal += 1
            else:
                differences.append(f"{n}: {sum(p != q for p, q in zip(x, y))} of {len(x)} bytes differ")
    return equal, len(theirs.entries) - len(b), differences


def meaning(value):
    """Lists of names are sets, and a missing key is null."""
    if isinstance(value, dict):
        return {k: meaning(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return sorted((meaning(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    return value


def matched_modules(base, patterns):
    """The modules of `base` with a matrix that one of the shell patterns matches, by their own name or a parent's."""
    modules = [n.removesuffix(".weight") for n, e in base.entries.items() if n.endswith(".weight") and len(e[1]) == 2]
    return sorted(m for m in modules if any(fnmatch.fnmatchcase(m, p) or m.startswith(p + ".") for p in patterns))


def differing_keys(ours, theirs, skip=(), prefix=""):
    out = []
    for k in sorted(set(ours) | set(theirs)):
        if k in skip:
            continue
        a, b = meaning(ours.get(k)), meaning(theirs.get(k))
        if isinstance(a, dict) and isinstance(b, dict):
            out += differing_keys(a, b, skip, prefix + k + ".")
        elif a != b:
            out.append(f"{prefix}{k}: {json.dumps(a)[:80]} against {json.dumps(b)[:80]}")
    return out


def same_model(fixture, base):
    """Whether `fixture` was made from `base` without touching what it did not quantize: every tensor that both hold under one name and dtype has the same bytes."""
    if fixture.config.get("model_type") != base.config.get("model_type"):
        return False
    plain = [n for n, e in base.entries.items() if n in fixture and fixture.entries[n][:2] == e[:2]]
    return "model.embed_tokens.weight" in plain and "model.norm.weight" in plain and all(fixture.data(n) == base.data(n) for n in plain)


def find_source(fixture, bases):
    return next((b for b in bases if same_model(fixture, b)), None)
