#include "io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/utf8.h"
#include "io/header_events.h"
#include "io/reporter.h"

namespace qb {
namespace {

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

// The size that dtype and shape ask for; false: reported.
bool check_size(const RawTensor& t, Reporter& reporter) {
  const TensorInfo& info = t.info;
  if (info.bytes < info.offset) {
    reporter.report("tensor-size-mismatch", info.name, fmt::format("data_offsets [{}, {}]", info.offset, info.bytes), "an end that is not before the begin");
    return false;
  }
  if (!t.unknown_dtype.empty()) {
    reporter.report("dtype-unknown", info.name, t.unknown_dtype, "a dtype of the safetensors format, such as BF16 or F8_E4M3");
    return false;
  }
  bool overflow = t.shape_too_large;
  int64_t elements = 1;
  for (const int64_t d : info.shape) overflow = overflow || __builtin_mul_overflow(elements, d, &elements);
  uint64_t bits = 0;
  overflow = overflow || __builtin_mul_overflow(static_cast<uint64_t>(elements), static_cast<uint64_t>(qb::bits(info.dtype)), &bits);
  const std::string_view dtype = qb::info(info.dtype).safetensors;
  if (overflow) {
    reporter.report("tensor-shape-overflow", info.name, fmt::format("{} [{}]", dtype, fmt::join(info.shape, ", ")), "a size below 2^63 bytes");
    return false;
  }
  const uint64_t given = info.bytes - info.offset;
  if (bits % 8 != 0) {
    reporter.report("tensor-size-mismatch", info.name, fmt::format("{} [{}] of {} bits", dtype, fmt::join(info.shape, ", "), bits), "whole bytes");
    return false;
  }
  if (bits / 8 != given) {
    reporter.report("tensor-size-mismatch", info.name, fmt::format("data_offsets [{}, {}]: {} bytes", info.offset, info.bytes, given),
                    fmt::format("{} bytes for {} [{}]", bits / 8, dtype, fmt::join(info.shape, ", ")));
    return false;
  }
  return true;
}

// The ranges, in order, have to cover the data without holes, overlaps or trailing bytes. A range whose end lies before its begin is left out.
void check_cover(const std::vector<RawTensor>& tensors, const std::vector<size_t>& order, uint64_t data_bytes, Reporter& reporter) {
  uint64_t covered = 0;
  const std::string* last = nullptr;
  for (const size_t i : order) {
    const TensorInfo& t = tensors[i].info;
    if (t.bytes < t.offset) continue;
    if (t.offset < covered) {
      reporter.report("tensor-overlap", t.name, fmt::format("bytes [{}, {}] of the data", t.offset, t.bytes),
                      fmt::format("a begin at {}, where the tensor '{}' ends", covered, *last));
    } else if (t.offset > covered) {
      reporter.report("tensor-hole", t.name, fmt::format("{} bytes before it that belong to no tensor", t.offset - covered), "no bytes between tensors");
    }
    if (t.bytes >= covered) covered = t.bytes, last = &t.name;
  }
  if (covered > data_bytes) {
    reporter.report("file-truncated", last == nullptr ? "" : *last, fmt::format("{} bytes of data", data_bytes),
                    fmt::format("{} bytes, as the header describes them", covered));
  } else if (covered < data_bytes) {
    reporter.report("file-trailing-bytes", "", fmt::format("{} bytes of data", data_bytes), fmt::format("{} bytes, as the header describes them", covered));
  }
}

template <class Name, class Report>
void find_repeated(size_t count, Name name, Report report) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int c = name(a).compare(name(b));
    return c != 0 ? c < 0 : a < b;
  });
  for (size_t k = 1; k < count; ++k) {
    if (name(order[k]) == name(order[k - 1])) report(order[k]);
  }
}

}  // namespace

bool parse_header_length(std::span<const std::byte> first8, uint64_t file_size, std::string_view file, uint64_t& length, Diagnostics& diag) {
  if (file_size < 8 || first8.size() < 8) {
    diag.report("file-truncated", {.file = file}, fmt::format("{} bytes", file_size), "at least the 8 bytes of the header's length");
    return false;
  }
  uint64_t n = 0;
  for (size_t i = 0; i < 8; ++i) n |= std::to_integer<uint64_t>(first8[i]) << (8 * i);
  if (n > safetensors_max_header) {
    diag.report("header-too-large", {.file = file}, fmt::format("a header of {} bytes", n), fmt::format("at most {} bytes", safetensors_max_header));
    return false;
  }
  if (n > file_size - 8) {
    diag.report("header-beyond-file", {.file = file}, fmt::format("a header of {} bytes", n),
                fmt::format("at most {} in a file of {} bytes", file_size - 8, file_size));
    return false;
  }
  length = n;
  return true;
}

bool parse_safetensors_header(std::span<const std::byte> json, uint64_t file_size, std::string_view file, FileId id, SafetensorsHeader& out,
                              Diagnostics& diag) {
  Reporter reporter(diag, file);
  out = {};
  if (json.size() > safetensors_max_header || file_size < 8 || json.size() > file_size - 8) {
    reporter.report("header-beyond-file", "", fmt::format("a header of {} bytes", json.size()),
                    fmt::format("a header that fits in a file of {} bytes", file_size));
    return false;
  }
  out.data_begin = 8 + json.size();
  const uint64_t data_bytes = file_size - out.data_begin;
  const std::string_view text = as_text(json);
  if (!text.starts_with('{')) {
    reporter.report("header-invalid-json", "", text.empty() ? "an empty header" : fmt::format("the byte 0x{:02X} first", static_cast<unsigned char>(text[0])),
                    "'{' as the first byte");
    return false;
  }
  if (const size_t at = find_invalid_utf8(text); at != std::string_view::npos) {
    reporter.report("header-not-utf8", "", fmt::format("byte 0x{:02X} at offset {} of the header", static_cast<unsigned char>(text[at]), at), "UTF-8");
    return false;
  }
  HeaderEvents events(id);
  JsonError error;
  if (!parse_json_events(text, events, error)) {
    const HeaderEvents::Fault& f = events.fault();
    if (f.code.empty()) {
      reporter.report("header-invalid-json", "", error.what, "a safetensors header in JSON");
    } else {
      reporter.report(f.code, f.tensor, f.found, f.expected);
    }
    return false;
  }

  std::vector<RawTensor>& tensors = events.tensors;
  std::vector<bool> sound(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) sound[i] = check_size(tensors[i], reporter) && tensors[i].info.bytes <= data_bytes;
  find_repeated(
      tensors.size(), [&](size_t i) -> const std::string& { return tensors[i].info.name; },
      [&](size_t i) {
        sound[i] = false;
        reporter.report("header-duplicate-key", tensors[i].info.name, "the name twice", "one entry for each tensor");
      });
  find_repeated(
      events.metadata.size(), [&](size_t i) -> const std::string& { return events.metadata[i].first; },
      [&](size_t i) { reporter.report("header-duplicate-key", "", fmt::format("the key '{}' twice in __metadata__", events.metadata[i].first), "one"); });

  std::vector<size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const TensorInfo& x = tensors[a].info;
    const TensorInfo& y = tensors[b].info;
    return std::tie(x.offset, x.bytes, x.name) < std::tie(y.offset, y.bytes, y.name);
  });
  check_cover(tensors, order, data_bytes, reporter);

  out.metadata = std::move(events.metadata);
  out.tensors.reserve(tensors.size());
  for (const size_t i : order) {
    if (!sound[i]) continue;
    TensorInfo& t = out.tensors.emplace_back(std::move(tensors[i].info));
    t.bytes -= t.offset;
    t.offset += out.data_begin;
  }
  return reporter.ok();
}

std::string write_safetensors_header(std::span<const TensorInfo> tensors, const Metadata& metadata) {
  const auto quoted = [](std::string_view s) { return dump_json(Json(s), -1); };
  std::string out(8, '\0');
  out += '{';
  auto to = std::back_inserter(out);
  if (!metadata.empty()) {
    out += "\"__metadata__\":{";
    for (size_t i = 0; i < metadata.size(); ++i) fmt::format_to(to, "{}{}:{}", i == 0 ? "" : ",", quoted(metadata[i].first), quoted(metadata[i].second));
    out += '}';
  }
  uint64_t begin = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const TensorInfo& t = tensors[i];
    const std::string_view dtype = info(t.dtype).safetensors;
    if (dtype.empty()) {
      std::fprintf(stderr, "quantbridge: %.*s is no dtype of a container\n", static_cast<int>(info(t.dtype).name.size()), info(t.dtype).name.data());
      std::abort();
    }
    fmt::format_to(to, "{}{}:{{\"dtype\":\"{}\",\"shape\":[{}],\"data_offsets\":[{},{}]}}", i == 0 && metadata.empty() ? "" : ",", quoted(t.name), dtype,
                   fmt::join(t.shape, ","), begin, begin + t.bytes);
    begin += t.bytes;
  }
  out += '}';
  out.append((8 - out.size() % 8) % 8, ' ');
  const uint64_t length = out.size() - 8;
  for (size_t i = 0; i < 8; ++i) out[i] = static_cast<char>((length >> (8 * i)) & 0xFFU);
  return out;
}

}  // namespace qb
