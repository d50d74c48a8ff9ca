#include "exec/compiled.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/diagnostics.h"
#include "exec/buffer.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

std::optional<Elem> scale_elem(const prog::Quantize& op, Elem source) {
  const recipe::Recipe* r = recipe::find_recipe(op.recipe);
  return r == nullptr ? std::nullopt : std::optional<Elem>(r->scale_elem(source));
}

Result<void> check_recipe(const prog::Program& p, const prog::Quantize& op) {
  const recipe::Recipe* r = recipe::find_recipe(op.recipe);
  if (r == nullptr) return Error{Errc::invalid_argument, fmt::format("there is no recipe called '{}'", escape(op.recipe))};
  if (!r->makes(op.type)) return Error{Errc::invalid_argument, fmt::format("recipe '{}' does not make {}", r->name, ir::to_string(op.type))};
  if (r->needs_amax && op.reduction < 0)
    return Error{Errc::invalid_argument, fmt::format("recipe '{}' needs an absmax that the program does not take", r->name)};
  if (p.row_multiple % r->row_multiple != 0 && p.row_multiple < p.rows) {
    return Error{Errc::invalid_argument, fmt::format("recipe '{}' needs blocks of {} rows, the program has {}", r->name, r->row_multiple, p.row_multiple)};
  }
  return {};
}

void mark_read(const prog::Op& op, const std::vector<prog::ValueId>& root, std::vector<char>& computed_on) {
  const auto mark = [&](prog::ValueId v) {
    if (v >= 0) computed_on[static_cast<size_t>(root[static_cast<size_t>(v)])] = 1;
  };
  if (const auto* recode = std::get_if<prog::Recode>(&op)) mark(recode->src);
  if (const auto* rescale = std::get_if<prog::Rescale>(&op)) mark(rescale->src);
  if (const auto* quantize = std::get_if<prog::Quantize>(&op)) mark(quantize->src);
  if (const auto* rotate = std::get_if<prog::Rotate>(&op)) mark(rotate->src), mark(rotate->matrix);
  if (const auto* hadamard = std::get_if<prog::Hadamard>(&op)) mark(hadamard->src), mark(hadamard->gains);
  if (const auto* d = std::get_if<prog::Dequantize>(&op)) mark(d->code), mark(d->scale), mark(d->global), mark(d->zero), mark(d->order);
}

}  // namespace

Result<Compiled> compile(const prog::Program& p) {
  Compiled c;
  c.program = &p;
  QB_ASSIGN(c.types, prog::type_check(p, scale_elem));
  const size_t values = c.types.size();
  c.root.resize(values);
  for (size_t v = 0; v < p.inputs.size(); ++v) c.root[v] = static_cast<prog::ValueId>(v);
  auto next = static_cast<prog::ValueId>(p.inputs.size());
  c.computed_on.assign(values, 0);
  for (const prog::Op& op : p.ops) {
    for (int i = 0; i < prog::results_of(op); ++i, ++next) c.root[static_cast<size_t>(next)] = next;
    if (const auto* copy = std::get_if<prog::Copy>(&op)) c.root[static_cast<size_t>(next) - 1] = c.root[static_cast<size_t>(copy->src)];
    if (const auto* quantize = std::get_if<prog::Quantize>(&op)) QB_TRY(check_recipe(p, *quantize));
    mark_read(op, c.root, c.computed_on);
  }
  c.taker.assign(values, -1);
  c.moves_bytes = true;
  for (size_t o = 0; o < p.outputs.size(); ++o) {
    const auto v = static_cast<size_t>(c.source_of(p.outputs[o]));
    if (c.taker[v] < 0) c.taker[v] = static_cast<int>(o);
    const bool moved = v < p.inputs.size() && p.inputs[v].mask.tensor.empty() && p.inputs[v].joined.empty() &&
                       prog::is_dense(p.inputs[v].view, p.inputs[v].elem) && !p.inputs[v].changed();
    c.moves_bytes = c.moves_bytes && moved;
  }
  return c;
}

OutputSlice Compiled::slice(size_t output, RowRange rows) const {
  const prog::ValueType& t = type(program->outputs[output].value);
  if (t.rows_per == 0) return rows.begin == 0 ? OutputSlice{0, t.row_bytes()} : OutputSlice{t.row_bytes(), 0};
  const uint64_t begin = static_cast<uint64_t>(rows.begin / t.rows_per) * t.row_bytes();
  const uint64_t end = std::min(static_cast<uint64_t>(prog::value_rows(rows.end, t.rows_per)) * t.row_bytes(), prog::output_bytes(program->outputs[output]));
  return OutputSlice{begin, end - begin};
}

uint64_t Compiled::output_bytes(RowRange rows) const {
  uint64_t sum = 0;
  for (size_t o = 0; o < program->outputs.size(); ++o) sum += slice(o, rows).bytes;
  return sum;
}

uint64_t Compiled::input_bytes() const {
  uint64_t sum = 0;
  for (size_t v = 0; v < program->inputs.size(); ++v) sum += static_cast<uint64_t>(types[v].rows) * types[v].row_bytes();
  return sum;
}

// Mirrors BlockRun's constructor for the worst case: outputs at odd addresses, a block that begins inside a value's row, and not the first one.
uint64_t Compiled::working_set(int64_t rows) const {
  uint64_t sum = 0;
  for (size_t i = 0; i < types.size(); ++i) {
    const auto v = static_cast<prog::ValueId>(i);
    const prog::ValueType& t = types[i];
    if (root[i] != v) continue;
    const int64_t height = t.rows_per == 0 ? 1 : std::min(t.rows, t.rows_per == 1 ? rows : rows / t.rows_per + 2);
    const bool at_any_address = bits(t.elem) <= 8 || !(computed_on[i] || !is_input(v));
    if (taker[i] < 0 || t.rows_per == 0 || !at_any_address) sum += aligned(static_cast<uint64_t>(height) * t.row_bytes());
    if (is_input(v)) sum += aligned(Load(program->inputs[i], 0, height).staging());
  }
  return sum;
}

int64_t Compiled::rows_within(uint64_t bytes, bool with_outputs) const {
  const int64_t multiple = program->row_multiple, multiples = prog::value_rows(program->rows, multiple);
  const auto fits = [&](int64_t m) {
    const int64_t rows = std::min(m, multiples) == multiples ? program->rows : m * multiple;
    const uint64_t need = working_set(rows);
    return need <= bytes && (!with_outputs || output_bytes({0, rows}) <= bytes - need);
  };
  int64_t low = 0, high = multiples;  // low fits (or is 0), high + 1 does not
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(middle)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return low == multiples ? program->rows : low * multiple;
}

int64_t Compiled::block_rows(uint64_t input, uint64_t bytes, bool with_outputs) const {
  const int64_t rows = rows_within(bytes, with_outputs);
  if (rows == 0) return 0;
  const uint64_t per_row = std::max<uint64_t>(1, (input_bytes() + output_bytes({0, program->rows})) / 2 / static_cast<uint64_t>(program->rows));
  const int64_t multiple = program->row_multiple;
  const auto wanted = static_cast<int64_t>(std::min<uint64_t>(input / per_row, static_cast<uint64_t>(program->rows)));
  return std::min(rows, std::max(wanted / multiple * multiple, multiple));
}

Error Compiled::does_not_fit(uint64_t budget, bool with_outputs) const {
  const int64_t rows = least_rows();
  const uint64_t need = working_set(rows) + (with_outputs ? output_bytes({0, rows}) : 0);
  const std::string name = program->outputs.empty() ? "" : escape(program->outputs[0].name);
  return Error{Errc::out_of_memory,
               fmt::format("tensor '{}': its smallest block ({} rows) needs {} bytes of buffers, the memory budget is {} bytes; raise the budget", name, rows,
                           need, budget)};
}

}  // namespace qb
