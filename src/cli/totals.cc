#include "cli/totals.h"

namespace qb::cli {

std::string scheme_name(const ir::Module& m) {
  const ir::Stored* code = m.part(ir::Role::code);
  if (code == nullptr) return {};
  return m.scheme ? to_string(*m.scheme) : std::string(info(code->elem).name);
}

Totals totals_of(const Session& s) {
  Totals t;
  for (const TensorInfo& tensor : s.package.tensors) t.bytes += tensor.bytes;
  for (const ir::Module& m : s.checkpoint.modules) {
    int64_t parameters = 0;
    uint64_t bytes = 0;
    for (const ir::Stored& part : m.parts) {
      bytes += part.bytes + part.mask.bytes;
      if (part.role == ir::Role::code || part.role == ir::Role::bias || part.role == ir::Role::plain) parameters += part.view.dims[0] * part.view.dims[1];
    }
    t.parameters += parameters;
    if (m.part(ir::Role::code) == nullptr) continue;
    SchemeCount& c = t.schemes[scheme_name(m)];
    ++c.modules;
    c.parameters += parameters;
    c.bytes += bytes;
  }
  return t;
}

}  // namespace qb::cli
