#!/usr/bin/env python3
"""Makes a checkpoint of the largest kind whose weights take no space: sparse files with real headers, for measuring what depends on the number of tensors alone.

    tools/make_index.py OUT [--format fp8|nvfp4] [--layers 97] [--experts 256] [--files 160]

Many layers of many experts with tiny matrices: FP8 in tiles as hf_fp8 has it (150,256 tensors), or NVFP4 as ModelOpt has it in a checkpoint of several algorithms,
with every linear listed by name and two scalars for each (300,024 tensors; --layers 48 makes 148,467).
"""
import argparse
import json
import struct
from pathlib import Path


def tensors(kind, layers, experts, hidden, inner):
    def linear(path, n, k):
        if kind == "fp8":
            tiles = [-(-n // 128), -(-k // 128)]
            yield path + ".weight", "F8_E4M3", [n, k], n * k
            yield path + ".weight_scale_inv", "F32", tiles, 4 * tiles[0] * tiles[1]
        else:
            yield path + ".weight", "U8", [n, k // 2], n * k // 2
            yield path + ".weight_scale", "F8_E4M3", [n, k // 16], n * k // 16
            yield path + ".weight_scale_2", "F32", [], 4
            yield path + ".input_scale", "F32", [], 4

    def plain(path, *shape):
        size = 2
        for n in shape:
            size *= n
        yield path + ".weight", "BF16", list(shape), size

    yield from plain("model.embed_tokens", 256, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield from plain(at + norm, hidden)
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield from linear(f"{at}self_attn.{name}", hidden, hidden)
        for norm in ("q_norm", "k_norm"):
            yield from plain(f"{at}self_attn.{norm}", 32)
        yield from plain(at + "mlp.gate", experts, hidden)
        for expert in range(experts):
            for name, n, k in (("gate_proj", inner, hidden), ("up_proj", inner, hidden), ("down_proj", hidden, inner)):
                yield from linear(f"{at}mlp.experts.{expert}.{name}", n, k)
    yield from plain("model.norm", hidden)
    yield from plain("lm_head", 256, hidden)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("out", type=Path)
    p.add_argument("--format", choices=["fp8", "nvfp4"], default="fp8")
    p.add_argument("--layers", type=int, default=97)
    p.add_argument("--experts", type=int, default=256)
    p.add_argument("--files", type=int, default=160)
    a = p.parse_args()
    hidden, inner = 256, 128
    a.out.mkdir(parents=True)
    everything = list(tensors(a.format, a.layers, a.experts, hidden, inner))
    weight_map, each = {}, -(-len(everything) // a.files)
    for i in range(a.files):
        name, header, at = f"model-{i + 1:05}-of-{a.files:05}.safetensors", {"__metadata__": {"format": "pt"}}, 0
        for tensor, dtype, shape, size in everything[i * each:(i + 1) * each]:
            header[tensor] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
            weight_map[tensor] = name
            at += size
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(a.out / name, "wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + at)
            for entry in header.values():  # scalars are looked at: those of zero would be problems
                if entry.get("shape") == []:
                    f.seek(8 + len(text) + entry["data_offsets"][0])
                    f.write(struct.pack("<f", 0.01))
    (a.out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if a.format == "fp8":
        quantization = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128], "modules_to_not_convert": ["lm_head"]}
    else:
        listed = [tensor.removesuffix(".weight_scale_2") for tensor, *_ in everything if tensor.endswith(".weight_scale_2")]
        gates = [f"model.layers.{layer}.mlp.gate" for layer in range(a.layers)]
        quantization = {"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "producer": {"name": "modelopt", "version": "0.47.0"}, "ignore": ["lm_head", *gates],
                        "quantized_layers": {path: {"quant_algo": "NVFP4", "group_size": 16} for path in listed}}
    (a.out / "config.json").write_text(json.dumps({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": hidden, "intermediate_size": inner, "moe_intermediate_size": inner,
        "num_hidden_layers": a.layers, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 32, "num_experts": a.experts, "num_experts_per_tok": 8,
        "decoder_sparse_step": 1, "mlp_only_layers": [], "vocab_size": 256, "rms_norm_eps": 1e-6, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
        "quantization_config": quantization}, indent=2))
    print(f"{len(everything)} tensors in {a.files} files")


if __name__ == "__main__":
    main()
