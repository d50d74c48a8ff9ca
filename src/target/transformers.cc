// Hugging Face transformers: which checkpoints its quantizers take, and what they make of them.
#include "target/target.h"

namespace qb::target {
namespace {

using enum Outcome;

constexpr Source overview{"huggingface.co/docs/transformers/v5.8.1/quantization/overview", "5.8.1"};
constexpr Source no_modelopt{"github.com/huggingface/transformers/issues/46772", "5.12.1, 2026-06-19"};
constexpr Source compressed{"github.com/huggingface/transformers: src/transformers/quantizers/quantizer_compressed_tensors.py", "1f6ed71f6fa2"};
constexpr Source awq{"github.com/huggingface/transformers/pull/42776", "2025-12-10"};

constexpr Row rows[] = {
    {"dense", "", "", "", loads, "unquantized linears", "", overview},

    {"modelopt", "", "fp8_* mxfp8 int8_*", "", wrong, "",
     "It has no quantizer for modelopt: it logs \"Unknown quantization type, got modelopt\", skips the quantization and takes the codes for weights, without "
     "their scales.",
     no_modelopt, "*"},
    {"modelopt", "", "", "", unknown, "",
     "Not known how it ends: it has no quantizer for modelopt, logs \"Unknown quantization type, got modelopt\" and goes on as if nothing were quantized; "
     "packed codes do not "
     "have the shape of weights.",
     no_modelopt, "*"},

    {"compressed_tensors", "", "", "", loads, "the compressed-tensors library, which dequantizes", "", compressed, "actorder"},
    {"hf_fp8", "fp8", "", "", loads, "FineGrainedFP8", "", overview},
    {"hf_mxfp4", "", "mxfp4", "", loads, "MXFP4 kernels, or dequantized where there are none", "", overview, "", Where::experts},
    {"awq", "gemm", "int4_g*", "none", loads, "GPT-QModel", "", awq},
    {"gptq", "gptq gptq_v2", "int[2348]_*", "none", loads, "GPT-QModel", "", overview, "actorder"},
};

}  // namespace

QB_TARGET(transformers) = {.name = "transformers",
                           .title = "transformers",
                           .version = "5.8 to 5.12, sources read in November 2026",
                           .safetensors_library = true,
                           .rows = rows,
                           .kv = {},
                           .problems = {}};

}  // namespace qb::target
