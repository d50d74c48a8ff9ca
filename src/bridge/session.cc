#include "bridge/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "base/json.h"
#include "bridge/check.h"
#include "exec/execute.h"
#include "host/host.h"
#include "io/directory.h"
#include "ir/verify.h"
#include "num/codec.h"

namespace qb {
namespace {

double widen(Elem elem, const std::byte* bytes) {
  if (elem == Elem::f32) {
    float f = 0;
    std::memcpy(&f, bytes, 4);
    return f;
  }
  if (elem == Elem::i8) return static_cast<double>(static_cast<int8_t>(*bytes));
  if (elem == Elem::i64) {
    int64_t number = 0;
    std::memcpy(&number, bytes, 8);
    return static_cast<double>(number);
  }
  uint16_t u = 0;
  std::memcpy(&u, bytes, 2);
  return elem == Elem::bf16 ? decode_bf16(u) : decode_f16(u);
}

// dtype of the unquantized weights: the embedding's, else the config's.
Elem model_dtype(const Session& s) {
  for (const ir::Module& m : s.checkpoint.modules)
    if (const ir::Stored* code = m.part(ir::Role::code); code != nullptr && !m.scheme) return code->container;
  const Json* config = s.package.document("config.json");
  std::string_view name = string_at(*config, "dtype");
  if (name.empty()) name = string_at(*config, "torch_dtype");
  return name == "float16" ? Elem::f16 : name == "float32" ? Elem::f32 : Elem::bf16;
}

// config.json says other sizes than the tensors have: where all of them are what they should be beside the embedding table as it is, its sizes were meant, and
// the checkpoint is what it is with these.
void take_sizes_of_tensors(Session& s, const Diagnostics& before) {
  const auto table = std::find_if(s.checkpoint.modules.begin(), s.checkpoint.modules.end(),
                                  [](const ir::Module& m) { return m.kind == arch::Kind::embedding && m.n > 0 && m.k > 0; });
  if (table == s.checkpoint.modules.end()) return;
  auto config = std::make_shared<Json>(*s.package.document("config.json"));
  std::string found, expected;
  for (const auto& [key, size] : {std::pair("hidden_size", table->k), std::pair("vocab_size", table->n)}) {
    const int64_t said = int_at(*config, key, size);
    if (said == size) continue;
    found += fmt::format("{}{} {}", found.empty() ? "" : ", ", key, said);
    expected += fmt::format("{}{} {}", expected.empty() ? "" : ", ", key, size);
    (*config)[key] = size;
  }
  if (found.empty()) return;
  const std::string tensor = table->parts.empty() ? std::string() : table->parts.front().tensor;
  Package package = s.package;
  package.set_document("config.json", std::move(config));
  ir::Checkpoint checkpoint;
  Diagnostics diag = before;
  if (!s.dialect->read({package, s.facts, host::compile_regex}, checkpoint, diag) || diag.has("config-shape-mismatch")) return;
  diag.report("config-shape-mismatch", {.file = "config.json", .tensor = tensor}, found, expected + ", as all tensors have").repair = Repair::exact;
  s.package = std::move(package);
  s.checkpoint = std::move(checkpoint);
  s.diag = std::move(diag);
}

}  // namespace

Result<Facts> fetch_facts(const Package& package) {
  std::vector<const TensorInfo*> wanted;
  size_t bytes = 0;
  for (const TensorInfo& t : package.tensors)
    if (is_fact(t)) {
      wanted.push_back(&t);
      bytes += t.bytes;
    }
  std::vector<std::byte> buffer(bytes);
  std::vector<ReadRequest> requests;
  size_t at = 0;
  for (const TensorInfo* t : wanted) {
    requests.push_back({t->file, t->offset, std::span(buffer).subspan(at, t->bytes)});
    at += t->bytes;
  }
  if (!requests.empty()) QB_TRY(package.source->read(requests));
  Facts facts;
  at = 0;
  for (const TensorInfo* t : wanted) {
    facts.scalars.emplace(t->name,
                          Facts::Scalar{widen(t->dtype, buffer.data() + at), std::string(reinterpret_cast<const char*>(buffer.data()) + at, t->bytes)});
    at += t->bytes;
  }
  return facts;
}

Result<Session> open_session(const std::filesystem::path& path) {
  Session s;
  s.path = path;
  QB_ASSIGN(s.package, open_directory(path, s.diag));
  // A container that is damaged has no tensors to speak of: what it says is enough.
  if (!s.diag.ok() && !(s.package.document("config.json") != nullptr && s.diag.all().size() == 1 && s.diag.has("tensor-duplicate"))) return s;
  s.dialect = detect(s.package, s.diag);
  if (s.dialect == nullptr) return s;
  if (s.dialect->config != nullptr) s.package.set_document("config.json", s.dialect->config(s.package));
  QB_ASSIGN(s.facts, fetch_facts(s.package));
  const Diagnostics before = s.diag;
  s.readable = s.dialect->read({s.package, s.facts, host::compile_regex}, s.checkpoint, s.diag);
  if (!s.readable) return s;
  if (s.diag.has("config-shape-mismatch")) take_sizes_of_tensors(s, before);
  s.checkpoint.model_dtype = model_dtype(s);
  std::vector<std::string> names;
  for (const PackageFile& f : s.package.files) names.push_back(f.name);
  ir::verify(s.checkpoint, names, s.diag);
  QB_TRY(check_tied_head(s));
  return s;
}

bool carried_over(const Problem& p) {
  return p.code == "fused-scale-mismatch" || p.code == "fused-input-scale-mismatch" || p.code == "tied-head-differs";
}

}  // namespace qb
