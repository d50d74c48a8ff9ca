#include "exec/buffer.h"

#include <fmt/format.h>

namespace qb {

Result<std::byte*> Buffer::at_least(uint64_t bytes) {
  if (data_ != nullptr && bytes <= size_) return data_.get();
  const uint64_t size = aligned(bytes == 0 ? 1 : bytes);
  data_.reset();  // before the new memory is asked for: two buffers at once would exceed the budget
  size_ = 0;
  data_.reset(static_cast<std::byte*>(std::aligned_alloc(buffer_alignment, size)));
  if (data_ == nullptr) return Error{Errc::out_of_memory, fmt::format("the system refused {} bytes for a buffer; lower the memory budget", size)};
  size_ = size;
  return data_.get();
}

}  // namespace qb
