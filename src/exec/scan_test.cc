#include "exec/scan.h"

#include "exec/test_support.h"
#include "exec/xxh3.h"
#include "host/host.h"
#include "ir/checkpoint.h"

namespace qb {
namespace {

using namespace test;
using Ask = ScanQuestion::Ask;

ScanQuestion about(const prog::Input& in, Ask ask) {
  ScanQuestion q{.tensor = in.tensor, .file = in.file, .offset = in.offset, .bytes = in.bytes};
  q.ask = ask;
  q.elem = in.elem;
  return q;
}
ScanResult run(const ScanQuestion& q, Source& source) {
  Context context;
  context.isa = host::detect_isa();
  uint64_t told = 0;
  Buffer buffer;
  auto r = scan(q, source, context, buffer, [&](uint64_t bytes) { told += bytes; });
  EXPECT_TRUE(r.ok()) << (r.ok() ? "" : r.error().what);
  EXPECT_EQ(told, q.bytes);
  return r.ok() ? *r : ScanResult{};
}

TEST(Scan, ReadsOnceForChecksumAndNumbers) {
  Memory m;
  const Bytes bytes = bf16_weights(1'000'000, 3);  // several blocks
  const prog::Input in = m.add("a", Elem::bf16, 1000, 1000, bytes);
  ScanQuestion q = about(in, Ask::all);
  q.checksum = true;
  const ScanResult r = run(q, m);
  EXPECT_EQ(m.bytes_read, bytes.size());
  Xxh3 hash(Isa::generic);
  hash.add(bytes);
  EXPECT_EQ(r.checksum, xxh3_hex(hash.digest()));
  Context context;
  const auto surveyed = survey({prog::SurveyKind::floats, in}, m, context);
  ASSERT_TRUE(surveyed.ok());
  EXPECT_EQ(r.numbers.count, surveyed->count);
  EXPECT_EQ(r.numbers.negative, surveyed->negative);
  EXPECT_EQ(r.numbers.least, surveyed->least);
  EXPECT_EQ(r.numbers.largest, surveyed->largest);
  EXPECT_EQ(r.numbers.first_bad, surveyed->first_bad);
}

TEST(Scan, FindsWhatIsNotFinite) {
  std::vector<float> many(300'000, 0.5F);
  many[299'999] = NAN;
  many[200'000] = -INFINITY;
  std::vector<uint16_t> halves, brains;
  std::vector<double> doubles(many.begin(), many.end());
  for (const float x : many) {
    halves.push_back(encode_f16(x));
    brains.push_back(encode_bf16(x));
  }
  Memory m;
  for (const prog::Input& in : {m.add("a", Elem::f32, 300, 1000, bytes_of(many)), m.add("b", Elem::f16, 300, 1000, bytes_of(halves)),
                                m.add("c", Elem::bf16, 300, 1000, bytes_of(brains)), m.add("d", Elem::f64, 300, 1000, bytes_of(doubles))}) {
    const ScanResult r = run(about(in, Ask::finite), m);
    EXPECT_EQ(r.numbers.count, 300'000);
    EXPECT_EQ(r.numbers.nan, 1);
    EXPECT_EQ(r.numbers.inf, 1);
    EXPECT_EQ(r.numbers.first_bad, 299'999);
  }
  Bytes codes(1000, std::byte{0x7E});
  codes[7] = std::byte{0xFF};
  EXPECT_EQ(run(about(m.add("e", Elem::e4m3, 10, 100, codes), Ask::finite), m).numbers.nan, 1);
  EXPECT_EQ(run(about(m.add("g", Elem::e4m3, 1, 3, {std::byte{0x12}, std::byte{0xC5}, std::byte{0x30}}), Ask::finite), m).largest, 0x45u);
  EXPECT_EQ(run(about(m.add("f", Elem::e5m2, 1, 2, {std::byte{0x7C}, std::byte{0x7D}}), Ask::finite), m).numbers.inf, 1);
}

// Codes that lie across bytes are read a second time, through their view.
TEST(Scan, CountsChannelsOfCodesOfAnyWidth) {
  const int64_t n = 8, k = 320;
  for (const int width : {3, 5, 6, 7}) {
    const int codes = 1 << width;
    for (const int64_t words : {ir::dense_words(k, width), (k + 32 / width - 1) / (32 / width)}) {
      const std::optional<ir::View> view = ir::packed_words(n, k, width, 1, words);
      ASSERT_TRUE(view) << width;
      std::vector<uint32_t> stored(static_cast<size_t>(n * words));
      const int64_t in_word = view->lanes[1].count;
      for (int64_t i = 0; i < n; ++i)
        for (int64_t j = 0; j < k; ++j) {
          const int64_t bit = i * words * 32 + (in_word == 1 ? j * width : j / in_word * 32 + j % in_word * width);
          const uint64_t code = i == 3 ? 2 : i == 5 ? (j % 3 == 0 ? 2 : codes - 1) : static_cast<uint64_t>(2 + j % (codes - 3));
          const uint64_t field = code << bit % 32;
          stored[static_cast<size_t>(bit / 32)] |= static_cast<uint32_t>(field);
          if (field >> 32 != 0) stored[static_cast<size_t>(bit / 32 + 1)] |= static_cast<uint32_t>(field >> 32);
        }
      const Elem elem = *elem_from_name("int" + std::to_string(width));
      Memory m;
      prog::Input in = m.add("w", Elem::i32, n, words, bytes_of(stored));
      in.elem = elem;
      in.view = *view;
      ir::Module module{.path = "m", .kind = arch::Kind::linear};
      module.scheme = *ir::parse_scheme("int4_g128");
      module.scheme->weight.code = elem;
      const ir::Stored part{.role = ir::Role::code, .tensor = "w", .bytes = in.bytes, .elem = elem, .view = *view};
      ScanQuestion q = about(in, Ask::none);
      EXPECT_FALSE(channel_grid(part, module));
      q.channels = gathered_grid(part, module);
      q.gathered = in;
      const ChannelCounts c = run(q, m).channels;
      EXPECT_EQ(c.channels, n) << width;
      EXPECT_EQ(c.dead, 1) << width;
      EXPECT_EQ(c.first_dead, 3) << width;
      EXPECT_EQ(c.saturated, 1) << width;
      EXPECT_EQ(c.first_saturated, 5) << width;
    }
  }
}

TEST(Scan, CountsLevelsWhileTheyAreFew) {
  Memory m;
  Bytes few(5000), many(5000);
  for (size_t i = 0; i < few.size(); ++i) {
    few[i] = static_cast<std::byte>(0x40 + i % 15 * 4);
    many[i] = static_cast<std::byte>(i % 100);
  }
  ScanQuestion q = about(m.add("a", Elem::e4m3, 50, 100, few), Ask::finite);
  q.levels = true;
  ASSERT_TRUE(run(q, m).levels);
  EXPECT_EQ(run(q, m).levels->count, 15);
  EXPECT_EQ(run(q, m).levels->bits & 3, 0);
  q = about(m.add("b", Elem::e4m3, 50, 100, many), Ask::finite);
  q.levels = true;
  EXPECT_FALSE(run(q, m).levels);
}

TEST(Scan, TellsCodesFromWeights) {
  Memory m;
  std::vector<float> fp4, whole, small;
  for (int i = 0; i < 4096; ++i) {
    fp4.push_back(std::vector<float>{0, 0.5F, 1, 1.5F, 2, 3, 4, 6}[static_cast<size_t>(i) % 8] * (i % 3 == 0 ? -1.0F : 1.0F));
    whole.push_back(static_cast<float>(i % 255 - 127));
    small.push_back(fp4.back() / 64);  // dequantized with a scale that is a power of two
  }
  const auto codes = [&](const std::vector<float>& numbers) {
    ScanQuestion q = about(m.add("t", Elem::f32, 64, 64, bytes_of(numbers)), Ask::finite);
    q.codes = true;
    return run(q, m).are_codes;
  };
  EXPECT_TRUE(codes(fp4));
  EXPECT_TRUE(codes(whole));
  EXPECT_FALSE(codes(small));
  EXPECT_FALSE(codes(random_floats(4096, 1, -8, 8)));
  EXPECT_FALSE(codes(std::vector<float>(4096, 0)));
}

}  // namespace
}  // namespace qb
