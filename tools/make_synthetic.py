#!/usr/bin/env python3
"""Writes a synthetic Llama checkpoint of about a given size: real shapes, weights that look like weights, no meaning. For tests of memory and speed.

  make_synthetic.py OUT_DIR --size 2GB [--dialect dense|modelopt-nvfp4] [--vocab N] [--shard-size 5GB] [--seed 1]

Runs with the standard library alone at the speed of the disk: tensors are cut at random places from a pool of values that is drawn once.
"""
import argparse
import array
import json
import random
import re
import struct
import sys
from pathlib import Path

from safetensors_io import header, tensor_bytes

# hidden, intermediate, heads, kv heads, vocabulary, used for checkpoints of up to this size. Rows: a toy, SmolLM2-135M, Llama 3.2 1B, Llama 3.1 8B.
SHAPES = [(64 << 20, 64, 192, 4, 2, 512), (1 << 30, 576, 1536, 9, 3, 49152), (4 << 30, 2048, 8192, 32, 8, 128256), (1 << 62, 4096, 14336, 32, 8, 128256)]
POOL_VALUES = 1 << 20
UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def parse_size(text):
    m = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) *([A-Za-z]*)", text)
    if not m or m[2].upper() not in UNITS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 2GB or 512MiB")
    return int(float(m[1]) * UNITS[m[2].upper()])


class Pool:
    """Bytes to cut tensors from, with no alignment coarser than one element."""

    def __init__(self, data, item, rng):
        self.data, self.item, self.rng = memoryview(bytes(data)), item, rng

    def write(self, f, size):
        while size > 0:
            at = self.rng.randrange(len(self.data) // 2 // self.item) * self.item
            n = min(size, len(self.data) - at)
            f.write(self.data[at:at + n])
            size -= n


def bf16(values):
    """The upper halves of the float32 values: BF16, rounded towards zero."""
    raw = array.array("f", values)
    if sys.byteorder == "big":
        raw.byteswap()
    raw = raw.tobytes()
    out = bytearray(len(raw) // 2)
    out[0::2], out[1::2] = raw[2::4], raw[3::4]
    return out


def e2m1_nibble(rng):
    """A code as quantizing normal values in blocks of 16 gives it: magnitudes 0, .5, 1, 1.5, 2, 3, 4, 6."""
    x = abs(rng.gauss(0, 2.5))
    return (rng.getrandbits(1) << 3) | sum(x > t for t in (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0))


def layer_tensors(hidden, inter, heads, kv, layer):
    head = hidden // heads
    p = f"model.layers.{layer}."
    linears = [("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv * head, hidden), ("self_attn.v_proj", kv * head, hidden),
               ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", inter, hidden), ("mlp.up_proj", inter, hidden), ("mlp.down_proj", hidden, inter)]
    return [(p + n, rows, cols) for n, rows, cols in linears], [p + "input_layernorm", p + "post_attention_layernorm"]


# The scalars of one NVFP4 linear; parts of a fused linear (q,k,v and gate,up) share them, as ModelOpt writes them.
def fused_key(path):
    return re.sub(r"\.(q|k|v)_proj$", ".qkv", re.sub(r"\.(gate|up)_proj$", ".gate_up", path))


def plan(shape, layers, nvfp4):
    """[(name, dtype, shape, what)] in the order in which it is written; `what` names the pool."""
    hidden, inter, heads, kv, vocab = shape
    out = [("model.embed_tokens.weight", "BF16", [vocab, hidden], "weight")]
    for i in range(layers):
        linears, norms = layer_tensors(hidden, inter, heads, kv, i)
        out += [(n + ".weight", "BF16", [hidden], "norm") for n in norms]
        for path, n, k in linears:
            if nvfp4:
                out += [(path + ".weight", "U8", [n, k // 2], "codes"), (path + ".weight_scale", "F8_E4M3", [n, k // 16], "scales"),
                        (path + ".weight_scale_2", "F32", [], "global"), (path + ".input_scale", "F32", [], "input")]
            else:
                out.append((path + ".weight", "BF16", [n, k], "weight"))
    return out + [("model.norm.weight", "BF16", [hidden], "norm"), ("lm_head.weight", "BF16", [vocab, hidden], "weight")]


def total(tensors):
    return sum(tensor_bytes(dtype, dims) for _, dtype, dims, _ in tensors)


def shards(tensors, limit):
    out, size = [[]], 0
    for t in tensors:
        n = tensor_bytes(t[1], t[2])
        if out[-1] and size + n > limit:
            out.append([])
            size = 0
        out[-1].append(t)
        size += n
    return out


def write_config(out, shape, layers, nvfp4):
    hidden, inter, heads, kv, vocab = shape
    config = {"architectures": ["LlamaForCausalLM"], "attention_bias": False, "bos_token_id": 0, "dtype": "bfloat16", "eos_token_id": 1,
              "head_dim": hidden // heads, "hidden_act": "silu", "hidden_size": hidden, "initializer_range": 0.02, "intermediate_size": inter,
              "max_position_embeddings": 8192, "mlp_bias": False, "model_type": "llama", "num_attention_heads": heads, "num_hidden_layers": layers,
              "num_key_value_heads": kv, "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False, "vocab_size": vocab}
    if nvfp4:
        producer = {"name": "modelopt", "version": "0.47.0"}
        part = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
        config["quantization_config"] = {"config_groups": {"group_0": {"input_activations": part, "weights": part, "targets": ["Linear"]}},
                                         "ignore": ["lm_head", "model.embed_tokens"], "quant_algo": "NVFP4", "producer": producer, "quant_method": "modelopt"}
        quant = {"quant_algo": "NVFP4", "kv_cache_quant_algo": None, "group_size": 16, "exclude_modules": ["lm_head", "model.embed_tokens"]}
        (out / "hf_quant_config.json").write_text(json.dumps({"producer": producer, "quantization": quant}, indent=4) + "\n")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=parse_size, required=True)
    parser.add_argument("--dialect", choices=["dense", "modelopt-nvfp4"], default="dense")
    parser.add_argument("--vocab", type=int, help="size of the vocabulary (default: the real model's)")
    parser.add_argument("--shard-size", type=parse_size, default=parse_size("5GB"))
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    nvfp4 = args.dialect == "modelopt-nvfp4"

    shape = next(s[1:] for s in SHAPES if args.size <= s[0])
    if args.vocab:
        shape = (*shape[:4], args.vocab)
    base = total(plan(shape, 0, nvfp4))
    layer = total(plan(shape, 1, nvfp4)) - base
    layers = max(1, round((args.size - base) / layer))
    tensors = plan(shape, layers, nvfp4)

    rng = random.Random(args.seed)
    pools = {"weight": Pool(bf16([rng.gauss(0, 0.02) for _ in range(POOL_VALUES)]), 2, rng), "norm": Pool(bf16([rng.gauss(1, 0.1) for _ in range(1 << 14)]), 2, rng)}
    if nvfp4:
        # 65536 drawn codes, then shuffled by random picks: a byte pool of 2 MiB costs little and repeats nothing at a fixed distance.
        codes = bytes(e2m1_nibble(rng) | e2m1_nibble(rng) << 4 for _ in range(1 << 16))
        pools["codes"] = Pool(bytes(rng.choices(codes, k=2 * POOL_VALUES)), 1, rng)
        pools["scales"] = Pool(bytes(min(0x7E, max(1, round(rng.gauss(0x68, 6)))) for _ in range(POOL_VALUES // 4)), 1, rng)
    shared = {}

    def scalar(name, what):
        key = (fused_key(name.rsplit(".", 1)[0]), what)
        if key not in shared:
            shared[key] = struct.pack("<f", rng.uniform(0.05, 0.2) / 2688 if what == "global" else rng.uniform(5, 50) / 2688)
        return shared[key]

    args.out.mkdir(parents=True, exist_ok=True)
    parts = shards(tensors, args.shard_size)
    names = ["model.safetensors"] if len(parts) == 1 else [f"model-{i + 1:05}-of-{len(parts):05}.safetensors" for i in range(len(parts))]
    for file, part in zip(names, parts):
        with open(args.out / file, "wb") as f:
            f.write(header([t[:3] for t in part]))
            for name, dtype, dims, what in part:
                if what in pools:
                    pools[what].write(f, tensor_bytes(dtype, dims))
                else:
                    f.write(scalar(name, what))
    if len(parts) > 1:
        weight_map = {t[0]: file for file, part in zip(names, parts) for t in part}
        index = {"metadata": {"total_size": total(tensors)}, "weight_map": weight_map}
        (args.out / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    write_config(args.out, shape, layers, nvfp4)
    print(f"{args.out}: {len(tensors)} tensors, {total(tensors):,} bytes in {len(parts)} file(s), {layers} layers of hidden size {shape[0]}")


if __name__ == "__main__":
    main()
