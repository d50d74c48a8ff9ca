#include "exec/buffer.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>

namespace qb {
namespace {

constexpr uint64_t large = 256u << 10;

}  // namespace

void FreeBuffer::operator()(std::byte* p) const {
  if (mapped > 0)
    ::munmap(p, mapped);
  else
    std::free(p);
}

Result<std::byte*> Buffer::at_least(uint64_t bytes) {
  if (data_ != nullptr && bytes <= size_) return data_.get();
  const uint64_t size = aligned(bytes == 0 ? 1 : bytes);
  data_.reset();  // before the new memory is asked for: two buffers at once would exceed the budget
  size_ = 0;
  if (size >= large) {
    void* const map = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map != MAP_FAILED) data_ = {static_cast<std::byte*>(map), FreeBuffer{size}};
  } else {
    data_ = {static_cast<std::byte*>(std::aligned_alloc(buffer_alignment, size)), FreeBuffer{}};
  }
  if (data_ == nullptr) return Error{Errc::out_of_memory, fmt::format("the system refused {} bytes for a buffer; lower the memory budget", size)};
  size_ = size;
  return data_.get();
}

}  // namespace qb
