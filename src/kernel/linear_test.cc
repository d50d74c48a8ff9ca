// Every kernel of this machine against sums in double of the quantized inputs, within the bound of kernel.h.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "exec/ops.h"
#include "kernel/emulated.h"
#include "kernel/inputs.h"

namespace qb::kernel {
namespace {

using Bytes = std::vector<std::byte>;

ir::Scheme scheme(std::string_view text) {
  auto r = ir::parse_scheme(text);
  EXPECT_TRUE(r.ok()) << text << (r.ok() ? "" : r.error().what);
  return r.ok() ? *r : ir::Scheme{};
}

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// A weight as it is stored, its numbers, and the scales that all of them share.
struct Stored {
  Stored(const ir::Scheme& s, int64_t n_, int64_t k_, uint32_t seed, float scale_size = 0.01F) : type(s.weight), n(n_), k(k_) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::uniform_real_distribution<float> uniform(0.5F, 2.0F);
    codes.resize(static_cast<size_t>(ir::panel_bytes(ir::Layout::rows, k, row_bits(type)) * n));
    for (int64_t i = 0; i < n * k; ++i) set_code(i / k, i % k, normal(random));
    if (type.code == Elem::e4m3 || type.code == Elem::e2m1) {
      for (std::byte& c : codes) {
        c = static_cast<std::byte>(random());
        if (type.code == Elem::e4m3 && (c & std::byte{0x7F}) == std::byte{0x7F}) c = std::byte{0x7E};
      }
    }
    const int width = is_integer_code(type.code) ? bits(type.code) : 8, least = -(1 << (width - 1));
    const auto integer = [&] { return static_cast<std::byte>(least + static_cast<int>(random() % (1U << static_cast<unsigned>(width)))); };
    if (is_integer_code(type.code)) std::generate(codes.begin(), codes.end(), integer);
    if (!type.plain()) {
      rows = type.block.rows == 0 ? 1 : ceil_div(n, type.block.rows);
      columns = type.block.cols == 0 ? 1 : ceil_div(k, type.block.cols);
      scales.resize(static_cast<size_t>(rows * columns * bits(grid_elem(type)) / 8));
      for (int64_t i = 0; i < rows * columns; ++i) {
        if (type.two_level()) {
          scales[static_cast<size_t>(i)] = static_cast<std::byte>(random() % 0x7F);
        } else {
          float f = uniform(random) * scale_size;
          if (type.scale == ir::ScaleValues::e8m0) f = std::ldexp(1.0F, std::ilogb(f));
          std::memcpy(scales.data() + 4 * i, &f, 4);
        }
      }
      if (type.zero != ir::Zero::none) {
        zeros.resize(static_cast<size_t>(rows * columns));
        std::generate(zeros.begin(), zeros.end(), integer);
      }
      if (type.two_level()) global = scale_size * uniform(random);
    }
  }

  void set_code(int64_t i, int64_t j, float x) {
    std::byte* row = codes.data() + i * ir::panel_bytes(ir::Layout::rows, k, row_bits(type));
    const uint16_t b = type.code == Elem::f16 ? encode_f16(x) : encode_bf16(x);
    if (type.code == Elem::f32) std::memcpy(row + 4 * j, &x, 4);
    if (type.code == Elem::bf16 || type.code == Elem::f16) std::memcpy(row + 2 * j, &b, 2);
  }

  double at(int64_t i, int64_t j) const {
    const std::byte* row = codes.data() + i * ir::panel_bytes(ir::Layout::rows, k, row_bits(type));
    const int64_t s = (type.block.rows == 0 ? 0 : i / type.block.rows) * columns + (type.block.cols == 0 ? 0 : j / type.block.cols);
    uint16_t half = 0;
    float f = 0;
    switch (type.code) {
      case Elem::f32:
        return std::memcpy(&f, row + 4 * j, 4), f;
      case Elem::bf16:
        return std::memcpy(&half, row + 2 * j, 2), decode_bf16(half);
      case Elem::f16:
        return std::memcpy(&half, row + 2 * j, 2), decode_f16(half);
      case Elem::e4m3:
        f = decode_e4m3(std::to_integer<uint8_t>(row[j]));
        break;
      case Elem::e5m2:
        f = decode_e5m2(std::to_integer<uint8_t>(row[j]));
        break;
      case Elem::e2m1:
        f = decode_e2m1(static_cast<uint8_t>(std::to_integer<unsigned>(row[j / 2]) >> (4 * (j % 2)) & 15U));
        break;
      default:
        f = static_cast<float>(std::to_integer<int8_t>(row[j]) - (zeros.empty() ? 0 : std::to_integer<int8_t>(zeros[static_cast<size_t>(s)])));
    }
    float scale = 0;
    if (type.two_level()) {
      scale = decode_e4m3(std::to_integer<uint8_t>(scales[static_cast<size_t>(s)]));
    } else {
      std::memcpy(&scale, scales.data() + 4 * s, 4);
    }
    return static_cast<double>(f) * static_cast<double>(scale) * static_cast<double>(global);
  }

  ir::QuantType type;
  int64_t n, k, rows = 0, columns = 0;
  Bytes codes, scales, zeros;
  float global = 1;
};

// The formulas of inputs.h once more, in the words of the producers' simulators, with the scalar codecs.
constexpr int input_zero = 37;  // beside fixed scales of types with zero points
std::vector<double> quantized(const Problem& p, const std::vector<float>& x, float input_scale) {
  std::vector<double> out(x.size());
  const auto fp8 = [&](size_t begin, size_t count, float s) {
    for (size_t i = begin; i < begin + count; ++i) out[i] = static_cast<double>(decode_e4m3(encode_e4m3_sat(x[i] / s))) * static_cast<double>(s);
  };
  const auto amax = [&](size_t begin, size_t count) {
    float a = 0;
    for (size_t i = begin; i < begin + count; ++i)
      a = std::isnan(x[i]) || std::isnan(a) ? std::numeric_limits<float>::quiet_NaN() : std::max(a, std::fabs(x[i]));
    return a;
  };
  const bool powers = quantization_of(p) == Quantization::fp8_group_e8m0;
  const auto dynamic = [&](size_t begin, size_t count) {
    float s = amax(begin, count) / 448.0F;
    if (s < 1e-12F) s = 1e-12F;
    if (powers && std::isfinite(s)) {
      int e = 0;
      s = std::frexp(s, &e) == 0.5F ? std::ldexp(1.0F, e - 1) : std::ldexp(1.0F, e);
    }
    fp8(begin, count, s);
  };
  const auto k = static_cast<size_t>(p.k);
  if (const auto in = integer_inputs(p); in) {
    const float low = -static_cast<float>(1 << (in->bits - 1)), high = -low - 1;
    const auto integers = [&](size_t begin, size_t count) {
      float s = input_scale, z = in->zeros ? static_cast<float>(input_zero) : 0.0F;
      if (!in->fixed && in->zeros) {
        float least = 0, most = 0;
        for (size_t i = begin; i < begin + count; ++i) {
          least = std::min(least, x[i]);
          most = std::max(most, x[i]);
        }
        s = (most - least) / (high - low);
        if (s == 0) s = 1;
        z = std::clamp(std::nearbyint(low - least / s), low, high);
      } else if (!in->fixed) {
        s = std::max(amax(begin, count) / high, 1e-12F);
      }
      for (size_t i = begin; i < begin + count; ++i)
        out[i] = static_cast<double>(std::clamp(std::nearbyint(x[i] / s + z), low, high) - z) * static_cast<double>(s);
    };
    const size_t columns = in->columns == 0 ? x.size() : static_cast<size_t>(in->columns);
    for (size_t i = 0; i < x.size(); i += in->columns == 0 ? x.size() : k) {
      for (size_t j = 0; j < (in->columns == 0 ? x.size() : k); j += columns) integers(i + j, std::min(columns, (in->columns == 0 ? x.size() : k) - j));
    }
    return out;
  }
  switch (*quantization_of(p)) {
    case Quantization::f32:
      for (size_t i = 0; i < x.size(); ++i) out[i] = x[i];
      break;
    case Quantization::bf16:
      for (size_t i = 0; i < x.size(); ++i) out[i] = round_bf16(x[i]);
      break;
    case Quantization::fp8_fixed:
      fp8(0, x.size(), input_scale);
      break;
    case Quantization::fp8_tensor:
      dynamic(0, x.size());
      break;
    case Quantization::fp8_token:
      for (size_t i = 0; i < x.size(); i += k) dynamic(i, k);
      break;
    case Quantization::fp8_group:
    case Quantization::fp8_group_e8m0: {
      const auto g = static_cast<size_t>(p.scheme.input->type.block.cols);
      for (size_t i = 0; i < x.size(); i += k) {
        for (size_t j = 0; j < k; j += g) dynamic(i + j, std::min(g, k - j));
      }
      break;
    }
    case Quantization::mxfp8:
    case Quantization::mxfp8_even:
    case Quantization::mxfp8_up:
    case Quantization::mxfp4:
    case Quantization::mxfp4_even:
    case Quantization::mxfp4_up: {
      const bool bytes = p.scheme.input->type.code == Elem::e4m3;
      const double largest = bytes ? 448 : 6;
      for (size_t i = 0; i < x.size(); i += k) {
        for (size_t j = i; j < i + k; j += 32) {
          const size_t end = std::min(j + 32, i + k);
          const float a = amax(j, end - j);
          const bool up = p.scheme.input->rounding == ir::Rounding::up;
          int e = a > 0 ? std::ilogb(up ? static_cast<double>(a) / largest : static_cast<double>(a)) : -200;
          if (!up)
            e += (p.scheme.input->rounding == ir::Rounding::even && static_cast<double>(a) >= std::ldexp(1.75, e) ? 1 : 0) - (bytes ? 8 : 2);
          else if (a > 0 && std::ldexp(largest, e) < static_cast<double>(a))
            ++e;
          const double s = std::isnan(a) ? static_cast<double>(a) : std::ldexp(1.0, std::clamp(e, -127, 127));
          for (size_t n = j; n < end; ++n) {
            const auto q = static_cast<float>(static_cast<double>(x[n]) / s);
            out[n] = s * static_cast<double>(bytes ? decode_e4m3(encode_e4m3_sat(q)) : std::isnan(q) ? q : decode_e2m1(encode_e2m1(q)));
          }
        }
      }
      break;
    }
    case Quantization::nvfp4:
      for (size_t i = 0; i < x.size(); i += 16) {
        const float s = decode_e4m3(encode_e4m3_sat(amax(i, 16) / 6.0F / input_scale)), d = s * input_scale;
        for (size_t j = i; j < i + 16; ++j) {
          const float q = d == 0 ? 0.0F : std::isnan(d) ? d : decode_e2m1(encode_e2m1(x[j] / d));
          out[j] = static_cast<double>(q) * static_cast<double>(s) * static_cast<double>(input_scale);
        }
      }
      break;
  }
  return out;
}

// The weight in the layouts of a kernel, and a run of it with guard zones.
struct Ran {
  std::vector<float> y;
  bool guards = true;
};
constexpr size_t guard = 64;

Bytes in_layout(const Bytes& rows, int64_t n, int64_t k, Elem elem, ir::Layout layout) {
  const int64_t count = layout == ir::Layout::rows ? n : ceil_div(n, 16);
  Bytes packed(static_cast<size_t>(count * ir::panel_bytes(layout, k, bits(elem))));
  ops::pack(rows.data(), n, k, elem, layout, packed.data());
  return packed;
}

Ran run(const Kernel& kernel, const Problem& p, const Stored& w, const std::vector<float>& x, float input_scale, const float* bias = nullptr,
        int64_t step = 0) {
  const Elem code = is_integer_code(w.type.code) ? Elem::i8 : w.type.code;
  // Groups begin at whole units in panels.
  const int64_t places = panel_columns(kernel.code_layout, w.type, p.k);
  std::vector<int32_t> columns;
  if (places != p.k) {
    columns.assign(static_cast<size_t>(places), -1);
    for (int64_t j = 0; j < p.k; ++j) {
      const int64_t group = group_columns(w.type), at = j / group * panel_group(kernel.code_layout, w.type) + j % group;
      columns[static_cast<size_t>(at)] = static_cast<int32_t>(j);
    }
  }
  Bytes moved(static_cast<size_t>(p.n * ir::panel_bytes(ir::Layout::rows, places, bits(code))));
  if (places != p.k) ops::move_columns(w.codes.data(), p.n, p.k, code, columns, moved.data());
  const Bytes codes = in_layout(places == p.k ? w.codes : moved, p.n, places, code, kernel.code_layout);
  Bytes scales = w.scales, zeros = w.zeros;
  if (scales_in_panels(kernel.scale_layout, w.type)) {
    if (w.type.block.rows > 1) {
      const auto of_rows = [&](const Bytes& tiles) {
        const size_t row = tiles.size() / static_cast<size_t>(w.rows);
        Bytes all;
        for (int64_t i = 0; i < p.n; ++i) {
          const auto from = tiles.begin() + i / w.type.block.rows * static_cast<int64_t>(row);
          all.insert(all.end(), from, from + static_cast<int64_t>(row));
        }
        return all;
      };
      scales = of_rows(scales);
      if (!zeros.empty()) zeros = of_rows(zeros);
    }
    const Elem elem = panel_scale_elem(w.type);
    if (elem == Elem::e8m0) {
      Bytes powers;
      for (size_t i = 0; i < scales.size(); i += 4) {
        float f = 0;
        std::memcpy(&f, scales.data() + i, 4);
        powers.push_back(static_cast<std::byte>(std::isnan(f) ? 255 : std::ilogb(f) + 127));
      }
      scales = powers;
    }
    scales = in_layout(scales, p.n, w.columns, elem, kernel.scale_layout);
    if (!zeros.empty()) zeros = in_layout(zeros, p.n, w.columns, Elem::i8, kernel.scale_layout);
  }
  Weight weight{codes.data(), scales.empty() ? nullptr : scales.data(), w.global, bias, input_scale};
  if (!zeros.empty()) weight.zeros = zeros.data();
  if (!columns.empty()) weight.columns = columns.data();
  if (const auto in = integer_inputs(p); in && in->fixed && in->zeros) weight.input_zero = input_zero;
  Bytes workspace(kernel.workspace_bytes(p) + 2 * guard, std::byte{0xA5});
  std::vector<float> y(static_cast<size_t>(p.m * p.n) + 2 * guard, 12345.0F);
  RunArgs a{&p, &weight, x.data(), y.data() + guard, 0, p.n, workspace.data() + guard};
  // As two threads would share it.
  kernel.prepare(a, p.m / 2, p.m);
  kernel.prepare(a, 0, p.m / 2);
  if (step == 0) step = p.n;
  for (int64_t begin = 0; begin < p.n; begin += step) {
    a.n_begin = begin;
    a.n_end = std::min(p.n, begin + step);
    kernel.run(a);
  }
  Ran r;
  for (size_t i = 0; i < guard; ++i) {
    r.guards = r.guards && y[i] == 12345.0F && y[y.size() - 1 - i] == 12345.0F && workspace[i] == std::byte{0xA5} &&
               workspace[workspace.size() - 1 - i] == std::byte{0xA5};
  }
  r.y.assign(y.begin() + guard, y.end() - guard);
  return r;
}

std::vector<float> tokens(int64_t m, int64_t k, uint32_t seed, float size = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0F, size);
  std::vector<float> x(static_cast<size_t>(m * k));
  for (float& v : x) v = normal(random);
  return x;
}

bool runs_here(const Kernel& k) {
  return host::covers(host::this_cpu().features, k.needs);
}

void check(const Kernel& kernel, const Problem& p, const Stored& w, const std::vector<float>& x, float input_scale, const std::vector<float>& bias = {}) {
  const std::vector<double> q = quantized(p, x, input_scale);
  const Ran r = run(kernel, p, w, x, input_scale, bias.empty() ? nullptr : bias.data());
  ASSERT_TRUE(r.guards) << kernel.name << ": " << to_string(p);
  const bool flushes = kernel.products == Products::bf16;
  for (int64_t n = 0; n < p.n; ++n) {
    std::vector<double> row(static_cast<size_t>(p.k));
    for (int64_t j = 0; j < p.k; ++j) row[static_cast<size_t>(j)] = w.at(n, j);
    for (int64_t m = 0; m < p.m; ++m) {
      double sum = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(n)]), size = std::fabs(sum);
      for (int64_t j = 0; j < p.k; ++j) {
        const double product = q[static_cast<size_t>(m * p.k + j)] * row[static_cast<size_t>(j)];
        sum += product;
        size += std::fabs(product);
      }
      const double bound = static_cast<double>(p.k + 8) * 0x1p-24 * size + (flushes ? static_cast<double>(p.k) * 0x1p-125 : 0.0) + 0x1p-149;
      ASSERT_NEAR(static_cast<double>(r.y[static_cast<size_t>(m * p.n + n)]), sum, bound) << kernel.name << ": " << to_string(p) << " at " << m << ", " << n;
    }
  }
}

constexpr std::string_view schemes[] = {
    "bf16", "f16", "f32", "fp8_tensor", "fp8_channel", "fp8_g128", "fp8_128x128", "fp8_tensor:fp8_tensor_static", "fp8_tensor:fp8_tensor_dyn",
    "fp8_channel:fp8_token", "fp8_channel:fp8_tensor_static", "fp8_128x128:fp8_g128", "fp8_128x128:fp8_g128@e8m0", "fp8_128x128:fp8_token", "fp8_64x32",
    "fp8_64x32:fp8_token", "fp8_48x20:fp8_g20", "fp8_g64:fp8_g64", "fp8_g12:fp8_g12", "fp8_g128:fp8_token", "fp8_channel:fp8_g128", "nvfp4", "nvfp4:nvfp4",
    "nvfp4:fp8_token", "nvfp4_g32", "mxfp4", "mxfp4:fp8_tensor_dyn", "fp4_g48", "mxfp8", "mxfp4:mxfp4", "mxfp4:mxfp4_up", "mxfp8:mxfp8", "mxfp8:mxfp8_up",
    "mxfp4:mxfp4_even", "mxfp8:mxfp8_even", "fp8_32x1@e8m0", "fp8_32x1@e8m0:mxfp8_up", "fp4_32x1@e8m0", "fp4_32x1@e8m0:mxfp4_up", "int4_g128",
    "int4_g32:fp8_token", "int4_g16_asym", "int4_channel", "int4_channel_asym", "int3_tensor_asym", "int2_g64", "int8_channel", "int8_channel_asym",
    "int8_tensor:fp8_tensor_static", "int8_g128", "int8_g36_asym", "int6_g64", "int8_channel:int8_token", "int8_channel:int8_token_asym",
    "int8_tensor:int8_tensor_static", "int8_channel:int8_tensor_asym_static", "int8_channel_asym:int8_tensor_dyn", "int8_channel_asym:int8_token_asym",
    "int8_g128:int8_token", "int8_g36_asym:int8_token_asym", "int5_g64:int6_token", "int4_channel:int8_token", "int4_g128:int8_token",
    "int4_g32_asym:int8_tensor_asym_static", "int4_g48:int8_token_asym", "int3_tensor_asym:int4_token", "int8_channel:int8_g128",
    // Blocks that are no whole panels or units, scales and activations that few kernels keep apart.
    "fp8_24x64:fp8_g64", "fp8_20x12@e8m0", "fp8_128x128@e8m0:fp8_g128@e8m0", "fp8_tensor@e8m0", "fp8_channel@e8m0", "fp8_g10:fp8_g10", "fp8_g6", "fp4_g20",
    "nvfp4_g8", "fp4_5x24@e8m0", "int4_g10_asym", "int4_g20:int8_token_asym", "int8_g10:int8_token", "int8_36x20_asym", "int8_channel:fp8_g48",
    "int4_g32:mxfp8", "fp8_channel:int8_token_asym", "nvfp4:int8_g48", "f16:fp8_token", "f32:int8_tensor_asym_static",
    // FP4 weights beside integers.
    "nvfp4:int8_token", "nvfp4:int8_token_asym", "nvfp4_g32:int8_tensor_static", "mxfp4:int8_token", "mxfp4:int8_tensor_asym_static", "fp4_g48:int8_token",
    "fp4_g20:int6_token", "nvfp4_g32:nvfp4"};

class EveryKernel : public testing::TestWithParam<const Kernel*> {
 protected:
  void SetUp() override {
    if (!runs_here(*GetParam())) GTEST_SKIP() << "needs " << host::to_string(GetParam()->needs);
  }
};

TEST_P(EveryKernel, StaysWithinTheBoundForEverySchemeAndShape) {
  const Kernel& kernel = *GetParam();
  int ran = 0;
  for (const std::string_view text : schemes) {
    for (const Inputs inputs : {Inputs::as_scheme, Inputs::bf16, Inputs::f32}) {
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 16}, {16, 64}, {33, 144}, {50, 272}, {150, 1104}, {70, 57}, {19, 130}, {5, 2}}) {
        for (const int64_t m : {1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 64, 530}) {
          if (m > 9 && (inputs != Inputs::as_scheme || (m == 530 && n != 33))) continue;
          if (m > 2 && n == 150 && m != 17) continue;
          Problem p{m, n, k, scheme(text), inputs};
          if (!kernel.accepts(p).ok) continue;
          ++ran;
          const Stored w(p.scheme, n, k, static_cast<uint32_t>(n + k));
          const std::vector<float> bias = m % 2 == 0 ? tokens(1, n, 3) : std::vector<float>{};
          check(kernel, p, w, tokens(m, k, static_cast<uint32_t>(m)), 0.013F, bias);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  EXPECT_GT(ran, 100);
}

TEST_P(EveryKernel, GivesTheSameBitsForEverySplit) {
  const Kernel& kernel = *GetParam();
  for (const std::string_view text : schemes) {
    for (const int64_t m : {1, 3, 20}) {
      const Problem p{m, 150, 272, scheme(text)};
      if (!kernel.accepts(p).ok) continue;
      const Stored w(p.scheme, p.n, p.k, 5);
      const std::vector<float> x = tokens(m, p.k, 6);
      const std::vector<float> whole = run(kernel, p, w, x, 0.02F).y;
      for (const int64_t step : {16, 32, 48, 80, 144})
        EXPECT_EQ(run(kernel, p, w, x, 0.02F, nullptr, step).y, whole) << kernel.name << ' ' << text << ' ' << step;
    }
  }
}

TEST_P(EveryKernel, PassesNaNOn) {
  const Kernel& kernel = *GetParam();
  for (const std::string_view text : schemes) {
    for (const int64_t m : {1, 5, 20}) {
      const Problem p{m, 35, 144, scheme(text)};
      if (!kernel.accepts(p).ok) continue;
      const Stored clean(p.scheme, p.n, p.k, 5);
      std::vector<float> x = tokens(m, p.k, 6);
      // In a weight: its output of every token, no other.
      Stored w = clean;
      if (p.scheme.weight.two_level()) {
        w.scales[static_cast<size_t>(33 * w.columns + 1)] = std::byte{0xFF};
      } else if (p.scheme.weight.block.rows == 1) {
        const float nan = std::numeric_limits<float>::quiet_NaN();
        std::memcpy(w.scales.data() + 4 * (33 * w.columns + w.columns - 1), &nan, sizeof nan);
      } else if (p.scheme.weight.code == Elem::e4m3) {
        w.codes[static_cast<size_t>(33 * p.k + 50)] = std::byte{0x7F};
      } else if (p.scheme.weight.plain()) {
        w.set_code(33, 50, std::numeric_limits<float>::quiet_NaN());
      } else {
        continue;
      }
      std::vector<float> y = run(kernel, p, w, x, 0.02F).y;
      for (int64_t i = 0; i < m * p.n; ++i) ASSERT_EQ(std::isnan(y[static_cast<size_t>(i)]), i % p.n == 33) << kernel.name << ' ' << text << ' ' << i;
      // In an activation: every output of its token.
      x[static_cast<size_t>((m - 1) * p.k + 77)] = std::numeric_limits<float>::quiet_NaN();
      y = run(kernel, p, clean, x, 0.02F).y;
      for (int64_t n = 0; n < p.n; ++n) ASSERT_TRUE(std::isnan(y[static_cast<size_t>((m - 1) * p.n + n)])) << kernel.name << ' ' << text;
    }
  }
}

TEST_P(EveryKernel, KeepsExtremeScales) {
  const Kernel& kernel = *GetParam();
  for (const std::string_view text :
       {"f16", "f32", "fp8_tensor:fp8_tensor_static", "fp8_channel", "fp8_128x128", "fp8_g32", "nvfp4", "nvfp4:nvfp4", "fp8_channel:fp8_token", "mxfp4",
        "mxfp8", "int4_g32", "int4_g32_asym", "int8_channel", "int8_g32_asym", "int8_channel:int8_token", "int4_g32:int8_token_asym"}) {
    for (const auto& [scale, size] : {std::pair{1e-30F, 1e20F}, {1e30F, 1e-20F}, {1e-20F, 1e-10F}, {1e-38F, 1e30F}}) {
      for (const int64_t m : {1, 4, 20}) {
        const Problem p{m, 35, 144, scheme(text)};
        // Powers of two end there, and weights below 2^-126 count as zero beside bfloat16 dot products (kernel.h).
        if (!kernel.accepts(p).ok || (p.scheme.weight.scale == ir::ScaleValues::e8m0 && scale < 1e-37F)) continue;
        const Stored w(p.scheme, p.n, p.k, 7, scale);
        check(kernel, p, w, tokens(m, p.k, 8, size), size / 100);
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST_P(EveryKernel, TakesEveryCodeForWhatItIs) {
  const Kernel& kernel = *GetParam();
  // One weight of each code (and for nvfp4, each block scale) against a token of one 1: the output is the number itself.
  Problem p{1, 256, 16, scheme("fp8_tensor")};
  if (kernel.accepts(p).ok) {
    Stored w(p.scheme, p.n, p.k, 1);
    const float one = 1;
    std::memcpy(w.scales.data(), &one, 4);
    for (int64_t j = 0; j < 16; ++j) {
      for (int64_t n = 0; n < 256; ++n) w.codes[static_cast<size_t>(n * 16 + j)] = static_cast<std::byte>((n & 0x7F) == 0x7F ? 0 : n);
      std::vector<float> x(16, 0.0F);
      x[static_cast<size_t>(j)] = 1;
      const std::vector<float> y = run(kernel, p, w, x, 1).y;
      for (int64_t n = 0; n < 256; ++n) ASSERT_EQ(static_cast<double>(y[static_cast<size_t>(n)]), w.at(n, j)) << kernel.name << ' ' << n;
    }
  }
  // Every float16 number, and float32 numbers with all of their digits.
  for (const std::string_view text : {"f16", "f32"}) {
    p = Problem{1, 256, 256, scheme(text), Inputs::f32};
    if (!kernel.accepts(p).ok) continue;
    for (const int64_t m : {1, 20}) {
      p.m = m;
      Stored w(p.scheme, p.n, p.k, 1);
      std::mt19937 random(2);
      for (int64_t i = 0; i < p.n * p.k; ++i) {
        auto bits = p.scheme.weight.code == Elem::f16 ? static_cast<uint32_t>(i) : static_cast<uint32_t>(random());
        const uint32_t beyond = p.scheme.weight.code == Elem::f16 ? 0x7C00U : f32_inf_bits;
        if ((bits & beyond) == beyond) bits = 0;
        std::memcpy(w.codes.data() + i * (p.scheme.weight.code == Elem::f16 ? 2 : 4), &bits, p.scheme.weight.code == Elem::f16 ? 2 : 4);
      }
      for (int64_t j = 0; j < p.k; ++j) {
        std::vector<float> x(static_cast<size_t>(m * p.k), 0.0F);
        x[static_cast<size_t>((m - 1) * p.k + j)] = 1;
        const std::vector<float> y = run(kernel, p, w, x, 1).y;
        for (int64_t n = 0; n < p.n; ++n)
          ASSERT_EQ(static_cast<double>(y[static_cast<size_t>((m - 1) * p.n + n)]), w.at(n, j)) << kernel.name << ' ' << text << ' ' << n << ' ' << j;
      }
    }
  }
  p = Problem{1, 256, 16, scheme("fp8_tensor")};
  // Integers, less a zero point of each row: every difference that there is.
  for (const std::string_view text : {"int8_tensor", "int4_tensor", "int8_channel_asym", "int4_channel_asym", "int4_g16_asym"}) {
    p.scheme = scheme(text);
    if (!kernel.accepts(p).ok) continue;
    for (const int64_t m : {1, 20}) {
      p.m = m;
      Stored w(p.scheme, p.n, p.k, 1);
      const float one = 1;
      for (size_t i = 0; i < w.scales.size(); i += 4) std::memcpy(w.scales.data() + i, &one, 4);
      const int span = 1 << bits(p.scheme.weight.code);
      for (int64_t i = 0; i < p.n * p.k; ++i) w.codes[static_cast<size_t>(i)] = static_cast<std::byte>((i % p.k * 16 + i / p.k) % span - span / 2);
      for (size_t i = 0; i < w.zeros.size(); ++i) w.zeros[i] = static_cast<std::byte>(static_cast<int>(i) / 16 % span - span / 2);
      for (int64_t j = 0; j < p.k; ++j) {
        std::vector<float> x(static_cast<size_t>(m * p.k), 0.0F);
        x[static_cast<size_t>((m - 1) * p.k + j)] = 1;
        const std::vector<float> y = run(kernel, p, w, x, 1).y;
        for (int64_t n = 0; n < p.n; ++n)
          ASSERT_EQ(static_cast<double>(y[static_cast<size_t>((m - 1) * p.n + n)]), w.at(n, j)) << kernel.name << ' ' << text << ' ' << n << ' ' << j;
      }
    }
  }
  // Every power of two that E8M0 has, as far as the product is one that float32 has.
  p = Problem{1, 250, 32, scheme("mxfp4")};
  if (kernel.accepts(p).ok) {
    Stored w(p.scheme, p.n, p.k, 1);
    for (int n = 0; n < 250; ++n) {
      const float power = std::ldexp(1.0F, n - 127);
      std::memcpy(w.scales.data() + 4 * n, &power, 4);
    }
    for (size_t i = 0; i < w.codes.size(); ++i) w.codes[i] = static_cast<std::byte>(0x42 + (i % 8) * 0x11);
    // Tiles have one form, with these powers in the weight (kernel.h).
    const double least = kernel.name.find("_amxbf16") != kernel.name.npos ? 0x1p-126 : 0;
    for (int64_t j = 0; j < p.k; ++j) {
      std::vector<float> x(32, 0.0F);
      x[static_cast<size_t>(j)] = 1;
      const std::vector<float> y = run(kernel, p, w, x, 1).y;
      for (int64_t n = 0; n < p.n; ++n) {
        const double number = std::fabs(w.at(n, j)) < least ? 0 : w.at(n, j);
        ASSERT_EQ(static_cast<double>(y[static_cast<size_t>(n)]), number) << kernel.name << ' ' << n << ' ' << j;
      }
    }
  }
  p = Problem{1, 256, 16, scheme("nvfp4")};
  if (kernel.accepts(p).ok) {
    Stored w(p.scheme, p.n, p.k, 1);
    w.global = 1;
    for (size_t n = 0; n < 256; ++n) {
      w.scales[n] = static_cast<std::byte>((n & 0x7F) == 0x7F ? 0 : n);
      for (size_t j = 0; j < 8; ++j) w.codes[n * 8 + j] = static_cast<std::byte>((2 * j) | (2 * j + 1) << 4);
    }
    for (int64_t j = 0; j < 16; ++j) {
      std::vector<float> x(16, 0.0F);
      x[static_cast<size_t>(j)] = 1;
      const std::vector<float> y = run(kernel, p, w, x, 1).y;
      for (int64_t n = 0; n < 256; ++n) ASSERT_EQ(static_cast<double>(y[static_cast<size_t>(n)]), w.at(n, j)) << kernel.name << ' ' << n << ' ' << j;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Linear, EveryKernel, testing::ValuesIn(kernels_and_emulated()), [](const auto& one) { return std::string(one.param->name); });

TEST(Kernels, RefuseInWords) {
  const auto why = [](std::string_view name, std::string_view text, Inputs inputs) {
    for (const Kernel* k : kernels()) {
      if (k->name == name) return k->accepts(Problem{1, 32, 144, scheme(text), inputs}).why;
    }
    return std::string("absent");
  };
  EXPECT_EQ(why("linear_ref", "fp6e2m3_g128", Inputs::bf16), "knows no fp6e2m3_g128 weights");
  EXPECT_EQ(why("linear_ref", "fp8_channel:mxfp8_static", Inputs::as_scheme), "knows no activations of the kind mxfp8_static");
  EXPECT_EQ(why("linear_ref", "fp8_channel:mxfp8", Inputs::f32), "");
  EXPECT_EQ(why("linear_fp8_bf16_avx512bf16", "fp8_24x64", Inputs::bf16), "");
  EXPECT_EQ(why("linear_int4_bf16_avx512bf16", "int4_g24", Inputs::bf16), "");
  EXPECT_EQ(why("linear_int4_bf16_avx512bf16", "int4_g128:mxfp8+actorder", Inputs::as_scheme), "");
  EXPECT_EQ(why("linear_fp4_f32_avx2", "fp4_channel@e4m3", Inputs::as_scheme), "knows no scales of this kind, these are fp4_channel@e4m3");
  EXPECT_EQ(why("linear_fp4_f32_avx2", "fp4_32x1@e8m0", Inputs::as_scheme), "");
  EXPECT_EQ(why("linear_fp4_f32_avx2", "fp4_20x1@e8m0", Inputs::as_scheme),
            "fills up groups to 16 columns, which would more than double these of fp4_20x1@e8m0");
  EXPECT_EQ(why("linear_f16_f32_avx2", "bf16", Inputs::as_scheme), "reads f16 weights, these are bf16");
  EXPECT_EQ(why("linear_int4_bf16_avx512bf16", "int4_g128:int8_token", Inputs::as_scheme), "knows no activations of the kind int8_token");
  EXPECT_EQ(why("linear_int4_int8_avx512vnni", "int4_g128", Inputs::as_scheme), "multiplies integers, the activations are floats");
  EXPECT_EQ(why("linear_int4_int8_avx512vnni", "int4_g128:int8_token", Inputs::bf16), "multiplies integers, the activations are floats");
  EXPECT_EQ(why("linear_int4_int8_avx512vnni", "int4_g128:fp8_token", Inputs::as_scheme), "multiplies integers, the activations are fp8_token");
  EXPECT_EQ(why("linear_int4_int8_avx512vnni", "int4_g128:int8_g128", Inputs::as_scheme),
            "knows scales of activations for a tensor and for a token, these are int8_g128");
  EXPECT_EQ(why("linear_fp4_int8_avx512vnni", "mxfp4:nvfp4", Inputs::as_scheme), "multiplies integers, the activations are nvfp4");
  EXPECT_EQ(why("linear_fp4_int8_avx512vnni", "fp4_channel:int8_token", Inputs::as_scheme), "knows scales of groups only, these are fp4_channel");
  EXPECT_EQ(why("linear_int8_bf16_avx512bf16", "int4_g128", Inputs::bf16), "reads integers of five to eight bits, these are int4_g128");
  EXPECT_EQ(why("linear_fp8_bf16_avx512bf16", "fp8_channel:fp8_g128", Inputs::as_scheme),
            "multiplies in bfloat16, and knows group scales of activations only beside fp8 weights with a scale for the same columns");
  EXPECT_EQ(why("linear_fp8_f32_avx512", "fp8_channel:fp8_g128", Inputs::as_scheme), "");
  EXPECT_EQ(why("linear_bf16_f32_avx512", "bf16", Inputs::f32), "");
  EXPECT_EQ(why("linear_bf16_bf16_avx512bf16", "bf16", Inputs::f32), "multiplies in bfloat16, the activations are to stay float32");
}

}  // namespace
}  // namespace qb::kernel
