// Ranges are those that the producers' own calibrators take of the same numbers.
//
// data/calibration/observers.json is written by tools/conformance/observers.py, which says what the numbers are. Edges of bins are float32 numbers, which the
// producer takes in other ways than by a product: they are 2 units in the last place apart at most. The producers' sums are float32, ours float64: where two
// candidates are equal up to that, the neighbour is as good, so a search may end one step beside theirs.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "bridge/calibrate.h"
#include "calib/histogram.h"
#include "calib/range_observer.h"
#include "host/host.h"
#include "suite.h"

namespace qb::suite {
namespace {

using calib::ChosenObserver;
using calib::RangeObserver;

std::vector<float> sample(uint32_t s, uint32_t count) {
  std::vector<float> x;
  for (uint32_t i = 0; i < count; ++i) {
    const double a = static_cast<double>((2654435761U * i + 40503U * s) >> 16) - 32768;
    x.push_back(static_cast<float>(a * a * a / 0x1p45 * (16 + s) / 16));
  }
  return x;
}

std::unique_ptr<RangeObserver> observer(std::string_view name, recipe::Numerics numerics, std::string_view activation) {
  const Result<ChosenObserver> chosen = calib::parse_observer(name, numerics);
  EXPECT_TRUE(chosen.ok()) << name;
  const ir::QuantType type = ir::parse_activation(std::string(activation))->type;
  EXPECT_EQ(chosen->kind->refuses(type), "");
  return chosen->kind->make(type, chosen->argument);
}

TEST(Observers, RangesAreTheProducers) {
  const Json expected = read_document(Path(QB_TEST_DATA) / "calibration/observers.json");
  int cases = 0;
  for (const Json& c : expected["cases"]) {
    const std::string name = c["observer"], activation = c["activation"];
    SCOPED_TRACE(fmt::format("{} {} {}", name, std::string(c["numerics"]), activation));
    const auto numerics = c["numerics"] == "modelopt" ? recipe::Numerics::modelopt : recipe::Numerics::llm_compressor;
    const std::unique_ptr<RangeObserver> o = observer(name, numerics, activation);
    for (uint32_t s = 0; s < expected["samples"].get<uint32_t>(); ++s) {
      const std::vector<float> x = sample(s, expected["count"]);
      o->see(x.data(), static_cast<int64_t>(x.size() / 64), 64);
      o->sample_done();
    }
    const recipe::Range r = o->range();
    if (c.contains("amax")) {
      // All of 100 percent is what was seen, not the edge behind it.
      const double want = c["amax"], bin = 1.0 / 2048, step = name.starts_with("percentile") && name != "percentile:100" ? 0 : bin;
      EXPECT_NEAR(std::max(-r.least, r.most), want, step + want * 0x1p-22);
    } else {
      // A step of the search is a hundredth of a sample's range, and a hundredth of that goes into the average but for the first.
      const double want = c["most"], step = name == "mse" ? 0.01 * want : 0;
      EXPECT_NEAR(r.most, want, step + want * 0x1p-22);
      EXPECT_NEAR(r.least / r.most, c["least"].get<double>() / want, 0x1p-20);
    }
    ++cases;
  }
  EXPECT_GT(cases, 12);
}

TEST(Observers, WhatIsClampedMakesTheErrorLess) {
  // Thousands of numbers up to 1 and one at 50: whoever looks for the least error, or leaves a thousandth out, does not make room for it.
  std::vector<float> x = sample(0, 6000);
  x.push_back(50);
  for (const char* name : {"percentile:99.9", "mse"}) {
    const auto o = observer(name, recipe::Numerics::modelopt, "int8_tensor_static");
    o->see(x.data(), 1, static_cast<int64_t>(x.size()));
    o->sample_done();
    EXPECT_LT(o->range().most, name[0] == 'm' ? 50.0F : 4.0F) << name;
    EXPECT_GE(o->range().least, -1.01F) << name;  // nothing below was seen
  }
}

TEST(Observers, HistogramsStayBoundedHoweverFarNumbersReach) {
  calib::Histogram h;
  const std::vector<float> zeros(10);
  h.add(zeros.data(), 10);
  int64_t total = 10;
  for (float top = 0x1p-20F; top < 0x1p20F; top *= 3) {
    std::vector<float> x = sample(1, 500);
    for (float& v : x) v *= top;
    h.add(x.data(), 500);
    total += 500;
    const auto bins = static_cast<int64_t>(h.counts().size());
    EXPECT_LE(bins, calib::Histogram::most_bins);
    EXPECT_GE(bins, calib::Histogram::first_bins);
    EXPECT_EQ(std::accumulate(h.counts().begin(), h.counts().end(), int64_t{0}), total);
    EXPECT_GE(h.edge(bins), top * 0.99F);
  }
  EXPECT_EQ(h.total(), total);
}

TEST(Observers, NumbersThatAreNotFiniteMakeARangeThatIsNot) {
  for (const calib::ObserverKind* kind : calib::observers()) {
    const auto o = kind->make(ir::parse_activation("int8_tensor_static")->type, kind->argument.usual);
    EXPECT_TRUE(o->range().empty());
    for (const float bad : {NAN, INFINITY}) {
      const std::vector<float> x{1, bad, -2, 0};
      o->see(x.data(), 1, 4);
      o->sample_done();
    }
    EXPECT_TRUE(std::isinf(o->range().most) || std::isnan(o->range().most)) << kind->name;
  }
}

TEST(Observers, NamesAndArgumentsAreChecked) {
  for (const char* text :
       {"maximum", "max:1", "percentile:", "percentile:0", "percentile:100.5", "percentile:9x", "percentile:nan", "average:1.5", "entropy:3"}) {
    const Result<ChosenObserver> r = calib::parse_observer(text, recipe::Numerics::modelopt);
    ASSERT_FALSE(r.ok()) << text;
    EXPECT_EQ(r.error().code, Errc::invalid_argument);
  }
  EXPECT_EQ(calib::parse_observer("percentile:99.5", recipe::Numerics::modelopt)->argument, 99.5);
  EXPECT_NE(calib::parse_observer("mse", recipe::Numerics::modelopt)->kind, calib::parse_observer("mse", recipe::Numerics::llm_compressor)->kind);
}

// What a job of the command line does up to its plan.
struct Measured {
  pass::Ranges ranges;
  std::set<std::string> problems;
};
Measured measured(const Path& base, std::string_view scheme, const std::string& observer, std::string_view algorithm = {}) {
  const Scratch scratch;
  Result<Session> session = open_session(base);
  EXPECT_TRUE(session.ok());
  JobOptions job = to_dialect("modelopt");
  job.quantize = *pass::quantize_options(std::string(scheme), "", "", job.to);
  job.quantize->regex = host::compile_regex;
  job.quantize->config.kv_cache = pass::Says::Input{.type = *ir::parse_activation("fp8_tensor_static")};
  job.quantize->config.everything.weight->algorithm = algorithm;
  Context context;
  context.limits = {.memory_budget = 512 << 20, .threads = 2};
  context.isa = host::detect_isa();
  Calibration how{.file = calibration_ids(fixture_at(base), scratch).string(), .limits = {}, .observer = observer, .out = scratch / "out", .progress = {}};
  Diagnostics diag;
  const Result<bool> done = calibrate(*session, job, how, context, diag);
  EXPECT_TRUE(done.ok()) << done.error().what;
  Measured out;
  if (done && *done) out.ranges = *job.quantize->ranges;
  for (const Problem& p : diag.all()) out.problems.insert(p.code);
  return out;
}

float size(const recipe::Range& r) {
  return std::max(-r.least, r.most);
}

TEST(Observers, InputsAndCachesOfAModelAreTakenSo) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  ASSERT_TRUE(base);
  const Measured whole = measured(*base, "fp8_tensor:fp8_tensor_static", ""), most = measured(*base, "fp8_tensor:fp8_tensor_static", "max"),
                 part = measured(*base, "fp8_tensor:fp8_tensor_static", "percentile:99"), least = measured(*base, "fp8_tensor:fp8_tensor_static", "mse");
  ASSERT_FALSE(whole.ranges.measured.empty());
  int caches = 0;
  for (const auto& [what, range] : whole.ranges.measured) {
    ASSERT_TRUE(part.ranges.measured.contains(what) && least.ranges.measured.contains(what));
    EXPECT_EQ(most.ranges.measured.at(what), range) << what.path;
    EXPECT_LT(size(part.ranges.measured.at(what)), size(range)) << what.path;
    EXPECT_GT(size(part.ranges.measured.at(what)), 0) << what.path;
    EXPECT_LE(size(least.ranges.measured.at(what)), size(range)) << what.path;
    caches += what.role != ir::Role::input_scale ? 1 : 0;
  }
  EXPECT_GT(caches, 0);
}

// ModelOpt's SmoothQuant makes every column of the inputs as large as any other: so there are none left that a percentile would clamp by themselves.
TEST(Observers, InputsThatAnAlgorithmHasScaledAreSeenScaled) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  ASSERT_TRUE(base);
  constexpr const char* scheme = "int8_channel:int8_tensor_static";
  const Measured known = measured(*base, scheme, "", "smoothquant"), seen = measured(*base, scheme, "percentile:100", "smoothquant");
  int inputs = 0;
  for (const auto& [what, range] : known.ranges.measured) {
    if (what.role != ir::Role::input_scale) continue;
    // By the column's factor before and after the maximum is taken; edges of bins are rounded.
    EXPECT_NEAR(size(seen.ranges.measured.at(what)) / size(range), 1, 0x1p-20) << what.path;
    ++inputs;
  }
  EXPECT_GT(inputs, 0);
}

TEST(Observers, WhatHasNoFormulaIsRefusedByName) {
  const std::optional<Path> base = checkpoint_at("base/llama_small");
  ASSERT_TRUE(base);
  EXPECT_TRUE(measured(*base, "fp8_tensor:fp8_tensor_static", "entropy").problems.contains("observer-unsuited"));
  EXPECT_TRUE(measured(*base, "nvfp4:nvfp4", "mse").problems.contains("observer-unsuited"));
}

}  // namespace
}  // namespace qb::suite
