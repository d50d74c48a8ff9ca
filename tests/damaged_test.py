"""The damages of docs/damaged.md, on a small model: every command ends as tools/damaged.py says, and what the messages say puts the checkpoint right."""
import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(os.environ["QUANTBRIDGE_SOURCE"])
model = SOURCE / "tests/data/fixtures/base/gemma3_tiny"
sys.exit(subprocess.run([sys.executable, SOURCE / "tools/damaged.py", "--model", model, "--binary", os.environ["QUANTBRIDGE"]], stdout=subprocess.DEVNULL, timeout=600).returncode)
