// What kernels took on one machine, for the oracle to go by: the cost model times the ratio of what was measured to what it says, for the same kernel and
// scheme. Between the problems that were measured ratios are averaged (their logarithms, nearer ones weighed more), so a profile of some hundred timings
// serves problems of any size. A kernel that was not measured with a scheme has the ratios of its other schemes, one that was not measured those of all.
//
// Goals: costs of one machine, as a pure function of the timings. Non-goals: measuring (bridge/tune.h), where files lie (cli). Immutable: thread-safe.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "host/cpu.h"
#include "kernel/kernel.h"

namespace qb::oracle {

struct Timing {
  std::string kernel, scheme;  // names, as to_string says them
  int64_t m = 0, n = 0, k = 0;
  double ns = 0;  // of one call, with the machine's threads
};

struct Timings {
  std::string features;  // of the processor: host::to_string
  int cores = 0, threads = 0;
  std::vector<Timing> all;
};
// JSON: {schema: quantbridge.profile/1, features, cores, threads, timings: [{kernel, scheme, m, n, k, ns}]}. Errors: invalid_argument, with what was found.
Result<Timings> read_timings(std::string_view json);
std::string to_json_text(const Timings& timings);

class Profile {
 public:
  // Timings of kernels that are not among `kernels`, or of schemes that they do not run, are left out.
  Profile(Timings timings, std::span<const kernel::Kernel* const> kernels, const host::Cpu& cpu);
  // Made on such a processor.
  bool fits(const host::Cpu& cpu) const { return features_ == host::to_string(cpu.features) && cores_ == cpu.cores; }
  double cost_ns(const kernel::Kernel& kernel, const kernel::Problem& problem, const host::Cpu& cpu) const;

 private:
  struct Point {
    double log_m, log_size, log_ratio;  // to the base 2
  };
  const std::vector<Point>& points_for(const kernel::Kernel& kernel, const std::string& scheme) const;

  std::string features_;
  int cores_ = 0;
  std::vector<Point> all_;
  std::map<const kernel::Kernel*, std::vector<Point>> by_kernel_;
  std::map<std::pair<const kernel::Kernel*, std::string>, std::vector<Point>> by_scheme_;
};

}  // namespace qb::oracle
