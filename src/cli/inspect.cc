// inspect: what a checkpoint is.
#include <fmt/format.h>

#include <map>

#include "base/json.h"
#include "bridge/session.h"
#include "cli/command.h"
#include "cli/report.h"

namespace qb::cli {
namespace {

struct Options {
  std::string path;
  bool layers = false;
  CommonOptions common;
};

struct SchemeCount {
  int64_t modules = 0, parameters = 0;
  uint64_t bytes = 0;
};

struct Totals {
  int64_t parameters = 0;
  uint64_t bytes = 0;
  std::map<std::string, SchemeCount> schemes;
};

Totals totals_of(const Session& s) {
  Totals t;
  for (const TensorInfo& tensor : s.package.tensors) t.bytes += tensor.bytes;
  for (const ir::Module& m : s.checkpoint.modules) {
    int64_t parameters = 0;
    uint64_t bytes = 0;
    for (const ir::Stored& part : m.parts) {
      bytes += part.bytes;
      if (part.role == ir::Role::code || part.role == ir::Role::bias || part.role == ir::Role::plain) parameters += part.view.dims[0] * part.view.dims[1];
    }
    t.parameters += parameters;
    const ir::Stored* code = m.part(ir::Role::code);
    if (code == nullptr) continue;
    SchemeCount& c = t.schemes[m.scheme ? to_string(*m.scheme) : std::string(info(code->elem).name)];
    ++c.modules;
    c.parameters += parameters;
    c.bytes += bytes;
  }
  return t;
}

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
    j["schemes"].push_back({{"scheme", name},
                            {"modules", n.modules},
                            {"parameters", n.parameters},
                            {"bytes", n.bytes},
                            {"bits_per_weight", n.parameters > 0 ? static_cast<double>(n.bytes) * 8 / static_cast<double>(n.parameters) : 0.0}});
  j["excluded"] = Json::array();
  for (const ir::Exclusion& e : c.exclusions) j["excluded"].push_back({{"rule", escape(e.rule)}, {"from", e.from}, {"modules", e.modules}});
  j["fused"] = Json::array();
  std::map<std::string, std::vector<std::string>> fused;
  for (const arch::Module& m : c.topology.modules)
    if (!m.fused.empty()) fused[m.fused].push_back(m.path);
  for (const auto& [name, parts] : fused) j["fused"].push_back({{"parts", parts}, {"as", name}});
  if (o.layers) {
    j["modules"] = Json::array();
    for (const ir::Module& m : c.modules)
      if (!m.parts.empty()) j["modules"].push_back(module_json(s, m));
  }
  print_json(j);
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
    line("scheme", fmt::format("{:<32} {:5} modules  {:>9}  {:.3f} bits per weight", name, n.modules, size_text(n.bytes),
                               n.parameters > 0 ? static_cast<double>(n.bytes) * 8 / static_cast<double>(n.parameters) : 0.0));
  line("KV cache", c.kv ? fmt::format("{}, scales for {} layers", to_string(*c.kv), c.kv->layers) : "not quantized");
  for (const ir::Exclusion& e : c.exclusions)
    line("left out", fmt::format("{} module{} by '{}' ({})", e.modules, e.modules == 1 ? "" : "s", escape(e.rule), e.from));
  if (!s.package.foreign_files.empty()) {
    std::string names;
    for (const std::string& f : s.package.foreign_files) names += (names.empty() ? "" : ", ") + escape(f);
    line("not read", names);
  }
  if (o.layers)
    for (const ir::Module& m : c.modules)
      if (!m.parts.empty() && (m.kind == arch::Kind::linear || m.kind == arch::Kind::embedding))
        out += fmt::format("  {:<42} {:>7} x {:<7} {:<32} {}\n", m.path, m.n, m.k, m.scheme ? to_string(*m.scheme) : info(m.parts.front().elem).name, m.why);
  print_out(out);
}

int run(const Options& o) {
  Result<Session> session = open_session(o.path);
  if (!session) return fail("inspect", session.error(), o.common);
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
  app.add_flag("--layers", o->layers, "a line for each linear and embedding, with the rule that decided it");
  app.add_flag("--json", o->common.json, "one JSON object on stdout");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(inspect) = {
    .name = "inspect", .summary = "What a checkpoint is: dialect, algorithm, schemes, KV cache, what is left out and why",
    .examples = "Examples:\n  quantbridge inspect ./Llama-3.1-8B-NVFP4\n  quantbridge inspect --layers --json ./model | jq '.modules[0]'",
    .rank = 1, .setup = setup};
// clang-format on

}  // namespace qb::cli
