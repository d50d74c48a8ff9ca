#include "dialect/mxfp4_stacks.h"

#include <utility>

namespace qb {
namespace {

using ir::Role;

const ir::Scheme mxfp4{.weight = {.code = Elem::e2m1, .scale = ir::ScaleValues::e8m0, .block = {1, 32}}};
bool is_mxfp4(const ir::Scheme& s) noexcept {
  return s == mxfp4;
}
constexpr PartRow parts[] = {
    {.role = Role::code, .suffix = "blocks", .container = Elem::u8, .rank = Rank::mx_bytes},
    {.role = Role::scale, .suffix = "scales", .container = Elem::u8, .rank = Rank::grid, .form = ir::ScaleForm::exponent},
};
constexpr Row row{"mxfp4", is_mxfp4, parts};

}  // namespace

const Row& mxfp4_stack_row() {
  return row;
}

bool read_mxfp4_stack(Reading& r, ir::Module& m, std::string why) {
  if (r.find(m, "blocks") == nullptr && r.find(m, "scales") == nullptr) return false;
  m.scheme = mxfp4;
  m.why = r.why_quantized(m, r.excluded_by(m), std::move(why));
  if (!read_row(r, row, m))
    for (const TensorInfo* t : r.tensors_of(m)) r.claim(*t);
  r.read_bias(m);
  return true;
}

}  // namespace qb
