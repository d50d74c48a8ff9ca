// Rows of the embedding as float32: from the stored rows, which stay quantized where they are, or read back from the panels of a tied head, so that no second
// copy is resident.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "exec/context.h"
#include "host/arena.h"
#include "host/threads.h"
#include "ir/checkpoint.h"
#include "layer/linear.h"

namespace qb::layer {

class Embedding {
 public:
  // Loads the rows as they are stored; integers lie one to a byte. A row is dequantized when it is asked for.
  static Result<Embedding> load(const ir::Module& module, Source& source, host::Arena& arena, const LinearOptions& options, Context& context);
  // Shares the head's weight. Errors: a head that is quantized.
  static Result<Embedding> share(const Linear& head);

  // out: [ids, k]. Every id is below n().
  void gather(std::span<const int32_t> ids, float* out) const;
  int64_t n() const { return n_; }
  int64_t k() const { return k_; }
  size_t bytes() const { return bytes_; }  // resident, beside a shared weight

 private:
  Result<void> check_order(const std::string& path) const;
  bool dequantize(int64_t row, float* out) const;  // false where an order names a group that does not exist

  const std::byte* data_ = nullptr;
  Elem elem_ = Elem::bf16;
  std::optional<prog::Dequantize> quantized_;
  const std::byte *scales_ = nullptr, *zeros_ = nullptr, *order_ = nullptr;
  Elem scale_elem_ = Elem::f32;
  float global_ = 1;
  ir::Layout layout_ = ir::Layout::rows;
  int64_t n_ = 0, k_ = 0;
  size_t bytes_ = 0;
};

}  // namespace qb::layer
