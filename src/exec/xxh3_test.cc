#include "exec/xxh3.h"

#include "exec/test_support.h"
#include "host/host.h"

namespace qb {
namespace {

using namespace test;

uint64_t digest(const Bytes& bytes, size_t piece, Isa isa) {
  Xxh3 hash(isa);
  for (size_t at = 0; at < bytes.size(); at += piece) hash.add(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at)));
  return hash.digest();
}

TEST(Xxh3, IsThePublishedHash) {
  EXPECT_EQ(xxh3_hex(digest({}, 1, Isa::generic)), "2d06800538d394c2");  // of nothing
  EXPECT_EQ(xxh3_hex(digest({std::byte{'a'}, std::byte{'b'}, std::byte{'c'}}, 2, Isa::generic)), "78af5f94892f3950");
}

TEST(Xxh3, SameAtEveryLevelAndInAnyPieces) {
  for (const uint64_t size : {1, 16, 200, 241, 1024, 100'003}) {
    const Bytes bytes = random_bytes(size, 3);
    const uint64_t whole = digest(bytes, bytes.size(), Isa::generic);
    for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512}) {
      if (isa > host::detect_isa()) break;
      for (const size_t piece : {bytes.size(), size_t{7}, size_t{4096}}) EXPECT_EQ(digest(bytes, piece, isa), whole) << size << " in " << piece;
    }
  }
}

}  // namespace
}  // namespace qb
