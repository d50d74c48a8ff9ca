#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/diagnostics.h"
#include "exec/changed.h"
#include "exec/execute.h"
#include "exec/numbers.h"
#include "exec/stream.h"
#include "exec/tally.h"
#include "host/host.h"
#include "prog/typing.h"

namespace qb {
namespace {

using prog::Survey;
using prog::SurveyKind;
using prog::SurveyResult;

constexpr uint64_t largest_block = 4u << 20;

bool surveyable(SurveyKind kind, Elem e) {
  if (kind == SurveyKind::integers || kind == SurveyKind::order) return is_integer_code(e) || e == Elem::i32;
  switch (e) {
    case Elem::f64:
    case Elem::f32:
    case Elem::f16:
    case Elem::bf16:
    case Elem::e4m3:
    case Elem::e5m2:
    case Elem::e8m0:
    case Elem::u8:  // e8m0 in plain bytes
      return true;
    default:
      return false;
  }
}

bool is_bf16(double x) {
  const auto f = static_cast<float>(x);
  return static_cast<double>(f) == x && round_bf16(f) == f;
}
bool is_f16(double x) {
  const auto f = static_cast<float>(x);
  return static_cast<double>(f) == x && round_f16(f) == f;
}
// Whether a finite number is one of the format that the survey asks about; null: any is.
bool (*exact_of(SurveyKind kind))(double) {
  return kind == SurveyKind::narrow_bf16 ? is_bf16 : kind == SurveyKind::narrow_f16 ? is_f16 : nullptr;
}

Error refused(const Survey& s, std::string_view why) {
  return Error{Errc::invalid_argument, fmt::format("survey of '{}': {}", escape(s.input.tensor), why)};
}

uint64_t share(const Context& c) {
  return std::min(largest_block, c.limits.memory_budget / 2);
}

Result<void> fits(const Stream& stream, const prog::Input& input, const Context& context) {
  if (stream.block_bytes() <= context.limits.memory_budget / 2) return {};
  return Error{Errc::out_of_memory, fmt::format("tensor '{}': surveying one row needs {} bytes of buffers, the memory budget is {} bytes; raise the budget",
                                                escape(input.tensor), stream.block_bytes(), context.limits.memory_budget)};
}

Result<SurveyResult> survey_numbers(const Survey& s, Source& source, Context& context) {
  const Stream stream(s.input, share(context));
  QB_TRY(fits(stream, s.input, context));
  Numbers numbers(s.input.elem, s.input.view.dims[0] * s.input.view.dims[1], exact_of(s.kind), context.isa);
  Buffer buffer;
  for (int64_t b = 0; b < stream.blocks(); ++b) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    QB_ASSIGN(const Stream::Block block, stream.read(b, source, buffer));
    numbers.add(block.data, block.first, block.count);
    host::sample_memory();
  }
  return numbers.result();
}

// All numbers of an input of few, as doubles.
Result<std::vector<double>> numbers_of(const prog::Input& input, Source& source, Context& context) {
  const Stream stream(input, share(context));
  QB_TRY(fits(stream, input, context));
  std::vector<double> all;
  Buffer buffer;
  for (int64_t b = 0; b < stream.blocks(); ++b) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    QB_ASSIGN(const Stream::Block block, stream.read(b, source, buffer));
    for (int64_t i = 0; i < block.count; ++i) all.push_back(value_at(block.data, input.elem, i));
  }
  return all;
}

// What is stored times its factors, against what its format makes of the product.
Result<SurveyResult> survey_rounding(const Survey& s, Source& source, Context& context) {
  const int64_t cols = s.input.view.dims[1];
  std::vector<double> of_rows(static_cast<size_t>(s.input.view.dims[0]), s.input.times), of_cols(static_cast<size_t>(cols), 1.0);
  for (const prog::Input& by : s.input.by) {
    QB_ASSIGN(const std::vector<double> factors, numbers_of(by, source, context));
    std::vector<double>& into = by.rows_per == 1 ? of_rows : of_cols;
    for (size_t i = 0; i < into.size(); ++i) into[i] *= factors[i];
  }
  prog::Input stored = s.input;
  stored.times = 1;
  stored.by.clear();
  const Stream stream(stored, share(context));
  QB_TRY(fits(stream, stored, context));
  SurveyResult r;
  Buffer buffer;
  for (int64_t b = 0; b < stream.blocks(); ++b) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    QB_ASSIGN(const Stream::Block block, stream.read(b, source, buffer));
    for (int64_t i = 0; i < block.count; ++i) {
      const int64_t index = block.first + i;
      const double x = value_at(block.data, stored.elem, i) + s.input.plus;
      const double factor = of_rows[static_cast<size_t>(index / cols)] * of_cols[static_cast<size_t>(index % cols)], y = x * factor;
      ++r.count;
      if (!std::isfinite(y)) continue;
      std::byte rounded[4];
      ops::store_rounded(rounded, stored.elem, 0, y - s.input.plus);
      const double made = value_at(rounded, stored.elem, 0) + s.input.plus;
      if (made == y && std::fma(x, factor, -y) == 0) continue;
      if (r.inexact++ == 0) r.first_bad = index;
      r.error = std::max(r.error, std::fabs(made - y) / std::fabs(y));
    }
    host::sample_memory();
  }
  return r;
}

Result<SurveyResult> survey_equal(const Survey& s, Source& source, Context& context) {
  if (s.second.size() != 1 || s.second[0].view.dims != s.input.view.dims) return refused(s, "there is nothing of its size to compare it with");
  QB_ASSIGN(const std::vector<double> a, numbers_of(s.input, source, context));
  QB_ASSIGN(const std::vector<double> b, numbers_of(s.second[0], source, context));
  SurveyResult r;
  for (size_t i = 0; i < a.size(); ++i, ++r.count)
    if (a[i] != b[i] && r.inexact++ == 0) r.first_bad = static_cast<int64_t>(i);
  return r;
}

// The group of each column against its place; -1 leaves it there.
Result<SurveyResult> survey_order(const Survey& s, Source& source, Context& context) {
  const int64_t k = s.input.view.dims[0] * s.input.view.dims[1], group = s.type.block.cols == 0 ? std::max<int64_t>(k, 1) : s.type.block.cols;
  if (group < 0) return refused(s, "groups of a negative size");
  const Stream stream(s.input, share(context));
  QB_TRY(fits(stream, s.input, context));
  SurveyResult r;
  Buffer buffer;
  for (int64_t b = 0; b < stream.blocks(); ++b) {
    QB_ASSIGN(const Stream::Block block, stream.read(b, source, buffer));
    for (int64_t i = 0; i < block.count; ++i) {
      const int64_t column = block.first + i, found = ops::load<int32_t>(block.data, i);
      if (found < -1 || found >= prog::value_rows(k, group)) {
        if (r.dead++ == 0) r.first_bad = column;
      }
      if (found != -1 && found != column / group) ++r.inexact;
    }
    r.count += block.count;
  }
  return r;
}

// Bits of a code once it is read.
int width_of(Elem code) {
  return is_integer_code(code) ? 8 : bits(code);
}

bool is_zero_code(const std::byte* row, Elem elem, int64_t j) {
  switch (elem) {
    case Elem::e2m1:
      return ((std::to_integer<unsigned>(row[j / 2]) >> (4 * (j % 2))) & 7U) == 0;
    case Elem::e4m3:
    case Elem::e5m2:
      return (std::to_integer<unsigned>(row[j]) & 0x7FU) == 0;
    default:
      return row[j] == std::byte{0};
  }
}

// Rows of codes with the rows of scales that they are under; marks the blocks that have a code but no scale.
Result<SurveyResult> survey_dead(const Survey& s, Source& source, Context& context) {
  const int64_t grid_rows = s.input.view.dims[0], groups = s.input.view.dims[1];
  int64_t n = 0, k = s.second.empty() ? 0 : s.second[0].view.dims[1];
  for (const prog::Input& in : s.second) {
    const bool integer = is_integer_code(in.elem) && is_integer_code(s.type.code);
    const bool known = integer || ((in.elem == Elem::e2m1 || in.elem == Elem::e4m3 || in.elem == Elem::e5m2) && in.elem == s.type.code);
    if (!known || in.view.dims[1] != k || k * width_of(in.elem) % 8 != 0) return refused(s, "the codes are not what the type says");
    n += in.view.dims[0];
  }
  const ir::Block block = s.type.block;
  if (block.rows < 0 || block.cols < 0 || prog::value_rows(n, block.rows) != grid_rows || (block.cols == 0 ? 1 : prog::value_rows(k, block.cols)) != groups) {
    return refused(s, "its shape does not belong to the codes");
  }
  SurveyResult r;
  r.count = grid_rows * groups;
  const int64_t width = block.cols == 0 ? k : block.cols;
  // Numbers of other formats are normal ones of float32 or powers of two, which are not multiplied.
  const double flushed_below = s.input.elem == Elem::f32 || s.input.elem == Elem::bf16 ? 0x1p-126 : std::numeric_limits<double>::denorm_min();
  Buffer scale_buffer, code_buffer;
  std::vector<char> dead(static_cast<size_t>(groups));
  const int64_t scale_row_bytes = groups * bits(s.input.elem) / 8;
  int64_t done = 0, row = -1;
  const auto settle = [&] {
    for (int64_t g = 0; row >= 0 && g < groups; ++g) {
      if (dead[static_cast<size_t>(g)] == 2) ++r.subnormal;
      if (dead[static_cast<size_t>(g)] != 1) continue;
      if (r.dead++ == 0) r.first_bad = row * groups + g;
    }
    std::fill(dead.begin(), dead.end(), char{0});
  };
  for (const prog::Input& in : s.second) {
    const int64_t rows = in.view.dims[0], row_bytes = k * width_of(in.elem) / 8;
    const int64_t height = std::clamp<int64_t>(static_cast<int64_t>(share(context) / 4) / std::max<int64_t>(row_bytes, 1), 1, std::max<int64_t>(rows, 1));
    for (int64_t begin = 0; begin < rows; begin += height) {
      if (context.stop()) return Error{Errc::cancelled, "interrupted"};
      const Load load(in, begin, std::min(begin + height, rows));
      QB_ASSIGN(std::byte* const codes, code_buffer.at_least(aligned(load.bytes()) + load.staging()));
      const int64_t end = done + std::min(height, rows - begin);
      const int64_t first_scale = block.rows == 0 ? 0 : done / block.rows;
      const Load lines(s.input, first_scale, block.rows == 0 ? 1 : prog::value_rows(end, block.rows));
      QB_ASSIGN(std::byte* const scale_rows, scale_buffer.at_least(aligned(lines.bytes()) + lines.staging()));
      Requests requests(source);
      QB_TRY(load.request(codes, codes + aligned(load.bytes()), requests));
      QB_TRY(lines.request(scale_rows, scale_rows + aligned(lines.bytes()), requests));
      QB_TRY(requests.flush());
      QB_TRY(load.gather(codes, codes + aligned(load.bytes())));
      QB_TRY(lines.gather(scale_rows, scale_rows + aligned(lines.bytes())));
      for (int64_t i = begin; i < std::min(begin + height, rows); ++i, ++done) {
        const int64_t scale_row = block.rows == 0 ? 0 : done / block.rows;
        if (scale_row != row) {
          settle();
          row = scale_row;
        }
        const std::byte* scales = scale_rows + (scale_row - first_scale) * scale_row_bytes;
        const std::byte* codes_row = codes + (i - begin) * row_bytes;
        for (int64_t g = 0; g < groups; ++g) {
          const double scale = std::fabs(value_at(scales, s.input.elem, g));
          if (!(scale < flushed_below)) continue;
          char& mark = dead[static_cast<size_t>(g)];
          for (int64_t j = g * width; mark == 0 && j < std::min((g + 1) * width, k); ++j)
            if (!is_zero_code(codes_row, in.elem, j)) mark = scale == 0 ? 1 : 2;
        }
      }
      host::sample_memory();
    }
  }
  settle();
  return r;
}

}  // namespace

Result<SurveyResult> survey(const Survey& s, Source& source, Context& context) {
  if (!surveyable(s.kind, s.input.elem)) return refused(s, fmt::format("{} numbers cannot be surveyed", info(s.input.elem).name));
  // The type checker knows what a sound input is: one program per matrix, since each is as tall as its own rows.
  const auto sound = [](const prog::Input& in) {
    prog::Program p;
    p.rows = in.view.dims[0];
    p.inputs = {in};
    p.inputs[0].rows_per = 1;
    return prog::type_check(p).ok();
  };
  if (!sound(s.input) || !std::all_of(s.second.begin(), s.second.end(), sound)) return refused(s, "its view does not fit its bytes");
  if (s.kind == SurveyKind::order) return s.input.elem == Elem::i32 ? survey_order(s, source, context) : refused(s, "an order of groups is i32");
  if (s.kind == SurveyKind::rounding) return survey_rounding(s, source, context);
  if (s.kind == SurveyKind::equal) return survey_equal(s, source, context);
  return s.kind == SurveyKind::dead_codes ? survey_dead(s, source, context) : survey_numbers(s, source, context);
}

}  // namespace qb
