// inspect: what a checkpoint is.
#include <fmt/format.h>

#include <map>

#include "base/json.h"
#include "bridge/scales.h"
#include "cli/command.h"
#include "cli/html.h"
#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/totals.h"
#include "dialect/history.h"
#include "io/output.h"

namespace qb::cli {
namespace {

struct Options {
  std::string path, html;
  bool layers = false, force = false;
  CommonOptions common;
};

std::string_view kind_name(const ir::Module& m) {
  switch (m.kind) {
    case arch::Kind::linear:
      return "linear";
    case arch::Kind::expert:
      return "expert";
    case arch::Kind::embedding:
      return "embedding";
    case arch::Kind::norm:
      return "norm";
    case arch::Kind::attention:
      return "kv";
    case arch::Kind::other:
      return "other";
  }
  return "other";
}

Json module_json(const Session& s, const ir::Module& m) {
  Json j = Json::object();
  j["path"] = m.path;
  j["kind"] = kind_name(m);
  j["n"] = m.n;
  j["k"] = m.k;
  j["scheme"] = m.scheme ? Json(to_string(*m.scheme)) : Json(nullptr);
  j["why"] = m.why;
  j["tensors"] = Json::array();
  for (const ir::Stored& part : m.parts)
    j["tensors"].push_back({{"name", escape(part.tensor)},
                            {"role", ir::to_string(part.role)},
                            {"dtype", info(part.container).safetensors},
                            {"shape", part.shape},
                            {"file", escape(s.package.file_name(part.file))},
                            {"offset", part.offset},
                            {"bytes", part.bytes}});
  for (const ir::Stored& part : m.parts)
    if (const ir::Mask& mask = part.mask; !mask.tensor.empty())
      j["tensors"].push_back({{"name", escape(mask.tensor)},
                              {"role", "mask"},
                              {"dtype", "U8"},
                              {"shape", {m.n, (m.k + 7) / 8}},
                              {"file", escape(s.package.file_name(mask.file))},
                              {"offset", mask.offset},
                              {"bytes", mask.bytes}});
  for (const ir::Transform& t : m.transforms)
    j["transforms"].push_back({{"of", t.of_outputs ? "outputs" : "inputs"},
                               {"matrix", escape(t.matrix.tensor)},
                               {"block", t.matrix.view.dims[0]},
                               {"transposed", t.transposed},
                               {"divisor", t.divisor}});
  return j;
}

void print_inspect_json(const Session& s, const Options& o) {
  const ir::Checkpoint& c = s.checkpoint;
  const Totals t = totals_of(s);
  Json j = envelope("inspect", s.diag.ok(), s.diag.all());
  j["path"] = s.path.string();
  j["dialect"] = s.dialect != nullptr ? Json(s.dialect->name) : Json(nullptr);
  j["producer"] = {{"name", c.producer.name}, {"version", c.producer.version}};
  j["quant_algo"] = c.quant_algo.empty() ? Json(nullptr) : Json(c.quant_algo);
  j["family"] = c.topology.family != nullptr ? Json(c.topology.family->name) : Json(nullptr);
  j["architecture"] = c.topology.architecture;
  j["parameters"] = t.parameters;
  j["bytes"] = t.bytes;
  j["kv_cache"] = c.kv ? Json{{"scheme", to_string(*c.kv)}, {"layers", c.kv->layers}} : Json(nullptr);
  j["schemes"] = Json::array();
  for (const auto& [name, n] : t.schemes)
    j["schemes"].push_back(
        {{"scheme", name}, {"modules", n.modules}, {"parameters", n.parameters}, {"bytes", n.bytes}, {"bits_per_weight", n.bits_per_weight()}});
  j["excluded"] = Json::array();
  for (const ir::Exclusion& e : c.exclusions) j["excluded"].push_back({{"rule", escape(e.rule)}, {"from", e.from}, {"modules", e.modules}});
  j["fused"] = Json::array();
  std::map<std::string, std::vector<std::string>> fused;
  for (const arch::Module& m : c.topology.modules)
    if (!m.fused.empty()) fused[m.fused].push_back(m.path);
  for (const auto& [name, parts] : fused) j["fused"].push_back({{"parts", parts}, {"as", name}});
  j["history"] = Json::array();
  for (const HistoryStep& step : read_history(s.package)) j["history"].push_back(history_json(step));
  if (o.layers) {
    j["modules"] = Json::array();
    for (const ir::Module& m : c.modules)
      if (!m.parts.empty()) j["modules"].push_back(module_json(s, m));
  }
  print_json(j);
}

// What it was decided from, by the words behind the module's name: "; weight, weight_scale".
std::string tensors_text(const ir::Module& m) {
  std::string out;
  for (const ir::Stored& part : m.parts) {
    const std::string_view name = part.tensor;
    const bool below = name.size() > m.path.size() && name.starts_with(m.path);
    out += fmt::format("{}{}", out.empty() ? "; " : ", ", escape(below ? name.substr(m.path.size() + 1) : name));
  }
  return out;
}

void print_inspect_text(const Session& s, const Options& o) {
  const ir::Checkpoint& c = s.checkpoint;
  const Totals t = totals_of(s);
  std::string out = fmt::format("{}\n", s.path.string());
  const auto line = [&](std::string_view key, const std::string& value) { out += fmt::format("  {:<11} {}\n", key, value); };
  if (s.dialect != nullptr)
    line("dialect",
         fmt::format("{}{}", s.dialect->name, c.producer.name.empty() ? "" : fmt::format(", written by {} {}", c.producer.name, c.producer.version)));
  if (!c.quant_algo.empty()) line("algorithm", c.quant_algo);
  if (c.topology.family != nullptr) line("family", fmt::format("{} ({}), {} layers", c.topology.family->name, c.topology.architecture, c.topology.layers));
  line("size", fmt::format("{:.4g} million parameters in {} tensors, {} files, {}", static_cast<double>(t.parameters) / 1e6, s.package.tensors.size(),
                           s.package.files.size(), size_text(t.bytes)));
  for (const auto& [name, n] : t.schemes)
    line("scheme", fmt::format("{:<32} {:5} modules  {:>9}  {:.3f} bits per weight", name, n.modules, size_text(n.bytes), n.bits_per_weight()));
  line("KV cache", c.kv ? fmt::format("{}, scales for {} layers", to_string(*c.kv), c.kv->layers) : "not quantized");
  for (const ir::Exclusion& e : c.exclusions)
    line("left out", fmt::format("{} module{} by '{}' ({})", e.modules, e.modules == 1 ? "" : "s", escape(e.rule), e.from));
  for (const HistoryStep& step : read_history(s.package)) {
    line("history", history_text(step));
    for (const std::string& sentence : history_sentences(step)) line("", "  " + sentence);
  }
  if (!s.package.foreign_files.empty()) {
    std::string names;
    for (const std::string& f : s.package.foreign_files) names += (names.empty() ? "" : ", ") + escape(f);
    line("not read", names);
  }
  if (o.layers)
    for (const ir::Module& m : c.modules)
      if (const std::string scheme = scheme_name(m); !scheme.empty())
        out += fmt::format("  {:<42} {:>7} x {:<7} {:<32} {}{}\n", escape(m.path), m.n, m.k, scheme, escape(m.why), tensors_text(m));
  print_out(out);
}

Result<void> write_html(const Session& s, const Options& o) {
  Context context;
  context.progress = progress_bar("scales", o.common);
  context.cancelled = &interrupted();
  std::vector<ScaleHistogram> scales;
  if (s.readable) {
    QB_ASSIGN(scales, scale_histograms(s, context));
  }
  return write_whole_file(o.html, html_report(s, scales), o.force);
}

int run(const Options& o) {
  if (!o.html.empty() && !o.force && std::filesystem::exists(std::filesystem::symlink_status(o.html)))
    return fail("inspect", Error{Errc::exists, fmt::format("{} exists; --force replaces it", o.html)}, o.common);
  Result<Session> session = open_session(o.path);
  if (!session) return fail("inspect", session.error(), o.common);
  if (!o.html.empty())
    if (const Result<void> written = write_html(*session, o); !written) return fail("inspect", written.error(), o.common, session->diag.all());
  if (o.common.json) {
    print_inspect_json(*session, o);
  } else {
    if (session->readable) print_inspect_text(*session, o);
    print_problems(session->diag.all());
  }
  return session->readable ? exit_done : exit_problems;
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  app.add_option("PATH", o->path, "checkpoint directory")->required();
  app.add_flag("--layers", o->layers, "a line for each module with a weight: the rule that decided it, and its tensors");
  app.add_option("--html", o->html, "also write a report with a map of layers and the sizes of scales")->type_name("FILE");
  app.add_flag("--force", o->force, "replace FILE where it exists");
  app.add_flag("--quiet", o->common.quiet, "no progress");
  app.add_flag("--json", o->common.json, "one JSON object on stdout");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(inspect) = {
    .name = "inspect", .summary = "What a checkpoint is: dialect, algorithm, schemes, KV cache, what is left out and why",
    .examples = "Examples:\n  quantbridge inspect ./Llama-3.1-8B-NVFP4\n  quantbridge inspect --layers --json ./model | jq '.modules[0]'\n  quantbridge inspect ./model --html model.html",
    .rank = 1, .setup = setup};
// clang-format on

}  // namespace qb::cli
