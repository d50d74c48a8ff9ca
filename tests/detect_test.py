"""What `check` finds in checkpoints that are damaged on purpose: every tensor that is dropped, numbers that no scale may have, and what only the data shows."""
import json, os, struct, subprocess, sys, tempfile
from pathlib import Path

SOURCE, BINARY = Path(os.environ["QUANTBRIDGE_SOURCE"]), os.environ["QUANTBRIDGE"]
DATA = SOURCE / "tests/data/fixtures"
sys.path.insert(0, str(SOURCE / "tools/stress"))
import mutate

failures = []


def mutants(*args, paths):
    r = subprocess.run([sys.executable, SOURCE / "tools/stress/mutate.py", *args, "--binary", BINARY, *(DATA / p for p in paths)], capture_output=True, text=True, timeout=600)
    if r.returncode != 0:
        failures.append(f"mutate.py {' '.join(args)}:\n{r.stdout}{r.stderr}")


def codes(path, *options):
    r = subprocess.run([BINARY, "check", *options, "--json", path], capture_output=True, text=True, timeout=120)
    return {p["code"] for p in json.loads(r.stdout)["problems"]}


def expect(code, tmp, case, damage, config=None, options=("--deep",)):
    """`damage` changes the bytes of tensors: a function of (name, entry, bytes) that gives new bytes or None."""
    c = mutate.Checkpoint(DATA / case)
    for name in c.names:
        begin, end = c.table[name]["data_offsets"]
        new = damage(name, c.table[name], bytes(c.data[begin:end]))
        if new is not None:
            assert len(new) == end - begin, name
            c.data[begin:end] = new
    if config is not None:
        whole = json.loads(c.documents["config.json"])
        config(whole)
        c.documents["config.json"] = json.dumps(whole).encode()
    into = Path(tempfile.mkdtemp(dir=tmp))
    mutate.write(into, c.table, c.data, c.documents)
    before, after = codes(DATA / case, *options), codes(into, *options)
    if code in before:
        failures.append(f"{case} has {code} already")
    if code not in after:
        failures.append(f"{code} is not found in {case}: {sorted(after)}")


def expect_header(code, tmp, case, change):
    """`change` gives another text of the header of the weights."""
    c = mutate.Checkpoint(DATA / case)
    into = Path(tempfile.mkdtemp(dir=tmp))
    mutate.write(into, c.table, c.data, c.documents, raw_header=change(json.dumps(c.table, separators=(",", ":"))).encode())
    before, after = codes(DATA / case), codes(into)
    if code in before or code not in after:
        failures.append(f"{code} in {case}: {sorted(before)}, damaged {sorted(after)}")


def one(tensor, change):
    return lambda name, entry, data: change(data) if name == tensor else None


def rows(first, count, n, value):
    """Some of the n rows of a matrix become one byte."""
    def change(data):
        size = len(data) // n
        return data[:first * size] + bytes([value]) * (count * size) + data[(first + count) * size:]
    return change


def columns(first, count, n):
    """Some columns of a matrix of 32-bit words with n columns become zeros."""
    def change(data):
        return b"".join(data[at:at + 4 * first] + bytes(4 * count) + data[at + 4 * (first + count):at + 4 * n] for at in range(0, len(data), 4 * n))
    return change


def main(tmp):
    mutants("--every-tensor", paths=["awq/llama_gemv_g128", "gptq/llama_b4_g64_act_order", "modelopt/llama-w4a8_awq", "modelopt/llama-nvfp4_svdquant",
                                     "compressed_tensors/fp8_frozen", "compressed_tensors/legacy_24_fp8", "base/qwen2_mini", "base/deepseek_v3_groups_tiny"])
    mutants("--kind", "scale: *", "--count", "60", paths=["awq/llama_gemv_g128", "modelopt/llama-w4a8_awq", "compressed_tensors/fp8_frozen", "compressed_tensors/nvfp4_kv"])

    o = "model.layers.0.self_attn.o_proj."
    case = "compressed_tensors/fp8a16"
    n = mutate.Checkpoint(DATA / case).table[o + "weight"]["shape"][0]
    expect("channel-dead", tmp, case, one(o + "weight", rows(3, 2, n, 0x80)))
    expect("channel-saturated", tmp, case, one(o + "weight", rows(3, 2, n, 0x7E)))
    # Codes that lie across bytes, in planes of bits, and those of sparse weights.
    expect("channel-dead", tmp, "compressed_tensors/w2a16", one(o + "weight_packed", rows(3, 2, 128, 0)))
    expect("channel-dead", tmp, "compressed_tensors/w3a16", one(o + "weight_packed", rows(3, 2, 128, 0)))
    expect("channel-dead", tmp, "compressed_tensors/legacy_24_fp8", one(o + "compressed", rows(3, 2, 128, 0)))
    expect("channel-dead", tmp, "gptq/llama_b3_g128", one(o + "qweight", columns(3, 2, 256)))
    expect("channel-dead", tmp, "gptq/llama_b6_planar", one(o + "qweight", columns(3, 2, 128)))
    expect("channel-saturated", tmp, "gptq/llama_b6_planar", one(o + "qweight", columns(3, 2, 128)))
    expect("quantized-twice", tmp, case, one(o + "weight", lambda d: bytes(x & 0xFC for x in d)))
    # Scales of 1 and codes that stay small: each exponent less by four.
    small = lambda d: bytes((x & 0x80) | max((x & 0x7F) - 32, 0) for x in d)
    dtype = mutate.Checkpoint(DATA / case).table[o + "weight_scale"]["dtype"]
    unit = {"F32": struct.pack("<f", 1), "BF16": b"\x80\x3f", "F16": b"\x00\x3c"}[dtype]
    expect("scale-not-used", tmp, case,
           lambda name, entry, d: small(d) if name == o + "weight" else unit * (len(d) // len(unit)) if name == o + "weight_scale" else None)
    fp4 = [0, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0]  # the numbers of E2M1 as bfloat16
    expect("codes-not-scaled", tmp, "base/qwen2_mini", one(o + "weight", lambda d: b"".join(struct.pack("<H", fp4[x & 7] | (x & 8) << 12) for x in d[::2])))
    # The smallest number that float32 has, in a scale of weights that are not zero.
    f32 = "modelopt/llama-fp8_pc_pt"
    expect("scale-denormal", tmp, f32, one(o + "weight_scale", lambda d: b"\x01\0\0\0" + d[4:]))
    gemv = "awq/llama_gemv_g128"
    expect("padding-not-zero", tmp, gemv, one(o + "scales", lambda d: d[:-1] + b"\x3c"))
    expect_header("metadata-format-unknown", tmp, gemv, lambda text: text.replace('"format":"pt"', '"format":"pu"'))
    expect("excluded-but-quantized", tmp, gemv, lambda *_: None, config=lambda c: c["quantization_config"].update(modules_to_not_convert=["o_proj"]), options=())
    for failure in failures:
        print("FAILED", failure)
    return 1 if failures else 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
