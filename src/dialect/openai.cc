// OpenAI's own release of gpt-oss: its names of tensors (block.0.attn.qkv.weight, block.0.mlp.mlp1_weight.blocks), its words in config.json. q, k and v lie in
// one matrix; experts are MXFP4 in stacks, as Hugging Face has them (hf_mxfp4). Read alone.
//
// Source of truth: gpt_oss/torch of github.com/openai/gpt-oss, and convert_gpt_oss_weights_to_hf.py of transformers, which says what belongs to what. What the
// release says nothing about is what that code takes for granted: the norms' epsilon, which layers have a window, that no embedding is tied.
#include <fmt/format.h>

#include <algorithm>

#include "base/json.h"
#include "dialect/mxfp4_stacks.h"
#include "dialect/register.h"

namespace qb {
namespace {

constexpr const char* file = "config.json";

// What tensors begin with, behind "block.<i>." where there is one, and what Hugging Face calls that, behind "model.layers.<i>.".
struct Name {
  std::string_view own, theirs;
};
constexpr Name of_layer[] = {
    {"attn.norm.scale", "input_layernorm.weight"},
    {"attn.qkv.", "self_attn.qkv_proj."},
    {"attn.out.", "self_attn.o_proj."},
    {"attn.sinks", "self_attn.sinks"},
    {"mlp.norm.scale", "post_attention_layernorm.weight"},
    {"mlp.gate.", "mlp.router."},
    {"mlp.mlp1_weight.blocks", "mlp.experts.gate_up_proj_blocks"},
    {"mlp.mlp1_weight.scales", "mlp.experts.gate_up_proj_scales"},
    {"mlp.mlp1_weight", "mlp.experts.gate_up_proj"},
    {"mlp.mlp1_bias", "mlp.experts.gate_up_proj_bias"},
    {"mlp.mlp2_weight.blocks", "mlp.experts.down_proj_blocks"},
    {"mlp.mlp2_weight.scales", "mlp.experts.down_proj_scales"},
    {"mlp.mlp2_weight", "mlp.experts.down_proj"},
    {"mlp.mlp2_bias", "mlp.experts.down_proj_bias"},
};
constexpr Name of_model[] = {{"embedding.", "model.embed_tokens."}, {"unembedding.", "lm_head."}, {"norm.scale", "model.norm.weight"}};

// What ends in a dot is a module; the rest is one tensor.
std::string translated(std::span<const Name> names, std::string_view prefix, std::string_view name) {
  for (const Name& n : names)
    if (n.own.ends_with('.') ? name.starts_with(n.own) : name == n.own) return fmt::format("{}{}{}", prefix, n.theirs, name.substr(n.own.size()));
  return {};
}

// Hugging Face's name; the own one where there is none.
std::string theirs(std::string_view name) {
  std::string out;
  if (constexpr std::string_view block = "block."; name.starts_with(block)) {
    const size_t dot = name.find('.', block.size());
    if (dot != name.npos) out = translated(of_layer, fmt::format("model.layers.{}.", name.substr(block.size(), dot - block.size())), name.substr(dot + 1));
  } else {
    out = translated(of_model, "", name);
  }
  return out.empty() ? std::string(name) : out;
}

Match match(const Package& p) {
  const Json* config = p.document(file);
  if (config == nullptr || find(*config, "model_type") != nullptr || p.tensor("unembedding.weight") == nullptr) return {};
  const bool named = std::any_of(p.tensors.begin(), p.tensors.end(), [](const TensorInfo& t) { return t.name.starts_with("block.0.attn.qkv."); });
  if (!named) return {};
  return {Match::certain, "tensors have the names of OpenAI's release of gpt-oss"};
}

// Sizes that it lacks stay away: reading says so.
std::shared_ptr<const Json> config(const Package& p) {
  Json c = *p.document(file);
  const auto move = [&c](const char* from, const char* to) {
    if (const Json* v = find(c, from); v != nullptr) c[to] = Json(*v);
    c.erase(from);
  };
  c["architectures"] = {"GptOssForCausalLM"};
  c["model_type"] = "gpt_oss";
  c["attention_bias"] = true;
  c["hidden_act"] = "silu";
  c["rms_norm_eps"] = 1e-5;
  c["tie_word_embeddings"] = false;
  c["torch_dtype"] = "bfloat16";
  move("num_experts", "num_local_experts");
  move("experts_per_token", "num_experts_per_tok");
  const int64_t layers = std::clamp<int64_t>(int_at(c, "num_hidden_layers", 0), 0, 10'000);
  c["layer_types"] = Json::array();
  for (int64_t i = 0; i < layers; ++i) c["layer_types"].push_back(i % 2 == 0 ? "sliding_attention" : "full_attention");
  const int64_t trained = std::clamp<int64_t>(int_at(c, "initial_context_length", 4096), 1, 1 << 24);
  Json rope = {{"rope_type", "yarn"}, {"original_max_position_embeddings", trained}, {"truncate", false}};
  double factor = 1;
  for (const auto& [from, to] :
       {std::pair("rope_scaling_factor", "factor"), std::pair("rope_ntk_beta", "beta_fast"), std::pair("rope_ntk_alpha", "beta_slow")}) {
    const Json* v = find(c, from);
    if (v == nullptr) continue;
    const bool number = v->is_number();
    if (number) rope[to] = v->get<double>();
    if (number && std::string_view(to) == "factor") factor = v->get<double>();
    c.erase(from);
  }
  if (factor > 1) c["rope_scaling"] = std::move(rope);  // as the code: otherwise positions are as they are
  c["max_position_embeddings"] = static_cast<int64_t>(static_cast<double>(trained) * std::clamp(factor, 1.0, 1e6));
  return std::make_shared<const Json>(std::move(c));
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  if (!r.begin(theirs)) return false;
  out.dialect = "openai";
  out.producer.name = "openai/gpt-oss";
  out.quant_algo = mxfp4_stack_row().label;
  r.read_modules(
      [&](ir::Module& m) {
        r.read_plain(m);
        m.why = "OpenAI's release quantizes stacked experts alone";
        r.read_bias(m);
      },
      [&](ir::Module& m) {
        if (read_mxfp4_stack(r, m, "OpenAI's release: blocks and scales are there")) return true;
        // Its plain stacks would lie the other way round than Hugging Face's.
        for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
        diag.report("algorithm-unsupported", {.tensor = r.named_tensor(m), .module = m.path}, "experts that are not quantized, under OpenAI's names",
                    "MXFP4: blocks and scales");
        return true;
      });
  diag.report("names-original", {.file = file}, "OpenAI's own names and words, which are read as Hugging Face's",
              "no end-of-sequence token and no chat template, which the release has elsewhere")
      .severity = Severity::note;
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(openai) = {
    .name = "openai", .spec = "openai/gpt-oss: gpt_oss/torch", .match = match, .read = read, .write = nullptr, .config = config};
// clang-format on

}  // namespace qb
