"""ModelOpt's own tensor classes on the files that quantbridge wrote: what its dequantization says each matrix is."""
import warnings

import libraries
import torch

warnings.filterwarnings("ignore")


def available():
    """The package imports; which of its classes it needs is its own affair."""
    try:
        from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor  # noqa: F401
    except ImportError:
        return False
    return True


def dequantize(code, scale, scale_2):
    from modelopt.torch.quantization.qtensor import FP8QTensor, NVFP4QTensor

    rows, f32 = code.shape[0], torch.float32
    if code.dtype == torch.uint8:
        shape = torch.Size((rows, 2 * code.shape[1]))
        return NVFP4QTensor(shape, f32, code).dequantize(dtype=f32, scale=scale, double_scale=scale_2, block_sizes={-1: 16})
    tensor = FP8QTensor(code.shape, f32, code)
    if scale.dim() == 0:
        return tensor.dequantize(dtype=f32, scale=scale)
    if scale.dim() == 1:
        return tensor.dequantize(dtype=f32, scale=scale[:, None])
    blocks = [-(-n // 128) for n in code.shape]
    return tensor.dequantize(dtype=f32, scale=scale.reshape(blocks), block_sizes={-1: 128, -2: 128})


def compare(checkpoint, dense):
    """(matrices compared, largest |difference| relative to the largest value of its matrix). ModelOpt rounds the product of NVFP4's two scales to float32 first."""
    count, worst = 0, 0.0
    for name in checkpoint.entries:
        scale = name + "_scale"
        if not name.endswith(".weight") or scale not in checkpoint:
            continue
        kinds = (checkpoint.entries[name][0], checkpoint.entries[scale][0], name + "_scale_2" in checkpoint)
        if kinds not in (("U8", "F8_E4M3", True), ("F8_E4M3", "F32", False)):  # integers and MX: compressed-tensors' library dequantizes those
            continue
        second = libraries.load_tensor(checkpoint, name + "_scale_2") if name + "_scale_2" in checkpoint else None
        theirs = dequantize(libraries.load_tensor(checkpoint, name), libraries.load_tensor(checkpoint, scale), second)
        ours = libraries.load_tensor(dense, name)
        worst = max(worst, float((theirs - ours).abs().max() / ours.abs().max()))
        count += 1
    return count, worst
