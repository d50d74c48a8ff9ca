// A weight that is quantized while it is loaded is the weight that is quantized to disk and then loaded: the same bytes in the kernels' layouts, by every
// recipe that needs no data, with any number of threads.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>
#include <set>

#include "bridge/runtime.h"
#include "host/host.h"
#include "ir/shorthand.h"
#include "recipe/recipe.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Loaded {
  Context context;
  std::unique_ptr<Runtime> runtime;
  std::string error;
};

void load(const Path& path, const pass::QuantizeOptions* quantize, int threads, uint64_t budget, Loaded& out) {
  Result<Session> session = open_session(path);
  ASSERT_TRUE(session.ok()) << session.error().what;
  if (quantize != nullptr) {
    Diagnostics diag;
    ASSERT_TRUE(pass::quantize(session->checkpoint, *quantize, diag)) << diag.all().front().code << " " << diag.all().front().found;
  }
  RuntimeOptions options;
  options.threads = threads;
  options.context = 16;
  options.model.linear.cpu = host::this_cpu();
  out.context.limits = {budget, threads};
  out.context.isa = host::detect_isa();
  Result<std::unique_ptr<Runtime>> r = Runtime::load(std::move(*session), options, out.context);
  if (r)
    out.runtime = std::move(*r);
  else
    out.error = r.error().what;
}

void expect_same(const Runtime& online, const Runtime& stored) {
  const auto a = online.model->linears(), b = stored.model->linears();
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    SCOPED_TRACE(a[i].first);
    ASSERT_EQ(a[i].first, b[i].first);
    const layer::Linear &x = *a[i].second, &y = *b[i].second;
    EXPECT_EQ(to_string(x.problem()), to_string(y.problem()));
    EXPECT_EQ(x.weight().global, y.weight().global);
    EXPECT_EQ(x.bytes(), y.bytes());
    ASSERT_EQ(x.parts().size(), y.parts().size());
    for (size_t p = 0; p < x.parts().size(); ++p) {
      ASSERT_EQ(x.parts()[p].size(), y.parts()[p].size());
      EXPECT_EQ(std::memcmp(x.parts()[p].data(), y.parts()[p].data(), x.parts()[p].size()), 0) << "part " << p;
    }
  }
  EXPECT_EQ(online.model->resident_bytes(), stored.model->resident_bytes());
}

struct Case {
  std::string config, numerics, recipe;
};

std::vector<Case> cases() {
  std::set<std::string> schemes;
  for (const ir::Shorthand& s : ir::shorthands()) {
    ir::Scheme scheme = *ir::parse_scheme(s.name);
    if (scheme.input && scheme.input->when == ir::When::fixed) scheme.input.reset();
    if (scheme.features == ir::Features{}) schemes.insert(to_string(scheme));
  }
  for (const char* more :
       {"int4_g32", "int4_g64_asym", "int4_channel", "int8_channel_asym", "int8_tensor", "int3_g64_asym", "int8_g64", "fp8_g128", "fp8_64x32", "nvfp4_g32"})
    schemes.insert(more);
  std::vector<Case> out;
  for (const std::string& scheme : schemes)
    for (const char* numerics : {"modelopt", "llm-compressor"}) out.push_back({scheme, numerics, ""});
  // Those that are found by name only.
  for (const recipe::Recipe* r : recipe::recipes())
    for (const std::string& scheme : schemes)
      if (const ir::Scheme s = *ir::parse_scheme(scheme); !s.input && r->makes(s.weight) && recipe::find_recipe(s.weight, r->numerics) != r)
        out.push_back({scheme, "", std::string(r->name)});
  return out;
}

TEST(Online, GivesTheBytesOfWhatIsStored) {
  const Scratch scratch;
  std::set<std::string> recipes;
  int compared = 0;
  for (const Fixture& base : fixtures("base")) {
    // Whole groups and biases; a mixture; tiles that are cut at the edges; a matrix that holds two.
    const bool whole = base.name == "base/llama_small" || base.name == "base/qwen2_mini";
    if (!whole && base.name != "base/mixtral_mini" && base.name != "base/llama_ragged" && base.name != "base/phi3_mini") continue;
    for (const Case& c : cases()) {
      if (!whole && !c.config.starts_with("fp8") && !c.config.starts_with("nvfp4")) continue;
      SCOPED_TRACE(base.name + " as " + c.config + ", " + c.numerics + c.recipe);
      const bool modelopt = c.numerics == "modelopt" || c.recipe.ends_with(".modelopt");
      Result<pass::QuantizeOptions> options = pass::quantize_options(c.config, c.numerics, c.recipe, "");
      ASSERT_TRUE(options.ok()) << options.error().what;
      Outcome outcome;
      for (const char* dialect : {"modelopt", "compressed_tensors"}) {
        if (outcome.written || (!modelopt && std::string_view(dialect) == "modelopt")) continue;
        std::filesystem::remove_all(scratch / "stored");
        JobOptions job = to_dialect(dialect);
        job.quantize = *options;
        outcome = convert(base.path, scratch / "stored", job);
        if (!outcome.changes.empty()) outcome.written = false;  // the dialect has no word for all of it
      }
      if (!outcome.written) continue;
      Loaded stored;
      load(scratch / "stored", nullptr, 2, 32u << 20, stored);
      ASSERT_NE(stored.runtime, nullptr) << stored.error;
      for (const auto& [threads, budget] : {std::pair<int, uint64_t>{1, 32u << 20}, {2, 2u << 20}, {7, 32u << 20}}) {
        SCOPED_TRACE(std::to_string(threads) + " threads");
        Loaded online;
        load(base.path, &*options, threads, budget, online);
        ASSERT_NE(online.runtime, nullptr) << online.error;
        expect_same(*online.runtime, *stored.runtime);
      }
      ++compared;
      recipes.insert(c.recipe.empty() ? std::string(recipe::find_recipe(ir::parse_scheme(c.config)->weight, options->numerics)->name) : c.recipe);
    }
  }
  std::printf("%d schemes and recipes of models compared, %zu recipes\n", compared, recipes.size());
  for (const recipe::Recipe* r : recipe::recipes()) EXPECT_TRUE(recipes.contains(std::string(r->name))) << r->name << " was not tried";
}

// Kinds, overrides, the head and the embedding, which keeps its rows.
TEST(Online, ServesAWholeConfiguration) {
  const Scratch scratch;
  for (const Fixture& base : fixtures("base")) {
    if (base.name != "base/llama_small") continue;
    pass::QuantizeOptions options =
        *pass::quantize_options(*pass::parse_quant_config(R"({"linear": "nvfp4", "lm_head": "fp8_per_channel", "embedding": "int8_channel",
                                     "overrides": [{"match": "down_proj", "scheme": "W4A16"}, {"match": "qkv_proj", "scheme": null}]})"),
                                "", "compressed_tensors");
    JobOptions job = to_dialect("compressed_tensors");
    job.quantize = options;
    const Outcome outcome = convert(base.path, scratch / "stored", job);
    ASSERT_TRUE(outcome.written) << outcome.text();
    Loaded stored, online;
    load(scratch / "stored", nullptr, 2, 32u << 20, stored);
    ASSERT_NE(stored.runtime, nullptr) << stored.error;
    load(base.path, &options, 2, 32u << 20, online);
    ASSERT_NE(online.runtime, nullptr) << online.error;
    expect_same(*online.runtime, *stored.runtime);
    const std::vector<int32_t> prompt{5, 6, 7};
    const auto generated = [&](Runtime& r) { return engine::generate(*r.model, *r.cache, prompt, {.sampling = {}, .max_new = 8, .stop_ids = {}})->ids; };
    EXPECT_EQ(generated(*online.runtime), generated(*stored.runtime));
    return;
  }
  GTEST_FAIL() << "no base/llama_small";
}

}  // namespace
}  // namespace qb::suite
