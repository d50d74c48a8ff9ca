#include "exec/stream.h"

#include "prog/typing.h"

namespace qb {
namespace {

uint64_t needed(const prog::Input& input, int64_t rows) {
  const Load load(input, 0, rows);
  return aligned(load.bytes()) + aligned(load.staging());
}

}  // namespace

Stream::Stream(const prog::Input& input, uint64_t bytes) : input_(input) {
  ir::View& v = input_.view;
  const int64_t width = bits(input.elem);
  if (input.mask.tensor.empty() && input.joined.empty() && prog::is_dense(v, input.elem) && width % 8 == 0 && input.by.empty())
    v = ir::View{{v.dims[0] * v.dims[1], 1}, {width, width}, v.offset};
  const int64_t rows = v.dims[0];
  if (rows == 0 || v.dims[1] == 0) return;
  int64_t low = 1, high = rows;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (needed(input_, middle) <= bytes) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  height_ = low;
  blocks_ = prog::value_rows(rows, height_);
}

uint64_t Stream::block_bytes() const {
  return blocks_ == 0 ? 0 : needed(input_, height_);
}

Result<Stream::Block> Stream::read(int64_t index, Source& source, Buffer& buffer) const {
  const int64_t begin = index * height_, end = std::min(begin + height_, input_.view.dims[0]);
  const Load load(input_, begin, end);
  QB_ASSIGN(std::byte* const data, buffer.at_least(aligned(load.bytes()) + load.staging()));
  std::byte* const staging = data + aligned(load.bytes());
  Requests requests(source);
  QB_TRY(load.request(data, staging, requests));
  QB_TRY(requests.flush());
  QB_TRY(load.gather(data, staging));
  return Block{data, begin * cols(), (end - begin) * cols()};
}

}  // namespace qb
