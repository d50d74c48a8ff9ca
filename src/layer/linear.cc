#include "layer/linear.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>
#include <optional>

#include "exec/execute.h"
#include "exec/ops.h"
#include "ir/region.h"
#include "kernel/input_range.h"
#include "kernel/parallel.h"
#include "kernel/reference.h"
#include "layer/numbers.h"

namespace qb::layer {
namespace {

using ir::Role;

constexpr std::array<int64_t, 7> batch_sizes{1, 2, 4, 8, 16, 64, 512};
constexpr size_t most_together = 4;  // linears in one loop

// Buffers of one thread while a weight is loaded. Large enough for sequential reads, small beside the 64 MiB that a run may use besides weights and KV cache.
constexpr uint64_t load_buffer = 4ull << 20, load_buffers = 16ull << 20;

Error cannot_load(const ir::Module& m, std::string what) {
  return Error{Errc::invalid_argument, fmt::format("{}: {}", m.path, what)};
}

// A scalar scale as a multiplier: reciprocals are inverted in double, rounded once.
Result<float> multiplier(const ir::Module& m, const std::string& name, double stored, ir::ScaleForm form) {
  const double x = form == ir::ScaleForm::divide ? 1.0 / stored : stored;
  const auto f = static_cast<float>(x);
  if (std::isfinite(f) && f > 0) return f;
  return cannot_load(m, fmt::format("{} is {}, a scale must be a finite number above 0", name, stored));
}
Result<float> multiplier(const ir::Module& m, const ir::Stored& s) {
  if (!s.value) return cannot_load(m, fmt::format("the value of {} is not known: it is not a single float", s.tensor));
  return multiplier(m, s.tensor, *s.value, s.form);
}

// The program that brings a module's weight into the layouts of the plan; without its codes where their columns are to be moved.
struct Packing {
  prog::Program program;
  Numbers numbers;
  int codes = -1, scales = -1, zeros = -1, order = -1, global = -1;  // outputs; the global one is the last
};

Result<Packing> packing(const ir::Module& m, const oracle::LinearPlan& plan, bool moved) {
  Packing out;
  prog::Program& p = out.program;
  Numbers& numbers = out.numbers;
  numbers = numbers_of(m, moved, p);
  p.row_multiple = std::lcm<int64_t>(ir::panel_rows, p.row_multiple);
  const auto then = [&](prog::Op op) {
    p.ops.push_back(std::move(op));
    return numbers.next++;
  };
  const auto add = [&](prog::Output output) {
    p.outputs.push_back(std::move(output));
    return static_cast<int>(p.outputs.size()) - 1;
  };
  const auto panels_of = [&](const Numbers::Part& part, ir::Layout layout) {
    const int64_t groups = (m.n + ir::panel_rows - 1) / ir::panel_rows;
    return add({.name = part.name,
                .dtype = Elem::u8,
                .shape = {groups, ir::panel_bytes(layout, part.cols, bits(part.elem))},
                .value = then(prog::Pack{part.value, layout})});
  };
  if (numbers.code) out.codes = plan.code_layout != ir::Layout::rows ? panels_of(*numbers.code, plan.code_layout) : add(output_of(*numbers.code));
  if (!numbers.scale) return out;
  // Floats become float32 multipliers; E4M3 and E8M0 scales stay as they are where the layout holds them so.
  const bool in_panels = kernel::scales_in_panels(plan.scale_layout, m.scheme->weight);
  const Elem grid = in_panels ? kernel::panel_scale_elem(m.scheme->weight) : kernel::grid_elem(m.scheme->weight);
  Numbers::Part scale = *numbers.scale;
  if (grid != Elem::f32 && (scale.elem != grid || scale.form == ir::ScaleForm::divide))
    return cannot_load(m, fmt::format("the block scales {} are {}, expected {} multipliers", scale.name, info(scale.elem).name, info(grid).name));
  if (scale.elem != grid) scale.value = then(prog::Recode{scale.value, grid});
  if (scale.form == ir::ScaleForm::divide) scale.value = then(prog::Rescale{scale.value});
  scale.elem = grid;
  out.scales = in_panels ? panels_of(scale, ir::Layout::panel_scale) : add(output_of(scale));
  if (numbers.zero) out.zeros = in_panels ? panels_of(*numbers.zero, ir::Layout::panel_scale) : add(output_of(*numbers.zero));
  if (numbers.order) out.order = add(output_of(*numbers.order));
  if (numbers.global) out.global = add(output_of(*numbers.global));
  return out;
}

// The group of each column, where the checkpoint says it; -1 everywhere says nothing. An index that names no group would be read out of bounds.
Result<const int32_t*> checked_order(const ir::Module& m, std::span<std::byte> bytes) {
  auto* order = reinterpret_cast<int32_t*>(bytes.data());
  const int64_t group = m.scheme->weight.block.cols, groups = (m.k + group - 1) / group;
  for (int64_t j = 0; j < m.k; ++j) {
    if (order[j] == -1) order[j] = static_cast<int32_t>(j / group);
    if (order[j] < 0 || order[j] >= groups)
      return cannot_load(m, fmt::format("{} names group {} for column {}, there are {}", m.part(Role::order)->tensor, order[j], j, groups));
  }
  return order;
}

// The column that lies at each place in panels, -1 where none does, when columns lie in the order of their groups (null: which follow each other). Nothing
// where groups are not all of the size that the type says: then they do not lie in panels.
std::optional<std::vector<int32_t>> columns_by_group(const int32_t* order, int64_t k, const ir::QuantType& type, ir::Layout layout) {
  const int64_t group = kernel::group_columns(type), room = kernel::panel_group(layout, type), places = kernel::panel_columns(layout, type, k);
  std::vector<int32_t> columns(static_cast<size_t>(places), -1), next(static_cast<size_t>((k + group - 1) / group));
  for (int64_t j = 0; j < k; ++j) {
    const int64_t g = order == nullptr ? j / group : order[j], in_group = next[static_cast<size_t>(g)]++;
    if (in_group >= std::min(group, k - g * group)) return std::nullopt;
    columns[static_cast<size_t>(g * room + in_group)] = static_cast<int32_t>(j);
  }
  return columns;
}

Result<std::optional<std::vector<int32_t>>> load_columns(const ir::Module& m, const ir::Stored& stored, ir::Layout layout, Source& source, Context& context) {
  std::vector<int32_t> order(static_cast<size_t>(m.k));
  prog::Program p;
  p.rows = stored.view.dims[0];
  p.inputs.push_back(prog::input_of(stored, 1));
  p.ops.emplace_back(prog::Copy{0});
  p.outputs.push_back({.name = stored.tensor, .dtype = stored.elem, .shape = {stored.view.dims[0], stored.view.dims[1]}, .value = 1});
  const std::span<std::byte> outputs[] = {std::as_writable_bytes(std::span(order))};
  if (stored.elem != Elem::i32 || prog::output_bytes(p.outputs[0]) != outputs[0].size())
    return cannot_load(m, fmt::format("{} is no list of {} groups", stored.tensor, m.k));
  QB_TRY(run_into(p, source, outputs, nullptr, context));
  QB_ASSIGN(const int32_t* checked, checked_order(m, outputs[0]));
  return columns_by_group(checked, m.k, m.scheme->weight, layout);
}

// Codes in panels with their columns moved, some rows at a time.
Result<void> pack_moved(const ir::Module& m, const ir::Stored& code, ir::Layout layout, std::span<const int32_t> columns, std::byte* to, Source& source,
                        Context& context) {
  prog::Program p;
  p.rows = m.n;
  p.row_multiple = ir::panel_rows;
  p.inputs.push_back(prog::input_of(code, 1));
  p.ops.emplace_back(prog::Copy{0});
  const Elem elem = is_integer_code(code.elem) ? Elem::i8 : code.elem;
  p.outputs.push_back({.name = code.tensor, .dtype = elem, .shape = {m.n, m.k}, .value = 1});
  QB_TRY(prog::type_check(p));
  const auto places = static_cast<int64_t>(columns.size());
  const int64_t stored = ir::panel_bytes(ir::Layout::rows, m.k, bits(elem)), placed = ir::panel_bytes(ir::Layout::rows, places, bits(elem));
  const auto buffer = static_cast<int64_t>(std::min(load_buffer, context.limits.memory_budget / 4));  // two of them, and what execute_rows takes
  const int64_t height = std::max<int64_t>(buffer / placed / ir::panel_rows, 1) * ir::panel_rows;
  std::vector<std::byte> rows(static_cast<size_t>(std::min(height, m.n) * stored)), moved(static_cast<size_t>(std::min(height, m.n) * placed));
  for (int64_t begin = 0; begin < m.n; begin += height) {
    const int64_t end = std::min(m.n, begin + height);
    const std::span<std::byte> outputs[] = {std::span(rows).first(static_cast<size_t>((end - begin) * stored))};
    QB_TRY(execute_rows(p, {begin, end}, source, outputs, context));
    ops::move_columns(rows.data(), end - begin, m.k, elem, columns, moved.data());
    ops::pack(moved.data(), end - begin, places, elem, layout, to + begin / ir::panel_rows * ir::panel_bytes(layout, places, bits(elem)));
  }
  return {};
}

// A bias (or a norm's weight) as float32.
Result<const float*> load_bias(const ir::Module& m, const ir::Stored& bias, Source& source, host::Arena& arena, Context& context) {
  const int64_t count = bias.view.dims[0] * bias.view.dims[1];
  if (count != m.n) return cannot_load(m, fmt::format("{} has {} numbers, expected {}", bias.tensor, count, m.n));
  return load_floats(bias, source, arena, context);
}

}  // namespace

Result<const float*> load_floats(const ir::Stored& s, Source& source, host::Arena& arena, Context& context, float plus) {
  prog::Program p;
  p.rows = s.view.dims[0];
  p.inputs.push_back(prog::input_of(s, 1));
  if (s.elem == Elem::f32) {
    p.ops.emplace_back(prog::Copy{0});
  } else {
    p.ops.emplace_back(prog::Recode{0, Elem::f32});
  }
  p.outputs.push_back({.name = s.tensor, .dtype = Elem::f32, .shape = {s.view.dims[0], s.view.dims[1]}, .value = 1});
  QB_ASSIGN(const std::span<std::byte> into, arena.take(prog::output_bytes(p.outputs[0])));
  const std::span<std::byte> outputs[] = {into};
  QB_TRY(run_into(p, source, outputs, nullptr, context));
  auto* const floats = reinterpret_cast<float*>(into.data());
  if (plus != 0)
    for (size_t i = 0; i < into.size() / sizeof(float); ++i) floats[i] += plus;
  return floats;
}

Result<void> run_into(const prog::Program& p, Source& source, std::span<const std::span<std::byte>> outputs, host::ThreadPool* pool, Context& context) {
  QB_TRY(prog::type_check(p));
  // A quarter stays for the reductions, which stream their tensors in blocks of their own. Threads for which no block is left over have nothing to do.
  const uint64_t budget = context.limits.memory_budget, usable = std::min(p.reductions.empty() ? budget : budget - budget / 4, load_buffers);
  const uint64_t least = std::max<uint64_t>(working_set(p, std::min(p.row_multiple, p.rows)), 1);
  const int64_t threads = std::clamp<int64_t>(static_cast<int64_t>(usable / least), 1, pool == nullptr ? 1 : pool->size());
  int64_t height = std::max<int64_t>(rows_within(p, std::min(usable / static_cast<uint64_t>(threads), load_buffer)), p.row_multiple);
  // Enough blocks for every thread.
  const int64_t multiples = (p.rows + p.row_multiple - 1) / p.row_multiple;
  height = std::min(height, (multiples + threads - 1) / threads * p.row_multiple);
  const int64_t blocks = p.rows == 0 ? 1 : (p.rows + height - 1) / height;
  std::atomic<int64_t> next{0};
  std::mutex mutex;
  std::optional<Error> failure;
  const std::function<void(int)> work = [&](int thread) {
    if (thread >= threads) return;
    std::vector<std::span<std::byte>> parts(outputs.size());
    for (int64_t b = next.fetch_add(1); b < blocks; b = next.fetch_add(1)) {
      const RowRange rows{b * height, std::min(p.rows, (b + 1) * height)};
      for (size_t o = 0; o < outputs.size(); ++o) {
        const OutputSlice s = output_slice(p, o, rows);
        parts[o] = outputs[o].subspan(s.offset, s.bytes);
      }
      Result<void> done = context.stop() ? Result<void>(Error{Errc::cancelled, "interrupted"}) : execute_rows(p, rows, source, parts, context);
      if (done) continue;
      const std::lock_guard lock(mutex);
      if (!failure) failure = done.error();
      next.store(blocks);
    }
  };
  if (pool == nullptr || blocks == 1) {
    work(0);
  } else {
    pool->run(work);
  }
  if (failure) return *failure;
  return {};
}

ir::Scheme kernel_scheme(const ir::Module& m) {
  if (!m.scheme) return {.weight = {.code = m.part(Role::code)->elem}};
  ir::Scheme s = *m.scheme;
  s.features = {.actorder = s.features.actorder};
  return s;
}

Result<oracle::LinearPlan> plan_for(const kernel::Problem& problem, const host::Cpu& cpu, const oracle::Policy& policy) {
  return oracle::plan_linear(problem, batch_sizes, cpu, kernel::kernels(), policy);
}

Result<Linear> Linear::load(const ir::Module& m, Source& source, host::Arena& arena, const LinearOptions& options, Context& context) {
  const ir::Stored* code = m.part(Role::code);
  if (code == nullptr) return cannot_load(m, "the checkpoint has no weight for it");
  if (m.n <= 0 || m.k <= 0 || m.n > INT32_MAX || m.k > INT32_MAX) return cannot_load(m, fmt::format("the impossible size {} x {}", m.n, m.k));
  Linear l;
  l.problem_ = {.m = 1, .n = m.n, .k = m.k, .inputs = options.inputs};
  if (options.observers != nullptr) {
    l.observer_ = options.observers->of(m.path, Role::input_scale);
    l.output_observer_ = options.observers->of(m.path, Role::output_scale);
  }
  l.problem_.scheme = kernel_scheme(m);
  const ir::Scheme& scheme = l.problem_.scheme;
  if (!scheme.weight.plain() && !m.make && m.part(Role::scale) == nullptr) return cannot_load(m, "the checkpoint has no scales for its weight");
  const ir::Stored* order = m.part(Role::order);
  l.problem_.scheme.features.actorder = order != nullptr;
  l.cut_ = options.cut;
  if (l.cut_ != nullptr && kernel::input_ranges(l.problem_) > 0) {
    l.ranged_ = l.problem_;
    l.problem_.inputs = kernel::Inputs::f32;
  }
  QB_ASSIGN(l.plan_, plan_for(l.problem_, options.cpu, options.policy));
  const ir::Layout codes = l.plan_.code_layout, scales = l.plan_.scale_layout;
  if (scales != ir::Layout::rows && scales != ir::Layout::panel_scale) return cannot_load(m, fmt::format("scales cannot be laid out as {}", to_string(scales)));
  const int64_t places = kernel::panel_columns(codes, scheme.weight, m.k);
  std::optional<std::vector<int32_t>> columns;
  if (order != nullptr && codes != ir::Layout::rows) {
    QB_ASSIGN(columns, load_columns(m, *order, codes, source, context));
  } else if (places != m.k && !m.make) {
    columns = columns_by_group(nullptr, m.k, scheme.weight, codes);
  }
  // Rows of tiles that are no whole panels get scales of their own there.
  const bool repeats = kernel::scales_in_panels(scales, scheme.weight) && scheme.weight.block.rows > 1;
  const std::optional<ir::Module> repeated = repeats && !m.make ? ir::region_of(m, ir::all_of(m), {1, scheme.weight.block.cols}) : std::nullopt;
  const bool moves = codes != ir::Layout::rows && (order != nullptr || places != m.k);
  if ((moves && !columns) || (repeats && !repeated)) {
    LinearOptions rows = options;
    rows.policy.reference = true;
    return load(m, source, arena, rows, context);
  }

  QB_ASSIGN(const Packing packed, packing(repeated ? *repeated : m, l.plan_, columns.has_value()));
  const auto room = [&](uint64_t bytes) -> Result<void> {
    QB_ASSIGN(const std::span<std::byte> into, arena.take(bytes));
    l.parts_.push_back(into);
    l.bytes_ += into.size();
    return {};
  };
  if (columns) QB_TRY(room(static_cast<uint64_t>((m.n + ir::panel_rows - 1) / ir::panel_rows * ir::panel_bytes(codes, places, bits(code->elem)))));
  const size_t first = l.parts_.size();
  std::array<std::byte, sizeof(float)> global{};
  for (int o = 0; o < static_cast<int>(packed.program.outputs.size()); ++o)
    if (o != packed.global) QB_TRY(room(prog::output_bytes(packed.program.outputs[static_cast<size_t>(o)])));
  std::vector<std::span<std::byte>> outputs(l.parts_.begin() + static_cast<std::ptrdiff_t>(first), l.parts_.end());
  if (packed.global >= 0) outputs.emplace_back(global);
  QB_TRY(run_into(packed.program, source, outputs, options.pool, context));
  const auto output = [&](int o) { return outputs[static_cast<size_t>(o)]; };
  if (columns) {
    QB_TRY(pack_moved(m, *code, codes, *columns, l.parts_[0].data(), source, context));
    QB_ASSIGN(const std::span<std::byte> into, arena.take(columns->size() * sizeof(int32_t)));
    std::memcpy(into.data(), columns->data(), into.size());
    l.weight_.columns = reinterpret_cast<const int32_t*>(into.data());
    l.bytes_ += into.size();
  }
  l.weight_.codes = l.parts_[0].data();
  if (packed.scales >= 0) l.weight_.scales = output(packed.scales).data();
  if (packed.zeros >= 0) l.weight_.zeros = output(packed.zeros).data();
  if (packed.order >= 0) {
    QB_ASSIGN(l.weight_.order, checked_order(m, output(packed.order)));
  }

  if (packed.global >= 0) {
    float made = 0;
    std::memcpy(&made, global.data(), sizeof made);
    QB_ASSIGN(l.weight_.global, multiplier(m, packed.numbers.global->name, static_cast<double>(made), packed.numbers.global->form));
  } else if (const ir::Stored* stored = m.part(Role::global); stored != nullptr) {
    QB_ASSIGN(l.weight_.global, multiplier(m, *stored));
  } else if (scheme.weight.two_level()) {
    return cannot_load(m, "the checkpoint has no second-level scale for its weight");
  }
  if (const ir::Stored* input = m.part(Role::input_scale); input != nullptr) {
    QB_ASSIGN(l.weight_.input_scale, multiplier(m, *input));
  } else if (options.inputs == kernel::Inputs::as_scheme && scheme.input && scheme.input->when == ir::When::fixed) {
    return cannot_load(m, "its activations are quantized with a stored scale, which the checkpoint does not have");
  }
  if (const ir::Stored* zero = m.part(Role::input_zero); zero != nullptr) l.weight_.input_zero = static_cast<int>(zero->value.value_or(0));
  if (const ir::Stored* bias = m.part(Role::bias); bias != nullptr) {
    QB_ASSIGN(l.weight_.bias, load_bias(m, *bias, source, arena, context));
    l.bytes_ += static_cast<size_t>(m.n) * sizeof(float);
  }
  QB_TRY(l.load_transforms(m, source, options, context));
  QB_TRY(l.load_around(m, source, arena, options, context));
  return l;
}

Result<void> Linear::load_transforms(const ir::Module& m, Source& source, const LinearOptions& options, Context& context) {
  Rotations own;
  Rotations& shared = options.rotations != nullptr ? *options.rotations : own;
  for (const ir::Transform& t : m.transforms) {
    const int64_t block = t.matrix.view.dims[0];
    if (block < 1 || (t.of_outputs ? m.n : m.k) % block != 0) return cannot_load(m, fmt::format("{} does not fit it", t.matrix.tensor));
    const size_t before = shared.bytes();
    QB_ASSIGN((t.of_outputs ? rotated_outputs_ : rotated_inputs_), shared.load(t, source, context));
    bytes_ += shared.bytes() - before;
  }
  return {};
}

Result<void> Linear::load_around(const ir::Module& m, Source& source, host::Arena& arena, const LinearOptions& options, Context& context) {
  if (!m.scheme) return {};
  if (const std::optional<ir::Activation>& output = m.scheme->features.output; output && options.inputs == kernel::Inputs::as_scheme) {
    const ir::Stored *scale = m.part(Role::output_scale), *zero = m.part(Role::output_zero);
    if (scale == nullptr || output->when != ir::When::fixed || !(output->type.block == ir::Block{0, 0}))
      return cannot_load(m, "its outputs are quantized without one stored scale");
    quantized_outputs_ = Outputs{.type = output->type, .zero = zero == nullptr ? 0 : static_cast<float>(zero->value.value_or(0))};
    QB_ASSIGN(quantized_outputs_->scale, multiplier(m, *scale));
  }
  if (m.scheme->features.prescale) {
    const ir::Stored* s = m.part(Role::prescale);
    if (s == nullptr || s->view.dims[0] * s->view.dims[1] != m.k) return cannot_load(m, fmt::format("expected {} numbers that scale its inputs", m.k));
    QB_ASSIGN(prescale_, load_floats(*s, source, arena, context));
    bytes_ += static_cast<size_t>(m.k) * sizeof(float);
  }
  if (m.scheme->features.lowrank == 0) return {};
  auto both = std::make_shared<LowRank>();
  LinearOptions plain = options;  // the factors' inputs are not quantized, and are the linear's own
  plain.observers = nullptr;
  if (options.policy.reference && options.inputs == kernel::Inputs::as_scheme) plain.inputs = kernel::Inputs::f32;
  for (const auto& [role, into] : {std::pair{Role::lowrank_a, &both->a}, {Role::lowrank_b, &both->b}}) {
    const ir::Stored* s = m.part(role);
    if (s == nullptr) return cannot_load(m, fmt::format("the checkpoint has no {}", ir::to_string(role)));
    ir::Module factor{.path = m.path, .kind = m.kind, .n = s->view.dims[0], .k = s->view.dims[1]};
    factor.parts.push_back(*s);
    factor.parts.back().role = Role::code;
    plain.cut = role == Role::lowrank_a ? options.cut : nullptr;
    QB_ASSIGN(*into, load(factor, source, arena, plain, context));
    bytes_ += into->bytes();
  }
  if (both->a.k() != m.k || both->b.n() != m.n || both->a.n() != both->b.k()) return cannot_load(m, "the factors of its low-rank part do not fit it");
  lowrank_ = std::move(both);
  return {};
}

namespace {

// Space for float numbers in front of what a kernel takes.
size_t floats_bytes(int64_t count) {
  return (static_cast<size_t>(count) * sizeof(float) + 63) / 64 * 64;
}

}  // namespace

size_t Linear::workspace_bytes(int64_t m) const {
  kernel::Problem p = problem_;
  p.m = m;
  size_t bytes = plan_.kernel_for(m)->workspace_bytes(p);
  if (lowrank_ != nullptr)
    bytes = floats_bytes(m * lowrank_->a.n()) + floats_bytes(m * n()) + std::max({bytes, lowrank_->a.workspace_bytes(m), lowrank_->b.workspace_bytes(m)});
  if (prescale_ != nullptr || rotated_inputs_ != nullptr) bytes += floats_bytes(m * k());
  if (cut_ != nullptr) bytes += 2 * floats_bytes(m * n()) + (ranged_ ? floats_bytes(m * k()) : 0);  // sums in double
  return bytes == 0 ? 0 : bytes + 64;                                                               // the floats lie at multiples of 64
}

// In numbers of the type: e4m3, or integers with a zero point (kernel/inputs.h).
void Linear::finish(float* y, int64_t m, host::ThreadPool& pool) const {
  if (quantized_outputs_) {
    const Outputs& o = *quantized_outputs_;
    const int64_t count = m * n();
    if (is_integer_code(o.type.code)) {
      const float low = -static_cast<float>(1 << (bits(o.type.code) - 1)), high = -low - 1;
      for (int64_t i = 0; i < count; ++i) y[i] = (std::clamp(std::nearbyint(y[i] / o.scale + o.zero), low, high) - o.zero) * o.scale;
    } else {
      for (int64_t i = 0; i < count; ++i) y[i] = kernel::inputs::to_e4m3(y[i] / o.scale) * o.scale;
    }
  }
  if (rotated_outputs_ != nullptr) rotate(*rotated_outputs_, y, y, m * n(), pool);
}

// Kernels make of the inputs what the scheme, the columns' order, and a static scale say.
bool Linear::prepares_as(const Linear& other, int64_t m) const {
  const auto as_given = [](const Linear& l) {
    return l.prescale_ == nullptr && l.rotated_inputs_ == nullptr && l.lowrank_ == nullptr && l.cut_ == nullptr && l.weight_.columns == nullptr;
  };
  return as_given(*this) && as_given(other) && plan_.kernel_for(m) == other.plan_.kernel_for(m) && problem_.k == other.problem_.k &&
         problem_.inputs == other.problem_.inputs && problem_.scheme == other.problem_.scheme && weight_.input_scale == other.weight_.input_scale &&
         weight_.input_zero == other.weight_.input_zero;
}

void Linear::run(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  if (observer_ != nullptr) observer_->see(x, m, k());
  run_unfinished(x, m, y, workspace, pool);
  finish(y, m, pool);
  if (output_observer_ != nullptr) output_observer_->see(y, m, n());
}

void Linear::run(std::span<const Product> products, const float* x, int64_t m, std::span<std::byte> workspace, host::ThreadPool& pool) {
  while (!products.empty()) {
    const Linear& first = *products[0].linear;
    size_t alike = 1;
    while (alike < std::min(products.size(), most_together) && products[alike].linear->prepares_as(first, m)) ++alike;
    if (alike == 1)
      first.run(x, m, products[0].y, workspace, pool);
    else
      run_together(products.first(alike), x, m, workspace, pool);
    products = products.subspan(alike);
  }
}

void Linear::run_together(std::span<const Product> products, const float* x, int64_t m, std::span<std::byte> workspace, host::ThreadPool& pool) {
  std::array<kernel::Problem, most_together> problems;
  std::array<kernel::RunArgs, most_together> args{};
  for (size_t i = 0; i < products.size(); ++i) {
    const Linear& l = *products[i].linear;
    if (l.observer_ != nullptr) l.observer_->see(x, m, l.k());
    problems[i] = l.problem_;
    problems[i].m = m;
    args[i] = {.problem = &problems[i], .weight = &l.weight_, .x = x, .y = products[i].y, .n_begin = 0, .n_end = l.n(), .workspace = workspace.data()};
  }
  const kernel::Kernel& kernel = *products[0].linear->plan_.kernel_for(m);
  kernel::prepare_on(kernel, args[0], pool);
  kernel::for_parts(std::span(args).first(products.size()), pool, kernel.run);
  for (const auto& [linear, y] : products) {
    linear->finish(y, m, pool);
    if (linear->output_observer_ != nullptr) linear->output_observer_->see(y, m, linear->n());
  }
}

void Linear::run_unfinished(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  if (prescale_ == nullptr && lowrank_ == nullptr && rotated_inputs_ == nullptr) return run_kernel(x, m, y, workspace, pool);
  workspace = workspace.subspan((64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64);
  const auto floats = [&workspace](int64_t count) {
    auto* at = reinterpret_cast<float*>(workspace.data());
    workspace = workspace.subspan(floats_bytes(count));
    return at;
  };
  float* const scaled = prescale_ != nullptr || rotated_inputs_ != nullptr ? floats(m * k()) : nullptr;
  if (rotated_inputs_ != nullptr) {
    rotate(*rotated_inputs_, x, scaled, m * k(), pool);
    x = scaled;
  }
  if (prescale_ != nullptr) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < k(); ++j) scaled[i * k() + j] = x[i * k() + j] * prescale_[j];
    x = scaled;
  }
  if (lowrank_ == nullptr) return run_kernel(x, m, y, workspace, pool);
  float* inner = floats(m * lowrank_->a.n());
  float* more = floats(m * n());
  run_kernel(x, m, y, workspace, pool);
  lowrank_->a.run(x, m, inner, workspace, pool);
  lowrank_->b.run(inner, m, more, workspace, pool);
  for (int64_t i = 0; i < m * n(); ++i) y[i] += more[i];
}

void Linear::run_kernel(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  if (cut_ != nullptr) return run_part(x, m, y, workspace, pool);
  multiply(x, m, y, nullptr, workspace, pool);
}

// The scales of each token, or of all, by the columns of every rank.
const float* Linear::quantized_together(const float* x, int64_t m, float* out) const {
  kernel::Problem p = *ranged_;
  p.m = m;
  const auto count = static_cast<size_t>(kernel::input_ranges(p)), ranks = static_cast<size_t>(cut_->size());
  std::vector<kernel::InputRange> mine(count), all(ranks * count);
  kernel::find_ranges(p, x, mine);
  cut_->gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
  for (size_t i = 0; i < ranks * count; ++i) mine[i % count] = i < count ? all[i] : kernel::both(mine[i % count], all[i]);
  kernel::quantize_by_range(p, x, mine, out);
  return out;
}

void Linear::run_part(const float* x, int64_t m, float* y, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  workspace = workspace.subspan((64 - reinterpret_cast<uintptr_t>(workspace.data()) % 64) % 64);
  const std::span<double> sums(reinterpret_cast<double*>(workspace.data()), static_cast<size_t>(m * n()));
  workspace = workspace.subspan(2 * floats_bytes(m * n()));
  if (ranged_) {
    x = quantized_together(x, m, reinterpret_cast<float*>(workspace.data()));
    workspace = workspace.subspan(floats_bytes(m * k()));
  }
  const bool exact = plan_.kernel_for(m) == &kernel::kernel_linear_ref;
  multiply(x, m, y, exact ? sums.data() : nullptr, workspace, pool);
  if (!exact) std::copy_n(y, m * n(), sums.begin());
  cut_->sum(sums);
  for (size_t i = 0; i < sums.size(); ++i) y[i] = static_cast<float>(sums[i]);
}

// Into `sums` where they are given, which the reference kernel can.
void Linear::multiply(const float* x, int64_t m, float* y, double* sums, std::span<std::byte> workspace, host::ThreadPool& pool) const {
  kernel::Problem p = problem_;
  p.m = m;
  const kernel::Kernel& k = *plan_.kernel_for(m);
  const kernel::RunArgs all{.problem = &p, .weight = &weight_, .x = x, .y = y, .n_begin = 0, .n_end = p.n, .workspace = workspace.data()};
  kernel::prepare_on(k, all, pool);
  if (sums != nullptr)
    kernel::for_parts({&all, 1}, pool, [sums](const kernel::RunArgs& part) { kernel::run_reference_sums(part, sums); });
  else
    kernel::for_parts({&all, 1}, pool, k.run);
}

}  // namespace qb::layer
