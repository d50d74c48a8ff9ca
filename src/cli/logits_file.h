// The safetensors file that eval writes.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "base/result.h"

namespace qb::cli {

// logits [b, t, vocab] F32, written row block by row block, whole or not at all.
class LogitsFile {
 public:
  LogitsFile() = default;
  LogitsFile(const LogitsFile&) = delete;
  LogitsFile& operator=(const LogitsFile&) = delete;
  ~LogitsFile();
  Result<void> open(const std::string& path, size_t batch, size_t tokens, size_t vocab);
  Result<void> write(std::span<const float> logits);
  Result<void> finish();

 private:
  std::string path_, partial_;
  std::FILE* file_ = nullptr;
};

}  // namespace qb::cli
