// What stands beside the weights of an output: checksums that are right and that find damage, documents without stale words, the other files.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "bridge/check.h"
#include "dialect/history.h"
#include "host/host.h"
#include "suite.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace qb::suite {
namespace {

std::vector<Fixture> in_scope() {
  std::vector<Fixture> out;
  for (const char* folder : {"modelopt", "compressed_tensors"})
    for (Fixture& f : fixtures(folder))
      if (scope_of(f).in) out.push_back(std::move(f));
  return out;
}

// Every tensor of every file has its checksum; nothing else has one.
void check_checksums(const Path& dir) {
  const Weights w = read_weights(dir);
  std::set<std::string> left(w.order.begin(), w.order.end());
  for (const auto& [file, metadata] : w.metadata) {
    const auto it = metadata.find("quantbridge.checksums");
    ASSERT_NE(it, metadata.end()) << file;
    Json sums;
    JsonError error;
    ASSERT_TRUE(parse_json(it->second, sums, error)) << error.what;
    for (auto s = sums.begin(); s != sums.end(); ++s) {
      ASSERT_EQ(left.erase(s.key()), 1u) << s.key();
      const std::string& bytes = w.tensors.at(s.key()).bytes;
      EXPECT_EQ(s->get<std::string>(), fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()))) << s.key();
    }
  }
  for (const std::string& name : left) ADD_FAILURE() << name << " has no checksum";
}

// config.json says all that it said, but for quantization; the dtype is the target's.
void check_config(const Fixture& f, const Path& out, const std::string& to, bool quantized) {
  const Json got = read_document(out / "config.json");
  ASSERT_TRUE(got.is_object());
  for (auto it = f.config.begin(); it != f.config.end(); ++it) {
    if (it.key() == "quantization_config" || (to == "dense" && (it.key() == "dtype" || it.key() == "torch_dtype"))) continue;
    ASSERT_TRUE(got.contains(it.key())) << it.key();
    EXPECT_EQ(got[it.key()], *it) << it.key();
  }
  EXPECT_EQ(got.contains("quantization_config"), quantized && to != "dense");
}

void check_other_files(const Fixture& f, const Path& out, const std::string& to, bool quantized) {
  for (const char* stale : {"recipe.yaml", "hf_quant_config.json"})
    EXPECT_EQ(std::filesystem::exists(out / stale), quantized && to == "modelopt" && std::string_view(stale) == "hf_quant_config.json") << stale;
  for (const std::filesystem::directory_entry& e : std::filesystem::directory_iterator(f.path)) {
    const std::string name = e.path().filename();
    if (name == "config.json" || name == "recipe.yaml" || name == "hf_quant_config.json" || name.starts_with("model") || name.starts_with("expected")) continue;
    EXPECT_TRUE(std::filesystem::exists(out / name)) << name << " was not copied";
    EXPECT_TRUE(read_bytes(out / name) == read_bytes(e.path())) << name;
  }
}

TEST(Metadata, OfEveryOutput) {
  for (const Fixture& f : in_scope()) {
    const Result<Session> session = open_session(f.path);
    ASSERT_TRUE(session.ok());
    const bool quantized = kind_of(*session).text() != "none";
    for (const char* to : {"dense", "modelopt", "compressed_tensors"}) {
      SCOPED_TRACE(f.name + " to " + to);
      Scratch scratch;
      const Outcome outcome = convert(f.path, scratch / "out", to_dialect(to));
      if (!outcome.written) {
        EXPECT_TRUE(outcome.codes().contains("scheme-inexpressible")) << outcome.text();
        continue;
      }
      check_checksums(scratch / "out");
      check_config(f, scratch / "out", to, quantized);
      check_other_files(f, scratch / "out", to, quantized);
    }
  }
}

// The class and the tensors that `check --deep` names.
std::set<std::string> mismatched(const Path& dir, std::string& problems) {
  Result<Session> session = open_session(dir);
  EXPECT_TRUE(session.ok());
  Context context;
  context.isa = host::detect_isa();
  EXPECT_TRUE(check_session(*session, true, context).ok());
  std::set<std::string> out;
  for (const Problem& p : session->diag.all()) {
    problems += p.code + " " + p.tensor + "; ";
    if (p.code == "checksum-mismatch") out.insert(p.tensor);
  }
  return out;
}

TEST(Metadata, OneFlippedBitIsFound) {
  const std::vector<Fixture> all = in_scope();
  ASSERT_FALSE(all.empty());
  Scratch scratch;
  const Path out = scratch / "out";
  ASSERT_TRUE(convert(all.front().path, out, to_dialect("dense")).written);
  std::string problems;
  EXPECT_TRUE(mismatched(out, problems).empty()) << problems;
  const Path file = out / "model.safetensors";
  const std::string bytes = read_bytes(file);
  const Weights w = read_weights(out);
  // The header ends where the first tensor starts; the tensors lie back to back in order.
  size_t at = bytes.size();
  for (const std::string& name : w.order) at -= w.tensors.at(name).bytes.size();
  for (const std::string& name : w.order) {
    const size_t size = w.tensors.at(name).bytes.size();
    for (const size_t place : {at, at + size / 2, at + size - 1}) {
      std::string damaged = bytes;
      damaged[place] = static_cast<char>(damaged[place] ^ 1);
      write_bytes(file, damaged);
      EXPECT_EQ(mismatched(out, problems), std::set<std::string>{name}) << "byte " << place;
    }
    at += size;
  }
}

// What was done stands in every file, the oldest first, and is the same whenever the same is done.
TEST(Metadata, HistoryOfTwoConversions) {
  const std::vector<Fixture> all = in_scope();
  const auto f = std::find_if(all.begin(), all.end(), [](const Fixture& x) { return x.name == "modelopt/llama-nvfp4"; });
  if (f == all.end()) GTEST_SKIP() << "no such fixture";
  Scratch scratch;
  JobOptions dense = to_dialect("dense");
  dense.max_shard = 100'000;
  for (const std::string place : {"a", "b"}) {
    ASSERT_TRUE(convert(f->path, scratch / (place + "_middle"), to_dialect("compressed_tensors")).written);
    ASSERT_TRUE(convert(scratch / (place + "_middle"), scratch / place, dense).written);
  }
  const auto first = read_weights(scratch / "a").metadata, second = read_weights(scratch / "b").metadata;
  ASSERT_GT(first.size(), 2u);
  EXPECT_EQ(first, second);
  for (const auto& [file, metadata] : first) EXPECT_EQ(metadata.at(std::string(history_key)), first.begin()->second.at(std::string(history_key))) << file;
  const Result<Session> session = open_session(scratch / "a");
  ASSERT_TRUE(session.ok());
  const std::vector<HistoryStep> history = read_history(session->package);
  ASSERT_EQ(history.size(), 2u);
  EXPECT_EQ(history[0].from, "modelopt");
  EXPECT_TRUE(history[0].producer.starts_with("modelopt ")) << history[0].producer;
  EXPECT_EQ(history[0].to, "compressed_tensors");
  EXPECT_EQ(history[1].from, "compressed_tensors");
  EXPECT_EQ(history[1].to, "dense");
  EXPECT_EQ(history[1].did, "convert");
}

TEST(Metadata, NoChecksumsWhenSwitchedOff) {
  const std::vector<Fixture> all = in_scope();
  ASSERT_FALSE(all.empty());
  Scratch scratch;
  JobOptions options = to_dialect("dense");
  options.checksums = false;
  ASSERT_TRUE(convert(all.front().path, scratch / "out", options).written);
  for (const auto& [file, metadata] : read_weights(scratch / "out").metadata) EXPECT_FALSE(metadata.contains("quantbridge.checksums")) << file;
}

TEST(Metadata, ShardsHaveAnIndex) {
  const std::vector<Fixture> all = in_scope();
  ASSERT_FALSE(all.empty());
  Scratch scratch;
  JobOptions options = to_dialect("dense");
  options.max_shard = 100'000;
  ASSERT_TRUE(convert(all.front().path, scratch / "out", options).written);
  const Json index = read_document(scratch / "out" / "model.safetensors.index.json");
  ASSERT_TRUE(index.is_object());
  const Weights w = read_weights(scratch / "out");
  EXPECT_GT(w.metadata.size(), 2u);
  EXPECT_EQ(index["weight_map"].size(), w.tensors.size());
  int64_t bytes = 0;
  for (const auto& [name, tensor] : w.tensors) {
    EXPECT_TRUE(index["weight_map"].contains(name)) << name;
    bytes += static_cast<int64_t>(tensor.bytes.size());
  }
  EXPECT_EQ(int_at(index["metadata"], "total_size", -1), bytes);
  check_checksums(scratch / "out");
  EXPECT_TRUE(fixture_at(scratch / "out").config.is_object());
  Result<Session> session = open_session(scratch / "out");
  ASSERT_TRUE(session.ok());
  EXPECT_TRUE(session->readable && session->diag.all().empty());
}

}  // namespace
}  // namespace qb::suite
