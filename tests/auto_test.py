"""`quantize --auto`: mixtures for a size or a loss, what they say, and what they leave for the next time."""
import json, struct, sys, tempfile
from pathlib import Path

from program import DATA, expect, failures, run, synthetic


def auto(what, *args):
    r = run("quantize", *args, "--auto", "--json")
    expect(what, r.returncode == 0, f"exit {r.returncode}: {r.stderr[:600]} {r.stdout[:600]}")
    return json.loads(r.stdout) if r.returncode == 0 else None


def schemes(path):
    r = run("inspect", "--layers", "--json", path)
    expect("inspect", r.returncode == 0, r.stderr)
    return {m["path"]: m["scheme"] for m in json.loads(r.stdout or "{}").get("modules", []) if m["kind"] == "linear"}


def tensor_bytes(path):
    total = 0
    for f in path.glob("*.safetensors"):
        with open(f, "rb") as data:
            (n,) = struct.unpack("<Q", data.read(8))
            header = json.loads(data.read(n))
        total += sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in header.items() if name != "__metadata__")
    return total


def weights(path):
    return [(f.name, f.read_bytes()) for f in sorted(path.glob("*.safetensors"))]


def main(tmp):
    model = synthetic(tmp / "model")
    few = ["--auto-tokens", "300"]
    kept = tmp / "model.auto/measurements.json"

    for dialect in ("modelopt", "compressed_tensors"):
        out = tmp / f"{dialect}-5"
        j = auto(dialect, model, out, "--bits", "5", *few, "--to", dialect)
        if j is None:
            continue
        chosen = j["auto"]["chosen"]
        expect("no more than was asked for", chosen["bits"] <= 5.0005, chosen)
        expect("sizes are those of the files", chosen["bytes"] == j["bytes_out"] == tensor_bytes(out), (chosen, j["bytes_out"], tensor_bytes(out)))
        smaller = [u for u in j["auto"]["uniform"] if u["bytes"] <= chosen["bytes"]]
        expect("better than each scheme by itself", smaller and all(chosen["predicted"] <= u["predicted"] for u in smaller), j["auto"]["uniform"])
        expect("what is measured is near what is predicted", chosen["predicted"] / 5 < chosen["measured"] < 5 * chosen["predicted"], chosen)
        found = schemes(out)
        for layer in range(4):
            for together in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.gate_proj", "mlp.up_proj")):
                expect("engines hold them as one", len({found[f"model.layers.{layer}.{name}"] for name in together}) == 1, found)
        expect("schemes are mixed", len({s for s in found.values() if s}) > 1, found)
        config = tmp / f"model.auto/{dialect}-5.json"
        expect("the configuration is in the report", json.loads(config.read_text()) == j["auto"]["config"])
        again = tmp / "again"
        r = run("quantize", "--quiet", model, again, "--config", config, "--to", dialect, "--force")
        expect("the configuration makes the same", r.returncode == 0 and weights(again) == weights(out), r.stderr)
        r = run("check", "--deep", out)
        expect("it is good", r.returncode == 0, r.stdout + r.stderr)
        svg = (tmp / f"model.auto/{dialect}-5.curve.svg").read_text()
        expect("a picture", svg.startswith("<svg") and svg.rstrip().endswith("</svg>") and len(svg) < 40000, len(svg))
        curve = json.loads((tmp / f"model.auto/{dialect}-5.curve.json").read_text())["curve"]
        expect("more bits, less loss", all(a["bytes"] < b["bytes"] and a["predicted"] > b["predicted"] for a, b in zip(curve, curve[1:])), curve)

    # The same again, and another size: nothing but the new mixture is measured.
    seen = json.loads(kept.read_text())
    j = auto("another size", model, tmp / "six", "--size", "280KB", *few)
    now = json.loads(kept.read_text())
    expect("no group is measured again", now["groups"] == seen["groups"] and seen["mixtures"].items() <= now["mixtures"].items())
    expect("the size of all tensors", j and j["bytes_out"] <= 280000 and j["bytes_out"] == tensor_bytes(tmp / "six"), j and j["bytes_out"])
    before = kept.stat().st_mtime_ns
    auto("the same again", model, tmp / "six", "--size", "280KB", *few, "--force")
    expect("nothing is measured", kept.stat().st_mtime_ns == before)

    j = auto("the chosen one alone", model, tmp / "alone", "--bits", "4.7", *few, "--auto-points", "0")
    points = j and j["auto"]["uniform"] + j["auto"]["curve"]
    expect("nothing else is measured", points and all(p["measured"] is None for p in points) and j["auto"]["chosen"]["measured"] > 0, points)

    # A loss that is asked for is measured, and a smaller one takes more bits.
    sizes = []
    for most in (3e-4, 3e-5):
        j = auto("a loss", model, tmp / "loss", "--max-kl", most, *few, "--force")
        expect("no larger", j and j["auto"]["chosen"]["measured"] <= most, j and j["auto"]["chosen"])
        sizes.append(j["bytes_out"] if j else 0)
    expect("less loss takes more", sizes[0] < sizes[1], sizes)

    # What is left out stays plain; plain numbers may be mixed too.
    j = auto("rules", model, tmp / "rules", "--bits", "6", *few, "--ignore", "layers.0", "--schemes", "mxfp4,bf16")
    found = schemes(tmp / "rules")
    expect("rules", all((found[p] is None) if ".layers.0." in p else True for p in found) and "mxfp4" in found.values(), found)
    expect("bits are those of what is quantized", j and 4.25 <= j["auto"]["chosen"]["bits"] <= 6.0005, j and j["auto"]["chosen"])

    # One scheme by several recipes: the configuration names them.
    j = auto("recipes", model, tmp / "recipes", "--bits", "4.6", *few, "--schemes", "nvfp4,nvfp4/nvfp4_mse.modelopt,fp8_tensor")
    named = j and [j["auto"]["config"]["default"], *j["auto"]["config"].get("overrides", [])]
    expect("recipes", j and any(isinstance(e, dict) and e.get("recipe") == "nvfp4_mse.modelopt" for e in named), named)
    r = run("quantize", "--quiet", model, tmp / "again", "--config", tmp / "model.auto/recipes.json", "--force")
    expect("recipes are made again", r.returncode == 0 and weights(tmp / "again") == weights(tmp / "recipes"), r.stderr)

    # By the layers' errors: they are measured already, and predictions are right for what is chosen.
    seen = json.loads(kept.read_text())
    j = auto("layers", model, tmp / "layers", "--bits", "5", *few, "--sensitivity", "layers")
    chosen = j and j["auto"]["chosen"]
    expect("right for the chosen one", j and abs(chosen["predicted"] / chosen["measured"] - 1) < 1e-9, chosen)
    smaller = [u for u in j["auto"]["uniform"] if u["bytes"] <= chosen["bytes"]] if j else []
    expect("better than each scheme by itself by layers too", smaller and all(chosen["measured"] < u["measured"] for u in smaller), (chosen, smaller))
    expect("no layer is measured again", json.loads(kept.read_text())["groups"] == seen["groups"])

    # Without data: no tokenizer, no samples; experts of a layer together.
    experts = DATA / "base/qwen2_moe_tiny"
    j = auto("weights alone", experts, tmp / "experts", "--bits", "6.5", "--sensitivity", "weights", "--to", "compressed_tensors")
    found = schemes(tmp / "experts")
    together = {found[p] for p in found if ".layers.0.mlp.experts." in p}
    expect("experts", len(together) == 1 and len(set(found.values())) > 1, found)
    expect("nothing at the output is known", j and j["auto"]["chosen"]["measured"] is None and j["auto"]["tokens"] == 0, j and j["auto"]["chosen"])

    quantized = DATA / "modelopt/llama-nvfp4-kv_fp8"
    foreign = tmp / "foreign"
    foreign.mkdir()
    (foreign / "measurements.json").write_text("{}")
    out = tmp / "none"
    for what, code, words, args in [
        ("no limit", 2, "--bits", [model, out, "--auto"]),
        ("two limits", 2, "--bits", [model, out, "--auto", "--bits", "5", "--max-kl", "1"]),
        ("a limit for nothing", 2, "--auto", [model, out, "--scheme", "nvfp4", "--bits", "5"]),
        ("two configurations", 2, "--auto", [model, out, "--scheme", "nvfp4", "--auto", "--bits", "5"]),
        ("too few bits", 2, "smallest mixture", [model, out, "--auto", "--bits", "3", *few]),
        ("too little loss", 2, "bf16", [model, out, "--auto", "--max-kl", "1e-12", *few, "--schemes", "mxfp4,int8_channel"]),
        ("a slip", 2, "near names", [model, out, "--auto", "--bits", "5", "--schemes", "nvfp5"]),
        ("static scales", 1, "static activation scales", [model, out, "--auto", "--bits", "5", "--schemes", "nvfp4:nvfp4,fp8_channel"]),
        ("what the dialect cannot mix", 1, "scheme-inexpressible", [model, out, "--auto", "--bits", "5", "--schemes", "int4_g64,int8_g64", "--to", "awq"]),
        ("quantized already", 1, "already-quantized", [quantized, out, "--auto", "--bits", "5"]),
        ("a file of somebody else", 2, "measurements.json", [model, out, "--auto", "--bits", "5", *few, "--auto-dir", foreign]),
        ("no tokenizer", 1, "tokenizer.json", [experts, out, "--auto", "--bits", "6.5", "--to", "compressed_tensors"]),
    ]:
        r = run("quantize", *args)
        expect(what, r.returncode == code and words in r.stderr and not out.exists(), f"exit {r.returncode}: {r.stderr[:600]}")


with tempfile.TemporaryDirectory() as tmp:
    main(Path(tmp))
print(f"{'FAILED' if failures else 'passed'} {len(failures)} failures")
sys.exit(1 if failures else 0)
