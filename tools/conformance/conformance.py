"""Shows with the real libraries that what quantbridge writes is right. One line for each case: verdict, name, figures. Exit 1 on any failure.

  run --fixtures DIR --binary quantbridge [--case PATTERN] [--keep DIR] [--list]

DIR has base/, modelopt/, compressed_tensors/ and hf_fp8/: source models, and what producers made of them (see docs/conformance.md). PATTERN is a shell pattern over case names.
Verdicts: PASS; REFUSED (out of scope: exit code 1, a problem said, nothing left behind); SKIP (what is needed is not there); FAIL.
"""
import argparse
import fnmatch
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import checkpoints
from checkpoints import Checkpoint

FAMILIES = {"llama", "qwen2", "qwen3", "mistral", "phi3", "mixtral", "qwen3_moe", "deepseek_v3"}
MODELOPT_ALGOS = {"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "fp8_pb_wo", "fp8_pb_real", "NVFP4", "W4A16_NVFP4", "W4A16_AWQ", "W8A16", "W8A8_SQ_PER_CHANNEL", "MXFP8", "mxfp4", "MIXED_PRECISION"}
# Largest difference relative to the largest logit. Both sides are float32 with one rounding for a weight (two for NVFP4), and the same matrix products: see docs/conformance.md.
LOGITS_TOLERANCE = 1e-5
# What ModelOpt makes in ways other than rounding to nearest: weights alone do not give these bytes.
MATCH_ANSWERS = Path(__file__).resolve().parents[2] / "tests/data/match/answers.json"
OTHER_RECIPES = {"nvfp4_static": "block scales from a search", "nvfp4_four_over_six": "other block scale rule", "nvfp4_awq_clip": "clipped weights",
                 "int4_blockwise-compressed": "another packing of the same label", "nvfp4-compressed": "block scales rescaled by the compression", "fp8_pb_real": "quotients rounded to BF16 before E4M3; quantize makes fp8_pb_wo"}


class Failure(Exception):
    pass


class Refused(Exception):
    pass


class Skip(Exception):
    pass


class Tool:
    """Runs the binary, every output in its own directory below `work`."""

    def __init__(self, binary, work):
        self.binary, self.work, self.count = binary, Path(work), 0

    def json(self, *args):
        done = subprocess.run([self.binary, *map(str, args), "--json"], capture_output=True, text=True)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise Failure(f"{args[0]}: exit code {done.returncode}, no JSON: {done.stdout[:80]!r} {done.stderr[:200]!r}") from None
        return done.returncode, report

    def write(self, command, source, *args):
        """convert or quantize: the output directory, or Refused with the tool's own words after making sure that nothing was left."""
        self.count += 1
        out = self.work / f"{self.count:04}"
        code, report = self.json(command, source, out, *args)
        words = "; ".join(dict.fromkeys(f"{p['code']}: {p['found']}" for p in report["problems"] if p["severity"] == "error"))
        if code == 0:
            if not (out / "config.json").exists():
                raise Failure(f"{command}: exit code 0 without a config.json")
            return out
        if code != 1 or not words:
            raise Failure(f"{command}: exit code {code}, problems {words or 'none'}")
        left = [p.name for p in self.work.glob(f"{self.count:04}*")]
        if left:
            raise Failure(f"{command}: refused, but left {left}")
        raise Refused(words[:160])


def modelopt_in_scope(c):
    """What compressed-tensors has words for: no pre-scales (INT4_AWQ, SmoothQuant), no biases of KV caches, NVFP4 in groups of 16."""
    q = c.quantization()
    algo, kv = q.get("quant_algo"), q.get("kv_cache_scheme")
    if c.config["model_type"] not in FAMILIES or (algo is None and kv is None) or (algo is not None and algo not in MODELOPT_ALGOS):
        return False
    hf = c.directory / "hf_quant_config.json"
    words = checkpoints.read_json(hf)["quantization"] if hf.exists() else {}
    if words.get("kv_cache_quant_algo") not in (None, "FP8") or any("_bias" in n and "self_attn" in n and n.rsplit(".", 1)[-1] in ("k_bias", "v_bias") for n in c.entries):
        return False
    if any(n.endswith(".pre_quant_scale") for n in c.entries):
        return False
    return not algo or "NVFP4" not in algo or words.get("group_size") == 16


def modelopt_has_words(group):
    """Whether a group of config_groups is one of ModelOpt's algorithms."""
    w, a = group.get("weights") or {}, group.get("input_activations")
    if group.get("output_activations") or not w.get("symmetric", True) or (a and not a.get("symmetric", True)):
        return False
    strategy = w.get("strategy") or ("group" if (w.get("group_size") or 0) > 0 else "tensor")
    inputs = a and (a.get("type"), a.get("num_bits"), a.get("strategy") or "tensor", a.get("dynamic"))
    if w.get("type") == "int":
        return (w["num_bits"], strategy) == (8, "channel") and inputs in (None, ("int", 8, "tensor", False)) or ((w["num_bits"], strategy) == (4, "group") and inputs is None and not w.get("actorder"))
    if strategy == "group":  # MX
        return w.get("scale_dtype") == "torch.uint8" and w.get("group_size") == 32 and (w["num_bits"] == 4 or bool(a))
    if strategy == "block":
        return (w.get("block_structure") or []) in ([128, 128], "128x128")
    return (w["num_bits"], strategy, inputs and inputs[2:]) in ((8, "tensor", ("tensor", False)), (8, "channel", ("token", True)), (4, "tensor_group", ("tensor_group", "local")), (4, "tensor_group", None))


def stored(c):
    """Whether it is a compressed-tensors checkpoint as current libraries mean it: no transforms, nothing sparse, no order of columns, compressed."""
    q = c.quantization()
    formats = {q.get("format")} | {g.get("format") for g in (q.get("config_groups") or {}).values()}
    return (not (q.get("sparsity_config") or {}).get("format") and not (q.get("transform_config") or {}).get("config_groups") and "marlin-24" not in formats
            and q.get("quantization_status", "compressed") == "compressed" and not any(n.endswith(".weight_g_idx") for n in c.entries)
            and not any(g.get("output_activations") for g in (q.get("config_groups") or {}).values()))


def compressed_tensors_in_scope(c):
    """Only schemes that ModelOpt has a name for."""
    q = c.quantization()
    if c.config["model_type"] not in FAMILIES or not stored(c) or (q.get("kv_cache_scheme") or {}).get("strategy", "tensor") != "tensor":
        return False
    return all(modelopt_has_words(g) for g in (q.get("config_groups") or {}).values())


# ---- checks ---------------------------------------------------------------------------------------------------------------------------------------------------------


def check_logits(tool, out, fixture):
    """The stock library loads `out`; its logits are the fixture's, without and with its own quantization of activations and KV cache."""
    import libraries

    want = libraries.expected_logits(fixture)
    if want is None:
        raise Skip("the fixture has no expected.logits")
    written = Checkpoint(out)
    reason = checkpoints.beyond_stock(written)
    if reason:
        raise Skip(f"transformers 5.17 {reason}, in anybody's checkpoint")
    experts = any(checkpoints.EXPERT.search(n) for n in written.entries)
    model = load_with_experts(out)
    modules = len(libraries.decompress(model))
    figures = f"{modules} modules, "
    if experts:
        figures += f"{libraries.exact_experts(model, libraries.load(exact_dense(tool, fixture)))} stacks of experts exact to 16 bits, "
        libraries.widen(model)
    weight_only = libraries.distance(libraries.run(model, want["input_ids"], False), want["logits_weight_only"])
    figures += f"weight-only {weight_only:.1e}"
    failed = weight_only > LOGITS_TOLERANCE
    # logits_producer stands beside logits_qdq where the library's simulation of activations differs from the engines' formulas.
    key = next((k for k in ("logits_producer", "logits_qdq") if k in want), None)
    if key and experts:
        figures += ", activations: the library does not quantize those of stacked experts"
    elif key:
        try:
            simulated = libraries.distance(libraries.run(model, want["input_ids"], True), want[key])
        except RuntimeError as e:
            # compressed-tensors 0.19 cannot form groups of 128 over a k that is no multiple of 128, in anybody's checkpoint.
            if "unflatten" not in str(e):
                raise
            figures += ", activations: the library cannot run ragged groups"
        else:
            figures += f", activations {simulated:.1e}"
            failed |= simulated > LOGITS_TOLERANCE
    if failed:
        raise Failure(figures)
    return figures


def exact_dense(tool, fixture):
    """The fixture's matrices in float32, each with the hash that the fixture states."""
    out = tool.write("convert", fixture, "--to", "dense", "--dtype", "f32", "--stored")
    expected = checkpoints.read_json(Path(fixture) / "expected.json")["weights"]
    written = Checkpoint(out)
    wrong = [n for n, w in expected.items() if n not in written or hashlib.sha256(written.data(n)).hexdigest() != w["sha256"]]
    if wrong:
        raise Failure(f"{len(wrong)} of {len(expected)} matrices differ, first {wrong[0]}")
    return out


def convert_and_check(tool, fixture, through):
    out = fixture
    for dialect in through:
        out = tool.write("convert", out, "--to", dialect)
    return check_logits(tool, out, fixture)


def check_mxfp4(tool, fixture):
    """transformers loads the stacks of experts that we wrote as gpt-oss has them."""
    import libraries

    want = libraries.expected_logits(fixture)
    if want is None:
        raise Skip("the fixture has no expected.logits")
    d = libraries.distance(libraries.run(libraries.load_mxfp4(tool.write("convert", fixture, "--to", "hf_mxfp4")), want["input_ids"], False), want["logits_weight_only"])
    if d > LOGITS_TOLERANCE:
        raise Failure(f"weight-only {d:.1e}")
    return f"weight-only {d:.1e}"


def check_packed(tool, fixture, dialect):
    """gptqmodel's or AutoAWQ's own unpacking of what we wrote gives the very matrices that the fixture states."""
    import packed_values

    out = tool.write("convert", fixture, "--to", dialect)
    if not packed_values.available(dialect):
        raise Skip("not installed here (setup --packed)")
    try:
        count, wrong = packed_values.compare(Checkpoint(out), checkpoints.read_json(Path(fixture) / "expected.json")["weights"], dialect)
    except packed_values.Unreadable as e:
        raise Skip(str(e)) from None
    if wrong or count == 0:
        raise Failure(f"{len(wrong)} of {count} matrices differ, first {wrong[:1]}")
    return f"{count} matrices by hash"


def partial_blocks(checkpoint):
    block = checkpoint.quantization().get("weight_block_size")
    return bool(block) and any(dtype == "F8_E4M3" and any(s > b and s % b for s, b in zip(shape, block)) for dtype, shape, *_ in checkpoint.entries.values())


def check_fp8(tool, fixture, through):
    """transformers loads the Hugging Face fp8 that we wrote; its logits with the weights alone are the fixture's."""
    import libraries

    out = fixture
    for dialect in through:
        out = tool.write("convert", out, "--to", dialect)
    want = libraries.expected_logits(fixture)
    if want is None:
        raise Skip("the fixture has no expected.logits")
    if any(n.endswith(".weight_scale") for n in Checkpoint(out).entries):
        raise Skip("back in the names of AutoFP8, which vLLM reads and transformers does not")
    if partial_blocks(Checkpoint(out)):
        raise Skip("transformers 5.17 takes the block size from shapes and misreads partial blocks, in anybody's checkpoint")
    d = libraries.distance(libraries.run(libraries.load_fp8(out), want["input_ids"], False), want["logits_weight_only"])
    figures = f"weight-only {d:.1e}"
    if d > LOGITS_TOLERANCE:
        raise Failure(figures)
    return figures


def check_dense(tool, fixture):
    """The bare dequantized matrices have the hashes that the fixture states, each element the exact product rounded once; stock transformers runs the effective ones."""
    import libraries

    exact_dense(tool, fixture)
    expected = checkpoints.read_json(Path(fixture) / "expected.json")["weights"]
    figures = f"{len(expected)} matrices by hash"
    want = libraries.expected_logits(fixture)
    reason = checkpoints.beyond_stock(Checkpoint(fixture))
    if want is not None and reason and "looks for" in reason:
        figures += f", logits: transformers {reason}"
    elif want is not None:
        model = libraries.load(tool.write("convert", fixture, "--to", "dense", "--dtype", "f32"))
        d = libraries.distance(libraries.run(model, want["input_ids"], False), want["logits_weight_only"])
        figures += f", logits {d:.1e}"
        if d > LOGITS_TOLERANCE:
            raise Failure(figures)
    return figures


def made_from_weights(scheme):
    """The scheme without the part that calibration gives: static activation scales."""
    weight, _, activation = scheme.partition(":")
    return (weight, True) if activation.endswith("_static") or activation.startswith("nvfp4") else (scheme, False)


def fixture_scheme(tool, fixture):
    code, report = tool.json("inspect", fixture)
    schemes = [s["scheme"] for s in report.get("schemes", []) if s["scheme"] not in ("bf16", "f16", "f32")]
    if code != 0 or len(schemes) != 1:
        raise Skip(f"not one scheme: {', '.join(schemes) or 'none'}")
    return schemes[0]


def ignore_rules(quantization):
    rules = [r for r in quantization.get("ignore") or [] if r not in ("lm_head", "model.embed_tokens")]
    return [a for r in rules for a in ("--ignore", r)]


def check_quantize(tool, fixture, bases, dialect):
    """From the source model, with the producer's rules: the producer's own bytes."""
    theirs = Checkpoint(fixture)
    reason = next((r for suffix, r in OTHER_RECIPES.items() if Path(fixture).name.endswith(suffix)), None)
    recipe = Path(fixture) / "recipe.yaml"
    modifiers = re.findall(r"^    (\w+Modifier):", recipe.read_text(), re.M) if recipe.exists() else []
    other = [m for m in modifiers if m != "QuantizationModifier"]
    if reason or other:
        raise Skip(reason or f"made by {', '.join(other)}")
    base = checkpoints.find_source(theirs, bases)
    if base is None:
        raise Skip("no source model: the producer changed more than it quantized")
    scheme, without_activations = made_from_weights(fixture_scheme(tool, fixture))
    if "+" in scheme:
        raise Skip(f"{scheme}: its weights depend on activations")
    paths = [{n.rsplit(".", 1)[0] for n in c.entries if n.endswith((".weight", ".weight_packed"))} for c in (theirs, base)]
    if not paths[0] <= paths[1]:
        raise Skip(f"the producer renamed modules: {min(paths[0] - paths[1])}")
    if "lm_head.weight_scale" in theirs:
        raise Skip("lm_head is quantized, which quantize leaves alone")
    out = tool.write("quantize", base.directory, "--scheme", scheme, "--to", dialect, *ignore_rules(theirs.quantization()))
    ours = Checkpoint(out)
    equal, left_out, differences = checkpoints.compare_bytes(ours, theirs)
    figures = f"{scheme} from {base.directory.name}: {equal} tensors equal in bytes" + (f", {left_out} calibrated ones left out" if left_out else "")
    if dialect == "modelopt":
        differences += compare_modelopt_words(ours, theirs, base, without_activations)
    else:
        formats = [{g.get("format") or c.quantization().get("format") for g in c.quantization().get("config_groups", {}).values()} for c in (ours, theirs)]
        if differences and formats[0] != formats[1]:
            raise Skip(f"stored as {', '.join(map(str, formats[1]))}, where quantize {'without static activations ' if without_activations else ''}makes {', '.join(map(str, formats[0]))}")
        try:
            figures += ", " + check_loads(out, base, scheme, bounded=False)  # the bytes are compared
        except Skip as e:
            figures += f", not loaded: {e}"
        differences += [] if without_activations or left_out else compare_groups(ours, theirs)
    if differences:
        raise Failure(f"{figures}; {len(differences)} differences: {differences[0]}")
    return figures


def compare_modelopt_words(ours, theirs, base, without_activations):
    out = checkpoints.differing_keys(ours.config, theirs.config, skip=("quantization_config",), prefix="config.json ")
    documents = [(c.directory / "hf_quant_config.json") for c in (ours, theirs)]
    if not documents[0].exists():
        return out + ["hf_quant_config.json is missing"]
    a, b = (checkpoints.read_json(d) for d in documents)
    qa, qb = ours.quantization(), theirs.quantization()
    for x, key in ((a["quantization"], "exclude_modules"), (b["quantization"], "exclude_modules"), (qa, "ignore"), (qb, "ignore")):
        x[key] = checkpoints.matched_modules(base, x.get(key) or [])  # a pattern means the modules that it matches
    # Without calibration the label is the weight-only one, and there is no KV cache.
    loose = ("quant_algo", "kv_cache_quant_algo") if without_activations else ()
    out += checkpoints.differing_keys(a, b, skip=loose, prefix="hf_quant_config.json ")
    loose = ("quant_algo", "kv_cache_scheme", "config_groups") if without_activations else ()
    return out + checkpoints.differing_keys(qa, qb, skip=loose, prefix="quantization_config ")


def compare_groups(ours, theirs):
    keys = ("config_groups", "format", "ignore", "kv_cache_scheme", "quant_method", "quantization_status")
    a, b = ({k: c.quantization().get(k) for k in keys} for c in (ours, theirs))
    return [d for d in checkpoints.differing_keys(a, b, prefix="quantization_config ") if "observer" not in d and ".targets: " not in d]  # which modules those are, tensors say


# Relative Frobenius error of rounding to nearest: E4M3 about 0.026, E2M1 in groups of 16 about 0.09 on weights with outliers; integers are evenly spaced, so that one
# outlier spreads the steps of its whole group: up to 0.21 for four bits in groups of 128.
WORST_ERROR = {"fp8": 0.035, "mxfp8": 0.035, "nvfp4": 0.12, "mxfp4": 0.16, "int8": 0.02, "int4": 0.25}


def load_with_experts(out):
    """Experts that lie one by one are stacked while loading, and stacks have no place for scales of activations."""
    import libraries

    return libraries.load(out, lost=checkpoints.EXPERT.pattern + "input_scale$")


def check_loads(out, base, scheme, bounded=True):
    """The stock library loads it, runs it with its own activations, and its weights are as near the source as the format allows (if bounded)."""
    import libraries

    reason = checkpoints.beyond_stock(Checkpoint(out))
    if reason:
        raise Skip(f"transformers 5.17 {reason}, in anybody's checkpoint")
    model = load_with_experts(out)
    weights = libraries.decompress(model)
    libraries.widen(model)
    ids = libraries.ids_for(model)
    worst = 0.0
    for path, w in weights.items():
        source = libraries.load_tensor(base, path + ".weight")
        worst = max(worst, float((w - source).norm() / source.norm()))
    figures = f"loads, {len(weights)} weights within {worst:.3f} of the source"
    if not weights or bounded and worst > WORST_ERROR[scheme.split("_")[0].split(":")[0]]:
        raise Failure(figures)
    for activations in (False, True):
        try:
            finite = bool(libraries.run(model, ids, activations).isfinite().all())
        except RuntimeError as e:
            if "unflatten" not in str(e):
                raise
            finite = True
        if not finite:
            raise Failure(figures + ", logits are not finite")
    return figures


def check_modelopt_values(tool, fixture, source_dialect):
    """ModelOpt's own tensor classes dequantize what we wrote to the values the fixture states."""
    import modelopt_values

    out = tool.write("convert", fixture, "--to", "modelopt")
    if source_dialect == "modelopt":  # there and back, so that every byte was written by us
        out = tool.write("convert", tool.write("convert", fixture, "--to", "compressed_tensors"), "--to", "modelopt")
    dense = Checkpoint(tool.write("convert", fixture, "--to", "dense", "--dtype", "f32", "--stored"))
    count, worst = modelopt_values.compare(Checkpoint(out), dense)
    if count == 0:
        raise Skip("no FP8 or NVFP4 weights that ModelOpt has a class for")
    figures = f"{count} matrices, largest relative difference {worst:.1e}"
    if worst > 2.5e-7:
        raise Failure(figures)
    return figures


def check_match_rules(package):
    """The library answers as the file of answers says, which ./test compares with ours."""
    import match_rules

    library = next((i for i in match_rules.installed() if i[0] == package), None)
    if library is None:
        raise Skip("not installed here (setup --modelopt, --packed)")
    asked, other = match_rules.check(MATCH_ANSWERS, package, library[2])
    if other:
        raise Failure(f"{len(other)} of {asked} lists are matched otherwise by version {library[1]}, first {other[0]}")
    return f"{asked} lists, version {library[1]}"


# ---- the list of cases ----------------------------------------------------------------------------------------------------------------------------------------------


def directories(root):
    return sorted(p for p in root.glob("*") if (p / "config.json").exists()) if root.exists() else []


def made_schemes(tool):
    """{scheme: whether compressed-tensors must have words for it}"""
    out = {}
    for s in tool.json("quantize", "--list")[1]["shorthands"]:
        if "modelopt" in s["made"] or "llm-compressor" in s["made"]:
            out[s["scheme"]] = out.get(s["scheme"], False) or s["from"] != "ModelOpt"
    return out


def group_of(scheme):
    """What the inputs of every linear must be a multiple of."""
    weight = scheme.partition(":")[0]
    explicit = re.search(r"_g(\d+)", weight)
    return int(explicit[1]) if explicit else 16 if weight.startswith("nvfp4") else 32 if weight.startswith("mx") else 1


def different_sources(bases):
    """One of each family, number format, tied head or not, and kind of width."""
    out = {}
    for b in bases:
        c = b.config
        out.setdefault((c["model_type"], c.get("dtype") or c.get("torch_dtype"), c.get("tie_word_embeddings"), c["hidden_size"] % 128 == 0), b)
    return [b for b in out.values() if b.config["model_type"] in FAMILIES]


def readable(directory):
    try:
        return Checkpoint(directory)
    except (OSError, ValueError, KeyError):
        return None


def all_cases(tool, fixtures, with_modelopt):
    """[(name, must work, function)]."""
    out = []
    bases = [c for c in map(readable, directories(fixtures / "base")) if c]
    for p in directories(fixtures / "modelopt"):
        must = modelopt_in_scope(Checkpoint(p))
        out.append((f"modelopt-ct/{p.name}", must, lambda p=p: convert_and_check(tool, p, ["compressed_tensors"])))
        out.append((f"dense/modelopt/{p.name}", True, lambda p=p: check_dense(tool, p)))
        if must:
            out.append((f"modelopt-ct-modelopt-ct/{p.name}", True, lambda p=p: convert_and_check(tool, p, ["compressed_tensors", "modelopt", "compressed_tensors"])))
            out.append((f"quantize-modelopt/{p.name}", True, lambda p=p: check_quantize(tool, p, bases, "modelopt")))
            if with_modelopt:
                out.append((f"modelopt-values/modelopt/{p.name}", True, lambda p=p: check_modelopt_values(tool, p, "modelopt")))
    for p in directories(fixtures / "compressed_tensors"):
        c = Checkpoint(p)
        must, whole = compressed_tensors_in_scope(c), stored(c)
        out.append((f"ct-modelopt-ct/{p.name}", must, lambda p=p: convert_and_check(tool, p, ["modelopt", "compressed_tensors"])))
        out.append((f"ct-ct/{p.name}", whole, lambda p=p: convert_and_check(tool, p, ["compressed_tensors"])))
        out.append((f"dense/compressed_tensors/{p.name}", whole, lambda p=p: check_dense(tool, p)))
        out.append((f"quantize-ct/{p.name}", False, lambda p=p: check_quantize(tool, p, bases, "compressed_tensors")))
        if must and with_modelopt:
            out.append((f"modelopt-values/compressed_tensors/{p.name}", True, lambda p=p: check_modelopt_values(tool, p, "compressed_tensors")))
        out.append((f"ct-hf/{p.name}", False, lambda p=p: check_fp8(tool, p, ["hf_fp8"])))
    for p in directories(fixtures / "hf_fp8"):
        c = Checkpoint(p)
        must = c.config["model_type"] in FAMILIES
        plain_scales = c.quantization().get("scale_fmt", "float") == "float"  # compressed-tensors has no word for activation scales that are powers of two
        out.append((f"hf-ct/{p.name}", must and plain_scales, lambda p=p: convert_and_check(tool, p, ["compressed_tensors"])))
        out.append((f"hf-hf/{p.name}", must, lambda p=p: check_fp8(tool, p, ["hf_fp8"])))
        out.append((f"hf-ct-hf/{p.name}", must and plain_scales, lambda p=p: check_fp8(tool, p, ["compressed_tensors", "hf_fp8"])))
        if must:
            out.append((f"dense/hf_fp8/{p.name}", True, lambda p=p: check_dense(tool, p)))
    for p in directories(fixtures / "hf_mxfp4"):
        out.append((f"hf_mxfp4-hf_mxfp4/{p.name}", True, lambda p=p: check_mxfp4(tool, p)))
        out.append((f"dense/hf_mxfp4/{p.name}", True, lambda p=p: check_dense(tool, p)))
    for folder in ("gptq", "awq", "compressed_tensors", "modelopt"):
        for p in directories(fixtures / folder):
            c = Checkpoint(p)
            if folder in ("gptq", "awq"):
                out.append((f"dense/{folder}/{p.name}", True, lambda p=p: check_dense(tool, p)))
                out.append((f"{folder}-ct/{p.name}", False, lambda p=p: convert_and_check(tool, p, ["compressed_tensors"])))
            if folder in ("gptq", "awq") or any(e[0] in ("I8", "I32") for e in c.entries.values()) or c.quantization().get("quant_algo") == "W4A16_AWQ":
                for dialect in ("gptq", "awq"):
                    out.append((f"{dialect}-values/{folder}/{p.name}", folder == dialect, lambda p=p, d=dialect: check_packed(tool, p, d)))
    for package in checkpoints.read_json(MATCH_ANSWERS)["libraries"]:
        out.append((f"match-rules/{package}", True, lambda p=package: check_match_rules(p)))
    for base in different_sources(bases):
        for scheme, has_words in made_schemes(tool).items():
            for numerics in ("llm-compressor", "modelopt"):
                write = lambda b=base, s=scheme, n=numerics: tool.write("quantize", b.directory, "--scheme", s, "--to", "compressed_tensors", "--numerics", n)
                fits = all(e[1][-1] % group_of(scheme) == 0 for e in base.entries.values() if len(e[1]) == 2)
                must = has_words and fits and ("_asym" not in scheme or numerics == "llm-compressor")
                out.append((f"quantize-loads/{base.directory.name}:{scheme}@{numerics}", must, lambda b=base, s=scheme, w=write: check_loads(w(), b, s)))
    return out


def main():
    parser = argparse.ArgumentParser(prog="tools/conformance/run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fixtures", type=Path, required=True)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--case", default="*", metavar="PATTERN")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep what the binary wrote there")
    parser.add_argument("--list", action="store_true", help="print the names of the cases")
    args = parser.parse_args()
    binary = shutil.which(args.binary)
    if binary is None:
        parser.error(f"no program {args.binary}")
    try:
        import modelopt_values
        with_modelopt = modelopt_values.available()
    except ImportError:
        with_modelopt = False

    with tempfile.TemporaryDirectory(prefix="quantbridge-conformance-") as scratch:
        tool = Tool(binary, args.keep or scratch)
        tool.work.mkdir(parents=True, exist_ok=True)
        cases = [c for c in all_cases(tool, args.fixtures, with_modelopt) if fnmatch.fnmatch(c[0], args.case)]
        if args.list or not cases:
            print("\n".join(c[0] for c in cases) or f"no case matches {args.case}")
            return 0 if cases else 2
        counts = {}
        for name, must, check in cases:
            verdict, figures = run_case(must, check)
            counts[verdict] = counts.get(verdict, 0) + 1
            print(f"{verdict:7} {name}  {figures}", flush=True)
            if not args.keep:
                for p in tool.work.iterdir():
                    shutil.rmtree(p)
    if not with_modelopt:
        print("ModelOpt is not installed here: its own dequantization was not compared (setup --modelopt)")
    print(", ".join(f"{n} {v}" for v, n in sorted(counts.items())))
    return 1 if counts.get("FAIL") else 0


def run_case(must, check):
    try:
        return "PASS", check()
    except Skip as e:
        return "SKIP", str(e)
    except Refused as e:
        return ("FAIL", f"in scope, but refused: {e}") if must else ("REFUSED", str(e))
    except Exception as e:  # a library that raises is a finding, and the other cases go on
        return "FAIL", f"{'' if isinstance(e, Failure) else type(e).__name__ + ': '}{str(e)[:300]}"


if __name__ == "__main__":
    sys.exit(main())
