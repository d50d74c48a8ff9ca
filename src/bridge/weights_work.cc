#include "bridge/weights_work.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "calib/output_error.h"
#include "exec/execute.h"
#include "ir/stack.h"

namespace qb {
namespace {

using calib::Algorithm;
using calib::Made;
using calib::Statistics;
using calib::TakenBy;
using calib::Weight;
using ir::Role;
using Kind = Algorithm::Kind;

template <class T>
std::vector<std::byte> bytes_of(const std::vector<T>& v) {
  const auto* begin = reinterpret_cast<const std::byte*>(v.data());
  return {begin, begin + v.size() * sizeof(T)};
}

}  // namespace

WeightsWork::WeightsWork(const WeightsPlan& plan) : p_(plan) {
  const arch::Topology& topology = p_.planned.topology;
  by_layer_.resize(static_cast<size_t>(std::max<int64_t>(topology.layers, 0)));
  for (size_t i = 0; i < p_.planned.modules.size(); ++i) {
    const ir::Module& m = p_.planned.modules[i];
    by_path_.emplace(m.path, i);
    if (m.topology < 0 || m.kind != arch::Kind::linear || m.part(Role::code) == nullptr) continue;
    const arch::Module& t = topology.modules[static_cast<size_t>(m.topology)];
    if (t.layer >= 0 && t.layer < topology.layers && !t.structural) by_layer_[static_cast<size_t>(t.layer)].push_back(i);
  }
}

bool WeightsWork::asked(const ir::Module& m) const {
  if (!m.make || m.make->algorithm.empty()) return false;
  const auto named = calib::parse_algorithms(m.make->algorithm, recipe::find_recipe(m.make->recipe)->numerics);
  return named && std::find(named->begin(), named->end(), &p_.algorithm) != named->end();
}

const ir::Module* WeightsWork::find(const std::string& path) const {
  const auto it = by_path_.find(path);
  return it == by_path_.end() ? nullptr : &p_.running.modules[it->second];
}

std::string WeightsWork::file_of(int64_t layer) const {
  return fmt::format("{}-{:05}.safetensors", p_.stage, layer);
}

bool WeightsWork::check(Diagnostics& diag) const {
  std::set<size_t> reached;
  for (size_t layer = 0; layer < by_layer_.size(); ++layer) reached.insert(by_layer_[layer].begin(), by_layer_[layer].end());
  for (size_t i = 0; i < p_.planned.modules.size(); ++i) {
    const ir::Module& m = p_.planned.modules[i];
    if (!asked(m)) continue;
    const std::string_view instead = p_.algorithm.refuses(m.scheme->weight);
    if (!instead.empty() || !reached.contains(i))
      diag.report("algorithm-unsuited", {.module = m.path}, fmt::format("{} by {}", to_string(*m.scheme), p_.algorithm.name),
                  instead.empty() ? std::string("a linear of one of the model's layers; name no algorithm for it") : std::string(instead));
  }
  return diag.ok();
}

std::vector<WeightsWork::Group> WeightsWork::groups_of(int64_t layer) const {
  std::vector<Group> out;
  std::map<std::string, size_t> place;
  std::set<std::string> with_experts;  // norms that experts read
  for (const size_t i : by_layer_[static_cast<size_t>(layer)]) {
    const ir::Module& m = p_.planned.modules[i];
    const arch::Module& t = p_.planned.topology.modules[static_cast<size_t>(m.topology)];
    std::string key = m.path;
    Group g;
    if (p_.algorithm.kind == Kind::codes || p_.algorithm.taken_by == TakenBy::nobody) {
      if (!asked(m)) continue;
      if (!t.fused.empty()) key = t.fused;
    } else if (!t.input_norm.empty()) {
      key = g.norm = t.input_norm;
      if (!t.of_experts.empty()) with_experts.insert(key);
    } else {
      if (!p_.algorithm.linears || !asked(m)) continue;
      g.feeder = t.fed_by;
    }
    const auto [it, fresh] = place.emplace(key, out.size());
    if (fresh) {
      g.watched = i;
      out.push_back(std::move(g));
    }
    Group& group = out[it->second];
    // Experts see the tokens that chose them, what stands beside them sees all.
    if (!p_.planned.topology.modules[static_cast<size_t>(p_.planned.modules[group.watched].topology)].of_experts.empty() && t.of_experts.empty())
      group.watched = i;
    group.modules.push_back(i);
  }
  if (p_.algorithm.kind == Kind::factors)
    std::erase_if(out, [&](const Group& g) {
      return std::none_of(g.modules.begin(), g.modules.end(), [&](size_t i) { return asked(p_.planned.modules[i]); }) ||
             (!p_.algorithm.mixtures && with_experts.contains(g.norm));
    });
  return out;
}

int64_t WeightsWork::next_unfinished(int64_t from) const {
  for (int64_t layer = from; layer < static_cast<int64_t>(by_layer_.size()); ++layer)
    if (!p_.store.has(file_of(layer)) && !groups_of(layer).empty()) return layer;
  return -1;
}

layer::Observer* WeightsWork::of(const std::string& path, ir::Role role) {
  if (role != Role::input_scale) return nullptr;
  for (Seen& s : watched_)
    if (p_.planned.modules[s.group.watched].path == path) return &s.statistics;
  return nullptr;
}

Result<calib::LayerWork::Pass> WeightsWork::begin(int64_t layer) {
  watched_.clear();
  const bool factors = p_.algorithm.kind == Kind::factors;
  if (p_.store.has(file_of(layer))) {
    if (!factors)
      for (const size_t i : by_layer_[static_cast<size_t>(layer)])
        if (asked(p_.planned.modules[i])) {
          ir::Module m = p_.planned.modules[i];
          pass::give_codes(m, p_.store.overlay());
          if (!m.make) p_.running.modules[i] = std::move(m);
        }
    return next_unfinished(layer) < 0 ? Pass::done : Pass::go;
  }
  if (!waiting_.empty()) {
    Seen& first = waiting_.front();
    const bool begins = !first.trying && first.candidates.empty();
    QB_TRY(try_next(first));
    return begins ? Pass::keep : Pass::compare;
  }
  if (current_ != layer) {
    current_ = layer;
    pending_ = groups_of(layer);
    if (pending_.empty()) return next_unfinished(layer) < 0 ? Pass::done : Pass::go;
  }
  // As many at once as there is memory for.
  uint64_t bytes = 0;
  bool all_at_once = factors;
  while (!pending_.empty()) {
    const int64_t width = p_.planned.modules[pending_.front().watched].k;
    const bool products = p_.algorithm.products && !tries(pending_.front());
    bytes += Statistics::bytes(width, products);
    if (!watched_.empty() && bytes > p_.memory) break;
    all_at_once = all_at_once && !tries(pending_.front());
    watched_.push_back({std::move(pending_.front()), Statistics(width, products, p_.tools)});
    pending_.erase(pending_.begin());
  }
  return all_at_once && pending_.empty() ? Pass::go : Pass::look;
}

bool WeightsWork::compares() const {
  return !waiting_.empty() || std::any_of(watched_.begin(), watched_.end(), [&](const Seen& s) { return tries(s.group); });
}

void WeightsWork::compared(double squares) {
  Seen& s = waiting_.front();
  if (!(squares < s.least)) return;
  s.least = squares;
  s.best = s.trying;
}

// The next candidate in the places of the group's weights; the layer as it is, the first time.
Result<void> WeightsWork::try_next(Seen& s) {
  if (s.candidates.empty()) {
    QB_ASSIGN(const std::vector<Weight> weights, weights_of(s.group.modules));
    s.candidates = p_.algorithm.candidates(weights, s.statistics);
    return {};
  }
  s.trying = s.trying ? *s.trying + 1 : 0;
  p_.tried = MemorySource();
  for (const size_t i : s.group.modules) {
    QB_ASSIGN(const Weight w, weight_of(i));
    ir::Module& m = p_.running.modules[i];
    if (w.recipe == nullptr) continue;
    was_.push_back(m);
    QB_ASSIGN(const std::vector<float> numbers, calib::rounded(w, s.candidates[*s.trying], p_.tools));
    const FileId file = p_.first_tried + p_.tried.add(bytes_of(numbers));
    const TensorInfo info{
        .name = m.part(Role::code)->tensor, .dtype = Elem::f32, .shape = {w.n, w.k}, .file = file, .offset = 0, .bytes = numbers.size() * sizeof(float)};
    for (ir::Stored& part : m.parts)
      if (part.role == Role::code) part = ir::stored(info, Role::code, Elem::f32, ir::row_major(w.n, w.k, 32));
  }
  return {};
}

Result<void> WeightsWork::end(int64_t layer, const std::function<void(double)>& tell) {
  if (!waiting_.empty()) {  // the first has been tried once more
    for (ir::Module& m : was_) p_.running.modules[by_path_.at(m.path)] = std::move(m);
    was_.clear();
  }
  for (Seen& s : watched_) waiting_.push_back(std::move(s));
  watched_.clear();
  return work_off(layer, tell);
}

// Group by group in the order of the layer, up to one that has candidates left.
Result<void> WeightsWork::work_off(int64_t layer, const std::function<void(double)>& tell) {
  if (waiting_.empty()) return {};
  // The products of a group's inputs times every row of its weights.
  const auto cost = [&](const Group& group) {
    double rows = 0;
    for (const size_t i : group.modules) rows += static_cast<double>(p_.planned.modules[i].n);
    const auto width = static_cast<double>(p_.planned.modules[group.watched].k);
    return rows * width * width;
  };
  double all = 0, done = 0;
  for (const Seen& s : waiting_) all += cost(s.group);
  for (; !waiting_.empty(); waiting_.pop_front()) {
    if (p_.context.stop()) return Error{Errc::cancelled, "interrupted"};
    Seen& s = waiting_.front();
    // An expert that nobody chose: its weights are rounded as they are.
    if (s.statistics.tokens() != 0) {
      std::optional<std::vector<float>> found;
      if (tries(s.group)) {
        const size_t tried = s.trying ? *s.trying + 1 : 0;
        if (!s.candidates.empty()) tell((done + cost(s.group) * static_cast<double>(tried) / static_cast<double>(s.candidates.size())) / all);
        if (s.candidates.empty() || tried < s.candidates.size()) return {};
        if (!s.best) return Error{Errc::bad_input, fmt::format("{}: what comes out behind it is not finite", p_.planned.modules[s.group.watched].path)};
        found = std::move(s.candidates[*s.best]);
      }
      QB_TRY(p_.algorithm.kind == Kind::codes ? solve(s.group, s.statistics) : balance(s.group, s.statistics, std::move(found)));
    }
    done += cost(s.group);
    tell(done / all);
  }
  if (!pending_.empty()) return {};
  std::vector<LayerStore::Tensor> tensors;
  for (auto& [name, tensor] : made_) tensors.push_back(std::move(tensor));
  made_.clear();
  return p_.store.write(file_of(layer), tensors);
}

void WeightsWork::keep(std::string name, Elem dtype, std::vector<int64_t> shape, std::vector<std::byte> bytes) {
  TensorInfo info{.name = name, .dtype = dtype, .shape = std::move(shape), .bytes = bytes.size()};
  made_.insert_or_assign(std::move(name), LayerStore::Tensor{std::move(info), std::move(bytes)});
}

Result<std::vector<std::byte>> WeightsWork::numbers_of(const ir::Stored& s) const {
  if (const auto it = made_.find(s.tensor); it != made_.end()) return it->second.bytes;
  return read_numbers(s, p_.source, p_.context);
}

Result<Weight> WeightsWork::weight_of(size_t module) const {
  // What is run may have other numbers: those of before an algorithm that left a pre-scale.
  const ir::Module& planned = p_.planned.modules[module];
  const ir::Module& m = planned.make ? planned : p_.running.modules[module];
  Weight w{.path = m.path, .n = m.n, .k = m.k, .elem = m.part(Role::code)->elem};
  if (asked(planned)) {
    w.recipe = recipe::find_recipe(planned.make->recipe);
    w.type = planned.scheme->weight;
  }
  QB_ASSIGN(w.numbers, numbers_of(*m.part(Role::code)));
  return w;
}

Result<std::vector<Weight>> WeightsWork::weights_of(std::span<const size_t> modules) const {
  std::vector<Weight> out;
  for (const size_t i : modules) {
    QB_ASSIGN(Weight w, weight_of(i));
    out.push_back(std::move(w));
  }
  return out;
}

// By what an algorithm of factors has left beside the weights of the group.
Result<void> WeightsWork::scale_inputs(const Group& group, Statistics& seen) const {
  const auto& tensors = p_.store.overlay().tensors;
  const auto t = tensors.find("prescale:" + p_.planned.modules[group.watched].path);
  if (t == tensors.end()) return {};
  const ir::Stored stored = ir::stored(t->second, Role::prescale, t->second.dtype, ir::row_major(1, seen.width(), bits(t->second.dtype)));
  QB_ASSIGN(const std::vector<std::byte> bytes, read_numbers(stored, p_.source, p_.context));
  std::vector<float> factors(static_cast<size_t>(seen.width()));
  calib::widen(bytes.data(), stored.elem, seen.width(), factors.data());
  seen.scale(factors);
  return {};
}

Result<void> WeightsWork::solve(const Group& group, Statistics& seen) {
  QB_TRY(scale_inputs(group, seen));
  QB_ASSIGN(const std::vector<Weight> weights, weights_of(group.modules));
  Result<std::vector<Made>> solved = p_.algorithm.solve(weights, seen, p_.tools);
  if (!solved) return Error{solved.error().code, fmt::format("{}: {}", weights.front().path, solved.error().what)};
  for (size_t i = 0; i < weights.size(); ++i) {
    const Weight& w = weights[i];
    Made& made = (*solved)[i];
    if (is_integer_code(w.type.code)) {
      const auto middle = static_cast<uint8_t>(1U << (bits(w.type.code) - 1));
      for (std::byte& b : made.codes) b = static_cast<std::byte>(static_cast<uint8_t>(b) + middle);
    }
    const Elem scale = w.recipe->scale_elem(w.elem);
    const int64_t groups = static_cast<int64_t>(made.scales.size()) / (bits(scale) / 8) / w.n, bytes = static_cast<int64_t>(made.codes.size()) / w.n;
    keep("code:" + w.path, Elem::u8, {w.n, bytes}, std::move(made.codes));
    if (w.type.two_level()) keep("global:" + w.path, Elem::f32, {1}, bytes_of(std::vector{made.global}));
    keep("scale:" + w.path, scale, {w.n, groups}, std::move(made.scales));
    if (!made.zeros.empty()) keep("zero:" + w.path, Elem::i8, {w.n, groups}, std::move(made.zeros));
    if (!made.order.empty()) keep("order:" + w.path, Elem::i32, {w.k}, bytes_of(made.order));
  }
  return {};
}

Result<void> WeightsWork::scale_rows(const ir::Stored& s, std::span<const float> divisors, float plus) {
  QB_ASSIGN(std::vector<std::byte> bytes, numbers_of(s));
  const auto rows = static_cast<int64_t>(divisors.size()), cols = s.view.dims[0] * s.view.dims[1] / rows;
  std::vector<float> row(static_cast<size_t>(cols));
  for (int64_t r = 0; r < rows; ++r) {
    std::byte* const at = bytes.data() + static_cast<size_t>(r * cols * bits(s.elem) / 8);
    calib::widen(at, s.elem, cols, row.data());
    for (float& x : row) x = (x + plus) / divisors[static_cast<size_t>(r)] - plus;
    calib::narrow(row.data(), cols, s.elem, at);
  }
  keep(s.tensor, s.container, s.shape, std::move(bytes));
  return {};
}

// The norm, or the rows of the linear, that the group reads takes the factors up. Precondition: takes_up().
Result<void> WeightsWork::into_feeder(const Group& group, std::span<const float> factors) {
  const ir::Module& feeder = *find(group.norm.empty() ? group.feeder : group.norm);
  for (const ir::Stored& s : feeder.parts)
    if (s.role == Role::code || s.role == Role::bias || s.role == Role::plain)
      QB_TRY(scale_rows(s, factors, group.norm.empty() ? 0 : p_.planned.topology.family->norm_plus));
  return {};
}

const ir::Module* WeightsWork::feeder_of(const Group& group) const {
  return find(group.norm.empty() ? group.feeder : group.norm);
}

// What computes its outputs otherwise, or has others than the group has inputs, cannot take factors up.
bool WeightsWork::takes_factors(const Group& group) const {
  const ir::Module* const m = feeder_of(group);
  const int64_t k = p_.planned.modules[group.watched].k;
  if (m == nullptr) return false;
  if (!group.norm.empty()) return m->parts.size() == 1 && m->parts[0].view.dims[0] * m->parts[0].view.dims[1] == k && p_.planned.topology.family != nullptr;
  return m->n == k && !m->scheme && m->transforms.empty() && m->part(Role::code) != nullptr;
}

bool WeightsWork::tries(const Group& group) const {
  return p_.algorithm.candidates != nullptr && !group.norm.empty() && takes_factors(group);
}

// The norm's weights have taken the factors up, rounded as they are stored: with factors that are the quotients of both, nothing is lost.
Result<void> WeightsWork::round_norm(const Group& group, std::vector<float>& factors) const {
  const ir::Stored& s = feeder_of(group)->parts[0];
  const auto k = static_cast<int64_t>(factors.size());
  const float plus = p_.planned.topology.family->norm_plus;
  QB_ASSIGN(const std::vector<std::byte> before, read_numbers(s, p_.source, p_.context));
  std::vector<float> was(factors.size()), is(factors.size());
  calib::widen(before.data(), s.elem, k, was.data());
  calib::widen(made_.at(s.tensor).bytes.data(), s.elem, k, is.data());
  for (size_t j = 0; j < factors.size(); ++j)
    if (const float f = (was[j] + plus) / (is[j] + plus); f > 0 && std::isfinite(f)) factors[j] = f;
  return {};
}

Result<void> WeightsWork::balance(const Group& group, Statistics& seen, std::optional<std::vector<float>> found) {
  const int64_t k = seen.width();
  // ModelOpt's export hands the factors of two-level weights on, and keeps those of integers.
  const bool folds = takes_factors(group) && (!group.norm.empty() || p_.planned.modules[group.watched].scheme->weight.two_level());
  const bool prescale = p_.algorithm.taken_by == TakenBy::nobody || (p_.algorithm.taken_by == TakenBy::unfed && !folds);
  // Scales of a cache are those of values as they are.
  if (!prescale && !group.feeder.empty()) {
    const auto attention = by_path_.find(group.feeder.substr(0, group.feeder.rfind('.')));
    if (attention != by_path_.end() && p_.planned.modules[attention->second].part(Role::v_scale) != nullptr) return {};
  }
  if (!prescale && !takes_factors(group)) return {};
  std::vector<size_t> scaled = group.modules;
  // What stays plain has nothing beside it.
  if (prescale) std::erase_if(scaled, [&](size_t i) { return !asked(p_.planned.modules[i]); });
  QB_ASSIGN(std::vector<Weight> weights, weights_of(scaled));
  Result<std::vector<float>> factors = found ? std::move(*found) : p_.algorithm.balance(weights, seen, p_.tools);
  if (!factors) return Error{factors.error().code, fmt::format("{}: {}", weights.front().path, factors.error().what)};
  if (prescale) {
    // What is stored is rounded, and the weight goes by that.
    std::vector<std::byte> stored(static_cast<size_t>(k) * static_cast<size_t>(bits(weights[0].elem)) / 8);
    std::vector<float> inverse(factors->size());
    for (size_t i = 0; i < inverse.size(); ++i) inverse[i] = 1 / (*factors)[i];
    calib::narrow(inverse.data(), k, weights[0].elem, stored.data());
    calib::widen(stored.data(), weights[0].elem, k, inverse.data());
    for (size_t i = 0; i < inverse.size(); ++i) (*factors)[i] = 1 / inverse[i];
    for (const Weight& w : weights) keep("prescale:" + w.path, w.elem, {k}, stored);
  } else {
    QB_TRY(into_feeder(group, *factors));
    if (!group.norm.empty()) QB_TRY(round_norm(group, *factors));
  }
  std::vector<float> range{__builtin_inff(), -__builtin_inff()}, inverse;
  for (size_t j = 0; j < factors->size(); ++j) {
    inverse.push_back(1 / (*factors)[j]);
    range[0] = std::min(range[0], seen.least()[j] / (*factors)[j]);
    range[1] = std::max(range[1], seen.most()[j] / (*factors)[j]);
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    Weight& w = weights[i];
    if (w.recipe != nullptr) {
      keep("range:" + w.path, Elem::f32, {2}, bytes_of(range));
      keep("inputs:" + w.path, Elem::f32, {k}, bytes_of(inverse));
    }
    calib::scale_columns(w.numbers.data(), w.elem, w.n, *factors, w.numbers.data());
    const ir::Stored& s = *p_.running.modules[scaled[i]].part(Role::code);
    keep(s.tensor, s.container, s.shape, std::move(w.numbers));
  }
  return {};
}

}  // namespace qb
