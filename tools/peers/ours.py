"""QuantBridge itself, measured by `bench`, behind the interface of the peers."""
import json

from common import call, table_values


class QuantBridge:
    name = "quantbridge"

    def __init__(self, program):
        self.program = program

    def measure(self, model, form, work):
        """`form` is a scheme that the weights are quantized to while they are loaded, "bf16" for as they are; with `+head` the head is INT8 as well."""
        scheme, _, head = form.partition("+")
        options = []
        if scheme != "bf16":
            words = {"default": scheme}
            if head:
                # A head that is the embedding table as well is a weight alone; one by itself has quantized inputs too.
                words |= {"embedding": "int8_channel"} | ({"lm_head": "int8_channel:int8_token"} if table_values(model) else {})
            options = ["--quantization", json.dumps(words)]
        m = json.loads(call(self.program, "bench", model, "--json", "--threads", work.threads, "--batch", work.batch, "--prompt", work.prompt, "--tokens", work.tokens,
                            *options))["model"]
        return {"prefill": m["prefill_tokens_per_s"]["median"], "of_peak": m["prefill_of_peak"]["median"], "decode": m["decode_tokens_per_s"]["median"],
                "of_read": m["decode_of_read"]["median"], "read": m["read_gb_per_s"]["median"] * 1e9, "bytes": m["weight_bytes_per_step"]}

    def close(self):
        pass
