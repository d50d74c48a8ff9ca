// Brings the modules of a checkpoint into memory, one at a time: linears, norms, embeddings. Errors name the module and what was expected of it.
#pragma once

#include <string>
#include <unordered_map>

#include "layer/embedding.h"
#include "layer/moe.h"
#include "model/model.h"

namespace qb::model {

class Loader {
 public:
  explicit Loader(const Loading& loading);

  // The module with that path; null when it has no tensors of its own.
  const ir::Module* find(const std::string& path) const;
  Result<const ir::Module*> need(const std::string& path) const;
  // Whether there is a weight for it: its own, or rows of a matrix that it shares with others.
  bool has(const std::string& path) const { return find(path) != nullptr || parts_.contains(path); }
  // Which of so many experts are here.
  layer::Experts::Place experts(int64_t all) const;
  const Team* team() const { return loading_.team; }

  // n, k: the size that it must have; 0: any. Also of a module that lies in one matrix with others.
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
  // The module in the topology, whose part it may be; null: none.
  const arch::Module* topology_of(const ir::Module& module) const;
  host::Communicator* cut_of(const arch::Module* module) const;
  Result<layer::Linear> load(const ir::Module& module, const arch::Module* topology, int64_t n, int64_t k, kernel::Inputs inputs);
  Result<const float*> floats(const ir::Stored& stored, int64_t n, float plus);
  const Loading& loading_;
  layer::Rotations rotations_;
  layer::LinearOptions options_;
  std::unordered_map<std::string_view, const ir::Module*> modules_;
  struct Part {
    const ir::Module* whole;
    const arch::Module* topology;
    size_t number;
  };
  std::unordered_map<std::string_view, Part> parts_;
  size_t resident_ = 0;
};

}  // namespace qb::model
