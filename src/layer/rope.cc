#include "layer/rope.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

#include "base/diagnostics.h"
#include "base/json.h"

namespace qb::layer {
namespace {

Error unsupported(std::string what) {
  return Error{Errc::invalid_argument, "config.json: " + std::move(what)};
}

// One over theta^(2i/dim), in float32 as transformers has it.
std::vector<float> inverse_powers(double theta, int64_t dim) {
  std::vector<float> f(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < f.size(); ++i) f[i] = 1.0F / std::pow(static_cast<float>(theta), static_cast<float>(2 * i) / static_cast<float>(dim));
  return f;
}

class Parameters {
 public:
  Parameters(const Json& config, const Json* own) : config_(config), own_(own) {}

  const Json* get(std::string_view key) const {
    const Json* v = own_ == nullptr ? nullptr : find(*own_, key);
    return v == nullptr || v->is_null() ? nullptr : v;
  }
  std::optional<double> number(std::string_view key) const {
    const Json* v = get(key);
    return v != nullptr && v->is_number() && std::isfinite(v->get<double>()) ? std::optional(v->get<double>()) : std::nullopt;
  }
  Result<double> positive(std::string_view key) const {
    const std::optional<double> x = number(key);
    if (x && *x > 0) return *x;
    return unsupported(fmt::format("the rope parameter {} must be a number above 0", key));
  }
  std::string type() const {
    if (own_ == nullptr) return "default";
    std::string_view t = string_at(*own_, "rope_type");
    if (t.empty()) t = string_at(*own_, "type", "default");
    return std::string(t);
  }
  Result<double> theta() const {
    std::optional<double> x = number("rope_theta");
    if (!x)
      if (const Json* v = find(config_, "rope_theta"); v != nullptr && v->is_number()) x = v->get<double>();
    if (x.value_or(10000) > 1) return x.value_or(10000);
    return unsupported(fmt::format("rope_theta is {}, which must be above 1", *x));
  }
  int64_t max_positions() const { return int_at(config_, "max_position_embeddings", 0); }
  // A length at the top level comes before that of the parameters, and max_position_embeddings stands in for both.
  Result<int64_t> original() const {
    int64_t n = int_at(config_, "original_max_position_embeddings", 0);
    if (n <= 0) n = static_cast<int64_t>(std::clamp(number("original_max_position_embeddings").value_or(0), 0.0, 1e15));
    if (n <= 0) n = max_positions();
    if (n > 0) return n;
    return unsupported("neither original_max_position_embeddings nor max_position_embeddings is a length");
  }
  Result<std::vector<double>> list(std::string_view key, int64_t size) const {
    std::vector<double> out;
    if (const Json* v = get(key); v != nullptr && v->is_array())
      for (const Json& x : *v)
        if (x.is_number() && x.get<double>() > 0) out.push_back(x.get<double>());
    if (static_cast<int64_t>(out.size()) == size) return out;
    return unsupported(fmt::format("the rope parameter {} must be {} numbers above 0", key, size));
  }

 private:
  const Json& config_;
  const Json* own_;
};

std::vector<float> llama3(std::vector<float> f, double factor, double low, double high, double original) {
  for (float& x : f) {
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / x;
    const float scaled = wavelength > static_cast<float>(original / low) ? x / static_cast<float>(factor) : x;
    if (wavelength < static_cast<float>(original / high) || wavelength > static_cast<float>(original / low)) {
      x = scaled;
      continue;
    }
    const float smooth = (static_cast<float>(original) / wavelength - static_cast<float>(low)) / static_cast<float>(high - low);
    x = (1.0F - smooth) * scaled / static_cast<float>(factor) + smooth * scaled;
  }
  return f;
}

struct Yarn {
  double theta, factor, original, beta_fast, beta_slow;
  bool truncate;
};
std::vector<float> yarn(const Yarn& y, int64_t dim) {
  const auto turns = [&](double rotations) {
    return static_cast<double>(dim) * std::log(y.original / (rotations * 2 * std::numbers::pi)) / (2 * std::log(y.theta));
  };
  double low = turns(y.beta_fast), high = turns(y.beta_slow);
  if (y.truncate) low = std::floor(low), high = std::ceil(high);
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(dim - 1));
  if (low == high) high += 0.001;  // as the original does, against a division by zero
  std::vector<float> f(static_cast<size_t>(dim / 2));
  for (size_t i = 0; i < f.size(); ++i) {
    const float power = std::pow(static_cast<float>(y.theta), static_cast<float>(2 * i) / static_cast<float>(dim));
    const float ramp = std::clamp((static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
    const float keep = 1.0F - ramp;
    f[i] = 1.0F / (static_cast<float>(y.factor) * power) * (1.0F - keep) + 1.0F / power * keep;
  }
  return f;
}

double yarn_mscale(double scale, double mscale) {
  return scale <= 1 ? 1.0 : 0.1 * mscale * std::log(scale) + 1.0;
}

}  // namespace

Result<Rope> Rope::make(const Json& config, int64_t head_dim, std::string_view layers) {
  const Json* own = find(config, "rope_scaling");
  if (own == nullptr || !own->is_object() || own->empty()) own = find(config, "rope_parameters");
  if (own != nullptr && !own->is_object()) own = nullptr;
  for (const char* nested : {"full_attention", "sliding_attention"})
    if (own != nullptr && own->contains(nested)) {
      if (layers.empty()) return unsupported("rope parameters that differ between layers are not supported");
      own = find(*own, layers);
      if (own == nullptr || !own->is_object()) return unsupported(fmt::format("rope_parameters have nothing for {}", layers));
      break;
    }
  const Parameters p(config, own);
  std::optional<double> partial = p.number("partial_rotary_factor");
  if (const Json* v = find(config, "partial_rotary_factor"); !partial && v != nullptr && v->is_number()) partial = v->get<double>();
  if (partial && !(*partial > 0 && *partial <= 1))
    return unsupported(fmt::format("partial_rotary_factor is {}, which must be above 0 and at most 1", *partial));
  if (partial) head_dim = static_cast<int64_t>(static_cast<double>(head_dim) * *partial);
  if (head_dim < 4 || head_dim % 2 != 0) return unsupported(fmt::format("rotary embeddings need an even size of at least 4, it is {}", head_dim));

  Rope r;
  QB_ASSIGN(r.theta_, p.theta());
  r.short_ = inverse_powers(r.theta_, head_dim);
  const std::string type = p.type();
  if (type == "default") return r;
  if (type == "linear" || type == "dynamic" || type == "llama3") {
    QB_ASSIGN(r.factor_, p.positive("factor"));
  }
  if (type == "linear" || type == "dynamic") r.reach_ = std::max(r.factor_, 1.0);
  if (type == "linear") {
    for (float& f : r.short_) f /= static_cast<float>(r.factor_);
    return r;
  }
  if (type == "dynamic") {
    r.kind_ = Kind::dynamic;
    r.boundary_ = p.max_positions();
    if (r.boundary_ <= 0) return unsupported("dynamic rope needs max_position_embeddings");
    return r;
  }
  if (type != "llama3" && type != "yarn" && type != "longrope") {
    return unsupported(fmt::format("rope type '{}' is not supported; known are default, linear, dynamic, llama3, yarn, longrope", escape(type)));
  }
  int64_t original = 0;
  QB_ASSIGN(original, p.original());
  if (type == "llama3") {
    double low = 0, high = 0;
    QB_ASSIGN(low, p.positive("low_freq_factor"));
    QB_ASSIGN(high, p.positive("high_freq_factor"));
    if (!(high > low)) return unsupported("high_freq_factor must be above low_freq_factor");
    r.short_ = llama3(std::move(r.short_), r.factor_, low, high, static_cast<double>(original));
    return r;
  }
  const double ratio = static_cast<double>(p.max_positions()) / static_cast<double>(original);
  r.factor_ = p.number("factor").value_or(ratio);
  if (!(r.factor_ > 0)) return unsupported("the rope parameter factor must be a number above 0");
  const std::optional<double> attention = p.number("attention_factor");
  if (type == "yarn") {
    const double mscale = p.number("mscale").value_or(0), all = p.number("mscale_all_dim").value_or(0);
    const double own_scaling = mscale != 0 && all != 0 ? yarn_mscale(r.factor_, mscale) / yarn_mscale(r.factor_, all) : yarn_mscale(r.factor_, 1);
    r.scaling_ = static_cast<float>(attention.value_or(own_scaling));
    const auto beta = [&](const char* key, double usual) {
      const double b = p.number(key).value_or(0);
      return b > 0 ? b : usual;
    };
    const Json* truncate = p.get("truncate");
    const bool whole = truncate == nullptr || !truncate->is_boolean() || truncate->get<bool>();
    r.short_ = yarn({r.theta_, r.factor_, static_cast<double>(original), beta("beta_fast", 32), beta("beta_slow", 1), whole}, head_dim);
    return r;
  }
  std::vector<double> near, far;
  QB_ASSIGN(near, p.list("short_factor", head_dim / 2));
  QB_ASSIGN(far, p.list("long_factor", head_dim / 2));
  r.kind_ = Kind::longrope;
  r.boundary_ = original;
  const double own_scaling = r.factor_ <= 1 ? 1.0 : std::sqrt(1 + std::log(r.factor_) / std::log(static_cast<double>(original)));
  r.scaling_ = static_cast<float>(attention.value_or(own_scaling));
  r.long_.resize(r.short_.size());
  for (size_t i = 0; i < r.short_.size(); ++i) {
    const float power = std::pow(static_cast<float>(r.theta_), static_cast<float>(2 * i) / static_cast<float>(head_dim));
    r.short_[i] = 1.0F / (static_cast<float>(near[i]) * power);
    r.long_[i] = 1.0F / (static_cast<float>(far[i]) * power);
  }
  return r;
}

float Rope::frequency(int64_t i, int64_t length) const {
  const auto at = static_cast<size_t>(i);
  if (kind_ == Kind::fixed || length <= boundary_) return short_[at];
  if (kind_ == Kind::longrope) return long_[at];
  const auto dim = static_cast<double>(2 * half());
  const double stretch = factor_ * static_cast<double>(length) / static_cast<double>(boundary_) - (factor_ - 1);
  const double theta = theta_ * std::pow(stretch, dim / (dim - 2));
  return 1.0F / std::pow(static_cast<float>(theta), static_cast<float>(2 * i) / static_cast<float>(dim));
}

void Rope::table(std::span<const int32_t> positions, int64_t length, float* cos, float* sin) const {
  const int64_t n = half();
  for (int64_t i = 0; i < n; ++i) {
    const float f = frequency(i, length);
    for (size_t t = 0; t < positions.size(); ++t) {
      const float angle = f * static_cast<float>(positions[t]);
      cos[static_cast<int64_t>(t) * n + i] = std::cos(angle) * scaling_;
      sin[static_cast<int64_t>(t) * n + i] = std::sin(angle) * scaling_;
    }
  }
}

void rotate(float* x, int64_t heads, int64_t width, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += width) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[i], b = x[half + i];
      x[i] = a * cos[i] - b * sin[i];
      x[half + i] = b * cos[i] + a * sin[i];
    }
  }
}

void rotate_neighbours(float* x, int64_t heads, int64_t width, int64_t half, const float* cos, const float* sin) {
  for (int64_t h = 0; h < heads; ++h, x += width) {
    for (int64_t i = 0; i < half; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cos[i] - b * sin[i];
      x[2 * i + 1] = b * cos[i] + a * sin[i];
    }
  }
}

}  // namespace qb::layer
