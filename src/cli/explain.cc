// explain: which kernel runs each layer, and why the others do not.
#include <fmt/format.h>

#include <algorithm>

#include "arch/match.h"
#include "base/json.h"
#include "bridge/session.h"
#include "cli/command.h"
#include "cli/profile.h"
#include "cli/report.h"
#include "cli/runtime_options.h"
#include "ir/stack.h"
#include "layer/linear.h"

namespace qb::cli {
namespace {

struct Options {
  std::string path, host, layer;
  int64_t tokens = 1;
  std::vector<std::string> prefer, deny;
  std::string profile;
  QuantizationOptions quantization;
  CommonOptions common;
};

int list_hosts() {
  std::vector<host::Cpu> all{host::this_cpu()};
  all.insert(all.end(), host::known_cpus().begin(), host::known_cpus().end());
  size_t width = 0;
  for (const host::Cpu& c : all) width = std::max(width, to_string(c.features).size());
  print_out(fmt::format("{:<14} {:<{}} {:>5} {:>10} {:>14}  {}\n", "host", "features", width, "cores", "clock GHz", "read GB/s, 1T", "what"));
  for (const host::Cpu& c : all) {
    const std::string unused = c.other.empty() ? "" : fmt::format("; no kernel uses its {}", fmt::join(c.other, ", "));
    print_out(
        fmt::format("{:<14} {:<{}} {:>5} {:>10.2f} {:>14.1f}  {}{}\n", c.name, to_string(c.features), width, c.cores, c.clock_ghz, c.read_gbs, c.what, unused));
  }
  return exit_done;
}

// This machine, a named one, or one that a file describes. Errors: invalid_argument, not_found.
Result<host::Cpu> find_host(const std::string& name) {
  if (name.empty()) return host::this_cpu();
  for (const host::Cpu& c : host::known_cpus())
    if (c.name == name) return c;
  if (!name.ends_with(".json"))
    return Error{Errc::invalid_argument, fmt::format("unknown host '{}'; --host list shows them, and FILE.json describes one", escape(name))};
  QB_ASSIGN(const std::string text, read_file(name));
  Result<host::Cpu> cpu = host::read_cpu(text);
  return cpu ? cpu : Error{cpu.error().code, fmt::format("{}: {}", escape(name), cpu.error().what)};
}

int run(const Options& o) {
  if (o.host == "list") return list_hosts();
  if (o.path.empty()) {
    print_err("quantbridge explain: PATH is required\n");
    return exit_usage;
  }
  const Result<host::Cpu> cpu = find_host(o.host);
  if (!cpu) return fail("explain", cpu.error(), o.common);
  Result<Session> s = open_session(o.path);
  if (!s) return fail("explain", s.error(), o.common);
  int code = exit_done;
  Context context;
  if (!apply_quantization("explain", o.quantization, o.common, *s, context, code)) return code;
  if (!s->readable) {
    if (o.common.json)
      print_json(envelope("explain", false, s->diag.all()));
    else
      print_problems(s->diag.all());
    return exit_problems;
  }
  Json layers = Json::array();
  std::string text, last;
  int repeats = 0;
  oracle::Policy policy{.prefer = o.prefer, .deny = o.deny};
  if (o.host.empty() || !o.profile.empty()) {
    Result<std::shared_ptr<const oracle::Profile>> profile = find_profile(o.profile, *cpu);
    if (!profile) return fail("explain", profile.error(), o.common);
    policy.profile = std::move(*profile);
  }
  for (const ir::Module& m : s->checkpoint.modules) {
    const bool stack = m.stack.experts > 0;
    if ((m.kind != arch::Kind::linear && !stack) || m.part(ir::Role::code) == nullptr || (!o.layer.empty() && !shell_match(o.layer, m.path))) continue;
    const ir::Module linear = stack ? ir::expert_of(m, 0) : m;
    const kernel::Problem problem{.m = o.tokens, .n = linear.n, .k = linear.k, .scheme = layer::kernel_scheme(linear)};
    const Result<oracle::LinearPlan> plan = layer::plan_for(problem, *cpu, policy);
    if (!plan) {
      code = exit_problems;
      text += fmt::format("{}: {}\n  {}\n", m.path, to_string(problem), plan.error().what);
      continue;
    }
    const oracle::Choice& choice = plan->choice_for(o.tokens);
    const double cost = choice.considered.front().cost_ns;
    Json considered = Json::array();
    std::string why;
    for (const oracle::Candidate& c : choice.considered) {
      considered.push_back({{"kernel", c.kernel->name}, {"ok", c.ok}, {"why", c.why}, {"cost", c.ok ? Json(cost) : Json(nullptr)}});
      if (c.kernel != choice.winner) why += fmt::format("    not {:<32} {}\n", c.kernel->name, c.why);
    }
    layers.push_back({{"path", m.path},
                      {"problem", to_string(problem)},
                      {"tokens", o.tokens},
                      {"winner", choice.winner->name},
                      {"note", choice.considered.front().note},
                      {"considered", std::move(considered)}});
    const std::string& note = choice.considered.front().note;
    const std::string body =
        fmt::format("{}{}\n    runs {:<31} about {:.0f} us{}{}\n{}", to_string(problem), stack ? fmt::format(", each of {} experts", m.stack.experts) : "",
                    choice.winner->name, cost / 1e3, note.empty() ? "" : "; ", note, why);
    if (body == last) {
      ++repeats;
      continue;
    }
    if (repeats > 0) text += fmt::format("  ... and {} more like it\n", repeats);
    repeats = 0;
    text += fmt::format("{}: {}", m.path, body);
    last = body;
  }
  if (repeats > 0) text += fmt::format("  ... and {} more like it\n", repeats);
  const std::string_view costs = policy.profile ? "as measured by bench --tune" : "by the model";
  if (o.common.json) {
    Json j = envelope("explain", code == exit_done, s->diag.all());
    j["path"] = s->path.string();
    j["host"] = cpu->name;
    j["costs"] = costs;
    j["layers"] = std::move(layers);
    print_json(j);
  } else {
    print_out(fmt::format("on {} ({}), {} token{}; costs {}\n{}", cpu->name, to_string(cpu->features), o.tokens, o.tokens == 1 ? "" : "s", costs, text));
  }
  return code;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("PATH", o->path, "checkpoint directory");
  app.add_option("--host", o->host, "a named machine in place of this one (list shows them), or one that FILE.json describes")->type_name("NAME|FILE");
  app.add_option("--layer", o->layer, "only these modules")->type_name("GLOB");
  app.add_option("--tokens", o->tokens, "tokens in one call")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--prefer", o->prefer, "kernel to prefer where it is legal (name or pattern)")->type_name("K");
  app.add_option("--deny", o->deny, "kernel not to use (name or pattern)")->type_name("K");
  add_profile_option(app, o->profile);
  add_run_quantization(app, o->quantization);
  app.add_flag("--json", o->common.json, "one JSON object on stdout");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(explain) = {
    .name = "explain", .summary = "Which kernel runs each layer, and why the others do not",
    .examples = "Examples:\n  quantbridge explain ./model\n  quantbridge explain ./model --host haswell --tokens 512 --layer '*.down_proj'\n"
                "  quantbridge explain ./model-BF16 --quantization nvfp4\n  quantbridge explain --host list",
    .rank = 7, .setup = setup};
// clang-format on

}  // namespace qb::cli
