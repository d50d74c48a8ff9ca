#!/usr/bin/env python3
"""Writes docs/damaged.md: a real model quantized, three times damaged by hand, and what `check` and `convert --repair` say about it.

    tools/damaged.py --model build/models/SmolLM2-135M-Instruct [--binary build/dev/quantbridge] [--write docs/damaged.md]

The page is there for readers who never saw this program: the messages alone must be enough to put the checkpoint right, and each damage is put right by what its
message says. Every command is run; one that ends otherwise than expected is an error, and nothing is written. Needs Python 3 alone.
"""
import argparse
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile

HEAD = """# Damaged checkpoints: what the messages say, and what to do

Made by `tools/damaged.py`, which quantizes SmolLM2-135M-Instruct to NVFP4, adds the scales of an FP8 KV cache, damages the result three times as people and tools
do, and runs every command below: nobody edits this page.
"""


class Weights:
    """model.safetensors of a directory, in memory."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / "model.safetensors"
        whole = self.path.read_bytes()
        (n,) = struct.unpack("<Q", whole[:8])
        table = json.loads(whole[8:8 + n])
        table.pop("__metadata__", None)  # checksums of what was written: a hand that changes a file does not know them
        self.tensors = {k: (t["dtype"], t["shape"], whole[8 + n + t["data_offsets"][0]:8 + n + t["data_offsets"][1]]) for k, t in table.items()}

    def scalar(self, name):
        return struct.unpack("<f", self.tensors[name][2])[0]

    def set_scalar(self, name, value):
        self.tensors[name] = ("F32", [], struct.pack("<f", value))

    def save(self):
        table, at = {"__metadata__": {"format": "pt"}}, 0
        order = sorted(self.tensors, key=lambda n: -{"F32": 4, "BF16": 2}.get(self.tensors[n][0], 1))
        for name in order:
            dtype, shape, data = self.tensors[name]
            table[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
            at += len(data)
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.path.unlink()
        with open(self.path, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                f.write(self.tensors[name][2])


def edit(directory, change):
    path = pathlib.Path(directory) / "hf_quant_config.json"
    document = json.loads(path.read_text())
    change(document["quantization"])
    path.write_text(json.dumps(document, indent=2) + "\n")
    config = pathlib.Path(directory) / "config.json"
    whole = json.loads(config.read_text())
    if "quantization_config" in whole:  # the other copy says the same
        del whole["quantization_config"]
        config.write_text(json.dumps(whole, indent=2) + "\n")


def layers(directory):
    return json.loads((pathlib.Path(directory) / "config.json").read_text())["num_hidden_layers"]


# ---- the damages, and the ways back -------------------------------------------------------------------------------------------------------------------------------


def plain_modules():
    """What the list of the first damage means to leave out, by the names that the tensors have."""
    return ([f"model.layers.0.self_attn.{p}_proj" for p in "qkv"] + ["model.layers.0.mlp.down_proj"] + [f"model.layers.1.self_attn.{p}_proj" for p in "qkvo"] +
            [f"model.layers.1.mlp.{p}_proj" for p in ("gate", "up", "down")])


def wrong_list(directory):
    edit(directory, lambda q: q.update(exclude_modules=["lm_head", "model.embed_tokens", "model.layers.0.self_attn.qkv_proj", "model.language_model.layers.0.mlp.down_proj", "model.layers.1",
                                                        "model.layers.0.self_attn.o_proj", "model.layers.99.mlp.down_proj"]))
    plain, weights = Weights(pathlib.Path(directory).parent / "dense"), Weights(directory)
    for module in plain_modules():
        for name in [n for n in weights.tensors if n.startswith(module + ".weight")]:
            del weights.tensors[name]
        weights.tensors[module + ".weight"] = plain.tensors[module + ".weight"]
    weights.save()


def right_list(directory):
    entries = ["lm_head", "model.embed_tokens", "model.layers.1.*", "model.layers.0.mlp.down_proj"] + [f"model.layers.0.self_attn.{p}_proj" for p in "qkv"]
    edit(directory, lambda q: q.update(exclude_modules=entries))


def drop_kv(directory):
    weights = Weights(directory)
    for name in ("k", "v"):
        del weights.tensors[f"model.layers.1.self_attn.{name}_proj.{name}_scale"]
    weights.save()


def without_kv(directory):
    edit(directory, lambda q: q.update(kv_cache_quant_algo=None))
    weights = Weights(directory)
    for name in [n for n in weights.tensors if n.endswith((".k_scale", ".v_scale"))]:
        del weights.tensors[name]
    weights.save()


def mismatch(directory):
    weights = Weights(directory)
    for layer, factor in ((0, 0.25), (1, 0.3)):
        name = f"model.layers.{layer}.mlp.up_proj.weight_scale_2"
        weights.set_scalar(name, weights.scalar(name) * factor)
    weights.save()


# title, what a hand did, the damage, [(what to do next, command, exit code, words that must be said)], the way back by hand and what is said then
DAMAGES = [
    ("A wrong list of what is left out", "`exclude_modules` was copied from other models' files: it names q, k and v by the name that engines give the three together, a matrix with the "
     "prefix of a multimodal model, a layer without a wildcard, a matrix that is quantized, and one that is not there.", wrong_list,
     [("check {in}", 1, ["ignore-fused-name", "ignore-container", "ignore-prefix", "excluded-but-quantized"]), ("convert {in} {out} --to modelopt", 0, []), ("check --deep {out}", 0, ["good"])],
     "By hand, from the messages alone (entries written as expected, or dropped):", right_list),
    ("KV scales that were dropped", "The scales of one layer's KV cache were left out.", drop_kv,
     [("check {in}", 1, ["kv-scale-missing"]), ("convert {in} {out} --to modelopt --repair lossy", 1, [])],
     "By hand, from the message alone (the cache declared unquantized, the rest of its scales removed):", without_kv),
    ("Second-level scales of gate and up that differ", "In two layers the second-level scale of up was changed, by a power of two in one, by another factor in the other: engines take one scale for both matrices.", mismatch,
     [("check {in}", 1, ["fused-scale-mismatch"]), ("convert {in} {out} --to modelopt", 0, ["repaired", "--repair lossy"]),
      ("convert {in} {out} --to modelopt --repair lossy", 0, ["repaired"]), ("check --deep {out}", 0, ["good"]), ("inspect {out}", 0, ["history", "repaired"])], None, None),
]


def prepared(binary, model, scratch):
    """The source, and a good checkpoint with KV scales."""
    for arguments in (["quantize", model, scratch / "good", "--scheme", "nvfp4"], ["convert", model, scratch / "dense", "--to", "dense"]):
        subprocess.run([binary, *map(str, arguments), "--quiet"], check=True, stdout=subprocess.DEVNULL)
    edit(scratch / "good", lambda q: q.update(kv_cache_quant_algo="FP8"))
    weights = Weights(scratch / "good")
    for layer in range(layers(scratch / "good")):
        for name, value in (("k", 0.03125), ("v", 0.015625)):
            weights.set_scalar(f"model.layers.{layer}.self_attn.{name}_proj.{name}_scale", value)
    weights.save()
    done = subprocess.run([binary, "check", "--deep", str(scratch / "good")], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit("the checkpoint to damage is not good:\n" + done.stdout + done.stderr)


def shown(binary, text, places, code, words):
    arguments = [str(places.get(a, a)) for a in text.split()]
    if "{out}" in text and text.startswith("convert"):
        shutil.rmtree(places["{out}"], ignore_errors=True)
    done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=600)
    said = done.stderr + done.stdout if done.stderr else done.stdout
    missing = [w for w in words if w not in said]
    if done.returncode != code or missing:
        raise SystemExit(f"quantbridge {text}: exit code {done.returncode}, expected {code}; not said: {missing}\n{said}")
    for mark, place in places.items():
        said = said.replace(str(place), mark.strip("{}").upper())
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and " of anonymous memory" not in line]
    if text.startswith("convert") and code == 0:  # what check has said before
        lines = ["..."] + [line for line in lines if not line.startswith(("warning", "    found", "    expected", "    do"))]
    command = text.replace("{in}", "IN").replace("{out}", "OUT")
    return f"    $ quantbridge {command}\n" + "".join(f"    {line}\n" for line in lines) + f"    [exit code {code}]\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=pathlib.Path)
    parser.add_argument("--binary", default="build/dev/quantbridge")
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    page = [HEAD]
    with tempfile.TemporaryDirectory(prefix="quantbridge-damaged-") as folder:
        scratch = pathlib.Path(folder)
        prepared(options.binary, options.model, scratch)
        places = {"{in}": scratch / "in", "{out}": scratch / "out"}
        for number, (title, what, damage, commands, by_hand, way_back) in enumerate(DAMAGES, 1):
            print(title, file=sys.stderr)
            shutil.rmtree(places["{in}"], ignore_errors=True)
            shutil.copytree(scratch / "good", places["{in}"])
            damage(places["{in}"])
            page.append(f"## {number}. {title}\n\n{what}\n")
            page += [shown(options.binary, *c[:1], places, *c[1:]) for c in commands]
            if way_back is not None:
                way_back(places["{in}"])
                page += [by_hand + "\n", shown(options.binary, "check --deep {in}", places, 0, ["good"])]
    text = "\n".join(page)
    if options.write:
        options.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
