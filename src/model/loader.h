// Brings the modules of a checkpoint into memory, one at a time: linears, norms, embeddings. Errors name the module and what was expected of it.
#pragma once

#include <string>
#include <unordered_map>

#include "layer/embedding.h"
#include "model/model.h"

namespace qb::model {

class Loader {
 public:
  explicit Loader(const Loading& loading);

  // One expert of stacked ones: of its outputs every step-th from `first` on, n of them.
  struct Part {
    int64_t expert = 0, first = 0, step = 1;
  };
  Result<layer::Linear> linear_of(const std::string& stack, const Part& part, int64_t n, int64_t k);
  // The module with that path; null when it has no tensors.
  const ir::Module* find(const std::string& path) const;
  Result<const ir::Module*> need(const std::string& path) const;

  // n, k: the size that it must have; 0: any.
  Result<layer::Linear> linear(const std::string& path, int64_t n, int64_t k);
  // Its inputs stay float32, whatever the kernels: what a router decides must not hang on a rounding.
  Result<layer::Linear> exact_linear(const std::string& path, int64_t n, int64_t k);
  // `plus` is added to each number: some families store a norm's weight less one.
  Result<const float*> norm(const std::string& path, int64_t n, float plus = 0);
  // A plain tensor that a module has beside its weight.
  Result<const float*> plain(const std::string& path, std::string_view suffix, int64_t n);
  Result<layer::Embedding> embedding(const std::string& path);
  // Of a layer's keys or values; 1 and no bias where the checkpoint has none.
  Result<layer::KvScales> kv_scales(const std::string& attention, ir::Role scale, ir::Role bias);

  size_t resident() const { return resident_; }  // of everything loaded so far

 private:
  Result<layer::Linear> load(const ir::Module& module, int64_t n, int64_t k, kernel::Inputs inputs);
  Result<const float*> floats(const ir::Stored& stored, int64_t n, float plus);
  const Loading& loading_;
  layer::Rotations rotations_;
  layer::LinearOptions options_;
  std::unordered_map<std::string_view, const ir::Module*> modules_;
  size_t resident_ = 0;
};

}  // namespace qb::model
