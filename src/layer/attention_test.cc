// Attention against the plain formula in double, on the numbers that the cache holds.
#include "layer/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "host/cpu.h"
#include "kernel/emulated_tiles.h"
#include "layer/emulated.h"
#include "num/codec.h"

namespace qb::layer {
namespace {

constexpr int64_t tokens = kv_block_tokens;

struct Shape {
  int64_t heads, kv_heads, head_dim, window;
  Elem elem;
  bool through_e4m3 = false;
  float scale = 0, softcap = 0;
  bool sinks = false;
};

// One for each head: far below the scores, among them, far above.
float sink_of(int64_t head) {
  return static_cast<float>(head % 3) * 6.0F - 5.0F;
}

// What one number is after it went through the cache.
float stored(const Shape& s, float x, float scale) {
  if (s.elem == Elem::e4m3 || s.through_e4m3) return decode_e4m3(encode_e4m3_sat(x / scale)) * scale;
  return s.elem == Elem::bf16 ? round_bf16(x) : x;
}

// Sequences of several lengths whose blocks lie in disorder; slots that no token was stored in hold NaN.
class Cache {
 public:
  Cache(const Shape& shape, const std::vector<int64_t>& lengths, uint32_t seed) : shape_(shape), random_(seed) {
    const int64_t half = tokens * shape.kv_heads * shape.head_dim * bits(shape.elem) / 8;
    int32_t blocks = 0;
    for (const int64_t n : lengths) blocks += static_cast<int32_t>((n + tokens - 1) / tokens);
    bytes_.assign(static_cast<size_t>(blocks * 2 * half), std::byte{0xFF});
    layer.keys = bytes_.data();
    layer.values = bytes_.data() + half;
    layer.block_stride = 2 * half;
    layer.elem = shape.elem;
    layer.kv_heads = shape.kv_heads;
    layer.head_dim = shape.head_dim;
    layer.through = shape.through_e4m3 ? KvRounding::fp8 : KvRounding::none;
    layer.k.scale = 0.03F;
    layer.v.scale = 0.011F;
    std::vector<int32_t> order(static_cast<size_t>(blocks));
    for (int32_t i = 0; i < blocks; ++i) order[static_cast<size_t>(i)] = i;
    std::shuffle(order.begin(), order.end(), random_);
    size_t next = 0;
    for (const int64_t n : lengths) {
      tables.emplace_back();
      for (int64_t b = 0; b < (n + tokens - 1) / tokens; ++b) tables.back().push_back(order[next++]);
      keys.push_back(numbers(n * shape.kv_heads * shape.head_dim, 2.0F));
      values.push_back(numbers(n * shape.kv_heads * shape.head_dim, 1.0F));
      const int64_t width = shape.kv_heads * shape.head_dim;
      for (int64_t t = 0; t < n; ++t) store_kv(layer, tables.back(), t, keys.back().data() + t * width, values.back().data() + t * width);
    }
  }
  std::vector<float> numbers(int64_t count, float size) {
    std::normal_distribution<float> normal(0.0F, size);
    std::vector<float> v(static_cast<size_t>(count));
    for (float& x : v) x = normal(random_);
    return v;
  }
  // The attention of one query in double.
  std::vector<double> want(size_t sequence, int64_t position, int64_t head, const float* q) const {
    const int64_t dim = shape_.head_dim, width = shape_.kv_heads * dim, kv_head = head / (shape_.heads / shape_.kv_heads);
    const int64_t low = shape_.window > 0 ? std::max<int64_t>(0, position - shape_.window + 1) : 0;
    std::vector<double> scores;
    double most = -1e300, total = 0;
    for (int64_t j = low; j <= position; ++j) {
      double dot = 0;
      for (int64_t d = 0; d < dim; ++d)
        dot +=
            static_cast<double>(q[d]) * static_cast<double>(stored(shape_, keys[sequence][static_cast<size_t>(j * width + kv_head * dim + d)], layer.k.scale));
      dot *= shape_.scale != 0 ? static_cast<double>(shape_.scale) : 1 / std::sqrt(static_cast<double>(dim));
      const auto cap = static_cast<double>(shape_.softcap);
      scores.push_back(cap > 0 ? cap * std::tanh(dot / cap) : dot);
      most = std::max(most, scores.back());
    }
    if (shape_.sinks) {
      const auto sink = static_cast<double>(sink_of(head));
      most = std::max(most, sink);
      total = std::exp(sink - most);
    }
    std::vector<double> out(static_cast<size_t>(dim), 0.0);
    for (int64_t j = low; j <= position; ++j) {
      const double weight = std::exp(scores[static_cast<size_t>(j - low)] - most);
      total += weight;
      for (int64_t d = 0; d < dim; ++d)
        out[static_cast<size_t>(d)] +=
            weight * static_cast<double>(stored(shape_, values[sequence][static_cast<size_t>(j * width + kv_head * dim + d)], layer.v.scale));
    }
    for (double& x : out) x /= total;
    return out;
  }

  KvLayer layer;
  std::vector<std::vector<int32_t>> tables;
  std::vector<std::vector<float>> keys, values;

 private:
  Shape shape_;
  std::mt19937 random_;
  std::vector<std::byte> bytes_;
};

// Processors that multiply in float32.
std::vector<host::Feature> levels() {
  std::vector<host::Feature> all{host::Feature::none};
  for (const host::Feature f : {host::Feature::avx2, host::Feature::avx512})
    if (host::covers(host::this_cpu().features, f)) all.push_back(f);
  return all;
}

std::vector<float> sinks_of(const Shape& shape) {
  std::vector<float> sinks;
  for (int64_t h = 0; shape.sinks && h < shape.heads; ++h) sinks.push_back(sink_of(h));
  return sinks;
}

// Sequences of whole blocks, one more, one less, a single token; the last `counts` tokens of each are asked for.
const std::vector<int64_t> lengths{1, 31, 32, 33, 64, 100, 129}, counts{1, 31, 1, 33, 7, 40, 1};

// On every instruction set the result, and the same bits whatever goes along: all at once, on another number of threads, and every token by itself.
void expect_right(const Shape& shape) {
  Cache cache(shape, lengths, 7);
  std::vector<AttentionRun> runs;
  int64_t rows = 0;
  for (size_t s = 0; s < lengths.size(); ++s) {
    runs.push_back({.table = cache.tables[s], .first_row = rows, .first_position = lengths[s] - counts[s], .count = counts[s]});
    rows += counts[s];
  }
  const std::vector<float> q = cache.numbers(rows * shape.heads * shape.head_dim, 1.5F);
  host::ThreadPool three(3), one(1);
  const std::vector<float> sinks = sinks_of(shape);
  const auto args = [&](std::vector<float>& out) {
    return AttentionArgs{.kv = cache.layer,
                         .heads = shape.heads,
                         .window = shape.window,
                         .scale = shape.scale,
                         .softcap = shape.softcap,
                         .sinks = shape.sinks ? sinks.data() : nullptr,
                         .q = out.data(),
                         .runs = runs};
  };
  std::vector<float> reference = q;
  if (shape.elem == Elem::f32) attention_reference(args(reference), three);
  std::vector<std::vector<float>> by_level;
  for (const host::Feature f : levels()) {
    std::vector<float> got = q, again = q, single = q;
    attention(args(got), f, three);
    attention(args(again), f, one);
    EXPECT_EQ(std::memcmp(again.data(), got.data(), got.size() * sizeof(float)), 0) << host::to_string(f);
    for (const AttentionRun& all : runs)
      for (int64_t t = 0; t < all.count; ++t) {
        const AttentionRun token{.table = all.table, .first_row = all.first_row + t, .first_position = all.first_position + t, .count = 1};
        AttentionArgs alone = args(single);
        alone.runs = {&token, 1};
        attention(alone, f, one);
      }
    EXPECT_EQ(std::memcmp(single.data(), got.data(), got.size() * sizeof(float)), 0) << host::to_string(f);
    by_level.push_back(std::move(got));
  }
  for (size_t s = 0; s < lengths.size(); ++s)
    for (int64_t t = 0; t < counts[s]; ++t)
      for (int64_t h = 0; h < shape.heads; ++h) {
        const int64_t at = ((runs[s].first_row + t) * shape.heads + h) * shape.head_dim;
        const std::vector<double> want = cache.want(s, runs[s].first_position + t, h, q.data() + at);
        for (int64_t d = 0; d < shape.head_dim; ++d) {
          const double w = want[static_cast<size_t>(d)];
          for (const std::vector<float>& got : by_level)
            ASSERT_NEAR(got[static_cast<size_t>(at + d)], w, 3e-5) << "sequence " << s << " token " << t << " head " << h << " at " << d;
          ASSERT_NEAR(shape.elem == Elem::f32 ? reference[static_cast<size_t>(at + d)] : static_cast<float>(w), w, 1e-6);
        }
      }
}

// The ways to make BF16 products that this machine has.
struct Way {
  std::string_view name;
  Sweep (*sweep)(const KvLayer&);
};
constexpr Way dots{"dots", bf16_dots}, tiles{"tiles", bf16_tiles}, emulated{"tiles in memory", emulated_bf16_tiles};
constexpr host::Feature tile_features = host::Feature::avx512_bf16 | host::Feature::amx_bf16;

std::vector<Way> bf16_ways() {
  const host::Feature have = host::this_cpu().features;
  std::vector<Way> all;
  if (host::covers(have, host::Feature::avx512_bf16)) all = {dots, emulated};
  if (host::covers(have, tile_features)) all.push_back(tiles);
  return all;
}

// Where products are BF16: the result for rounded queries, but for the rounding of weights, 2^-9 of each, which is as much of the values' magnitudes. And the
// same bits whatever goes along: all at once, on another number of threads, and every token by itself. Tiles give the bits that the manual says.
void expect_rounded(const Shape& shape) {
  Cache cache(shape, lengths, 7);
  host::ThreadPool three(3), one(1);
  const std::vector<float> sinks = sinks_of(shape);
  for (size_t s = 0; s < lengths.size(); ++s) {
    const int64_t width = shape.heads * shape.head_dim, from = lengths[s] - counts[s];
    const std::vector<float> q = cache.numbers(counts[s] * width, 1.5F);
    std::vector<float> rounded = q, in_memory;
    for (float& x : rounded) x = round_bf16(x);
    double largest = 0;
    for (const float v : cache.values[s]) largest = std::max(largest, std::fabs(static_cast<double>(stored(shape, v, cache.layer.v.scale))));
    for (const Way& way : bf16_ways()) {
      const auto run = [&](float* out, int64_t first, int64_t count, host::ThreadPool& pool) {
        const AttentionRun part{.table = cache.tables[s], .first_row = 0, .first_position = from + first, .count = count};
        attention_by(way.sweep(cache.layer),
                     {.kv = cache.layer,
                      .heads = shape.heads,
                      .window = shape.window,
                      .scale = shape.scale,
                      .softcap = shape.softcap,
                      .sinks = shape.sinks ? sinks.data() : nullptr,
                      .q = out,
                      .runs = {&part, 1}},
                     pool);
      };
      std::vector<float> got = q, again = q, single = q;
      run(got.data(), 0, counts[s], three);
      run(again.data(), 0, counts[s], one);
      for (int64_t t = 0; t < counts[s]; ++t) run(single.data() + t * width, t, 1, one);
      EXPECT_EQ(std::memcmp(got.data(), again.data(), got.size() * sizeof(float)), 0) << way.name;
      EXPECT_EQ(std::memcmp(got.data(), single.data(), got.size() * sizeof(float)), 0) << way.name;
      if (way.sweep == emulated.sweep) in_memory = got;
      if (way.sweep == tiles.sweep) {
        EXPECT_EQ(std::memcmp(got.data(), in_memory.data(), got.size() * sizeof(float)), 0);
      }
      for (int64_t t = 0; t < counts[s]; ++t)
        for (int64_t h = 0; h < shape.heads; ++h) {
          const int64_t at = (t * shape.heads + h) * shape.head_dim;
          const std::vector<double> want = cache.want(s, from + t, h, rounded.data() + at);
          for (int64_t d = 0; d < shape.head_dim; ++d)
            ASSERT_NEAR(got[static_cast<size_t>(at + d)], want[static_cast<size_t>(d)], largest * 0x1p-9 + 3e-5)
                << way.name << " sequence " << s << " token " << t << " head " << h;
        }
    }
  }
}

TEST(Attention, Bf16Products) {
  if (bf16_ways().empty()) GTEST_SKIP() << "no BF16 dot products here";
  for (const Elem elem : {Elem::bf16, Elem::e4m3}) {
    for (const int64_t dim : {16, 64, 80, 96, 128, 256}) expect_rounded({2, 1, dim, 0, elem});
    for (const int64_t window : {1, 2, 31, 33, 50}) expect_rounded({6, 2, 64, window, elem, false, 0, 0, true});
    expect_rounded({9, 3, 64, 0, elem, false, 0.0625F, 5.0F});
    expect_rounded({40, 1, 32, 0, elem});
  }
}

// Features say which products are made, and other caches than of 16-bit or 8-bit numbers in heads of 16 have those in float32.
TEST(Attention, FeaturesChooseTheProducts) {
  const Cache cache({2, 1, 64, 0, Elem::bf16}, {40}, 3);
  const AttentionRun run{.table = cache.tables[0], .first_row = 0, .first_position = 39, .count = 1};
  const std::vector<float> q(cache.keys[0].begin(), cache.keys[0].begin() + 128);
  host::ThreadPool one(1);
  const auto result = [&](const auto& attend) {
    std::vector<float> out = q;
    attend(AttentionArgs{.kv = cache.layer, .heads = 2, .q = out.data(), .runs = {&run, 1}});
    return out;
  };
  const auto with = [&](host::Feature f) { return result([&](const AttentionArgs& a) { attention(a, f, one); }); };
  const auto by = [&](Sweep sweep) { return result([&](const AttentionArgs& a) { attention_by(sweep, a, one); }); };
  const host::Feature have = host::this_cpu().features;
  EXPECT_EQ(with(host::Feature::none), by(float_products(Isa::generic)));
  if (host::covers(have, host::Feature::avx512_bf16)) {
    EXPECT_EQ(with(host::Feature::avx512_bf16), by(bf16_dots(cache.layer)));
  }
  if (host::covers(have, tile_features)) {
    EXPECT_EQ(with(tile_features), by(bf16_tiles(cache.layer)));
  }
  KvLayer other = cache.layer;
  other.head_dim = 36;
  for (const Way& way : bf16_ways()) EXPECT_EQ(way.sweep(other), nullptr) << way.name;
  other = cache.layer;
  other.elem = Elem::f32;
  for (const Way& way : bf16_ways()) EXPECT_EQ(way.sweep(other), nullptr) << way.name;
}

// Keys and values that are not finite reach the tokens that see them and no others. What is left in the tiles belongs to nobody.
TEST(Attention, InfinityStaysWithThoseWhoSeeIt) {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    Elem elem;
    float key, value;
  };
  std::vector<Way> ways = bf16_ways();
  ways.push_back({"float32", [](const KvLayer&) { return float_products(Isa::generic); }});
  const host::Feature have = host::this_cpu().features;
  if (host::covers(have, host::Feature::avx2)) ways.push_back({"float32 by AVX2", [](const KvLayer&) { return float_products(Isa::avx2); }});
  if (host::covers(have, host::Feature::avx512)) ways.push_back({"float32 by AVX-512", [](const KvLayer&) { return float_products(Isa::avx512); }});
  for (const Case c : {Case{Elem::bf16, 1, inf}, {Elem::bf16, nan, 1}, {Elem::e4m3, 1, nan}, {Elem::e4m3, nan, 1}}) {
    Cache cache({3, 1, 64, 0, c.elem}, {40}, 3);
    const std::vector<float> key(64, c.key), value(64, c.value), q = cache.numbers(int64_t{40} * 3 * 64, 1.0F);
    store_kv(cache.layer, cache.tables[0], 20, key.data(), value.data());
    const AttentionRun run{.table = cache.tables[0], .first_row = 0, .first_position = 0, .count = 40};
    host::ThreadPool one(1);
    for (const Way& way : ways) {
      std::vector<float> got = q;
      attention_by(way.sweep(cache.layer), {.kv = cache.layer, .heads = 3, .q = got.data(), .runs = {&run, 1}}, one);
      for (size_t i = 0; i < got.size(); ++i) ASSERT_EQ(std::isfinite(got[i]), i < size_t{20} * 3 * 64) << way.name << ' ' << i;
      EXPECT_TRUE(kernel::EmulatedTiles::released()) << way.name;
    }
  }
}

TEST(Attention, GroupsOfHeads) {
  for (const auto& [heads, kv_heads] : {std::pair<int64_t, int64_t>{4, 4}, {4, 2}, {6, 1}, {40, 1}, {7, 7}}) expect_right({heads, kv_heads, 16, 0, Elem::f32});
}
TEST(Attention, HeadSizes) {
  for (const int64_t dim : {4, 36, 64, 80, 128, 256}) expect_right({2, 1, dim, 0, Elem::bf16});
}
TEST(Attention, SlidingWindows) {
  for (const int64_t window : {1, 2, 31, 32, 33, 50, 1000}) expect_right({4, 2, 16, window, Elem::f32});
}
TEST(Attention, ScalesAndCapsOfScores) {
  for (const Elem elem : {Elem::f32, Elem::bf16}) {
    expect_right({4, 2, 16, 0, elem, false, 0.0625F, 0});
    expect_right({4, 2, 16, 33, elem, false, 0, 5.0F});
    expect_right({4, 2, 16, 0, elem, false, 2.0F, 50.0F});
  }
}
TEST(Attention, SinksTakeTheirShare) {
  for (const int64_t window : {0, 1, 33}) {
    expect_right({6, 2, 16, window, Elem::f32, false, 0, 0, true});
    expect_right({6, 2, 64, window, Elem::bf16, false, 0, 0, true});
  }
}
TEST(Attention, QuantizedCaches) {
  expect_right({4, 2, 64, 0, Elem::e4m3});
  expect_right({4, 2, 64, 40, Elem::e4m3});
  expect_right({4, 2, 64, 0, Elem::f32, true});
}

TEST(Attention, AFloatCacheThroughE4m3HoldsWhatAnE4m3CacheMeans) {
  for (const float x : {0.0F, -0.4F, 13.44F, 20.0F, -1e9F}) {
    const Shape s{1, 1, 4, 0, Elem::e4m3};
    EXPECT_EQ(stored(s, x, 0.03F), stored({1, 1, 4, 0, Elem::f32, true}, x, 0.03F));
    EXPECT_LE(std::abs(stored(s, x, 0.03F)), 448 * 0.03F);
  }
}

// What goes into a float32 cache is what each scheme leaves of it.
TEST(StoreKv, RoundsAsTheCachesScheme) {
  constexpr int64_t heads = 2, dim = 24;
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> x(heads * dim), bias(heads * dim);
  for (float& f : x) f = normal(random);
  for (float& f : bias) f = normal(random);
  const float by_head[] = {0.02F, 0.03F};
  const int32_t table[] = {0};
  for (const KvRounding how : {KvRounding::none, KvRounding::fp8, KvRounding::int8, KvRounding::nvfp4}) {
    for (const bool affine : {false, true}) {
      std::vector<float> keys(heads * dim * tokens), values(heads * dim * tokens);
      KvLayer layer{.keys = reinterpret_cast<std::byte*>(keys.data()), .values = reinterpret_cast<std::byte*>(values.data()), .elem = Elem::f32};
      layer.kv_heads = heads;
      layer.head_dim = dim;
      layer.through = how;
      layer.k = {.scale = 0.025F, .by_head = by_head, .bias = affine ? bias.data() : nullptr};
      layer.v = {.scale = 0.025F, .by_head = nullptr, .bias = affine ? bias.data() : nullptr};
      store_kv(layer, table, 3, x.data(), x.data());
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < dim; ++d) {
          for (const bool key : {true, false}) {
            const float b = affine ? bias[static_cast<size_t>(h * dim + d)] : 0, s = key ? by_head[h] : 0.025F,
                        centred = x[static_cast<size_t>(h * dim + d)] - b;
            float want = centred;
            if (how == KvRounding::fp8) want = decode_e4m3(encode_e4m3_sat(centred / s)) * s;
            if (how == KvRounding::int8) want = std::clamp(std::nearbyint(centred / s), -128.0F, 127.0F) * s;
            if (how == KvRounding::nvfp4) {
              float most = 0;
              for (int64_t e = d / 16 * 16; e < std::min(d / 16 * 16 + 16, dim); ++e)
                most = std::max(most, std::fabs(x[static_cast<size_t>(h * dim + e)] - (affine ? bias[static_cast<size_t>(h * dim + e)] : 0)));
              const float g = s / 6, step = decode_e4m3(encode_e4m3_sat(most / 6 / g)) * g;
              want = decode_e2m1(encode_e2m1(centred / step)) * step;
            }
            if (how == KvRounding::none)
              want = x[static_cast<size_t>(h * dim + d)];
            else
              want += b;
            const float got = key ? keys[static_cast<size_t>((h * dim + d) * tokens + 3)] : values[static_cast<size_t>((h * tokens + 3) * dim + d)];
            EXPECT_EQ(got, want) << static_cast<int>(how) << " head " << h << " " << d;
          }
        }
      }
    }
  }
}

// Narrow caches hold the codecs' bytes of any number, and nothing else is touched.
TEST(StoreKv, CodesAreTheCodecs) {
  constexpr int64_t heads = 2, dim = 20, slot = 7;
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0.0F, 2.0F);
  std::vector<float> x(heads * dim);
  for (float& f : x) f = normal(random);
  const float special[] = {0.0F, -0.0F, inf, -inf, nan, -nan, 1e30F, -1e-30F, 3.4e38F, std::bit_cast<float>(0x7F800001U)};
  std::copy(std::begin(special), std::end(special), x.begin() + 3);
  const int32_t table[] = {0};
  const auto expect = [&](Elem elem, auto number, const auto& code) {
    using Number = decltype(number);
    std::vector<Number> keys(heads * dim * tokens, Number{0x55}), values = keys, want_keys = keys, want_values = keys;
    KvLayer layer{.keys = reinterpret_cast<std::byte*>(keys.data()), .values = reinterpret_cast<std::byte*>(values.data()), .elem = elem};
    layer.kv_heads = heads;
    layer.head_dim = dim;
    layer.k.scale = 0.02F;
    layer.v.scale = 0.5F;
    store_kv(layer, table, slot, x.data(), x.data());
    for (size_t i = 0; i < x.size(); ++i) {
      want_keys[i * tokens + slot] = code(x[i], 0.02F);
      want_values[(i / dim * tokens + slot) * dim + i % dim] = code(x[i], 0.5F);
    }
    EXPECT_EQ(keys, want_keys);
    EXPECT_EQ(values, want_values);
  };
  expect(Elem::bf16, uint16_t{}, [](float f, float) { return encode_bf16(f); });
  expect(Elem::e4m3, uint8_t{}, [](float f, float s) { return encode_e4m3_sat(f / s); });
}

}  // namespace
}  // namespace qb::layer
