#include "cli/curve.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "cli/html.h"

namespace qb::cli {
namespace {

constexpr double left = 70, right = 700, top = 30, bottom = 400;
constexpr size_t most_points = 150;  // of the line

constexpr std::string_view style = R"(<style>
svg { color-scheme: light dark; background: #fff; --ink: #1b1b1f; --faint: #6a6a72; --line: #d8d8de; --curve: #4c72b0; --one: #8a5a00; --chosen: #b3261e; font: 12px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { svg { background: #16161a; --ink: #e8e8ec; --faint: #9a9aa4; --line: #3a3a42; --curve: #7fa6e0; --one: #e6c07b; --chosen: #f2b8b5; } }
text { fill: var(--ink); } .faint { fill: var(--faint); } .grid { stroke: var(--line); } .curve { fill: none; stroke: var(--curve); stroke-width: 2; }
.measured { fill: var(--curve); } .one { fill: var(--one); } .chosen { fill: var(--chosen); }
</style>
)";

class Picture {
 public:
  Picture(const Mixed& m, std::string_view loss) : m_(m), loss_(loss) {
    for (const MixPoint& p : m.curve) see(p);
    for (const MixPoint& p : m.uniform) see(p);
    see(m.chosen);
    if (!(low_ < high_)) low_ = high_ / 10, high_ *= 10;
    low_ = std::pow(10, std::floor(std::log10(low_) + 1e-9));
    high_ = std::pow(10, std::ceil(std::log10(high_) - 1e-9));
    if (!(first_ < last_)) first_ -= 1, last_ += 1;
    first_ = std::floor(first_);
    last_ = std::ceil(last_);
  }

  std::string svg() const {
    std::string out = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 720 450\" role=\"img\">\n<title>{} by bits for a weight</title>\n{}",
                                  html_text(loss_), style);
    for (double x = first_; x <= last_; x += last_ - first_ > 8 ? 2 : 1)
      out += fmt::format("<path class=\"grid\" d=\"M{0:.1f} {1}V{2}\"/><text class=\"faint\" x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4:g}</text>\n",
                         at_x(x), top, bottom, bottom + 16, x);
    for (double y = low_; y <= high_ * 1.001; y *= 10)
      out += fmt::format("<path class=\"grid\" d=\"M{1} {0:.1f}H{2}\"/><text class=\"faint\" x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5:g}</text>\n",
                         at_y(y), left, right, left - 6, at_y(y) + 4, y);
    out += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">bits for a weight</text><text x=\"{}\" y=\"18\">{}</text>\n", (left + right) / 2,
                       bottom + 38, left, html_text(loss_));
    out += line();
    for (const MixPoint& p : m_.curve)
      if (p.measured) out += dot(p, *p.measured, "measured", "a mixture", 3);
    for (const MixPoint& p : m_.uniform) {
      const double y = p.measured.value_or(p.predicted);
      out += dot(p, y, "one", p.scheme, 4);
      if (y > 0) out += fmt::format("<text class=\"one\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", at_x(p.bits) + 7, at_y(y) - 4, html_text(p.scheme));
    }
    out += dot(m_.chosen, m_.chosen.measured.value_or(m_.chosen.predicted), "chosen", "chosen", 6);
    out += fmt::format(
        "<text class=\"faint\" x=\"{}\" y=\"{}\" text-anchor=\"end\">line: the best mixtures, predicted; dots: measured; large dot: chosen</text>\n</svg>\n",
        right, top + 14);
    return out;
  }

 private:
  void see(const MixPoint& p) {
    first_ = std::min(first_, p.bits);
    last_ = std::max(last_, p.bits);
    for (const std::optional<double> y : {std::optional(p.predicted), p.measured}) {
      if (!y || !(*y > 0) || !std::isfinite(*y)) continue;
      low_ = std::min(low_, *y);
      high_ = std::max(high_, *y);
    }
  }
  double at_x(double bits) const { return left + (right - left) * (bits - first_) / (last_ - first_); }
  double at_y(double loss) const { return bottom - (bottom - top) * std::log(std::clamp(loss, low_, high_) / low_) / std::log(high_ / low_); }

  std::string line() const {
    std::string out = "<path class=\"curve\" d=\"";
    const size_t step = m_.curve.size() / most_points + 1;
    char command = 'M';
    for (size_t i = 0; i < m_.curve.size(); ++i) {
      const MixPoint& p = m_.curve[i];
      if (!(p.predicted > 0) || (i % step != 0 && i + 2 < m_.curve.size())) continue;
      out += fmt::format("{}{:.1f} {:.1f}", command, at_x(p.bits), at_y(p.predicted));
      command = 'L';
    }
    return out + "\"/>\n";
  }
  std::string dot(const MixPoint& p, double y, std::string_view css, std::string_view name, double radius) const {
    if (!(y > 0)) return {};
    return fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:g}\"><title>{}: {:.3f} bits, {:.4g}</title></circle>\n", css, at_x(p.bits),
                       at_y(y), radius, html_text(name), p.bits, y);
  }

  const Mixed& m_;
  std::string_view loss_;
  double first_ = 1e9, last_ = 0, low_ = 1e9, high_ = 1e-12;
};

}  // namespace

std::string curve_svg(const Mixed& m, std::string_view loss) {
  return Picture(m, loss).svg();
}

}  // namespace qb::cli
