#include "prog/program.h"

#include "prog/typing.h"

namespace qb::prog {

uint64_t output_bytes(const Output& output) {
  uint64_t elements = 1;
  for (int64_t d : output.shape) elements *= static_cast<uint64_t>(d);
  return (elements * static_cast<uint64_t>(bits(output.dtype)) + 7) / 8;
}

Input input_of(const ir::Stored& stored, int64_t rows_per) {
  return Input{stored.tensor, stored.file, stored.offset, stored.bytes, stored.elem, stored.view, rows_per};
}

bool is_dense(const ir::View& view, Elem elem) {
  const int64_t width = bits(elem);
  if (view.offset % 8 != 0) return false;
  if (view.dims[0] == 0 || view.dims[1] == 0) return true;
  if (view.dims[1] > 1 && view.stride[1] != width) return false;
  return view.dims[0] == 1 || view.stride[0] == view.dims[1] * width;
}

int results_of(const Op& op) {
  if (const auto* q = std::get_if<Quantize>(&op)) return q->type.two_level() ? 3 : 2;
  return 1;
}

}  // namespace qb::prog
