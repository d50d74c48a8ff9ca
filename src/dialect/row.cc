// Reading by rows. Writing is in row_write.cc.
#include "dialect/row.h"

#include <fmt/format.h>

#include <cstring>

#include "dialect/masked.h"
#include "ir/stack.h"

namespace qb {
namespace {

int64_t blocks(int64_t size, int32_t block) {
  return block == 0 ? 1 : (size + block - 1) / block;
}

bool is_float_scale(Elem e) {
  return e == Elem::f32 || e == Elem::f16 || e == Elem::bf16;
}

std::string describe(const TensorInfo& t) {
  return fmt::format("{} [{}]", info(t.dtype).safetensors, fmt::join(t.shape, ","));
}

// The shape as of a matrix: of stacked experts' tensors the first two axes are one, and so are the rest.
std::vector<int64_t> flat(const ir::Module& m, const TensorInfo& t) {
  if (m.kind != arch::Kind::expert || t.shape.size() < 2) return t.shape;
  std::vector<int64_t> out{t.shape[0] * t.shape[1]};
  if (t.shape.size() > 2) out.push_back(1);
  for (size_t i = 2; i < t.shape.size(); ++i) out[1] *= t.shape[i];
  return out;
}

const char* missing_code(ir::Role role) {
  switch (role) {
    case ir::Role::code:
      return "weight-missing";
    case ir::Role::input_scale:
      return "input-scale-missing";
    default:
      return "scale-missing";
  }
}

// Parts that the scheme asks for: zero points, an order of groups and static activation scales are there only where it has them.
bool needs(const ir::Scheme& s, ir::Role role) {
  const bool fixed = s.input && s.input->when == ir::When::fixed;
  switch (role) {
    case ir::Role::zero:
      return s.weight.zero != ir::Zero::none;
    case ir::Role::order:
      return s.features.actorder;
    case ir::Role::input_scale:
      return fixed;
    case ir::Role::input_zero:
      return fixed && s.input->type.zero != ir::Zero::none;
    case ir::Role::output_scale:
      return s.features.output.has_value();
    case ir::Role::output_zero:
      return s.features.output && s.features.output->type.zero != ir::Zero::none;
    case ir::Role::prescale:
      return s.features.prescale;
    case ir::Role::lowrank_a:
    case ir::Role::lowrank_b:
      return s.features.lowrank > 0;
    default:
      return true;
  }
}

int64_t number_at(const std::string& bytes, size_t i) {
  int64_t x = 0;
  std::memcpy(&x, bytes.data() + 8 * i, 8);
  return x;
}

// The size of a packed matrix: rows as the tensor has them, columns as the tensor beside it says, or as config.json does where its words do not hold those.
std::optional<ir::View> packed_size(const Reading& r, const ir::Module& m, const TensorInfo& t, int bits, int64_t& n, int64_t& k) {
  if (t.shape.size() != 2 || t.shape[0] < 1 || t.shape[1] < 1 || t.shape[1] > (int64_t{1} << 40)) return std::nullopt;
  n = t.shape[0];
  std::vector<int64_t> candidates{r.out.topology.modules[static_cast<size_t>(m.topology)].k};
  const TensorInfo* shape = r.find(m, "weight_shape");
  const Facts::Scalar* fact = shape != nullptr ? r.context.facts.find(shape->name) : nullptr;
  if (fact != nullptr && fact->bits.size() == 16) candidates.insert(candidates.begin(), number_at(fact->bits, 1));
  for (const int64_t columns : candidates) {
    k = columns;
    if (k < 1 || k > t.shape[1] * 32) continue;
    if (std::optional<ir::View> view = ir::packed_words(n, k, bits, 1, t.shape[1]); view) return view;
  }
  return std::nullopt;
}

// Rows, columns and order of the codes; nothing when the tensor is no matrix of whole ones.
std::optional<ir::View> code_view(const Reading& r, const ir::Module& m, const PartRow& part, const TensorInfo& t, Elem elem, int64_t& n, int64_t& k) {
  if (part.packing == Packing::words_along_columns) return packed_size(r, m, t, bits(elem), n, k);
  const std::vector<int64_t> shape = flat(m, t);
  const size_t rank = part.rank == Rank::mx_bytes ? 4 : m.kind == arch::Kind::expert ? 3 : 2;
  if (t.shape.size() != rank || (rank == 4 && t.shape[3] != 16)) return std::nullopt;
  n = shape[0];
  k = shape[1];
  if (n < 1 || k < 1) return std::nullopt;
  switch (part.packing) {  // a parsed header bounds shapes by the file's size
    case Packing::row_pairs:
      n *= 2;
      return ir::nibbles(n, k, ir::Nibbles::row_pairs);
    case Packing::high_first:
      k *= 2;
      return ir::nibbles(n, k, ir::Nibbles::high_first);
    default:
      k = k * bits(t.dtype) / bits(elem);
      return k < 1 ? std::nullopt : std::optional(ir::row_major(n, k, bits(elem)));
  }
}

// How a stored part differs from what this dialect would write for it: what the way back must know.
std::string deviation(const PartRow& row, const TensorInfo& t, const std::vector<int64_t>& usual) {
  OriginEntry e;
  const Elem usual_dtype = row.any_float ? Elem::f32 : row.container;
  if (t.dtype != usual_dtype) e.dtype = t.dtype;
  if (t.shape != usual) e.shape = t.shape;
  return to_text(e);
}

// Dtype and element count of a scale against the block grid. A group size that contradicts the config is told apart from a damaged shape: the scheme then takes
// that of the scales, where the row holds it.
bool check_scale(Reading& r, const Row& whole, const PartRow& row, ir::Module& m, const TensorInfo& t) {
  const Place place{.file = r.context.package.file_name(t.file), .tensor = t.name, .module = m.path};
  const ir::QuantType type = ir::stored_type(m);
  const bool scale_bytes = row.container == Elem::e4m3, exponents = row.form == ir::ScaleForm::exponent;
  if (exponents ? t.dtype != Elem::u8 && t.dtype != Elem::e8m0 : scale_bytes ? t.dtype != Elem::e4m3 : !is_float_scale(t.dtype)) {
    r.diag.report("dtype-unexpected", place, describe(t), exponents ? "U8 or F8_E8M0 exponents" : scale_bytes ? "F8_E4M3" : "F32, BF16 or F16");
    return false;
  }
  if (exponents && t.dtype != row.container) r.diag.report("scale-dtype", place, describe(t), std::string(info(row.container).safetensors));
  const bool grid = row.role == ir::Role::scale;
  const int64_t rows = grid ? blocks(m.n, type.block.rows) : 1, cols = grid ? blocks(m.k, type.block.cols) : 1;
  if (t.elements() == rows * cols) {
    std::vector<int64_t> lean;  // without unit axes: it must be the grid, not its transpose
    for (int64_t d : flat(m, t))
      if (d != 1) lean.push_back(d);
    std::vector<int64_t> want;
    for (int64_t d : {rows, cols})
      if (d != 1) want.push_back(d);
    if (lean == want) {
      if (row.rank == Rank::grid && t.shape.size() == 1 && t.shape[0] > 1) r.diag.report("scale-rank", place, describe(t), fmt::format("[{},{}]", rows, cols));
      return true;
    }
  }
  const std::string expected = fmt::format("[{}] for a weight [{}, {}] with {}", fmt::join(part_shape(row, m), ","), m.n, m.k, ir::to_string(m.scheme->weight));
  const int64_t columns = t.shape.empty() ? 1 : t.shape.back();
  if (grid && m.stack.experts == 0 && type.block.rows == 1 && type.block.cols > 0 && t.shape.size() == 2 && t.shape[0] == m.n && columns > 0 &&
      m.k % columns == 0 && (m.k / columns == 16 || m.k / columns == 32 || m.k / columns == 64 || m.k / columns == 128)) {
    ir::Scheme stored = *m.scheme;
    stored.weight.block.cols = static_cast<int32_t>(m.k / columns);
    if (whole.holds(stored)) {
      r.diag.report("group-size-mismatch", place, fmt::format("{}: groups of {}", describe(t), m.k / columns), expected);
      m.scheme = stored;
      return true;
    }
  }
  r.diag.report("scale-shape", place, describe(t), expected);
  return false;
}

// Zero points: one integer for each scale, in bytes or packed along the rows.
std::optional<ir::Stored> read_zero(const Reading& r, const PartRow& row, const ir::Module& m, const TensorInfo& t) {
  const ir::QuantType& type = m.scheme->weight;
  const int64_t rows = blocks(m.n, type.block.rows), cols = blocks(m.k, type.block.cols);
  if (t.dtype != row.container) return std::nullopt;
  if (row.packing == Packing::none) {
    if (t.elements() != rows * cols || (t.shape.size() == 2 && t.shape[0] != rows)) return std::nullopt;
    return r.stored(t, row.role, Elem::i8, rows, cols);
  }
  if (t.elements() % cols != 0 || (t.shape.size() == 2 && t.shape[1] != cols) || t.shape.size() > 2) return std::nullopt;
  const std::optional<ir::View> view = ir::packed_words(rows, cols, bits(type.code), 0, t.elements() / cols);
  if (!view) return std::nullopt;
  ir::Stored s = r.stored(t, row.role, type.code, rows, cols);
  s.view = *view;
  return s;
}

// The parts of integer schemes that are no floats; nothing after a report.
std::optional<ir::Stored> read_integers(const Reading& r, const PartRow& row, const ir::Module& m, const TensorInfo& t) {
  std::optional<ir::Stored> s;
  if (row.role == ir::Role::zero) {
    s = read_zero(r, row, m, t);
  } else if (t.dtype == row.container) {
    const int64_t count = row.role == ir::Role::order ? m.k : row.role == ir::Role::shape ? 2 : 1;
    if (t.elements() == count && t.shape.size() <= 2) s = r.stored(t, row.role, t.dtype, 1, count);
  }
  const Place place{.file = r.context.package.file_name(t.file), .tensor = t.name, .module = m.path};
  if (!s) {
    r.diag.report("scale-shape", place, describe(t),
                  fmt::format("{} [{}] for a weight [{}, {}] with {}", info(row.container).safetensors, fmt::join(part_shape(row, *m.scheme, m.n, m.k), ","),
                              m.n, m.k, ir::to_string(m.scheme->weight)));
    return s;
  }
  if (row.role != ir::Role::shape) return s;
  const Facts::Scalar* fact = r.context.facts.find(t.name);
  if (fact != nullptr && fact->bits.size() == 16 && (number_at(fact->bits, 0) != m.n || number_at(fact->bits, 1) != m.k))
    r.diag.report("packed-shape-mismatch", place, fmt::format("[{}, {}]", number_at(fact->bits, 0), number_at(fact->bits, 1)),
                  fmt::format("[{}, {}], as the codes have", m.n, m.k));
  return s;
}

// The blocks of stacked experts' scales end with each expert, and so do the bytes of packed codes whichever way they are turned.
bool whole_blocks(const ir::Module& m) {
  const int64_t rows = m.n / m.stack.experts;
  if (rows > INT32_MAX || m.k > INT32_MAX) return false;
  const ir::Block block = ir::stored_type(m).block;
  const bool whole = (block.rows == 0 || rows % block.rows == 0) && (block.cols == 0 || m.k % block.cols == 0);
  return whole && (m.scheme->weight.code != Elem::e2m1 || (rows % 2 == 0 && m.k % 2 == 0));
}

// Numbers of the model's own dtype beside the codes: what inputs are multiplied by, the factors of a low-rank part.
bool is_vector(ir::Role role) {
  return role == ir::Role::prescale || role == ir::Role::lowrank_a || role == ir::Role::lowrank_b;
}

bool read_floats(const Reading& r, const PartRow& row, ir::Module& m, const TensorInfo& t) {
  const std::vector<int64_t> usual = part_shape(row, *m.scheme, m.n, m.k);
  const bool rank_one = row.role == ir::Role::prescale && t.elements() == m.k;
  if (!is_float_scale(t.dtype) || (t.shape != usual && !rank_one)) {
    r.diag.report(is_float_scale(t.dtype) ? "scale-shape" : "dtype-unexpected",
                  {.file = r.context.package.file_name(t.file), .tensor = t.name, .module = m.path}, describe(t),
                  fmt::format("BF16, F16 or F32 [{}] for a weight [{}, {}] with {}", fmt::join(usual, ","), m.n, m.k, ir::to_string(*m.scheme)));
    return false;
  }
  const bool matrix = usual.size() == 2;
  ir::Stored s = r.stored(t, row.role, t.dtype, matrix ? usual[0] : 1, matrix ? usual[1] : m.k);
  OriginEntry shape;
  if (t.shape != usual) shape.shape = t.shape;
  s.deviation = to_text(shape);
  m.parts.push_back(std::move(s));
  return true;
}

}  // namespace

const Row* row_for(std::span<const Row> rows, const ir::Scheme& scheme) {
  for (const Row& row : rows)
    if (row.holds(scheme)) return &row;
  return nullptr;
}

std::vector<int64_t> part_shape(const PartRow& row, const ir::Scheme& scheme, int64_t n, int64_t k) {
  const ir::QuantType& t = scheme.weight;
  const int64_t cols = blocks(k, t.block.cols);
  const int64_t rows = row.packing == Packing::words_along_rows ? ir::dense_words(blocks(n, t.block.rows), bits(t.code)) : blocks(n, t.block.rows);
  switch (row.rank) {
    case Rank::matrix:
      if (row.packing == Packing::words_along_columns) return {n, ir::dense_words(k, bits(t.code))};
      if (row.packing == Packing::row_pairs) return {n / 2, k};
      if (row.packing == Packing::high_first) return {n, k / 2};
      if (row.container == Elem::i8) return {n, k};
      return {n, k * bits(t.code) / bits(row.container)};
    case Rank::columns:
      return {k};
    case Rank::pair:
      return {2};
    case Rank::factor_a:
      return {scheme.features.lowrank, k};
    case Rank::factor_b:
      return {n, scheme.features.lowrank};
    case Rank::scalar0:
      return {};
    case Rank::scalar1:
      return {1};
    case Rank::vector:
      return {n};
    case Rank::column:
      return {n, 1};
    case Rank::grid:
      return {rows, cols};
    case Rank::mx_bytes:
      return {n, k / 32, 16};
    case Rank::grid4:
      return rows * cols == 1 ? std::vector<int64_t>{} : std::vector<int64_t>{rows, 1, cols, 1};
  }
  return {};
}

std::vector<int64_t> part_shape(const PartRow& row, const ir::Module& m) {
  ir::Scheme scheme = *m.scheme;
  scheme.weight = ir::stored_type(m);
  std::vector<int64_t> shape = part_shape(row, scheme, m.n, m.k);
  const int64_t experts = m.stack.experts;
  if (experts == 0 || shape.empty()) return shape;
  if (row.rank == Rank::vector) return {experts};
  shape.front() /= experts;
  shape.insert(shape.begin(), experts);
  return shape;
}

bool read_row(Reading& r, const Row& row, ir::Module& m) {
  const ir::Scheme& scheme = *m.scheme;  // a scale may correct its group
  bool ok = true;
  // The code comes first: the other shapes follow from it.
  for (const PartRow& part : row.parts) {
    const bool is_code = part.role == ir::Role::code;
    const TensorInfo* t = r.find(m, part.suffix);
    const bool needed = needs(scheme, part.role);
    if (!needed && part.role != ir::Role::input_scale) continue;  // one that is there stays unclaimed and is reported
    if (t == nullptr) {
      if (part.presence == Presence::optional || !needed) continue;
      Problem& p = r.diag.report(missing_code(part.role), {.tensor = ir::tensor_name(m, part.suffix), .module = m.path}, "absent",
                                 fmt::format("{} of {}", ir::to_string(part.role), ir::to_string(scheme)));
      // An expert may take its siblings' (pass/expert_inputs.cc).
      if (part.role == ir::Role::input_scale && !r.out.topology.modules[static_cast<size_t>(m.topology)].of_experts.empty()) p.repair = Repair::lossy;
      ok = false;
      if (is_code) return false;
      continue;
    }
    r.claim(*t);
    const Place place{.file = r.context.package.file_name(t->file), .tensor = t->name, .module = m.path};
    if (is_code && part.packing == Packing::masked && t->dtype == part.container) {
      if (!read_masked(r, m, part.container == Elem::i8 ? Elem::i8 : scheme.weight.code)) return false;
    } else if (is_code) {
      const Elem elem = part.container == Elem::i8 ? Elem::i8 : scheme.weight.code;  // codes of fewer bits lie one to a byte there
      const std::optional<ir::View> view = t->dtype == part.container ? code_view(r, m, part, *t, elem, m.n, m.k) : std::nullopt;
      if (t->dtype != part.container || (!view && part.packing != Packing::words_along_columns)) {
        r.diag.report("dtype-unexpected", place, describe(*t),
                      fmt::format("{} {} codes of {}", info(part.container).safetensors,
                                  part.rank == Rank::mx_bytes    ? "[experts, n, k/32, 16]"
                                  : m.kind == arch::Kind::expert ? "[experts, inputs, outputs]"
                                                                 : "[n, k]",
                                  ir::to_string(scheme)));
        return false;
      }
      if (!view) {
        r.diag.report("weight-shape", place, describe(*t), fmt::format("[n, words]: words of 32 bits that hold {} columns of {}", m.k, info(elem).name));
        return false;
      }
      if (m.kind == arch::Kind::expert) {
        m.stack.experts = t->shape[0];
        if (!whole_blocks(m)) {
          r.diag.report("weight-shape", place, describe(*t), fmt::format("whole blocks of {} in each expert", ir::to_string(scheme.weight)));
          return false;
        }
      }
      const arch::Module& config = r.out.topology.modules[static_cast<size_t>(m.topology)];
      const TensorInfo* scale = r.find(m, "weight_scale");
      // A weight that disagrees with both its scales and the config is cut; one that agrees with its scales is the config's mistake (finish() says so).
      if (m.stack.experts == 0 && scheme.weight.block.rows == 1 && scale != nullptr && !scale->shape.empty() && m.n != config.n &&
          scale->shape[0] == config.n) {
        r.diag.report("weight-shape", place, describe(*t), fmt::format("{} rows, as its scales and config.json have", config.n));
        return false;
      }
      if (m.stack.experts == 0 && scheme.weight.two_level() && scheme.weight.block.cols > 0 && m.k % scheme.weight.block.cols != 0) {
        r.diag.report("weight-shape", place, describe(*t), fmt::format("columns in whole groups of {}", scheme.weight.block.cols));
        return false;
      }
      m.parts.push_back(r.stored(*t, part.role, elem, m.n, m.k));
      m.parts.back().view = *view;
      // One label has two packings; the way back is told of the rarer one by its shape.
      if (part.packing == Packing::high_first) m.parts.back().deviation = to_text(OriginEntry{.dtype = {}, .shape = t->shape, .bits = {}});
    } else if (part.role == ir::Role::zero || part.role == ir::Role::order || part.role == ir::Role::shape || part.role == ir::Role::input_zero ||
               part.role == ir::Role::output_zero) {
      std::optional<ir::Stored> s = read_integers(r, part, m, *t);
      ok &= s.has_value();
      if (s) m.parts.push_back(std::move(*s));
    } else if (is_vector(part.role)) {
      ok &= read_floats(r, part, m, *t);
    } else if (check_scale(r, row, part, m, *t)) {
      const bool grid = part.role == ir::Role::scale;
      const ir::Block block = ir::stored_type(m).block;
      ir::Stored s = r.stored(*t, part.role, part.form == ir::ScaleForm::exponent ? Elem::e8m0 : t->dtype, grid ? blocks(m.n, block.rows) : 1,
                              grid ? blocks(m.k, block.cols) : 1);
      s.form = part.form;
      s.deviation = deviation(part, *t, part_shape(part, m));
      m.parts.push_back(std::move(s));
    } else {
      ok = false;
    }
  }
  return ok;
}

}  // namespace qb
