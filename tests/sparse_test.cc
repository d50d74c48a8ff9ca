// Sparse weights of compressed-tensors: the unstructured form, made here from files of the other one, gives the same values; bits and offsets that contradict
// the numbers are named.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "bridge/check.h"
#include "host/host.h"
#include "io/safetensors.h"
#include "suite.h"

namespace qb::suite {
namespace {

void write_tensors(const Path& file, const Weights& w) {
  std::vector<TensorInfo> tensors;
  std::string data;
  for (const auto& [name, t] : w.tensors) {
    if (t.dtype != "I64") continue;  // wide elements first
    tensors.push_back({.name = name, .dtype = Elem::i64, .shape = t.shape, .offset = data.size(), .bytes = t.bytes.size()});
    data += t.bytes;
  }
  for (const char* dtype : {"F32", "BF16", "F8_E4M3", "U8"})
    for (const auto& [name, t] : w.tensors) {
      if (t.dtype != dtype) continue;
      tensors.push_back({.name = name, .dtype = *elem_from_safetensors(t.dtype), .shape = t.shape, .offset = data.size(), .bytes = t.bytes.size()});
      data += t.bytes;
    }
  write_bytes(file, write_safetensors_header(tensors, {{"format", "pt"}}) + data);
}

std::string numbers(const std::vector<int64_t>& list) {
  return {reinterpret_cast<const char*>(list.data()), list.size() * 8};
}

// The fixture with its tensors, and its config, changed.
struct Changed {
  Scratch scratch;
  Path path = scratch / "changed";
  Changed(const Fixture& f, const std::function<void(Weights&, Json& quantization)>& change) {
    std::filesystem::create_directories(path);
    Weights w = f.weights();
    Json config = f.config;
    change(w, config["quantization_config"]);
    write_bytes(path / "config.json", dump_json(config));
    write_tensors(path / "model.safetensors", w);
  }
};

void as_unstructured(Weights& w, Json& q) {
  q["sparsity_config"]["format"] = "sparse-bitmask";
  q["sparsity_config"]["sparsity_structure"] = "unstructured";
  std::vector<std::string> paths;
  for (const auto& [name, t] : w.tensors)
    if (name.ends_with(".compressed")) paths.push_back(name.substr(0, name.size() - std::strlen(".compressed")));
  for (const std::string& path : paths) {
    Tensor& values = w.tensors.at(path + ".compressed");
    const int64_t n = values.shape[0], each = values.shape[1];
    std::vector<int64_t> offsets;
    for (int64_t i = 0; i < n; ++i) offsets.push_back(i * each);
    values.shape = {n * each};
    w.tensors.at(path + ".shape").shape = {2};
    w.tensors[path + ".row_offsets"] = {"I64", {n}, numbers(offsets)};
  }
}

std::vector<Fixture> sparse() {
  std::vector<Fixture> out;
  for (Fixture& f : fixtures("compressed_tensors"))
    if (scope_of(f).in && scope_of(f).why.find("sparse-24") != std::string::npos) out.push_back(std::move(f));
  return out;
}

std::map<std::string, Tensor> dense_of(const Path& path) {
  Scratch scratch;
  const Outcome outcome = convert(path, scratch / "dense", to_dialect("dense"));
  EXPECT_TRUE(outcome.written) << outcome.text();
  return outcome.written ? read_weights(scratch / "dense").tensors : std::map<std::string, Tensor>{};
}

TEST(Sparse, UnstructuredNumbersHaveTheSameValues) {
  int done = 0;
  for (const Fixture& f : sparse()) {
    SCOPED_TRACE(f.name);
    const Changed changed(f, as_unstructured);
    EXPECT_TRUE(dense_of(changed.path) == dense_of(f.path));
    Scratch scratch;
    const Outcome outcome = convert(changed.path, scratch / "out", to_dialect("compressed_tensors"));
    EXPECT_TRUE(outcome.written) << outcome.text();
    EXPECT_TRUE(dense_of(scratch / "out") == dense_of(f.path));
    ++done;
  }
  EXPECT_GT(done, 0);
}

std::set<std::string> deep_codes(const Path& path) {
  Result<Session> session = open_session(path);
  EXPECT_TRUE(session.ok());
  Context context;
  context.isa = host::detect_isa();
  const Result<CheckReport> report = check_session(*session, true, context);
  EXPECT_TRUE(report.ok()) << report.error().what;
  std::set<std::string> out;
  for (const Problem& p : session->diag.all()) out.insert(p.code + " " + p.tensor);
  return out;
}

TEST(Sparse, BitsThatDoNotFitAreFound) {
  for (const Fixture& f : sparse()) {
    SCOPED_TRACE(f.name);
    std::string name;
    const Changed changed(f, [&](Weights& w, Json&) {
      for (auto& [tensor, t] : w.tensors)
        if (tensor.ends_with(".bitmask") && name.empty()) t.bytes[3] = static_cast<char>(t.bytes[3] ^ 1), name = tensor;
    });
    EXPECT_TRUE(deep_codes(changed.path).contains("sparse-mask-invalid " + name));
    Scratch scratch;
    const Outcome outcome = convert(changed.path, scratch / "out", to_dialect("dense"));
    EXPECT_FALSE(outcome.written);
    EXPECT_NE(outcome.error.find(name), std::string::npos) << outcome.error;
    EXPECT_FALSE(std::filesystem::exists(scratch / "out"));
  }
}

TEST(Sparse, ShapesThatContradictEachOtherAreNamed) {
  const std::vector<Fixture> all = sparse();
  ASSERT_FALSE(all.empty());
  const auto codes = [&](const std::function<void(Weights&, const std::string& path)>& change) {
    const Changed changed(all.front(), [&](Weights& w, Json& q) {
      as_unstructured(w, q);
      change(w, "model.layers.0.mlp.up_proj");
    });
    Scratch scratch;
    const Outcome outcome = convert(changed.path, scratch / "out", to_dialect("dense"));
    EXPECT_FALSE(outcome.written);
    return outcome.codes();
  };
  EXPECT_TRUE(codes([](Weights& w, const std::string& path) { w.tensors.erase(path + ".bitmask"); }).contains("weight-missing"));
  const auto offset = [](size_t row, int64_t value) {
    return [=](Weights& w, const std::string& path) { std::memcpy(w.tensors.at(path + ".row_offsets").bytes.data() + 8 * row, &value, 8); };
  };
  EXPECT_TRUE(codes(offset(0, 1)).contains("weight-shape"));
  EXPECT_TRUE(codes(offset(2, 1000000)).contains("weight-shape"));
  EXPECT_TRUE(codes(offset(2, -8)).contains("weight-shape"));
  EXPECT_TRUE(codes([](Weights& w, const std::string& path) { w.tensors.at(path + ".shape").bytes = numbers({128, 1}); }).contains("weight-shape"));
  EXPECT_TRUE(codes([](Weights& w, const std::string& path) { w.tensors.at(path + ".shape").bytes = numbers({128, INT64_MAX}); }).contains("weight-shape"));
}

}  // namespace
}  // namespace qb::suite
