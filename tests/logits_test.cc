// Models run from producers' checkpoints against the logits that transformers computes from the same files (expected.logits, written by the fixtures'
// generator).
//
// Goals: the whole way from a directory to logits, for every fixture in scope: weights alone in float32, then with activations and the KV cache quantized as
// the scheme says; the same bits for every number of threads; cache blocks, chunks and batches without influence. Fixtures: QUANTBRIDGE_FIXTURES, else the
// selection in tests/data.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "bridge/session.h"
#include "engine/generate.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "suite.h"

namespace qb {
namespace {

struct Expected {
  std::vector<std::vector<int32_t>> ids;
  std::vector<float> weight_only, qdq, producer;  // [sequences, tokens, vocab]; producer: by its own formula for activations
};

std::string slice(const std::string& file, const TensorInfo& t) {
  return file.substr(t.offset, t.bytes);
}

std::vector<float> floats(const std::string& bytes) {
  std::vector<float> v(bytes.size() / 4);
  std::memcpy(v.data(), bytes.data(), v.size() * 4);
  return v;
}

Expected read_expected(const suite::Path& file) {
  Expected e;
  const std::string all = suite::read_bytes(file);
  if (all.size() < 8) return e;
  Diagnostics diag;
  uint64_t length = 0;
  const auto bytes = std::as_bytes(std::span(all));
  SafetensorsHeader header;
  if (!parse_header_length(bytes.first(8), all.size(), "expected.logits", length, diag)) return e;
  if (!parse_safetensors_header(bytes.subspan(8, length), all.size(), "expected.logits", 0, header, diag)) return e;
  for (const TensorInfo& t : header.tensors) {
    if (t.name == "logits_weight_only") e.weight_only = floats(slice(all, t));
    if (t.name == "logits_qdq") e.qdq = floats(slice(all, t));
    if (t.name == "logits_producer") e.producer = floats(slice(all, t));
    if (t.name != "input_ids") continue;
    const std::string raw = slice(all, t);
    for (int64_t s = 0; s < t.shape[0]; ++s) {
      e.ids.emplace_back();
      for (int64_t i = 0; i < t.shape[1]; ++i) {
        int64_t id = 0;
        std::memcpy(&id, raw.data() + (s * t.shape[1] + i) * 8, 8);
        e.ids.back().push_back(static_cast<int32_t>(id));
      }
    }
  }
  return e;
}

struct How {
  bool reference = true, quantized_kv = true, wide_kv = false;
  kernel::Inputs inputs = kernel::Inputs::as_scheme;
  int threads = 2;
};

// A loaded model with all that it lives on.
struct Running {
  explicit Running(int threads) : pool(threads) {}
  host::Arena arena;
  host::ThreadPool pool;
  Context context;
  std::unique_ptr<model::Model> model;
  model::KvCache cache;
};

Result<std::unique_ptr<Running>> start(const Session& s, const How& how, int64_t tokens) {
  auto r = std::make_unique<Running>(how.threads);
  model::Options options;
  options.linear.cpu = host::this_cpu();
  options.linear.inputs = how.inputs;
  options.reference = how.reference;
  options.quantized_kv = how.quantized_kv;
  options.wide_kv = how.wide_kv;
  QB_ASSIGN(r->model, model::load({s.package, s.checkpoint, r->arena, r->pool, r->context, options}));
  QB_ASSIGN(r->cache, model::KvCache::make(r->model->kv_shape(), r->model->kv_elem(), engine::blocks_for(tokens), r->arena));
  return r;
}

// All sequences in one ragged batch, as the generator's model saw them: a scale that is taken over a whole input is then the same.
std::vector<float> logits_of(const Session& s, const How& how, const std::vector<std::vector<int32_t>>& sequences) {
  std::vector<int32_t> ids, positions, offsets{0};
  std::vector<std::vector<int32_t>> blocks;
  for (const std::vector<int32_t>& sequence : sequences) {
    for (size_t i = 0; i < sequence.size(); ++i) positions.push_back(static_cast<int32_t>(i));
    ids.insert(ids.end(), sequence.begin(), sequence.end());
    offsets.push_back(static_cast<int32_t>(ids.size()));
    // Blocks of the sequences lie between each other's, the last ones first.
    blocks.emplace_back();
    for (int64_t b = 0; b < engine::blocks_for(static_cast<int64_t>(sequence.size())); ++b)
      blocks.back().push_back(static_cast<int32_t>(15 - b * static_cast<int64_t>(sequences.size()) - static_cast<int64_t>(blocks.size() - 1)));
  }
  const std::vector<std::span<const int32_t>> table(blocks.begin(), blocks.end());
  auto r = start(s, how, 512);
  EXPECT_TRUE(r.ok()) << (r ? "" : r.error().what);
  if (!r) return {};
  auto logits = (*r)->model->forward({.ids = ids, .positions = positions, .offsets = offsets, .table = table, .all_logits = true}, (*r)->cache);
  EXPECT_TRUE(logits.ok()) << (logits ? "" : logits.error().what);
  return logits ? std::vector<float>(logits->begin(), logits->end()) : std::vector<float>();
}

// The same sequence by sequence.
std::vector<float> scores_of(const Session& s, const How& how, const std::vector<std::vector<int32_t>>& ids) {
  std::vector<float> all;
  auto r = start(s, how, 512);
  EXPECT_TRUE(r.ok()) << (r ? "" : r.error().what);
  if (!r) return all;
  auto done = engine::score(*(*r)->model, (*r)->cache, ids, [&](size_t, std::span<const float> logits) {
    all.insert(all.end(), logits.begin(), logits.end());
    return true;
  });
  EXPECT_TRUE(done.ok()) << (done ? "" : done.error().what);
  return all;
}

struct Difference {
  double relative = 0, largest = 0;
};
Difference difference(const std::vector<float>& got, const std::vector<float>& want) {
  if (got.size() != want.size() || got.empty()) return {1e30, 1e30};
  double square = 0, total = 0, largest = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double d = static_cast<double>(got[i]) - static_cast<double>(want[i]);
    square += d * d;
    total += static_cast<double>(want[i]) * static_cast<double>(want[i]);
    largest = std::isnan(d) ? 1e30 : std::max(largest, std::abs(d));
  }
  return {std::isfinite(square) ? std::sqrt(square / total) : 1e30, largest};
}

// The best token agrees wherever the two best ones of `want` lie further apart than four times the largest error.
void expect_same_choice(const std::vector<float>& got, const std::vector<float>& want, size_t vocab, double error) {
  for (size_t row = 0; row + vocab <= want.size() && got.size() == want.size(); row += vocab) {
    size_t best = 0, mine = 0;
    for (size_t i = 1; i < vocab; ++i) {
      if (want[row + i] > want[row + best]) best = i;
      if (got[row + i] > got[row + mine]) mine = i;
    }
    double second = -1e30;
    for (size_t i = 0; i < vocab; ++i)
      if (i != best) second = std::max(second, static_cast<double>(want[row + i]));
    if (static_cast<double>(want[row + best]) - second <= 4 * error) continue;
    EXPECT_EQ(best, mine) << "token " << row / vocab;
  }
}

double row_difference(const std::vector<float>& got, const std::vector<float>& want, size_t row, size_t vocab) {
  const auto part = [&](const std::vector<float>& v) { return std::vector<float>(v.data() + row, v.data() + row + vocab); };
  return difference(part(got), part(want)).relative;
}

size_t rows_within(const std::vector<float>& got, const std::vector<float>& want, size_t vocab, double bound) {
  size_t rows = 0;
  for (size_t row = 0; row + vocab <= want.size() && got.size() == want.size(); row += vocab) {
    rows += row_difference(got, want, row, vocab) <= bound ? 1 : 0;
  }
  return rows;
}

// Of all rows but the `out` that are furthest off.
Difference difference_of_most(const std::vector<float>& got, const std::vector<float>& want, size_t vocab, size_t out) {
  if (got.size() != want.size() || got.empty()) return {1e30, 1e30};
  std::vector<std::pair<double, size_t>> rows;
  for (size_t row = 0; row < want.size(); row += vocab) rows.emplace_back(row_difference(got, want, row, vocab), row);
  std::sort(rows.begin(), rows.end());
  rows.resize(rows.size() - std::min(out, rows.size() - 1));
  std::vector<float> a, b;
  for (const auto& [off, row] : rows) {
    a.insert(a.end(), got.data() + row, got.data() + row + vocab);
    b.insert(b.end(), want.data() + row, want.data() + row + vocab);
  }
  return difference(a, b);
}

bool has_experts(const Session& s) {
  return std::any_of(s.checkpoint.modules.begin(), s.checkpoint.modules.end(),
                     [](const ir::Module& m) { return m.path.find(".experts") != std::string::npos; });
}

// Some input is quantized with one scale over all of it: what is computed for a token then depends on the tokens beside it.
bool shares_scales(const Session& s) {
  return std::any_of(s.checkpoint.modules.begin(), s.checkpoint.modules.end(), [](const ir::Module& m) {
    return m.scheme && m.scheme->input && m.scheme->input->when == ir::When::per_call && m.scheme->input->type.block == ir::Block{0, 0};
  });
}

std::vector<suite::Fixture> in_scope() {
  std::vector<suite::Fixture> all;
  for (const char* folder : {"modelopt", "compressed_tensors", "hf_fp8", "hf_mxfp4", "awq", "gptq", "base"})
    for (suite::Fixture& f : suite::fixtures(folder))
      if (std::filesystem::exists(f.path / "expected.logits") && suite::scope_of(f).in) all.push_back(std::move(f));
  return all;
}

TEST(Logits, AgreeWithTransformersForEveryFixtureInScope) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok()) << session.error().what;
    ASSERT_TRUE(session->readable);
    const Expected expected = read_expected(f.path / "expected.logits");
    ASSERT_FALSE(expected.ids.empty());
    const size_t vocab = expected.weight_only.size() / (expected.ids.size() * expected.ids[0].size());
    ++run;
    const std::vector<float> plain = logits_of(*session, {.quantized_kv = false, .inputs = kernel::Inputs::f32}, expected.ids);
    const Difference d = difference(plain, expected.weight_only);
    EXPECT_LE(d.relative, 1e-5);
    expect_same_choice(plain, expected.weight_only, vocab, d.largest);
    Difference q;
    const std::vector<float> quantized = logits_of(*session, {}, expected.ids);
    if (!expected.qdq.empty()) {
      q = difference(quantized, expected.qdq);
      // The formulas are exact: rows agree to float32's rounding, but where a number lay so near the middle between two codes that a different order of sums
      // puts it on the other side. Such a row, and those after it that attend to it, are off by what one code is worth: percents in models as small as these,
      // and a small part of what all codes together are off from the numbers that they stand for.
      EXPECT_LE(q.relative, std::max(2e-2, difference(expected.qdq, expected.weight_only).relative / 8));
      EXPECT_GE(rows_within(quantized, expected.qdq, vocab, 1e-5), quantized.size() / vocab / 4);
      expect_same_choice(quantized, expected.qdq, vocab, q.largest);
    }
    // Kernels on bfloat16 and caches of it stray further: by little where nothing else is quantized; where activations are, a number that was near the middle
    // between two codes falls to the other side, so that the distance is up to that of the quantized model from the one in float32. A token whose two best
    // experts were as near goes to another expert, which is a row of its own kind: an eighth of the rows may have.
    const std::vector<float> fast = logits_of(*session, {.reference = false}, expected.ids);
    // Where no other program quantized the activations (the generator leaves out what engines refuse), the reference is what there is.
    const std::vector<float>& truth = expected.qdq.empty() ? quantized : expected.qdq;
    const Difference fd = difference_of_most(fast, truth, vocab, has_experts(*session) ? truth.size() / vocab / 8 : 0);
    EXPECT_LE(fd.relative, std::max(2e-2, difference(truth, expected.weight_only).relative));
    fmt::print("{:48} weights {:.2e}  quantized {:.2e}  fast {:.2e}\n", f.name, d.relative, q.relative, fd.relative);
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

// Fast kernels for float32 inputs with keys and values in float32 differ from the reference by the order of sums alone; a cache of bfloat16 shows.
TEST(Logits, KeepFloat32WithACacheOfIt) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const Expected expected = read_expected(f.path / "expected.logits");
    const How how{.reference = false, .quantized_kv = false, .inputs = kernel::Inputs::f32};
    How wide = how;
    wide.wide_kv = true;
    const double with = difference(logits_of(*session, wide, expected.ids), expected.weight_only).relative;
    EXPECT_LE(with, 1e-5);
    EXPECT_GT(difference(logits_of(*session, how, expected.ids), expected.weight_only).relative, with);
    if (++run == 12) break;
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

// compressed-tensors' own simulation of MX activations is what `_even` says.
TEST(Logits, RoundScalesOfMxBlocksAsTheProducerDoesWhereAsked) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    const Expected expected = read_expected(f.path / "expected.logits");
    if (expected.producer.empty()) continue;
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    bool mx = false;
    for (ir::Module& m : session->checkpoint.modules)
      if (m.scheme && m.scheme->input && m.scheme->input->type.scale == ir::ScaleValues::e8m0 && m.scheme->input->rounding == ir::Rounding::down) {
        m.scheme->input->rounding = ir::Rounding::even;
        mx = true;
      }
    if (!mx) continue;
    ++run;
    const std::vector<float> got = logits_of(*session, {}, expected.ids);
    EXPECT_LE(difference(got, expected.producer).relative, std::max(2e-2, difference(expected.producer, expected.weight_only).relative / 8));
    EXPECT_GE(rows_within(got, expected.producer, expected.weight_only.size() / (expected.ids.size() * expected.ids[0].size()), 1e-5), 1U);
    fmt::print("{:48} {:.2e}\n", f.name, difference(got, expected.producer).relative);
  }
  if (run == 0) GTEST_SKIP() << "no fixtures with activations in MX blocks in " << suite::root();
}

// What pre-scales and low-rank parts add is folded into the dense matrices, and stacked experts are turned as transformers has them: the same logits from
// another file.
TEST(Logits, OfTheDenseModelHoldWhatIsFoldedIn) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const auto& modules = session->checkpoint.modules;
    const bool differs = std::any_of(modules.begin(), modules.end(), [](const ir::Module& m) {
      return !m.transforms.empty() || (m.scheme && (m.scheme->features.prescale || m.scheme->features.lowrank > 0 || m.stack.experts > 0));
    });
    if (!differs) continue;
    const Expected expected = read_expected(f.path / "expected.logits");
    suite::Scratch scratch;
    JobOptions options = suite::to_dialect("dense");
    options.dense_dtype = Elem::f32;
    const suite::Outcome dense = suite::convert(f.path, scratch / "dense", options);
    ASSERT_TRUE(dense.written) << dense.text();
    auto plain = open_session(scratch / "dense");
    ASSERT_TRUE(plain.ok() && plain->readable);
    EXPECT_LE(difference(logits_of(*plain, {.inputs = kernel::Inputs::f32}, expected.ids), expected.weight_only).relative, 1e-5);
    ++run;
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

// A checkpoint whose linears scale their inputs, for a target that has no word for it: what feeds them takes the factors up, and the logits stay. In attention
// that can be done where the heads of queries that share a head of values are scaled alike, which they are made to be here.
void expect_folded(const suite::Fixture& f, bool powers_of_two, int& run) {
  suite::Scratch scratch;
  std::filesystem::copy(f.path, scratch / "in");
  for (const auto& e : std::filesystem::directory_iterator(scratch / "in"))
    if (e.path().extension() == ".safetensors" || e.path().filename() == "model.safetensors.index.json") std::filesystem::remove(e.path());
  suite::Weights w = suite::read_weights(f.path);
  const int64_t heads = f.config["num_attention_heads"].get<int64_t>(), sharing = heads / f.config["num_key_value_heads"].get<int64_t>();
  for (auto& [name, tensor] : w.tensors) {
    if (!name.ends_with(".pre_quant_scale") || tensor.dtype != "BF16") continue;
    const size_t head = tensor.bytes.size() / static_cast<size_t>(heads);
    if (name.find("o_proj") != name.npos)
      for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
        tensor.bytes.replace(h * head, head, tensor.bytes.substr(h / static_cast<size_t>(sharing) * static_cast<size_t>(sharing) * head, head));
    for (size_t i = 0; powers_of_two && i < tensor.bytes.size(); i += 2) {
      const bool large = (static_cast<uint8_t>(tensor.bytes[i + 1]) & 0x7F) > 0x3F;
      tensor.bytes[i] = 0;
      tensor.bytes[i + 1] = large ? '\x40' : '\x3F';  // 2 or 0.5
    }
  }
  suite::write_weights(scratch / "in" / "model.safetensors", w);
  auto session = open_session(scratch / "in");
  ASSERT_TRUE(session.ok() && session->readable);
  const Expected expected = read_expected(f.path / "expected.logits");
  const How plain{.inputs = kernel::Inputs::f32};
  const std::vector<float> want = logits_of(*session, plain, expected.ids);
  for (const char* target : {"compressed_tensors", "awq", "gptq"}) {
    SCOPED_TRACE(target);
    JobOptions options = suite::to_dialect(target);
    if (!powers_of_two) {
      const suite::Outcome refused = suite::convert(scratch / "in", scratch / "refused", options);
      EXPECT_FALSE(refused.written);
      if (!refused.codes().contains("prescale-inexpressible")) continue;
      options.repair = Repair::lossy;
    }
    const suite::Path out = scratch / target;
    const suite::Outcome outcome = suite::convert(scratch / "in", out, options);
    if (!outcome.written && !outcome.codes().contains("prescale-inexpressible")) continue;  // the scheme without pre-scales has no words there either
    ASSERT_TRUE(outcome.written) << outcome.text();
    ASSERT_FALSE(outcome.repairs.empty());
    const double error = *outcome.repairs.back().max_relative_error;
    EXPECT_EQ(error == 0, powers_of_two);
    auto folded = open_session(out);
    ASSERT_TRUE(folded.ok() && folded->readable);
    for (const ir::Module& m : folded->checkpoint.modules) EXPECT_TRUE(!m.scheme || !m.scheme->features.prescale) << m.path;
    // Each layer has four places where a number may be off by as much.
    const double bound = 4 * static_cast<double>(f.config["num_hidden_layers"].get<int64_t>()) * error + 1e-5;
    const Difference d = difference(logits_of(*folded, plain, expected.ids), want);
    EXPECT_LE(d.relative, bound);
    std::printf("%-36s %-20s off by %.2g, logits by %.2g\n", f.name.c_str(), target, error, d.relative);
    ++run;
  }
}

TEST(Logits, StayWhenPreScalesAreFolded) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const auto& modules = session->checkpoint.modules;
    const auto marked = [](const ir::Module& m) { return m.scheme && m.scheme->features.prescale; };
    const auto lowrank = [](const ir::Module& m) { return m.scheme && m.scheme->features.lowrank > 0; };
    if (std::none_of(modules.begin(), modules.end(), marked) || std::any_of(modules.begin(), modules.end(), lowrank)) continue;
    for (const bool powers_of_two : {false, true}) expect_folded(f, powers_of_two, run);
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

// A family that nobody described can be converted, and is not run by guessing.
TEST(Logits, AnUnknownFamilyIsRefusedByName) {
  for (const suite::Fixture& f : in_scope()) {
    if (string_at(f.config, "model_type") != "llama") continue;
    suite::Scratch scratch;
    std::filesystem::copy(f.path, scratch / "renamed");
    Json config = f.config;
    config["model_type"] = "brand_new";
    std::filesystem::remove(scratch / "renamed" / "config.json");
    suite::write_bytes(scratch / "renamed" / "config.json", dump_json(config));
    auto session = open_session(scratch / "renamed");
    ASSERT_TRUE(session.ok());
    const auto refused = start(*session, {}, 512);
    ASSERT_FALSE(refused.ok());
    EXPECT_NE(refused.error().what.find("brand_new"), std::string::npos) << refused.error().what;
    return;
  }
  GTEST_SKIP() << "no fixtures in " << suite::root();
}

// One at a time or together: a sequence does not see its neighbours (but for a scale that is taken over all of them).
TEST(Logits, SequencesDoNotSeeEachOther) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    if (shares_scales(*session)) continue;
    const Expected expected = read_expected(f.path / "expected.logits");
    const std::vector<float> together = logits_of(*session, {}, expected.ids), apart = scores_of(*session, {}, expected.ids);
    ASSERT_EQ(together.size(), apart.size());
    EXPECT_EQ(std::memcmp(together.data(), apart.data(), apart.size() * sizeof(float)), 0);
    if (++run == 12) break;
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

TEST(Logits, HaveTheSameBitsForEveryNumberOfThreads) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const Expected expected = read_expected(f.path / "expected.logits");
    for (const bool reference : {true, false}) {
      const std::vector<float> one = logits_of(*session, {.reference = reference, .threads = 1}, expected.ids);
      for (const int threads : {2, 7}) {
        const std::vector<float> many = logits_of(*session, {.reference = reference, .threads = threads}, expected.ids);
        ASSERT_EQ(one.size(), many.size());
        EXPECT_EQ(std::memcmp(one.data(), many.data(), one.size() * sizeof(float)), 0) << threads << " threads";
      }
    }
    if (++run == 12) break;
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

// A prompt in chunks, and then token by token, ends where one forward over all of it does.
TEST(Logits, ChunksAndDecodingChangeNothing) {
  int run = 0;
  for (const suite::Fixture& f : in_scope()) {
    SCOPED_TRACE(f.name);
    auto session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const Expected expected = read_expected(f.path / "expected.logits");
    if (shares_scales(*session)) continue;
    auto r = start(*session, {.threads = 1}, 512);
    ASSERT_TRUE(r.ok()) << r.error().what;
    std::vector<int32_t> ids;
    while (ids.size() < 50) ids.insert(ids.end(), expected.ids[0].begin(), expected.ids[0].end());
    std::vector<int32_t> greedy[2];
    int which = 0;
    for (const int64_t chunk : {512, 7}) {
      engine::GenerateOptions options;
      options.max_new = 8;
      options.prefill_chunk = chunk;
      auto g = engine::generate(*(*r)->model, (*r)->cache, ids, options);
      ASSERT_TRUE(g.ok()) << g.error().what;
      EXPECT_EQ(g->decode_steps, 7);
      greedy[which++] = g->ids;
    }
    EXPECT_EQ(greedy[0], greedy[1]);
    if (++run == 4) break;
  }
  if (run == 0) GTEST_SKIP() << "no fixtures in " << suite::root();
}

}  // namespace
}  // namespace qb
