"""Drives stock transformers and compressed-tensors on the CPU: load a checkpoint, decompress it in float32, run it.

Loading in float32 makes every scale that is stored as a float16 or bfloat16 number a float32 one of the same value, so the library's decompression is the exact product rounded once.
NVFP4 and MX are the exceptions: the library unpacks codes to bfloat16 and multiplies in that. There its own dequantize is called on the same codes in float32.
"""
import contextlib
import io
import json
import os
import re
import warnings
from pathlib import Path

for key, value in {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
    os.environ.setdefault(key, value)
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from compressed_tensors.compressors.base import decompress_module  # noqa: E402
from compressed_tensors.compressors.mx_utils import decompress_mx_scale  # noqa: E402
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8  # noqa: E402
from compressed_tensors.quantization import QuantizationStatus  # noqa: E402
from compressed_tensors.quantization.lifecycle.forward import dequantize  # noqa: E402
from loguru import logger  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

logger.disable("compressed_tensors")  # a line for each ragged matrix


class LoadError(Exception):
    pass


def load(directory, lost=None, **options):
    """The model in float32, still compressed. Any key that did not find its place is an error, except those that the pattern `lost` allows to be left over."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as e:  # whatever the library raises is the finding
        raise LoadError(f"{type(e).__name__}: {str(e)[:200]}") from e
    if lost:
        info["unexpected_keys"] = [k for k in info["unexpected_keys"] if not re.search(lost, k)]
    wrong = {k: sorted(map(str, v))[:3] for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    if wrong:
        raise LoadError(json.dumps(wrong))
    return model.eval()


def load_mxfp4(directory):
    """gpt_oss in MXFP4, dequantized by transformers while it loads, to bfloat16, which holds every such value."""
    return load(directory, quantization_config=transformers.Mxfp4Config(dequantize=True)).float()


def load_fp8(directory):
    """A checkpoint of quant_method fp8, dequantized by transformers while it loads: its kernels need a GPU."""
    quantization = json.loads((Path(directory) / "config.json").read_text()).get("quantization_config")
    if quantization is None:  # nothing was quantized
        return load(directory)
    keys = ("activation_scheme", "weight_block_size", "modules_to_not_convert")
    return load(directory, quantization_config=transformers.FineGrainedFP8Config(dequantize=True, **{k: quantization[k] for k in keys}))


def exact_float(module):
    """The weight of a module whose compressor computes in bfloat16 (NVFP4 and MX), by the library's own dequantize on the same codes in float32; None for all others."""
    scale = getattr(module, "weight_scale", None)
    packed = getattr(module, "weight_packed", None)
    if scale is None or scale.dtype not in (torch.uint8, torch.float8_e4m3fn):
        return None
    codes = module.weight if packed is None else unpack_fp4_from_uint8(packed, packed.shape[0], 2 * packed.shape[1])
    values = decompress_mx_scale(scale) if scale.dtype == torch.uint8 else scale
    return dequantize(x_q=codes.float(), scale=values.float(), args=module.quantization_scheme.weights, dtype=torch.float32,
                      global_scale=getattr(module, "weight_global_scale", None))


def decompress(model):
    """The library decompresses every module; returns {module path: float32 weight}."""
    weights = {}
    for path, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if getattr(module, "quantization_status", None) != QuantizationStatus.COMPRESSED or getattr(scheme, "weights", None) is None:
            continue
        exact = exact_float(module)
        decompress_module(module)
        if exact is not None:
            module.weight.data = exact
        if module.weight.dtype != torch.float32:
            raise LoadError(f"{path} was decompressed to {module.weight.dtype}")
        weights[path] = module.weight.data
    if hasattr(model, "ct_decompress_hook"):
        model.ct_decompress_hook.remove()
        del model.ct_decompress_hook
    return weights


def exact_experts(model, dense):
    """Experts that the model holds stacked are decompressed while loading, in the 16 bits of their scales or bfloat16: they must be `dense`'s float32 ones rounded so, which then take
    their place. How many."""
    exact = dict(dense.named_parameters())
    count = 0
    for name, parameter in model.named_parameters():
        if parameter.dim() != 3 or ".experts." not in name:
            continue
        want = exact[name].data
        if not any(torch.equal(parameter.data.float(), want.to(narrow).float()) for narrow in (torch.bfloat16, torch.float16)):
            raise LoadError(f"{name} is not its exact values rounded to 16 bits")
        parameter.data = want
        count += 1
    return count


def widen(model):
    """What stays in bfloat16 beside stacked experts (routers, their biases) is stored in it: the same values in float32."""
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.bfloat16:
            tensor.data = tensor.data.float()


def run(model, ids, activations):
    for module in model.modules():
        if hasattr(module, "quantization_scheme"):
            module.quantization_enabled = activations
    with torch.no_grad():
        return model(ids).logits.float()


def expected_logits(fixture):
    path = Path(fixture) / "expected.logits"
    return load_file(str(path)) if path.exists() else None


def distance(got, want):
    """Largest difference relative to the largest logit; infinite when something is not finite."""
    if got.shape != want.shape or not bool(got.isfinite().all()):
        return float("inf")
    return float((got - want).abs().max() / want.abs().max())


def ids_for(model):
    return (torch.arange(24).reshape(2, 12) * 13 + 5) % model.config.vocab_size


DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "U8": torch.uint8, "I8": torch.int8, "I32": torch.int32, "F8_E4M3": torch.float8_e4m3fn}


def load_tensor(checkpoint, name):
    """One tensor of a checkpoints.Checkpoint; floating-point ones, except FP8, in float32."""
    dtype, shape, *_ = checkpoint.entries[name]
    t = torch.frombuffer(bytearray(checkpoint.data(name)), dtype=DTYPES[dtype]).reshape(shape)
    return t.float() if t.is_floating_point() and t.element_size() > 1 else t
