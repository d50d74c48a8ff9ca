#include "pass/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "arch/match.h"
#include "ir/shorthand.h"

namespace qb::pass {
namespace {

// A user's rule: a regex, a shell pattern, a module's name, a fused name or a name that stands anywhere between dots (k_proj, layers.3, model.layers.3).
class Ignore {
 public:
  bool compile(const std::vector<std::string>& texts, RegexCompiler regex, Diagnostics& diag) {
    for (const std::string& t : texts) {
      Result<NameRule> rule = t.starts_with("re:") ? NameRule::compressed_tensors(t, regex) : NameRule::shell(t);
      if (!rule) {
        diag.report("pattern-invalid", {}, fmt::format("--ignore '{}': {}", t, rule.error().what), "a module name, a shell pattern or re:REGEX");
        return false;
      }
      rules_.push_back(std::move(*rule));
    }
    hits_.assign(rules_.size(), 0);
    return true;
  }

  const std::string* hit(const arch::Module& m) {
    for (size_t i = 0; i < rules_.size(); ++i) {
      const std::string& text = rules_[i].text();
      const bool named = rules_[i].match(m.path, m.kind) != NameRule::How::no || (!m.fused.empty() && rules_[i].match(m.fused, m.kind) != NameRule::How::no);
      if (!named && !(rules_[i].literal() && (between_dots(m.path, text) || between_dots(m.fused, text)))) continue;
      ++hits_[i];
      return &text;
    }
    return nullptr;
  }

  void report_unused(Diagnostics& diag) const {
    for (size_t i = 0; i < rules_.size(); ++i)
      if (hits_[i] == 0) diag.report("ignore-ghost", {}, fmt::format("--ignore '{}'", escape(rules_[i].text())), "a rule that names a linear of this model");
  }

 private:
  // `part` is a run of whole dotted words of `path`.
  static bool between_dots(std::string_view path, std::string_view part) {
    if (part.empty()) return false;
    for (size_t at = path.find(part); at != path.npos; at = path.find(part, at + 1)) {
      const size_t end = at + part.size();
      if ((at == 0 || path[at - 1] == '.') && (end == path.size() || path[end] == '.')) return true;
    }
    return false;
  }
  std::vector<NameRule> rules_;
  std::vector<int> hits_;
};

// ModelOpt holds gate and up of an expert in one matrix, and cuts it when all is done.
bool is_cut(const recipe::Recipe& recipe, const arch::Module& t) {
  return recipe.numerics == recipe::Numerics::modelopt && !t.of_experts.empty() && !t.fused.empty();
}

bool single_blocks(const ir::Checkpoint& c, const std::vector<size_t>& members, ir::Block block, bool cut) {
  int64_t rows = 0;
  for (size_t i : members) {
    const ir::Module& m = c.modules[i];
    rows = cut ? rows + m.n : std::max(rows, m.n);
    if (m.k > block.cols) return false;
  }
  return rows <= block.rows;
}

}  // namespace

Result<QuantizeOptions> quantize_options(std::string_view scheme, std::string_view numerics, std::string_view recipe, std::string_view dialect) {
  const auto wrong = [](std::string what) { return Error{Errc::invalid_argument, std::move(what)}; };
  QuantizeOptions out;
  QB_ASSIGN(out.scheme, ir::parse_scheme(scheme));
  if (out.scheme.weight.plain()) return wrong(fmt::format("{} weights are not quantized", to_string(out.scheme.weight)));
  if (const ir::Shorthand* s = ir::find_shorthand(scheme); s != nullptr && recipe.empty() && numerics != "llm-compressor") recipe = s->recipe;
  out.numerics = numerics == "modelopt" || (numerics.empty() && dialect == "modelopt") ? recipe::Numerics::modelopt : recipe::Numerics::llm_compressor;
  if (!numerics.empty() && numerics != "modelopt" && numerics != "llm-compressor")
    return wrong(fmt::format("numerics '{}' is not modelopt or llm-compressor", escape(numerics)));
  if (recipe.empty()) return out;
  const recipe::Recipe* named = recipe::find_recipe(recipe);
  if (named == nullptr) {
    std::vector<std::string_view> known;
    for (const recipe::Recipe* r : recipe::recipes()) known.push_back(r->name);
    return wrong(fmt::format("unknown recipe '{}'; near names: {}", escape(recipe), ir::near_names(recipe, known)));
  }
  if (!numerics.empty() && named->numerics != out.numerics)
    return wrong(fmt::format("the recipe {} has the numerics of {}", named->name, recipe::to_string(named->numerics)));
  out.numerics = named->numerics;
  out.recipe = named->name;
  return out;
}

bool quantize(ir::Checkpoint& c, const QuantizeOptions& options, Diagnostics& diag) {
  const ir::Scheme& scheme = options.scheme;
  const std::string text = to_string(scheme);
  if (scheme.input && scheme.input->when == ir::When::fixed) {
    diag.report("calibration-needed", {}, fmt::format("{}: static activation scales", text),
                fmt::format("a scheme without them ({} or run-time activation scales): calibration is not available yet", to_string(scheme.weight)));
    return false;
  }
  const recipe::Recipe* recipe = options.recipe.empty() ? recipe::find_recipe(scheme.weight, options.numerics) : recipe::find_recipe(options.recipe);
  if (recipe == nullptr || !recipe->makes(scheme.weight) || !(scheme.features == ir::Features{})) {
    diag.report("recipe-missing", {},
                options.recipe.empty() ? fmt::format("{} with the numerics of {}", text, recipe::to_string(options.numerics))
                                       : fmt::format("{} by the recipe {}", text, escape(options.recipe)),
                "a scheme of `quantize --list`, and a recipe that makes it");
    return false;
  }
  Ignore ignore;
  if (!ignore.compile(options.ignore, options.regex, diag)) return false;
  std::map<std::string, std::vector<size_t>> shared;
  int made = 0, stacks = 0;
  for (size_t i = 0; i < c.modules.size(); ++i) {
    ir::Module& m = c.modules[i];
    const bool stack = m.kind == arch::Kind::expert;
    if ((m.kind != arch::Kind::linear && !stack) || m.part(ir::Role::code) == nullptr) continue;
    const arch::Module& t = c.topology.modules[static_cast<size_t>(m.topology)];
    if (m.scheme) {
      diag.report("already-quantized", {.module = m.path}, to_string(*m.scheme), "plain numbers: convert --to dense first, or take the original model");
      return false;
    }
    if (stack) {
      m.why = "stacked experts are no linears";
      if (stacks++ == 0) diag.report("experts-stay-plain", {.module = m.path}, m.why, fmt::format("linears, which {} can be made of", text));
      continue;
    }
    if (const std::string* rule = ignore.hit(t); rule != nullptr) {
      m.why = fmt::format("--ignore '{}'", *rule);
      continue;
    }
    if (m.path == c.topology.head || t.exempt) {
      m.why = t.exempt ? "no producer quantizes it" : "lm_head stays as it is by default";
      continue;
    }
    if ((scheme.weight.two_level() || scheme.weight.scale == ir::ScaleValues::e8m0 || is_integer_code(scheme.weight.code)) && scheme.weight.block.cols > 0 &&
        m.k % scheme.weight.block.cols != 0) {
      diag.report("group-does-not-divide", {.module = m.path}, fmt::format("k = {}", m.k),
                  fmt::format("whole groups of {}; leave it out with --ignore", scheme.weight.block.cols));
      return false;
    }
    m.scheme = scheme;
    m.why = "quantized now";
    m.make = ir::Make{.recipe = std::string(recipe->name), .amax_over = {}};
    ++made;
    if ((recipe->share != recipe::Share::own || (recipe->needs_amax && is_cut(*recipe, t))) && !t.fused.empty())
      shared[t.fused].push_back(i);
    else if (recipe->needs_amax)
      m.make->amax_over = {*m.part(ir::Role::code)};
  }
  for (const auto& [fused, members] : shared) {
    const bool cut = is_cut(*recipe, c.topology.modules[static_cast<size_t>(c.modules[members.front()].topology)]);
    if (recipe->share == recipe::Share::single_block && !single_blocks(c, members, scheme.weight.block, cut)) continue;
    std::vector<ir::Stored> over;
    for (size_t i : members) over.push_back(*c.modules[i].part(ir::Role::code));
    for (size_t i : members) c.modules[i].make->amax_over = over;
  }
  ignore.report_unused(diag);
  if (made == 0) diag.report("nothing-to-quantize", {}, "no linear is left", "at least one that no rule names");
  return diag.ok();
}

}  // namespace qb::pass
