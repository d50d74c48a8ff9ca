// Dialect readers and writers over hostile checkpoints: config.json, hf_quant_config.json and a safetensors header, separated by bytes 0xFF.
//
// Whatever reads without an error must be writable or refused, and every program that a writer makes must be well-formed.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json.h"
#include "dialect/dialect.h"
#include "dialect/history.h"
#include "io/memory_source.h"
#include "ir/verify.h"
#include "pass/rotate.h"
#include "prog/program.h"

namespace {

class NoAnswers : public qb::Surveyor {
 public:
  qb::Result<qb::prog::SurveyResult> ask(const qb::prog::Survey&) override { return qb::prog::SurveyResult{}; }
};

std::string_view next(std::string_view& rest) {
  const size_t end = std::min(rest.find('\xff'), rest.size());
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(std::min(end + 1, rest.size()));
  return part;
}

void add_document(qb::Package& package, const char* name, std::string_view text) {
  qb::Json value;
  qb::JsonError error;
  if (!text.empty() && qb::parse_json(text, value, error) && value.is_object()) package.set_document(name, std::make_shared<qb::Json>(std::move(value)));
}

// Programs are well-formed, and those of a tensor make all of it.
void check_rotated(const qb::pass::Rotated& rotated) {
  for (const qb::prog::Program& p : rotated.programs)
    if (!qb::prog::type_check(p)) std::abort();
  for (const qb::pass::Rotated::Tensor& t : rotated.tensors) {
    const uint64_t wanted = qb::prog::output_bytes({.dtype = t.dtype, .shape = t.shape});
    uint64_t made = 0;
    for (size_t i = t.first; made < wanted; ++i) {
      if (i == rotated.programs.size()) std::abort();
      made += qb::prog::output_bytes(rotated.programs[i].outputs[0]);
    }
    if (made != wanted) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace qb;
  std::string_view rest(reinterpret_cast<const char*>(data), size);
  Package package;
  add_document(package, "config.json", next(rest));
  add_document(package, "hf_quant_config.json", next(rest));
  SafetensorsHeader header;
  Diagnostics diag;
  // The header decides the size of its file: the bytes behind it are never read here.
  uint64_t file_size = 8 + rest.size();
  for (int attempt = 0; attempt < 2; ++attempt) {
    header = {};
    Diagnostics ignored;
    if (parse_safetensors_header(std::as_bytes(std::span(rest)), file_size, "model.safetensors", 0, header, ignored)) break;
    uint64_t end = 0;
    for (const TensorInfo& t : header.tensors) end = std::max(end, t.offset + t.bytes);
    file_size = std::max(file_size, end);
  }
  package.files.push_back({"model.safetensors", file_size, header.metadata});
  package.tensors = std::move(header.tensors);
  std::sort(package.tensors.begin(), package.tensors.end(), [](const TensorInfo& a, const TensorInfo& b) { return a.name < b.name; });
  if (const std::vector<HistoryStep> history = read_history(package); !history.empty() && history_metadata(history).empty()) std::abort();
  Facts facts;
  for (const TensorInfo& t : package.tensors)
    if (is_fact(t)) facts.scalars[t.name] = {t.offset % 7 == 0 ? NAN : static_cast<double>(t.offset % 5), std::string(t.bytes, '\0')};
  const Dialect* dialect = detect(package, diag);
  if (dialect == nullptr) return 0;
  if (dialect->config != nullptr) package.set_document("config.json", dialect->config(package));
  ir::Checkpoint checkpoint;
  if (!dialect->read({package, facts, nullptr}, checkpoint, diag)) return 0;
  pass::Rotated rotated;
  Diagnostics refused_basis;
  if (pass::rotate(checkpoint, {true, true}, rotated, refused_basis)) check_rotated(rotated);
  ir::verify(checkpoint, {"model.safetensors"}, diag);
  if (!diag.ok()) return 0;
  NoAnswers answers;
  for (const Dialect* target : dialects()) {
    if (target->write == nullptr) continue;  // import only
    Export plan;
    Diagnostics refused;
    const WriteContext context{.package = package, .facts = facts, .surveyor = answers, .restore_origin = read_origin(package).dialect == target->name};
    if (!target->write(checkpoint, context, plan, refused)) continue;
    for (const prog::Program& p : plan.programs)
      if (!prog::type_check(p)) std::abort();
  }
  return 0;
}
