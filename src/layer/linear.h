// A linear at run time: its weight in a kernel's layout, and the kernels for each batch size. No format is known here: the oracle has decided.
//
// What a scheme does besides one product is done here, around the kernel. Inputs go through a matrix, block by block, and are multiplied column by column
// (pre-scales) before anything else; a low-rank part is two linears more on these inputs: y = Q(x * p) W^T + ((x * p) A^T) B^T. Outputs are quantized, and go
// through a matrix, after all else.
//
// A weight whose columns are cut among ranks gives a part of each sum. Parts are added in double, in the order of the ranks (the reference kernel's as they are
// before rounding), before anything that is not linear; the bias is the first rank's. Scales that are taken over whole inputs are those of all ranks' columns.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "exec/context.h"
#include "host/arena.h"
#include "host/communicator.h"
#include "host/threads.h"
#include "ir/checkpoint.h"
#include "layer/observer.h"
#include "layer/rotations.h"
#include "oracle/oracle.h"

namespace qb::layer {

struct LinearOptions {
  host::Cpu cpu;
  oracle::Policy policy;
  kernel::Inputs inputs = kernel::Inputs::as_scheme;
  host::ThreadPool* pool = nullptr;   // loads with these threads; null: with the caller's
  Rotations* rotations = nullptr;     // the matrices that linears share; null: each has its own
  Observers* observers = nullptr;     // who looks on; null: nobody
  host::Communicator* cut = nullptr;  // the ranks among which the columns of the weight are cut; null: all columns are here
};

// Makes all outputs of a program into buffers of their own, in blocks of a few MiB spread over the pool's threads (null: the caller's alone), as many of them
// as the budget has blocks for.
Result<void> run_into(const prog::Program& program, Source& source, std::span<const std::span<std::byte>> outputs, host::ThreadPool* pool, Context& context);

// A stored vector of floats (a norm's weight, a bias) as float32 in the arena, `plus` added to each.
Result<const float*> load_floats(const ir::Stored& stored, Source& source, host::Arena& arena, Context& context, float plus = 0);

// What a kernel sees of a module with a weight: its scheme without what is done around the kernel, or the plain numbers' own format.
ir::Scheme kernel_scheme(const ir::Module& module);

// The layout and the kernels that a linear gets when it is loaded. The number of tokens in the problem says nothing: one layout serves all.
Result<oracle::LinearPlan> plan_for(const kernel::Problem& problem, const host::Cpu& cpu, const oracle::Policy& policy);

class Linear {
 public:
  // Plans and loads: runs a Program that packs the codes, stored or made now, straight into the arena, block by block.
  static Result<Linear> load(const ir::Module& module, Source& source, host::Arena& arena, const LinearOptions& options, Context& context);

  int64_t n() const { return problem_.n; }
  int64_t k() const { return problem_.k; }
  // y[m,n] = x[m,k] W^T (+ bias). `workspace` is of workspace_bytes(m). The rows of W are split over the pool's threads; the result does not depend on their
  // number. Of a cut weight: all its ranks call it with as many tokens.
  void run(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const;
  // The same for several that take the same inputs. Those that follow each other and make the same of them make it once, and share one loop.
  struct Product {
    const Linear* linear;
    float* y;
  };
  static void run(std::span<const Product> products, const float* x, int64_t m, std::span<std::byte> workspace, host::ThreadPool& pool);
  size_t workspace_bytes(int64_t m) const;
  struct LowRank;
  const oracle::LinearPlan& plan() const { return plan_; }
  const kernel::Problem& problem() const { return problem_; }
  const kernel::Weight& weight() const { return weight_; }
  size_t bytes() const { return bytes_; }  // resident
  // What a run reads of the weight: codes, and scales where they are not one number.
  std::span<const std::span<std::byte>> parts() const { return parts_; }
  std::span<const std::byte> codes() const { return parts_.empty() ? std::span<const std::byte>() : parts_[0]; }

 private:
  kernel::Problem problem_;
  kernel::Weight weight_;
  oracle::LinearPlan plan_;
  std::vector<std::span<std::byte>> parts_;
  Observer *observer_ = nullptr, *output_observer_ = nullptr;  // of the inputs and the outputs
  std::shared_ptr<const Rotation> rotated_inputs_, rotated_outputs_;
  const float* prescale_ = nullptr;  // [k]
  struct Outputs {
    ir::QuantType type;
    float scale = 0, zero = 0;
  };
  std::optional<Outputs> quantized_outputs_;
  std::shared_ptr<const LowRank> lowrank_;
  host::Communicator* cut_ = nullptr;
  std::optional<kernel::Problem> ranged_;  // of a cut weight whose inputs have scales over all columns: what the scheme says; the kernel gets their numbers
  size_t bytes_ = 0;

  Result<void> load_transforms(const ir::Module&, Source&, const LinearOptions&, Context&);
  Result<void> load_around(const ir::Module&, Source&, host::Arena&, const LinearOptions&, Context&);
  bool prepares_as(const Linear& other, int64_t m) const;
  static void run_together(std::span<const Product> products, const float* x, int64_t m, std::span<std::byte> workspace, host::ThreadPool& pool);
  void run_unfinished(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const;
  void finish(float* y, int64_t m, host::ThreadPool& pool) const;
  void run_kernel(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const;
  void run_part(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const;
  void multiply(const float* x, int64_t m, float* y, double* sums, std::span<std::byte> workspace, host::ThreadPool& pool) const;
  const float* quantized_together(const float* x, int64_t m, float* out) const;
};

struct Linear::LowRank {
  Linear a, b;
};

}  // namespace qb::layer
