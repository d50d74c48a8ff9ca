// Weights that algorithms make from data are those that the producers make of the same token ids, as far as two runs of a model agree; and a calibration that
// was cut off goes on with the same bytes.
//
// The producers ran their models in bfloat16, whose every step is rounded to 8 bits; here inputs are float32. So sums of products differ in their third digit,
// and codes that lie next to a tie differ, and those behind them in their row. What is asked for: scales and orders are equal, and codes differ from the
// producer's a third as often as those of plain rounding do, or less.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <optional>

#include "bridge/calibrate.h"
#include "bridge/runtime.h"
#include "bridge/streamed.h"
#include "calib/calibrate.h"
#include "host/cpu.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

struct Wanted {
  std::string scheme, algorithm, to = "gptq";
  int threads = 2;
  uint64_t budget = 512 << 20;
};

// Up to where the output would be written; false, and a failure where none is expected, where it cannot be.
struct Attempt {
  Result<Session> session = Error{Errc::io, ""};
  JobOptions job;
  Calibration how;
  Context context;
  Diagnostics diag;
};
Result<bool> calibrated(const Path& base, const Path& out, const Wanted& w, Attempt& run, const std::atomic<bool>* cancelled = nullptr) {
  run.session = open_session(base);
  EXPECT_TRUE(run.session.ok());
  run.job = to_dialect(w.to);
  run.job.quantize = *pass::quantize_options(w.scheme, "", "", w.to);
  run.job.quantize->regex = host::compile_regex;
  run.job.quantize->config.everything.weight->algorithm = w.algorithm;
  const Scratch scratch;
  run.how = {.file = calibration_ids(fixture_at(base), scratch).string(), .limits = {}, .out = out, .progress = {}};
  run.context.limits = {.memory_budget = w.budget, .threads = w.threads};
  run.context.isa = host::detect_isa();
  run.context.cancelled = cancelled;
  if (w.algorithm.empty()) return true;
  return calibrate(*run.session, run.job, run.how, run.context, run.diag);
}

Weights written(const Path& base, const Path& out, const Wanted& w) {
  Attempt run;
  const Result<bool> done = calibrated(base, out, w, run);
  EXPECT_TRUE(done.ok() && *done) << (done.ok() ? "" : done.error().what);
  Job planned;
  Diagnostics problems;
  const bool possible = plan_job(*run.session, run.job, run.context, planned, problems);
  EXPECT_TRUE(possible);
  if (!possible) return {};
  const Result<JobReport> report = write_job(*run.session, planned, out, false, true, run.context);
  EXPECT_TRUE(report.ok()) << (report.ok() ? "" : report.error().what);
  return read_weights(out);
}

int64_t codes_that_differ(const Tensor& a, const Tensor& b) {
  int64_t count = 0;
  EXPECT_EQ(a.bytes.size(), b.bytes.size());
  for (size_t i = 0; i < std::min(a.bytes.size(), b.bytes.size()); ++i)
    for (const int shift : {0, 4}) count += ((a.bytes[i] >> shift) & 15) != ((b.bytes[i] >> shift) & 15) ? 1 : 0;
  return count;
}

TEST(Algorithms, GptqIsTheProducers) {
  struct {
    const char *fixture, *base, *scheme, *algorithm;
  } const cases[] = {{"w4a16_gptq", "llama_head", "int4_g128", "gptq_in_order"},
                     {"w4a16_gptq_weight", "llama_mini1", "int4_g32", "gptq"},
                     {"legacy_w4a16_gptq_weight", "llama_mini1", "int4_g64", "gptq"},
                     {"legacy_w4a16_gptq_group", "llama_mini1", "int4_g32", "gptq_group_order"},
                     {"legacy_w4a16_gptq_group_asym", "llama_mini1", "int4_g64_asym", "gptq_group_order"}};
  int compared = 0;
  for (const auto& c : cases) {
    SCOPED_TRACE(c.fixture);
    const std::optional<Path> fixture = checkpoint_at(std::string("compressed_tensors/") + c.fixture), base = checkpoint_at(std::string("base/") + c.base);
    if (!fixture || !base) continue;
    const Scratch scratch;
    // Both as one dialect has them, whatever the producer's.
    const Outcome turned = convert(fixture_at(*fixture).path, scratch / "theirs", to_dialect("gptq"));
    ASSERT_TRUE(turned.written) << turned.text();
    const Weights theirs = read_weights(scratch / "theirs"), ours = written(*base, scratch / "ours", {c.scheme, c.algorithm}),
                  rounded = written(*base, scratch / "rounded", {c.scheme, ""});
    const bool groups = std::string_view(c.algorithm) == "gptq_group_order";
    int64_t off = 0, plainly_off = 0, codes = 0, order_off = 0, columns = 0;
    for (const auto& [name, tensor] : theirs.tensors) {
      ASSERT_TRUE(ours.tensors.contains(name)) << name;
      const Tensor& mine = ours.tensors.at(name);
      if (name.ends_with(".g_idx")) {
        for (size_t i = 0; i < tensor.bytes.size(); i += 4) order_off += std::memcmp(&tensor.bytes[i], &mine.bytes[i], 4) != 0 ? 1 : 0;
        columns += static_cast<int64_t>(tensor.bytes.size()) / 4;
      } else if (name.ends_with(".qweight")) {
        off += codes_that_differ(tensor, mine);
        plainly_off += codes_that_differ(tensor, rounded.tensors.at(name));
        codes += static_cast<int64_t>(tensor.bytes.size()) * 2;
      } else if (!groups) {
        EXPECT_EQ(tensor, mine) << name;
      }
    }
    EXPECT_GT(codes, 0);
    // Groups are those of columns in an order that a third digit changes: then scales are those of other columns too.
    EXPECT_LE(order_off * 10, columns);
    EXPECT_LE(off * (groups ? 1 : 3), plainly_off) << off << " and " << plainly_off << " of " << codes;
    std::printf("%-30s %6.2f %% of the codes are not the producer's, %6.2f %% of rounded ones; %.1f %% of the columns' groups\n", c.fixture,
                100.0 * static_cast<double>(off) / static_cast<double>(codes), 100.0 * static_cast<double>(plainly_off) / static_cast<double>(codes),
                columns == 0 ? 0.0 : 100.0 * static_cast<double>(order_off) / static_cast<double>(columns));
    ++compared;
  }
  EXPECT_GT(compared, 0);
}

// Keeps what a half of the first layer puts out, exchanges the weights of two linears, and compares.
class Exchange final : public calib::LayerWork {
 public:
  Exchange(ir::Checkpoint& running, std::string within, std::string one, std::string other)
      : running_(running), within_(std::move(within)), one_(std::move(one)), other_(std::move(other)) {}
  Result<Pass> begin(int64_t) override {
    if (pass_ == 1) std::swap(module(one_).parts, module(other_).parts);
    return ++pass_ == 1 ? Pass::keep : pass_ == 2 ? Pass::compare : Pass::done;
  }
  std::string within() const override { return within_; }
  void compared(double squares) override { difference = squares; }
  Result<void> end(int64_t, const std::function<void(double)>&) override { return {}; }

  std::optional<double> difference;

 private:
  ir::Module& module(const std::string& path) {
    return *std::find_if(running_.modules.begin(), running_.modules.end(), [&](const ir::Module& m) { return m.path == path; });
  }
  ir::Checkpoint& running_;
  std::string within_, one_, other_;
  int pass_ = 0;
};

TEST(Algorithms, CandidatesAreComparedByTheHalfThatTheyAreIn) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  if (!base) GTEST_SKIP();
  const auto difference = [&](const std::string& within, const std::string& one, const std::string& other) {
    const std::string layer = "model.layers.0.";
    Result<Session> session = open_session(*base);
    EXPECT_TRUE(session.ok());
    Context context;
    context.isa = host::detect_isa();
    EXPECT_TRUE(make_runnable(*session, context).ok());
    host::ThreadPool pool(2);
    ir::Checkpoint running = session->checkpoint;
    model::Options options;
    options.linear.cpu = host::this_cpu();
    options.linear.inputs = kernel::Inputs::f32;
    const auto streamed = Streamed::open(*session, running, pool, context, options);
    EXPECT_TRUE(streamed.ok());
    Exchange work(running, layer + within, layer + one, layer + other);
    const std::vector<std::vector<int32_t>> samples{{1, 2, 3, 4, 5}, {7, 8, 9}};
    const Scratch scratch;
    EXPECT_TRUE(calib::calibrate((*streamed)->model(), samples, work, {.scratch = scratch / ""}).ok());
    EXPECT_TRUE(work.difference.has_value());
    return work.difference.value_or(-1);
  };
  EXPECT_EQ(difference("self_attn.q_proj", "self_attn.q_proj", "self_attn.q_proj"), 0);
  EXPECT_GT(difference("self_attn.v_proj", "self_attn.k_proj", "self_attn.v_proj"), 0);
  EXPECT_EQ(difference("self_attn.q_proj", "mlp.gate_proj", "mlp.up_proj"), 0);
  EXPECT_GT(difference("mlp.gate_proj", "mlp.gate_proj", "mlp.up_proj"), 0);
}

// ModelOpt's factors hang on sums that bfloat16 rounds as a whole: they are within two of its units.
TEST(Algorithms, FactorsAreModelOpts) {
  struct {
    const char *fixture, *base, *scheme, *algorithm;
  } const cases[] = {{"llama-int4_awq", "llama_small", "int4_g128", "awq"},
                     {"llama-w4a8_awq", "llama_small", "int4_g128:fp8_tensor_static", "awq"},
                     {"llama-int8_sq", "llama_small", "int8_channel:int8_tensor_static", "smoothquant"}};
  for (const auto& c : cases) {
    SCOPED_TRACE(c.fixture);
    const std::optional<Path> fixture = checkpoint_at(std::string("modelopt/") + c.fixture), base = checkpoint_at(std::string("base/") + c.base);
    if (!fixture || !base) continue;
    const Scratch scratch;
    const Weights theirs = fixture_at(*fixture).weights(), ours = written(*base, scratch / "ours", {c.scheme, c.algorithm, "modelopt"});
    int64_t factors = 0;
    for (const auto& [name, tensor] : theirs.tensors) {
      ASSERT_TRUE(ours.tensors.contains(name)) << name;
      EXPECT_EQ(describe(tensor), describe(ours.tensors.at(name)));
      if (!name.ends_with("norm.weight") && !name.ends_with("pre_quant_scale") && !name.ends_with("input_scale") && !name.ends_with("weight_scale_2")) continue;
      const std::vector<double> a = values(tensor), b = values(ours.tensors.at(name));
      // The producer's are of each weight's own factors, the largest of them; here they are of those that are used, their mean.
      const bool averaged = std::string_view(c.algorithm) == "awq" && name.ends_with("input_scale") &&
                            !theirs.tensors.contains(name.substr(0, name.rfind('.')) + ".pre_quant_scale");
      if (averaged) {
        EXPECT_LE(b[0] / a[0], 1 + 4 * 0x1p-7) << name;
        continue;
      }
      for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(b[i] / a[i], 1, 4 * 0x1p-7) << name << " " << i;
      factors += static_cast<int64_t>(a.size());
    }
    EXPECT_GT(factors, 0);
    EXPECT_EQ(theirs.tensors.size(), ours.tensors.size());
  }
}

// The producer takes up to 64 tokens of a sample, and these have 24: its search goes by the same numbers, but for bfloat16. Of parts whose errors are that near
// it may take the next one, a twentieth away.
TEST(Algorithms, ClippingIsModelOpts) {
  const std::optional<Path> fixture = checkpoint_at("modelopt/llama-nvfp4_awq_clip"), base = checkpoint_at("base/llama_small");
  if (!fixture || !base) GTEST_SKIP();
  const Scratch scratch;
  const Weights theirs = fixture_at(*fixture).weights(), ours = written(*base, scratch / "ours", {"nvfp4:nvfp4", "awq_clip", "modelopt"}),
                rounded = written(*base, scratch / "rounded", {"nvfp4", "", "modelopt"});
  int weights = 0, equal = 0, clipped = 0;
  for (const auto& [name, tensor] : theirs.tensors) {
    ASSERT_TRUE(ours.tensors.contains(name)) << name;
    EXPECT_EQ(describe(tensor), describe(ours.tensors.at(name)));
    if (!name.ends_with("weight_scale_2")) continue;
    const double want = values(tensor).at(0), got = values(ours.tensors.at(name)).at(0), whole = values(rounded.tensors.at(name)).at(0);
    EXPECT_NEAR(got / whole, want / whole, 0.0501) << name;
    ++weights;
    equal += std::abs(got / want - 1) < 0x1p-8 ? 1 : 0;
    clipped += want < whole * 0.99 ? 1 : 0;
  }
  EXPECT_GT(weights, 0);
  EXPECT_GE(equal * 4, weights * 3) << equal << " of " << weights;
  std::printf("%d of %d second levels are the producer's, who made %d smaller\n", equal, weights, clipped);
}

// Pre-scales beside weights whose codes another algorithm decides: what comes out is the linear that went in, but for rounding.
TEST(Algorithms, CodesBehindPreScalesAreOfTheScaledWeights) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  ASSERT_TRUE(base);
  const Scratch scratch;
  const Weights source = read_weights(*base);
  for (const char* algorithm : {"awq+awq_clip", "awq+gptq"}) {
    SCOPED_TRACE(algorithm);
    const Weights made = written(*base, scratch / algorithm, {"int4_g32", algorithm, "modelopt"});
    const Outcome dense = convert(scratch / algorithm, scratch / (std::string(algorithm) + ".dense"), to_dialect("dense"));
    ASSERT_TRUE(dense.written) << dense.text();
    int compared = 0;
    for (const auto& [name, tensor] : read_weights(scratch / (std::string(algorithm) + ".dense")).tensors) {
      if (!name.ends_with("down_proj.weight") && !name.ends_with("o_proj.weight")) continue;
      ASSERT_TRUE(made.tensors.contains(name.substr(0, name.rfind('.')) + ".pre_quant_scale"));
      const std::vector<double> a = values(source.tensors.at(name)), b = values(tensor);
      double off = 0, size = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        off += (a[i] - b[i]) * (a[i] - b[i]);
        size += a[i] * a[i];
      }
      // Four bits lose a tenth of a normal distribution; GPTQ trades more of it for less at the outputs.
      EXPECT_LT(std::sqrt(off / size), 0.3) << name;
      ++compared;
    }
    EXPECT_GT(compared, 0);
  }
}

TEST(Algorithms, ShorthandsOfModelOptMeanTheirAlgorithms) {
  for (const auto& [name, algorithm] : {std::pair{"INT4_AWQ_CFG", "awq"},
                                        {"W4A8_AWQ_BETA_CFG", "awq"},
                                        {"NVFP4_AWQ_LITE_CFG", "awq"},
                                        {"NVFP4_AWQ_CLIP_CFG", "awq_clip"},
                                        {"NVFP4_AWQ_FULL_CFG", "awq+awq_clip"},
                                        {"INT8_SMOOTHQUANT_CFG", "smoothquant"},
                                        {"INT4_BLOCKWISE_WEIGHT_ONLY_CFG", ""}}) {
    const Result<pass::QuantizeOptions> options = pass::quantize_options(std::string(name), "", "", "modelopt");
    ASSERT_TRUE(options.ok()) << name;
    EXPECT_EQ(options->config.everything.weight->algorithm, algorithm) << name;
  }
}

// Of several layers and kinds of layers: the checkpoint is good, and computes what the one before it does, but for rounding.
TEST(Algorithms, EveryFamilyIsWritten) {
  int checkpoints = 0;
  for (const char* name :
       {"base/llama_mini1", "base/qwen2_mini", "base/qwen3_mini", "base/deepseek_v3_groups_tiny", "base/gemma3_tiny", "base/qwen2_moe_tiny"}) {
    const std::optional<Path> base = checkpoint_at(name);
    if (!base) continue;
    for (const auto& [scheme, algorithm, to] : {std::tuple{"int4_g8", "gptq", "gptq"},
                                                {"int4_g8", "awq+gptq", "compressed_tensors"},
                                                {"int8_channel:int8_token", "smoothquant", "compressed_tensors"},
                                                {"int4_g8", "awq", "modelopt"},
                                                {"int4_g8", "awq+awq_clip", "modelopt"},
                                                {"nvfp4", "awq+awq_clip", "modelopt"},
                                                {"nvfp4", "awq_clip", "compressed_tensors"}}) {
      SCOPED_TRACE(fmt::format("{} {} {}", name, algorithm, to));
      const Scratch scratch;
      Attempt run;
      const Result<bool> done = calibrated(*base, scratch / "out", {scheme, algorithm, to}, run);
      ASSERT_TRUE(done.ok()) << done.error().what;
      if (!*done) continue;  // groups that do not divide, vocabularies of other ids: refused by name
      Job planned;
      Diagnostics problems;
      if (!plan_job(*run.session, run.job, run.context, planned, problems)) continue;
      ASSERT_TRUE(write_job(*run.session, planned, scratch / "out", false, true, run.context).ok());
      const Result<Session> made = open_session(scratch / "out");
      ASSERT_TRUE(made.ok());
      EXPECT_TRUE(made->readable && made->diag.ok());
      ++checkpoints;
    }
  }
  EXPECT_GT(checkpoints, 12);
}

class Resume : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Algorithms, Resume, testing::Values("gptq", "awq", "awq+gptq", "awq+awq_clip", "smoothquant"));

// Killed behind any layer: what is left is taken up, and nothing else. (kill_test.py kills at any moment.)
TEST_P(Resume, GoesOnWithTheSameBytes) {
  const std::optional<Path> base = checkpoint_at("base/qwen2_moe_tiny");
  ASSERT_TRUE(base);
  const Scratch scratch;
  const Wanted wanted{std::string_view(GetParam()) == "smoothquant" ? "int8_channel:int8_token" : "int4_g8", GetParam(), "compressed_tensors"};
  const Path out = scratch / "out", partial = scratch / "out.calibration", kept = scratch / "kept";
  const Weights expected = written(*base, out, wanted);
  ASSERT_FALSE(expected.tensors.empty());
  std::filesystem::rename(out, scratch / "first");
  ASSERT_TRUE(std::filesystem::exists(partial));  // who runs the job takes it away
  std::filesystem::copy(partial, kept);
  std::set<Path> files;
  for (const auto& e : std::filesystem::directory_iterator(kept))
    if (e.path().extension() == ".safetensors") files.insert(e.path().filename());
  ASSERT_GE(files.size(), 2u);
  for (const Path& last : files) {
    SCOPED_TRACE(last.string());
    std::filesystem::remove_all(out);
    std::filesystem::remove_all(partial);
    std::filesystem::create_directory(partial);
    for (const Path& f : files) {
      std::filesystem::copy(kept / f.string(), partial / f);
      if (f == last) break;
    }
    write_bytes(partial / "gptq-00001.safetensors.part", "torn");
    const Weights again = written(*base, out, {wanted.scheme, wanted.algorithm, wanted.to, 1});
    EXPECT_EQ(again.tensors, expected.tensors);
  }
  // Of another job: nothing of it is used.
  std::filesystem::remove_all(out);
  Attempt other;
  const Result<bool> done = calibrated(*base, out, {"int8_g8", "gptq", "compressed_tensors"}, other);
  ASSERT_TRUE(done.ok() && *done);
  EXPECT_FALSE(other.how.store->resumed());
}

TEST(Algorithms, BytesDependOnNeitherBudgetNorThreads) {
  const std::optional<Path> base = checkpoint_at("base/qwen3_mini");
  ASSERT_TRUE(base);
  for (const char* algorithm : {"gptq", "awq"}) {
    const Scratch scratch;
    const Weights a = written(*base, scratch / "a", {"int4_g32", algorithm, "compressed_tensors"}),
                  b = written(*base, scratch / "b", {"int4_g32", algorithm, "compressed_tensors", 1, 256 << 10});
    EXPECT_EQ(a.tensors, b.tensors) << algorithm;
  }
}

TEST(Algorithms, WhatCannotBeMadeIsRefusedByName) {
  const std::optional<Path> base = checkpoint_at("base/llama_mini1");
  ASSERT_TRUE(base);
  const Scratch scratch;
  Attempt types, names;
  const Result<bool> refused = calibrated(*base, scratch / "out", {"nvfp4", "gptq", "modelopt"}, types);
  ASSERT_TRUE(refused.ok());
  EXPECT_FALSE(*refused);
  EXPECT_TRUE(types.diag.has("algorithm-unsuited"));
  EXPECT_EQ(calibrated(*base, scratch / "out", {"int4_g32", "gtpq"}, names).error().code, Errc::invalid_argument);
  // Without data nothing is made.
  Attempt without;
  ASSERT_TRUE(calibrated(*base, scratch / "out", {"int4_g32", ""}, without).ok());
  without.job.quantize->config.everything.weight->algorithm = "gptq";
  Job planned;
  Diagnostics problems;
  EXPECT_FALSE(plan_job(*without.session, without.job, without.context, planned, problems));
  EXPECT_TRUE(problems.has("calibration-needed"));
}

}  // namespace
}  // namespace qb::suite
