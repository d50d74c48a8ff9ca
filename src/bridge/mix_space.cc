#include "bridge/mix_space.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <unordered_map>

#include "base/json.h"
#include "exec/execute.h"
#include "pass/assignment.h"
#include "pass/settle.h"

namespace qb {
namespace {

// In every dialect some of them; larger groups first.
constexpr std::string_view usual[] = {
    "nvfp4", "nvfp4/nvfp4_mse.modelopt", "nvfp4/nvfp4_four_over_six.modelopt", "mxfp4", "int4_g128", "int4_g64", "fp8_channel", "fp8_tensor", "int8_channel",
    "bf16"};

bool is_plain(std::string_view name) {
  return name == "bf16" || name == "none";
}

// A scheme in the configuration language: as it is named, or with the recipe that is named behind a slash.
Json entry_of(std::string_view name) {
  const size_t slash = name.find('/');
  if (is_plain(name)) return nullptr;
  if (slash == name.npos) return std::string(name);
  const Result<ir::Scheme> scheme = ir::parse_scheme(name.substr(0, slash));
  Json out = {{"weight", scheme ? to_string(scheme->weight) : std::string(name.substr(0, slash))}, {"recipe", std::string(name.substr(slash + 1))}};
  if (scheme && scheme->input) out["activation"] = to_string(*scheme->input);
  return out;
}

std::string why_of(const Diagnostics& diag) {
  for (const Problem& p : diag.all())
    if (p.severity == Severity::error) return fmt::format("{}: {}, expected {}", p.code, p.found, p.expected);
  return "the job cannot be planned";
}

// The rule that names a module's group.
std::string match_of(const arch::Module& t) {
  if (t.expert >= 0) return t.path.substr(0, t.path.rfind(fmt::format(".{}.", t.expert)));
  return t.fused.empty() ? t.path : t.fused;
}

class Builder {
 public:
  Builder(const Session& s, const JobOptions& job, std::string_view numerics, Context& context, MixSpace& out, Diagnostics& diag)
      : s_(s), job_(job), numerics_(numerics), context_(context), limits_(context.limits), out_(out), diag_(diag) {}

  Result<bool> run(const std::vector<std::string>& names) {
    if (job_.forms.projections == pass::Form::joined || job_.forms.experts == pass::Form::joined)
      return Error{Errc::invalid_argument, "schemes are mixed in matrices as they are, or each by itself: convert --projections fused afterwards"};
    for (const ir::Module& m : s_.checkpoint.modules)
      if (m.scheme) {
        diag_.report("already-quantized", {.module = m.path}, fmt::format("{} in the checkpoint", to_string(*m.scheme)),
                     "plain numbers, from which every scheme can be made: convert --to dense first, or take the original model");
        return false;
      }
    out_.plain = s_.checkpoint;
    StreamSurveyor surveyor(*s_.package.source, context_);
    Diagnostics said;  // by the plans too
    QB_TRY(pass::settle(out_.plain, surveyor, said));
    std::vector<pass::Reformed> reformed;
    std::vector<pass::SmallerBlocks> smaller;
    if (!pass::separate(out_.plain, taken_apart(s_, job_.forms), reformed, smaller, diag_)) return false;
    if (job_.quantize) out_.ignore = job_.quantize->config.ignore;
    if (names.empty()) {
      for (const std::string_view name : usual)
        if (const Result<void> known = add(std::string(name), false); !known) out_.left_out.push_back({std::string(name), known.error().what});
    } else {
      for (const std::string& name : names) {
        QB_TRY(add(name, true));
        if (!diag_.ok()) return false;
      }
    }
    if (!group()) return false;
    return mixes();
  }

 private:
  // The job that makes a configuration's schemes.
  Result<JobOptions> job_for(const std::string& config) const {
    JobOptions out = job_;
    QB_ASSIGN(pass::QuantConfig parsed, pass::parse_quant_config(config));
    if (job_.quantize) parsed.kv_cache = job_.quantize->config.kv_cache;
    const RegexCompiler regex = job_.quantize ? job_.quantize->regex : nullptr;
    QB_ASSIGN(out.quantize, pass::quantize_options(std::move(parsed), numerics_, job_.to));
    out.quantize->regex = regex;
    return out;
  }

  // Whether the configuration's default is about the module.
  Result<std::vector<size_t>> spoken_of(const pass::QuantConfig& config, RegexCompiler regex) {
    std::vector<size_t> out;
    std::optional<pass::Assignment> rules = pass::Assignment::compile(config, regex, diag_);
    for (size_t i = 0; rules && i < out_.plain.modules.size(); ++i) {
      const ir::Module& m = out_.plain.modules[i];
      if (m.kind != arch::Kind::linear || m.topology < 0 || m.part(ir::Role::code) == nullptr) continue;
      if (rules->of(out_.plain.topology.modules[static_cast<size_t>(m.topology)], out_.plain.topology, m.scheme).says_weight) out.push_back(i);
    }
    return out;
  }

  Result<void> add(const std::string& name, bool asked) {
    if (is_plain(name)) {
      out_.schemes.push_back({name, std::nullopt});
      out_.made.emplace_back();
      planned_.emplace_back();
      return {};
    }
    Json config = {{"default", entry_of(name)}, {"ignore", out_.ignore}};
    QB_ASSIGN(JobOptions job, job_for(dump_json(config)));
    const pass::Says::Weight& weight = *job.quantize->config.everything.weight;
    QB_ASSIGN(const std::vector<size_t> modules, spoken_of(job.quantize->config, job.quantize->regex));
    if (!diag_.ok()) return {};
    size_t fitting = 0;
    for (const size_t i : modules) {
      const ir::Module& m = out_.plain.modules[i];
      spoken_of_.insert(i);
      const arch::Module& t = out_.plain.topology.modules[static_cast<size_t>(m.topology)];
      const bool fits = weight.type && pass::whole_groups(*weight.type, m.k) && t.layer >= 0 && t.layer < out_.plain.topology.layers;
      fitting += fits ? 1 : 0;
      if (!fits) config["ignore"].push_back(m.path);
    }
    if (fitting == 0) {
      out_.left_out.push_back({name, "no linear of a layer has whole groups of its size"});
      return {};
    }
    QB_ASSIGN(job, job_for(dump_json(config)));
    Job planned;
    Diagnostics diag;
    const bool fits = plan_job(s_, job, context_, planned, diag);
    context_.limits = limits_;
    if (!fits && asked) {
      for (const Problem& p : diag.all())
        if (p.severity == Severity::error) diag_.add(p);
      return {};
    }
    ir::Checkpoint made = out_.plain;
    Diagnostics again;
    if (!fits || !pass::quantize(made, *job.quantize, again)) {
      out_.left_out.push_back({name, why_of(diag)});
      return {};
    }
    std::map<size_t, ir::Module> of;
    for (size_t i = 0; i < made.modules.size(); ++i)
      if (made.modules[i].make) of.emplace(i, std::move(made.modules[i]));
    const std::optional<ir::Scheme> scheme = of.empty() ? std::nullopt : of.begin()->second.scheme;
    out_.schemes.push_back({name, scheme});
    out_.made.push_back(std::move(of));
    total_of_ = planned_.size();
    total_ = planned.bytes_out;
    planned_.push_back(bytes_by_module(planned));
    return {};
  }

  // Bytes of the tensors that belong to each module, without biases, which no scheme changes.
  std::unordered_map<std::string, uint64_t> bytes_by_module(const Job& job) const {
    std::unordered_map<std::string, uint64_t> out;
    for (const ir::Module& m : out_.plain.modules) out.emplace(m.path, 0);
    for (const PlannedFile& f : job.files)
      for (const prog::Program& p : f.programs)
        for (const prog::Output& o : p.outputs) {
          if (o.name.ends_with(".bias")) continue;
          for (size_t dot = o.name.rfind('.'); dot != o.name.npos && dot > 0; dot = o.name.rfind('.', dot - 1))
            if (const auto it = out.find(o.name.substr(0, dot)); it != out.end()) {
              it->second += prog::output_bytes(o);
              break;
            }
        }
    return out;
  }

  uint64_t bytes_of(size_t module, size_t scheme) const {
    const ir::Module& m = out_.plain.modules[module];
    if (out_.schemes[scheme].scheme) return planned_[scheme].at(m.path);
    return m.part(ir::Role::code)->bytes;
  }

  bool group() {
    std::map<std::string, size_t> by_match;
    for (const size_t i : spoken_of_) {
      const ir::Module& m = out_.plain.modules[i];
      const arch::Module& t = out_.plain.topology.modules[static_cast<size_t>(m.topology)];
      const auto [at, fresh] = by_match.emplace(match_of(t), out_.groups.size());
      if (fresh) out_.groups.push_back({.match = at->first, .modules = {}, .layer = t.layer, .weights = 0, .options = {}});
      out_.groups[at->second].modules.push_back(i);
    }
    for (MixGroup& g : out_.groups)
      for (size_t s = 0; s < out_.schemes.size(); ++s) {
        const bool plain = !out_.schemes[s].scheme;
        const bool fits = std::all_of(g.modules.begin(), g.modules.end(), [&](size_t i) { return plain || out_.made[s].contains(i); });
        if (!fits) continue;
        g.options.push_back(
            {s, std::accumulate(g.modules.begin(), g.modules.end(), uint64_t{0}, [&](uint64_t sum, size_t i) { return sum + bytes_of(i, s); })});
      }
    const auto quantizes = [&](const MixOption& o) { return out_.schemes[o.scheme].scheme.has_value(); };
    for (const MixGroup& g : out_.groups)
      if (std::none_of(g.options.begin(), g.options.end(), quantizes))
        for (const size_t i : g.modules) out_.untouched.push_back(out_.plain.modules[i].path);
    std::erase_if(out_.groups, [&](const MixGroup& g) { return std::none_of(g.options.begin(), g.options.end(), quantizes); });
    std::stable_sort(out_.groups.begin(), out_.groups.end(), [](const MixGroup& a, const MixGroup& b) { return a.layer < b.layer; });
    if (out_.groups.empty()) {
      diag_.report("nothing-to-quantize", {}, "no linear of a layer is left that a scheme fits",
                   "at least one; --schemes with other groups, fewer rules in --ignore");
      return false;
    }
    out_.other_bytes = total_;
    for (MixGroup& g : out_.groups)
      for (const size_t i : g.modules) {
        g.weights += static_cast<uint64_t>(out_.plain.modules[i].n) * static_cast<uint64_t>(out_.plain.modules[i].k);
        out_.other_bytes -= planned_[total_of_].at(out_.plain.modules[i].path);
      }
    for (const MixGroup& g : out_.groups) out_.weights += g.weights;
    return true;
  }

  // The target may hold each scheme and not all of them side by side.
  Result<bool> mixes() {
    Mix each(out_.groups.size());
    for (size_t g = 0; g < each.size(); ++g) each[g] = g % out_.groups[g].options.size();
    QB_ASSIGN(JobOptions job, job_for(out_.config(each)));
    Job planned;
    const bool fits = plan_job(s_, job, context_, planned, diag_);
    context_.limits = limits_;
    return fits;
  }

  const Session& s_;
  const JobOptions& job_;
  std::string_view numerics_;
  Context& context_;
  const Limits limits_;
  MixSpace& out_;
  Diagnostics& diag_;
  std::vector<std::unordered_map<std::string, uint64_t>> planned_;  // by scheme; empty for plain numbers
  std::set<size_t> spoken_of_;
  uint64_t total_ = 0;  // bytes of all tensors with the scheme total_of_
  size_t total_of_ = 0;
};

}  // namespace

void MixSpace::set(ir::Checkpoint& c, size_t group, size_t option) const {
  const size_t scheme = groups[group].options[option].scheme;
  for (const size_t i : groups[group].modules) c.modules[i] = schemes[scheme].scheme ? made[scheme].at(i) : plain.modules[i];
}

ir::Checkpoint MixSpace::with(const Mix& mix) const {
  ir::Checkpoint out = plain;
  for (size_t g = 0; g < groups.size(); ++g) set(out, g, mix[g]);
  return out;
}

uint64_t MixSpace::bytes(const Mix& mix) const {
  uint64_t sum = 0;
  for (size_t g = 0; g < groups.size(); ++g) sum += groups[g].options[mix[g]].bytes;
  return sum;
}

std::string MixSpace::config(const Mix& mix) const {
  const auto scheme_of = [&](size_t g) { return groups[g].options[mix[g]].scheme; };
  std::vector<uint64_t> weights_of(schemes.size());
  for (size_t g = 0; g < groups.size(); ++g) weights_of[scheme_of(g)] += groups[g].weights;
  const auto commonest = static_cast<size_t>(std::max_element(weights_of.begin(), weights_of.end()) - weights_of.begin());
  Json out = Json::object();
  out["default"] = entry_of(schemes[commonest].name);
  if (!ignore.empty()) out["ignore"] = ignore;
  Json overrides = Json::array();
  for (const std::string& path : untouched) overrides.push_back({{"match", path}, {"scheme", nullptr}});
  for (size_t g = 0; g < groups.size(); ++g)
    if (scheme_of(g) != commonest) {
      Json entry = entry_of(schemes[scheme_of(g)].name);
      if (!entry.is_object()) entry = {{"scheme", std::move(entry)}};
      Json one = {{"match", groups[g].match}};
      one.update(entry);
      overrides.push_back(std::move(one));
    }
  if (!overrides.empty()) out["overrides"] = std::move(overrides);
  return dump_json(out);
}

std::optional<Mix> MixSpace::uniform(size_t scheme) const {
  Mix out;
  for (const MixGroup& g : groups) {
    const auto it = std::find_if(g.options.begin(), g.options.end(), [&](const MixOption& o) { return o.scheme == scheme; });
    if (it == g.options.end()) return std::nullopt;
    out.push_back(static_cast<size_t>(it - g.options.begin()));
  }
  return out;
}

Result<bool> mix_space(const Session& s, const JobOptions& job, const std::vector<std::string>& names, std::string_view numerics, Context& context,
                       MixSpace& out, Diagnostics& diag) {
  return Builder(s, job, numerics, context, out, diag).run(names);
}

}  // namespace qb
