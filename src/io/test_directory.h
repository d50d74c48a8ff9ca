// A directory of its own for a test, and short helpers for files in it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <string>

#include "io/safetensors.h"

namespace qb {

class TestDirectory {
 public:
  TestDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "quantbridge-test-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  TestDirectory(const TestDirectory&) = delete;
  TestDirectory& operator=(const TestDirectory&) = delete;
  ~TestDirectory() { std::filesystem::remove_all(path_); }
  operator const std::filesystem::path&() const { return path_; }
  std::filesystem::path operator/(const std::filesystem::path& name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

inline void put(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string get(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// Names of everything below `path` that is no directory.
inline std::set<std::string> tree(const std::filesystem::path& path) {
  std::set<std::string> out;
  for (const auto& e : std::filesystem::recursive_directory_iterator(path)) {
    if (!e.is_directory()) out.insert(e.path().lexically_relative(path).string());
  }
  return out;
}

// A safetensors file of byte tensors; every byte of a tensor is the first letter of its name.
inline std::string weights(const std::vector<std::pair<std::string, uint64_t>>& tensors) {
  std::vector<TensorInfo> infos;
  std::string data;
  for (const auto& [name, bytes] : tensors) {
    infos.push_back({.name = name, .dtype = Elem::u8, .shape = {static_cast<int64_t>(bytes)}, .bytes = bytes});
    data.append(bytes, name[0]);
  }
  return write_safetensors_header(infos, {{"format", "pt"}}) + data;
}

}  // namespace qb
