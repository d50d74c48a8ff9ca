#include "oracle/profile.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/json.h"

namespace qb::oracle {
namespace {

constexpr std::string_view schema = "quantbridge.profile/1";
constexpr size_t most_timings = 100000;

Error no_profile(const std::string& what) {
  return {Errc::invalid_argument, "no profile of kernels: " + what};
}

Result<Timing> read_timing(const Json& j) {
  Timing t{std::string(string_at(j, "kernel")), std::string(string_at(j, "scheme")), int_at(j, "m", 0), int_at(j, "n", 0), int_at(j, "k", 0), 0};
  if (const Json* ns = find(j, "ns"); ns != nullptr && ns->is_number()) t.ns = ns->get<double>();
  constexpr int64_t most = int64_t{1} << 31;
  const auto sound = [](int64_t v) { return v > 0 && v <= most; };
  if (t.kernel.empty() || t.scheme.empty() || !sound(t.m) || !sound(t.n) || !sound(t.k) || !(t.ns > 0) || !std::isfinite(t.ns))
    return no_profile(fmt::format("a timing is {}; expected kernel, scheme, and m, n, k and ns above 0", dump_json(j, -1).substr(0, 200)));
  return t;
}

// A scheme as a kernel sees it under what activations are to be; empty where no timing is of its kind.
std::string scheme_key(const kernel::Problem& p) {
  if (p.inputs == kernel::Inputs::f32) return "";
  ir::Scheme s = p.scheme;
  if (p.inputs == kernel::Inputs::bf16) s.input.reset();
  return ir::to_string(s);
}

double log_size(const kernel::Problem& p) {
  return std::log2(static_cast<double>(p.n)) + std::log2(static_cast<double>(p.k));
}

}  // namespace

Result<Timings> read_timings(std::string_view text) {
  Json j;
  JsonError error;
  if (!parse_json(text, j, error)) return no_profile(error.what);
  if (!j.is_object() || string_at(j, "schema") != schema) return no_profile(fmt::format("its schema is not {}", schema));
  Timings t{.features = std::string(string_at(j, "features")), .cores = 0, .threads = 0, .all = {}};
  const int64_t cores = int_at(j, "cores", 0), threads = int_at(j, "threads", 0);
  const auto sound = [](int64_t v) { return v > 0 && v <= 1 << 20; };
  if (t.features.empty() || !sound(cores) || !sound(threads)) return no_profile("expected features, cores and threads");
  t.cores = static_cast<int>(cores);
  t.threads = static_cast<int>(threads);
  const Json* timings = find(j, "timings");
  if (timings == nullptr || !timings->is_array() || timings->size() > most_timings)
    return no_profile(fmt::format("expected timings, a list of at most {}", most_timings));
  for (const Json& each : *timings) {
    QB_ASSIGN(Timing one, read_timing(each));
    t.all.push_back(std::move(one));
  }
  return t;
}

std::string to_json_text(const Timings& t) {
  Json timings = Json::array();
  for (const Timing& each : t.all)
    timings.push_back({{"kernel", each.kernel}, {"scheme", each.scheme}, {"m", each.m}, {"n", each.n}, {"k", each.k}, {"ns", std::round(each.ns)}});
  const Json j = {{"schema", schema}, {"features", t.features}, {"cores", t.cores}, {"threads", t.threads}, {"timings", std::move(timings)}};
  return dump_json(j, 1) + "\n";
}

Profile::Profile(Timings timings, std::span<const kernel::Kernel* const> kernels, const host::Cpu& cpu)
    : features_(std::move(timings.features)), cores_(timings.cores) {
  for (Timing& t : timings.all) {
    const auto it = std::find_if(kernels.begin(), kernels.end(), [&](const kernel::Kernel* k) { return k->name == t.kernel; });
    const Result<ir::Scheme> scheme = ir::parse_scheme(t.scheme);
    if (it == kernels.end() || !scheme) continue;
    const kernel::Problem p{.m = t.m, .n = t.n, .k = t.k, .scheme = *scheme};
    if (!(*it)->accepts(p).ok) continue;
    const Point point{std::log2(static_cast<double>(t.m)), log_size(p), std::log2(t.ns / (*it)->cost_ns(p, cpu))};
    all_.push_back(point);
    by_kernel_[*it].push_back(point);
    by_scheme_[{*it, ir::to_string(*scheme)}].push_back(point);
  }
}

const std::vector<Profile::Point>& Profile::points_for(const kernel::Kernel& kernel, const std::string& scheme) const {
  if (const auto it = by_scheme_.find({&kernel, scheme}); it != by_scheme_.end()) return it->second;
  if (const auto it = by_kernel_.find(&kernel); it != by_kernel_.end()) return it->second;
  return all_;
}

double Profile::cost_ns(const kernel::Kernel& kernel, const kernel::Problem& p, const host::Cpu& cpu) const {
  const double m = std::log2(static_cast<double>(p.m)), size = log_size(p);
  double sum = 0, weights = 0;
  for (const Point& point : points_for(kernel, scheme_key(p))) {
    // The number of tokens changes what a kernel does, sizes only where its weight lies.
    const double dm = point.log_m - m, ds = (point.log_size - size) / 4, square = dm * dm + ds * ds, weight = 1 / (1e-6 + square * square);
    sum += weight * point.log_ratio;
    weights += weight;
  }
  return kernel.cost_ns(p, cpu) * (weights > 0 ? std::exp2(sum / weights) : 1.0);
}

}  // namespace qb::oracle
