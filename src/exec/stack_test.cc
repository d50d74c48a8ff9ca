// Stacked experts through their views: each expert on its own, all of them turned, in blocks of any height, against codes that are counted one by one.
#include "ir/stack.h"

#include <fmt/format.h>

#include "arch/joined.h"
#include "exec/test_support.h"
#include "ir/parts.h"
#include "ir/region.h"
#include "pass/forms.h"

namespace qb {
namespace {

using namespace test;
using ir::Role;
using ir::ScaleForm;
using ir::ScaleValues;

constexpr int64_t experts = 3, outputs = 12, inputs = 64;

// How a stack lies in the tests: which orientation, and which axis pairs of nibbles run along.
struct Kind {
  std::string name;
  Elem elem;
  bool inputs_first;
  bool pairs_of_rows = false;
};

struct Made {
  Memory source;
  ir::Module module;
  std::vector<unsigned> codes;   // [experts, outputs, inputs]
  std::vector<unsigned> scales;  // [experts, outputs, inputs / 32]
};

unsigned code_at(const Made& m, int64_t e, int64_t o, int64_t i) {
  return m.codes[static_cast<size_t>((e * outputs + o) * inputs + i)];
}
unsigned scale_at(const Made& m, int64_t e, int64_t o, int64_t g) {
  return m.scales[static_cast<size_t>((e * outputs + o) * (inputs / 32) + g)];
}

ir::Stored stored(Memory& source, Role role, Elem elem, const Bytes& bytes, int64_t rows, int64_t cols, ir::View view) {
  const prog::Input in = source.add(std::string(to_string(role)), Elem::u8, 1, static_cast<int64_t>(bytes.size()), bytes);
  return {
      .role = role, .tensor = in.tensor, .file = in.file, .offset = in.offset, .bytes = in.bytes, .elem = elem, .shape = {rows, cols}, .view = std::move(view)};
}

void make(const Kind& kind, Made& made) {
  std::mt19937 random(5);
  const int width = bits(kind.elem);
  for (int64_t i = 0; i < experts * outputs * inputs; ++i) made.codes.push_back(static_cast<unsigned>(random()) & ((1U << width) - 1U));
  for (int64_t i = 0; i < experts * outputs * (inputs / 32); ++i) made.scales.push_back(static_cast<unsigned>(random()) % 255U);
  const int64_t rows = experts * (kind.inputs_first ? inputs : outputs), cols = kind.inputs_first ? outputs : inputs, each = rows / experts;
  Bytes codes(static_cast<size_t>(rows * cols * width / 8)), scales(made.scales.size());
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t col = 0; col < cols; ++col) {
      const int64_t e = row / each, r = row % each;
      const unsigned code = kind.inputs_first ? code_at(made, e, col, r) : code_at(made, e, r, col);
      const int64_t bit = kind.pairs_of_rows ? (row / 2 * cols + col) * 8 + row % 2 * 4 : (row * cols + col) * width;
      for (int b = 0; b < width; b += 4) codes[static_cast<size_t>((bit + b) / 8)] |= static_cast<std::byte>((code >> b & 15U) << (bit + b) % 8);
    }
  for (int64_t e = 0; e < experts; ++e)
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t g = 0; g < inputs / 32; ++g) {
        const int64_t at = kind.inputs_first ? (e * (inputs / 32) + g) * outputs + o : (e * outputs + o) * (inputs / 32) + g;
        scales[static_cast<size_t>(at)] = static_cast<std::byte>(scale_at(made, e, o, g));
      }
  ir::Module& m = made.module;
  m = {.path = "experts.gate_up_proj", .kind = arch::Kind::expert, .n = rows, .k = cols, .stack = {.experts = experts, .inputs_first = kind.inputs_first}};
  if (kind.elem == Elem::e2m1) m.scheme = *ir::parse_scheme("mxfp4");
  ir::View view = ir::row_major(rows, cols, width);
  if (kind.pairs_of_rows) {
    view = ir::nibbles(rows, cols, ir::Nibbles::row_pairs);
  }
  m.parts.push_back(stored(made.source, Role::code, kind.elem, codes, rows, cols, view));
  if (!m.scheme) return;
  const int64_t grid_rows = kind.inputs_first ? rows / 32 : rows, grid_cols = kind.inputs_first ? cols : cols / 32;
  m.parts.push_back(stored(made.source, Role::scale, Elem::e8m0, scales, grid_rows, grid_cols, ir::row_major(grid_rows, grid_cols, 8)));
  m.parts.back().form = ScaleForm::exponent;
}

// What a view reads, element by element, in blocks of `height` rows.
std::vector<unsigned> read(Made& made, const ir::Stored& part, int64_t height) {
  prog::Program p;
  p.rows = part.view.dims[0];
  p.inputs = {prog::input_of(part, 1)};
  p.ops.emplace_back(prog::Copy{0});
  p.outputs = {{"out", part.elem, {part.view.dims[0], part.view.dims[1]}, 1}};
  Context context;
  const Bytes bytes = run_rows(p, height, 0, made.source, context)[0];
  const int width = bits(part.elem);
  std::vector<unsigned> out;
  for (int64_t i = 0; i < part.view.dims[0] * part.view.dims[1]; ++i) {
    unsigned number = 0;
    for (int b = 0; b < width; b += 4) {
      const int64_t bit = i * width + b;
      number |= (std::to_integer<unsigned>(bytes[static_cast<size_t>(bit / 8)]) >> bit % 8 & 15U) << b;
    }
    out.push_back(number);
  }
  return out;
}

const std::vector<Kind> kinds{{"bf16 [E,N,K]", Elem::bf16, false},
                              {"bf16 [E,K,N]", Elem::bf16, true},
                              {"fp4 [E,N,K/2]", Elem::e2m1, false},
                              {"fp4 [E,K,N/2]", Elem::e2m1, true},
                              {"fp4 [E,K/2,N]", Elem::e2m1, true, true}};

TEST(Stack, EachExpertIsALinear) {
  for (const Kind& kind : kinds) {
    SCOPED_TRACE(kind.name);
    Made made;
    make(kind, made);
    for (int64_t e = 0; e < experts; ++e)
      for (const auto& [first, step] : {std::pair<int64_t, int64_t>{0, 1}, {0, 2}, {1, 2}, {2, 3}}) {
        const ir::Module one = ir::expert_of(made.module, e, first, step);
        ASSERT_EQ(one.n, outputs / step);
        ASSERT_EQ(one.k, inputs);
        std::vector<unsigned> codes, scales;
        for (int64_t o = first; o < outputs; o += step) {
          for (int64_t i = 0; i < inputs; ++i) codes.push_back(code_at(made, e, o, i));
          for (int64_t g = 0; g < inputs / 32; ++g) scales.push_back(scale_at(made, e, o, g));
        }
        for (const int64_t height : {1, 3, 100}) {
          EXPECT_EQ(read(made, *one.part(Role::code), height), codes) << "expert " << e << " from " << first << " by " << step;
          const ir::Stored* scale = one.part(Role::scale);
          EXPECT_EQ(scale == nullptr ? scales : read(made, *scale, height), scales);
        }
      }
  }
}

TEST(Stack, TurnedItHasTheOtherOrientation) {
  for (const Kind& kind : kinds) {
    if (kind.pairs_of_rows) continue;
    SCOPED_TRACE(kind.name);
    Made made;
    make(kind, made);
    const ir::Module t = ir::turned(made.module);
    ASSERT_EQ(t.n, experts * (kind.inputs_first ? outputs : inputs));
    ASSERT_EQ(t.stack.inputs_first, !kind.inputs_first);
    std::vector<unsigned> codes, scales;
    for (int64_t e = 0; e < experts; ++e)
      for (int64_t a = 0; a < t.n / experts; ++a)
        for (int64_t b = 0; b < t.k; ++b) codes.push_back(kind.inputs_first ? code_at(made, e, a, b) : code_at(made, e, b, a));
    for (int64_t e = 0; e < experts && t.scheme; ++e)
      for (int64_t a = 0; a < (kind.inputs_first ? outputs : inputs / 32); ++a)
        for (int64_t b = 0; b < (kind.inputs_first ? inputs / 32 : outputs); ++b)
          scales.push_back(kind.inputs_first ? scale_at(made, e, a, b) : scale_at(made, e, b, a));
    for (const int64_t height : {1, 5, 11, 40, 1000}) {
      EXPECT_EQ(read(made, *t.part(Role::code), height), codes) << "blocks of " << height;
      const ir::Stored* scale = t.part(Role::scale);
      EXPECT_EQ(scale == nullptr ? scales : read(made, *scale, height), scales) << "blocks of " << height;
    }
  }
}

// The scheme speaks of one expert as a linear; blocks of the stored matrix are turned as it is.
TEST(Stack, BlocksOfTheStoredMatrix) {
  const auto block = [](const char* scheme, ir::Stack stack) {
    const ir::Module m{.path = "x", .kind = arch::Kind::expert, .n = experts * inputs, .k = outputs, .stack = stack, .scheme = *ir::parse_scheme(scheme)};
    return ir::stored_type(m).block;
  };
  EXPECT_EQ(block("mxfp4", {experts, false}), (ir::Block{1, 32}));
  EXPECT_EQ(block("nvfp4", {experts, true}), (ir::Block{16, 1}));
  EXPECT_EQ(block("fp4_32x1@e8m0", {experts, true}), (ir::Block{1, 32}));
  EXPECT_EQ(block("fp8_tensor", {experts, true}), (ir::Block{0, 0}));
  EXPECT_EQ(block("fp8_tensor", {experts, true, true}), (ir::Block{inputs, 0}));
  EXPECT_EQ(block("fp8_channel", {experts, true}), (ir::Block{inputs, 1}));
}

TEST(Stack, PiecesThatReachBeyondTheTensorAreRefused) {
  Memory source;
  prog::Program p;
  p.rows = 8;
  p.inputs = {source.add("x", Elem::bf16, 8, 4, Bytes(64))};
  p.inputs[0].view = {.dims = {8, 4}, .stride = {16, 64}, .piece = 4, .next_piece = 256};
  p.ops.emplace_back(prog::Copy{0});
  p.outputs = {{"out", Elem::bf16, {8, 4}, 1}};
  EXPECT_TRUE(prog::type_check(p).ok());
  for (const int64_t next : {int64_t{257}, int64_t{-1}, INT64_MAX}) {
    p.inputs[0].view.next_piece = next;
    EXPECT_FALSE(prog::type_check(p).ok()) << next;
  }
}

std::vector<int64_t> numbers_in(const std::vector<ir::Range>& ranges) {
  std::vector<int64_t> out;
  for (const ir::Range& r : ranges)
    for (int64_t i = r.begin; i < r.end; ++i) out.push_back(i);
  return out;
}

// Some experts of a stack, and of each of them some rows and columns: what ranks have. Each expert is a linear there too.
TEST(Stack, APartOfEachExpertIsALinear) {
  std::mt19937 random(6);
  const auto below = [&random](int64_t most) { return static_cast<int64_t>(random() % static_cast<uint64_t>(most)); };
  int in_two = 0;
  for (const Kind& kind : kinds)
    for (int round = 0; round < 24; ++round) {
      Made made;
      make(kind, made);
      const ir::Module& m = made.module;
      const int64_t rows = m.n / experts, row = ir::grain_of(m, 0).exact, col = ir::grain_of(m, 1).exact;
      const auto cut = [&below](int64_t size, int64_t step) { return step * below(size / step + 1); };
      ir::Region g = ir::all_of(m);
      const int64_t from = below(experts), a = cut(rows, row), b = cut(rows, row), c = cut(m.k, col);
      g.experts = {from, from + 1 + below(experts - from)};
      g.rows = a < b ? std::vector<ir::Range>{{0, a}, {b, rows}} : std::vector<ir::Range>{{b, a}};
      std::erase_if(g.rows, [](const ir::Range& r) { return r.size() == 0; });
      g.cols = c < m.k ? ir::Range{c, m.k} : ir::Range{0, m.k};
      if (g.rows.empty() || (kind.inputs_first && g.rows.size() > 1 && m.scheme)) continue;
      in_two += g.rows.size() > 1 ? 1 : 0;
      SCOPED_TRACE(
          fmt::format("{}: experts [{}, {}), {} ranges of rows, columns from {}", kind.name, g.experts.begin, g.experts.end, g.rows.size(), g.cols.begin));
      const std::optional<ir::Module> part = ir::region_of(m, g, ir::common_block(m, {g}));
      ASSERT_TRUE(part);
      const std::vector<int64_t> some_rows = numbers_in(g.rows), some_cols = numbers_in({g.cols});
      const std::vector<int64_t>&outs = kind.inputs_first ? some_cols : some_rows, &ins = kind.inputs_first ? some_rows : some_cols;
      for (int64_t e = 0; e < g.experts.size(); ++e) {
        const ir::Module one = ir::expert_of(*part, e);
        ASSERT_EQ(one.n, static_cast<int64_t>(outs.size()));
        ASSERT_EQ(one.k, static_cast<int64_t>(ins.size()));
        std::vector<unsigned> codes, scales;
        for (const int64_t o : outs) {
          for (const int64_t i : ins) codes.push_back(code_at(made, g.experts.begin + e, o, i));
          for (size_t i = 0; i < ins.size(); i += 32) scales.push_back(scale_at(made, g.experts.begin + e, o, ins[i] / 32));
        }
        for (const int64_t height : {1, 3, 100}) {
          EXPECT_EQ(read(made, *one.part(Role::code), height), codes) << "expert " << e;
          const ir::Stored* scale = one.part(Role::scale);
          EXPECT_EQ(scale == nullptr ? scales : read(made, *scale, height), scales) << "expert " << e;
        }
      }
    }
  EXPECT_GT(in_two, 5);
}

// Stacks taken apart, and put together again: gate and up of each expert are the halves of its outputs, or take turns.
TEST(Stack, TakenApartAndPutTogetherAgain) {
  for (const char* family : {"gpt_oss", "qwen3_moe"})
    for (const Kind& kind : kinds) {
      SCOPED_TRACE(fmt::format("{} {}", family, kind.name));
      Made made;
      make(kind, made);
      ir::Checkpoint c;
      c.topology.family = arch::find_family(family);
      const bool turns = c.topology.family->interleaved;
      std::vector<arch::Module> members;
      for (int64_t e = 0; e < experts; ++e)
        for (const char* name : {"gate_proj", "up_proj"})
          members.push_back({.path = fmt::format("experts.{}.{}", e, name),
                             .kind = arch::Kind::linear,
                             .n = outputs / 2,
                             .k = inputs,
                             .experts = experts,
                             .stacked = "experts.gate_up_proj",
                             .expert = e,
                             .of_experts = "x"});
      c.topology.modules = {arch::stacked(members, *c.topology.family)};
      made.module.topology = 0;
      c.modules = {made.module};
      std::vector<pass::Reformed> done;
      std::vector<pass::SmallerBlocks> smaller;
      Diagnostics diag;
      ASSERT_TRUE(pass::separate(c, {.experts = true}, done, smaller, diag));
      ASSERT_EQ(c.modules.size(), static_cast<size_t>(2 * experts));
      for (int64_t i = 0; i < 2 * experts; ++i) {
        const ir::Module& m = c.modules[static_cast<size_t>(i)];
        ASSERT_EQ(m.path, members[static_cast<size_t>(i)].path);
        std::vector<unsigned> codes, scales;
        for (int64_t o = 0; o < outputs / 2; ++o) {
          const int64_t output = turns ? 2 * o + i % 2 : o + i % 2 * (outputs / 2);
          for (int64_t k = 0; k < inputs; ++k) codes.push_back(code_at(made, i / 2, output, k));
          for (int64_t g = 0; g < inputs / 32; ++g) scales.push_back(scale_at(made, i / 2, output, g));
        }
        EXPECT_EQ(read(made, *m.part(Role::code), 5), codes) << m.path;
        EXPECT_EQ(m.scheme ? read(made, *m.part(Role::scale), 5) : scales, scales) << m.path;
      }
      Context context;
      StreamSurveyor surveyor(made.source, context);
      const Result<bool> joined = pass::join(c, {.experts = true}, surveyor, done, diag);
      ASSERT_TRUE(joined.ok() && *joined) << diag.all().front().found;
      ASSERT_EQ(c.modules.size(), 1U);
      EXPECT_EQ(c.modules[0].path, "experts.gate_up_proj");
      EXPECT_EQ(c.modules[0].stack.inputs_first, !c.modules[0].scheme && turns);
      for (const bool inputs_first : {false, true}) {
        const ir::Module stack = c.modules[0].stack.inputs_first == inputs_first ? c.modules[0] : ir::turned(c.modules[0]);
        std::vector<unsigned> codes;
        for (int64_t e = 0; e < experts; ++e)
          for (int64_t a = 0; a < (inputs_first ? inputs : outputs); ++a)
            for (int64_t b = 0; b < (inputs_first ? outputs : inputs); ++b) codes.push_back(inputs_first ? code_at(made, e, b, a) : code_at(made, e, a, b));
        for (const int64_t height : {1, 5, 17, 1000})
          EXPECT_EQ(read(made, *stack.part(Role::code), height), codes) << inputs_first << " in blocks of " << height;
      }
      for (int64_t e = 0; e < experts; ++e) {  // and an expert of it
        std::vector<unsigned> codes;
        for (int64_t o = 0; o < outputs; ++o)
          for (int64_t k = 0; k < inputs; ++k) codes.push_back(code_at(made, e, o, k));
        EXPECT_EQ(read(made, *ir::expert_of(c.modules[0], e).part(Role::code), 4), codes);
      }
    }
}

}  // namespace
}  // namespace qb
