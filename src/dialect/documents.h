// What dialects share about documents.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "dialect/dialect.h"

namespace qb {

// quantization_config of config.json; null when there is none.
const Json* quantization_config(const Package&);
// Certain when it has that quant_method.
Match match_quant_method(const Package&, std::string_view method);

// A copy of config.json without any quantization keys. Precondition: the package has one.
Json plain_config(const Package&);

// The schemes that the source had before a dialect wrote it that has no word for all of them.
std::vector<ir::Scheme> noted_schemes(const Origin&);
// The noted scheme that a module had: the same weights, and activations that the file between had no word for. `now` where none is.
ir::Scheme as_noted(std::span<const ir::Scheme> noted, const ir::Scheme& now);

// Modules whose scheme is written as another one, which means the same weights.
class SchemeChanges {
 public:
  void add(const std::string& module, const ir::Scheme& from, const ir::Scheme& to, std::string_view reason);  // nothing where they are equal
  // Reports them, and notes the schemes from before for the way back, where what is written leads to one of them only.
  void write(Export&) const;

 private:
  std::map<std::string, Export::SchemeChange> changes_;  // by the scheme before
  std::set<std::string> kept_;
};

// Notes the producer's own word for the algorithm and its version in the origin, for the way back.
void note_producer(const ir::Checkpoint&, Export&);

}  // namespace qb
