#include "dialect/modelopt_rows.h"

#include <array>
#include <utility>

namespace qb::modelopt {
namespace {

using ir::Role;
using ir::ScaleForm;

constexpr PartRow fp8_code{Role::code, "weight", Elem::e4m3, Rank::matrix};
constexpr PartRow fp4_code{Role::code, "weight", Elem::u8, Rank::matrix};
constexpr PartRow int8_code{Role::code, "weight", Elem::i8, Rank::matrix};
constexpr PartRow int4_code(Packing packing) {
  return {.role = Role::code, .suffix = "weight", .container = Elem::u8, .rank = Rank::matrix, .packing = packing};
}
constexpr PartRow scale(Elem dtype, Rank rank, std::string_view suffix = "weight_scale") {
  return {.role = Role::scale, .suffix = suffix, .container = dtype, .rank = rank};
}
constexpr PartRow exponents{.role = Role::scale, .suffix = "weight_scale", .container = Elem::u8, .rank = Rank::grid, .form = ScaleForm::exponent};
constexpr PartRow global{Role::global, "weight_scale_2", Elem::f32, Rank::scalar0};
constexpr PartRow stage{Role::stage, "weight_scale_2", Elem::f32, Rank::scalar0};
constexpr PartRow input{Role::input_scale, "input_scale", Elem::f32, Rank::scalar0};
constexpr PartRow prescale{.role = Role::prescale, .suffix = "pre_quant_scale", .container = Elem::bf16, .rank = Rank::columns, .any_float = true};
constexpr PartRow lowrank_a{
    .role = Role::lowrank_a, .suffix = "weight_quantizer._svdquant_lora_a", .container = Elem::bf16, .rank = Rank::factor_a, .any_float = true};
constexpr PartRow lowrank_b{
    .role = Role::lowrank_b, .suffix = "weight_quantizer._svdquant_lora_b", .container = Elem::bf16, .rank = Rank::factor_b, .any_float = true};

constexpr PartRow fp8[] = {fp8_code, scale(Elem::f32, Rank::scalar0), input};
constexpr PartRow fp8_channel[] = {fp8_code, scale(Elem::f32, Rank::vector)};
constexpr PartRow fp8_grid4[] = {fp8_code, scale(Elem::f32, Rank::grid4)};
constexpr PartRow fp8_grid[] = {fp8_code, scale(Elem::f32, Rank::grid)};
constexpr PartRow fp8_inverse[] = {fp8_code, scale(Elem::f32, Rank::grid, "weight_scale_inv")};
constexpr PartRow nvfp4[] = {fp4_code, scale(Elem::e4m3, Rank::grid), global, input, prescale, lowrank_a, lowrank_b};
constexpr PartRow mxfp4[] = {fp4_code, exponents, input};
constexpr PartRow mxfp8[] = {fp8_code, exponents};
constexpr PartRow int4_rows[] = {int4_code(Packing::row_pairs), scale(Elem::f32, Rank::grid), prescale};
constexpr PartRow int4_columns[] = {int4_code(Packing::high_first), scale(Elem::f32, Rank::grid), prescale};
constexpr PartRow int4_fp8[] = {int4_code(Packing::row_pairs), scale(Elem::f32, Rank::grid), stage, input, prescale};
constexpr PartRow int8[] = {int8_code, scale(Elem::f32, Rank::vector), input, prescale};

constexpr Words fp8_words{.input = "float 8", .weights = "float 8", .single = true};
constexpr Words nvfp4_words{.input = "float 4 group", .weights = "float 4 group", .single = true, .group = true};
constexpr Words fp4_fp8_words{.input = "float 8", .weights = "float 4 group", .group = true};
constexpr Words awq_words{.input = "float 8 group", .weights = "float 4 group", .group = true, .awq = true};

// The label of a scheme is the first one that holds it.
constexpr Algorithm table[] = {
    {"FP8", "fp8_tensor:fp8_tensor_static", fp8, fp8_words},
    {"FP8", "fp8_tensor", fp8, fp8_words},
    {"FP8_PER_CHANNEL_PER_TOKEN", "fp8_channel:fp8_token", fp8_channel, {.input = "float 8", .weights = "float 8 channel"}},
    {"fp8_pb_wo", "fp8_128x128", fp8_grid4},
    {"fp8_pb_real", "fp8_128x128", fp8_grid},
    {.label = "FP8_BLOCK_SCALES", .meaning = "fp8_128x128:fp8_g128", .parts = fp8_inverse, .imported = true},
    {"NVFP4", "nvfp4:nvfp4", nvfp4, nvfp4_words},
    {"W4A16_NVFP4", "nvfp4", nvfp4, {.weights = "float 4 group", .single = true, .group = true}},
    {.label = "NVFP4_AWQ", .meaning = "nvfp4:nvfp4", .parts = nvfp4, .words = awq_words, .prescale = true, .marked = true},
    {.label = "NVFP4_AWQ", .meaning = "nvfp4", .parts = nvfp4, .words = awq_words, .prescale = true, .marked = true},
    {.label = "NVFP4_SVD",
     .meaning = "nvfp4:nvfp4",
     .parts = nvfp4,
     .words = {.input = "float 4 group", .weights = "float 4 group", .single = true, .group = true, .awq = true},
     .prescale = true,
     .lowrank = true,
     .marked = true},
    {"W4A8_NVFP4_FP8", "nvfp4_g32:fp8_tensor_static", nvfp4, fp4_fp8_words},
    {"mxfp4", "mxfp4", mxfp4},
    {"W4A8_MXFP4_FP8", "mxfp4:fp8_tensor_dyn", mxfp4, fp4_fp8_words},
    {"W4A8_MXFP4_FP8", "mxfp4:fp8_tensor_static", mxfp4, fp4_fp8_words},
    {"MXFP8", "mxfp8:mxfp8_up", mxfp8, {.input = "float 8 group", .weights = "float 8 group", .group = true}},
    {"W4A16_AWQ", "int4_g128", int4_rows, {.weights = "int 4 group", .group = true, .awq = true}, true},
    {"W4A16_AWQ", "int4_g128", int4_columns, {.weights = "int 4 group", .group = true, .awq = true}, true},
    {"W4A8_AWQ", "int4_g128:fp8_tensor_static", int4_fp8, awq_words, true},
    {"W8A16", "int8_channel", int8, {.weights = "int 8"}},
    {"W8A8_SQ_PER_CHANNEL", "int8_channel:int8_tensor_static", int8, {.input = "int 8", .weights = "int 8 channel"}, true},
};

// The exporter's internal names, which reach files that its converter does not know, and TensorRT-LLM's.
constexpr std::pair<std::string_view, std::string_view> aliases[] = {
    {"FP8_PB", "fp8_pb_real"}, {"FP8_PC_PT", "FP8_PER_CHANNEL_PER_TOKEN"}, {"INT8_WO", "W8A16"},
    {"INT4_AWQ", "W4A16_AWQ"}, {"INT8_SQ", "W8A8_SQ_PER_CHANNEL"},         {"NVFP4_SVDQUANT", "NVFP4_SVD"},
    {"NVFP4_STATIC", "NVFP4"},
};

constexpr size_t count = std::size(table);

const std::array<ir::Scheme, count>& meanings() {
  static const std::array<ir::Scheme, count> all = [] {
    std::array<ir::Scheme, count> parsed;
    for (size_t i = 0; i < count; ++i) parsed[i] = *ir::parse_scheme(table[i].meaning);
    return parsed;
  }();
  return all;
}

// Integer groups and NVFP4's have any size; what the tensors may add is taken away, the rest must be the meaning.
bool holds(size_t i, ir::Scheme s) {
  const Algorithm& a = table[i];
  const ir::Scheme& meant = meanings()[i];
  if (a.prescale) s.features.prescale = false;
  if (a.lowrank) s.features.lowrank = 0;
  const ir::QuantType& w = meant.weight;
  const bool any_group = w.block.rows == 1 && w.block.cols > 0 && w.scale != ir::ScaleValues::e8m0;
  if (any_group && s.weight.block.rows == 1 && s.weight.block.cols > 0) {
    if (s.input && s.input->type.two_level() && s.input->type.block == s.weight.block && meant.input) s.input->type.block = meant.input->type.block;
    s.weight.block = w.block;
  }
  return s == meant;
}
template <size_t I>
bool holds_at(const ir::Scheme& s) noexcept {
  return holds(I, s);
}
template <size_t... I>
constexpr std::array<Row, sizeof...(I)> make_rows(std::index_sequence<I...>) {
  return {Row{table[I].label, holds_at<I>, table[I].parts}...};
}
constexpr std::array<Row, count> all_rows = make_rows(std::make_index_sequence<count>());

std::string upper(std::string_view s) {
  std::string out(s);
  for (char& c : out)
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return out;
}

}  // namespace

std::span<const Algorithm> algorithms() {
  return table;
}
std::span<const Row> rows() {
  return all_rows;
}
const Algorithm& algorithm_of(const Row& row) {
  return table[static_cast<size_t>(&row - all_rows.data())];
}
ir::Scheme meaning_of(const Row& row) {
  return meanings()[static_cast<size_t>(&row - all_rows.data())];
}

std::string_view canonical_label(std::string_view label) {
  const std::string wanted = upper(label);
  for (const Algorithm& a : table)
    if (upper(a.label) == wanted) return a.label;
  for (const auto& [alias, meant] : aliases)
    if (alias == wanted) return meant;
  return {};
}

std::span<const Row> rows_of(std::string_view label) {
  size_t begin = 0;
  while (begin < count && all_rows[begin].label != label) ++begin;
  size_t end = begin;
  while (end < count && all_rows[end].label == label) ++end;
  return std::span(all_rows).subspan(begin, end - begin);
}

std::string known_labels() {
  std::string out;
  for (size_t i = 0; i < count; ++i)
    if (i == 0 || table[i].label != table[i - 1].label) out += (out.empty() ? "" : ", ") + std::string(table[i].label);
  return out + ", MIXED_PRECISION";
}

namespace {

struct KvAlgorithm {
  std::string_view algo, scheme;
  bool affine;  // of the label
};
constexpr KvAlgorithm kv_table[] = {
    {"FP8", "fp8_tensor_static", false},
    {"NVFP4", "nvfp4", false},
    {"NVFP4_AFFINE", "nvfp4", true},
    {"INT8", "int8_tensor_static", false},
};

}  // namespace

std::optional<ir::KvCache> kv_of(std::string_view algo) {
  for (const KvAlgorithm& a : kv_table)
    if (a.algo == upper(algo)) return ir::KvCache{.scheme = *ir::parse_activation(a.scheme), .affine = a.affine};
  return std::nullopt;
}

std::string_view kv_algo(const ir::KvCache& kv) {
  const std::string scheme = to_string(kv.scheme);
  for (const KvAlgorithm& a : kv_table)
    if (!kv.per_head && scheme == a.scheme && (kv.affine == a.affine || (kv.affine && scheme == kv_table[0].scheme))) return a.algo;
  return {};
}

}  // namespace qb::modelopt
