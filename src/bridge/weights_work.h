// One algorithm at work on a model, layer by layer: which weights it works on together, what it sees of their inputs, and where its results go.
//
// An algorithm of codes sees each layer's inputs as they come out of the layers before it with their new weights; one of factors changes nothing that is
// computed, and sees those of the model as it was. A layer whose results are in the store already is passed through, or not even that where no layer is left.
// Source of truth: the sequential pipeline of llm-compressor 0.14 (GPTQ), and its mappings of AWQ and SmoothQuant, which are those of the families' tables.
#pragma once

#include <deque>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "bridge/layer_store.h"
#include "calib/algorithm.h"
#include "calib/calibrate.h"
#include "exec/context.h"
#include "io/memory_source.h"

namespace qb {

struct WeightsPlan {
  const calib::Algorithm& algorithm;
  std::string stage;              // what its files are called by
  ir::Checkpoint& running;        // what the model is loaded from, module by module that of `planned`: takes up what is made
  const ir::Checkpoint& planned;  // after pass::quantize
  LayerStore& store;
  Source& source;
  MemorySource& tried;  // weights that are only tried lie here: as files of `source`
  FileId first_tried;   // from this number on
  Context& context;
  calib::Tools tools;
  uint64_t memory;  // for statistics, as long as those of one input fit
};

class WeightsWork final : public calib::LayerWork, public layer::Observers {
 public:
  explicit WeightsWork(const WeightsPlan& plan);

  // Whether a layer is left that has no results.
  bool unfinished() const { return next_unfinished(0) >= 0; }
  // What the algorithm refuses, in the planned checkpoint's words; into the diagnostics. False: there is something.
  bool check(Diagnostics&) const;

  layer::Observer* of(const std::string& path, ir::Role role) override;
  Result<Pass> begin(int64_t layer) override;
  bool works() const override { return !watched_.empty(); }
  std::string within() const override { return p_.planned.modules[waiting_.front().group.watched].path; }
  void compared(double squares) override;
  bool compares() const override;
  Result<void> end(int64_t layer, const std::function<void(double)>& tell) override;

 private:
  // Linears that read the same inputs.
  struct Group {
    std::vector<size_t> modules;
    size_t watched = 0;        // the one whose inputs are seen
    std::string norm, feeder;  // what takes factors up: a norm's path, or a linear's; both empty: nothing does
  };
  // A group whose inputs were seen. Candidates of factors are tried one by one; first the layer runs as it is.
  struct Seen {
    Group group;
    calib::Statistics statistics;
    std::vector<std::vector<float>> candidates = {};
    std::optional<size_t> trying = {};  // the last that was loaded
    double least = std::numeric_limits<double>::infinity();
    std::optional<size_t> best = {};
  };
  bool asked(const ir::Module& m) const;
  std::vector<Group> groups_of(int64_t layer) const;
  std::string file_of(int64_t layer) const;
  int64_t next_unfinished(int64_t from) const;
  const ir::Module* find(const std::string& path) const;

  Result<std::vector<std::byte>> numbers_of(const ir::Stored& s) const;
  Result<calib::Weight> weight_of(size_t module) const;
  Result<void> scale_inputs(const Group& group, calib::Statistics& seen) const;
  Result<void> solve(const Group& group, calib::Statistics& seen);
  const ir::Module* feeder_of(const Group& group) const;
  bool takes_factors(const Group& group) const;
  bool tries(const Group& group) const;
  Result<std::vector<calib::Weight>> weights_of(std::span<const size_t> modules) const;
  Result<void> try_next(Seen& seen);
  Result<void> balance(const Group& group, calib::Statistics& seen, std::optional<std::vector<float>> found);
  Result<void> round_norm(const Group& group, std::vector<float>& factors) const;
  Result<void> work_off(int64_t layer, const std::function<void(double)>& tell);
  Result<void> into_feeder(const Group& group, std::span<const float> factors);
  Result<void> scale_rows(const ir::Stored& s, std::span<const float> divisors, float plus);
  void keep(std::string name, Elem dtype, std::vector<int64_t> shape, std::vector<std::byte> bytes);

  WeightsPlan p_;
  std::vector<std::vector<size_t>> by_layer_;  // modules
  std::map<std::string, size_t> by_path_;
  std::vector<Group> pending_;
  int64_t current_ = -1;
  std::vector<Seen> watched_;
  std::deque<Seen> waiting_;                        // for what comes before them in the layer, the first perhaps being tried
  std::vector<ir::Module> was_;                     // modules of `running` in whose places others are tried
  std::map<std::string, LayerStore::Tensor> made_;  // of the current layer
};

}  // namespace qb
