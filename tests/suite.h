// What the suites over producers' checkpoints share: where the fixtures are, what their documents promise, and their tensors' bytes.
//
// Goals: everything that a test expects comes from the producers' files and from the values computed beside them, read here without the library's own readers
// (JSON apart), so that a mistake there cannot hide itself. Which fixtures are in scope is decided by what they say, not by their names: unseen ones of the
// same kinds take part. Root: the environment variable QUANTBRIDGE_FIXTURES, else the selection in tests/data/fixtures (with tests/data/broken).
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "bridge/job.h"

namespace qb::suite {

using Path = std::filesystem::path;

// One tensor as a file holds it.
struct Tensor {
  std::string dtype;
  std::vector<int64_t> shape;
  std::string bytes;
  friend bool operator==(const Tensor&, const Tensor&) = default;
};
std::string describe(const Tensor&);  // F8_E4M3 [128,64]
// Its numbers, of any float dtype or of packed E2M1 codes' bytes.
std::vector<double> values(const Tensor&);

struct Weights {
  std::map<std::string, Tensor> tensors;
  std::vector<std::string> order;                                      // names, file by file, by offset
  std::map<std::string, std::map<std::string, std::string>> metadata;  // by file
};
// All *.safetensors of a directory. Malformed files are left out.
Weights read_weights(const Path& dir);
// One file of these tensors, in their order.
void write_weights(const Path& file, const Weights&);
// Rewrites every file of a directory without that key of its metadata; returns how many had it.
int drop_metadata(const Path& dir, std::string_view key);

Json read_document(const Path& file);  // null when it is not there or no JSON
std::string read_bytes(const Path& file);
void write_bytes(const Path& file, std::string_view bytes);

struct Fixture {
  std::string name;  // modelopt/llama-fp8
  Path path;
  Json config, quant;  // config.json; "quantization" of hf_quant_config.json; null where absent
  Json expected;       // expected.json or expected_problem.json
  Weights weights() const { return read_weights(path); }
};
Path root();
// The directories of one folder of the root, by name. Empty when the root has no such folder.
std::vector<Fixture> fixtures(std::string_view folder);
Fixture fixture_at(const Path& dir);  // files that are stored as FILE.delta (tools/fixture_delta.py) are whole under `path`

struct Scope {
  bool in = false;
  std::string why;  // the algorithm's words, or what puts it out of scope
};
// Whether the checkpoint is of a kind that is supported now.
Scope scope_of(const Fixture&);

// The base whose unquantized tensors are the fixture's: the ones that no producer touches. `weights` are those of the bases. Null: none.
const Fixture* base_of(const std::vector<Fixture>& bases, const std::vector<Weights>& weights, const Fixture& f, const Weights& w);

// The linears that are in the file: 2-D weights other than the embedding, by path.
std::set<std::string> linears(const Weights&);

// What ModelOpt's documents say about the linears of a file.
struct ModelOptMeaning {
  std::string algo, kv;
  std::set<std::string> excluded;  // linears
  friend bool operator==(const ModelOptMeaning&, const ModelOptMeaning&) = default;
};
// How activations and blocks are said, and which linears have codes.
std::string hf_fp8_meaning(const Fixture&, const Weights&);
// How integers are stored, of AutoAWQ's and GPTQ's configs.
std::string packed_meaning(const Fixture&);
ModelOptMeaning modelopt_file_meaning(const Fixture&, const Weights&);      // hf_quant_config.json
ModelOptMeaning modelopt_embedded_meaning(const Fixture&, const Weights&);  // quantization_config
// What compressed-tensors' config says about the linears of a file.
struct CompressedMeaning {
  std::map<std::string, std::string> schemes;  // by linear: arguments and format, canonical
  std::set<std::string> ignored;
  std::string kv;
  friend bool operator==(const CompressedMeaning&, const CompressedMeaning&) = default;
};
CompressedMeaning compressed_meaning(const Fixture&, const Weights&);

// A directory that is removed with its contents.
class Scratch {
 public:
  Scratch();
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Path operator/(std::string_view name) const { return path_ / name; }

 private:
  Path path_;
};

// A fixture by its folder and name, of the root or else of the selection that is always there.
std::optional<Path> checkpoint_at(const std::string& name);
// The token ids that the producers' checkpoints were calibrated on, as the model's vocabulary has them: a file in the scratch directory.
Path calibration_ids(const Fixture& base, const Scratch& scratch);

// One run of open_session, plan_job and write_job.
struct Outcome {
  bool written = false;
  bool readable = false;
  Diagnostics diag;
  std::vector<pass::Repaired> repairs;
  std::string error;                 // of the outside world
  std::vector<std::string> lost;     // what the report says is lost
  std::vector<std::string> changes;  // and which schemes become others
  std::set<std::string> codes() const;
  std::string text() const;  // for messages
};
Outcome convert(const Path& in, const Path& out, const JobOptions& options, const Limits& limits = {});
JobOptions to_dialect(std::string dialect);
// Both hold the same tensors, byte for byte.
void same_bytes(const Path& want, const Path& got);

// Which forms of matrices that belong together a checkpoint has.
struct FormsThere {
  bool fused = false, separate = false, stacked = false, experts = false;
  explicit FormsThere(const arch::Topology&);
  // Forms that it does not have and may be written in: projections, experts, both.
  std::vector<pass::Forms> others() const;
};

// Distinct schemes of a checkpoint's linears ("... in stacks" of stacked experts) and its KV cache in the grammar's words; "none" without any. From the
// library's own reader.
struct Kind {
  std::set<std::string> schemes;
  std::string kv;  // kv:fp8_tensor_static; empty: none
  std::string text() const;
};
Kind kind_of(const Session&);

}  // namespace qb::suite
