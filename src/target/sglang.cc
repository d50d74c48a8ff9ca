// SGLang: which checkpoints its quantization readers take, and what they make of them.
#include "target/target.h"

namespace qb::target {
namespace {

using enum Outcome;

constexpr Source modelopt{"github.com/sgl-project/sglang: python/sglang/srt/layers/quantization/modelopt_quant.py", "faeb96856c44"};
constexpr Source mixed{"github.com/sgl-project/sglang/pull/32740", "2026-07-29"};
constexpr Source compressed{"github.com/sgl-project/sglang: python/sglang/srt/layers/quantization/compressed_tensors/compressed_tensors.py", "000659aed4db"};
constexpr Source page{"github.com/sgl-project/sglang: docs/advanced_features/quantization.md", "0f4513c2f46b"};

constexpr std::string_view fp4_list = "\"ModelOpt currently only supports: FP8, NVFP4 quantizations in sglang\"";
constexpr std::string_view fp8_list = "\"ModelOptFp8Config only supports static FP8 quantization in SGLang\"";
constexpr std::string_view no_scheme = "\"No compressed-tensors compatible scheme was found\"";

constexpr Row rows[] = {
    {"dense", "", "", "", loads, "unquantized linears", "", page},

    {"modelopt", "MXFP8", "", "", wrong, "",
     "MXFP8 layers of MIXED_PRECISION fell through to another method: the server starts and its output is empty or noise.", mixed, "*", Where::mixed},
    {"modelopt", "", "", "", unknown, "",
     "Not known: MIXED_PRECISION is taken for some model families only, and which algorithms it knows depends on the version.", mixed, "*", Where::mixed},
    {"modelopt", "FP8", "fp8_tensor", "fp8_tensor_static", loads, "per-tensor FP8 GEMM",
     "Parts of a fused matrix with different scales are requantized to the largest.", modelopt},
    {"modelopt", "FP8", "fp8_tensor", "none", wrong, "", "There is no input_scale: it stays at the value that it is created with, the least float32.",
     modelopt},
    {"modelopt", "NVFP4", "nvfp4", "nvfp4", loads, "NVFP4 GEMM (CUTLASS or FlashInfer; Blackwell)", "", modelopt},
    {"modelopt", "W4A16_NVFP4 NVFP4_AWQ NVFP4_SVD", "", "", refused, "", fp4_list, modelopt, "*"},
    {"modelopt", "fp8_pb_wo fp8_pb_real mxfp4 W4A16_AWQ W4A8_AWQ W8A16 W8A8_SQ_PER_CHANNEL", "", "", refused, "", fp8_list, modelopt, "*"},
    {"modelopt", "FP8_PER_CHANNEL_PER_TOKEN FP8_BLOCK_SCALES MXFP8 W4A8_NVFP4_FP8 W4A8_MXFP4_FP8", "", "", unknown, "",
     "Not known: every label with FP8 in it passes the check, and the only reader is the one for a scale per tensor.", modelopt, "*"},

    {"compressed_tensors", "pack-quantized", "*_asym", "none", refused, "", no_scheme, compressed, "actorder"},
    {"compressed_tensors", "pack-quantized", "int[48]_g* int[48]_channel", "none", loads, "WNA16: Marlin (with vLLM installed)", "", compressed, "actorder"},
    {"compressed_tensors", "pack-quantized", "int*_tensor", "none", refused, "", no_scheme, compressed},
    {"compressed_tensors", "float-quantized", "fp8_tensor fp8_channel", "fp8_tensor_static fp8_tensor_dyn fp8_token", loads,
     "FP8 GEMM (CompressedTensorsW8A8Fp8)", "", compressed},
    {"compressed_tensors", "float-quantized naive-quantized", "fp8_tensor fp8_channel", "none", loads, "FP8 weight-only (with vLLM installed)", "", compressed},
    {"compressed_tensors", "int-quantized", "int8_tensor int8_channel", "int8_tensor_static int8_tensor_asym_static int8_token int8_token_asym", loads,
     "INT8 GEMM (CompressedTensorsW8A8Int8)", "", compressed},

    {"hf_fp8", "fp8", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM (DeepGEMM, CUTLASS or Triton)", "", page},
    {"hf_mxfp4", "", "mxfp4", "", loads, "MXFP4 experts", "", page, "", Where::experts},
    {"awq", "gemm", "int4_g*", "none", loads, "AWQ, or AWQ Marlin on NVIDIA", "", page},
    {"gptq", "gptq gptq_v2", "int[48]_g128 int[48]_g64 int[48]_g32 int[48]_channel", "none", loads, "GPTQ, or GPTQ Marlin on NVIDIA", "", page},
};

constexpr KvRow kv[] = {
    {"modelopt", "fp8_tensor_static", loads, "FP8 cache with k_scale and v_scale of each layer", "", modelopt},
};

constexpr ProblemRow problems[] = {
    {"fused-scale-mismatch", "modelopt", wrong,
     "It takes the largest second-level scale for the whole fused matrix and leaves the block scales as they are: the other parts come out too large. It logs "
     "nothing.",
     modelopt},
    {"fused-input-scale-mismatch", "modelopt", loads, "It takes the largest activation scale for all parts: right, and coarser than the checkpoint says.",
     modelopt},
    {"input-scale-missing", "modelopt", wrong, "The parameter is created without a value and never filled.", modelopt},
};

}  // namespace

QB_TARGET(sglang) = {
    .name = "sglang", .title = "SGLang", .version = "sources read in November 2026", .safetensors_library = true, .rows = rows, .kv = kv, .problems = problems};

}  // namespace qb::target
