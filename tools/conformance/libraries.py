"""Drives stock transformers and compressed-tensors on the CPU: load a checkpoint, decompress it in float32, run it.

Loading in float32 makes every scale that is stored as a float16 or bfloat16 number a float32 one of the same value, so the library's decompression is the exact product rounded once.
NVFP4 is the exception: the library unpacks codes to bfloat16 and multiplies in that. There its own dequantize is called on the same codes in float32.
"""
import contextlib
import io
import json
import os
import warnings
from pathlib import Path

for key, value in {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
    os.environ.setdefault(key, value)
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from compressed_tensors.compressors.base import decompress_module  # noqa: E402
from compressed_tensors.compressors.nvfp4.helpers import unpack_fp4_from_uint8  # noqa: E402
from compressed_tensors.quantization import QuantizationStatus  # noqa: E402
from compressed_tensors.quantization.lifecycle.forward import dequantize  # noqa: E402
from safetensors.torch import load_file  # noqa: E402


class LoadError(Exception):
    pass


def load(directory, **options):
    """The model in float32, still compressed. Any key that did not find its place is an error."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars
            model, info = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, output_loading_info=True, **options)
    except Exception as e:  # whatever the library raises is the finding
        raise LoadError(f"{type(e).__name__}: {str(e)[:200]}") from e
    wrong = {k: sorted(map(str, v))[:3] for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    if wrong:
        raise LoadError(json.dumps(wrong))
    return model.eval()


def load_fp8(directory):
    """A checkpoint of quant_method fp8, dequantized by transformers while it loads: its kernels need a GPU."""
    quantization = json.loads((Path(directory) / "config.json").read_text())["quantization_config"]
    keys = ("activation_scheme", "weight_block_size", "modules_to_not_convert")
    return load(directory, quantization_config=transformers.FineGrainedFP8Config(dequantize=True, **{k: quantization[k] for k in keys}))


def exact_nvfp4(module):
    rows, packed = module.weight_packed.shape
    codes = unpack_fp4_from_uint8(module.weight_packed, rows, 2 * packed).float()
    return dequantize(x_q=codes, scale=module.weight_scale.float(), args=module.quantization_scheme.weights, dtype=torch.float32, global_scale=module.weight_global_scale)


def decompress(model):
    """The library decompresses every module; returns {module path: float32 weight}."""
    weights = {}
    for path, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if getattr(module, "quantization_status", None) != QuantizationStatus.COMPRESSED or getattr(scheme, "weights", None) is None:
            continue
        exact = exact_nvfp4(module) if hasattr(module, "weight_packed") and hasattr(module, "weight_global_scale") else None
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


DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32, "U8": torch.uint8, "F8_E4M3": torch.float8_e4m3fn}


def load_tensor(checkpoint, name):
    """One tensor of a checkpoints.Checkpoint, floating-point ones in float32."""
    dtype, shape, *_ = checkpoint.entries[name]
    t = torch.frombuffer(bytearray(checkpoint.data(name)), dtype=DTYPES[dtype]).reshape(shape)
    return t.float() if t.is_floating_point() and t.element_size() > 1 else t
