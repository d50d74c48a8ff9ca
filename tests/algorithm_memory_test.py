#!/usr/bin/env python3
"""Algorithms stay within the memory that docs/quantization.md names, under a limit that the kernel keeps: of a model with many layers the whole would not fit.
Under half of that limit they say what is missing, and leave no output."""
import json
import os
import random
import resource
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

BINARY = os.environ["QUANTBRIDGE"]
HIDDEN, INNER, LAYERS, VOCAB = 256, 1024, 20, 320
MIB = 1 << 20
BUDGET = 8 * MIB
# The program with its libraries, one thread's stack, and what the C library keeps of what was freed.
PROGRAM = 10 * MIB


def tensors():
    yield "model.embed_tokens.weight", [VOCAB, HIDDEN]
    for layer in range(LAYERS):
        for name, shape in (("self_attn.q_proj", [HIDDEN, HIDDEN]), ("self_attn.k_proj", [HIDDEN, HIDDEN]), ("self_attn.v_proj", [HIDDEN, HIDDEN]), ("self_attn.o_proj", [HIDDEN, HIDDEN]),
                            ("mlp.gate_proj", [INNER, HIDDEN]), ("mlp.up_proj", [INNER, HIDDEN]), ("mlp.down_proj", [HIDDEN, INNER]), ("input_layernorm", [HIDDEN]), ("post_attention_layernorm", [HIDDEN])):
            yield f"model.layers.{layer}.{name}.weight", shape
    yield "model.norm.weight", [HIDDEN]
    yield "lm_head.weight", [VOCAB, HIDDEN]


def write(path, named):
    """[(name, dtype, shape, bytes)]"""
    header, at = {}, 0
    for name, dtype, shape, data in named:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for *_, data in named))


def bfloat16(rng, shape):
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if len(shape) == 1:
        return b"\x80\x3f" * count  # 1
    out = bytearray(2 * count)
    out[0::2] = rng.randbytes(count)
    out[1::2] = rng.randbytes(count).translate(bytes([0x3C, 0xBC] * 128))  # from 1/128 to 1/32, either sign
    return bytes(out)


def model(path):
    rng = random.Random(4)
    path.mkdir()
    (path / "config.json").write_text(json.dumps(dict(
        architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=LAYERS, num_attention_heads=4, num_key_value_heads=4,
        vocab_size=VOCAB, max_position_embeddings=256, rms_norm_eps=1e-5, rope_theta=10000.0, hidden_act="silu", tie_word_embeddings=False, torch_dtype="bfloat16")))
    write(path / "model.safetensors", [(name, "BF16", shape, bfloat16(rng, shape)) for name, shape in tensors()])


def main():
    if os.environ.get("QUANTBRIDGE_SANITIZE", "") not in ("", "OFF"):
        sys.exit(77)  # a sanitizer's own memory is no part of what is promised
    with tempfile.TemporaryDirectory() as scratch:
        tmp = Path(scratch)
        model(tmp / "dense")
        rng = random.Random(5)
        write(tmp / "ids.safetensors", [("input_ids", "I64", [4, 48], b"".join(struct.pack("<q", rng.randrange(VOCAB)) for _ in range(4 * 48)))])
        layer, products = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER), 4 * INNER * INNER
        # A layer's weights as they are stored and as kernels have them in float32, its results, and twice the widest sums of products.
        limit = PROGRAM + BUDGET + layer + 2 * layer + layer + 2 * products
        size = (tmp / "dense/model.safetensors").stat().st_size
        assert size > limit, f"{size} bytes fit under {limit}: nothing is shown"
        def under(private):
            return subprocess.run([BINARY, "quantize", tmp / "dense", tmp / "out", "--scheme", "int4_g64", "--algorithm", "gptq", "--to", "gptq", "--calibrate", tmp / "ids.safetensors",
                                   "--memory-budget", f"{BUDGET // MIB}MiB", "--threads", "1", "--json", "--quiet"], capture_output=True, text=True,
                                  preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (private, private)))

        # Far too little: said as what it is, by exit code too, and no output.
        refused = under(limit // 2)
        assert refused.returncode == 3 and "memory" in refused.stderr + refused.stdout and not (tmp / "out").exists(), (refused.returncode, refused.stderr)
        done = under(limit)
        peak = json.loads(done.stdout or "{}").get("peak_anonymous_bytes", 0)
        print(f"exit {done.returncode} under {limit / MIB:.1f} MiB of private memory, peak {peak / MIB:.1f} MiB, of a model of {size / MIB:.1f} MiB; {done.stderr[-200:]}")
    sys.exit(1 if done.returncode else 0)


if __name__ == "__main__":
    main()
