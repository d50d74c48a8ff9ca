#include "pass/rotate.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <map>
#include <optional>
#include <set>

#include "ir/region.h"
#include "num/codec.h"
#include "prog/typing.h"

namespace qb::pass {
namespace {

using arch::Kind;
using ir::Role;
using prog::Basis;

constexpr int64_t largest_block = 1024, largest_tile = int64_t{1} << 21;

// The largest power of two that divides `count`, up to `most`.
int64_t block_of(int64_t count, int64_t most) {
  int64_t block = 1;
  while (count > 0 && count % (2 * block) == 0 && 2 * block <= most) block *= 2;
  return block;
}

// What a linear, or stacked ones, has to do with the residual stream.
enum class Side : uint8_t { neither, reads, writes };

class Rotating {
 public:
  Rotating(const ir::Checkpoint& c, Rotated& out) : c_(c), t_(c.topology), out_(out) {
    for (const ir::Module& m : c.modules) by_path_.emplace(m.path, &m);
    for (const arch::Module& m : t_.modules) {
      const arch::Module& reads = m.parts.empty() ? m : m.parts.front();
      if (!reads.input_norm.empty()) read_norms_.insert(reads.input_norm);
      for (const arch::Module& part : m.parts) lies_in_.emplace(part.path, &m);
      lies_in_.emplace(m.path, &m);
    }
  }

  bool run(Rotation asked, Diagnostics& diag) {
    const std::string all = quantized();
    const std::string residual = !asked.residual || !all.empty() ? all : against_residual(), values = !asked.values || !all.empty() ? all : against_values();
    const bool turns = asked.residual && residual.empty(), mixes = asked.values && values.empty();
    if (!turns && !mixes) {
      const bool both = asked.residual && asked.values && all.empty();
      diag.report("rotation-unsuited", {},
                  both             ? fmt::format("{}; {}", residual, values)
                  : asked.residual ? residual
                                   : values,
                  "what docs/quantization.md says of hadamard");
      return false;
    }
    if (asked.residual && !turns) diag.report("rotation-partial", {}, "the residual stream stays as it is: " + residual, "values in another basis alone");
    if (asked.values && !mixes) diag.report("rotation-partial", {}, "values stay as they are: " + values, "the residual stream in another basis alone");
    if (turns) out_.residual = residual_block();
    if (mixes) out_.heads = heads_block();
    for (const ir::Module& m : c_.modules) module(m);
    return true;
  }

 private:
  const arch::Module* topology(const ir::Module& m) const { return m.topology < 0 ? nullptr : &t_.modules[static_cast<size_t>(m.topology)]; }
  const ir::Module* find(const std::string& path) const {
    const auto at = by_path_.find(path);
    return at == by_path_.end() ? nullptr : at->second;
  }

  std::string quantized() const {
    if (t_.family == nullptr) return fmt::format("the family of {} is not known", t_.model_type.empty() ? "the model" : escape(t_.model_type));
    if (t_.ranks.count() > 1) return "the part of one rank";
    if (c_.kv) return fmt::format("the cache is {}", to_string(*c_.kv));
    for (const ir::Module& m : c_.modules) {
      if (m.scheme) return fmt::format("{} is {} already", m.path, to_string(*m.scheme));
      if (!m.transforms.empty()) return fmt::format("{} has transforms already", m.path);
      for (const ir::Stored& s : m.parts)
        if (s.role == Role::calibration || s.role == Role::calibration_other || !s.mask.tensor.empty() || s.changed() || !s.joined.empty())
          return fmt::format("{} is more than plain numbers", escape(s.tensor));
    }
    return {};
  }

  // Norms of the stream itself lie right below their layer, or below the body; others are inside of attention.
  bool of_residual(const std::string& norm) const {
    const std::string layers = t_.body + ".layers.";
    if (!norm.starts_with(layers)) return true;
    const size_t dot = norm.find('.', layers.size());
    return dot != norm.npos && norm.find('.', dot + 1) == norm.npos;
  }

  Side side_of(const arch::Module& t) const {
    const arch::Module& one = t.parts.empty() ? t : t.parts.front();
    if (!one.input_norm.empty()) return of_residual(one.input_norm) ? Side::reads : Side::neither;
    return one.parallel == arch::Parallel::rows ? Side::writes : Side::neither;
  }

  int64_t residual_block() const {
    int64_t widest = std::max<int64_t>(t_.hidden, 1);
    for (const ir::Module& m : c_.modules)
      if (const arch::Module* t = topology(m); t != nullptr && m.part(Role::code) != nullptr && side_of(*t) == Side::writes) widest = std::max(widest, m.k);
    return block_of(t_.hidden, std::min(largest_block, largest_tile / widest));
  }
  int64_t heads_block() const { return block_of(t_.head_dim, std::min(largest_block, largest_tile / std::max<int64_t>(t_.hidden, 1))); }

  // What keeps the residual stream in its basis; empty: nothing.
  std::string against_residual() const {
    if (residual_block() < 2) return fmt::format("hidden_size {} has no block of a power of two that fits", t_.hidden);
    for (const ir::Module& m : c_.modules) {
      if (m.parts.empty()) continue;
      const arch::Module* const t = topology(m);
      if (t == nullptr || t->structural) return fmt::format("{} is no module of the family, so what it has to do with the stream is not known", m.path);
      if (m.kind == Kind::norm && of_residual(m.path)) {
        if (!read_norms_.contains(m.path)) return fmt::format("{} is no norm before linears: its weights act on what would be in another basis", m.path);
        if (m.parts.size() != 1 || m.n != t_.hidden || !dense(m.parts[0])) return fmt::format("{} is no vector of {} numbers", m.path, t_.hidden);
      }
      if (m.kind == Kind::embedding && (m.k != t_.hidden || t->layer >= 0)) return fmt::format("{} is no embedding of the whole stream", m.path);
      if (m.kind != Kind::linear && m.kind != Kind::expert && m.kind != Kind::embedding) continue;
      if (std::string why = against(m, *t); !why.empty()) return why;
    }
    if (t_.tied_embeddings && last_gains() == nullptr) return "the norm before the head is not there";
    if (t_.family->norm_plus != 0) return fmt::format("norms add {} to their weights", t_.family->norm_plus);
    return {};
  }

  std::string against(const ir::Module& m, const arch::Module& t) const {
    const ir::Stored* const code = m.part(Role::code);
    if (code == nullptr || !dense(*code) || !fits(m.part(Role::bias), m)) return fmt::format("{} is no matrix of plain numbers", m.path);
    if (m.kind == Kind::embedding) return {};
    if (m.stack.inputs_first) return fmt::format("{} has the inputs of its experts first: take them apart (convert --experts separate)", m.path);
    const Side side = side_of(t);
    const int64_t n = m.stack.experts > 0 ? m.n / m.stack.experts : m.n;
    if (side == Side::reads && m.k == t_.hidden && gains_of(norm_of(t)) != nullptr) return {};
    if (side == Side::writes && n == t_.hidden) return {};
    if (side == Side::neither && !t.input_norm.empty()) return {};
    return fmt::format("{} ({} x {}) neither reads a norm nor writes the stream", m.path, m.n, m.k);
  }

  static const std::string& norm_of(const arch::Module& t) { return t.parts.empty() ? t.input_norm : t.parts.front().input_norm; }
  static bool dense(const ir::Stored& s) { return prog::is_wide_float(s.elem) && s.container == s.elem && prog::is_dense(s.view, s.elem); }

  // A number for each output, or no bias.
  static bool fits(const ir::Stored* bias, const ir::Module& m) { return bias == nullptr || (dense(*bias) && bias->view.dims[0] * bias->view.dims[1] == m.n); }

  // The linear whose rows are the values that o mixes, and where they lie in its matrix; nothing where o is none.
  struct Values {
    const ir::Module* module;
    arch::Range rows;
  };
  std::optional<Values> values_of(const arch::Module& o) const {
    const auto at = lies_in_.find(o.fed_by);
    if (o.fed_by.empty() || at == lies_in_.end()) return std::nullopt;
    const arch::Module& whole = *at->second;
    int64_t begin = 0;
    const arch::Module* v = &whole;
    for (const arch::Module& part : whole.parts) {
      v = &part;
      if (part.path == o.fed_by) break;
      begin += part.n;
    }
    if (v->split.parts[0].what != arch::Key::kv_heads) return std::nullopt;
    return Values{find(whole.path), {begin, begin + v->n}};
  }

  std::string against_values() {
    for (const ir::Module& m : c_.modules) {
      const arch::Module* const t = topology(m);
      if (t == nullptr || m.kind != Kind::linear || m.parts.empty()) continue;
      const std::optional<Values> v = values_of(*t);
      if (!v) continue;
      const bool in_heads = v->module != nullptr && v->module->part(Role::code) != nullptr && v->rows.end <= v->module->n &&
                            v->rows.size() == t_.kv_heads * t_.head_dim && m.k == t_.heads * t_.head_dim;
      if (!in_heads || !dense(*v->module->part(Role::code)) || !fits(v->module->part(Role::bias), *v->module) || m.part(Role::code) == nullptr ||
          !dense(*m.part(Role::code)))
        return fmt::format("{} does not lie in heads of {}", t->fed_by, t_.head_dim);
      mixes_.insert(m.path);
      heads_in_.emplace(v->module->path, v->rows);
    }
    if (mixes_.empty()) return "no linear is known whose outputs are the values of attention (they come out of a narrow vector)";
    if (heads_block() < 2) return fmt::format("heads of {} have no block of a power of two that fits", t_.head_dim);
    return {};
  }

  Basis residual() const { return out_.residual == 0 ? Basis{} : Basis{out_.residual, t_.hidden}; }
  Basis heads() const { return out_.heads == 0 ? Basis{} : Basis{out_.heads, t_.head_dim}; }

  void module(const ir::Module& m) {
    const arch::Module* const t = topology(m);
    if (t == nullptr || m.parts.empty()) return;
    if (m.kind == Kind::norm && out_.residual > 0 && of_residual(m.path)) return ones(m.parts[0]);
    const ir::Stored* const code = m.part(Role::code);
    if (code == nullptr) return;
    if (m.kind == Kind::embedding) {
      matrix(*code, code->tensor, nullptr, residual(), {}, {});
      if (t_.tied_embeddings && out_.residual > 0) {
        out_.unties = true;
        matrix(*code, t_.head + ".weight", last_gains(), residual(), {}, {});
      }
      return;
    }
    if (m.path == t_.head && t_.tied_embeddings) return;
    const Side side = side_of(*t);
    const Basis columns = side == Side::reads ? residual() : mixes_.contains(m.path) ? heads() : Basis{};
    const Basis rows = side == Side::writes ? residual() : Basis{};
    const auto values = heads_in_.find(m.path);
    const arch::Range part = values == heads_in_.end() || out_.heads == 0 ? arch::Range{} : values->second;
    const ir::Stored* const gains = side == Side::reads && out_.residual > 0 ? gains_of(norm_of(*t)) : nullptr;
    matrix(*code, code->tensor, gains, columns, rows, part);
    if (const ir::Stored* bias = m.part(Role::bias); bias != nullptr) outputs(*bias, rows, part);
  }

  // A norm's weights; null where it has none.
  const ir::Stored* gains_of(const std::string& norm) const {
    const ir::Module* const m = find(norm);
    return m == nullptr || m->parts.empty() ? nullptr : &m->parts[0];
  }
  // Of the head, which may be the embedding.
  const ir::Stored* last_gains() const {
    const auto head = lies_in_.find(t_.head);
    return head == lies_in_.end() ? nullptr : gains_of(head->second->input_norm);
  }

  void begin(const ir::Stored& s, std::string name, std::vector<int64_t> shape) {
    out_.tensors.push_back({std::move(name), s.elem, std::move(shape), out_.programs.size()});
  }

  void add(prog::Program p, const ir::Stored& s, const Basis& along, const Basis& down, const ir::Stored* gains) {
    prog::Hadamard op{.src = 0, .to = s.elem, .along = along, .down = down};
    if (gains != nullptr) {
      p.inputs.push_back(prog::input_of(*gains, 0));
      p.inputs.back().view = ir::row_major(1, gains->view.dims[0] * gains->view.dims[1], bits(gains->elem));
      op.gains = 1;
    }
    p.row_multiple = down.block;
    const auto [rows, cols] = p.inputs[0].view.dims;
    p.ops.emplace_back(op);
    p.outputs.push_back({.name = s.tensor, .dtype = s.elem, .shape = {rows, cols}, .value = static_cast<prog::ValueId>(p.inputs.size())});
    out_.programs.push_back(std::move(p));
  }

  // `part`: of the rows, those of values, in the basis of heads.
  void matrix(const ir::Stored& s, const std::string& name, const ir::Stored* gains, const Basis& along, const Basis& down, arch::Range part) {
    if (along.block == 1 && down.block == 1 && part.size() == 0) return;
    begin(s, name, s.shape);
    const int64_t rows = s.view.dims[0];
    for (const arch::Range r : {arch::Range{0, part.begin}, part, arch::Range{part.end, rows}}) {
      if (r.size() == 0) continue;
      ir::Stored piece = s;
      piece.view = *ir::some(s.view, 0, r);  // dense rows are whole bytes
      prog::Program p;
      p.rows = r.size();
      p.inputs.push_back(prog::input_of(piece, 1));
      add(std::move(p), piece, along, r == part ? heads() : down, gains);
    }
  }

  // Numbers for rows of a matrix, or for those of each expert, as they lie.
  void outputs(const ir::Stored& s, const Basis& down, arch::Range part) {
    if (down.block == 1 && part.size() == 0) return;
    begin(s, s.tensor, s.shape);
    const int64_t each = down.block > 1 ? t_.hidden : s.view.dims[0], times = s.view.dims[0] * s.view.dims[1] / each;
    for (const arch::Range r : {arch::Range{0, part.begin}, part, arch::Range{part.end, each}}) {
      if (r.size() == 0) continue;
      prog::Program p;
      p.rows = times;
      p.inputs.push_back(prog::input_of(s, 1));
      p.inputs[0].view = *ir::some(ir::row_major(times, each, bits(s.elem)), 1, r);
      add(std::move(p), s, r == part ? heads() : down, {}, nullptr);
    }
  }

  void ones(const ir::Stored& s) {
    const auto [at, fresh] = ones_.emplace(s.elem, out_.programs.size());
    if (fresh) {
      std::string bytes;
      for (int64_t i = 0; i < t_.hidden; ++i) {
        const float one = 1;
        const uint32_t word = s.elem == Elem::f32 ? std::bit_cast<uint32_t>(one) : s.elem == Elem::bf16 ? encode_bf16(one) : encode_f16(one);
        bytes.append(reinterpret_cast<const char*>(&word), static_cast<size_t>(bits(s.elem) / 8));
      }
      prog::Program p;
      p.ops.emplace_back(prog::Literal{s.elem, std::move(bytes)});
      p.outputs.push_back({.name = s.tensor, .dtype = s.elem, .shape = {t_.hidden}, .value = 0});
      out_.programs.push_back(std::move(p));
    }
    out_.tensors.push_back({s.tensor, s.elem, s.shape, at->second});
  }

  const ir::Checkpoint& c_;
  const arch::Topology& t_;
  Rotated& out_;
  std::map<std::string_view, const ir::Module*> by_path_;
  std::set<std::string> read_norms_, mixes_;            // mixes_: linears that read mixed values
  std::map<std::string, const arch::Module*> lies_in_;  // by the path of a part, or its own: the module that it is in
  std::map<std::string, arch::Range> heads_in_;         // by module: its rows that are values
  std::map<Elem, size_t> ones_;
};

}  // namespace

std::string to_string(const Rotated& r) {
  std::string out;
  if (r.residual > 0) out += fmt::format("the residual stream in blocks of {}{}", r.residual, r.unties ? ", a head of its own" : "");
  if (r.heads > 0) out += fmt::format("{}values in blocks of {}", out.empty() ? "" : ", ", r.heads);
  return out;
}

bool rotate(const ir::Checkpoint& c, Rotation asked, Rotated& out, Diagnostics& diag) {
  return Rotating(c, out).run(asked, diag);
}

}  // namespace qb::pass
