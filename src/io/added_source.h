// Files of another source behind those of a first one: whoever reads sees both under one numbering.
#pragma once

#include <memory>

#include "io/source.h"

namespace qb {

class AddedSource final : public Source {
 public:
  // File i of `added` is file first + i here; `base` has no such numbers.
  AddedSource(std::shared_ptr<Source> base, FileId first, std::shared_ptr<Source> added) : base_(std::move(base)), added_(std::move(added)), first_(first) {}

  uint64_t size(FileId file) const override { return file < first_ ? base_->size(file) : added_->size(file - first_); }
  Result<void> read(std::span<const ReadRequest> requests) override;

 private:
  std::shared_ptr<Source> base_, added_;
  FileId first_;
};

}  // namespace qb
