"""What programs rely on: commands, exit codes, JSON on stdout and nothing else there."""
import json, os, shutil, signal, subprocess, sys, tempfile
import xml.etree.ElementTree
from pathlib import Path

BINARY = os.environ["QUANTBRIDGE"]
DATA = Path(os.environ["QUANTBRIDGE_SOURCE"]) / "tests/data/fixtures"
failures = []


def run(*args, **kw):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=120, **kw)


def expect(what, condition, detail=""):
    if not condition:
        failures.append(f"{what}: {detail}")
        print("FAILED", what, detail)


def code(what, expected, *args):
    r = run(*args)
    expect(what, r.returncode == expected, f"exit {r.returncode} instead of {expected}; {r.stdout[:300]} {r.stderr[:300]}")
    return r


def as_json(what, r, command):
    try:
        j = json.loads(r.stdout)
    except ValueError as e:
        expect(what, False, f"stdout is not one JSON object: {e}: {r.stdout[:200]}")
        return {}
    expect(what, j.get("schema") == f"quantbridge.{command}/1" and isinstance(j.get("ok"), bool) and j.get("version") and isinstance(j.get("problems"), list), str(j)[:200])
    keys = {"code", "severity", "class", "file", "tensor", "module", "found", "expected", "action", "repair"}
    for p in j.get("problems", []):
        expect(what + " problem", keys <= set(p), str(p))
    return j


def main(tmp):
    nvfp4, dense = DATA / "modelopt/llama-nvfp4-kv_fp8", DATA / "base/llama_small"
    # help, version, usage
    for args in (["--help"], ["--version"], *[[c, "--help"] for c in ("inspect", "check", "convert", "quantize")]):
        r = code(" ".join(args), 0, *args)
        expect(" ".join(args), "quantbridge" in r.stdout, r.stdout[:100])
    for args in ([], ["nonsense"], ["inspect"], ["check"], ["convert", nvfp4], ["convert", nvfp4, tmp / "x"], ["convert", nvfp4, tmp / "x", "--to", "nonsense"],
                 ["convert", nvfp4, tmp / "x", "--to", "modelopt", "--memory-budget", "lots"], ["quantize", dense, tmp / "x"], ["quantize", dense, tmp / "x", "--scheme", "fp8"],
                 ["quantize", dense, tmp / "x", "--scheme", "bf16"], ["inspect", nvfp4, "--what"], ["convert", nvfp4, tmp / "x", "--to", "modelopt", "--dtype", "f32"],
                 ["check", "--explain", "no-such-code"], ["check", nvfp4, "--for", "nobody"]):
        code("usage " + " ".join(map(str, args[:2])), 2, *args)
    expect("nothing written", not (tmp / "x").exists())

    # the outside world
    for command in (["inspect", tmp / "none"], ["check", tmp / "none"], ["convert", tmp / "none", tmp / "x", "--to", "dense"]):
        code("missing path " + command[0], 3, *command)
    r = code("missing path json", 3, "inspect", "--json", tmp / "none")
    expect("missing path json", as_json("missing", r, "inspect").get("problems", [{}])[0].get("class") == "environment", r.stdout)
    (tmp / "empty").mkdir()
    code("no config.json", 1, "inspect", tmp / "empty")

    # inspect
    j = as_json("inspect", code("inspect", 0, "inspect", "--json", "--layers", nvfp4), "inspect")
    for key in ("path", "dialect", "producer", "quant_algo", "family", "architecture", "parameters", "bytes", "kv_cache", "schemes", "excluded", "fused", "modules"):
        expect("inspect key", key in j, key)
    expect("inspect says what it is", (j["dialect"], j["quant_algo"], j["family"]) == ("modelopt", "NVFP4", "llama"), str(j)[:200])
    module = next(m for m in j["modules"] if m["path"].endswith("layers.0.mlp.up_proj"))
    expect("module", module["scheme"] == "nvfp4:nvfp4" and module["kind"] == "linear" and {t["role"] for t in module["tensors"]} == {"code", "scale", "global", "input_scale"}, str(module))
    j = as_json("inspect", code("inspect short", 0, "inspect", "--json", nvfp4), "inspect")
    expect("modules only with --layers", "modules" not in j)

    # check
    j = as_json("check", code("check", 0, "check", "--json", "--deep", nvfp4), "check")
    expect("check", j["class"] is None and j["checked"]["tensors"] > 0 and j["checked"]["bytes_read"] > 0, str(j))
    code("explain", 0, "check", "--explain", "scale-missing")

    # inspect --layers: the rule and the tensors that decided, of stacked experts too
    layers = code("layers", 0, "inspect", "--layers", DATA / "hf_mxfp4/gpt_oss_edges").stdout.splitlines()
    expect("layers", any("mlp.experts.gate_up_proj" in l and "quant_method mxfp4; blocks, scales, bias" in l for l in layers), "\n".join(layers)[:600])
    expect("layers", any("self_attn.q_proj" in l and "'model.layers.*.self_attn'; weight, bias" in l for l in layers), "\n".join(layers)[:600])
    layers = code("layers", 0, "inspect", "--layers", DATA / "compressed_tensors/mixed_fp8_w4a16").stdout
    expect("layers", "group_1: target 're:.*mlp.*'; weight_packed, weight_scale, weight_shape" in layers, layers[:600])

    # inspect --html: one file, whole or not there, never replaced unasked
    report = tmp / "report.html"
    code("html", 0, "inspect", nvfp4, "--html", report)
    html = report.read_text()
    expect("html", html.startswith("<!DOCTYPE html>") and html.rstrip().endswith("</html>") and "nvfp4:nvfp4" in html and "class=bars" in html and "<script" not in html, html[:300])
    code("html exists", 2, "inspect", nvfp4, "--html", report)
    code("html replaced", 0, "inspect", dense, "--html", report, "--force", "--json")
    expect("html replaced", "nvfp4:nvfp4" not in report.read_text(), "")
    code("html of what cannot be read", 1, "inspect", tmp / "empty", "--html", tmp / "broken.html")
    expect("html of what cannot be read", "config-missing" in (tmp / "broken.html").read_text(), "")
    code("html in no directory", 3, "inspect", nvfp4, "--html", tmp / "none" / "x.html")
    expect("no html is left over", not list(tmp.glob("*.partial")), str(list(tmp.glob("*"))))

    # check --for: the engines are listed, what they refuse says so, and --strict counts it
    r = run("check", nvfp4, "--for", "nobody")
    expect("unknown engine", all(e in r.stderr for e in ("vllm", "sglang", "trtllm", "transformers", "llamacpp")), r.stderr)
    j = as_json("for", code("for", 0, "check", "--json", "--strict", nvfp4, "--for", "vllm"), "check")["for"]
    expect("for", j["engine"] == "vllm" and j["version"] and j["outcome"] == "loads" and len(j["findings"]) == 2, str(j)[:300])
    expect("for finding", {"modules", "scheme", "problem", "outcome", "path", "why", "source", "version", "action"} == set(j["findings"][0]), str(j["findings"][0])[:300])
    int8 = DATA / "modelopt/llama-int8"
    r = code("for refused", 0, "check", int8, "--for", "vllm")
    expect("for refused", "refuses it" in r.stdout and "quantbridge convert" in r.stdout and "see" in r.stdout, r.stdout)
    j = as_json("for strict", code("for strict", 1, "check", "--json", "--strict", int8, "--for", "vllm"), "check")
    expect("for strict", not j["ok"] and j["for"]["outcome"] == "refused" and j["for"]["findings"][0]["action"], str(j)[:300])

    # convert
    r = code("convert", 0, "convert", "--json", nvfp4, tmp / "ct", "--to", "compressed_tensors")
    j = as_json("convert", r, "convert")
    for key in ("in", "out", "from", "to", "scheme_changes", "repairs", "lost", "tensors", "bytes_in", "bytes_out", "bytes_copied_unchanged", "peak_anonymous_bytes", "seconds", "dry_run"):
        expect("convert key", key in j, key)
    expect("whole output", (tmp / "ct/model.safetensors").exists() and not list(tmp.glob("ct.partial*")))
    # the form of what belongs together: in words, in the report, and refused where it cannot be
    j = as_json("forms", code("forms", 0, "convert", "--json", DATA / "hf_mxfp4/gpt_oss_edges", "--to", "compressed_tensors", "--dry-run"), "convert")
    expect("stacks are taken apart", len(j["forms"]) == 1 and j["forms"][0]["into"] > len(j["forms"][0]["modules"]) and "compressed_tensors" in j["forms"][0]["how"], str(j["forms"]))
    code("no form", 2, "convert", nvfp4, tmp / "x", "--to", "modelopt", "--projections", "stacked")
    r = code("apart", 0, "convert", DATA / "compressed_tensors/phi3_w4a16", tmp / "apart", "--to", "compressed_tensors", "--projections", "separate")
    expect("apart", "modules are written as" in r.stderr and "k_proj" in code("apart", 0, "inspect", "--layers", tmp / "apart").stdout, r.stderr)
    code("apart is good", 0, "check", "--deep", tmp / "apart")
    code("OUT exists", 2, "convert", nvfp4, tmp / "ct", "--to", "compressed_tensors")
    code("--force", 0, "convert", nvfp4, tmp / "ct", "--to", "dense", "--force")
    expect("--force replaced it", "quantization_config" not in json.loads((tmp / "ct/config.json").read_text()))
    code("OUT equal to IN", 2, "convert", tmp / "ct", tmp / "ct", "--to", "modelopt", "--force")
    code("OUT inside IN", 2, "convert", tmp / "ct", tmp / "ct/inside", "--to", "modelopt")
    r = code("dry run", 0, "convert", nvfp4, "--to", "compressed_tensors", "--dry-run")
    expect("dry run prints programs", "weight_packed" in r.stdout and not (tmp / "dry").exists(), r.stdout[:200])
    r = code("stdout is the path", 0, "convert", nvfp4, tmp / "p", "--to", "dense")
    expect("stdout is the path", r.stdout.strip() == str(tmp / "p"), r.stdout)

    # shards: an index, and the same tensors
    code("shards", 0, "convert", nvfp4, tmp / "shards", "--to", "compressed_tensors", "--max-shard-size", "200kB")
    index = json.loads((tmp / "shards/model.safetensors.index.json").read_text())
    expect("index", len(set(index["weight_map"].values())) > 1 and index["metadata"]["total_size"] > 0)
    code("shards are good", 0, "check", "--deep", "--strict", tmp / "shards")

    # quantize
    j = as_json("quantize", code("quantize", 0, "quantize", "--json", dense, tmp / "q", "--scheme", "FP8_DYNAMIC", "--to", "compressed_tensors", "--ignore", "down_proj"), "quantize")
    j = as_json("inspect", code("inspect q", 0, "inspect", "--json", "--layers", tmp / "q"), "inspect")
    kept = sorted(m["path"].rsplit(".", 1)[-1] for m in j["modules"] if m["kind"] == "linear" and m["scheme"] is None)
    expect("--ignore", set(kept) == {"down_proj", "lm_head"}, str(kept))
    for scheme in ("nvfp4", "mxfp4", "int4_g64", "fp8_channel"):
        r = code(f"{scheme}", 0, "quantize", "--json", dense, tmp / scheme, "--scheme", scheme, "--to", "compressed_tensors")
        expect(f"nothing is wrong with {scheme}", as_json(scheme, r, "quantize")["problems"] == [], r.stdout[:1000])
    code("static scales need calibration", 1, "quantize", dense, tmp / "s", "--scheme", "NVFP4_DEFAULT_CFG")
    code("only the KV cache", 0, "quantize", "--quiet", dense, tmp / "kv", "--kv", "fp8", "--calibrate", DATA.parent / "calibration/ids.safetensors")
    code("it is good", 0, "check", "--deep", "--strict", tmp / "kv")
    ids = DATA.parent / "calibration/ids.safetensors"
    code("calibrated", 0, "quantize", "--quiet", dense, tmp / "static", "--scheme", "NVFP4_DEFAULT_CFG", "--kv", "fp8", "--calibrate", ids, "--memory-budget", "16KiB")
    j = as_json("inspect static", code("inspect static", 0, "inspect", "--json", tmp / "static"), "inspect")
    expect("static", j["quant_algo"] == "NVFP4" and j["kv_cache"]["scheme"] == "kv:fp8_tensor_static", str(j["kv_cache"]))
    code("the static one is good", 0, "check", "--deep", "--strict", tmp / "static")
    code("and runs", 0, "run", "--json", tmp / "static", "--ids", "7,8,9", "-n", "2")
    code("an observer", 0, "quantize", "--quiet", dense, tmp / "observed", "--scheme", "INT8_DEFAULT_CFG", "--calibrate", ids, "--observer", "percentile:99.9")
    code("an unknown observer", 2, "quantize", dense, tmp / "s", "--scheme", "INT8_DEFAULT_CFG", "--calibrate", ids, "--observer", "percentil")
    code("an observer of another type", 1, "quantize", dense, tmp / "s", "--scheme", "NVFP4_DEFAULT_CFG", "--calibrate", ids, "--observer", "mse")
    code("an observer without anything to measure", 2, "quantize", dense, tmp / "s", "--scheme", "nvfp4", "--calibrate", ids, "--observer", "mse")
    # weights that algorithms make
    gptq = ["quantize", dense, tmp / "gptq", "--scheme", "int4_g64", "--to", "gptq", "--calibrate", ids]
    code("unknown algorithm", 2, *gptq, "--algorithm", "gtpq")
    code("algorithm without a scheme", 2, "quantize", dense, tmp / "gptq", "--config", "{}", "--algorithm", "gptq")
    code("algorithm without data", 1, *gptq[:-2], "--algorithm", "gptq")
    code("another algorithm's type", 1, "quantize", dense, tmp / "gptq", "--scheme", "nvfp4", "--algorithm", "gptq", "--calibrate", ids)
    code("algorithm", 0, *gptq, "--quiet", "--algorithm", "gptq")
    code("what it made is good", 0, "check", "--deep", tmp / "gptq")
    # another basis, which needs no data, and what cannot be brought into one
    j = as_json("rotated", code("rotated", 0, "quantize", "--json", dense, tmp / "rotated", "--scheme", "nvfp4", "--algorithm", "hadamard"), "quantize")
    expect("it says so", "residual stream" in j["rotated"] and j["problems"] == [], str(j))
    code("the rotated one is good", 0, "check", "--deep", "--strict", tmp / "rotated")
    history = code("inspect rotated", 0, "inspect", tmp / "rotated").stdout
    expect("its history says so", "rotated by Hadamard matrices" in history, history)
    elsewhere = [*gptq[:2], tmp / "s", *gptq[3:]]
    near = code("a slip", 2, *elsewhere, "--algorithm", "hadmard+gptq")
    expect("near names", "hadamard" in near.stderr, near.stderr)
    code("not in front", 2, *elsewhere, "--algorithm", "gptq+hadamard")
    twice = code("quantized already", 1, "quantize", tmp / "rotated", tmp / "s", "--scheme", "fp8_channel", "--algorithm", "hadamard")
    expect("by name", "rotation-unsuited" in twice.stdout + twice.stderr, twice.stdout + twice.stderr)
    loading = ["--quantization", '{"default": {"weight": "nvfp4", "algorithm": "hadamard"}}']
    first = code("while loading", 0, "run", "--quiet", dense, *loading, "--ids", "7,8,9", "-n", "4").stdout
    expect("the same tokens", first == code("as stored", 0, "run", "--quiet", tmp / "rotated", "--ids", "7,8,9", "-n", "4").stdout, first)
    code("OUT is there", 2, *gptq, "--algorithm", "gptq")
    expect("nothing is left of the calibration", sorted(p.name for p in tmp.glob("gptq*")) == ["gptq"], list(tmp.glob("gptq*")))
    (tmp / "busy.calibration").mkdir()
    (tmp / "busy.calibration/notes.txt").touch()
    code("a directory of somebody else", 2, "quantize", dense, tmp / "busy", "--scheme", "int4_g64", "--algorithm", "gptq", "--to", "gptq", "--calibrate", ids)
    code("no samples", 3, "quantize", dense, tmp / "s", "--scheme", "NVFP4_DEFAULT_CFG", "--calibrate", tmp / "nowhere.txt")
    code("what cannot be written is not measured", 1, "quantize", dense, tmp / "s", "--scheme", "NVFP4_DEFAULT_CFG", "--to", "awq", "--calibrate", tmp / "nowhere.txt")
    code("a recipe by name", 0, "quantize", "--quiet", dense, tmp / "four", "--scheme", "nvfp4", "--recipe", "nvfp4_four_over_six.modelopt")
    code("no such recipe", 2, "quantize", dense, tmp / "s", "--scheme", "nvfp4", "--recipe", "nvfp4_mode")
    code("a recipe of others' numerics", 2, "quantize", dense, tmp / "s", "--scheme", "nvfp4", "--recipe", "nvfp4_mse.modelopt", "--numerics", "llm-compressor")
    code("a recipe of another scheme", 1, "quantize", dense, tmp / "s", "--scheme", "nvfp4_g32", "--recipe", "nvfp4_mse.modelopt")
    expect("nothing written on refusal", not (tmp / "s").exists())
    r = code("requantize", 0, "quantize", nvfp4, tmp / "re", "--scheme", "fp8_channel:fp8_token", "--json")
    change = as_json("requantize", r, "quantize")["scheme_changes"][0]
    expect("requantize", change["reason"] == "requantized" and 0 < change["max_relative_error"] < 0.05, str(change)[:200])
    config = {"default": "nvfp4", "overrides": [{"match": "re:.*k_proj", "scheme": "FP8_DYNAMIC"}], "ignore": ["o_proj"]}
    (tmp / "mixed.json").write_text(json.dumps(config))
    for name, words in {"file": ["--config", tmp / "mixed.json"], "text": ["--config", json.dumps(config)],
                        "keys": ["--quantization-config.overrides", json.dumps(config["overrides"]), "--config", "nvfp4", '--quantization-config.ignore=["o_proj"]']}.items():
        code("config by " + name, 0, "quantize", "--quiet", dense, tmp / f"mixed_{name}", "--to", "compressed_tensors", *words)
        j = json.loads(run("inspect", "--json", "--layers", tmp / f"mixed_{name}").stdout)
        schemes = {m["path"].split(".")[-1]: m["scheme"] for m in j["modules"] if m["kind"] == "linear"}
        expect("config by " + name, (schemes["q_proj"], schemes["k_proj"], schemes["o_proj"]) == ("nvfp4", "fp8_channel:fp8_token", None), str(schemes))
    r = code("a slip in a key", 2, "quantize", dense, tmp / "s", "--quantization-config.moe.activaton", "mxfp8")
    expect("a slip in a key", "activation" in r.stderr and "moe" in r.stderr, r.stderr)
    r = code("a slip in a name", 2, "quantize", dense, tmp / "s", "--config", "fp8_per_chanel")
    expect("a slip in a name", "fp8_per_channel" in r.stderr, r.stderr)
    code("config and scheme", 2, "quantize", dense, tmp / "s", "--config", "nvfp4", "--scheme", "nvfp4")
    code("no such file", 3, "quantize", dense, tmp / "s", "--config", tmp / "none.json")
    expect("nothing is written of a configuration that is wrong", not (tmp / "s").exists())

    r = code("list", 0, "quantize", "--list")
    expect("list", "FP8_DYNAMIC" in r.stdout and "NVFP4_DEFAULT_CFG" in r.stdout)

    # run, eval, explain
    j = as_json("run", code("run", 0, "run", "--json", nvfp4, "--ids", "7,8,9", "-n", "4", "--reference"), "run")
    for key in ("prompt_ids", "ids", "text", "finish_reason", "timings", "peak_anonymous_bytes"):
        expect("run key", key in j, key)
    again = as_json("run", code("run, 7 threads", 0, "run", "--json", nvfp4, "--ids", "7,8,9", "-n", "4", "--reference", "--threads", "7"), "run")
    expect("threads change nothing", j["ids"] == again["ids"], f"{j['ids']} {again['ids']}")
    code("run text", 0, "run", nvfp4, "--prompt", "the cat", "-n", "2")
    for args in (["--ids", "99999"], ["--ids", "1,x"], ["--prompt", ""], []):
        code("run " + " ".join(args), 2, "run", nvfp4, *args)
    (tmp / "text").write_text("the quick brown fox jumps over the lazy dog " * 40)
    j = as_json("eval", code("eval", 0, "eval", "--json", nvfp4, "--text", tmp / "text", "--ctx", "32", "--against", nvfp4), "eval")
    expect("eval", j["perplexity"] > 1 and j["against"]["top1"] == 1 and abs(j["against"]["kl"]) < 1e-9, str(j)[:300])
    j = as_json("explain", code("explain", 0, "explain", "--json", nvfp4, "--host", "haswell"), "explain")
    expect("explain", j["layers"] and all(len(l["considered"]) > 1 and l["winner"] for l in j["layers"]), str(j)[:300])
    code("hosts", 0, "explain", "--host", "list")

    # what run needs beside weights and cache
    ids = ",".join(str(i % 97) for i in range(200))
    j = as_json("run memory", code("run memory", 0, "run", "--json", nvfp4, "--ids", ids, "-n", "4", "--threads", "7"), "run")
    expect("run says its memory", 0 < j["packed_weight_bytes"] < 64 << 20 and 0 < j["kv_bytes"] < 64 << 20, str(j)[-300:])
    expect("run needs little", j["peak_anonymous_bytes"] <= j["packed_weight_bytes"] + j["kv_bytes"] + (64 << 20), str(j)[-300:])
    short = as_json("run memory", code("run memory, short", 0, "run", "--json", nvfp4, "--ids", "1,2", "-n", "1"), "run")
    expect("the cache grows with the text", short["kv_bytes"] < j["kv_bytes"] and short["packed_weight_bytes"] == j["packed_weight_bytes"], str(short)[-300:])

    # bench
    j = as_json("bench", code("bench model", 0, "bench", "--json", nvfp4, "--prompt", "40", "--tokens", "3", "--batch", "2", "--threads", "2"), "bench")
    model = j["model"]
    expect("bench model", model["kernels"] and model["decode_of_read"]["count"] == 3 and model["prefill_tokens_per_s"]["median"] > 0 and model["threads"] == 2, str(model))
    expect("bench model's memory", 0 < model["weight_bytes_per_step"] <= model["packed_weight_bytes"] and model["kv_bytes"] > 0 and model["peak_anonymous_bytes"] > 0, str(model))
    j = as_json("bench", code("bench", 0, "bench", "--json", "--kernels", "linear_bf16_f32_generic", "--threads", "1", "--repeats", "1", "--svg", tmp / "roofline.svg"), "bench")
    drawing = xml.etree.ElementTree.parse(tmp / "roofline.svg").getroot()
    expect("bench --svg draws every kernel", drawing.tag.endswith("svg") and sum(e.tag.endswith("circle") for e in drawing) == len(j["kernels"]), str(drawing))
    expect("bench bounds", all(k["bound"] in ("read", "peak") and k["of_bound"]["median"] > 0 for k in j["kernels"]) and 0 < j["machine"]["limits"][0]["clock_ghz"]["median"] < 10, str(j)[:300])
    expect("bench", j["model"] is None and j["machine"]["limits"][0]["read_gb_per_s"]["median"] > 0 and all(k["of_read"]["median"] > 0 for k in j["kernels"]) and j["kernels"], str(j)[:300])
    expect("bench help", "Examples" in code("bench --help", 0, "bench", "--help").stdout)
    code("bench text", 0, "bench", nvfp4, "--prompt", "8", "--tokens", "2")
    code("bench of no model", 3, "bench", tmp / "none")
    for args in ([nvfp4, "--prompt", "1000000"], [nvfp4, "--kernels", "*"], [nvfp4, "--svg", "x.svg"], ["--batch", "0"], ["--threads", "0"]):
        code("bench " + " ".join(map(str, args)), 2, "bench", *args)

    # a snapshot of links, as a Hugging Face cache has it
    blobs, snapshot = tmp / "hub/blobs", tmp / "hub/snapshots/abc"
    blobs.mkdir(parents=True), snapshot.mkdir(parents=True)
    for i, f in enumerate(sorted(nvfp4.iterdir())):
        shutil.copyfile(f, blobs / f"b{i}")
        (snapshot / f.name).symlink_to(f"../../blobs/b{i}")
    code("links", 0, "convert", snapshot, tmp / "from_links", "--to", "compressed_tensors")
    expect("real files", not any(f.is_symlink() for f in (tmp / "from_links").iterdir()))

    # what is copied and what is not
    source = tmp / "source"
    shutil.copytree(nvfp4, source)
    for name in ("consolidated.00.pth", "pytorch_model.bin", "model.gguf", "modeling_x.py", "LICENSE.txt"):
        (source / name).write_bytes(b"x")
    (source / ".git").mkdir(), (source / ".git/HEAD").write_text("x")
    code("copy", 0, "convert", source, tmp / "copied", "--to", "compressed_tensors")
    names = {f.name for f in (tmp / "copied").iterdir()}
    expect("copied", {"modeling_x.py", "LICENSE.txt", "tokenizer.json"} <= names, str(names))
    expect("not copied", not names & {"consolidated.00.pth", "pytorch_model.bin", "model.gguf", ".git", "hf_quant_config.json"}, str(names))

    # a closed pipe is no signal
    p = subprocess.Popen([BINARY, "inspect", "--layers", str(nvfp4)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.close()
    expect("closed pipe", p.wait(timeout=60) >= 0, str(p.returncode))


with tempfile.TemporaryDirectory() as d:
    main(Path(d))
print("FAILED" if failures else "passed", len(failures), "failures")
sys.exit(bool(failures))
