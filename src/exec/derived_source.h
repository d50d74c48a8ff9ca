// Tensors that are made while they are read: the outputs of programs as one more file behind those of another source.
//
// Goal: what reads stored tensors in blocks (programs, reductions, surveys) reads dequantized ones the same way, with the memory of a few rows. Non-goal:
// keeping what was made; a row that is read twice is made twice.
#pragma once

#include <optional>
#include <semaphore>
#include <vector>

#include "exec/context.h"
#include "io/source.h"
#include "prog/program.h"

namespace qb {

class DerivedSource final : public Source {
 public:
  // Programs of one output each and without reductions; the outputs lie behind each other in `file`, a number that no file of `base` has. Each thread that
  // reads uses at most `bytes` of buffers; where `at_once` is not 0, no more threads than that do so at a time, and the others wait. `base` must outlive this.
  DerivedSource(Source& base, FileId file, std::vector<prog::Program> programs, uint64_t bytes, Isa isa, int at_once = 0);

  // Where the output of program i begins.
  uint64_t offset(size_t i) const { return begins_[i]; }
  const std::vector<prog::Program>& programs() const { return programs_; }
  uint64_t size(FileId file) const override { return file == file_ ? begins_.back() : base_.size(file); }
  Result<void> read(std::span<const ReadRequest> requests) override;

 private:
  Result<void> make_all(std::vector<ReadRequest>& made);
  // Fills what of the requests, which are sorted by offset, lies in the output of program i.
  Result<void> make(size_t i, std::span<const ReadRequest> requests);

  Source& base_;
  FileId file_;
  std::vector<prog::Program> programs_;
  std::vector<uint64_t> begins_;  // and the end of the last
  uint64_t bytes_;
  Isa isa_;
  std::optional<std::counting_semaphore<>> free_;
};

}  // namespace qb
