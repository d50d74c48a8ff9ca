// The library's object for one checkpoint: open, look, convert, quantize, or take its tensors one by one as another dialect would store them.
//
//   auto bridge = qb::Bridge::open("/models/Llama-3.1-8B-NVFP4");
//   if (!bridge) return fail(bridge.error().what);              // the path could not be read
//   for (const qb::Problem& p : bridge->problems()) log(p);     // what is wrong with the checkpoint
//   qb::Target target{.dialect = "compressed_tensors"};
//   bridge->for_each_tensor(target, [&](const qb::Tensor& t) { ...; return true; });
//
// No global state. Const methods are thread-safe. Nothing prints, exits or throws. Memory: the tensor index, and blocks within Limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "quantbridge/problem.h"
#include "quantbridge/result.h"

namespace qb {

struct Budget {
  uint64_t memory = 512ull << 20;  // bytes of buffers, all threads together
  int threads = 0;                 // 0: all processors that this process may use
};

// What to make of the checkpoint.
struct Target {
  std::string dialect = "compressed_tensors";  // modelopt, compressed_tensors, dense
  bool stored = false;                         // the bare dequantized matrices, without what pre-scales and low-rank parts add. `dense` only
  std::string dense_dtype;                     // bf16, f16, f32; empty: the checkpoint's own. `dense` only
  std::string scheme;                          // quantize to this (docs/schemes.md); empty: convert what is there
  std::string quantization;                    // in place of `scheme`: a configuration (docs/quantization.md)
  std::string numerics;                        // modelopt or llm-compressor; empty: the one of `dialect`
  std::string recipe;                          // by name, where a producer has several for the scheme (quantize --list); empty: the usual one
  std::vector<std::string> ignore;             // linears that are left alone, besides lm_head
  std::string projections = "as-is";           // q, k, v and gate, up: or "separate", "fused"
  std::string experts = "as-is";               // or "separate", "stacked"; as-is: separate, where the dialect has no place for quantized stacks
  Repair repair = Repair::exact;               // exact: repairs that change no dequantized value; lossy: those that round, too; none: problems refuse
};

// One tensor of the target, made on the fly. Valid during the call.
struct Tensor {
  const std::string& name;
  const std::string& dtype;          // as in a safetensors header: F8_E4M3
  std::span<const int64_t> shape;    // empty: rank 0
  std::span<const std::byte> bytes;  // little-endian, row-major
};

struct Summary {
  std::string dialect, quant_algo, family, producer;
  int64_t tensors = 0, modules = 0, quantized_modules = 0, parameters = 0;
  uint64_t bytes = 0;
  std::vector<std::string> schemes;
  std::string kv_cache;  // empty: not quantized
};

class Bridge {
 public:
  // Reads documents, headers and scalar scales. An Error: the path is missing or unreadable. A damaged or unsupported checkpoint opens, and says so in
  // problems().
  static Result<Bridge> open(const std::string& path);

  Bridge(Bridge&&) noexcept;
  Bridge& operator=(Bridge&&) noexcept;
  ~Bridge();

  const std::vector<Problem>& problems() const;
  bool ok() const;  // no problem is an error
  Summary summary() const;

  // Calls `take` for every tensor of the target in the order in which `write` stores them; it returns false to stop. The bytes are those that `write` writes.
  // The memory is that of the largest group of tensors (one weight and its scales). Errors: bad_input (problems() of the error's text), out_of_memory.
  Result<void> for_each_tensor(const Target&, const std::function<bool(const Tensor&)>& take, const Budget& = {}) const;

  // Writes a checkpoint directory, crash-safe. Errors: exists, invalid_argument, bad_input, out_of_space, out_of_memory, io.
  Result<void> write(const Target&, const std::string& out, const Budget& = {}) const;

 private:
  struct State;
  explicit Bridge(std::unique_ptr<State>);
  std::unique_ptr<State> state_;
};

}  // namespace qb
