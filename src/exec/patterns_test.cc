// What is seen in the bits of floats is what decoding each of them gives, at every instruction set.
#include "exec/patterns.h"

#include <cmath>

#include "exec/tally.h"
#include "exec/test_support.h"
#include "host/host.h"

namespace qb {
namespace {

using namespace test;

std::vector<Isa> levels() {
  std::vector<Isa> v;
  for (const Isa isa : {Isa::generic, Isa::avx2, Isa::avx512})
    if (isa <= host::detect_isa()) v.push_back(isa);
  return v;
}

// Every pattern of the small formats among regular numbers, and those of large ones around their ends.
TEST(Patterns, AreTheNumbersThatTheyMean) {
  for (const Elem elem : {Elem::e4m3, Elem::e5m2, Elem::e8m0, Elem::bf16, Elem::f16, Elem::f32, Elem::f64}) {
    const int width = bits(elem) / 8;
    std::vector<uint64_t> patterns;
    if (width <= 2)
      for (uint64_t p = 0; p < uint64_t{1} << bits(elem); ++p) patterns.push_back(p);
    const uint64_t sign = width == 8 ? uint64_t{1} << 63 : uint64_t{1} << 31, normal = width == 8 ? uint64_t{1} << 52 : uint64_t{1} << 23;
    const uint64_t infinity = width == 8 ? uint64_t{0x7FF} << 52 : 0x7F80'0000;
    if (width > 2)
      for (const uint64_t p : {uint64_t{0}, uint64_t{1}, normal - 1, normal, infinity - 1, infinity, infinity + 1, sign - 1})
        for (const uint64_t s : {uint64_t{0}, sign}) patterns.push_back(p | s);
    const int64_t count = 70;  // more than one vector, and a rest
    Bytes bytes(static_cast<size_t>(count * width + 1));
    std::byte* const data = bytes.data() + 1;  // at an odd address
    const auto put = [&](int64_t i, uint64_t p) { std::memcpy(data + i * width, &p, static_cast<size_t>(width)); };
    uint64_t one = 0;  // some regular number
    while (!(value_at(data, elem, 0) >= 0.5 && value_at(data, elem, 0) < 4))
      put(0, width <= 2 ? ++one : one = width == 8 ? 0x3FF0'0000'0000'0000 : 0x3F80'0000);
    const double usual = value_at(data, elem, 0);
    for (int64_t i = 0; i < count; ++i) put(i, one);
    for (size_t n = 0; n < patterns.size(); ++n) {
      const auto place = static_cast<int64_t>(n) % count;
      put(place, patterns[n]);
      const double x = value_at(data, elem, place);
      const bool regular = x > 0 && std::isfinite(x) && x >= least_normal(elem);
      for (const Isa isa : levels()) {
        ASSERT_EQ(all_finite(data, elem, count, isa), std::isfinite(x)) << info(elem).name << " " << patterns[n];
        const auto extent = regular_extent(data, elem, count, isa);
        ASSERT_EQ(extent.has_value(), regular) << info(elem).name << " " << patterns[n];
        if (regular) {
          ASSERT_EQ(extent->least, std::min(x, usual));
          ASSERT_EQ(extent->largest, std::max(x, usual));
        }
      }
      put(place, one);
    }
  }
}

// Packed codes are written as plain bytes, and every byte is a pair of codes.
TEST(Patterns, PlainBytesAreFinite) {
  const Bytes bytes(100, std::byte{0xFF});
  for (const Isa isa : levels()) EXPECT_TRUE(all_finite(bytes.data(), Elem::u8, 100, isa));
}

// Pieces that pass as a whole and pieces that do not give one count.
TEST(Patterns, CountsAreThoseOfEveryNumber) {
  for (const Elem elem : {Elem::e4m3, Elem::bf16, Elem::f32}) {
    const int64_t count = 20000;
    Bytes bytes(static_cast<size_t>(count * bits(elem) / 8), std::byte{0x3E});
    const Bytes odd = random_bytes(5000, 11);
    std::copy(odd.begin(), odd.end(), bytes.begin() + 6000);
    Tally each(elem);
    for (int64_t i = 0; i < count; ++i) each.add(value_at(bytes.data(), elem, i), i, 1);
    for (const Isa isa : levels()) {
      Numbers numbers(elem, count, nullptr, isa);
      numbers.add(bytes.data(), 0, count / 2);
      numbers.add(bytes.data() + count / 2 * bits(elem) / 8, count / 2, count / 2);
      const prog::SurveyResult a = numbers.result(), b = each.result();
      EXPECT_EQ(std::tuple(a.count, a.nan, a.inf, a.zero, a.negative, a.subnormal), std::tuple(b.count, b.nan, b.inf, b.zero, b.negative, b.subnormal));
      EXPECT_EQ(std::tuple(a.least, a.largest, a.first_bad), std::tuple(b.least, b.largest, b.first_bad)) << info(elem).name;
    }
  }
}

}  // namespace
}  // namespace qb
