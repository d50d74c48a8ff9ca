#!/usr/bin/env python3
"""Writes docs/pains.md: what users report about quantized checkpoints, and what quantbridge says and does about each, by running it.

    tools/pains.py --fixtures DIR [--binary build/dev/quantbridge] [--write docs/pains.md]

DIR holds the producers' checkpoints and the broken ones (docs/conformance.md). Every command is run; a row whose command does not end as it says it does is an
error, and nothing is written. Needs Python 3 alone.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

# what users meet; where it was reported; what engines do; commands: (arguments, exit code, words that the output must have)
ROWS = [
    ("MIXED_PRECISION with an algorithm that the engine does not know", "vllm 55496, 54126, 54367, 37854; sglang 32740",
     "The layers are taken for unquantized ones: fluent nonsense, an empty answer or a KeyError.",
     [("check broken/algo_unknown", 1, ["algorithm-unsupported"]), ("check broken/mixed_wrong_layer", 1, ["algorithm-mismatch"]),
      ("convert broken/mixed_without_layers {out} --to modelopt", 0, ["layers-missing"])]),
    ("NVFP4 second-level scales differ within q/k/v or gate/up", "vllm 54974; TensorRT-LLM 14199; Model-Optimizer 1411",
     "They take the largest and leave the block scales: the other parts come out too large, up to ten times.",
     [("check --deep broken/nvfp4_qkv_global_pow2", 1, ["fused-scale-mismatch"]),
      ("convert broken/nvfp4_qkv_global_pow2 {out} --to modelopt", 0, ["fused-scale-mismatch"]),
      ("check --deep broken/nvfp4_qkv_global_other", 1, ["fused-scale-mismatch"])]),
    ("KV scales under unusual names", "vllm 54623, 25047, 15784, 32199", "Dropped to 1.0, with a line in the log at most.",
     [("check broken/kv_name_" + name, 1, ["kv-scale-name"]) for name in ("attn", "output", "qkv", "self_attn", "single")] +
     [("convert broken/kv_name_qkv {out} --to modelopt", 0, ["kv-scale-name"]), ("check broken/kv_name_homeless", 1, ["kv-scale-unclaimed"])]),
    ("tensor parallelism cuts through a block or a group", "vllm 49949, 52997, 42384, 41511",
     "A message about sizes, or scales cut at a rounded place.",
     [("check --tp 2 broken/tp_block_128_k_192", 1, ["cut-through-block", "--tp 1"])]),
    ("exclude lists: fused names, substrings, prefixes", "sglang 36596; vllm 47241, 28072",
     "Entries miss, or hit other layers (layers.1 hits layers.10): scales are asked for that are not there, or codes read as numbers.",
     [("check broken/ignore_fused_name", 1, ["ignore-fused-name"]), ("check broken/ignore_layer_1_and_10", 1, ["ignore-"]),
      ("check broken/ignore_substring", 0, ["ignore-"]), ("convert broken/ignore_fused_name {out} --to modelopt", 0, ["ignore-fused-name"])]),
    ("experts without input scales", "vllm 45212, 54189", "1/0, or every expert times 0.",
     [("check broken/moe_input_scale_missing", 1, ["input-scale-missing"])]),
    ("one scale under several names and ranks", "vllm 40182, 54126, 50617; sglang 19444",
     "A name that is not known is dropped, and the bare codes are used; a rank that is not known is broadcast.",
     [("check broken/scale_name_swap", 1, ["scale-name"]), ("convert broken/scale_name_swap {out} --to hf_fp8", 0, ["scale-name"]),
      ("check broken/scale_squeezed", 1, ["scale-rank"]), ("check modelopt/llama_ragged-fp8_pb_wo", 0, [])]),
    ("quantized heads and embeddings beside lists that deny it", "vllm 45102, 55496; TensorRT-LLM 17723",
     "The codes are read as numbers, or the scales are dropped.",
     [("check broken/ignored_but_quantized", 1, ["excluded-but-quantized"]), ("check broken/tied_quantized_embedding", 0, ["tied-embedding-quantized"])]),
    ("pre_quant_scale (AWQ, SVDQuant)", "vllm 45333, 45735; sglang 21053", "Refused, dropped, or right on one GPU only.",
     [("check broken/pre_quant_scale_partial", 1, ["fused-prescale-mismatch"]),
      ("run modelopt/llama-nvfp4_svdquant --ids 1,2,3 -n 4 --reference", 0, []),
      ("convert modelopt/llama-nvfp4_svdquant {out} --to dense", 0, [])]),
    ("several groups of schemes in one compressed-tensors checkpoint", "llama.cpp 28636, 27161; TensorRT-LLM 17723; vllm 49893", "Refused.",
     [("check compressed_tensors/mixed_fp8_nvfp4", 0, []), ("convert compressed_tensors/mixed_fp8_nvfp4 {out} --to modelopt", 0, [])]),
    ("lists of known versions lag behind producers", "vllm 37854, 30938", "Refused, although nothing that matters is new.",
     [("check compressed_tensors/legacy_nvfp4", 0, []), ("check broken/algo_unknown", 1, ["algorithm-unsupported"])]),
    ("the order of targets: class, name, regex", "llm-compressor 2730; vllm 12617, 49483", "The order in the file decides, or the first that matches.",
     [("check broken/ct_groups_overlap", 1, ["targets-overlap"]), ("inspect --layers compressed_tensors/mixed_bits", 0, [])]),
    ("quantizing while loading: memory, numerics, saving", "vllm 31805, 41022, 46400, 35329, 27280",
     "The whole BF16 model is held, the numbers are others than the offline tools', and the result cannot be saved.",
     [("quantize base/llama_small {out} --scheme fp8_channel:fp8_token --memory-budget 64MiB", 0, [])]),
    ("which kernel, and why", "vllm 45779, 44672, 30855, 57748", "An empty list of reasons, or none.",
     [("explain modelopt/llama-nvfp4", 0, [])]),
    ("matrices that are fused on disk", "vllm 42803, 41511; TensorRT-LLM 18659", "Cut as if they were one matrix.",
     [("check --tp 2 modelopt/phi3-fp8", 0, []), ("convert modelopt/phi3-fp8 {out} --to modelopt --tp 2 --rank 1", 0, [])]),
    ("ModelOpt's config_groups taken for compressed-tensors'", "Model-Optimizer convert_hf_config", "The flag dynamic, the strategy or the AWQ branch is wrong.",
     [("inspect modelopt/llama-int4_awq", 0, ["modelopt"])]),
    ("asymmetric, act-order and older packed files", "vllm compressed_tensors", "Refused by newer versions.",
     [("check compressed_tensors/legacy_w4a16_gptq_group_asym", 0, []),
      ("convert compressed_tensors/legacy_w4a16_gptq_group_asym {out} --to gptq", 0, [])]),
]

HEAD = """# What users report, and what happens here

Made by `tools/pains.py`, which runs every command below on checkpoints that the producers' tools wrote and on damaged ones: nobody edits this page.
Numbers behind "Reported" are public issues and pull requests of the named projects.
"""


def run(binary, fixtures, text, code, words):
    with tempfile.TemporaryDirectory() as scratch:
        out = pathlib.Path(scratch) / "out"
        arguments = [str(fixtures / a) if "/" in a and not a.startswith("-") and a != "{out}" else a.replace("{out}", str(out)) for a in text.split()]
        done = subprocess.run([binary, *arguments], capture_output=True, text=True, timeout=600)
        said = done.stdout + done.stderr
        after = ""
        if done.returncode == 0 and text.split()[0] in ("convert", "quantize"):
            again = subprocess.run([binary, "check", "--deep", "--json", str(out)], capture_output=True, text=True, timeout=600)
            problems = [p["code"] for p in json.loads(again.stdout)["problems"]]
            after = "`check --deep` of what was written: " + (", ".join(sorted(set(problems))) or "good")
        wrong = [w for w in words if w not in said]
        if done.returncode != code or wrong:
            raise SystemExit(f"quantbridge {text}: exit code {done.returncode}, expected {code}; not said: {wrong}\n{said}")
    said = said.replace(str(fixtures) + "/", "").replace(str(out), "OUT")
    timings = (" of anonymous memory", " tokens/s, ")  # another in each run
    lines = [line.rstrip() for line in said.splitlines() if line.strip() and not any(t in line for t in timings)]
    return [line[:160] for line in lines[:8]] + (["..."] if len(lines) > 8 else []), after


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", required=True, type=pathlib.Path)
    parser.add_argument("--binary", default="build/dev/quantbridge")
    parser.add_argument("--write", type=pathlib.Path)
    options = parser.parse_args()
    page = [HEAD]
    for number, (pain, reports, engines, commands) in enumerate(ROWS, 1):
        page.append(f"## {number}. {pain[0].upper() + pain[1:]}\n\nReported: {reports}. Engines: {engines}\n")
        for text, code, words in commands:
            print(f"{number:2} quantbridge {text}", file=sys.stderr)
            said, after = run(options.binary, options.fixtures, text, code, words)
            page.append("    $ quantbridge " + text.replace("{out}", "OUT") + "\n" + "".join(f"    {line}\n" for line in said) + f"    [exit code {code}]\n")
            if after:
                page.append(after + "\n")
    text = "\n".join(page)
    if options.write:
        options.write.write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
