// Runs one program: the pull primitive. Everything that streams (writing checkpoints, loading kernels, iterating tensors) schedules this.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "exec/context.h"
#include "io/source.h"
#include "prog/program.h"
#include "prog/surveyor.h"

namespace qb {

struct RowRange {
  int64_t begin = 0, end = 0;  // begin is a multiple of Program::row_multiple
};

// Bytes of output `index` that the rows produce, and where they lie inside the whole output tensor.
struct OutputSlice {
  uint64_t offset = 0, bytes = 0;
};
OutputSlice output_slice(const prog::Program&, size_t index, RowRange rows);

// Bytes of buffers that `rows` rows need inside execute_rows (inputs and intermediate values, without the caller's output buffers).
uint64_t working_set(const prog::Program&, int64_t rows);

// The tallest block of rows, a multiple of row_multiple, whose working set and outputs fit `bytes`; 0 when not even one multiple fits.
int64_t rows_within(const prog::Program&, uint64_t bytes);

// Makes the rows' part of every output into outputs[i] (sized by output_slice). Thread-safe for one Program.
Result<void> execute_rows(const prog::Program&, RowRange rows, Source&, std::span<const std::span<std::byte>> outputs, Context&);

// Makes all outputs, one behind the other in order, into `destination` (sized by the sum of output_bytes), block by block within the budget.
Result<void> execute(const prog::Program&, Source&, std::span<std::byte> destination, Context&);

// All numbers of a matrix, each as it is stored, row by row.
Result<std::vector<std::byte>> read_numbers(const ir::Stored&, Source&, Context&);

// Answers a survey by streaming its input once within the budget.
Result<prog::SurveyResult> survey(const prog::Survey&, Source&, Context&);

// Answers surveys by streaming.
class StreamSurveyor : public Surveyor {
 public:
  StreamSurveyor(Source& source, Context& context) : source_(source), context_(context) {}
  Result<prog::SurveyResult> ask(const prog::Survey& question) override { return survey(question, source_, context_); }

 private:
  Source& source_;
  Context& context_;
};

}  // namespace qb
