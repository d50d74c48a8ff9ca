#include "bridge/session.h"

#include <fmt/format.h>

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
  QB_ASSIGN(s.facts, fetch_facts(s.package));
  const ReadContext context{s.package, s.facts, host::compile_regex};
  s.readable = s.dialect->read(context, s.checkpoint, s.diag);
  if (!s.readable) return s;
  s.checkpoint.model_dtype = model_dtype(s);
  std::vector<std::string> names;
  for (const PackageFile& f : s.package.files) names.push_back(f.name);
  ir::verify(s.checkpoint, names, s.diag);
  QB_TRY(check_tied_head(s, false));
  return s;
}

bool carried_over(const Problem& p) {
  return p.code == "fused-scale-mismatch" || p.code == "fused-input-scale-mismatch" || p.code == "tied-head-differs";
}

}  // namespace qb
