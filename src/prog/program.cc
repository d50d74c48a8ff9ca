#include "prog/program.h"

#include <algorithm>

#include "prog/typing.h"

namespace qb::prog {

uint64_t output_bytes(const Output& output) {
  uint64_t elements = 1;
  for (int64_t d : output.shape) elements *= static_cast<uint64_t>(d);
  return (elements * static_cast<uint64_t>(bits(output.dtype)) + 7) / 8;
}

Input input_of(const ir::Stored& stored, int64_t rows_per) {
  Input in{stored.tensor, stored.file, stored.offset, stored.bytes, stored.elem, stored.view, rows_per, stored.mask};
  in.times = stored.times;
  in.plus = stored.plus;
  for (const ir::Stored& by : stored.by) in.by.push_back(input_of(by, by.view.dims == std::array<int64_t, 2>{stored.view.dims[0], 1} ? 1 : 0));
  for (const ir::Stored& part : stored.joined) in.joined.push_back(input_of(part, rows_per));
  in.join = stored.join;
  return in;
}

int64_t side(int64_t elements) {
  int64_t n = 1;
  while (n < (1 << 16) && n * n < elements) ++n;
  return n * n == elements ? n : 0;
}

bool is_repeated(const ir::View& view) {
  return view.repeat[0].times > 1 || view.repeat[1].times > 1;
}

bool is_packed(const ir::View& view, Elem elem) {
  if (!view.parts.empty()) return false;  // whatever each of them is
  const bool lanes = view.lanes != std::array<ir::Lanes, 2>{};
  return is_integer_code(elem)
             ? elem != Elem::i8 || view.offset_binary || view.less != ir::Less::none || view.planes || lanes || view.words[0] + view.words[1] != 0
             : lanes;
}

int64_t last_lane(const ir::View& view, size_t axis) {
  int64_t last = 0;
  for (int32_t i = 0; i < view.lanes[axis].count; ++i) last = std::max<int64_t>(last, view.lanes[axis].bit[static_cast<size_t>(i)]);
  return last;
}

bool is_dense(const ir::View& view, Elem elem) {
  const int64_t width = bits(elem);
  if (view.offset % 8 != 0 || is_packed(view, elem) || is_repeated(view) || !view.parts.empty()) return false;
  if (view.dims[0] == 0 || view.dims[1] == 0) return true;
  if (view.piece != 0 && view.dims[0] > view.piece) return false;
  if (view.dims[1] > 1 && view.stride[1] != width) return false;
  return view.dims[0] == 1 || view.stride[0] == view.dims[1] * width;
}

int results_of(const Op& op) {
  if (const auto* q = std::get_if<Quantize>(&op)) return q->type.two_level() || q->type.zero != ir::Zero::none ? 3 : 2;
  return 1;
}

}  // namespace qb::prog
