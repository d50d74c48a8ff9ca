#include "exec/execute.h"

#include <algorithm>

#include "exec/buffer.h"
#include "exec/compiled.h"
#include "host/host.h"

namespace qb {
namespace {

Result<void> run_block(const Compiled& c, RowRange rows, Source& source, std::span<const std::span<std::byte>> outputs, Buffer& buffer, Context& context) {
  BlockRun block(c, rows, outputs);
  QB_ASSIGN(std::byte* const scratch, buffer.at_least(block.scratch_bytes()));
  Requests requests(source);
  QB_TRY(block.request(scratch, requests));
  QB_TRY(requests.flush());
  return block.compute(source, context);
}

}  // namespace

OutputSlice output_slice(const prog::Program& program, size_t index, RowRange rows) {
  auto c = compile(program);
  return c && index < program.outputs.size() ? c->slice(index, rows) : OutputSlice{};
}

uint64_t working_set(const prog::Program& program, int64_t rows) {
  auto c = compile(program);
  return c ? c->working_set(rows) : 0;
}

int64_t rows_within(const prog::Program& program, uint64_t bytes) {
  auto c = compile(program);
  return c ? c->rows_within(bytes, true) : 0;
}

Result<void> execute_rows(const prog::Program& program, RowRange rows, Source& source, std::span<const std::span<std::byte>> outputs, Context& context) {
  QB_ASSIGN(const Compiled c, compile(program));
  if (rows.begin < 0 || rows.end < rows.begin || rows.end > program.rows || rows.begin % program.row_multiple != 0 ||
      (rows.end % program.row_multiple != 0 && rows.end != program.rows) || outputs.size() != program.outputs.size()) {
    return Error{Errc::invalid_argument, "rows or outputs that the program does not have"};
  }
  for (size_t o = 0; o < outputs.size(); ++o) {
    if (outputs[o].size() != c.slice(o, rows).bytes) return Error{Errc::invalid_argument, "an output buffer of the wrong size"};
  }
  if (c.working_set(rows.end - rows.begin) > context.limits.memory_budget) return c.does_not_fit(context.limits.memory_budget, false);
  Buffer buffer;
  return run_block(c, rows, source, outputs, buffer, context);
}

Result<void> execute(const prog::Program& program, Source& source, std::span<std::byte> destination, Context& context) {
  QB_ASSIGN(const Compiled c, compile(program));
  if (destination.size() != c.output_bytes({0, program.rows})) return Error{Errc::invalid_argument, "a destination of the wrong size"};
  const uint64_t budget = context.limits.memory_budget;
  // A quarter stays for the reductions, which stream their tensors in blocks of their own.
  const int64_t height = c.block_rows(default_block, program.reductions.empty() ? budget : budget - budget / 4, false);
  if (height == 0 && program.rows > 0) return c.does_not_fit(budget, false);
  Buffer buffer;
  std::vector<std::span<std::byte>> outputs(program.outputs.size());
  for (int64_t begin = 0; begin == 0 || begin < program.rows; begin += std::max<int64_t>(height, 1)) {
    if (context.stop()) return Error{Errc::cancelled, "interrupted"};
    const RowRange rows{begin, begin + std::min(height, program.rows - begin)};
    uint64_t base = 0;
    for (size_t o = 0; o < outputs.size(); ++o) {
      const OutputSlice s = c.slice(o, rows);
      outputs[o] = destination.subspan(base + s.offset, s.bytes);
      base += prog::output_bytes(program.outputs[o]);
    }
    QB_TRY(run_block(c, rows, source, outputs, buffer, context));
    host::sample_memory();
  }
  return {};
}

Result<std::vector<std::byte>> read_numbers(const ir::Stored& s, Source& source, Context& context) {
  prog::Program p;
  p.rows = s.view.dims[0];
  p.inputs.push_back(prog::input_of(s, 1));
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = s.tensor, .dtype = s.elem, .shape = {s.view.dims[0], s.view.dims[1]}, .value = 1});
  QB_TRY(prog::type_check(p));
  std::vector<std::byte> numbers(prog::output_bytes(p.outputs[0]));
  QB_TRY(execute(p, source, numbers, context));
  return numbers;
}

}  // namespace qb
