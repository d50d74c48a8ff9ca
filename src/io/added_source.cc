#include "io/added_source.h"

#include <vector>

namespace qb {

Result<void> AddedSource::read(std::span<const ReadRequest> requests) {
  std::vector<ReadRequest> before, behind;
  for (const ReadRequest& r : requests) {
    if (r.file < first_)
      before.push_back(r);
    else
      behind.push_back({r.file - first_, r.offset, r.into});
  }
  if (!before.empty()) QB_TRY(base_->read(before));
  return behind.empty() ? Result<void>() : added_->read(behind);
}

}  // namespace qb
