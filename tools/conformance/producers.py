#!/usr/bin/env python3
"""A checkpoint of a producer's algorithm, made by the producer itself of a model and token ids: what tools/calibrated.py compares ours with.

    producers.py CASE MODEL IDS OUT        CASE is one of --list; IDS has input_ids [b, t]
    producers.py --ids N MODEL IDS         writes IDS: passages of the documentation that Python brings along, evenly spread; N, from 0, chooses others
    producers.py --first N MODEL OUT       the first N layers of a model of one file, in float32
    producers.py --compare A B             two dense checkpoints: prints which part of the weights of the layers are equal, but for a millionth of the largest

Needs llmcompressor 0.14, nvidia-modelopt 0.47 and transformers 5.17, on the CPU, in float32, which is kinder to them than bfloat16. ModelOpt quantizes NVFP4 while it calibrates by a kernel
for GPUs alone; here the same rounding is done by torch. Nothing of what is written is changed.
"""
import argparse
import copy
import json
import os
import re
import shutil
import sys
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
import transformers
from safetensors.torch import load_file, save_file

GROUP = 64
SAMPLES, TOKENS = 16, 256
AT_ONCE = 8  # samples


def compressor(model, ids, out, modifiers):
    import datasets
    from llmcompressor import oneshot

    torch.Tensor.pin_memory = lambda self, *a, **k: self  # AWQ pins memory for a device that is not there
    rows = ids.tolist()
    data = datasets.Dataset.from_dict({"input_ids": rows, "attention_mask": [[1] * len(r) for r in rows]})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    oneshot(model=loaded, recipe=modifiers(), dataset=data, max_seq_length=ids.shape[1], num_calibration_samples=len(rows),
            processor=transformers.AutoTokenizer.from_pretrained(model), shuffle_calibration_samples=False)
    loaded.save_pretrained(out, save_compressed=True)


def int4_scheme():
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    weights = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=GROUP, symmetric=True)
    return {"config_groups": {"group_0": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": ["lm_head"]}


def gptq():
    from llmcompressor.modifiers.gptq import GPTQModifier

    return GPTQModifier(**int4_scheme())


def awq():
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    return [AWQModifier(), QuantizationModifier(**int4_scheme())]


def smoothquant():
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier

    return [SmoothQuantModifier(), QuantizationModifier(targets="Linear", scheme="W8A8", ignore=["lm_head"])]


def e2m1(x):
    """To nearest, ties to even codes, at most 6. Steps are powers of two: every quotient is exact."""
    a = x.abs().clamp(max=6.0)
    step = torch.where(a < 2, 0.5, torch.where(a < 4, 1.0, 2.0))
    return torch.copysign(torch.round(a / step) * step, x)


def e4m3(x):
    return x.clamp(-448, 448).to(torch.float8_e4m3fn).float()


def nvfp4_on_cpu():
    import modelopt.torch.quantization.tensor_quant as tensor_quant

    stock = tensor_quant.dynamic_block_quantize_op

    def dynamic(inputs, block_size, amax, num_bits, exponent_bits, scale_num_bits, scale_exponent_bits):
        if (num_bits, exponent_bits, scale_num_bits, scale_exponent_bits) != (4, 2, 8, 4) or amax is None:
            return stock(inputs, block_size, amax, num_bits, exponent_bits, scale_num_bits, scale_exponent_bits)
        whole = (amax.float().amax() / (6 * 448)).clamp(min=1e-12)
        y = inputs.float().reshape(-1, block_size)
        s = e4m3(y.abs().amax(-1, keepdim=True) / (6 * whole)) * whole
        s = torch.where(s >= 1e-5, s, torch.ones_like(s))
        return (e2m1(y / s) * s).reshape(inputs.shape).to(inputs.dtype)

    tensor_quant.dynamic_block_quantize_op = dynamic
    tensor_quant.triton_kernel.IS_AVAILABLE = True


def modelopt(model, ids, out, name):
    import modelopt.torch.quantization as mtq
    from modelopt.torch.export import export_hf_checkpoint

    nvfp4_on_cpu()
    config = copy.deepcopy(getattr(mtq, name))
    for entry in config["quant_cfg"]:
        each = entry.get("cfg")
        for cfg in each if isinstance(each, list) else [each]:
            if cfg and cfg.get("num_bits") == 4 and -1 in cfg.get("block_sizes", {}):
                cfg["block_sizes"][-1] = GROUP
    loaded = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    loaded = mtq.quantize(loaded, config, lambda m: [m(x) for x in ids.split(AT_ONCE)])
    with torch.inference_mode():
        export_hf_checkpoint(loaded, export_dir=out)


CASES = {
    "llm-compressor GPTQ": lambda *a: compressor(*a, gptq),
    "llm-compressor AWQ": lambda *a: compressor(*a, awq),
    "llm-compressor SmoothQuant": lambda *a: compressor(*a, smoothquant),
} | {f"ModelOpt {name}": (lambda *a, name=name: modelopt(*a, f"{name}_CFG")) for name in ("INT4_AWQ", "NVFP4_AWQ_LITE", "NVFP4_AWQ_CLIP", "NVFP4_AWQ_FULL", "INT8_SMOOTHQUANT", "W4A8_AWQ_BETA")}


def write_ids(number, model, out):
    import pydoc_data.topics

    topics = pydoc_data.topics.topics
    ids = transformers.AutoTokenizer.from_pretrained(model)("\n\n".join(topics[k] for k in sorted(topics)), add_special_tokens=False)["input_ids"]
    step = (len(ids) - TOKENS) // (SAMPLES - 1)
    starts = [(i * step + int(number) * TOKENS) % (len(ids) - TOKENS + 1) for i in range(SAMPLES)]
    save_file({"input_ids": torch.tensor([ids[start : start + TOKENS] for start in starts])}, out)


def first_layers(count, model, out):
    model, out = Path(model), Path(out)
    out.mkdir(parents=True)
    tensors = load_file(model / "model.safetensors")
    layer = re.compile(r"model\.layers\.(\d+)\.")
    save_file({k: v.float() for k, v in tensors.items() if not (m := layer.match(k)) or int(m[1]) < int(count)}, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": int(count), "dtype": "float32", "torch_dtype": "float32"}))
    for file in model.glob("*token*.json"):
        shutil.copy(file, out)


def compare(a, b):
    a, b = (load_file(Path(x) / "model.safetensors") for x in (a, b))
    same = count = 0
    for name, x in a.items():
        if ".layers." not in name or x.dim() != 2:
            continue
        y = b[name].float()
        same += int(((x.float() - y).abs() <= 1e-6 * y.abs().max()).sum())
        count += y.numel()
    print(same / count)


def main():
    if sys.argv[1:2] == ["--first"]:
        return first_layers(*sys.argv[2:])
    if sys.argv[1:2] == ["--compare"]:
        return compare(*sys.argv[2:])
    if sys.argv[1:2] == ["--list"]:
        print("\n".join(CASES))
        return
    if sys.argv[1:2] == ["--ids"]:
        write_ids(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("model")
    parser.add_argument("ids")
    parser.add_argument("out")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        CASES[args.case](args.model, load_file(args.ids)["input_ids"].long(), args.out)
    for file in Path(args.model).glob("tokenizer*"):
        shutil.copy(file, args.out)


if __name__ == "__main__":
    main()
