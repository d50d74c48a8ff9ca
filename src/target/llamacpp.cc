// llama.cpp: what its converter to GGUF makes of a checkpoint. It keeps NVFP4 codes, and dequantizes all else that it takes.
#include "target/target.h"

namespace qb::target {
namespace {

using enum Outcome;

constexpr Source convert{"github.com/ggml-org/llama.cpp: convert_hf_to_gguf.py", "0024aa7417ef"};

constexpr std::string_view shapes = "Weights and scales are multiplied by broadcasting, which their shapes do not allow.";
constexpr std::string_view left_over = "\"Can not map tensor\": it has no name for the tensors beside weights and their scales.";
constexpr std::string_view dequantized = "dequantized into the GGUF; activations are the engine's own";

constexpr Row rows[] = {
    {"dense", "", "", "", loads, "written as it is, or quantized to a type of GGUF", "", convert},

    {"modelopt", "NVFP4", "nvfp4", "nvfp4 none", refused, "", "It packs blocks by fours; a row that is no multiple of 64 does not fit.", convert, "",
     Where::any, 1, 64},
    {"modelopt", "NVFP4", "nvfp4", "nvfp4", loads, "repacked as GGUF's NVFP4 with the codes and block scales kept", "", convert},
    {"modelopt", "FP8 FP8_PER_CHANNEL_PER_TOKEN", "fp8_tensor fp8_channel", "", loads, dequantized, "", convert},
    {"modelopt", "W8A16 W8A8_SQ_PER_CHANNEL", "int8_channel", "", loads, dequantized, "", convert},
    {"modelopt", "W8A16 W8A8_SQ_PER_CHANNEL", "int8_channel", "", refused, "", left_over, convert, "prescale"},
    {"modelopt", "", "", "", unknown, "", "Not known: where one algorithm is NVFP4, every weight with a grid of scales is taken for NVFP4.", convert, "*",
     Where::mixed},
    {"modelopt", "W4A16_NVFP4 W4A8_NVFP4_FP8 mxfp4 W4A8_MXFP4_FP8 MXFP8 W4A16_AWQ W4A8_AWQ NVFP4_AWQ NVFP4_SVD fp8_pb_real", "", "", refused, "", shapes,
     convert, "*"},
    {"modelopt", "fp8_pb_wo", "", "", unknown, "", "Not known: its scales have four dimensions, and it multiplies by broadcasting.", convert},

    {"compressed_tensors", "", "", "", refused, "", "\"Can't handle multiple config groups for compressed-tensors yet\"", convert, "*", Where::mixed},
    {"compressed_tensors", "float-quantized int-quantized naive-quantized", "*_asym", "", refused, "", left_over, convert},
    {"compressed_tensors", "float-quantized int-quantized naive-quantized", "", "*_static", refused, "", left_over, convert},
    {"compressed_tensors", "float-quantized int-quantized naive-quantized", "fp8_channel int8_channel fp8_*x*", "", loads, dequantized, "", convert},
    {"compressed_tensors", "float-quantized int-quantized naive-quantized", "", "", refused, "",
     "An assertion: weights must have the strategy channel or block.", convert},
    {"compressed_tensors", "pack-quantized", "int[248]_g*", "none", loads, dequantized, "", convert},
    {"compressed_tensors", "pack-quantized", "int[248]_g*", "none", refused, "", left_over, convert, "actorder"},
    {"compressed_tensors", "pack-quantized", "int*_tensor* int*_channel*", "", refused, "", "An assertion: packed weights must have the strategy group.",
     convert},
    {"compressed_tensors", "nvfp4-pack-quantized mxfp4-pack-quantized mxfp8-quantized", "", "", refused, "",
     "\"Quant format ... for method 'compressed-tensors' is not yet supported\"", convert},

    {"hf_fp8", "fp8", "fp8_tensor fp8_*x*", "", loads, dequantized, "", convert},
    {"gptq", "gptq_v2", "int[248]_g*", "none", loads, dequantized, "", convert, "actorder"},
    {"gptq", "gptq", "int[248]_g*", "none", loads, dequantized, "", convert, "actorder"},
    {"gptq", "gptq gptq_v2", "int3_*", "none", refused, "", "\"3-bit gptq dequantization is not yet implemented\"", convert, "actorder"},
    {"gptq", "gptq gptq_v2", "int[567]_*", "none", refused, "", "An assertion: bits must be 2, 3, 4 or 8.", convert, "actorder"},
    {"awq", "", "", "", refused, "", "\"Quant method is not yet supported: 'awq'\"", convert},
};

constexpr KvRow kv[] = {
    {"modelopt", "fp8_tensor_static nvfp4 int8_tensor_static", loads, "the cache has the type that the user asks for", "Stored KV scales are dropped.",
     convert},
    {"compressed_tensors", "*_static*", refused, "", left_over, convert},
};

constexpr ProblemRow problems[] = {
    {"scale-negative", "modelopt", wrong, "Of NVFP4's block scales the sign is dropped.", convert},
    {"index-tensor-missing index-tensor-unlisted", "", refused, "\"Mismatch between weight map and model parts for tensor names\"", convert},
    {"tensor-unclaimed", "", refused, left_over, convert},
    {"fused-scale-mismatch fused-input-scale-mismatch", "modelopt", loads, "It fuses nothing: each matrix keeps its own scale.", convert},
};

}  // namespace

QB_TARGET(llamacpp) = {.name = "llamacpp",
                       .title = "llama.cpp",
                       .version = "convert_hf_to_gguf.py of 0024aa7417ef, read in November 2026",
                       .safetensors_library = false,
                       .rows = rows,
                       .kv = kv,
                       .problems = problems};

}  // namespace qb::target
