#!/usr/bin/env python3
"""Weights that algorithms make are as good as the producers' own: made of the same model and the same token ids, what they do to the logits is no more than half a percent above what the producer's do.

The producers' checkpoints are those of the fixtures. Both run here with float32 activations, so that only the weights differ.
"""
import array
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

BINARY = os.environ["QUANTBRIDGE"]
SOURCE = Path(os.environ["QUANTBRIDGE_SOURCE"])
FIXTURES = [Path(p) for p in (os.environ.get("QUANTBRIDGE_FIXTURES"), SOURCE / "tests/data/fixtures") if p]
IDS = SOURCE / "tests/data/calibration/ids.safetensors"  # as the fixtures were calibrated with
BOUND = 1.005
CASES = [
    ("compressed_tensors/w4a16_awq", "llama_head", ["--scheme", "int4_g128", "--algorithm", "awq", "--to", "compressed_tensors"]),
    ("compressed_tensors/w4a16_gptq", "llama_head", ["--scheme", "int4_g128", "--algorithm", "gptq_in_order", "--to", "compressed_tensors"]),
    ("modelopt/llama-int4_awq", "llama_small", ["--scheme", "INT4_AWQ_CFG"]),
    ("modelopt/llama-w4a8_awq", "llama_small", ["--scheme", "W4A8_AWQ_BETA_CFG"]),
    ("modelopt/llama-nvfp4_awq_lite", "llama_small", ["--scheme", "NVFP4_AWQ_LITE_CFG"]),
    ("modelopt/llama-nvfp4_awq_clip", "llama_small", ["--scheme", "NVFP4_AWQ_CLIP_CFG"]),
    ("modelopt/llama-int8_sq", "llama_small", ["--scheme", "INT8_SMOOTHQUANT_CFG"]),
]


def found(name):
    return next((f / name for f in FIXTURES if (f / name / "config.json").exists()), None)


def run(*args):
    done = subprocess.run([BINARY, *map(str, args), "--quiet"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{args}: exit {done.returncode}; {done.stderr[-400:]}")


def logits(model, file):
    run("eval", model, "--ids", IDS, "--logits", file, "--activations", "f32")
    data = file.read_bytes()
    begin = 8 + int.from_bytes(data[:8], "little")
    first, last = json.loads(data[8:begin])["logits"]["data_offsets"]
    numbers = array.array("f")
    numbers.frombytes(data[begin + first:begin + last])
    return numbers


def error(truth, other):
    return (sum((a - b) ** 2 for a, b in zip(truth, other)) / sum(a * a for a in truth)) ** 0.5


def main():
    failures = compared = 0
    with tempfile.TemporaryDirectory() as scratch:
        tmp, truths = Path(scratch), {}
        for name, base, how in CASES:
            theirs, source = found(name), found(f"base/{base}")
            if theirs is None or source is None:
                continue
            if base not in truths:
                truths[base] = logits(source, tmp / "logits.safetensors")
            run("quantize", source, tmp / "ours", *how, "--calibrate", IDS, "--force")
            a, b = (error(truths[base], logits(m, tmp / "logits.safetensors")) for m in (tmp / "ours", theirs))
            print(f"{name:34} ours {a:.5f}, the producer's {b:.5f}: {100 * (a / b - 1):+.2f} %")
            failures += a > b * BOUND
            compared += 1
    sys.exit(1 if failures else 0 if compared else 77)


if __name__ == "__main__":
    main()
