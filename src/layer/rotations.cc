#include "layer/rotations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "exec/execute.h"
#include "exec/ops.h"

namespace qb::layer {

Result<std::shared_ptr<const Rotation>> Rotations::load(const ir::Transform& t, Source& source, Context& context) {
  const ir::Stored& s = t.matrix;
  std::shared_ptr<const Rotation>& made = loaded_[{s.file, s.offset, t.transposed}];
  if (made != nullptr) return made;
  QB_ASSIGN(const std::vector<std::byte> bytes, read_numbers(s, source, context));
  const int64_t rows = s.view.dims[0];
  std::vector<double> matrix(static_cast<size_t>(rows * rows));
  ops::to_doubles(bytes.data(), s.elem, matrix);
  if (!std::all_of(matrix.begin(), matrix.end(), [](double x) { return std::isfinite(x); }))
    return Error{Errc::bad_input, fmt::format("{} holds numbers that are not finite", s.tensor)};
  made = std::make_shared<const Rotation>(std::move(matrix), rows, t.transposed, t.divisor);
  bytes_ += made->bytes();
  return made;
}

void rotate(const Rotation& r, const float* from, float* to, int64_t count, host::ThreadPool& pool) {
  pool.ranges(count / r.size(), 1, [&](int64_t begin, int64_t end) {
    std::vector<double> room(r.room());
    for (int64_t block = begin; block < end; ++block) r.apply(from + block * r.size(), to + block * r.size(), 1, room);
  });
}

}  // namespace qb::layer
