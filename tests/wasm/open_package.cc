// The portable core at work where there are no files, threads or exceptions: a ModelOpt FP8 checkpoint in memory is recognized, read and verified.
// Built by tools/build_core_wasm.sh; exit 0 when the core says what it must.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "dialect/dialect.h"
#include "io/memory_source.h"
#include "io/package.h"
#include "io/safetensors.h"
#include "ir/verify.h"

namespace {

constexpr int64_t hidden = 16, vocab = 8;
constexpr const char* config =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
  "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 8, "rms_norm_eps": 1e-5, "tie_word_embeddings": false,
  "torch_dtype": "bfloat16"})";
constexpr const char* quant_config = R"({"producer": {"name": "modelopt", "version": "0.47.0"},
  "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": null, "exclude_modules": ["lm_head", "model.embed_tokens"]}})";

std::vector<qb::TensorInfo> tensors() {
  std::vector<qb::TensorInfo> out;
  auto add = [&](std::string name, qb::Elem dtype, std::vector<int64_t> shape, uint64_t item) {
    qb::TensorInfo t{.name = std::move(name), .dtype = dtype, .shape = std::move(shape)};
    t.bytes = static_cast<uint64_t>(t.elements()) * item;
    out.push_back(std::move(t));
  };
  for (const char* linear : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"}) {
    const std::string path = std::string("model.layers.0.") + linear;
    add(path + ".weight", qb::Elem::e4m3, {hidden, hidden}, 1);
    add(path + ".weight_scale", qb::Elem::f32, {}, 4);
    add(path + ".input_scale", qb::Elem::f32, {}, 4);
  }
  for (const char* norm : {"model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm", "model.norm"})
    add(std::string(norm) + ".weight", qb::Elem::bf16, {hidden}, 2);
  for (const char* ends : {"lm_head", "model.embed_tokens"}) add(std::string(ends) + ".weight", qb::Elem::bf16, {vocab, hidden}, 2);
  return out;
}

int fail(const char* what, const qb::Diagnostics& diag) {
  std::printf("%s\n", what);
  for (const qb::Problem& p : diag.all())
    std::printf("  %s %s %s: %s, expected %s\n", p.code.c_str(), p.tensor.c_str(), p.module.c_str(), p.found.c_str(), p.expected.c_str());
  return 1;
}

}  // namespace

int main() {
  qb::Diagnostics diag;
  const std::vector<qb::TensorInfo> wanted = tensors();
  const std::string header = qb::write_safetensors_header(wanted, {});
  uint64_t data = 0;
  for (const qb::TensorInfo& t : wanted) data += t.bytes;

  std::vector<std::byte> bytes(header.size() + data, std::byte{0x38});  // 1.0 in E4M3; a plain number in BF16
  std::memcpy(bytes.data(), header.data(), header.size());
  uint64_t length = 0;
  const uint64_t size = bytes.size();
  if (!qb::parse_header_length(std::span(bytes).first(8), size, "memory", length, diag)) return fail("header length", diag);
  qb::SafetensorsHeader parsed;
  const std::span<const std::byte> json = std::span<const std::byte>(bytes).subspan(8, static_cast<size_t>(length));
  if (!qb::parse_safetensors_header(json, size, "memory", 0, parsed, diag)) return fail("header", diag);

  qb::Facts facts;
  const float one = 1;
  for (const qb::TensorInfo& t : parsed.tensors) {
    if (!qb::is_fact(t)) continue;
    std::memcpy(bytes.data() + t.offset, &one, sizeof one);
    facts.scalars.emplace(t.name, qb::Facts::Scalar{1, std::string(reinterpret_cast<const char*>(&one), sizeof one)});
  }

  qb::Package package;
  package.files.push_back({"model.safetensors", size, parsed.metadata});
  package.tensors = std::move(parsed.tensors);
  std::sort(package.tensors.begin(), package.tensors.end(), [](const qb::TensorInfo& a, const qb::TensorInfo& b) { return a.name < b.name; });
  auto source = std::make_shared<qb::MemorySource>();
  source->add(std::move(bytes));
  package.source = source;
  for (auto [name, text] : {std::pair("config.json", config), std::pair("hf_quant_config.json", quant_config)}) {
    auto document = std::make_shared<qb::Json>();
    qb::JsonError error;
    if (!qb::parse_json(text, *document, error)) return fail(error.what.c_str(), diag);
    package.set_document(name, document);
  }

  const qb::Dialect* dialect = qb::detect(package, diag);
  if (dialect == nullptr || dialect->name != "modelopt") return fail("not recognized", diag);
  qb::ir::Checkpoint checkpoint;
  if (!dialect->read({package, facts, nullptr}, checkpoint, diag)) return fail("not readable", diag);
  qb::ir::verify(checkpoint, {"model.safetensors"}, diag);
  if (!diag.ok()) return fail("problems", diag);
  int quantized = 0;
  for (const qb::ir::Module& m : checkpoint.modules)
    if (m.scheme) {
      ++quantized;
      if (qb::ir::to_string(*m.scheme) != "fp8_tensor:fp8_tensor_static") return fail(qb::ir::to_string(*m.scheme).c_str(), diag);
    }
  std::printf("%s: %d modules, %d quantized\n", checkpoint.quant_algo.c_str(), static_cast<int>(checkpoint.modules.size()), quantized);
  return quantized == 7 ? 0 : fail("7 quantized modules expected", diag);
}
