"""gptqmodel's and AutoAWQ's own unpacking on the files that quantbridge wrote: what they say each matrix is. On the CPU, in float32."""
import contextlib
import hashlib
import importlib.util
import io
import warnings
from pathlib import Path

import libraries
import torch

warnings.filterwarnings("ignore")


def available(dialect):
    return importlib.util.find_spec({"gptq": "gptqmodel", "awq": "awq"}[dialect]) is not None


class Unreadable(Exception):
    pass


def gptq_matrix(path, tensors, q):
    """The matrix [n, k] of one module by gptqmodel's torch kernel, under its own reading of rules for single modules."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization.config import FORMAT, dynamic_get
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    q = q | (dynamic_get(q.get("dynamic"), path) or {})
    bits, group = q["bits"], q["group_size"]
    form = FORMAT(q.get("checkpoint_format", "gptq"))
    n, k = tensors["scales"].shape[1], tensors["qweight"].shape[0] * 32 // bits
    module = TorchLinear(bits=bits, group_size=group, sym=q.get("sym", True), desc_act=q.get("desc_act", False), in_features=k, out_features=n, format=form)
    for name, value in tensors.items():
        setattr(module, name, value)
    if form == FORMAT.GPTQ:
        convert_gptq_v1_to_v2_format_module(module, bits, torch.int32)
    return module.dequantize_weight().T


def awq_matrix(_, tensors, q):
    """The same by AutoAWQ. Its file of packing functions is loaded alone: the package as a whole needs an older transformers."""
    if q.get("version", "gemm") != "gemm":
        raise Unreadable(f"AutoAWQ reads {q['version']} on a GPU only")
    path = Path(importlib.util.find_spec("awq").submodule_search_locations[0]) / "utils/packing_utils.py"
    spec = importlib.util.spec_from_file_location("awq_packing_utils", path)
    packing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(packing)
    group = q["group_size"] if q["group_size"] > 0 else tensors["qweight"].shape[0]
    return packing.dequantize_gemm(tensors["qweight"], tensors["qzeros"], tensors["scales"], q["bits"], group).T


def compare(checkpoint, expected, dialect):
    """(matrices compared, names of those whose hash is not the expected one)."""
    matrix = {"gptq": gptq_matrix, "awq": awq_matrix}[dialect]
    q = checkpoint.quantization()
    modules = [n.removesuffix(".qweight") for n in checkpoint.entries if n.endswith(".qweight")]
    wrong = []
    for path in modules:
        names = [n for n in checkpoint.entries if n.rsplit(".", 1)[0] == path and n.rsplit(".", 1)[1] in ("qweight", "qzeros", "scales", "g_idx")]
        with contextlib.redirect_stdout(io.StringIO()):  # gptqmodel greets
            values = matrix(path, {n.rsplit(".", 1)[1]: libraries.load_tensor(checkpoint, n) for n in names}, q).float().contiguous()
        if hashlib.sha256(values.numpy().tobytes()).hexdigest() != expected[path + ".weight"]["sha256"]:
            wrong.append(path)
    return len(modules), wrong
