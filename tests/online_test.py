"""`--quantization`: the tokens of what `quantize` writes, in the memory of the result, and other activations for weights that are quantized already."""
import json, os, shutil, sys, tempfile
from pathlib import Path

from program import DATA, SOURCE, expect, failures, run

MODEL = Path(os.environ.get("QUANTBRIDGE_SMOLLM2") or SOURCE / "build/models/SmolLM2-135M-Instruct")


def ids(what, *args):
    r = run("run", *args, "--json")
    expect(what, r.returncode == 0, f"exit {r.returncode}: {r.stderr[:400]} {r.stdout[:400]}")
    return json.loads(r.stdout) if r.returncode == 0 else {}


def refused(what, code, words, *args):
    r = run(*args)
    expect(what, r.returncode == code and all(w in r.stderr for w in words), f"exit {r.returncode}, {r.stderr[:600]}")


# ModelOpt's label says nothing of activations by group, so its own form would be another scheme.
WRITTEN = {"fp8_per_block": ["--to", "hf_fp8", "--numerics", "modelopt"]}


def same_tokens(tmp, model, prompt, schemes):
    for scheme in schemes:
        out = tmp / f"{model.name}-{scheme.replace(':', '-')}"
        r = run("quantize", "--quiet", model, out, "--scheme", scheme, *WRITTEN.get(scheme, []))
        expect(f"quantize {scheme}", r.returncode == 0, r.stderr)
        stored, online = ids(f"stored {scheme}", out, *prompt), ids(f"online {scheme}", model, *prompt, "--quantization", scheme)
        expect(f"tokens of {model.name} as {scheme}", stored.get("ids") == online.get("ids"), f"{stored.get('ids')} {online.get('ids')}")
        expect(f"weights of {model.name} as {scheme}", stored.get("packed_weight_bytes") == online.get("packed_weight_bytes"))
        if model == MODEL:
            above = online["peak_anonymous_bytes"] - online["packed_weight_bytes"] - online["kv_bytes"]
            print(f"{scheme}: {above / 2**20:.1f} MiB above {online['packed_weight_bytes'] / 2**20:.1f} MiB of weights")
            expect(f"memory of {scheme}", above <= 64 * 2**20, above)


def main(tmp):
    small, nvfp4 = DATA / "base/llama_small", DATA / "modelopt/llama-nvfp4-kv_fp8"
    prompt = ["--ids", "5,6,7,8", "-n", "8"]
    same_tokens(tmp, small, prompt, ["nvfp4", "fp8_per_channel", "MXFP8_DEFAULT_CFG", "int4_g128"])
    if MODEL.exists() and not os.environ.get("QUANTBRIDGE_SANITIZE"):  # sanitizers keep freed memory, and take minutes for the arithmetic
        same_tokens(tmp, MODEL, ["--ids", "504,3575,282,4649,314", "-n", "12", "--threads", "2"], ["nvfp4", "fp8_per_block", "int8_per_channel_weight_only"])

    # the budget bounds what is above the result
    refused("no size", 2, ["lots"], "run", small, *prompt, "--quantization", "nvfp4", "--memory-budget", "lots")
    refused("a budget too small", 3, ["budget"], "run", small, *prompt, "--quantization", "fp8_per_block", "--memory-budget", "16k")

    # names, kinds, keys
    mixed = '{"linear": {"weight": "fp8_channel", "activation": "fp8_token"}, "overrides": [{"match": "down_proj", "scheme": "nvfp4"}]}'
    r = run("explain", "--json", small, "--quantization", mixed)
    expect("explain", r.returncode == 0, r.stderr)
    problems = {l["path"].split(".")[-1]: l["problem"] for l in json.loads(r.stdout or "{}").get("layers", [])}
    expect("explain", "fp8_channel:fp8_token" in problems.get("q_proj", "") and "nvfp4" in problems.get("down_proj", ""), problems)
    refused("a slip", 2, ["near names", "nvfp4"], "run", small, *prompt, "--quantization", "nvfp5")
    refused("calibration", 1, ["static activation scales"], "run", small, *prompt, "--quantization", "NVFP4")

    # activations of quantized weights
    as_stored, plain = ids("as stored", nvfp4, *prompt), ids("bf16", nvfp4, *prompt, "--quantization-config.linear.activation", "bf16")
    expect("both run", as_stored.get("ids") and plain.get("ids"))
    # W4A4 without its activations' quantization is what --activations bf16 computes; MXFP4 experts compute something else with MXFP8 activations, and not much
    text = ["--text", SOURCE / "README.md", "--ctx", "64", "--json"]
    w4a4 = shutil.copytree(DATA / "compressed_tensors/legacy_nvfp4", tmp / "w4a4")
    shutil.copy(nvfp4 / "tokenizer.json", w4a4)
    values = [json.loads(run("eval", w4a4, *text, *words).stdout or "{}").get("perplexity") for words in ([], ["--activations", "bf16"], ["--quantization-config.linear.activation", "bf16"])]
    expect("W4A16 of W4A4", values[1] is not None and values[1] == values[2] != values[0], values)
    experts = DATA / "hf_mxfp4/gpt_oss_edges"
    as_it_is, other = ids("experts", experts, *prompt), ids("experts", experts, *prompt, "--quantization", '{"moe": {"activation": "mxfp8"}}')
    expect("MXFP8 activations of MXFP4 experts", as_it_is.get("ids") and other.get("ids"))
    refused("activations that no kernel knows", 1, ["no kernel runs", "mxfp4:nvfp4_dyn"], "run", experts, *prompt, "--quantization-config.moe.activation", "nvfp4_dyn")
    r = run("explain", "--json", nvfp4, "--quantization", '{"linear": {"activation": "bf16"}}')
    kinds = {l["problem"].split()[-1] for l in json.loads(r.stdout or "{}").get("layers", [])}
    expect("no activations are quantized", kinds and not any("nvfp4:nvfp4" in l["problem"] for l in json.loads(r.stdout)["layers"]), kinds)
    refused("another weight", 1, ["already-quantized", "the configuration"], "explain", nvfp4, "--quantization", "mxfp8")
    refused("static scales that nobody measured", 1, ["calibration"], "explain", nvfp4, "--quantization-config.linear.activation", "fp8_tensor_static")


with tempfile.TemporaryDirectory() as tmp:
    main(Path(tmp))
print(f"{'FAILED' if failures else 'passed'} {len(failures)} failures")
sys.exit(1 if failures else 0)
