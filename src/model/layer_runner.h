// Takes the rows of a pass through decoder layers: the residual stream, the norms around each half, and the buffers that a pass needs.
//
// Everything between layers is float32. Passes have so many rows that their buffers stay below 32 MiB. Not thread-safe.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "exec/buffer.h"
#include "model/decoder_config.h"
#include "model/sublayer.h"

namespace qb::model {

struct DecoderLayer {
  const float *attention_norm = nullptr, *feed_forward_norm = nullptr;          // of each half's input
  const float *attention_out_norm = nullptr, *feed_forward_out_norm = nullptr;  // of what it adds; null: none
  std::unique_ptr<Sublayer> attention, feed_forward;
  void add_linears(NamedLinears& out) const {
    attention->add_linears(out);
    feed_forward->add_linears(out);
  }
};

class LayerRunner {
 public:
  // `config` and `ropes` outlive the runner.
  LayerRunner(const DecoderConfig& config, std::span<const layer::Rope> ropes, const Loading& loading);

  // Which layers are to run, and what else uses the workspace (null: nothing); again whenever others are.
  void fit(std::span<const DecoderLayer> layers, const layer::Linear* head);
  int64_t pass_rows() const { return pass_rows_; }  // at most in one pass
  // Buffers for passes of up to `rows` rows.
  Result<void> prepare(int64_t rows);

  // The pass over tokens [first, last) of the batch is next: positions and what they turn by.
  void begin(const Batch& batch, int64_t first, int64_t last);
  const BatchPass& pass() const { return pass_; }
  Step step(KvCache& cache, bool reference, layer::KvRounding through) const;
  // x: the rows of the pass, overwritten. `step.layer` says where keys and values go. next: the linear that runs behind the layer, null where none does.
  void run(DecoderLayer& layer, const Step& step, const layer::Linear* next);
  // Half of it. added: null, or [rows, hidden] for what the half's module puts out. next: as above, behind the half.
  void run_half(DecoderLayer& layer, LayerStream::Half half, const Step& step, float* added, const layer::Linear* next);

  float* x() const { return x_; }            // [rows, hidden]
  float* normed() const { return normed_; }  // [rows, hidden]: free between layers
  void norm(const float* x, const float* weight, int64_t rows, float* y) const;
  layer::Tools tools() const { return {workspace_, features_, pool_, every_expert_}; }

 private:
  void half(const Step& step, Sublayer& sublayer, const float* norm, const float* out_norm, float* added, const layer::Linear* next);

  const DecoderConfig& config_;
  std::span<const layer::Rope> ropes_;
  host::ThreadPool& pool_;
  host::Feature features_ = host::Feature::none;
  bool every_expert_ = false;
  NamedLinears linears_;
  int64_t scratch_per_row_ = 0, pass_rows_ = 0, prepared_rows_ = 0;

  BatchPass pass_;
  Buffer buffer_, workspace_buffer_;
  float *x_ = nullptr, *normed_ = nullptr, *scratch_ = nullptr;
  std::vector<std::pair<float*, float*>> turns_;  // cosines and sines of each rope
  std::vector<Step::Turns> step_turns_;
  std::span<std::byte> workspace_;
};

}  // namespace qb::model
