"""Runs in vLLM's environment: loads a checkpoint, then measures what each line of stdin says and answers on stdout, one JSON object a line. All else that is printed goes to
stderr."""
import json
import os
import sys
import time

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

from vllm import LLM, SamplingParams  # noqa: E402: what importing it prints must not be an answer

llm = LLM(sys.argv[1], dtype="bfloat16", skip_tokenizer_init=True, enable_prefix_caching=False, max_model_len=1024, max_num_seqs=8, disable_log_stats=False)


def generate(work, tokens):
    """Seconds to the first token of all sequences, and from there to the last."""
    prompts = [{"prompt_token_ids": [100 + (7 * i + 13 * j) % 30000 for i in range(work["prompt"])]} for j in range(work["batch"])]
    start = time.perf_counter()
    outputs = llm.generate(prompts, SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False), use_tqdm=False)
    whole = time.perf_counter() - start
    decode = max(o.metrics.last_token_ts for o in outputs) - max(o.metrics.first_token_ts for o in outputs)
    return whole - decode, decode


generate({"prompt": 512, "batch": 1}, 2)
print("ready", file=answers, flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    short, _ = generate(asked, 1)
    first, rest = generate(asked, 1 + asked["tokens"])
    print(json.dumps({"prefill": asked["batch"] * asked["prompt"] / min(short, first), "decode": asked["batch"] * asked["tokens"] / rest}), file=answers, flush=True)
