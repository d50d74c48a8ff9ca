#include "dialect/modelopt_write.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "dialect/modelopt_config.h"
#include "dialect/modelopt_rows.h"
#include "dialect/modelopt_stacks.h"
#include "ir/stack.h"

namespace qb::modelopt {
namespace {

using ir::Role;

bool held(const ir::Scheme& s) {
  return std::any_of(rows().begin(), rows().end(), [&](const Row& row) { return !algorithm_of(row).imported && row.holds(s); });
}

// The scheme as this dialect can say it; nothing when it cannot. Labels of tiles and of MXFP4 say nothing about activations (engines quantize them as they
// like), and MXFP8's means the producer's own rule for run-time scales.
std::optional<ir::Scheme> express(const ir::Scheme& s) {
  if (held(s)) return s;
  ir::Scheme said = s;
  if (said.input && said.input->type == said.weight && said.weight.scale == ir::ScaleValues::e8m0) said.input->rounding = ir::Rounding::up;
  if (held(said)) return said;
  const ir::QuantType groups{.code = Elem::e4m3, .scale = ir::ScaleValues::any, .block = {1, 128}};
  const bool tiles = s.weight.block.rows > 1 && s.input && s.input->type == groups;
  const bool mxfp4 = s.input && s.input->type == s.weight && s.weight.code == Elem::e2m1 && s.weight.scale == ir::ScaleValues::e8m0;
  if (!(tiles || mxfp4) || s.input->when != ir::When::per_call) return std::nullopt;
  said.input.reset();
  return held(said) ? std::optional(said) : std::nullopt;
}

// What the file holds for a module of the scheme depends on all but which inputs are scaled first.
ir::Scheme kind_of(ir::Scheme s) {
  s.features.prescale = false;
  return s;
}

// The label that holds all schemes of a kind; the source's own where it does.
std::string_view label_of(const std::vector<ir::Scheme>& schemes, std::string_view wanted) {
  bool marked = false;
  for (const ir::Scheme& s : schemes) marked |= s.features.prescale || s.features.lowrank > 0;
  const auto takes = [&](const Algorithm& a) {
    if (a.imported || (a.marked && !marked)) return false;
    return std::all_of(schemes.begin(), schemes.end(), [&](const ir::Scheme& s) { return row_for(rows_of(a.label), s) != nullptr; });
  };
  for (const Algorithm& a : algorithms())
    if (a.label == wanted && takes(a)) return a.label;
  for (const Algorithm& a : algorithms())
    if (takes(a)) return a.label;
  return {};
}

// What a linear has that is written under the same label. Precondition: a stack is of a kind that the dialect knows.
ir::Scheme as_linear(const ir::Module& m) {
  if (m.kind != arch::Kind::expert) return *m.scheme;
  const StackKind& kind = *stack_kind(m);
  const ir::Block block = m.scheme->weight.block;
  for (const Row& row : rows_of(kind.label)) {
    ir::Scheme s = meaning_of(row);
    if (s.input.has_value() != m.scheme->input.has_value() || (s.input && s.input->when != m.scheme->input->when)) continue;
    if (s.weight.two_level()) s.weight.block.cols = std::max(block.rows, block.cols);
    if (s.input && s.input->type.two_level()) s.input->type.block = s.weight.block;
    return s;
  }
  return meaning_of(rows_of(kind.label).front());
}

// The row to write a module by: one whose shape it had before it went through another dialect, one that keeps its bytes, else the label's first.
const Row& written_row(std::string_view label, const ir::Module& m, bool restore) {
  const Row* first = nullptr;
  const std::optional<std::vector<int64_t>> noted = restore ? parse_origin_entry(m.part(Role::code)->origin).shape : std::nullopt;
  for (const Row& row : rows_of(label))
    if (noted && row.holds(*m.scheme) && part_shape(row.parts[0], m) == *noted) return row;
  for (const Row& row : rows_of(label)) {
    if (!row.holds(*m.scheme)) continue;
    if (!m.make && is_integer_code(m.scheme->weight.code) && keeps_bytes(row, m)) return row;
    if (first == nullptr) first = &row;
  }
  return *first;
}

class Writer {
 public:
  Writer(const ir::Checkpoint& in, const WriteContext& context, Export& out, Diagnostics& diag)
      : c_(in), context_(context), out_(out), diag_(diag), origin_(context.restore_origin ? read_origin(context.package) : Origin{}) {}

  bool run() {
    for (ir::Module& m : c_.modules)
      if (m.scheme) say(m);
    if (c_.kv && kv_algo(*c_.kv).empty()) diag_.report("scheme-inexpressible", {}, to_string(*c_.kv), "one scale for a layer's keys and one for its values");
    if (!diag_.ok()) return false;
    note_producer(c_, out_);
    changes_.write(out_);
    label();
    for (const ir::Module& m : c_.modules) {
      if (m.scheme)
        write_quantized(m);
      else
        write_unquantized(m);
    }
    write_documents();
    return true;
  }

 private:
  void write_quantized(const ir::Module& m) {
    if (m.kind == arch::Kind::expert) return write_row(Row{.label = {}, .holds = nullptr, .parts = stack_kind(m)->parts()}, m, context_, out_);
    const Row& row = written_row(labels_.at(kind_text(m)), m, context_.restore_origin);
    const size_t before = out_.programs.size();
    write_row(row, m, context_, out_);
    const arch::Module& t = c_.topology.modules[static_cast<size_t>(m.topology)];
    if (!m.make || t.of_experts.empty() || t.fused.empty()) return;
    // Gate and up of an expert are cut from one matrix: a scale in tiles keeps its four axes, also where one tile is left.
    for (const PartRow& part : row.parts) {
      if (part.rank != Rank::grid4) continue;
      const std::string name = fmt::format("{}.{}", m.path, part.suffix);
      for (size_t i = before; i < out_.programs.size(); ++i)
        for (prog::Output& o : out_.programs[i].outputs)
          if (o.name == name && o.shape.empty()) o.shape = {1, 1, 1, 1};
    }
  }

  static std::string kind_text(const ir::Module& m) { return to_string(kind_of(as_linear(m))); }

  // Brings the module's scheme into words that the dialect has; a report where it has none.
  void say(ir::Module& m) {
    if (m.kind == arch::Kind::expert) {
      if (!m.stack.inputs_first) m = ir::turned(m);
      if (stack_kind(m) == nullptr)
        diag_.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} on stacked experts", to_string(*m.scheme)),
                     "stacks with the inputs first, and the blocks that ModelOpt gives them");
      return;
    }
    m.scheme = as_noted(noted_, *m.scheme);
    const std::optional<ir::Scheme> said = express(*m.scheme);
    const int32_t group = m.scheme->weight.block.cols;
    const bool int4 = m.scheme->weight.code == Elem::int4;
    if (!said) {
      diag_.report("scheme-inexpressible", {.module = m.path}, to_string(*m.scheme), "a scheme that ModelOpt has a name for");
    } else if (int4 && (m.n % 2 != 0 || m.k % group != 0)) {
      diag_.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} of [{}, {}]", to_string(*m.scheme), m.n, m.k),
                   "an even number of outputs and whole groups, which ModelOpt's packing needs");
    } else if (int4 && said->input && m.part(ir::Role::stage) == nullptr) {
      diag_.report("scheme-inexpressible", {.module = m.path}, fmt::format("{} without the scale of its FP8 stage", to_string(*m.scheme)),
                   "one that was measured: quantize --calibrate with the numerics of modelopt");
    } else {
      changes_.add(m.path, *m.scheme, *said,
                   said->input ? "ModelOpt's MXFP8 kernels round the scales of activations up" : "ModelOpt's label does not say how activations are quantized");
      m.scheme = said;
    }
  }

  void label() {
    std::map<std::string, std::vector<ir::Scheme>> kinds;
    bool embedding = false;
    for (const ir::Module& m : c_.modules) {
      if (!m.scheme) continue;
      kinds[kind_text(m)].push_back(as_linear(m));
      embedding |= m.kind == arch::Kind::embedding;
    }
    // A label without a list means the linears alone.
    mixed_ = kinds.size() > 1 || embedding;
    const auto it = origin_.document.find("label");
    for (const auto& [kind, schemes] : kinds)
      labels_[kind] = label_of(schemes, it != origin_.document.end() ? std::string_view(it->second) : std::string_view());
  }

  void write_unquantized(const ir::Module& m) {
    for (const ir::Stored& s : m.parts) {
      if (s.role != Role::k_scale && s.role != Role::v_scale) {  // biases of keys and values have one name only
        write_plain(s, out_);
        continue;
      }
      if (context_.restore_origin && parse_origin_entry(s.origin).absent && s.value == 1.0) continue;  // the producer wrote none; 1 is its default
      const bool k = s.role == Role::k_scale;
      write_stored(s, {.name = m.path + (k ? ".k_proj.k_scale" : ".v_proj.v_scale"), .dtype = Elem::f32, .shape = {}}, context_, out_);
    }
  }

  void write_documents() {
    ModelOptDocuments d{.layers = {}, .mixed = mixed_, .kv = c_.kv ? std::string(kv_algo(*c_.kv)) : std::string()};
    if (const auto it = origin_.document.find("producer_version"); it != origin_.document.end()) d.producer_version = it->second;
    for (const ir::Module& m : c_.modules) {
      if (m.scheme)
        d.layers.push_back({m.path, &algorithm_of(rows_of(labels_.at(kind_text(m))).front()), as_linear(m).weight.block.cols});
      else if (m.kind == arch::Kind::linear || m.kind == arch::Kind::embedding)
        d.excludes.push_back(m.path);
    }
    write_modelopt_documents(context_.package, d, out_);
  }

  ir::Checkpoint c_;
  const WriteContext& context_;
  Export& out_;
  Diagnostics& diag_;
  const Origin origin_;
  const std::vector<ir::Scheme> noted_ = noted_schemes(origin_);
  SchemeChanges changes_;
  std::map<std::string, std::string_view> labels_;  // by kind
  bool mixed_ = false;
};

}  // namespace

bool write(const ir::Checkpoint& in, const WriteContext& context, Export& out, Diagnostics& diag) {
  return Writer(in, context, out, diag).run();
}

}  // namespace qb::modelopt
