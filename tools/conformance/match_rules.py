#!/usr/bin/env python3
"""What the producers' libraries answer when they match lists of module names: tests/data/match/answers.json, which tests/match_rules_test.cc replays.

    match_rules.py --write FILE     asks the libraries that are installed about many lists (those of the others are kept as they are in FILE)
    match_rules.py --check FILE     asks them the file's own questions again: exit code 1 where an answer is another one

Each block of the file is one library's: {"version", "cases": [{the lists, "answers"}]}. `answers` has a character for each of the file's modules: '-' is left alone by the list, '+' is
hit by it, a digit or letter (base 36) is the position of the group or rule that decides, '?' was not asked.

compressed-tensors  apply_quantization_config on a model of such modules: which group's scheme each gets (llm-compressor calls the same function)
transformers        should_convert_module, for modules_to_not_convert of fp8 and mxfp4
gptqmodel           dynamic_matching_pattern: which rule of `dynamic` decides
AutoAWQ             exclude_layers_to_not_quantize
ModelOpt            _match_quantizer's wildcards, and what its export writes into exclude_modules for given modules with and without quantization
"""
import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import json
import os
import random
import re
import string
import sys
import warnings
from pathlib import Path

for key, value in {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": "", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}.items():
    os.environ.setdefault(key, value)
warnings.filterwarnings("ignore")

DIGITS = string.digits + string.ascii_lowercase


def modules():
    """[path, class]: a decoder's usual names, and those whose likeness misleads: layers 1, 10 and 11, gate and gate_proj, fused parts, other prefixes."""
    linears = ["lm_head"]
    for layer in (0, 1, 10, 11):
        below = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
        if layer == 1:
            below = ["self_attn.qkv_proj", "self_attn.o_proj", "mlp.gate", "mlp.shared_expert_gate", "mlp.shared_expert.gate_proj", "mlp.experts.0.up_proj",
                     "mlp.experts.1.up_proj", "mlp.experts.10.down_proj"]
        linears += [f"model.layers.{layer}.{b}" for b in below]
    linears += ["model.language_model.layers.1.mlp.up_proj", "language_model.model.layers.1.mlp.up_proj", "model.visual.blocks.0.attn.qkv", "visual.merger.mlp.0",
                "model.layers.0.feed_forward.w1", "block_sparse_moe.gate", "router"]
    return [["model.embed_tokens", "Embedding"]] + [[n, "Linear"] for n in linears]


PATHS = modules()
NAMES = [name for name, _ in PATHS]


# ---- rules, as people and tools write them --------------------------------------------------------------------------------------------------------------------------

PATTERNS = [  # Python regexes
    ".*lm_head", "lm_head", "lm_hea", ".*head$", r".*head\Z", "(?i).*LM_HEAD", ".*self_attn.*", ".*mlp.*gate$", r".*mlp\.(gate|up|gate_up|down)_proj$", ".*proj",
    r".*layers\.(0|1)\..*", r"model\.layers\.1\b", r"model.layers.\d+.mlp", r".*layers\.\d{2}\.", r".*layers\.\d{,1}\.", r".*layers\.1{1,2}\.", r".*experts\.\d+\.", r".*experts\.[02-9]\.",
    "^(?!.*(q_proj|k_proj)).*$", ".*(?<!gate)_proj$", "(?P<body>model)\\.(?P=body)?.*mlp", r"[^.]+$", r"([^.]+\.)*mlp\.", "model|visual", "visual.*|.*w1", "^$", "", ".*[qk]_proj", "_proj",
    r".*\.attn\.qkv", r"re:.*", r"model\.(language_model\.)?layers", r"language_model\.", ".*expert(s)?_", r".*\bgate\b", r"\w+\.\w+$", ".+?gate", r"(?:model\.)?embed_tokens",
]
SHELLS = ["*", "lm_head*", "*head", "*lm_head*", "model.layers.1*", "model.layers.1.*", "model.layers.?.mlp*", "model.layers.??.mlp.*", "*self_attn*", "*.[qk]_proj", "*.[!qk]_proj", "*[!a-z]",
          "*.mlp.gate", "*gate*", "*experts.[0-9].*", "*experts.[!0-8]*", "model.layers.[01].*", "visual*", "*visual*", "[a-]odel*", "*[", "model.layers.1[01].mlp.*", "mod[f-z]l*", "*.w[1]",
          "model.embed_token[]s]", "*q?proj", "?m_head", "router", "model", "model.layers.1", "language_model.*", "[!]*head", "*[b-a]*", "*.*.*.*.*.*.*"]
NEAR_NAMES = ["lm_head", "Linear", "Embedding", "model", "gate", "mlp.gate", "self_attn", "layers.1", "model.layers.1", "model.layers.1.", "model.layers.10", "visual", "router", "proj", "head",
              "q_proj", "qkv_proj", "gate_up_proj", "model.layers.0.self_attn.qkv_proj", "model.layers.1.mlp.gate_up_proj", "language_model.lm_head", "model.language_model.layers.1",
              "language_model.model.layers.1.mlp.up_proj", "model.layers.1.mlp.experts.1", "shared_expert.gate", "mlp.shared_expert", "embed_tokens", "block_sparse_moe.gate", "w1", "", "."]


def name_rule(r):
    """A module's name, a piece of one, or what looks like one."""
    name = r.choice(NAMES)
    at = r.randrange(len(name))
    dotted = name.split(".")
    return r.choice([name, name, name[: at + 1], name[at:], ".".join(dotted[: r.randrange(len(dotted)) + 1]), ".".join(dotted[r.randrange(len(dotted)) :]), r.choice(NEAR_NAMES)])


def regex_rule(r):
    return r.choice([r.choice(PATTERNS), r.choice(PATTERNS), re.escape(r.choice(NAMES)), "^" + re.escape(r.choice(NAMES)) + "$", ".*" + name_rule(r)])


def shell_rule(r):
    return r.choice([r.choice(SHELLS), r.choice(SHELLS), name_rule(r) + "*", name_rule(r) + ".*", "*" + name_rule(r), name_rule(r)])


def some(r, least, most, rule):
    return [rule(r) for _ in range(r.randint(least, most))]


# ---- the libraries ---------------------------------------------------------------------------------------------------------------------------------------------------


class CompressedTensors:
    package = "compressed-tensors"

    def __init__(self):
        import compressed_tensors.quantization as q
        import torch
        from loguru import logger
        logger.remove()
        self.q, self.torch = q, torch
        from compressed_tensors.quantization.lifecycle.apply import apply_quantization_config
        self.apply = apply_quantization_config

    def questions(self, r):
        target = lambda r: r.choice(["Linear", "Linear", "Embedding", "Module", "re:" + regex_rule(r), "re:" + regex_rule(r), name_rule(r), r.choice(NAMES)])
        ignored = lambda r: r.choice(["re:" + regex_rule(r), name_rule(r), r.choice(NAMES), r.choice(["lm_head", "Embedding", "Linear"])])
        for _ in range(120):
            yield {"groups": some(r, 1, 3, lambda r: some(r, 1, 3, target)), "ignore": some(r, 0, 3, ignored)}
        shared = r.choice(NAMES)  # one target in two groups
        yield {"groups": [["Linear"], [shared], [shared, "re:.*mlp.*"]], "ignore": []}
        yield {"groups": [["Linear"], ["re:.*mlp.*"], ["Linear"]], "ignore": ["lm_head"]}

    def answer(self, case):
        model = self.torch.nn.Module()
        for name, kind in PATHS:
            *outer, last = name.split(".")
            at = model
            for part in outer:
                if part not in at._modules:
                    at.add_module(part, self.torch.nn.Module())
                at = at._modules[part]
            with self.torch.device("meta"):
                at.add_module(last, self.torch.nn.Linear(8, 8) if kind == "Linear" else self.torch.nn.Embedding(8, 8))
        groups = {f"group_{i}": {"targets": targets, "weights": {"num_bits": i + 2, "type": "int", "strategy": "channel"}} for i, targets in enumerate(case["groups"])}
        self.apply(model, self.q.QuantizationConfig(config_groups=groups, ignore=case["ignore"]), show_progress=False)
        schemes = {n: getattr(m, "quantization_scheme", None) for n, m in model.named_modules()}
        return "".join("-" if schemes[n] is None else DIGITS[schemes[n].weights.num_bits - 2] for n in NAMES)


class Transformers:
    package = "transformers"

    def __init__(self):
        from transformers.quantizers.quantizers_utils import should_convert_module
        self.should_convert = should_convert_module

    def questions(self, r):
        for text in NEAR_NAMES:
            yield {"rules": [text]}
        for _ in range(100):
            rules = some(r, 1, 3, lambda r: r.choice([name_rule(r), r.choice(NAMES), regex_rule(r), shell_rule(r)]))
            try:
                for rule in rules:
                    re.compile(rule)
            except re.error:
                continue  # the library raises as well
            yield {"rules": rules}

    def answer(self, case):
        return "".join("-" if self.should_convert(n, case["rules"]) else "+" for n in NAMES)


class GptqModel:
    package = "gptqmodel"

    def __init__(self):
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it greets
            from gptqmodel.quantization.config import dynamic_matching_pattern
        self.matching = dynamic_matching_pattern

    def questions(self, r):
        for _ in range(100):
            rules = list(dict.fromkeys(some(r, 1, 4, lambda r: r.choice(["-:", "+:", ""]) + r.choice([regex_rule(r), regex_rule(r), name_rule(r)]))))
            try:
                for rule in rules:
                    re.compile(rule[2:] if rule[:2] in ("-:", "+:") else rule)
            except re.error:
                continue
            yield {"rules": rules}

    def answer(self, case):
        found = (self.matching({rule: {"bits": 4} for rule in case["rules"]}, n) for n in NAMES)
        return "".join("-" if f is None else DIGITS[case["rules"].index(f)] for f in found)


class AutoAwq:
    package = "autoawq"

    def __init__(self):
        spec = importlib.util.find_spec("awq")
        if spec is None:
            raise ImportError("awq")
        path = Path(spec.submodule_search_locations[0]) / "utils/module.py"  # alone: the package as a whole needs an older transformers
        spec = importlib.util.spec_from_file_location("awq_utils_module", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.exclude = module.exclude_layers_to_not_quantize

    def questions(self, r):
        for text in NEAR_NAMES:
            yield {"rules": [text]}
        for _ in range(40):
            yield {"rules": some(r, 1, 3, name_rule)}

    def answer(self, case):
        kept = self.exclude(dict.fromkeys(NAMES), case["rules"])
        return "".join("-" if n in kept else "+" for n in NAMES)


class ModelOpt:
    package = "nvidia-modelopt"

    def __init__(self):
        from modelopt.torch.export.quant_utils import _prefix_wildcard_summarize_exclude_modules
        from modelopt.torch.quantization.conversion import _match_quantizer
        from modelopt.torch.quantization.nn import TensorQuantizer
        self.summarize, self.match, self.quantizer = _prefix_wildcard_summarize_exclude_modules, _match_quantizer, TensorQuantizer()

    def questions(self, r):
        for rule in SHELLS:
            yield {"rules": [rule]}
        for _ in range(50):
            yield {"rules": some(r, 1, 3, shell_rule)}
        for _ in range(50):
            share = r.choice([0.05, 0.2, 0.5, 0.9])
            state = "".join("?" if r.random() < 0.1 else "+" if r.random() < share else "-" for _ in NAMES)
            yield {"exported": state}

    def answer(self, case):
        if "exported" in case:  # the list must hit the modules without quantization, and none with it
            chosen = lambda mark: [n for n, s in zip(NAMES, case["exported"]) if s == mark]
            case["rules"] = sorted(self.summarize(chosen("+"), chosen("-")))
            return case["exported"]
        return "".join("+" if any(self.match(rule, n, self.quantizer, None, None) for rule in case["rules"]) else "-" for n in NAMES)


LIBRARIES = [CompressedTensors, Transformers, GptqModel, AutoAwq, ModelOpt]


def installed():
    """[(package, version, library)] of those that import here."""
    out = []
    for library in LIBRARIES:
        try:
            out.append((library.package, importlib.metadata.version(library.package), library()))
        except ImportError:
            continue
    return out


def check(file, package, library):
    """How many cases of the file the library was asked, and those that it answers otherwise now."""
    document = json.loads(Path(file).read_text())
    if document["modules"] != PATHS:
        raise ValueError(f"{file} was written about other modules")
    cases = document["libraries"][package]["cases"]
    other = []
    for case in cases:
        again = dict(case)
        if library.answer(again) != case["answers"] or again != case:
            other.append({k: v for k, v in case.items() if k != "answers"})
    return len(cases), other


def write(file):
    file = Path(file)
    blocks = json.loads(file.read_text())["libraries"] if file.exists() else {}
    for package, version, library in installed():
        cases = []
        for case in library.questions(random.Random(package)):
            answers = library.answer(case)
            cases.append(case | {"answers": answers})
        blocks[package] = {"version": version, "cases": cases}
        print(f"{package} {version}: {len(cases)} lists, {len(cases) * len(NAMES)} answers")
    lines = [json.dumps(m) for m in PATHS]
    text = '{"modules": [\n' + ",\n".join(lines) + '],\n"libraries": {\n'
    text += ",\n".join(f'{json.dumps(p)}: {{"version": {json.dumps(b["version"])}, "cases": [\n' + ",\n".join(json.dumps(c) for c in b["cases"]) + "]}" for p, b in sorted(blocks.items()))
    file.write_text(text + "}}\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", metavar="FILE")
    what.add_argument("--check", metavar="FILE")
    args = parser.parse_args()
    if args.write:
        write(args.write)
        return 0
    failed = False
    for package, version, library in installed():
        asked, other = check(args.check, package, library)
        print(f"{package} {version}: {asked} lists, {len(other)} answered otherwise than in the file")
        for case in other[:5]:
            print("   ", json.dumps(case))
        failed |= bool(other)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
