// The reference: every scheme of plain, integer, FP8, FP4 and MX weights, with activations by the formulas of inputs.h, read as they are stored.
//
// Weights are dequantized a piece of a row at a time (code * scale * global, rounded once to float32) and multiplied in double, 16 sums side by side that are
// added in pairs: the same bits on every machine, for every number of tokens and threads. Goals: to be read, and to be checked against; it decodes a row once
// for eight tokens, so that small models still run. Non-goal: the speed of memory.
#include <algorithm>
#include <array>

#include "exec/numbers.h"
#include "host/host.h"
#include "kernel/quantized.h"
#include "kernel/reference.h"

namespace qb::kernel {
namespace {

constexpr int64_t piece = 1024;  // columns at a time; 4 KiB of weights stay in the first-level cache
constexpr int64_t tokens = 8;    // that share a dequantized piece
constexpr int64_t lanes = 16;

bool decodable(Elem e) {
  return e == Elem::e4m3 || e == Elem::e5m2 || e == Elem::e2m1 || is_integer_code(e);
}

Verdict accepts(const Problem& p) {
  const ir::QuantType& w = p.scheme.weight;
  const auto no = [](std::string why) { return Verdict{false, std::move(why)}; };
  ir::Features beyond = p.scheme.features;
  if (is_integer_code(w.code)) beyond.actorder = false;
  if (beyond != ir::Features{}) return no("knows no rotations, pre-scales, low-rank parts or other features of a scheme");
  if (w.zero != ir::Zero::none && !is_integer_code(w.code)) return no("knows zero points of integers only");
  if (w.plain() ? w.code != Elem::bf16 && w.code != Elem::f16 && w.code != Elem::f32 : !decodable(w.code))
    return no("knows no " + ir::to_string(w) + " weights");
  if (w.code == Elem::e2m1 && p.k % 2 != 0) return no("needs an even number of columns for packed codes");
  if (!knows_inputs(p)) return no("knows no activations of the kind " + ir::to_string(*p.scheme.input));
  return {true, ""};
}

double cost_ns(const Problem& p, const host::Cpu& cpu) {
  // Zen 4 at 3.66 GHz, 256 x 1024 weights, one core, in cycles: 0.25 (AVX-512), 0.4 (AVX2) and 1 (SSE2) for a product; to decode, 0.7 for bf16 to 2 for nvfp4.
  const double weights = static_cast<double>(p.n) * static_cast<double>(p.k), passes = static_cast<double>((p.m + tokens - 1) / tokens);
  const double product = host::covers(cpu.features, host::Feature::avx512) ? 0.25 : host::covers(cpu.features, host::Feature::avx2) ? 0.4 : 1.0;
  return weights * (1.5 * passes + product * static_cast<double>(p.m)) / cpu.clock_ghz;
}

size_t workspace_bytes(const Problem& p) {
  return static_cast<size_t>(p.m) * static_cast<size_t>(p.k) * sizeof(float) + 64;
}

float* quantized(const RunArgs& a) {
  const auto address = reinterpret_cast<uintptr_t>(a.workspace);
  return reinterpret_cast<float*>(a.workspace + (64 - address % 64) % 64);
}

void prepare(const RunArgs& a, int64_t m_begin, int64_t m_end) noexcept {
  const QuantizedInputs inputs(a);
  float* out = quantized(a);
  for (int64_t m = m_begin; m < m_end; ++m) inputs.row(m, out + m * a.problem->k);
}

// A four-bit code times one scale, for each code. At most 2 + 4 + 24 bits: the product is exact in double and rounded once.
std::array<float, 16> products_of(double scale) {
  std::array<float, 16> p{};
  for (size_t c = 0; c < p.size(); ++c) p[c] = static_cast<float>(static_cast<double>(decode_e2m1(static_cast<uint8_t>(c))) * scale);
  return p;
}

// Of two-level types, the products of every code with every block scale: made once for a call.
using CodeProducts = std::array<float, 16 * 256>;

CodeProducts all_products(float global) {
  CodeProducts all{};
  for (size_t s = 0; s < 256; ++s) {
    const std::array<float, 16> p = products_of(static_cast<double>(decode_e4m3(static_cast<uint8_t>(s))) * static_cast<double>(global));
    std::copy(p.begin(), p.end(), all.begin() + static_cast<int64_t>(16 * s));
  }
  return all;
}

// The weights of one row.
class Row {
 public:
  Row(const RunArgs& a, int64_t row, const CodeProducts* products)
      : type_(a.problem->scheme.weight), k_(a.problem->k), global_(static_cast<double>(a.weight->global)), products_(products) {
    codes_ = a.weight->codes + row * ir::panel_bytes(ir::Layout::rows, k_, row_bits(type_));
    if (type_.plain()) return;
    group_ = type_.block.cols == 0 ? k_ : type_.block.cols;
    const int64_t groups = (k_ + group_ - 1) / group_, scale_row = type_.block.rows == 0 ? 0 : row / type_.block.rows;
    elem_ = grid_elem(type_);
    scales_ = a.weight->scales + scale_row * groups * bits(elem_) / 8;
    if (a.weight->zeros != nullptr) zeros_ = a.weight->zeros + scale_row * groups;
    order_ = a.weight->order;
  }

  void dequantize(int64_t first, int64_t count, float* out) const {
    if (type_.code == Elem::f32 && type_.plain()) return std::memcpy(out, codes_ + first * 4, static_cast<size_t>(count) * 4), void();
    if (type_.code == Elem::bf16) return widen<recipe::Bf16>(first, count, out);
    if (type_.code == Elem::f16) return widen<recipe::F16>(first, count, out);
    if (order_ != nullptr) {
      for (int64_t j = first; j < first + count; ++j) integers(j, j + 1, order_[j], out + (j - first));
      return;
    }
    for (int64_t j = first; j < first + count;) {
      const int64_t end = std::min(first + count, (j / group_ + 1) * group_);
      if (is_integer_code(type_.code)) {
        integers(j, end, j / group_, out + (j - first));
      } else if (type_.code == Elem::e2m1) {
        nibbles(j, end, j / group_, out + (j - first));
      } else {
        bytes(j, end, static_cast<double>(ops::number_at(scales_, elem_, j / group_)), out + (j - first));
      }
      j = end;
    }
  }

 private:
  template <class S>
  void widen(int64_t first, int64_t count, float* out) const {
    for (int64_t j = 0; j < count; ++j) out[j] = S::value(recipe::load<S>(codes_, first + j));
  }
  // At most 8 + 24 + 24 bits; kernels of one level have a global of 1, so the product is exact in double and rounded once.
  float product(float code, double scale) const { return static_cast<float>(static_cast<double>(code) * scale * global_); }

  void nibbles(int64_t first, int64_t end, int64_t group, float* out) const {
    std::array<float, 16> own;
    const float* products = nullptr;
    if (products_ != nullptr) {
      products = products_->data() + 16 * std::to_integer<size_t>(scales_[group]);
    } else {
      own = products_of(static_cast<double>(ops::number_at(scales_, elem_, group)) * global_);
      products = own.data();
    }
    int64_t j = first;
    if (j % 2 != 0 && j < end) *out++ = products[std::to_integer<unsigned>(codes_[j / 2]) >> 4], ++j;
    for (; j + 1 < end; j += 2, out += 2) {
      const unsigned both = std::to_integer<unsigned>(codes_[j / 2]);
      out[0] = products[both & 15U];
      out[1] = products[both >> 4];
    }
    if (j < end) *out = products[std::to_integer<unsigned>(codes_[j / 2]) & 15U];
  }
  // (code - zero) * scale: two float32 numbers, rounded once.
  void integers(int64_t first, int64_t end, int64_t group, float* out) const {
    const float scale = ops::load<float>(scales_, group);
    const int zero = zeros_ == nullptr ? 0 : int{ops::load<int8_t>(zeros_, group)};
    for (int64_t j = first; j < end; ++j) *out++ = static_cast<float>(ops::load<int8_t>(codes_, j) - zero) * scale;
  }
  void bytes(int64_t first, int64_t end, double scale, float* out) const {
    const ops::Table& values = ops::table_of(type_.code);
    const auto one = static_cast<float>(scale);
    if (global_ == 1) {
      for (int64_t j = first; j < end; ++j) *out++ = values[std::to_integer<unsigned>(codes_[j])] * one;
    } else {
      for (int64_t j = first; j < end; ++j) *out++ = product(values[std::to_integer<unsigned>(codes_[j])], scale);
    }
  }

  const ir::QuantType& type_;
  int64_t k_, group_ = 1;
  double global_;
  const CodeProducts* products_;  // of two-level types
  Elem elem_ = Elem::f32;
  const std::byte *codes_ = nullptr, *scales_ = nullptr, *zeros_ = nullptr;
  const int32_t* order_ = nullptr;
};

struct Dot {
  static QB_INLINE void run(const float* x, const float* w, int64_t count, double* sums) {
    int64_t i = 0;
    double s[lanes];
    for (int64_t l = 0; l < lanes; ++l) s[l] = sums[l];
    for (; i + lanes <= count; i += lanes) {
      for (int64_t l = 0; l < lanes; ++l) s[l] += static_cast<double>(x[i + l]) * static_cast<double>(w[i + l]);
    }
    for (int64_t l = 0; l < lanes; ++l) sums[l] = s[l];
    for (int64_t l = 0; i < count; ++i, ++l) sums[l] += static_cast<double>(x[i]) * static_cast<double>(w[i]);
  }
};

double total(double* s) {
  for (int64_t half = lanes / 2; half > 0; half /= 2) {
    for (int64_t l = 0; l < half; ++l) s[l] += s[l + half];
  }
  return s[0];
}

// put(token, row, sum) for every output of the call.
template <class F>
void run_rows(const RunArgs& a, const F& put) noexcept {
  static const Isa isa = host::detect_isa();
  const Problem& p = *a.problem;
  const float* x = quantized(a);
  const bool two_level = p.scheme.weight.two_level();
  CodeProducts products;
  if (two_level) products = all_products(a.weight->global);
  float w[piece];
  double sums[tokens][lanes];
  for (int64_t n = a.n_begin; n < a.n_end; ++n) {
    const Row row(a, n, two_level ? &products : nullptr);
    for (int64_t m0 = 0; m0 < p.m; m0 += tokens) {
      const int64_t here = std::min(tokens, p.m - m0);
      std::fill_n(&sums[0][0], tokens * lanes, 0.0);
      for (int64_t k0 = 0; k0 < p.k; k0 += piece) {
        const int64_t count = std::min(piece, p.k - k0);
        row.dequantize(k0, count, w);
        for (int64_t m = 0; m < here; ++m) recipe::run_at<Dot>(isa, x + (m0 + m) * p.k + k0, static_cast<const float*>(w), count, &sums[m][0]);
      }
      for (int64_t m = 0; m < here; ++m) {
        const double bias = a.weight->bias == nullptr ? 0.0 : static_cast<double>(a.weight->bias[n]);
        put(m0 + m, n, total(sums[m]) + bias);
      }
    }
  }
}

void run(const RunArgs& a) noexcept {
  run_rows(a, [&a](int64_t m, int64_t n, double sum) { a.y[m * a.problem->n + n] = static_cast<float>(sum); });
}

}  // namespace

void run_reference_sums(const RunArgs& a, double* sums) noexcept {
  run_rows(a, [&a, sums](int64_t m, int64_t n, double sum) { sums[m * a.problem->n + n] = sum; });
}

QB_KERNEL(linear_ref) = {"linear_ref", host::Feature::none, ir::Layout::rows, ir::Layout::rows, accepts, cost_ns, workspace_bytes, prepare, run};

}  // namespace qb::kernel
