#include "cli/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "cli/html.h"

namespace qb::cli {
namespace {

constexpr double width = 960, height = 600, left = 80, right = 330, top = 50, bottom = 60;

// From one power of ten to another.
struct Axis {
  double low, high, from, to;  // exponents; places in the drawing
  double at(double x) const { return from + (std::log10(x) - low) / (high - low) * (to - from); }
};

Axis axis(double least, double most, double from, double to) {
  const double low = std::floor(std::log10(least)), high = std::ceil(std::log10(most));
  return {low, std::max(high, low + 1), from, to};
}

std::string text(double x, double y, const std::string& what, std::string_view more = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, more, html_text(what));
}
std::string line(double x1, double y1, double x2, double y2, std::string_view style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2, y2, style);
}

}  // namespace

std::string roofline_svg(const std::string& title, const Roof& roof, std::span<const RoofPoint> points) {
  constexpr std::string_view grid = "stroke=\"#ddd\"", limit = "stroke=\"#333\" stroke-width=\"1.5\"";
  std::vector<RoofPoint> drawn;
  std::copy_if(points.begin(), points.end(), std::back_inserter(drawn), [](const RoofPoint& p) { return p.intensity > 0 && p.rate > 0; });
  double highest = 1, lowest = 1, widest = 10, narrowest = 1;
  for (const auto& [name, peak] : roof.peaks) highest = std::max(highest, peak);
  lowest = highest;
  for (const RoofPoint& p : drawn) {
    highest = std::max(highest, p.rate);
    lowest = std::min(lowest, p.rate);
    widest = std::max(widest, p.intensity);
    narrowest = std::min(narrowest, p.intensity);
  }
  const Axis x = axis(narrowest, widest * 1.01, left, width - right), y = axis(lowest, highest * 1.01, height - bottom, top);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"{0}\" height=\"{1}\" fill=\"white\"/>\n",
      width, height);
  svg += text(left, 28, title, "font-size=\"15\"");
  for (double e = x.low; e <= x.high; ++e) {
    const double at = x.at(std::pow(10, e));
    svg += line(at, top, at, height - bottom, grid) + text(at, height - bottom + 18, fmt::format("{:g}", std::pow(10, e)), "text-anchor=\"middle\"");
  }
  for (double e = y.low; e <= y.high; ++e) {
    const double at = y.at(std::pow(10, e));
    svg += line(left, at, width - right, at, grid) + text(left - 8, at + 4, fmt::format("{:g}", std::pow(10, e)), "text-anchor=\"end\"");
  }
  svg += text((left + width - right) / 2, height - 14, "multiply-adds for each byte of weights", "text-anchor=\"middle\"");
  svg += text(20, (top + height - bottom) / 2, "G multiply-adds/s", "text-anchor=\"middle\" transform=\"rotate(-90 20 295)\"");
  const double end = std::pow(10, x.high), begin = std::pow(10, x.low);
  double most = 0;
  for (const auto& [name, peak] : roof.peaks) {
    most = std::max(most, peak);
    if (peak <= 0 || roof.read_gbs <= 0) continue;
    const double corner = std::clamp(peak / roof.read_gbs, begin, end);
    svg += line(x.at(corner), y.at(peak), x.at(end), y.at(peak), limit) + text(x.at(end) + 6, y.at(peak) + 4, fmt::format("{} {:.0f}", name, peak));
  }
  if (roof.read_gbs > 0 && most > 0) {
    const double from = std::max(begin, std::pow(10, y.low) / roof.read_gbs), to = std::min(end, most / roof.read_gbs);
    if (from < to)
      svg += line(x.at(from), y.at(from * roof.read_gbs), x.at(to), y.at(to * roof.read_gbs), limit) +
             text(x.at(from) + 8, y.at(from * roof.read_gbs) - 10, fmt::format("reading {:.1f} GB/s", roof.read_gbs));
  }
  // Numbers beside the points, their names in a list.
  double row = top + 60;
  for (size_t i = 0; i < drawn.size(); ++i) {
    const RoofPoint& p = drawn[i];
    svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3.5\" fill=\"#06c\"/>\n", x.at(p.intensity), y.at(p.rate));
    svg += text(x.at(p.intensity) + 5, y.at(p.rate) + 3 + static_cast<double>(i % 3) * 9, fmt::format("{}", i + 1), "font-size=\"8\" fill=\"#06c\"");
    svg += text(width - right + 70, row, fmt::format("{} {} {:.2f}", i + 1, p.name, p.of_bound), "font-size=\"8\"");
    row += std::min(11.0, (height - top - 70) / static_cast<double>(drawn.size()));
  }
  return svg + "</svg>\n";
}

}  // namespace qb::cli
