#include "cli/html.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

namespace qb::cli {
namespace {

void add(Session& s, std::string path, const char* scheme) {
  ir::Module m;
  m.path = std::move(path);
  m.kind = arch::Kind::linear;
  m.n = m.k = 64;
  m.scheme = *ir::parse_scheme(scheme);
  m.parts.push_back(
      {.role = ir::Role::code, .tensor = m.path + ".weight", .bytes = 64 * 64, .container = Elem::e4m3, .elem = Elem::e4m3, .view = ir::row_major(64, 64, 8)});
  s.checkpoint.modules.push_back(std::move(m));
}

size_t times(const std::string& text, std::string_view part) {
  size_t n = 0;
  for (size_t at = text.find(part); at != text.npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

Session readable(const char* path = "model") {
  Session s;
  s.path = path;
  s.readable = true;
  return s;
}

TEST(Html, LayersGoDownAndKindsOfModulesAcross) {
  Session s = readable();
  for (int layer = 0; layer < 3; ++layer) {
    add(s, fmt::format("model.layers.{}.mlp.up_proj", layer), layer == 2 ? "fp8_channel:fp8_token" : "fp8_tensor:fp8_tensor_static");
    for (int e = 0; e < 4; ++e)
      add(s, fmt::format("model.layers.{}.mlp.experts.{}.up_proj", layer, e), e == 3 && layer == 1 ? "fp8_tensor" : "fp8_channel:fp8_token");
  }
  add(s, "lm_head", "fp8_tensor");
  const std::string html = html_report(s, {});
  EXPECT_EQ(times(html, "<tr><th>0<td"), 1u);
  EXPECT_EQ(times(html, "<th class=k>mlp.experts.*.up_proj"), 1u);
  EXPECT_NE(html.find("title=\"4 modules: model.layers.0.mlp.experts.0.up_proj ... model.layers.0.mlp.experts.3.up_proj: fp8_channel:fp8_token\""), html.npos);
  EXPECT_EQ(times(html, "several schemes\""), 1u);  // layer 1's experts
  EXPECT_NE(html.find("outside of layers"), html.npos);
  EXPECT_NE(html.find("prefers-color-scheme: dark"), html.npos);
  EXPECT_EQ(html.find("<script"), html.npos);
  EXPECT_EQ(html.find("http"), html.npos) << "nothing is fetched";
}

TEST(Html, NamesAreTextWhateverTheyHold) {
  const std::string hostile = "\"><script>alert('1')</script>&\x01\xff";
  Session s = readable("model<b>");
  add(s, "model.layers.0." + hostile, "fp8_tensor");
  s.checkpoint.quant_algo = s.checkpoint.producer.name = s.checkpoint.topology.architecture = hostile;
  s.checkpoint.exclusions.push_back({hostile, hostile, 1});
  s.package.foreign_files.push_back(hostile);
  s.package.files.push_back({.name = hostile, .metadata = {{"quantbridge.version", hostile}}});
  s.diag.report("tensor-unclaimed", {.file = hostile, .tensor = hostile, .module = hostile}, hostile, hostile);
  const ScaleHistogram h{.scheme = hostile, .tensors = 1, .count = 1, .counts = {1}};
  const std::string html = html_report(s, std::span(&h, 1));
  EXPECT_EQ(html.find("<script"), html.npos);
  EXPECT_EQ(html.find("alert('1')"), html.npos);
  EXPECT_EQ(html.find("model<b>"), html.npos);
  EXPECT_EQ(html.find('\x01'), html.npos);
  EXPECT_NE(html.find("&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\\x01\\xFF"), html.npos);
}

TEST(Html, TheSizeIsBoundedByThePage) {
  Session experts = readable(), kinds = readable(), sections = readable(), long_names = readable();
  for (int i = 0; i < 10'000; ++i) {
    add(experts, fmt::format("model.layers.{}.mlp.experts.{}.up_proj", i / 256, i % 256), "fp8_tensor");
    add(kinds, fmt::format("model.layers.{}.kind_{}", i, i), "fp8_tensor");
    add(sections, fmt::format("tower_{}.blocks.0.x", i), "fp8_tensor");
    kinds.diag.report("tensor-unclaimed", {.tensor = std::string_view("t")}, std::string(10'000, 'x'), "y");
  }
  for (int i = 0; i < 100; ++i) add(long_names, fmt::format("model.layers.{}.{}", i, std::string(100'000, 'a')), "fp8_tensor");
  EXPECT_LT(html_report(experts, {}).size(), 100'000u);
  EXPECT_LT(html_report(kinds, {}).size(), 1'000'000u);
  EXPECT_LT(html_report(sections, {}).size(), 4'000'000u);
  EXPECT_LT(html_report(long_names, {}).size(), 1'000'000u);
}

TEST(Html, HistogramsHaveABarForEachOctave) {
  const Session s = readable();
  const ScaleHistogram h{
      .scheme = "nvfp4", .role = ir::Role::global, .tensors = 2, .count = 3, .least = 0.25, .largest = 1.5, .first = -2, .counts = {1, 0, 2}};
  const std::string html = html_report(s, std::span(&h, 1));
  EXPECT_EQ(times(html, "<i style="), 3u);
  EXPECT_NE(html.find("height:50.0%\" title=\"2^-2 to 2^-1: 1 tensors\""), html.npos);
  EXPECT_NE(html.find("0.25 to 1.5"), html.npos);
}

}  // namespace
}  // namespace qb::cli
