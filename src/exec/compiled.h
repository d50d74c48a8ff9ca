// A program made ready to run, and one block of its rows.
//
// Goals: everything that can be refused is refused before the first read; a block's memory is known to the byte before it is allocated; bytes that are moved
// and not changed are read straight into the caller's buffer. execute.cc runs one block at a time, run.cc many programs' blocks in one batch of reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "exec/context.h"
#include "exec/execute.h"
#include "exec/load.h"
#include "prog/program.h"
#include "prog/typing.h"

namespace qb {

// Bytes of one block, where the budget allows it. Measured with bench_convert as processor time for 600 MB on a shared two-core EPYC guest (ext4, input in the
// page cache, one thread, medians of 5): moving took 0.37 s with 256 KiB, 0.26 with 512 KiB, 0.22 with 1 MiB, 0.18 with 2 MiB, 0.40 with 4 MiB and 0.43 with 8
// MiB; quantizing was flat from 512 KiB on (0.25 to 0.29 s). Larger blocks leave the caches. Not tried: machines with other caches, direct I/O.
inline constexpr uint64_t default_block = 2u << 20;

struct Compiled {
  const prog::Program* program = nullptr;
  std::vector<prog::ValueType> types;
  std::vector<prog::ValueId> root;  // of each value: the value whose bytes it has (copies share them)
  std::vector<int> taker;           // of each value: the first output that stores it, or -1
  std::vector<char> computed_on;    // of each value: an op reads its numbers
  bool moves_bytes = false;         // every output is an input's bytes, which lie dense and stay as they are

  bool is_input(prog::ValueId v) const { return static_cast<size_t>(v) < program->inputs.size(); }
  const prog::ValueType& type(prog::ValueId v) const { return types[static_cast<size_t>(v)]; }
  prog::ValueId source_of(const prog::Output& o) const { return root[static_cast<size_t>(o.value)]; }
  OutputSlice slice(size_t output, RowRange rows) const;
  uint64_t output_bytes(RowRange rows) const;
  uint64_t input_bytes() const;  // of the whole program
  // At most this much scratch for any block of so many rows.
  uint64_t working_set(int64_t rows) const;
  // The tallest block, a multiple of row_multiple, whose scratch (and outputs) fit; 0 when none does.
  int64_t rows_within(uint64_t bytes, bool with_outputs) const;
  // A block of about `input` bytes of input that also fits `bytes`; 0 when none does.
  int64_t block_rows(uint64_t input, uint64_t bytes, bool with_outputs) const;
  int64_t least_rows() const { return std::min(program->row_multiple, program->rows); }
  Error does_not_fit(uint64_t budget, bool with_outputs) const;
};
// The result points into `program`, which must outlive it.
Result<Compiled> compile(const prog::Program& program);

// One block: where its values lie, its reads, its arithmetic.
class BlockRun {
 public:
  // outputs[i] has slice(i, rows).bytes bytes.
  BlockRun(const Compiled&, RowRange rows, std::span<const std::span<std::byte>> outputs);
  uint64_t scratch_bytes() const { return scratch_bytes_; }
  // `scratch` is aligned to buffer_alignment and lives until compute() returns.
  Result<void> request(std::byte* scratch, Requests&);
  // After the reads.
  Result<void> compute(Source&, Context&);

 private:
  RowRange rows_of(prog::ValueId v) const;
  int64_t count(prog::ValueId v) const { return rows_of(v).end - rows_of(v).begin; }
  int64_t elements(prog::ValueId v) const { return count(v) * c_.type(v).cols; }
  std::byte* at(prog::ValueId v) const;
  std::byte* direct(prog::ValueId v) const;

  Result<void> run(const prog::Copy&, prog::ValueId) const { return {}; }
  Result<void> run(const prog::Literal&, prog::ValueId) const;
  Result<void> run(const prog::Recode&, prog::ValueId) const;
  Result<void> run(const prog::Rescale&, prog::ValueId) const;
  Result<void> run(const prog::Dequantize&, prog::ValueId) const;
  Result<void> run(const prog::Fold&, prog::ValueId) const;
  Result<void> run(const prog::Rotate&, prog::ValueId) const;
  Result<void> run(const prog::Hadamard&, prog::ValueId) const;
  Result<void> run(const prog::Quantize&, prog::ValueId) const;
  Result<void> run(const prog::Turn&, prog::ValueId) const;
  Result<void> run(const prog::Pack&, prog::ValueId) const;
  Result<void> run(const prog::PackWords&, prog::ValueId) const;
  Result<void> run(const prog::PackNibbles&, prog::ValueId) const;
  Result<void> run(const prog::Pad&, prog::ValueId) const;
  Result<void> run(const prog::Zeros&, prog::ValueId) const;
  Result<void> run(const prog::Groups&, prog::ValueId) const;

  const Compiled& c_;
  RowRange rows_;
  std::span<const std::span<std::byte>> outputs_;
  std::vector<uint64_t> place_;  // of each value: its scratch offset, or in_output
  std::vector<Load> loads_;      // of the inputs
  std::vector<uint64_t> staging_;
  uint64_t scratch_bytes_ = 0;
  std::byte* scratch_ = nullptr;
  std::vector<float> amax_;  // of the reductions
  Isa isa_ = Isa::generic;
};

}  // namespace qb
