// What the tests of this layer share: checkpoints in memory, programs in few words, outputs with guard bytes.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "exec/execute.h"
#include "io/source.h"
#include "num/codec.h"
#include "prog/program.h"

namespace qb::test {

using Bytes = std::vector<std::byte>;

class Memory final : public Source {
 public:
  uint64_t size(FileId file) const override { return files_[file].size(); }
  Result<void> read(std::span<const ReadRequest> requests) override {
    calls.fetch_add(1);
    for (const ReadRequest& r : requests) {
      bytes_read.fetch_add(r.into.size());
      if (r.file >= files_.size() || r.offset > files_[r.file].size() || r.into.size() > files_[r.file].size() - r.offset) {
        return Error{Errc::io, "beyond the end of the file"};
      }
      if (fail_at != 0 && r.offset <= fail_at && fail_at < r.offset + r.into.size()) return Error{Errc::io, "the disk is on fire"};
      std::memcpy(r.into.data(), files_[r.file].data() + r.offset, r.into.size());
    }
    return {};
  }
  // Adds a tensor to file `file`; the input covers it as a dense matrix.
  prog::Input add(std::string name, Elem elem, int64_t rows, int64_t cols, const Bytes& bytes, int64_t rows_per = 1, FileId file = 0) {
    if (files_.size() <= file) files_.resize(file + 1);
    Bytes& f = files_[file];
    prog::Input in{std::move(name), file, f.size(), bytes.size(), elem, {{rows, cols}, {cols * bits(elem), bits(elem)}, 0}, rows_per};
    f.insert(f.end(), bytes.begin(), bytes.end());
    return in;
  }

  std::atomic<int64_t> calls{0};
  std::atomic<uint64_t> bytes_read{0};
  uint64_t fail_at = 0;

 private:
  std::vector<Bytes> files_;
};

inline Bytes random_bytes(uint64_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes b(size);
  for (std::byte& x : b) x = static_cast<std::byte>(random());
  return b;
}

template <class T>
Bytes bytes_of(const std::vector<T>& values) {
  Bytes b(values.size() * sizeof(T));
  if (!b.empty()) std::memcpy(b.data(), values.data(), b.size());
  return b;
}

template <class T>
std::vector<T> as(const Bytes& b) {
  std::vector<T> v(b.size() / sizeof(T));
  if (!b.empty()) std::memcpy(v.data(), b.data(), b.size());
  return v;
}

// Weights as training leaves them: near normal, as bfloat16.
inline Bytes bf16_weights(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, 0.03F);
  std::vector<uint16_t> w(static_cast<size_t>(count));
  for (uint16_t& x : w) x = encode_bf16(normal(random));
  return bytes_of(w);
}

inline std::vector<float> random_floats(int64_t count, uint32_t seed, float least, float largest) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(least, largest);
  std::vector<float> v(static_cast<size_t>(count));
  for (float& x : v) x = uniform(random);
  return v;
}

// All outputs of a program, each a vector, made by execute().
inline std::vector<Bytes> run_whole(const prog::Program& p, Source& source, Context& context) {
  uint64_t total = 0;
  for (const prog::Output& o : p.outputs) total += prog::output_bytes(o);
  Bytes all(total + 128, std::byte{0xA5});
  auto r = execute(p, source, std::span(all).subspan(64, total), context);
  EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().what);
  for (size_t i = 0; i < 64; ++i) EXPECT_TRUE(all[i] == std::byte{0xA5} && all[64 + total + i] == std::byte{0xA5}) << "guard " << i;
  std::vector<Bytes> outputs;
  uint64_t at = 64;
  for (const prog::Output& o : p.outputs) {
    outputs.emplace_back(all.begin() + static_cast<int64_t>(at), all.begin() + static_cast<int64_t>(at + prog::output_bytes(o)));
    at += prog::output_bytes(o);
  }
  return outputs;
}

// The same by execute_rows, `rows` rows at a time, into buffers at addresses that are `shift` off any alignment.
inline std::vector<Bytes> run_rows(const prog::Program& p, int64_t rows, size_t shift, Source& source, Context& context) {
  std::vector<Bytes> outputs;
  for (const prog::Output& o : p.outputs) outputs.emplace_back(prog::output_bytes(o), std::byte{0});
  for (int64_t begin = 0; begin == 0 || begin < p.rows; begin += rows) {
    const RowRange range{begin, std::min(begin + rows, p.rows)};
    std::vector<Bytes> guarded;
    std::vector<std::span<std::byte>> spans;
    for (size_t o = 0; o < outputs.size(); ++o) {
      const OutputSlice s = output_slice(p, o, range);
      guarded.emplace_back(s.bytes + 64 + shift, std::byte{0xA5});
      spans.push_back(std::span(guarded.back()).subspan(32 + shift, s.bytes));
    }
    auto r = execute_rows(p, range, source, spans, context);
    EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().what);
    for (size_t o = 0; o < outputs.size(); ++o) {
      const OutputSlice s = output_slice(p, o, range);
      std::copy(spans[o].begin(), spans[o].end(), outputs[o].begin() + static_cast<int64_t>(s.offset));
      for (size_t i = 0; i < 32 + shift; ++i) EXPECT_EQ(guarded[o][i], std::byte{0xA5});
      for (size_t i = 32 + shift + s.bytes; i < guarded[o].size(); ++i) EXPECT_EQ(guarded[o][i], std::byte{0xA5});
    }
  }
  return outputs;
}

}  // namespace qb::test
