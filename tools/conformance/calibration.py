#!/usr/bin/env python3
"""Static scales as the producers measure them, with their models in float32: what tests/calibration_test.cc expects.

    calibration.py BASES OUT [--only NAME]

BASES holds source models (directories with config.json), OUT gets expected.json and ids.safetensors. Needs nvidia-modelopt 0.47, llmcompressor 0.14 and
transformers 5.17, on the CPU. Each producer runs the same token ids, one sample at a time, through the unquantized model; nothing of what it writes is changed:
the scales are read from the checkpoints that it saves.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import warnings
from contextlib import nullcontext
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
from safetensors import safe_open
from safetensors.torch import save_file

VOCAB = 320
SCALE = re.compile(r"\.(input_scale|input_global_scale|input_zero_point|k_scale|v_scale)$")
# (scheme, KV) by producer; every base gets the first of each, the dense ones of `thorough` all.
MODELOPT = [("FP8_DEFAULT_CFG", True), ("NVFP4_DEFAULT_CFG", False), ("INT8", False)]
COMPRESSOR = [("FP8", True), ("NVFP4", False), ("INT8", False), ("INT8_ASYM", False)]
WORDS = {
    "FP8_DEFAULT_CFG": "fp8_tensor:fp8_tensor_static",
    "FP8": "fp8_tensor:fp8_tensor_static",
    "NVFP4_DEFAULT_CFG": "nvfp4:nvfp4",
    "NVFP4": "nvfp4:nvfp4",
    "INT8": "int8_channel:int8_tensor_static",
    "INT8_ASYM": "int8_channel:int8_tensor_asym_static",
}


def samples(base=None, n=16, t=24, seed=7):
    g = torch.Generator().manual_seed(seed)
    ids = [torch.randint(5, VOCAB, (1, t), generator=g) for _ in range(n)]
    if base is None:
        return ids
    config = json.loads((Path(base) / "config.json").read_text())
    vocab = config.get("text_config", config)["vocab_size"]
    return [x % vocab for x in ids]


def tokenizer():  # oneshot wants one; the data are ids
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), pad_token="</s>")


def scales_of(directory):
    out = {}
    for file in sorted(Path(directory).glob("*.safetensors")):
        with safe_open(file, "pt") as f:
            for name in f.keys():
                if SCALE.search(name):
                    values = f.get_tensor(name).double().flatten()
                    assert len(values) == 1, name
                    out[name] = float(values[0])
    return out


def with_modelopt(base, scheme, kv, out):
    import copy

    import modelopt.torch.quantization as mtq
    import transformers
    from modelopt.torch.export import export_hf_checkpoint
    from modelopt.torch.quantization.config import _load_quantize_config_dict

    # Of attention: the other implementation has no caps of scores. Of experts: ModelOpt sees the inputs of no other.
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    model.config._experts_implementation = "eager"
    if scheme == "INT8":
        off = [e for e in mtq.FP8_DEFAULT_CFG["quant_cfg"][1:] if e.get("enable") is False]
        config = {
            "quant_cfg": [
                {"quantizer_name": "*", "enable": False},
                {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
                {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8}},
            ]
            + copy.deepcopy(off),
            "algorithm": "max",
        }
    else:
        config = copy.deepcopy(getattr(mtq, scheme))
    if kv:
        config["quant_cfg"] = list(config["quant_cfg"]) + copy.deepcopy(_load_quantize_config_dict("configs/ptq/presets/kv/fp8")["quant_cfg"])
    model = mtq.quantize(model, config, lambda m: [m(x) for x in samples(base)])
    with torch.inference_mode():
        export_hf_checkpoint(model, export_dir=out)


def with_compressor(base, scheme, kv, out):
    import datasets
    import transformers
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from llmcompressor.modeling.moe.linearize import load_quantizable_moe
    from llmcompressor.modifiers.quantization import QuantizationModifier

    config = json.loads((Path(base) / "config.json").read_text())
    moe = any("expert" in k for k in config)
    renamed = nullcontext()
    if config["model_type"] == "mixtral":
        from llmcompressor.modeling.moe.conversion_mappings import patch_moe_mappings
        from transformers.core_model_loading import WeightRenaming

        renamed = patch_moe_mappings(
            "mixtral",
            [
                WeightRenaming(source_patterns=rf"\.experts\.(\d+)\.{a}\.", target_patterns=rf".experts.\1.{b}.")
                for a, b in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj"))
            ],
            [".experts.gate_up_proj", ".experts.down_proj", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        )
    with renamed, load_quantizable_moe() if moe else nullcontext():
        model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ignore = ["lm_head", "re:.*mlp.gate$", "re:.*block_sparse_moe.gate$", "re:.*shared_expert_gate$"]
    more = {"kv_cache_scheme": QuantizationArgs(num_bits=8, type="float", strategy="tensor", symmetric=True, dynamic=False)} if kv else {}
    if scheme.startswith("INT8"):
        args = dict(num_bits=8, type="int", strategy="tensor", dynamic=False, observer="static_minmax", symmetric=scheme == "INT8")
        group = QuantizationScheme(
            targets=["Linear"],
            weights=QuantizationArgs(num_bits=8, type="int", strategy="channel"),
            input_activations=QuantizationArgs(**args),
        )
        recipe = QuantizationModifier(config_groups={"group_0": group}, ignore=ignore, **more)
    else:
        recipe = QuantizationModifier(targets="Linear", scheme=scheme, ignore=ignore, **more)
    rows = [x[0].tolist() for x in samples(base)]
    data = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    # The model's own forward: the default pipeline traces it, and loses the causal mask of families that may have windows.
    oneshot(model=model, recipe=recipe, dataset=data, pipeline="basic", max_seq_length=32, num_calibration_samples=len(rows), processor=tokenizer(), shuffle_calibration_samples=False)
    model.save_pretrained(out, save_compressed=True)


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("bases")
    parser.add_argument("out")
    parser.add_argument("--only", default="", metavar="NAME")
    parser.add_argument("--thorough", default="llama_small,llama_mini1")
    options = parser.parse_args()
    torch.set_num_threads(1)
    out = Path(options.out)
    bases = sorted(c.parent for c in Path(options.bases).glob("*/config.json"))
    if not options.only:  # a process for each: what ModelOpt keeps of one model makes it take the experts' inputs of the next for something else
        for base in bases:
            subprocess.run([sys.executable, __file__, options.bases, options.out, "--only", base.name, "--thorough", options.thorough], check=True)
        return
    file = out / "expected.json"
    cases = json.loads(file.read_text())["cases"] if file.exists() else []
    have = {(c["base"], c["numerics"], c["label"]) for c in cases}
    for base in bases:
        if base.name != options.only:
            continue
        for numerics, table, make in (("modelopt", MODELOPT, with_modelopt), ("llm-compressor", COMPRESSOR, with_compressor)):
            for scheme, kv in table if base.name in options.thorough.split(",") else table[:1]:
                if (base.name, numerics, scheme) in have:
                    continue
                with tempfile.TemporaryDirectory() as d:
                    try:
                        make(base, scheme, kv, d)
                        scales = scales_of(d)
                        assert scales
                    except Exception as e:  # a family that this producer does not run
                        print("left out", base.name, numerics, scheme, type(e).__name__, str(e)[:300], flush=True)
                        continue
                cases.append(dict(base=base.name, numerics=numerics, label=scheme, scheme=WORDS[scheme], kv=kv, scales=dict(sorted(scales.items()))))
                print("made", base.name, numerics, scheme, len(scales), flush=True)
                file.write_text(json.dumps({"cases": cases}, indent=1) + "\n")
    save_file({"input_ids": torch.cat(samples())}, str(out / "ids.safetensors"))


if __name__ == "__main__":
    main()
