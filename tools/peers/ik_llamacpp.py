"""ik_llama.cpp: a fork of llama.cpp with faster matrix products for CPUs, and types of its own. No package has it: its source is a directory or what `git clone` takes."""
from pathlib import Path

from common import call, made
from llamacpp import HEAD, LlamaCpp


class IkLlamaCpp(LlamaCpp):
    name = "ik_llama.cpp"
    forms = {"BF16": None, "Q8_0": ["Q8_0"], **{form: [*HEAD, form] for form in ("Q8_KV", "Q4_0", "Q4_K_M", "IQ4_KS", "MXFP4")}}
    # Without attention for types of KV caches that are not measured, which takes longer to compile than all the rest.
    cmake = ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DGGML_IQK_FA_ALL_QUANTS=OFF"]

    def __init__(self, work, source):
        super().__init__(work)
        self.origin = source

    def version(self):
        return call("git", "-C", self.source(), "log", "-1", "--format=%h of %as").strip()

    def source(self):
        if Path(self.origin, "CMakeLists.txt").exists():
            return Path(self.origin)
        return made(self.dir / "source", f"cloning {self.origin}", lambda to: call("git", "clone", "--quiet", "--depth", "1", self.origin, to))

    def flags(self, form):
        # Its fused product of gate and up has no form for Q8_KV, and aborts.
        return ["-fa", "1", "-rtr", "-thp"] + (["-no-fug"] if form == "Q8_KV" else [])

    def rates(self, text):
        cells = [line.replace("|", " ").split() for line in text.splitlines() if line.startswith("|")]
        return [(float(c[5]), float(c[7])) for c in cells if c[0].isdigit()]
