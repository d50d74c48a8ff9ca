#include "cli/mixing.h"

#include <fmt/format.h>

#include <fstream>
#include <map>

#include "base/json.h"
#include "cli/command.h"
#include "cli/curve.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "host/host.h"

namespace qb::cli {
namespace {

namespace fs = std::filesystem;

// Where measurements and reports lie: beside OUT, under the name of IN, so that other outputs of the same model find them.
fs::path directory_of(const MixingOptions& m, const JobCommandOptions& o) {
  if (!m.directory.empty()) return m.directory;
  std::error_code ec;
  const fs::path in = fs::weakly_canonical(o.in, ec), out = fs::path(o.out).lexically_normal();
  const fs::path beside = (out.has_filename() ? out : out.parent_path()).parent_path();
  return beside / ((ec ? fs::path(o.in) : in).filename().native() + ".auto");
}

std::string stem_of(const JobCommandOptions& o) {
  const fs::path out = fs::path(o.out).lexically_normal();
  const std::string name = (out.has_filename() ? out : out.parent_path()).filename().native();
  return name.empty() ? "auto" : name;
}

std::string loss_name(const MixingOptions& m) {
  return m.sensitivity != "weights" ? "KL divergence of the next token, nats" : "mean squared relative error of the weights";
}

Json to_json(const MixPoint& p) {
  Json j = Json::object();
  if (!p.scheme.empty()) j["scheme"] = p.scheme;
  j["bits"] = p.bits;
  j["bytes"] = p.bytes;
  j["predicted"] = p.predicted;
  j["measured"] = p.measured ? Json(*p.measured) : Json(nullptr);
  return j;
}

Json points(const std::vector<MixPoint>& all) {
  Json out = Json::array();
  for (const MixPoint& p : all) out.push_back(to_json(p));
  return out;
}

Json to_json(const MixingOptions& options, const Mixed& m) {
  Json groups = Json::array();
  for (size_t g = 0; g < m.mix.size(); ++g) {
    const MixGroup& group = m.space.groups[g];
    groups.push_back({{"match", group.match}, {"weights", group.weights}, {"scheme", m.space.schemes[group.options[m.mix[g]].scheme].name}});
  }
  Json left_out = Json::array();
  for (const MixSpace::LeftOut& l : m.space.left_out) left_out.push_back({{"scheme", l.scheme}, {"why", l.why}});
  Json config;
  JsonError error;
  parse_json(m.config, config, error);
  return {{"sensitivity", options.sensitivity}, {"tokens", m.tokens},       {"chosen", to_json(m.chosen)}, {"exact", m.exact},
          {"uniform", points(m.uniform)},       {"curve", points(m.curve)}, {"groups", std::move(groups)}, {"left_out", std::move(left_out)},
          {"config", std::move(config)}};
}

std::string line_of(std::string_view name, const MixPoint& p) {
  return fmt::format("  {:<20} {:>7.3f} bits  {:>9}  {}{}\n", name, p.bits, size_text(p.bytes),
                     p.measured ? fmt::format("{:.6f}", *p.measured) : fmt::format("{:.3g}", p.predicted),
                     p.measured ? fmt::format("  (predicted {:.6f})", p.predicted) : "");
}

std::string summary(const MixingOptions& options, const Mixed& m) {
  std::string out = fmt::format("auto: {} groups of {:.1f} million weights; {}{}\n", m.space.groups.size(), static_cast<double>(m.space.weights) / 1e6,
                                loss_name(options), m.tokens > 0 ? fmt::format(", over {} tokens", m.tokens) : "");
  for (const MixSpace::LeftOut& l : m.space.left_out) out += fmt::format("  without {}: {}\n", l.scheme, escape(l.why));
  for (const MixPoint& p : m.uniform) out += line_of(p.scheme, p);
  out += line_of("chosen", m.chosen);
  std::map<size_t, std::pair<size_t, uint64_t>> of;
  for (size_t g = 0; g < m.mix.size(); ++g) {
    auto& [groups, weights] = of[m.space.groups[g].options[m.mix[g]].scheme];
    ++groups;
    weights += m.space.groups[g].weights;
  }
  for (const auto& [scheme, counts] : of)
    out += fmt::format("    {:<18} {} groups, {:.1f} % of the weights\n", m.space.schemes[scheme].name, counts.first,
                       100 * static_cast<double>(counts.second) / static_cast<double>(m.space.weights));
  if (!m.exact) out += "note: there may be a better mixture of this size: the search was cut short\n";
  if (m.start == SensitivityFile::Start::restarted) out += "note: measurements of another source, text or program were thrown away\n";
  return out;
}

Result<void> write(const fs::path& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out << text;
  out.close();
  return out ? Result<void>() : Result<void>(Error{Errc::io, fmt::format("{} cannot be written", path.string())});
}

// False: a usage error was printed.
bool fill(const MixingOptions& m, MixRequest& r) {
  const auto usage = [](std::string_view what) {
    print_err(fmt::format("quantbridge quantize: {}\n", what));
    return false;
  };
  if ((m.bits > 0) + !m.size.empty() + (m.divergence > 0) != 1) return usage("--auto goes with one of --bits N, --size SIZE and --max-kl X");
  r.by = m.sensitivity == "kl" ? Sensitivity::divergence : m.sensitivity == "layers" ? Sensitivity::layers : Sensitivity::weights;
  if (r.by == Sensitivity::weights && m.divergence > 0) return usage("--max-kl is measured on data: --sensitivity weights has none");
  if (m.bits > 0) r.bits = m.bits;
  if (m.divergence > 0) r.divergence = m.divergence;
  if (!m.size.empty() && !parse_size(m.size, r.size.emplace())) return usage(fmt::format("--size '{}' is no size; write 3GB or 700MiB", m.size));
  r.schemes = m.schemes;
  r.tokens = m.tokens;
  r.points = m.points;
  return true;
}

}  // namespace

void add_mixing_options(CLI::App& app, MixingOptions& m) {
  app.add_flag("--auto", m.on, "find the scheme of each group of linears, for a size or a loss (docs/auto.md)");
  app.add_option("--bits", m.bits, "--auto: bits for a weight at most, scales and all")->check(CLI::Range(0.5, 32.0))->type_name("N");
  app.add_option("--size", m.size, "--auto: bytes of all tensors at most")->type_name("SIZE");
  app.add_option("--max-kl", m.divergence, "--auto: the smallest mixture whose KL divergence from IN, in nats, is no larger")
      ->check(CLI::PositiveNumber)
      ->type_name("X");
  app.add_option("--schemes", m.schemes, "--auto: what may be mixed: nvfp4,mxfp4,fp8_channel,bf16 (default: what engines run and DIALECT holds)")
      ->delimiter(',')
      ->type_name("NAMES");
  app.add_option("--sensitivity", m.sensitivity,
                 "--auto: kl: at the output, on samples (--calibrate, or the text that comes with the program); layers: at the layers' outputs, in a tenth of "
                 "the time; "
                 "weights: errors of the weights alone, without data")
      ->check(CLI::IsMember({"kl", "layers", "weights"}))
      ->capture_default_str();
  app.add_option("--auto-tokens", m.tokens, "--auto: how many tokens of the samples")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--auto-points", m.points, "--auto: how many points of the curve are measured beside what is chosen; 0: nor each scheme by itself")
      ->check(CLI::Range(0, 1000))
      ->capture_default_str();
  app.add_option("--auto-dir", m.directory,
                 "--auto: where measurements are kept for the next time, configurations and curves (default: IN's name + .auto, beside OUT)")
      ->type_name("DIR");
}

std::optional<std::string> mix(const MixingOptions& m, JobCommandOptions& o, const std::string& numerics, const Calibration& calibration, const JobOptions& job,
                               const Limits& limits, int& code) {
  MixRequest request;
  if (!fill(m, request)) {
    code = exit_usage;
    return std::nullopt;
  }
  const auto failed = [&](const Error& error, std::span<const Problem> problems = {}) {
    code = fail("quantize", error, o.common, problems);
    return std::nullopt;
  };
  if (ranks() != nullptr)
    return failed({Errc::invalid_argument, "--auto measures in one process: run quantize by itself, without mpirun; --config makes what it found with many"});
  std::error_code ec;
  if (!o.dry_run && !o.force && fs::exists(o.out, ec)) return failed({Errc::exists, fmt::format("{} exists; --force replaces it", escape(o.out))});
  const Result<Session> session = open_session(o.in);
  if (!session) return failed(session.error());
  const auto refused = [&](std::span<const Problem> problems) {
    code = exit_problems;
    if (o.common.json)
      print_json(envelope("quantize", false, problems));
    else
      print_problems(problems);
    return std::nullopt;
  };
  if (!session->readable) return refused(session->diag.all());
  const fs::path directory = directory_of(m, o);
  fs::create_directories(directory, ec);
  if (ec) return failed({Errc::io, fmt::format("cannot create {}: {}", directory.string(), ec.message())});
  request.numerics = numerics;
  request.samples = calibration.file;
  request.limits = calibration.limits;
  request.measurements = directory / "measurements.json";
  const auto unit = [](uint64_t count) { return fmt::format("{:.1f} million", static_cast<double>(count) / 1e6); };
  request.progress = [&](std::string stage) { return progress_bar(std::move(stage), o.common, unit); };
  Context context;
  context.limits = limits;
  context.isa = host::detect_isa();
  context.cancelled = &interrupted();
  Diagnostics diag;
  Mixed mixed;
  const Result<bool> found = mix_schemes(*session, job, request, context, mixed, diag);
  if (!found) return failed(found.error(), diag.all());
  if (!*found) return refused(diag.all());
  const Json report = to_json(m, mixed);
  const std::string stem = stem_of(o);
  for (const auto& [name, text] : {std::pair(stem + ".json", mixed.config + "\n"), std::pair(stem + ".curve.json", dump_json(report) + "\n"),
                                   std::pair(stem + ".curve.svg", curve_svg(mixed, loss_name(m)))})
    if (const Result<void> written = write(directory / name, text); !written) return failed(written.error());
  o.more = std::make_shared<Json>(Json{{"auto", report}});
  if (!o.common.json && !o.common.quiet) {
    print_err(summary(m, mixed));
    print_err(fmt::format("configuration: {}; curve: {}\n", (directory / (stem + ".json")).string(), (directory / (stem + ".curve.svg")).string()));
  }
  return mixed.config;
}

}  // namespace qb::cli
