#include "io/package.h"

#include <algorithm>

namespace qb {

const Json* Package::document(std::string_view name) const {
  for (const auto& [n, value] : documents_) {
    if (n == name) return value.get();
  }
  return nullptr;
}

void Package::set_document(std::string name, std::shared_ptr<const Json> value) {
  for (auto& [n, old] : documents_) {
    if (n == name) {
      old = std::move(value);
      return;
    }
  }
  documents_.emplace_back(std::move(name), std::move(value));
}

const TensorInfo* Package::tensor(std::string_view name) const {
  const auto at = std::lower_bound(tensors.begin(), tensors.end(), name, [](const TensorInfo& t, std::string_view n) { return t.name < n; });
  return at == tensors.end() || at->name != name ? nullptr : &*at;
}

}  // namespace qb
