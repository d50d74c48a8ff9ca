// A safetensors file from its first byte: whatever is accepted covers the file exactly, and writing its header again reads back the same.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "io/safetensors.h"

namespace {

void expect(bool condition) {
  if (!condition) std::abort();
}

bool same(const qb::TensorInfo& a, const qb::TensorInfo& b) {
  return a.name == b.name && a.dtype == b.dtype && a.shape == b.shape && a.bytes == b.bytes;
}

bool read(std::span<const std::byte> head, uint64_t size, qb::SafetensorsHeader& out, qb::Diagnostics& diag) {
  uint64_t length = 0;
  if (!qb::parse_header_length(head.first(std::min<size_t>(head.size(), 8)), size, "f", length, diag)) return false;
  return length <= head.size() - 8 && qb::parse_safetensors_header(head.subspan(8, length), size, "f", 0, out, diag);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::span file(reinterpret_cast<const std::byte*>(data), size);
  qb::Diagnostics diag;
  qb::SafetensorsHeader header;
  if (!read(file, size, header, diag)) {
    expect(!diag.ok());
    for (const qb::Problem& p : diag.all()) qb::escape(p.found + p.tensor + p.expected);
    return 0;
  }
  expect(diag.all().empty());
  uint64_t at = header.data_begin;
  for (const qb::TensorInfo& t : header.tensors) {
    expect(t.offset == at && static_cast<uint64_t>(t.elements()) * static_cast<uint64_t>(qb::bits(t.dtype)) == t.bytes * 8);
    at += t.bytes;
  }
  expect(at == size);

  const std::string again = qb::write_safetensors_header(header.tensors, header.metadata);
  qb::SafetensorsHeader back;
  expect(read(std::as_bytes(std::span(again)), again.size() + (size - header.data_begin), back, diag));
  expect(back.metadata == header.metadata && back.tensors.size() == header.tensors.size());
  for (size_t i = 0; i < back.tensors.size(); ++i) expect(same(back.tensors[i], header.tensors[i]));
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
