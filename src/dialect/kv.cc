// KV-cache scales under every name that producers and engines use, given to the attention module that they belong to.
//
// Sources: names of ModelOpt 0.47, compressed-tensors 0.6 to 0.19, AutoFP8, and the parameter names of vLLM's attention layers.
#include <fmt/format.h>

#include <array>

#include "dialect/reading.h"

namespace qb {
namespace {

struct KvName {
  std::string_view suffix;  // behind the attention module's path
  bool k, v;                // whose scale it is; both: one scale for the pair
};
constexpr std::array names{
    KvName{"k_proj.k_scale", true, false},
    KvName{"v_proj.v_scale", false, true},
    KvName{"k_scale", true, false},
    KvName{"v_scale", false, true},
    KvName{"attn.k_scale", true, false},
    KvName{"attn.v_scale", false, true},
    KvName{"qkv_proj.k_scale", true, false},
    KvName{"qkv_proj.v_scale", false, true},
    KvName{"qkqkv_proj.k_scale", true, false},
    KvName{"qkqkv_proj.v_scale", false, true},
    KvName{"k_proj.output_scale", true, false},
    KvName{"v_proj.output_scale", false, true},
    KvName{"k_cache.scale", true, false},
    KvName{"v_cache.scale", false, true},
    KvName{"kv_scale", true, true},
};

bool own_name(std::string_view suffix, Reading::KvNames canonical) {
  return canonical == Reading::KvNames::projection ? suffix == "k_proj.k_scale" || suffix == "v_proj.v_scale" : suffix == "k_scale" || suffix == "v_scale";
}

// The shape in which the dialect writes a scale.
std::vector<int64_t> usual_shape(Reading::KvNames canonical, bool per_head, int64_t heads) {
  if (canonical == Reading::KvNames::projection) return {};
  return per_head ? std::vector<int64_t>{heads, 1, 1} : std::vector<int64_t>{1};
}

const ir::Activation fp8{{.code = Elem::e4m3, .scale = ir::ScaleValues::any, .block = {0, 0}}, ir::When::fixed};

}  // namespace

// Layers whose cache has no scales although that of others has.
void Reading::report_layers_without(int64_t others) {
  for (const ir::Module& m : out.modules) {
    const arch::Module& t = out.topology.modules[static_cast<size_t>(m.topology)];
    if (m.kind != arch::Kind::attention || t.structural || t.layer >= out.topology.layers || m.part(ir::Role::k_scale) != nullptr ||
        m.part(ir::Role::v_scale) != nullptr)
      continue;
    diag.report("kv-scale-missing", {.module = m.path}, "no KV scales",
                fmt::format("k_scale and v_scale, as {} other layer{} ha{} them", others, others == 1 ? "" : "s", others == 1 ? "s" : "ve"));
  }
}

void Reading::read_kv_scales(KvNames canonical, const std::optional<ir::KvCache>& announced, std::string_view announced_by) {
  const Package& p = context.package;
  ir::KvCache kv = announced.value_or(ir::KvCache{.scheme = fp8});
  const int64_t heads = out.topology.kv_heads, width = heads * out.topology.head_dim;
  const TensorInfo* any = nullptr;
  for (ir::Module& m : out.modules) {
    if (m.kind != arch::Kind::attention) continue;
    int found = 0;
    for (const KvName& name : names) {
      // A scale may lie under the attention module itself or under one of its projections.
      const TensorInfo* t = p.tensor(fmt::format("{}.{}", m.path, name.suffix));
      if (t == nullptr || claimed(*t)) continue;
      claim(*t);
      any = t;
      const Place place{.file = p.file_name(t->file), .tensor = t->name, .module = m.path};
      if (t->elements() != (kv.per_head ? heads : 1) || !info(t->dtype).is_float) {
        diag.report("algorithm-unsupported", place, fmt::format("KV scale {} [{}]", info(t->dtype).safetensors, fmt::join(t->shape, ",")),
                    kv.per_head ? fmt::format("{} floats, one for each KV head", heads) : "one float for the layer");
        continue;
      }
      if (!own_name(name.suffix, canonical))
        diag.report("kv-scale-name", place, std::string(name.suffix), canonical == KvNames::projection ? "k_proj.k_scale, v_proj.v_scale" : "k_scale, v_scale");
      for (ir::Role role : {ir::Role::k_scale, ir::Role::v_scale}) {
        if (!(role == ir::Role::k_scale ? name.k : name.v)) continue;
        if (m.part(role) != nullptr) {
          diag.report("kv-scale-duplicate", place, fmt::format("a second {}", ir::to_string(role)), fmt::format("one; the other is {}", m.part(role)->tensor));
          continue;
        }
        ir::Stored s = stored(*t, role, t->dtype, 1, t->elements());
        OriginEntry deviation;
        if (t->dtype != Elem::f32) deviation.dtype = t->dtype;
        if (t->shape != usual_shape(canonical, kv.per_head, heads)) deviation.shape = t->shape;
        s.deviation = to_text(deviation);
        m.parts.push_back(std::move(s));
        ++found;
      }
    }
    for (const auto& [suffix, role] : {std::pair{"k_proj.k_bias", ir::Role::k_bias}, {"v_proj.v_bias", ir::Role::v_bias}}) {
      const TensorInfo* t = p.tensor(fmt::format("{}.{}", m.path, suffix));
      if (t == nullptr) continue;
      claim(*t);
      if (t->elements() != width || (t->dtype != Elem::bf16 && t->dtype != Elem::f16 && t->dtype != Elem::f32)) {
        diag.report("scale-shape", {.file = p.file_name(t->file), .tensor = t->name, .module = m.path},
                    fmt::format("{} [{}]", info(t->dtype).safetensors, fmt::join(t->shape, ",")), fmt::format("{} floats", width));
        continue;
      }
      kv.affine = true;  // the label does not always say so
      m.parts.push_back(stored(*t, role, t->dtype, 1, width));
    }
    if (found == 1)
      diag.report("kv-scale-missing", {.module = m.path}, m.part(ir::Role::k_scale) != nullptr ? "k_scale alone" : "v_scale alone", "both scales of the layer");
    if ((m.part(ir::Role::k_bias) == nullptr) != (m.part(ir::Role::v_bias) == nullptr))
      diag.report("kv-scale-missing", {.module = m.path}, m.part(ir::Role::k_bias) != nullptr ? "k_bias alone" : "v_bias alone", "both biases of the layer");
    if (found > 0) ++kv.layers;
  }
  if (kv.layers > 0 && out.topology.family != nullptr) report_layers_without(kv.layers);
  if (!announced && any == nullptr) return;
  out.kv = kv;
  if (!announced) diag.report("config-disagree", {.file = announced_by, .tensor = any->name}, "no KV-cache scheme", "FP8: scale tensors are there");
  if (announced && kv.layers == 0)
    diag.report("kv-scales-absent", {.file = announced_by}, fmt::format("{} without scale tensors", to_string(kv)),
                "k_scale and v_scale for each layer; 1.0 is used");
}

}  // namespace qb
