#include "pass/quantize.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "ir/shorthand.h"
#include "pass/assignment.h"

namespace qb::pass {
namespace {

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

// Whether keys and values of all heads are made from one narrow vector, which is what engines cache.
bool caches_latents(const arch::Family* family) {
  if (family == nullptr) return false;
  return std::any_of(family->layer.begin(), family->layer.end(),
                     [](const arch::ModuleRow& row) { return std::find(row.n.terms.begin(), row.n.terms.end(), arch::Key::kv_rank) != row.n.terms.end(); });
}

bool has_weight(const ir::Module& m) {
  const bool kind = m.kind == arch::Kind::linear || m.kind == arch::Kind::expert || m.kind == arch::Kind::embedding;
  return kind && m.topology >= 0 && m.part(ir::Role::code) != nullptr;
}

class Quantizing {
 public:
  Quantizing(ir::Checkpoint& c, const QuantizeOptions& options, Assignment assignment, Diagnostics& diag)
      : c_(c), options_(options), assignment_(std::move(assignment)), diag_(diag) {
    for (const ir::Module& m : c.modules) quantized_ |= has_weight(m) && m.scheme.has_value();
  }

  bool run() {
    for (size_t i = 0; i < c_.modules.size(); ++i)
      if (has_weight(c_.modules[i]) && !visit(i)) return false;
    share_amaxes();
    if (!kv_cache()) return false;
    assignment_.report_unused(diag_);
    if (done_ == 0) diag_.report("nothing-to-quantize", {}, "no linear is left", "at least one that the configuration is about and no rule leaves out");
    return diag_.ok() && (!options_.ranges || give_scales(c_, *options_.ranges, options_.numerics, diag_));
  }

 private:
  bool visit(size_t i) {
    ir::Module& m = c_.modules[i];
    const arch::Module& t = topology_of(m);
    const Assigned a = assignment_.of(t, c_.topology, m.scheme);
    if (m.scheme) return a.scheme == m.scheme ? same(a) : change(m, a);
    if (!a.scheme) {
      if (m.kind != arch::Kind::embedding) m.why = a.why;
      return true;
    }
    if (m.kind == arch::Kind::expert) return stack(m, a);
    if (quantized_ && !m.make) {
      diag_.report("already-quantized", {.module = m.path},
                   fmt::format("the checkpoint leaves it plain ({}), the configuration says {}", m.why, to_string(*a.scheme)),
                   "what the checkpoint says: leave the module out with `ignore`, or say activations alone");
      return false;
    }
    return make(i, a);
  }

  bool same(const Assigned& a) {
    done_ += a.says_weight || a.named ? 1 : 0;
    return true;
  }

  // A quantized weight: its activations may be others.
  bool change(ir::Module& m, const Assigned& a) {
    ir::Scheme kept = *m.scheme;
    if (a.scheme) kept.input = a.scheme->input;
    if (a.says_weight && (!a.scheme || !(kept == *a.scheme) || !(kept == *m.scheme))) {
      diag_.report("already-quantized", {.module = m.path},
                   fmt::format("{} in the checkpoint, {} in the configuration", to_string(*m.scheme), a.scheme ? to_string(*a.scheme) : "plain numbers"),
                   "plain numbers (convert --to dense first, or take the original model), or a configuration of activations alone");
      return false;
    }
    if (kept.input && kept.input->when == ir::When::fixed) {
      needs_calibration(m, kept);
      return false;
    }
    std::erase_if(m.parts, [](const ir::Stored& s) { return s.role == ir::Role::input_scale || s.role == ir::Role::input_zero; });
    m.scheme = kept;
    ++done_;
    return true;
  }

  // Experts in one tensor.
  bool stack(ir::Module& m, const Assigned& a) {
    m.why = "stacked experts are no linears";
    if (a.named) {
      diag_.report("experts-stacked", {.module = m.path}, fmt::format("{} experts in one tensor, {} by {}", m.stack.experts, to_string(*a.scheme), a.why),
                   "experts that are linears of their own; or null for moe, which leaves them as they are");
      return false;
    }
    if (stacks_++ == 0) diag_.report("experts-stay-plain", {.module = m.path}, m.why, fmt::format("linears, which {} can be made of", to_string(*a.scheme)));
    return true;
  }

  bool make(size_t i, const Assigned& a) {
    ir::Module& m = c_.modules[i];
    const arch::Module& t = topology_of(m);
    ir::Scheme scheme = *a.scheme;
    // What a shorthand says of pre-scales, the algorithm decides.
    if (!a.algorithm.empty()) scheme.features.prescale = false;
    if (scheme.input && scheme.input->when == ir::When::fixed && !options_.ranges) {
      needs_calibration(m, scheme);
      return false;
    }
    if (!a.algorithm.empty() && !options_.overlay) {
      diag_.report("calibration-needed", {.module = m.path}, fmt::format("{} made by {}", to_string(scheme), escape(a.algorithm)),
                   "data that the algorithm goes by, as `quantize --calibrate` takes it; or no algorithm");
      return false;
    }
    const recipe::Recipe* recipe = a.recipe.empty() ? recipe::find_recipe(scheme.weight, options_.numerics) : recipe::find_recipe(a.recipe);
    if (recipe == nullptr || !recipe->makes(scheme.weight) || !(scheme.features == ir::Features{})) {
      diag_.report("recipe-missing", {.module = m.path},
                   a.recipe.empty() ? fmt::format("{} with the numerics of {}", to_string(scheme), recipe::to_string(options_.numerics))
                                    : fmt::format("{} by the recipe {}", to_string(scheme), escape(a.recipe)),
                   scheme.features.prescale ? "an algorithm that finds pre-scales, on data: --algorithm awq, smoothquant (modelopt)"
                                            : "a scheme of `quantize --list`, and a recipe that makes it");
      return false;
    }
    const ir::QuantType& type = scheme.weight;
    if (!whole_groups(type, m.k)) {
      diag_.report("group-does-not-divide", {.module = m.path}, fmt::format("k = {}", m.k),
                   fmt::format("whole groups of {}; leave it out with --ignore", type.block.cols));
      return false;
    }
    m.scheme = scheme;
    m.why = a.why;
    m.make = ir::Make{.recipe = std::string(recipe->name), .amax_over = {}, .algorithm = a.algorithm};
    ++done_;
    if ((recipe->share != recipe::Share::own || (recipe->needs_amax && is_cut(*recipe, t))) && !t.fused.empty())
      shared_[{t.fused, m.make->recipe, to_string(type)}].push_back(i);
    else if (recipe->needs_amax)
      m.make->amax_over = {*m.part(ir::Role::code)};
    return true;
  }

  // Modules that are one matrix in engines, and are made alike, share what their scales come from.
  void share_amaxes() {
    for (const auto& [key, members] : shared_) {
      const ir::Module& first = c_.modules[members.front()];
      const recipe::Recipe& recipe = *recipe::find_recipe(first.make->recipe);
      const bool cut = is_cut(recipe, topology_of(first));
      if (recipe.share == recipe::Share::single_block && !single_blocks(c_, members, first.scheme->weight.block, cut)) continue;
      std::vector<ir::Stored> over;
      for (size_t i : members) over.push_back(*c_.modules[i].part(ir::Role::code));
      for (size_t i : members) c_.modules[i].make->amax_over = over;
    }
  }

  bool kv_cache() {
    if (!options_.config.kv_cache) return true;
    const std::optional<ir::Activation>& asked = options_.config.kv_cache->type;
    const bool agree = asked ? c_.kv && c_.kv->scheme == *asked : !c_.kv;
    if (!agree && c_.kv) {
      diag_.report("kv-disagrees", {}, fmt::format("{} in the checkpoint, {} in the configuration", to_string(*c_.kv), asked ? to_string(*asked) : "none"),
                   "what the checkpoint says; --activations bf16 runs it without");
      return false;
    }
    ++done_;
    if (agree) return true;
    c_.kv = ir::KvCache{.scheme = *asked};
    if (options_.ranges && asked->when == ir::When::fixed) return measured_cache();
    diag_.report("kv-scales-absent", {}, fmt::format("{} by the configuration", to_string(*c_.kv)), "k_scale and v_scale for each layer; 1.0 is used");
    return true;
  }

  bool measured_cache() {
    c_.kv->layers = static_cast<int>(c_.topology.layers);
    if (!caches_latents(c_.topology.family)) return true;
    diag_.report("kv-latent", {}, fmt::format("{} for {}", to_string(*c_.kv), c_.topology.family->name), "a family whose keys and values are cached");
    return false;
  }

  void needs_calibration(const ir::Module& m, const ir::Scheme& scheme) {
    diag_.report(
        "calibration-needed", {.module = m.path}, fmt::format("{}: static activation scales", to_string(scheme)),
        fmt::format("plain weights and what to measure them on, or a scheme without them: {} or run-time activation scales", to_string(scheme.weight)));
  }
  const arch::Module& topology_of(const ir::Module& m) const { return c_.topology.modules[static_cast<size_t>(m.topology)]; }

  ir::Checkpoint& c_;
  const QuantizeOptions& options_;
  Assignment assignment_;
  Diagnostics& diag_;
  bool quantized_ = false;  // the checkpoint has quantized weights
  int done_ = 0, stacks_ = 0;
  std::map<std::tuple<std::string, std::string, std::string>, std::vector<size_t>> shared_;  // by fused name, recipe and type
};

Error wrong(std::string what) {
  return {Errc::invalid_argument, std::move(what)};
}

}  // namespace

bool whole_groups(const ir::QuantType& type, int64_t k) {
  const bool whole = type.two_level() || type.scale == ir::ScaleValues::e8m0 || is_integer_code(type.code);
  return !whole || type.block.cols <= 0 || k % type.block.cols == 0;
}

Result<QuantizeOptions> quantize_options(QuantConfig config, std::string_view numerics, std::string_view dialect) {
  if (!numerics.empty() && numerics != "modelopt" && numerics != "llm-compressor")
    return wrong(fmt::format("numerics '{}' is not modelopt or llm-compressor", escape(numerics)));
  QuantizeOptions out;
  out.numerics = numerics == "modelopt" || (numerics.empty() && dialect == "modelopt") ? recipe::Numerics::modelopt : recipe::Numerics::llm_compressor;
  for (Says* says : config.entries()) {
    if (!says->weight || says->weight->recipe.empty()) continue;
    std::string& name = says->weight->recipe;
    if (says->weight->implied && numerics == "llm-compressor") {
      name.clear();
      continue;
    }
    const recipe::Recipe* named = recipe::find_recipe(name);
    if (named == nullptr) {
      std::vector<std::string_view> known;
      for (const recipe::Recipe* r : recipe::recipes()) known.push_back(r->name);
      return wrong(fmt::format("unknown recipe '{}'; near names: {}", escape(name), ir::near_names(name, known)));
    }
    if (!numerics.empty() && named->numerics != out.numerics)
      return wrong(fmt::format("the recipe {} has the numerics of {}", named->name, recipe::to_string(named->numerics)));
  }
  out.config = std::move(config);
  return out;
}

Result<QuantizeOptions> quantize_options(std::string_view scheme, std::string_view numerics, std::string_view recipe, std::string_view dialect) {
  QB_ASSIGN(QuantConfig config, parse_quant_config(scheme));
  if (!config.everything.weight || !config.everything.weight->type) return wrong(fmt::format("'{}' is the name of no scheme", escape(scheme)));
  if (!recipe.empty()) {
    config.everything.weight->recipe = recipe;
    config.everything.weight->implied = false;
  }
  return quantize_options(std::move(config), numerics, dialect);
}

bool quantize(ir::Checkpoint& c, const QuantizeOptions& options, Diagnostics& diag) {
  std::optional<Assignment> assignment = Assignment::compile(options.config, options.regex, diag);
  return assignment && Quantizing(c, options, std::move(*assignment), diag).run();
}

}  // namespace qb::pass
