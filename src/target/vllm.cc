// vLLM: which checkpoints its quantization readers take, and what they make of them.
#include "target/target.h"

namespace qb::target {
namespace {

using enum Outcome;

constexpr Source modelopt{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/modelopt.py", "00155cdecca7"};
constexpr Source compressed{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/compressed_tensors/compressed_tensors.py", "be696453ee1b"};
constexpr Source moe{"github.com/vllm-project/vllm/issues/39980", "vLLM 0.19.0, 2026-04-16"};
constexpr Source mxfp4_scheme{"github.com/vllm-project/vllm: .../compressed_tensors/schemes/compressed_tensors_w4a4_mxfp4.py", "ac2c03925ee4"};
constexpr Source mxfp8_scheme{"github.com/vllm-project/vllm: .../compressed_tensors/schemes/compressed_tensors_w8a8_mxfp8.py", "4728ddc198f3"};
constexpr Source fp8{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/fp8.py", "0071b24bf8fe"};
constexpr Source mxfp4{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/mxfp4.py", "afdb4a4ff429"};
constexpr Source awq{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/auto_awq.py", "2211d887caf6"};
constexpr Source gptq{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/auto_gptq.py", "4276bd50998c"};
constexpr Source kv_cache{"github.com/vllm-project/vllm: vllm/model_executor/layers/quantization/kv_cache.py", "190900b94284"};
constexpr Source kv_names{"github.com/vllm-project/vllm/issues/54623", "read in November 2026"};

constexpr std::string_view not_listed =
    "\"ModelOpt currently only supports: ['FP8', 'FP8_PER_CHANNEL_PER_TOKEN', 'FP8_PB_WO', 'NVFP4', 'W4A16_NVFP4', 'MXFP8', 'MIXED_PRECISION'] quantizations "
    "in vLLM\"";
constexpr std::string_view no_scheme = "\"No compressed-tensors compatible scheme was found\"";

constexpr Row rows[] = {
    {"dense", "", "", "", loads, "unquantized linears", "", modelopt},

    // Several algorithms in one checkpoint: only three are looked for, everything else gets the unquantized method.
    {"modelopt", "FP8", "fp8_tensor", "fp8_tensor_static", loads, "per-tensor FP8 GEMM",
     "Parts of a fused matrix with different scales are requantized to the largest.", modelopt, "", Where::mixed},
    {"modelopt", "NVFP4", "nvfp4", "nvfp4", loads, "NVFP4 GEMM (CUTLASS or FlashInfer; Marlin, weight-only, on older GPUs)", "", modelopt, "", Where::mixed},
    {"modelopt", "W4A16_NVFP4", "nvfp4", "none", loads, "NVFP4 Marlin, weight-only", "", modelopt, "", Where::mixed},
    {"modelopt", "", "", "", wrong, "",
     "In MIXED_PRECISION only FP8, NVFP4 and W4A16_NVFP4 are looked for. A linear with any other algorithm becomes an unquantized one, without an error: its "
     "codes "
     "are taken for plain numbers and its scales dropped.",
     modelopt, "*", Where::mixed},

    {"modelopt", "FP8", "fp8_tensor", "fp8_tensor_static", loads, "per-tensor FP8 GEMM",
     "Parts of a fused matrix with different scales are requantized to the largest.", modelopt},
    {"modelopt", "FP8", "fp8_tensor", "none", wrong, "", "There is no input_scale: it stays at the value that it is created with, the least float32.",
     modelopt},
    {"modelopt", "FP8_PER_CHANNEL_PER_TOKEN", "", "", unknown, "", "Not known: experts get the method for one scale per tensor.", modelopt, "", Where::experts},
    {"modelopt", "FP8_PER_CHANNEL_PER_TOKEN", "fp8_channel", "fp8_token", loads, "FP8 GEMM with scales by channel and token", "", modelopt},
    {"modelopt", "fp8_pb_wo", "fp8_128x128", "none", unknown, "", "Not known: experts get the method for one scale per tensor.", modelopt, "", Where::experts},
    {"modelopt", "fp8_pb_wo", "fp8_128x128", "none", refused, "", "\"ModelOpt FP8_PB_WO requires out_features divisible by 128\", and in_features likewise.",
     modelopt, "", Where::any, 128, 128},
    {"modelopt", "fp8_pb_wo", "fp8_128x128", "none", loads, "block FP8 GEMM",
     "The algorithm is weight-only; vLLM also quantizes the activations, at run time, in groups of 128.", modelopt},
    {"modelopt", "NVFP4", "nvfp4", "nvfp4", loads, "NVFP4 GEMM (CUTLASS or FlashInfer; Marlin, weight-only, on older GPUs)", "", modelopt},
    {"modelopt", "W4A16_NVFP4", "nvfp4", "none", loads, "NVFP4 Marlin, weight-only", "", modelopt},
    {"modelopt", "MXFP8", "mxfp8", "mxfp8_up", loads, "MXFP8 GEMM", "", modelopt},
    {"modelopt", "fp8_pb_real FP8_BLOCK_SCALES NVFP4_AWQ NVFP4_SVD W4A8_NVFP4_FP8 mxfp4 W4A8_MXFP4_FP8 W4A16_AWQ W4A8_AWQ W8A16 W8A8_SQ_PER_CHANNEL", "", "",
     refused, "", not_listed, modelopt, "*"},

    {"compressed_tensors", "", "*_asym", "none", refused, "", "\"Only symmetric quantization is supported for MoE\"", moe, "actorder", Where::experts},
    {"compressed_tensors", "nvfp4-pack-quantized", "nvfp4", "nvfp4", loads, "NVFP4 GEMM (CompressedTensorsW4A4Fp4)", "Without FP4 units it runs weight-only.",
     compressed},
    {"compressed_tensors", "nvfp4-pack-quantized", "nvfp4", "none", loads, "NVFP4 Marlin, weight-only (CompressedTensorsW4A16Fp4)", "", compressed},
    {"compressed_tensors", "mxfp4-pack-quantized", "mxfp4", "", loads, "MXFP4 (CompressedTensorsW4A4Mxfp4)", "", mxfp4_scheme},
    {"compressed_tensors", "mxfp8-quantized", "mxfp8", "", loads, "MXFP8 (CompressedTensorsW8A8Mxfp8)", "", mxfp8_scheme},
    {"compressed_tensors", "pack-quantized", "int[48]_g* int[48]_channel*", "none", loads, "WNA16: Marlin, Machete and the like (CompressedTensorsWNA16)", "",
     compressed, "actorder"},
    {"compressed_tensors", "pack-quantized", "int*_tensor*", "none", refused, "", no_scheme, compressed},
    {"compressed_tensors", "pack-quantized", "int[23567]_*", "none", unknown, "",
     "Not known: of weight-only integers 4 and 8 bits are sure; others depend on the version.", compressed, "actorder"},
    {"compressed_tensors", "float-quantized", "fp8_tensor fp8_channel", "fp8_tensor_static fp8_tensor_dyn fp8_token", loads,
     "FP8 GEMM (CompressedTensorsW8A8Fp8; weight-only on GPUs without FP8)", "", compressed},
    {"compressed_tensors", "float-quantized", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM (CompressedTensorsW8A8Fp8)", "", compressed},
    {"compressed_tensors", "float-quantized naive-quantized", "fp8_tensor fp8_channel fp8_128x128", "none", loads,
     "FP8 weight-only (CompressedTensorsW8A16Fp8)", "", compressed},
    {"compressed_tensors", "float-quantized naive-quantized", "fp8_g*", "", refused, "", no_scheme, compressed},
    {"compressed_tensors", "int-quantized", "int8_tensor int8_channel", "int8_tensor_static int8_tensor_asym_static int8_token int8_token_asym", loads,
     "INT8 GEMM (CompressedTensorsW8A8Int8)", "", compressed},
    {"compressed_tensors", "int-quantized", "int8_*asym", "int8_*", refused, "", no_scheme, compressed},
    {"compressed_tensors", "int-quantized", "int4_g* int4_channel", "int8_token", loads, "W4A8 integers (CompressedTensorsW4A8Int)", "", compressed},

    {"hf_fp8", "fp8", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM",
     "Each part of a fused matrix must have a multiple of 128 outputs, or it is refused: \"Weight output_partition_size ... is not divisible by\".", fp8},
    {"hf_fp8", "fp8 (weight_scale)", "fp8_tensor", "fp8_tensor_static fp8_token fp8_tensor_dyn", loads, "per-tensor FP8 GEMM", "", fp8},

    {"hf_mxfp4", "", "mxfp4", "", loads, "MXFP4 experts (FlashInfer, Triton or Marlin)", "", mxfp4, "", Where::experts},

    {"awq", "gemm", "int4_g*", "none", loads, "AWQ Marlin, or AWQ's own kernels where the shape or group does not suit it", "", awq},
    {"awq", "gemv", "", "", unknown, "", "Not known: the reader does not look at `version` and expects the packing of gemm.", awq},

    {"gptq", "gptq gptq_v2", "int[48]_*_asym int[23567]_*", "none", unknown, "",
     "Not known: the Marlin path takes symmetric 4 and 8 bits only; whether another reader takes the rest depends on the version.", gptq, "actorder"},
    {"gptq", "gptq gptq_v2", "int[48]_g* int[48]_channel", "none", loads, "GPTQ Marlin", "", gptq, "actorder"},
};

constexpr KvRow kv[] = {
    {"modelopt compressed_tensors", "fp8_tensor_static", loads, "FP8 cache with k_scale and v_scale of each layer", "", kv_cache},
    {"", "*+head*", unknown, "", "Not known: older versions refuse scales by head (\"Only support per-tensor scaling factor\").", kv_cache},
};

constexpr ProblemRow problems[] = {
    {"fused-scale-mismatch", "modelopt", wrong,
     "It takes the largest second-level scale for the whole fused matrix and leaves the block scales as they are: the other parts come out too large. A "
     "warning "
     "in the log is all.",
     modelopt},
    {"fused-input-scale-mismatch", "modelopt", loads, "It takes the largest activation scale for all parts: right, and coarser than the checkpoint says.",
     modelopt},
    {"kv-scale-name kv-scale-unclaimed", "", wrong, "KV scales under names that it does not remap are dropped; it uses 1.0 and logs a warning once.", kv_names},
    {"kv-scale-missing", "", wrong, "It uses the scale that is there for both keys and values.", kv_cache},
    {"kv-scales-absent", "", loads, "It uses 1.0 and logs a warning once.", kv_cache},
    {"layers-missing", "modelopt", refused, "\"MIXED_PRECISION quant_algo requires a non-empty 'quantized_layers' mapping\"", modelopt},
    {"input-scale-missing", "modelopt", wrong, "The parameter is created without a value and never filled.", modelopt},
    {"input-scale-unused", "modelopt", loads, "It reads the scale and drops it.", modelopt},
    {"excluded-but-quantized", "modelopt", wrong,
     "The list counts: the linear becomes an unquantized one. FP8 codes are then copied without their scale; packed codes do not fit the shape.", modelopt},
    {"ignore-container", "modelopt", wrong, "An entry also counts as a part of names: layers.1 leaves out layers.10 too.", modelopt},
};

}  // namespace

QB_TARGET(vllm) = {
    .name = "vllm", .title = "vLLM", .version = "sources read in November 2026", .safetensors_library = true, .rows = rows, .kv = kv, .problems = problems};

}  // namespace qb::target
