// TensorRT-LLM's PyTorch backend: which checkpoints it takes, and what it makes of them.
#include "target/target.h"

namespace qb::target {
namespace {

using enum Outcome;

constexpr Source config{"github.com/NVIDIA/TensorRT-LLM: tensorrt_llm/_torch/model_config.py", "008e0af8980f"};
constexpr Source compressed{"github.com/NVIDIA/TensorRT-LLM: tensorrt_llm/models/quant_config_utils.py", "21156a7a57ac"};
constexpr Source modelopt{"github.com/NVIDIA/TensorRT-LLM: tensorrt_llm/quantization/modelopt_config.py", "2edf354d4b92"};
constexpr Source page{"nvidia.github.io/TensorRT-LLM/1.3.0rc27/features/quantization.html", "1.3.0rc27"};
constexpr Source nvfp4_fp8{"github.com/NVIDIA/TensorRT-LLM/pull/6809", "2025-08-19"};
constexpr Source weight_only{"github.com/NVIDIA/Model-Optimizer/pull/1313", "2026-04-22"};
constexpr Source gate_up{"github.com/NVIDIA/TensorRT-LLM/pull/14199", "2026-05-16"};

constexpr std::string_view no_activations =
    "Its reader asks for the activations' strategy; a config without input_activations stops it with a TypeError ('NoneType' object is not subscriptable).";
constexpr std::string_view not_an_algorithm = "\"... is not a valid QuantAlgo\": the label is none of its algorithms.";

constexpr Row rows[] = {
    {"dense", "", "", "", loads, "unquantized linears", "", config},

    {"modelopt", "FP8", "fp8_tensor", "fp8_tensor_static", loads, "per-tensor FP8 GEMM", "", page},
    {"modelopt", "FP8_PER_CHANNEL_PER_TOKEN", "fp8_channel", "fp8_token", loads, "FP8 GEMM with scales by row (rowwise)", "", page},
    {"modelopt", "fp8_pb_wo", "fp8_128x128", "none", loads, "block FP8 GEMM (FP8_BLOCK_SCALES)",
     "The algorithm is weight-only; the block GEMM also quantizes the activations, at run time.", modelopt},
    {"modelopt", "FP8_BLOCK_SCALES", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM", "", page},
    {"modelopt", "NVFP4", "nvfp4", "nvfp4", loads, "NVFP4 GEMM (CUTLASS or cuBLASLt; Blackwell)", "", page},
    {"modelopt", "W4A8_NVFP4_FP8", "nvfp4_g32", "fp8_tensor_static", loads, "NVFP4 weights with FP8 activations", "", nvfp4_fp8},
    {"modelopt", "W4A16_AWQ", "int4_g128", "none", loads, "W4A16 GEMM with pre_quant_scale", "", page, "prescale"},
    {"modelopt", "W4A8_AWQ", "int4_g128", "fp8_tensor_static", loads, "W4A8 GEMM with pre_quant_scale", "", page, "prescale"},
    {"modelopt", "W4A16_NVFP4", "nvfp4", "none", refused, "", "Not supported, its producer says; the label is none of its algorithms.", weight_only},
    {"modelopt", "fp8_pb_real mxfp4", "", "", refused, "", not_an_algorithm, config},

    {"compressed_tensors", "float-quantized", "fp8_channel", "fp8_token", loads, "FP8 GEMM with scales by row (FP8_PER_CHANNEL_PER_TOKEN)", "", compressed},
    {"compressed_tensors", "float-quantized", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM (FP8_BLOCK_SCALES)", "", compressed},
    {"compressed_tensors", "float-quantized", "fp8_tensor", "fp8_*", refused, "", "\"Unsupported weights_quant_strategy: tensor\"", compressed},
    {"compressed_tensors", "float-quantized", "fp8_channel", "fp8_tensor_*", refused, "", "\"Unsupported inputs_quant_strategy: tensor\"", compressed},
    {"compressed_tensors", "float-quantized", "fp8_g*", "fp8_*", refused, "", "\"Unsupported weights_quant_strategy: group\"", compressed},
    {"compressed_tensors", "nvfp4-pack-quantized", "nvfp4", "nvfp4", loads, "NVFP4 GEMM", "", compressed},
    {"compressed_tensors", "mxfp4-pack-quantized", "mxfp4", "", loads, "MXFP4 weight-only (W4A16_MXFP4)",
     "Activations stay as they are, whatever the config says of them.", compressed},
    {"compressed_tensors", "mxfp8-quantized", "mxfp8", "mxfp8", refused, "", "\"Unsupported weights_quant_strategy: group\"", compressed},
    {"compressed_tensors", "", "", "none", refused, "", no_activations, compressed, "*"},
    {"compressed_tensors", "int-quantized", "int8_channel", "int8_token*", unknown, "",
     "Not known: its reader looks at bits and strategies and not at the type, and takes INT8 for FP8 by channel and token.", compressed},
    {"compressed_tensors", "int-quantized", "int8_tensor*", "", refused, "", "\"Unsupported weights_quant_strategy: tensor\"", compressed},
    {"compressed_tensors", "int-quantized", "int8_channel*", "int8_tensor*", refused, "", "\"Unsupported inputs_quant_strategy: tensor\"", compressed},
    {"compressed_tensors", "int-quantized pack-quantized", "int4_*", "int* fp8_*", refused, "",
     "\"Unsupported quant_bits: 4. Supported: 8 (FP8) or 4 (NVFP4).\"", compressed},

    {"hf_fp8", "fp8", "fp8_128x128", "fp8_g128", loads, "block FP8 GEMM", "", config},
    {"hf_fp8", "fp8", "fp8_128x128", "", unknown, "", "Not known: how the config asks for activations to be scaled is not read.", config},
    {"hf_fp8", "fp8", "fp8_*x*", "", refused, "", "\"FP8_BLOCK_SCALES only supports block_size=(128,128)\"", config},
    {"hf_mxfp4", "", "mxfp4", "", loads, "MXFP4 experts (activations in MXFP8 on Blackwell, else weight-only)", "", config, "", Where::experts},
    {"awq gptq", "", "", "", unknown, "", "Not known: its reader has no case for this quant_method and sets no algorithm.", config, "*"},
};

constexpr KvRow kv[] = {
    {"compressed_tensors modelopt", "fp8_tensor_static", loads, "FP8 cache", "", page},
    {"modelopt", "nvfp4", loads, "NVFP4 cache", "", page},
};

constexpr ProblemRow problems[] = {
    {"fused-scale-mismatch", "modelopt", wrong,
     "Of an expert's gate and up it takes the largest second-level scale, logs a warning and leaves the block scales: the other comes out too large.", gate_up,
     "*expert*"},
    {"config-disagree", "modelopt", loads, "hf_quant_config.json counts; it logs the difference.", modelopt},
};

}  // namespace

QB_TARGET(trtllm) = {.name = "trtllm",
                     .title = "TensorRT-LLM",
                     .version = "PyTorch backend, sources read in November 2026",
                     .safetensors_library = true,
                     .rows = rows,
                     .kv = kv,
                     .problems = problems};

}  // namespace qb::target
