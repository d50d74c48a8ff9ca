// Documents and the shard index from strangers: what parses prints and parses back to the same; no name in an index leaves its directory.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "base/json.h"
#include "io/shard_index.h"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

void document(std::string_view text) {
  qb::Json value;
  qb::JsonError error;
  if (!qb::parse_json(text, value, error)) {
    expect(!error.code.empty() && error.what.size() < 2000);
    return;
  }
  qb::Json back;
  expect(qb::parse_json(qb::dump_json(value), back, error));
  expect(qb::dump_json(back, -1) == qb::dump_json(value, -1));
  qb::string_at(value, "architectures");
  qb::int_at(value, "hidden_size", 0);
}

void index(std::string_view text) {
  qb::Diagnostics diag;
  qb::ShardIndex index;
  if (!qb::parse_shard_index(text, index, diag)) {
    expect(!diag.ok());
    return;
  }
  std::vector<qb::IndexedFile> files;
  qb::Package package;
  for (const std::string& name : index.files) {
    expect(!name.empty() && name[0] != '/' && ("/" + name + "/").find("/../") == std::string::npos && name.find('\0') == std::string::npos);
    files.push_back({static_cast<qb::FileId>(package.files.size()), true});
    package.files.push_back({name, 0, {}});
  }
  // Every second tensor is there; every fourth twice.
  for (size_t i = 0; i < index.tensors.size(); i += 2) {
    const auto& e = index.tensors[i];
    package.tensors.push_back({.name = e.tensor, .file = static_cast<qb::FileId>(e.file)});
    if (i % 4 == 0) package.tensors.push_back({.name = e.tensor, .file = static_cast<qb::FileId>((e.file + 1) % files.size())});
  }
  qb::merge_tensors(package, &index, files, diag);
  expect(package.tensors.size() == (index.tensors.size() + 1) / 2);
  for (const auto& e : index.tensors) {
    const qb::TensorInfo* t = package.tensor(e.tensor);
    expect(t == nullptr || t->file == e.file);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  document(text);
  index(text);
  return 0;
}

#ifdef QB_FUZZ_STANDALONE
int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream in(argv[i], std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    std::printf("%s\n", argv[i]);
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(text.data()), text.size());
  }
}
#endif
