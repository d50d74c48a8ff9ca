// A dialect: one producer's conventions for configs, names, shapes, packing and scales. One file each, found through the manifest.
//
// They see a Package (documents and the tensor index) and Facts, never bulk data, and write programs, never bytes.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/diagnostics.h"
#include "base/json_fwd.h"
#include "base/regex.h"
#include "dialect/origin.h"
#include "io/package.h"
#include "ir/checkpoint.h"
#include "prog/program.h"
#include "prog/surveyor.h"

namespace qb {

// Values of single-element tensors, of the shapes of packed codes and of where sparse rows begin, by name: fetched in one batch before reading.
struct Facts {
  struct Scalar {
    double value = 0;  // the stored number, widened exactly; of several the first
    std::string bits;  // its bytes
  };
  std::unordered_map<std::string, Scalar> scalars;
  const Scalar* find(const std::string& tensor) const {
    auto it = scalars.find(tensor);
    return it == scalars.end() ? nullptr : &it->second;
  }
};
// Which tensors facts are fetched for.
bool is_fact(const TensorInfo&);

struct Match {
  enum Level : uint8_t { no, maybe, certain } level = no;
  std::string why;
};

struct ReadContext {
  const Package& package;
  const Facts& facts;
  RegexCompiler regex;  // may be null: patterns are then an error that says so
};

// One output: complete documents, tensors in order with the programs that make them, before any data is read.
struct Export {
  std::vector<std::pair<std::string, std::shared_ptr<Json>>> documents;  // config.json and what else the dialect writes
  std::vector<prog::Program> programs;                                   // in the order of the output's tensors
  Origin origin;                                                         // what the way back needs
  struct SchemeChange {
    std::vector<std::string> modules;
    std::string from, to, reason;
  };
  std::vector<SchemeChange> scheme_changes;
  struct Lost {
    std::string what, why;
  };
  std::vector<Lost> lost;
};

struct WriteContext {
  const Package& package;  // for documents that are carried over
  const Facts& facts;
  Surveyor& surveyor;
  std::optional<Elem> dense_dtype = {};  // `dense` only; absent: the checkpoint's own
  bool stored = false;                   // `dense` only: the bare dequantized matrices, without what pre-scales and low-rank parts add
  bool restore_origin = false;           // the source's quantbridge.origin is about the dialect that is written now
};

struct Dialect {
  std::string_view name, spec;  // spec: where the format is written down
  Match (*match)(const Package&);
  bool (*read)(const ReadContext&, ir::Checkpoint&, Diagnostics&);
  bool (*write)(const ir::Checkpoint&, const WriteContext&, Export&, Diagnostics&);  // null: import only
  bool transforms = false;                                                           // write takes modules with Module::transforms
  // Where a producer has its own words for what config.json says and its own names for modules: config.json as transformers has it, which stands for the
  // file's from then on. The modules that are read have transformers' names, and other forms than a target would expect (pass/forms.h).
  std::shared_ptr<const Json> (*config)(const Package&) = nullptr;
};

std::span<const Dialect* const> dialects();  // the generated manifest
const Dialect* find_dialect(std::string_view name);
// The dialect that matches best; null when none does (the problem says what was found: quant-method-unsupported).
const Dialect* detect(const Package&, Diagnostics&);

}  // namespace qb
