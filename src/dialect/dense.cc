// Plain Hugging Face checkpoints: no quantization. Writing dequantizes every weight; scales and KV scales have no place in the result.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/json.h"
#include "dialect/documents.h"
#include "dialect/reading.h"
#include "dialect/register.h"
#include "ir/stack.h"

namespace qb {
namespace {

using ir::Role;

Match match(const Package& p) {
  const Json* config = p.document("config.json");
  if (config == nullptr || p.document("hf_quant_config.json") != nullptr) return {};
  for (const char* key : {"quantization_config", "compression_config"})
    if (const Json* q = find(*config, key); q != nullptr && !q->is_null()) return {};
  return {Match::maybe, "no quantization config"};
}

bool read(const ReadContext& context, ir::Checkpoint& out, Diagnostics& diag) {
  Reading r(context, out, diag);
  if (!r.begin()) return false;
  out.dialect = "dense";
  r.read_modules([&](ir::Module& m) {
    r.read_plain(m);
    m.why = "the model is not quantized";
    r.read_bias(m);
  });
  return true;
}

const char* torch_name(Elem e) {
  return e == Elem::f32 ? "float32" : e == Elem::f16 ? "float16" : "bfloat16";
}

// Narrowing plain numbers could lose; they are only ever widened.
bool widens(Elem from, Elem to) {
  return to == Elem::f32 && (from == Elem::bf16 || from == Elem::f16);
}

void write_plain_float(const ir::Stored& s, Elem to, Export& out) {
  prog::Program p;
  p.rows = s.view.dims[0];
  p.inputs.push_back(prog::input_of(s, 1));
  const Elem dtype = widens(s.container, to) ? to : s.container;
  if (dtype == s.container)
    p.ops.emplace_back(prog::Copy{0});
  else
    p.ops.emplace_back(prog::Recode{0, dtype});
  p.outputs.push_back({.name = ir::whole_name(s), .dtype = dtype, .shape = ir::whole_shape(s), .value = 1});
  out.programs.push_back(std::move(p));
}

// The parts beside codes and scales that change what a weight does to its inputs.
std::vector<const ir::Stored*> fold_inputs(const ir::Module& m) {
  std::vector<const ir::Stored*> out;
  for (const Role role : {Role::lowrank_a, Role::lowrank_b, Role::prescale})
    if (const ir::Stored* s = m.part(role); s != nullptr) out.push_back(s);
  return out;
}

// Appends what makes a dequantized matrix the one that acts on unscaled inputs; returns the result.
prog::ValueId fold(prog::Program& p, const ir::Module& m, prog::ValueId matrix, prog::ValueId inputs) {
  prog::Fold op{.src = matrix};
  auto next = static_cast<prog::ValueId>(inputs + static_cast<prog::ValueId>(p.ops.size()));
  prog::ValueId from = inputs - static_cast<prog::ValueId>(fold_inputs(m).size());
  for (const ir::Stored* s : fold_inputs(m)) {
    prog::ValueId value = from++;
    if (s->elem != Elem::f32) {
      p.ops.emplace_back(prog::Recode{value, Elem::f32});
      value = next++;
    }
    (s->role == Role::prescale ? op.prescale : s->role == Role::lowrank_a ? op.a : op.b) = value;
  }
  p.ops.emplace_back(op);
  return next;
}

// The matrices of the module's transforms as inputs of a program; ids in the order of the transforms. Blocks of outputs must not be cut.
std::vector<prog::ValueId> transform_inputs(prog::Program& p, const ir::Module& m) {
  std::vector<prog::ValueId> ids;
  for (const ir::Transform& t : m.transforms) {
    const int64_t block = t.matrix.view.dims[0];
    ids.push_back(static_cast<prog::ValueId>(p.inputs.size()));
    p.inputs.push_back(prog::input_of(t.matrix, 0));
    p.inputs.back().view = ir::row_major(1, block * block, bits(t.matrix.elem));
    if (t.of_outputs) p.row_multiple = std::lcm(p.row_multiple, block);
  }
  return ids;
}

// Appends what makes of a matrix the one that acts on inputs, and gives outputs, without transforms. A row acts on transformed inputs as the row times the
// matrix's transpose does on those from before.
void fold_transforms(prog::Program& p, const ir::Module& m, const std::vector<prog::ValueId>& matrices, prog::ValueId& value) {
  for (size_t i = 0; i < m.transforms.size(); ++i) {
    const ir::Transform& t = m.transforms[i];
    p.ops.emplace_back(prog::Rotate{value, matrices[i], t.of_outputs, t.of_outputs == t.transposed, t.divisor});
    value = static_cast<prog::ValueId>(p.inputs.size() + p.ops.size()) - 1;
  }
}

// A plain weight, or the bias of transformed outputs, which is a row of them.
void write_folded(const ir::Module& m, const ir::Stored& s, Elem to, Export& out) {
  const bool bias = s.role == Role::bias;
  ir::Module with = m;
  if (bias) std::erase_if(with.transforms, [](const ir::Transform& t) { return !t.of_outputs; });
  prog::Program p;
  p.inputs.push_back(prog::input_of(s, 1));
  if (bias) p.inputs[0].view = ir::row_major(1, m.n, bits(s.elem));
  p.rows = bias ? 1 : m.n;
  const std::vector<prog::ValueId> matrices = transform_inputs(p, with);
  prog::ValueId value = 0;
  const auto then = [&](prog::Op op) {
    p.ops.push_back(std::move(op));
    value = static_cast<prog::ValueId>(p.inputs.size() + p.ops.size()) - 1;
  };
  if (s.elem != Elem::f32) then(prog::Recode{value, Elem::f32});
  if (bias) {
    for (ir::Transform& t : with.transforms)
      then(prog::Rotate{value, matrices[static_cast<size_t>(&t - with.transforms.data())], false, t.transposed, t.divisor});
  } else {
    fold_transforms(p, with, matrices, value);
  }
  if (to != Elem::f32) then(prog::Recode{value, to});
  p.outputs.push_back({.name = ir::whole_name(s), .dtype = to, .shape = ir::whole_shape(s), .value = value});
  out.programs.push_back(std::move(p));
}

// All rows beside each other.
ir::View one_row(const ir::View& v) {
  ir::View out{.dims = {1, 0}};
  out.along = 1;
  ir::View row = v;
  row.dims[0] = 1;
  for (int64_t i = 0; i < v.dims[0]; ++i, row.offset += v.stride[0]) out.parts.push_back(row);
  out.dims[1] = v.dims[0] * v.dims[1];
  return out;
}

// Stacked experts that do not lie as transformers has those of the family.
bool lies_turned(const ir::Checkpoint& c, const ir::Module& m) {
  return m.stack.experts > 0 && m.topology >= 0 && m.stack.inputs_first != c.topology.modules[static_cast<size_t>(m.topology)].inputs_first;
}

// Stacks are turned as transformers has them. Their own orientation, where that is another one, is kept with `stored`.
void write_dequantized(const ir::Module& module, Elem to, bool turn, bool stored, Export& out) {
  const int64_t experts = module.stack.experts;
  const ir::Module m = turn && !stored ? ir::turned(module) : module;
  const ir::Stored& code = *m.part(Role::code);
  const ir::Stored& scale = *m.part(Role::scale);
  const ir::Stored* global = m.part(Role::global);
  const ir::QuantType type = ir::stored_type(m);
  prog::Program p;
  p.rows = m.n;
  if (experts == 0) p.row_multiple = std::max(type.block.rows, 1);
  p.inputs = {prog::input_of(code, 1), prog::input_of(scale, type.block.rows)};
  prog::Dequantize op{.type = type, .code = 0, .scale = 1, .scale_form = scale.form};
  if (global != nullptr) {
    p.inputs.push_back(prog::input_of(*global, 0));
    op.global = 2;
    op.global_form = global->form;
  }
  const auto also = [&p, &m](Role role, int64_t rows_per, prog::ValueId& id) {
    const ir::Stored* s = m.part(role);
    if (s == nullptr) return;
    id = static_cast<prog::ValueId>(p.inputs.size());
    p.inputs.push_back(prog::input_of(*s, rows_per));
  };
  also(Role::zero, type.block.rows, op.zero);
  also(Role::order, 0, op.order);
  const std::vector<prog::ValueId> matrices = stored ? std::vector<prog::ValueId>{} : transform_inputs(p, m);
  const bool folds = !stored && !fold_inputs(m).empty();
  if (folds)
    for (const ir::Stored* s : fold_inputs(m)) {
      p.inputs.push_back(prog::input_of(*s, s->role == Role::lowrank_b ? 1 : 0));
      if (s->role == Role::lowrank_a) p.inputs.back().view = one_row(s->view);
    }
  p.ops.emplace_back(op);
  const auto inputs = static_cast<prog::ValueId>(p.inputs.size());
  prog::ValueId value = folds ? fold(p, m, inputs, inputs) : inputs;
  if (!stored) fold_transforms(p, m, matrices, value);
  if (to != Elem::f32) {
    p.ops.emplace_back(prog::Recode{value, to});
    ++value;
  }
  const std::vector<int64_t> shape = experts == 0 ? std::vector{m.n, m.k} : std::vector{experts, m.n / experts, m.k};
  p.outputs.push_back({.name = ir::tensor_name(m, "weight"), .dtype = to, .shape = shape, .value = value});
  out.programs.push_back(std::move(p));
}

bool write(const ir::Checkpoint& c, const WriteContext& context, Export& out, Diagnostics& diag) {
  const Elem to = context.dense_dtype.value_or(c.model_dtype);
  bool kv = false, inputs = false, around = false, turned = false;
  for (const ir::Module& m : c.modules) {
    if (m.make) {
      diag.report("scheme-inexpressible", {.module = m.path}, to_string(*m.scheme), "plain numbers: dense holds nothing quantized");
      return false;
    }
    if (m.scheme) {
      write_dequantized(m, to, lies_turned(c, m), context.stored, out);
      turned |= context.stored && lies_turned(c, m);
      inputs |= m.part(Role::input_scale) != nullptr || m.part(Role::output_scale) != nullptr;
    }
    around |= context.stored && (!fold_inputs(m).empty() || !m.transforms.empty());
    const bool outputs = std::any_of(m.transforms.begin(), m.transforms.end(), [](const ir::Transform& t) { return t.of_outputs; });
    for (const ir::Stored& s : m.parts) {
      kv |= s.role == Role::k_scale;
      const bool weight = s.role == Role::code && !m.scheme;
      if (!context.stored && ((weight && !m.transforms.empty()) || (s.role == Role::bias && outputs)))
        write_folded(m, s, to, out);
      else if (weight || s.role == Role::plain || s.role == Role::bias)
        write_plain_float(s, to, out);
    }
  }
  if (inputs) out.lost.push_back({"static activation scales", "an unquantized model does not quantize activations"});
  if (around) out.lost.push_back({"pre-scales, low-rank parts and transforms", "only the stored matrices were asked for"});
  if (turned) out.lost.push_back({"the orientation of stacked experts", "the matrices were asked for as they are stored, and transformers' are turned"});
  if (kv) out.lost.push_back({"KV-cache scales", "an unquantized model has no scheme for its KV cache"});
  Json config = plain_config(context.package);
  const char* key = config.contains("dtype") ? "dtype" : "torch_dtype";
  config[key] = torch_name(to);
  out.documents.emplace_back("config.json", std::make_shared<Json>(std::move(config)));
  return true;
}

}  // namespace

// clang-format off
QB_DIALECT(dense) = {
    .name = "dense", .spec = "Hugging Face transformers checkpoints", .match = match, .read = read, .write = write, .transforms = true};
// clang-format on

}  // namespace qb
