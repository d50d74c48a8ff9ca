#include "pass/assignment.h"

#include <fmt/format.h>

namespace qb::pass {
namespace {

// `part` is a run of whole dotted words of `path`.
bool between_dots(std::string_view path, std::string_view part) {
  if (part.empty()) return false;
  for (size_t at = path.find(part); at != path.npos; at = path.find(part, at + 1)) {
    const size_t end = at + part.size();
    if ((at == 0 || path[at - 1] == '.') && (end == path.size() || path[end] == '.')) return true;
  }
  return false;
}

// What an entry says, on top of what was said before it.
void apply(const Says& says, Assigned& to, std::string why) {
  if (says.nothing()) return;
  if (says.weight) {
    to.says_weight = true;
    to.recipe = says.weight->recipe;
    to.algorithm = says.weight->algorithm;
    if (!says.weight->type) {
      to.scheme.reset();
    } else {
      const std::optional<ir::Activation> input = to.scheme ? to.scheme->input : std::nullopt;
      to.scheme = ir::Scheme{.weight = *says.weight->type, .input = input, .features = says.weight->features};
    }
  }
  if (says.input && to.scheme) to.scheme->input = says.input->type;
  to.why = std::move(why);
}

}  // namespace

std::optional<UserRule> UserRule::compile(const std::string& text, std::string_view from, RegexCompiler regex, Diagnostics& diag) {
  Result<NameRule> rule = text.starts_with("re:") ? NameRule::compressed_tensors(text, regex) : NameRule::shell(text);
  if (rule) return UserRule(std::move(*rule));
  diag.report("pattern-invalid", {}, fmt::format("{} '{}': {}", from, escape(text), rule.error().what), "a module name, a shell pattern or re:REGEX");
  return std::nullopt;
}

bool UserRule::hits(const arch::Module& m) {
  bool hit = false;
  for (const std::string* name : {&m.path, &m.fused})
    hit |= !name->empty() && (rule_.match(*name, m.kind) != NameRule::How::no || (rule_.literal() && between_dots(*name, rule_.text())));
  used_ |= hit;
  return hit;
}

ModuleKind kind_of(const arch::Module& m, const arch::Topology& t) {
  if (m.path == t.head) return ModuleKind::lm_head;
  if (m.kind == arch::Kind::embedding) return ModuleKind::embedding;
  return m.kind == arch::Kind::expert || !m.of_experts.empty() ? ModuleKind::moe : ModuleKind::linear;
}

std::optional<Assignment> Assignment::compile(const QuantConfig& config, RegexCompiler regex, Diagnostics& diag) {
  Assignment a;
  a.config_ = &config;
  for (const std::string& text : config.ignore) {
    std::optional<UserRule> rule = UserRule::compile(text, "ignore", regex, diag);
    if (!rule) return std::nullopt;
    a.ignore_.push_back(std::move(*rule));
  }
  for (const QuantConfig::Override& o : config.overrides) {
    std::optional<UserRule> rule = UserRule::compile(o.match, "override", regex, diag);
    if (!rule) return std::nullopt;
    a.overrides_.push_back(std::move(*rule));
  }
  return a;
}

Assigned Assignment::of(const arch::Module& m, const arch::Topology& t, const std::optional<ir::Scheme>& now) {
  const ModuleKind kind = kind_of(m, t);
  const bool end = kind == ModuleKind::lm_head || kind == ModuleKind::embedding;
  Assigned out{
      .scheme = now, .recipe = {}, .algorithm = {}, .why = end ? fmt::format("{} stays as it is by default", m.path) : "the configuration says nothing of it"};
  seen_[static_cast<size_t>(kind)] = true;
  const auto as_it_is = [&](std::string why) { return Assigned{.scheme = now, .recipe = {}, .algorithm = {}, .why = std::move(why)}; };
  for (UserRule& rule : ignore_)
    if (rule.hits(m)) return as_it_is(fmt::format("ignore '{}'", rule.text()));
  if (m.exempt) return as_it_is("no producer quantizes it");
  if (!end) apply(config_->everything, out, "the configuration's default");
  if (const Says& says = config_->kinds[static_cast<size_t>(kind)]; !says.nothing()) {
    apply(says, out, fmt::format("the configuration's {}", module_kind_names[static_cast<size_t>(kind)]));
    out.named = true;
  }
  for (size_t i = 0; i < overrides_.size(); ++i) {
    if (!overrides_[i].hits(m)) continue;
    apply(config_->overrides[i].says, out, fmt::format("override '{}'", overrides_[i].text()));
    out.named = true;
  }
  if (kind == ModuleKind::embedding && out.scheme) out.scheme->input.reset();
  return out;
}

void Assignment::report_unused(Diagnostics& diag) const {
  for (const UserRule& rule : ignore_)
    if (!rule.used()) diag.report("ignore-ghost", {}, fmt::format("ignore '{}'", escape(rule.text())), "a rule that names a linear of this model");
  for (const UserRule& rule : overrides_)
    if (!rule.used()) diag.report("quantization-ghost", {}, fmt::format("override '{}'", escape(rule.text())), "a rule that names a linear of this model");
  for (size_t k = 0; k < seen_.size(); ++k)
    if (const Says& s = config_->kinds[k]; !seen_[k] && s.weight && s.weight->type)
      diag.report("quantization-ghost", {}, std::string(module_kind_names[k]), "a kind of modules that this model has weights of");
}

}  // namespace qb::pass
