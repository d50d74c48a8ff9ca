// The drawing of what kernels reach: points where they belong, and names as text.
#include "cli/roofline.h"

#include <gtest/gtest.h>

namespace qb::cli {
namespace {

size_t count(const std::string& in, std::string_view what) {
  size_t n = 0;
  for (size_t at = in.find(what); at != in.npos; at = in.find(what, at + 1)) ++n;
  return n;
}

TEST(Roofline, DrawsEveryPointAndEveryLimit) {
  const Roof roof{30, {{"bfloat16", 100}, {"bytes", 200}}};
  const RoofPoint points[] = {{"a<b> & c", 1, 28, 0.93}, {"many", 900, 180, 0.9}, {"no rate", 1, 0, 0}};
  const std::string svg = roofline_svg("limits & kernels", roof, points);
  EXPECT_EQ(count(svg, "<circle"), 2U);
  EXPECT_EQ(count(svg, "stroke=\"#333\""), 3U);  // two levels and a slope
  EXPECT_NE(svg.find("1 a&lt;b&gt; &amp; c 0.93"), svg.npos);
  EXPECT_NE(svg.find("limits &amp; kernels"), svg.npos);
  EXPECT_NE(svg.find("reading 30.0 GB/s"), svg.npos);
  EXPECT_EQ(svg.find("nan"), svg.npos);
  EXPECT_EQ(svg.find("inf"), svg.npos);
}

TEST(Roofline, DrawsNothingOfAMachineThatIsNotKnown) {
  const std::string svg = roofline_svg("", {}, {});
  EXPECT_EQ(count(svg, "<circle"), 0U);
  EXPECT_EQ(count(svg, "stroke=\"#333\""), 0U);
  EXPECT_EQ(svg.find("nan"), svg.npos);
}

}  // namespace
}  // namespace qb::cli
