#include "dialect/compressed_tensors_calibration.h"

#include <fmt/format.h>

#include <algorithm>

namespace qb {

using ir::Role;

void CtCalibrations::absent(const ir::Module& m, std::string_view word, std::string expected) {
  r_.diag.report("calibration-incomplete", {.tensor = fmt::format("{}.{}", m.path, word), .module = m.path}, "absent", std::move(expected));
}

void CtCalibrations::read(const CtGroup& group, ir::Module& m) {
  struct Measured {
    const char* word;
    bool needed, factor;
  };
  const ir::Scheme& s = group.scheme;
  const bool fixed = s.input && s.input->when == ir::When::fixed, output = s.features.output.has_value();
  const Measured all[] = {
      {"weight_scale", true, true},
      {"weight_global_scale", s.weight.two_level(), true},
      {"weight_zero_point", s.weight.zero != ir::Zero::none, false},
      {"weight_g_idx", s.features.actorder, false},
      {"input_scale", fixed && !s.input->type.two_level(), true},
      {"input_global_scale", fixed && s.input->type.two_level(), true},
      {"input_zero_point", fixed && s.input->type.zero != ir::Zero::none, false},
      {"output_scale", output, true},
      {"output_zero_point", output && s.features.output->type.zero != ir::Zero::none, false},
  };
  Members& members = groups_[&group];
  members.modules.push_back(&m);
  for (const auto& [word, needed, factor] : all) {
    const TensorInfo* t = r_.find(m, word);
    if (t == nullptr && needed) absent(m, word, "one, as " + to_string(s) + " has");
    if (t != nullptr && !needed) members.words.insert(word);
    if (t == nullptr || r_.claimed(*t)) continue;
    r_.claim(*t);
    ++members.dtypes[word][t->dtype];
    const bool number = info(t->dtype).is_float;
    if (factor && !number)
      r_.diag.report("calibration-incomplete", {.file = r_.context.package.file_name(t->file), .tensor = t->name, .module = m.path},
                     std::string(info(t->dtype).safetensors), "floats");
    m.parts.push_back(r_.stored(*t, factor && number ? Role::calibration : Role::calibration_other, t->dtype, 1, t->elements()));
  }
}

void CtCalibrations::check() {
  for (const auto& [group, members] : groups_) {
    for (const auto& [word, dtypes] : members.dtypes) {
      const auto usual = std::max_element(dtypes.begin(), dtypes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
      for (const ir::Module* m : members.modules)
        if (const TensorInfo* t = r_.find(*m, word); t != nullptr && t->dtype != usual->first)
          r_.diag.report("calibration-incomplete", {.file = r_.context.package.file_name(t->file), .tensor = t->name, .module = m->path},
                         std::string(info(t->dtype).safetensors), fmt::format("{}, as others of {} have", info(usual->first).safetensors, group->name));
    }
    for (const std::string& word : members.words)
      for (const ir::Module* m : members.modules)
        if (r_.find(*m, word) == nullptr) absent(*m, word, fmt::format("one, as others of {} have", group->name));
  }
}

}  // namespace qb
