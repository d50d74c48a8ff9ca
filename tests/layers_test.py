"""`eval --layers`: what each layer and each linear of a model does wrong against another one."""
import json, sys, tempfile
from pathlib import Path

from program import DATA, SOURCE, expect, failures, run, synthetic

TEXT = ["--text", SOURCE / "README.md", "--ctx", "64"]


def layers(what, *args):
    r = run("eval", *args, *TEXT, "--layers", "--json")
    expect(what, r.returncode == 0, f"exit {r.returncode}: {r.stderr[:400]} {r.stdout[:400]}")
    return json.loads(r.stdout)["layers"] if r.returncode == 0 else []


def main(tmp):
    model = synthetic(tmp / "model")
    names = [f"{part}_proj" for part in ("q", "k", "v", "o", "gate", "up", "down")]

    same = layers("a model against itself", model, "--against", model)
    expect("no errors", same and all(l["error"] == l["total"] == 0 and set(l["linears"].values()) == {0} for l in same), same)
    expect("the linears of a layer", same and sorted(p.split(".")[-1] for p in same[0]["linears"]) == sorted(names), same)

    online = layers("while loading", model, "--quantization", "nvfp4", "--against", model)
    expect("the first layer has nothing before it", online and online[0]["error"] == online[0]["total"] > 0, online)
    expect("every linear errs", all(0 < e < 1 for l in online for e in l["linears"].values()), online)
    finer = layers("eight bits", model, "--quantization", "fp8_channel", "--against", model)
    expect("eight bits err less", all(a["error"] < b["error"] and a["total"] < b["total"] for a, b in zip(finer, online)), (finer, online))

    stored = tmp / "stored"
    r = run("quantize", "--quiet", model, stored, "--scheme", "nvfp4")
    expect("quantize", r.returncode == 0, r.stderr)
    expect("as when it is stored", layers("stored", stored, "--against", model) == online)

    # One layer alone: the layers before it do nothing wrong, and what it does goes on behind it.
    last = len(online) - 1
    one = layers("the last layer", model, "--quantization", json.dumps({"overrides": [{"match": f"layers.{last}", "scheme": "nvfp4"}]}), "--against", model)
    expect("alone", [l["error"] for l in one[:last]] == [0] * last and one[last]["error"] == one[last]["total"] == online[last]["error"], (one, online))

    table = run("eval", model, "--quantization", "nvfp4", "--against", model, *TEXT, "--layers")
    expect("a table", table.returncode == 0 and "self_attn.q_proj" in table.stdout and table.stdout.count("\n") == len(online) + 2, table.stdout + table.stderr)

    other = DATA / "modelopt/llama-nvfp4-kv_fp8"
    for what, code, words, args in [
        ("nothing to compare with", 2, "--against", [model, *TEXT, "--layers"]),
        ("another basis", 1, "another basis", [model, "--quantization", '{"default": {"weight": "nvfp4", "algorithm": "hadamard"}}', "--against", model, *TEXT, "--layers"]),
        ("another model", 1, "layers of width", [model, "--against", other, *TEXT, "--layers"]),
    ]:
        r = run("eval", *args)
        expect(what, r.returncode == code and words in r.stderr, f"exit {r.returncode}: {r.stderr[:400]}")


with tempfile.TemporaryDirectory() as tmp:
    main(Path(tmp))
print(f"{'FAILED' if failures else 'passed'} {len(failures)} failures")
sys.exit(1 if failures else 0)
