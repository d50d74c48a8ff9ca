// Matrices in their other form: fused projections apart, separate ones together, stacked experts one by one and back. The other form reads back clean, means
// the same numbers, and the way back gives the same tensors byte for byte.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "suite.h"

namespace qb::suite {
namespace {

using pass::Form;

JobOptions with_forms(std::string dialect, pass::Forms forms) {
  JobOptions o = to_dialect(std::move(dialect));
  o.forms = forms;
  return o;
}

// There in `other`, back in `own`. Parts that are not alike are refused by name: how many.
int there_and_back(const Fixture& f, const Session& s, const pass::Forms& other, const pass::Forms& own) {
  const std::string dialect(s.dialect->name);
  Scratch scratch;
  const Outcome there = convert(f.path, scratch / "there", with_forms(dialect, other));
  if (!there.written) {
    EXPECT_TRUE(there.codes().contains("form-inexpressible") || there.codes().contains("scheme-inexpressible")) << there.text();
    return 1;
  }
  Result<Session> read = open_session(scratch / "there");
  EXPECT_TRUE(read.ok() && read->readable);
  if (!read.ok() || !read->readable) return 0;
  for (const Problem& p : read->diag.all())
    EXPECT_TRUE(p.severity != Severity::error || s.diag.has(p.code)) << p.code << " " << p.tensor << " " << p.module << ": " << p.found;
  const FormsThere kinds(read->checkpoint.topology);
  EXPECT_TRUE(other.projections != Form::separate || !kinds.fused);
  EXPECT_TRUE(other.projections != Form::joined || (kinds.fused && !kinds.separate));
  EXPECT_TRUE(other.experts != Form::separate || (kinds.experts && !kinds.stacked));
  EXPECT_TRUE(other.experts != Form::joined || (kinds.stacked && !kinds.experts));
  EXPECT_TRUE(convert(f.path, scratch / "as it is", to_dialect(dialect)).written);
  const Outcome back = convert(scratch / "there", scratch / "back", with_forms(dialect, own));
  // Words of packed zero points, for one, may go through where parts meet.
  EXPECT_TRUE(back.written || (other.projections == Form::joined && back.codes().contains("form-inexpressible"))) << back.text();
  if (!back.written) return 0;
  // What is joined does not say how its parts were spelled.
  std::set<std::string> paths;
  for (const arch::Module& m : s.checkpoint.topology.modules) paths.insert(m.path);
  bool spelled = false;
  for (const arch::Module& m : read->checkpoint.topology.modules)
    for (const arch::Module& part : m.parts) spelled |= kinds.fused && other.projections == Form::joined && !paths.contains(part.path);
  if (spelled) return 0;
  // Notes of the way there say how the source was stored (AutoAWQ's gemv, GPTQ's v2), where a conversion as it is writes the usual form.
  if (back.written && there.changes.empty() && read_weights(f.path).tensors != read_weights(scratch / "back").tensors)
    same_bytes(scratch / "as it is", scratch / "back");
  JobOptions plain = to_dialect("dense");
  plain.dense_dtype = Elem::f32;
  EXPECT_TRUE(convert(f.path, scratch / "numbers", plain).written);
  plain.forms = own;
  const Outcome numbers = convert(scratch / "there", scratch / "numbers there", plain);
  EXPECT_TRUE(numbers.written) << numbers.text();
  if (numbers.written) same_bytes(scratch / "numbers", scratch / "numbers there");
  return 0;
}

TEST(Forms, ThereAndBack) {
  std::map<std::string, int> done;
  int refused = 0;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "base"})
    for (const Fixture& f : fixtures(folder)) {
      if (!scope_of(f).in) continue;
      SCOPED_TRACE(f.name);
      Result<Session> session = open_session(f.path);
      ASSERT_TRUE(session.ok()) << session.error().what;
      if (!session->readable || session->checkpoint.topology.family == nullptr) continue;
      const FormsThere kinds(session->checkpoint.topology);
      const auto run = [&](const char* what, const pass::Forms& other, const pass::Forms& own) {
        SCOPED_TRACE(what);
        const int no = there_and_back(f, *session, other, own);
        refused += no;
        done[what] += 1 - no;
      };
      if (kinds.fused) run("fused, apart", {.projections = Form::separate}, {.projections = Form::joined});
      if (kinds.separate) run("apart, fused", {.projections = Form::joined}, {.projections = Form::separate});
      if (kinds.stacked) run("stacked, apart", {.experts = Form::separate}, {.experts = Form::joined});
      if (kinds.experts) run("apart, stacked", {.experts = Form::joined}, {.experts = Form::separate});
    }
  for (const auto& [what, count] : done) std::printf("%s: %d\n", what.c_str(), count);
  std::printf("refused: %d\n", refused);
  if (done.empty()) GTEST_SKIP() << "no fixtures in " << root();
  for (const char* what : {"fused, apart", "apart, fused", "stacked, apart", "apart, stacked"}) EXPECT_GT(done[what], 0) << what;
}

// A target that has no place for stacks gets each expert's linears, and the report says so.
TEST(Forms, StacksAreTakenApartForATargetThatHasNoPlaceForThem) {
  int done = 0;
  for (const Fixture& f : fixtures("hf_mxfp4")) {
    SCOPED_TRACE(f.name);
    Scratch scratch;
    Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok() && session->readable);
    Context context;
    Job job;
    Diagnostics diag;
    ASSERT_TRUE(plan_job(*session, to_dialect("compressed_tensors"), context, job, diag));
    ASSERT_EQ(job.reformed.size(), 1U);
    EXPECT_NE(job.reformed[0].how.find("no place for stacks"), std::string::npos) << job.reformed[0].how;
    EXPECT_TRUE(job.plan.scheme_changes.empty());
    ASSERT_TRUE(convert(f.path, scratch / "there", to_dialect("compressed_tensors")).written);
    const Weights there = read_weights(scratch / "there");
    for (const char* name : {"gate_proj.weight_packed", "up_proj.weight_scale", "down_proj.bias", "gate_proj.bias"})
      EXPECT_TRUE(there.tensors.contains(fmt::format("model.layers.0.mlp.experts.1.{}", name))) << name;
    const Outcome back = convert(scratch / "there", scratch / "back", with_forms("hf_mxfp4", {.experts = Form::joined}));
    ASSERT_TRUE(back.written) << back.text();
    same_bytes(f.path, scratch / "back");
    ++done;
  }
  EXPECT_GT(done, 0);
}

// The tensors and the config of a release of gpt-oss as OpenAI names them.
void as_openai(const Fixture& f, const Path& out) {
  Weights w = f.weights(), renamed;
  constexpr std::pair<std::string_view, std::string_view> words[] = {
      {"model.layers.", "block."},
      {".self_attn.o_proj.", ".attn.out."},
      {".self_attn.sinks", ".attn.sinks"},
      {".input_layernorm.weight", ".attn.norm.scale"},
      {".post_attention_layernorm.weight", ".mlp.norm.scale"},
      {".mlp.router.", ".mlp.gate."},
      {".mlp.experts.gate_up_proj_bias", ".mlp.mlp1_bias"},
      {".mlp.experts.down_proj_bias", ".mlp.mlp2_bias"},
      {".mlp.experts.gate_up_proj_", ".mlp.mlp1_weight."},
      {".mlp.experts.down_proj_", ".mlp.mlp2_weight."},
      {"model.embed_tokens.", "embedding."},
      {"lm_head.", "unembedding."},
      {"model.norm.weight", "norm.scale"},
  };
  for (const std::string& name : w.order) {
    Tensor t = w.tensors.at(name);
    std::string own = name;
    if (const size_t q = own.find(".self_attn.q_proj."); q != own.npos) {
      for (const char* other : {"k_proj", "v_proj"}) {
        std::string beside = name;
        const Tensor& more = w.tensors.at(beside.replace(beside.find("q_proj"), 6, other));
        t.shape[0] += more.shape[0];
        t.bytes += more.bytes;
      }
      own.replace(q, 18, ".attn.qkv.");
    }
    if (own.find(".self_attn.k_proj.") != own.npos || own.find(".self_attn.v_proj.") != own.npos) continue;
    for (const auto& [from, to] : words)
      if (const size_t at = own.find(from); at != own.npos) own.replace(at, from.size(), to);
    renamed.order.push_back(own);
    renamed.tensors.emplace(own, std::move(t));
  }
  std::filesystem::create_directories(out);
  write_weights(out / "model.safetensors", renamed);
  const Json& c = f.config;
  Json config = {{"num_experts", c["num_local_experts"]},
                 {"experts_per_token", c["num_experts_per_tok"]},
                 {"swiglu_limit", 7.0},
                 {"initial_context_length", 4096},
                 {"rope_theta", 150000.0},
                 {"rope_scaling_factor", 32.0},
                 {"rope_ntk_alpha", 1.0},
                 {"rope_ntk_beta", 32.0}};
  for (const char* key :
       {"num_hidden_layers", "vocab_size", "hidden_size", "intermediate_size", "head_dim", "num_attention_heads", "num_key_value_heads", "sliding_window"})
    config[key] = c[key];
  write_bytes(out / "config.json", dump_json(config));
}

TEST(Forms, OpenAIsOwnNamesOfGptOss) {
  int done = 0;
  for (const Fixture& f : fixtures("hf_mxfp4")) {
    SCOPED_TRACE(f.name);
    Scratch scratch;
    as_openai(f, scratch / "in");
    Result<Session> session = open_session(scratch / "in");
    ASSERT_TRUE(session.ok() && session->readable);
    EXPECT_EQ(session->dialect->name, "openai");
    for (const Problem& p : session->diag.all()) EXPECT_EQ(p.severity, Severity::note) << p.code << " " << p.found;
    EXPECT_TRUE(session->diag.has("names-original"));
    const Outcome outcome = convert(scratch / "in", scratch / "out", to_dialect("hf_mxfp4"));
    ASSERT_TRUE(outcome.written) << outcome.text();
    same_bytes(f.path, scratch / "out");
    const Json config = read_document(scratch / "out" / "config.json");
    EXPECT_EQ(string_at(config, "model_type"), "gpt_oss");
    for (const char* key : {"num_local_experts", "num_experts_per_tok", "hidden_size", "head_dim", "layer_types", "rms_norm_eps", "tie_word_embeddings"})
      EXPECT_EQ(config[key], f.config[key]) << key;
    EXPECT_EQ(config["rope_scaling"]["factor"], 32.0);
    EXPECT_EQ(config["max_position_embeddings"], 131072);
    EXPECT_FALSE(config.contains("rope_ntk_beta"));
    EXPECT_TRUE(config.contains("quantization_config"));
    ++done;
  }
  EXPECT_GT(done, 0);
}

}  // namespace
}  // namespace qb::suite
