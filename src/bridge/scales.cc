#include "bridge/scales.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "exec/execute.h"

namespace qb {
namespace {

using prog::SurveyResult;

// A scalar needs no reading: the session has it.
SurveyResult one(const ir::Stored& part) {
  const double x = part.form == ir::ScaleForm::divide ? 1 / *part.value : part.form == ir::ScaleForm::exponent ? std::exp2(*part.value - 127) : *part.value;
  SurveyResult r{.count = 1};
  r.nan = std::isnan(x) ? 1 : 0;
  r.inf = std::isinf(x) ? 1 : 0;
  r.zero = x == 0 ? 1 : 0;
  r.negative = x < 0 ? 1 : 0;
  if (std::isfinite(x)) r.least = r.largest = std::fabs(x);
  return r;
}

struct Sum {
  ScaleHistogram h;
  std::map<int, int64_t> octaves;

  void add(const SurveyResult& r) {
    ++h.tensors;
    h.count += r.count;
    h.zero += r.zero;
    h.negative += r.negative;
    h.not_finite += r.nan + r.inf;
    if (r.largest <= 0) return;
    h.least = h.largest == 0 ? r.least : std::min(h.least, r.least);
    h.largest = std::max(h.largest, r.largest);
    ++octaves[std::ilogb(r.largest)];
  }

  ScaleHistogram take() {
    if (octaves.empty()) return std::move(h);
    h.first = octaves.begin()->first;
    h.counts.resize(static_cast<size_t>(octaves.rbegin()->first - h.first) + 1);
    for (const auto& [octave, n] : octaves) h.counts[static_cast<size_t>(octave - h.first)] = n;
    return std::move(h);
  }
};

}  // namespace

Result<std::vector<ScaleHistogram>> scale_histograms(const Session& s, Context& context) {
  Progress progress;
  for (const ir::Module& m : s.checkpoint.modules)
    for (const ir::Stored& part : m.parts)
      if (ir::is_factor(part.role)) progress.total += part.bytes;
  StreamSurveyor surveyor(*s.package.source, context);
  std::map<std::pair<std::string, ir::Role>, Sum> sums;
  for (const ir::Module& m : s.checkpoint.modules)
    for (const ir::Stored& part : m.parts) {
      if (!ir::is_factor(part.role)) continue;
      if (context.stop()) return Error{Errc::cancelled, "interrupted"};
      SurveyResult r;
      if (part.value) {
        r = one(part);
      } else {
        QB_ASSIGN(r, surveyor.ask({.kind = prog::SurveyKind::floats, .input = prog::input_of(part, 1)}));
      }
      Sum& sum = sums[{m.scheme ? to_string(*m.scheme) : std::string(), part.role}];
      sum.h.role = part.role;
      sum.add(r);
      progress.done += part.bytes;
      if (context.progress) context.progress(progress);
    }
  std::vector<ScaleHistogram> out;
  for (auto& [key, sum] : sums) {
    sum.h.scheme = key.first;
    out.push_back(sum.take());
  }
  return out;
}

}  // namespace qb
