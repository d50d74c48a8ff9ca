"""llama.cpp: built from the source in the sdist of the PyPI package llama-cpp-python, measured by its own llama-batched-bench."""
import json
import shutil
import subprocess
import sys
import tarfile

from common import call, config, made, python, say, table_values

PACKAGE = "0.3.36"
HEAD = ["--output-tensor-type", "q8_0", "--token-embedding-type", "q8_0"]
BITS = {"BF16": 16, "Q8_0": 8.5}


def layers_as(type_name):
    """llama-quantize has no name for a model of this type: it is given for each linear of the layers."""
    return [*HEAD, "--tensor-type", rf"blk\..*(attn_(q|k|v|output)|ffn_(gate|up|down))={type_name}", "Q8_0"]


class LlamaCpp:
    name = "llama.cpp"
    # Form: how llama-quantize makes it of BF16. Heads and embedding tables are Q8_0 in all of them, as ours are INT8 beside them.
    forms = {"BF16": None, "Q8_0": ["Q8_0"], "Q4_0": [*HEAD, "Q4_0"], "Q4_K_M": [*HEAD, "Q4_K_M"], "MXFP4": layers_as("mxfp4"), "NVFP4": layers_as("nvfp4")}
    cmake = ["-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_SERVER=OFF"]

    def __init__(self, work):
        self.work, self.dir = work, work / self.name

    def version(self):
        return f"of llama-cpp-python {PACKAGE}"

    def source(self):
        def unpack(to):
            call(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "--dest", self.dir, f"llama-cpp-python=={PACKAGE}")
            sdist = next(self.dir.glob("llama_cpp_python-*.tar.gz"))
            with tarfile.open(sdist) as tar:
                tar.extractall(self.dir / "sdist", filter="data")
            next((self.dir / "sdist").glob("*/vendor/llama.cpp")).rename(to)
            shutil.rmtree(self.dir / "sdist")

        return made(self.dir / "source", f"fetching llama-cpp-python {PACKAGE} from PyPI for its llama.cpp", unpack)

    def build(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        source, build = self.source(), self.dir / "build"
        if not all((build / "bin" / p).exists() for p in ("llama-batched-bench", "llama-quantize")):
            say(f"building {self.name} in {build}")
            call("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", *self.cmake, log=self.dir / "cmake.log")
            call("cmake", "--build", build, "--target", "llama-batched-bench", "llama-quantize", log=self.dir / "build.log")

    def has(self, model, form):
        """Whether the type's groups fit the model: where rows do not, llama-quantize takes another type silently."""
        return form not in ("Q4_K_M", "IQ4_KS") or config(model)["hidden_size"] % 256 == 0

    def prepare(self, model, form):
        converter = self.work / LlamaCpp.name / "source/convert_hf_to_gguf.py"
        plain = made(self.work / "gguf" / f"{model.name}-BF16.gguf", f"converting {model.name} to GGUF",
                     lambda to: call(python(self.work), converter, model, "--outtype", "bf16", "--outfile", to, log=self.dir / "convert.log"))
        words = self.forms[form]
        if words is None:
            return plain
        return made(self.dir / f"{model.name}-{form}.gguf", f"{self.name}: making {form} of {model.name}",
                    lambda to: call(self.dir / "build/bin/llama-quantize", *words[:-1], plain, to, words[-1], log=self.dir / f"{form}.log"))

    def measure(self, model, form, work):
        path = self.prepare(model, form)
        # The prompt and one token first, which is the warm-up, then all of it.
        rates = self.rates(call(self.dir / "build/bin/llama-batched-bench", "-m", path, "-c", work.batch * (work.prompt + work.tokens), "-b", 2048, "-ub", 512,
                                "-t", work.threads, "-tb", work.threads, "-npp", work.prompt, "-ntg", f"1,{work.tokens}", "-npl", work.batch, *self.flags(form),
                                cwd=self.dir, stderr=subprocess.STDOUT))  # ik_llama.cpp prints its table to stderr, and to a file where it is run
        return {"prefill": max(p for p, _ in rates), "decode": rates[-1][1], "bytes": path.stat().st_size - table_values(model) * BITS.get(form, 8.5) / 8}

    def flags(self, form):
        """Weights are repacked for the processor while they are loaded unless that is turned off."""
        return ["-fa", "on", "--output-format", "jsonl"]

    def rates(self, text):
        """[(prefill, decode)] in tokens/s of what llama-batched-bench has printed."""
        rows = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [(r["speed_pp"], r["speed_tg"]) for r in rows]

    def close(self):
        pass
