"""What the tests of the command line share: the program, what it should do, a small model."""
import os, shutil, subprocess, sys
from pathlib import Path

BINARY = os.environ["QUANTBRIDGE"]
SOURCE = Path(os.environ["QUANTBRIDGE_SOURCE"])
DATA = SOURCE / "tests/data/fixtures"
failures = []


def run(*args):
    return subprocess.run([BINARY, *map(str, args)], capture_output=True, text=True, timeout=600)


def expect(what, condition, detail=""):
    if not condition:
        failures.append(what)
        print("FAILED", what, detail)


def synthetic(out):
    """A few layers of weights that look like weights, and a tokenizer."""
    subprocess.run([sys.executable, SOURCE / "tools/make_synthetic.py", out, "--size", "500KB", "--vocab", "512"], check=True, stdout=subprocess.DEVNULL)
    shutil.copy(DATA / "modelopt/llama-nvfp4-kv_fp8/tokenizer.json", out)
    return out
