"""What `run` and `eval` say when they cannot do what was asked: an exit code, a message that names the cause, and nothing on stdout."""
import json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

BINARY = os.environ["QUANTBRIDGE"]
MODEL = Path(os.environ["QUANTBRIDGE_SOURCE"]) / "tests/data/fixtures/modelopt/llama-nvfp4-kv_fp8"
failures = []


def run(*args, stdin=""):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=120, input=stdin)


def refuses(what, code, words, *args, stdin=""):
    r = run(*args, stdin=stdin)
    if r.returncode != code or r.stdout or any(w not in r.stderr for w in words):
        failures.append(what)
        print(f"FAILED {what}: exit {r.returncode} instead of {code}, stdout {r.stdout[:80]!r}, stderr {r.stderr[:300]!r}")


def changed(tmp, name, change):
    """A copy of the model with one thing changed."""
    copy = tmp / name
    shutil.copytree(MODEL, copy)
    change(copy)
    return copy


def edit(file, change):
    def apply(model):
        document = json.loads((model / file).read_text())
        change(document)
        (model / file).write_text(json.dumps(document))
    return apply


def main(tmp):
    assert run("run", MODEL, "--ids", "5,6,7", "-n", "4").returncode == 0
    refuses("empty prompt", 2, ["prompt is empty"], "run", MODEL, "--prompt", "")
    refuses("empty prompt from stdin", 2, ["prompt is empty"], "run", MODEL, "--prompt", "-")
    refuses("neither prompt nor ids", 2, ["--prompt", "--ids"], "run", MODEL)
    refuses("both prompt and ids", 2, ["--prompt", "--ids"], "run", MODEL, "--prompt", "x", "--ids", "1")
    refuses("no list of ids", 2, ["1,2,x"], "run", MODEL, "--ids", "1,2,x")
    refuses("unknown token", 2, ["999999", "vocabulary of 320"], "run", MODEL, "--ids", "5,999999")
    refuses("negative token", 2, ["-7", "vocabulary"], "run", MODEL, "--ids=-7")
    positions = json.loads((MODEL / "config.json").read_text())["max_position_embeddings"]
    many = ",".join(["5"] * (positions + 1))
    refuses("prompt longer than the model", 2, [str(positions + 1), str(positions)], "run", MODEL, "--ids", many)
    refuses("prompt longer than the context", 2, ["100", "context"], "run", MODEL, "--ids", ",".join(["5"] * 100), "--context", "32")

    bare = changed(tmp, "bare", lambda m: (m / "tokenizer.json").unlink())
    refuses("no tokenizer", 1, ["tokenizer.json", "--ids"], "run", bare, "--prompt", "x")
    assert run("run", bare, "--ids", "5,6", "-n", "2").returncode == 0
    pieces = changed(tmp, "pieces", lambda m: (m / "tokenizer.json").rename(m / "tokenizer.model"))
    refuses("tokenizer.model alone", 1, ["tokenizer.model", "no tokenizer.json", "save_pretrained", "--ids"], "run", pieces, "--prompt", "x")
    refuses("no tokenizer for a text", 1, ["tokenizer.json"], "eval", bare, "--text", MODEL / "config.json", "--ctx", "32")
    broken = changed(tmp, "broken", lambda m: (m / "tokenizer.json").write_text("{"))
    refuses("broken tokenizer", 1, ["tokenizer.json"], "run", broken, "--prompt", "x")
    larger = changed(tmp, "larger", edit("tokenizer.json", lambda t: t["model"]["vocab"].update({"zzzz": 5000})))
    refuses("a tokenizer of another vocabulary", 1, ["5000", "320"], "run", larger, "--prompt", "x")

    def no_template(m):
        (m / "chat_template.jinja").unlink()
        edit("tokenizer_config.json", lambda t: t.pop("chat_template", None))(m)
    refuses("no chat template", 1, ["chat template"], "run", changed(tmp, "plain", no_template), "--chat", "--prompt", "x")
    odd = changed(tmp, "odd", lambda m: (m / "chat_template.jinja").write_text("{% include 'x' %}"))
    refuses("a chat template beyond what is supported", 1, ["include"], "run", odd, "--chat", "--prompt", "x")

    # What a checkpoint asks for and nothing here does is its problem; what the options exclude is wrong usage.
    unknown = changed(tmp, "unknown", edit("config.json", lambda c: c.update(model_type="nobody_knows", architectures=["NobodyForCausalLM"])))
    refuses("a family that is not known", 1, ["nobody_knows"], "run", unknown, "--ids", "5")
    refuses("every kernel denied", 2, ["no kernel runs"], "run", MODEL, "--ids", "5", "--deny", "*")
    deeper = changed(tmp, "deeper", edit("config.json", lambda c: c.update(num_hidden_layers=c["num_hidden_layers"] + 1)))
    refuses("layers that are not there", 1, ["cannot be run", "found ", "    expected  "], "run", deeper, "--ids", "5")
    if "\\x0A" in run("run", deeper, "--ids", "5").stderr:
        failures.append("a list of problems on one line")

    refuses("too short a text", 2, ["--ctx"], "eval", MODEL, "--text", MODEL / "generation_config.json", "--ctx", "256")
    refuses("a text that is not there", 3, ["none.txt"], "eval", MODEL, "--text", tmp / "none.txt")
    refuses("a model that is not there", 3, ["none"], "run", tmp / "none", "--prompt", "x")


with tempfile.TemporaryDirectory() as name:
    main(Path(name))
sys.exit(1 if failures else 0)
