// What kernels reach beside what the machine allows, as a drawing: multiply-adds a second over multiply-adds for each byte of weights, both logarithmic. Below
// the slope is what reading memory allows, below the level lines what multiplying in registers allows.
//
// Pure: numbers in, an SVG document out.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace qb::cli {

struct Roof {
  double read_gbs = 0;
  std::vector<std::pair<std::string, double>> peaks;  // name, G multiply-adds a second
};
struct RoofPoint {
  std::string name;      // of the kernel and what it runs
  double intensity = 0;  // multiply-adds for each byte
  double rate = 0;       // G multiply-adds a second
  double of_bound = 0;   // fraction of what the roof allows it
};

// Points without a positive place are left out.
std::string roofline_svg(const std::string& title, const Roof& roof, std::span<const RoofPoint> points);

}  // namespace qb::cli
