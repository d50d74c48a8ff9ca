// transform_config of compressed-tensors against its tensors: what folding makes of weights, by the definition; what cannot be applied is refused by name.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "io/safetensors.h"
#include "suite.h"

namespace qb::suite {
namespace {

constexpr const char* up = "model.layers.0.mlp.up_proj";
constexpr int64_t block = 64;

std::string bytes_of(const std::vector<double>& list) {
  return {reinterpret_cast<const char*>(list.data()), list.size() * 8};
}

// No Hadamard matrix, and not symmetric.
std::vector<double> some_matrix() {
  std::vector<double> out;
  for (int64_t i = 0; i < block * block; ++i) out.push_back(static_cast<double>((i * 37 + i / block * 11) % 29 - 14) / 8);
  return out;
}

struct Changed {
  Scratch scratch;
  Path path = scratch / "changed";
  Changed(const Fixture& f, const std::function<void(Weights&, Json& groups)>& change) {
    std::filesystem::create_directories(path);
    Weights w = f.weights();
    Json config = f.config;
    change(w, config["quantization_config"]["transform_config"]["config_groups"]);
    write_bytes(path / "config.json", dump_json(config));
    std::vector<TensorInfo> tensors;
    std::string data;
    for (const char* dtype : {"F64", "I64", "I32", "F32", "BF16"})  // wide elements first
      for (const auto& [name, t] : w.tensors) {
        if (t.dtype != dtype) continue;
        tensors.push_back({.name = name, .dtype = *elem_from_safetensors(t.dtype), .shape = t.shape, .offset = data.size(), .bytes = t.bytes.size()});
        data += t.bytes;
      }
    write_bytes(path / "model.safetensors", write_safetensors_header(tensors, {{"format", "pt"}}) + data);
  }
};

std::vector<Fixture> online() {
  std::vector<Fixture> out;
  for (Fixture& f : fixtures("compressed_tensors"))
    if (scope_of(f).in && scope_of(f).why.find("online transforms") != std::string::npos) out.push_back(std::move(f));
  return out;
}

std::map<std::string, Tensor> dense_of(const Path& path) {
  Scratch scratch;
  JobOptions options = to_dialect("dense");
  options.dense_dtype = Elem::f32;
  const Outcome outcome = convert(path, scratch / "dense", options);
  EXPECT_TRUE(outcome.written) << outcome.text();
  return outcome.written ? read_weights(scratch / "dense").tensors : std::map<std::string, Tensor>{};
}

Json group(const char* type, const char* location, bool inverse) {
  Json apply = Json::object();
  apply["targets"] = Json::array({fmt::format("re:.*{}$", up)});
  apply["location"] = location;
  apply["inverse"] = inverse;
  apply["ignore"] = Json::array();
  Json g = Json::object();
  g["type"] = type;
  g["head_dim"] = block;
  g["apply"] = Json::array({apply});
  return g;
}

// y' = y R, block by block: the rows of the weight are those sums of rows.
TEST(Transforms, OfOutputsAreFoldedByTheDefinition) {
  const std::vector<double> matrix = some_matrix();
  int done = 0;
  for (const Fixture& f : online()) {
    SCOPED_TRACE(f.name);
    const auto before = dense_of(f.path);
    for (const bool hadamard : {false, true})
      for (const bool inverse : {false, true}) {
        const Changed changed(f, [&](Weights& w, Json& groups) {
          groups["U"] = group(hadamard ? "hadamard" : "random-matrix", "output", inverse);
          w.tensors[fmt::format("{}.U_output.weight", up)] = {"F64", {block, block}, bytes_of(matrix)};
        });
        const auto after = dense_of(changed.path);
        const std::string name = fmt::format("{}.weight", up);
        const Tensor& want = before.at(name);
        const std::vector<double> x = values(want), y = values(after.at(name));
        const int64_t k = want.shape[1];
        double largest = 0, off = 0;
        for (int64_t i = 0; i < want.shape[0]; ++i)
          for (int64_t j = 0; j < k; j += 7) {
            const int64_t p = i % block;
            double sum = 0;
            for (int64_t q = 0; q < block; ++q)
              sum += x[static_cast<size_t>((i - p + q) * k + j)] * matrix[static_cast<size_t>(hadamard && inverse ? p * block + q : q * block + p)];
            if (hadamard) sum /= 8;
            largest = std::max(largest, std::abs(sum));
            off = std::max(off, std::abs(sum - y[static_cast<size_t>(i * k + j)]));
          }
        EXPECT_LE(off, largest * 0x1p-20);
        for (const auto& [other, t] : before) {
          EXPECT_TRUE(other == name || after.at(other) == t) << other;
        }
      }
    ++done;
  }
  EXPECT_GT(done, 0);
}

TEST(Transforms, WhatCannotBeAppliedIsRefusedByName) {
  const std::vector<Fixture> all = online();
  ASSERT_FALSE(all.empty());
  const auto refused = [&](const char* name, const std::function<void(Weights&, Json & groups)>& change) {
    SCOPED_TRACE(name);
    const Changed changed(all.front(), change);
    Scratch scratch;
    const Outcome outcome = convert(changed.path, scratch / "out", to_dialect("dense"));
    EXPECT_FALSE(outcome.written);
    bool named = false;
    for (const Problem& p : outcome.diag.all()) named |= p.code == "algorithm-unsupported" && p.found.find(name) != std::string::npos;
    EXPECT_TRUE(named) << outcome.text();
  };
  refused("q_attn", [](Weights&, Json& groups) { groups["R3"] = group("hadamard", "q_attn", false); });
  refused("k_cache", [](Weights&, Json& groups) { groups["R3"] = group("hadamard", "k_cache", false); });
  refused("butterfly", [](Weights&, Json& groups) { groups["R5"] = group("butterfly", "input", false); });
  refused("R6", [](Weights&, Json& groups) { groups["R6"] = group("hadamard", "output", false); });  // without a matrix
  refused("randomize", [](Weights&, Json& groups) {
    groups["R7"] = group("hadamard", "output", false);
    groups["R7"]["randomize"] = true;
  });
}

}  // namespace
}  // namespace qb::suite
