// GPTQ's configuration: quantization_config inside config.json, or quantize_config.json beside it, with rules that change it for some modules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "arch/match.h"
#include "dialect/dialect.h"

namespace qb {

// What a module's quantization is; modules that differ from the others are in rules of their own.
struct GptqArgs {
  int32_t bits = 4;
  int32_t group = 128;  // 0: all inputs of an output
  bool symmetric = true, order = false;
  friend auto operator<=>(const GptqArgs&, const GptqArgs&) = default;
};

struct GptqConfig {
  enum class Format : uint8_t { v1, v2, planar };
  std::string from;   // the document that messages name
  std::string label;  // the format as it says
  Format format = Format::v1;
  GptqArgs args;
  bool head = false;  // lm_head is quantized
  struct Dynamic {
    bool excludes = false;
    GptqArgs args;
  };
  RuleList rules;                // the first one that matches decides
  std::vector<Dynamic> dynamic;  // what each of them says
  ir::Producer producer;

  // Position of the rule that decides the module; RuleList::none where none does.
  size_t rule_for(const ir::Module& m) const { return rules.first(m.path, m.kind); }
};

// The document that has it, and its name; null when neither has.
const Json* gptq_document(const Package&, std::string_view& name);

// Problems: config-invalid, algorithm-unsupported, pattern-invalid, config-disagree.
bool read_gptq_config(const Package&, RegexCompiler, GptqConfig&, Diagnostics&);

struct GptqDocuments {
  std::string label = "gptq";
  GptqArgs args;
  bool head = false;
  std::vector<std::pair<std::string, GptqArgs>> others;  // modules by path
  std::vector<std::string> excludes;
};
// config.json with quantization_config, and quantize_config.json with the same.
void write_gptq_documents(const Package&, const GptqDocuments&, Export&);

}  // namespace qb
