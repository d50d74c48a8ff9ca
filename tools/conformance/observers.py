#!/usr/bin/env python3
"""What the producers' own calibrators make of numbers that a formula says: what tests/observers_test.cc expects.

    observers.py OUT        writes OUT/observers.json

Needs nvidia-modelopt 0.47 and llmcompressor 0.14, on the CPU. Numbers: sample s of `samples` has `count` of them; number i is ((h >> 16) - 32768)^3 / 2^45 * (16 + s) / 16 with
h = (2654435761 i + 40503 s) mod 2^32, in float64, rounded to float32: symmetric with few large ones, and each sample reaches further than the one before.
"""
import json
import sys
from pathlib import Path

import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.observers.base import Observer
from modelopt.torch.quantization.calib import histogram as calib_histogram
from modelopt.torch.quantization.calib.histogram import HistogramCalibrator
from modelopt.torch.quantization.tensor_quant import _tensor_quant, fp8_eager

# ModelOpt's search for the least error calls its own rounding with an argument too few (FP8), or in the places of others (integers): here with those that it means.
calib_histogram.scaled_e4m3 = lambda x, amax, *_: fp8_eager(x, amax)
calib_histogram.fake_tensor_quant = lambda x, amax, bits, unsigned: _tensor_quant(x, amax, bits, unsigned)

SAMPLES, COUNT = 4, 6144
FORMATS = {"int8_tensor_static": 8, "int4_tensor_static": 4, "fp8_tensor_static": (4, 3)}


def sample(s):
    h = (np.arange(COUNT, dtype=np.uint64) * np.uint64(2654435761) + np.uint64(40503 * s)) % np.uint64(1 << 32)
    a = (h >> np.uint64(16)).astype(np.float64) - 32768
    return torch.from_numpy((a**3 / 2.0**45 * (16 + s) / 16).astype(np.float32)).reshape(-1, 64)


def histogram(method, activation, **how):
    calibrator = HistogramCalibrator(num_bits=FORMATS[activation])
    for s in range(SAMPLES):
        calibrator.collect(sample(s))
    return float(calibrator.compute_amax(method, **how))


def compressor(name, activation, **how):
    bits = FORMATS[activation.replace("_asym", "")]
    kind = dict(num_bits=8, type="float") if isinstance(bits, tuple) else dict(num_bits=bits, type="int")
    args = QuantizationArgs(**kind, strategy="tensor", dynamic=False, symmetric="asym" not in activation, observer=name, observer_kwargs=how)
    observer = Observer.load_from_registry(name, base_name="input", args=args)
    for s in range(SAMPLES):
        observer(sample(s).unsqueeze(0))
    return float(observer.min_vals), float(observer.max_vals)


def main():
    cases = []
    for percent in (50, 99, 99.9, 99.99, 100):
        cases.append(dict(observer=f"percentile:{percent}", numerics="modelopt", activation="fp8_tensor_static", amax=histogram("percentile", "fp8_tensor_static", percentile=percent)))
    for activation in FORMATS:
        cases.append(dict(observer="mse", numerics="modelopt", activation=activation, amax=histogram("mse", activation)))
    for activation in ("int8_tensor_static", "int4_tensor_static"):
        cases.append(dict(observer="entropy", numerics="modelopt", activation=activation, amax=histogram("entropy", activation)))
    for share in (0.01, 0.25):
        least, most = compressor("minmax", "int8_tensor_static", averaging_constant=share)
        cases.append(dict(observer=f"average:{share}", numerics="llm-compressor", activation="int8_tensor_static", least=least, most=most))
    for activation in ("int8_tensor_static", "int4_tensor_static", "int8_tensor_asym_static", "fp8_tensor_static"):
        least, most = compressor("mse", activation)
        cases.append(dict(observer="mse", numerics="llm-compressor", activation=activation, least=least, most=most))
    (Path(sys.argv[1]) / "observers.json").write_text(json.dumps(dict(samples=SAMPLES, count=COUNT, cases=cases), indent=1) + "\n")


if __name__ == "__main__":
    main()
