#include "model/loader.h"

#include <fmt/format.h>

#include "ir/parts.h"

namespace qb::model {

using ir::Role;

Loader::Loader(const Loading& loading) : loading_(loading), options_(loading.options.linear) {
  for (const ir::Module& m : loading.checkpoint.modules) {
    modules_.emplace(m.path, &m);
    if (m.topology < 0 || m.parts.empty()) continue;
    const arch::Module& t = loading.checkpoint.topology.modules[static_cast<size_t>(m.topology)];
    for (size_t i = 0; i < t.parts.size(); ++i) parts_.emplace(t.parts[i].path, Part{&m, &t, i});
  }
  options_.pool = &loading.pool;
  options_.rotations = &rotations_;
  options_.policy.reference |= loading.options.reference;
}

const ir::Module* Loader::find(const std::string& path) const {
  auto it = modules_.find(path);
  return it == modules_.end() || it->second->parts.empty() ? nullptr : it->second;
}

Result<const ir::Module*> Loader::need(const std::string& path) const {
  if (const ir::Module* m = find(path); m != nullptr) return m;
  return Error{Errc::invalid_argument, fmt::format("{}: the checkpoint has no weight for it", path)};
}

layer::Experts::Place Loader::experts(int64_t all) const {
  const arch::Topology& t = loading_.checkpoint.topology;
  if (loading_.team == nullptr || loading_.team->spread == nullptr) return {0, all, all, nullptr};
  const arch::Range mine = arch::experts_of(all, loading_.team->sharing, t.rank).value_or(arch::Range{});
  return {mine.begin, mine.size(), all, loading_.team->spread};
}

const arch::Module* Loader::topology_of(const ir::Module& m) const {
  return m.topology < 0 ? nullptr : &loading_.checkpoint.topology.modules[static_cast<size_t>(m.topology)];
}

// The ranks that have the other columns of its weight.
host::Communicator* Loader::cut_of(const arch::Module* m) const {
  const arch::Topology& t = loading_.checkpoint.topology;
  if (loading_.team == nullptr || m == nullptr) return nullptr;
  if (m->parallel != arch::Parallel::rows || arch::cut_of(*m, t.ranks, t.rank).ranks == 1) return nullptr;
  return m->expert >= 0 || m->kind == arch::Kind::expert ? loading_.team->expert : loading_.team->tensor;
}

Result<layer::Linear> Loader::load(const ir::Module& m, const arch::Module* topology, int64_t n, int64_t k, kernel::Inputs inputs) {
  if ((n != 0 && m.n != n) || (k != 0 && m.k != k)) {
    return Error{Errc::invalid_argument, fmt::format("{}: the weight is {} x {}, expected {} x {} by config.json", m.path, m.n, m.k, n, k)};
  }
  layer::LinearOptions options = options_;
  options.inputs = inputs;
  options.cut = cut_of(topology);
  // Float32 throughout: what the scheme does not quantize is not rounded to bfloat16 either.
  if ((loading_.options.reference || loading_.options.exact_inputs) && inputs == kernel::Inputs::as_scheme &&
      (!m.scheme || (!m.scheme->input && !m.scheme->features.output)))
    options.inputs = kernel::Inputs::f32;
  QB_ASSIGN(layer::Linear out, layer::Linear::load(m, *loading_.package.source, loading_.arena, options, loading_.context));
  resident_ += out.bytes();
  return out;
}

Result<layer::Linear> Loader::linear(const std::string& path, int64_t n, int64_t k) {
  if (const auto at = parts_.find(path); at != parts_.end() && find(path) == nullptr) {
    const Part& p = at->second;
    const std::optional<ir::Module> part = ir::part_of(*p.whole, *p.topology, p.number);
    if (part) return load(*part, p.topology, n, k, options_.inputs);
    return Error{Errc::invalid_argument, fmt::format("{}: it cannot be taken out of {}: {}", path, p.whole->path, ir::inseparable_by(*p.whole, *p.topology))};
  }
  QB_ASSIGN(const ir::Module* const m, need(path));
  return load(*m, topology_of(*m), n, k, options_.inputs);
}

Result<layer::Linear> Loader::exact_linear(const std::string& path, int64_t n, int64_t k) {
  QB_ASSIGN(const ir::Module* const m, need(path));
  return load(*m, topology_of(*m), n, k, kernel::Inputs::f32);
}

Result<const float*> Loader::floats(const ir::Stored& stored, int64_t n, float plus) {
  if (stored.view.dims[0] * stored.view.dims[1] != n) return Error{Errc::invalid_argument, fmt::format("{}: expected {} numbers", stored.tensor, n)};
  QB_ASSIGN(const float* const out, layer::load_floats(stored, *loading_.package.source, loading_.arena, loading_.context, plus));
  resident_ += static_cast<size_t>(n) * sizeof(float);
  return out;
}

Result<const float*> Loader::norm(const std::string& path, int64_t n, float plus) {
  QB_ASSIGN(const ir::Module* const m, need(path));
  const ir::Stored* weight = m->part(Role::plain);
  if (weight == nullptr) return Error{Errc::invalid_argument, fmt::format("{}: expected a weight of {} numbers", path, n)};
  return floats(*weight, n, plus);
}

Result<const float*> Loader::plain(const std::string& path, std::string_view suffix, int64_t n) {
  const std::string name = fmt::format("{}.{}", path, suffix);
  if (const ir::Module* m = find(path); m != nullptr)
    for (const ir::Stored& s : m->parts)
      if (s.role == Role::plain && ir::whole_name(s) == name) return floats(s, n, 0);
  return Error{Errc::invalid_argument, fmt::format("{}: the checkpoint does not have it", name)};
}

Result<layer::Embedding> Loader::embedding(const std::string& path) {
  QB_ASSIGN(const ir::Module* const m, need(path));
  QB_ASSIGN(layer::Embedding out, layer::Embedding::load(*m, *loading_.package.source, loading_.arena, options_, loading_.context));
  resident_ += out.bytes();
  return out;
}

Result<layer::KvScales> Loader::kv_scales(const std::string& attention, Role scale, Role bias) {
  layer::KvScales out;
  if (options_.observers != nullptr) out.observer = options_.observers->of(attention, scale);
  const ir::Module* m = find(attention);
  if (m == nullptr) return out;
  if (const ir::Stored* b = m->part(bias); b != nullptr) {
    QB_ASSIGN(out.bias, floats(*b, b->view.dims[1], 0));
  }
  const ir::Stored* s = m->part(scale);
  if (s == nullptr) return out;
  const auto usable = [](float x) { return x > 0 && x < __builtin_inff(); };
  const auto refused = [&](double x) { return Error{Errc::invalid_argument, fmt::format("{} is {}, a scale must be a finite number above 0", s->tensor, x)}; };
  if (s->value) {
    out.scale = static_cast<float>(s->form == ir::ScaleForm::divide ? 1.0 / *s->value : *s->value);
    return usable(out.scale) ? Result<layer::KvScales>(out) : refused(*s->value);
  }
  QB_ASSIGN(out.by_head, floats(*s, s->view.dims[1], 0));
  for (int64_t h = 0; h < s->view.dims[1]; ++h)
    if (!usable(out.by_head[h])) return refused(static_cast<double>(out.by_head[h]));
  return out;
}

}  // namespace qb::model
