// Regions of random matrices, cut at random places: what a region dequantizes to is that part of the whole, bit for bit; and what may not be cut is not.
#include "ir/region.h"

#include <fmt/format.h>

#include "arch/joined.h"
#include "exec/test_support.h"
#include "ir/parts.h"
#include "pass/forms.h"

namespace qb {
namespace {

using namespace test;
using ir::Role;

struct Kind {
  const char* scheme;
  Elem scale;
  bool words = false;  // codes in 32-bit words
};
const Kind kinds[] = {{"bf16", Elem::bf16},
                      {"fp8_tensor", Elem::f32},
                      {"fp8_channel", Elem::bf16},
                      {"fp8_16x8", Elem::f32},
                      {"fp8_g24", Elem::f32},
                      {"int8_channel_asym", Elem::f32},
                      {"int4_g16", Elem::bf16, true},
                      {"int3_g32_asym", Elem::f32, true},
                      {"int5_channel", Elem::f32, true},
                      {"nvfp4", Elem::e4m3},
                      {"mxfp8", Elem::e8m0}};

struct Made {
  Memory source;
  ir::Module module;
};

int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

void add(Made& made, Role role, Elem elem, const ir::View& view, uint64_t size, uint32_t seed, const Bytes* given = nullptr) {
  const Bytes bytes = given != nullptr ? *given : random_bytes(size, seed);
  const prog::Input in = made.source.add(std::string(to_string(role)), Elem::u8, 1, static_cast<int64_t>(size), bytes);
  made.module.parts.push_back(
      {.role = role, .tensor = in.tensor, .file = in.file, .offset = in.offset, .bytes = in.bytes, .container = Elem::u8, .elem = elem, .view = view});
}

void make(const Kind& kind, int64_t n, int64_t k, uint32_t seed, Made& made) {
  const ir::Scheme scheme = *ir::parse_scheme(kind.scheme);
  const ir::QuantType& type = scheme.weight;
  made.module = {.path = "m", .kind = arch::Kind::linear, .n = n, .k = k};
  const int width = bits(type.code);
  if (type.plain()) {
    add(made, Role::code, Elem::bf16, ir::row_major(n, k, 16), static_cast<uint64_t>(n * k * 2), seed);
    return;
  }
  made.module.scheme = scheme;
  if (kind.words) {
    const int64_t words = ir::dense_words(k, width);
    add(made, Role::code, type.code, *ir::packed_words(n, k, width, 1, words), static_cast<uint64_t>(n * words * 4), seed);
    made.module.parts.back().container = Elem::i32;
  } else {
    add(made, Role::code, type.code, ir::row_major(n, k, width), static_cast<uint64_t>(n * k * width / 8), seed);
  }
  const int64_t rows = type.block.rows == 0 ? 1 : ceil_div(n, type.block.rows), cols = type.block.cols == 0 ? 1 : ceil_div(k, type.block.cols);
  std::mt19937 random(seed + 1);
  Bytes scales;
  for (int64_t i = 0; i < rows * cols; ++i) {
    const float value = static_cast<float>(1 + random() % 7) / 8;
    if (kind.scale == Elem::f32) {
      const Bytes one = bytes_of<float>({value});
      scales.insert(scales.end(), one.begin(), one.end());
    } else if (kind.scale == Elem::bf16) {
      const Bytes one = bytes_of<uint16_t>({encode_bf16(value)});
      scales.insert(scales.end(), one.begin(), one.end());
    } else {
      scales.push_back(static_cast<std::byte>(1 + random() % 120));
    }
  }
  add(made, Role::scale, kind.scale, ir::row_major(rows, cols, bits(kind.scale)), scales.size(), 0, &scales);
  if (kind.scale == Elem::e8m0) made.module.parts.back().form = ir::ScaleForm::exponent;
  if (type.two_level()) {
    const Bytes one = bytes_of<float>({0.75F});
    add(made, Role::global, Elem::f32, ir::row_major(1, 1, 32), 4, 0, &one);
  }
  if (type.zero != ir::Zero::none) {
    if (width == 8)
      add(made, Role::zero, Elem::i8, ir::row_major(rows, cols, 8), static_cast<uint64_t>(rows * cols), seed + 2);
    else
      add(made, Role::zero, type.code, *ir::packed_words(rows, cols, width, 0, ir::dense_words(rows, width)),
          static_cast<uint64_t>(ir::dense_words(rows, width) * cols * 4), seed + 2);
  }
}

// The module's values as float32 bits, in blocks of some rows.
std::vector<uint32_t> values(Made& made, const ir::Module& m, int64_t height) {
  prog::Program p;
  p.rows = m.n;
  const ir::Stored& code = *m.part(Role::code);
  p.inputs = {prog::input_of(code, 1)};
  prog::ValueId result = 1;
  if (!m.scheme) {
    p.ops.emplace_back(prog::Recode{0, Elem::f32});
  } else {
    const ir::QuantType& type = m.scheme->weight;
    p.row_multiple = std::max(type.block.rows, 1);
    p.inputs.push_back(prog::input_of(*m.part(Role::scale), type.block.rows));
    prog::Dequantize op{.type = type, .code = 0, .scale = 1, .scale_form = m.part(Role::scale)->form};
    for (const auto& [role, rows_per, to] : {std::tuple{Role::global, 0, &op.global}, {Role::zero, type.block.rows, &op.zero}})
      if (const ir::Stored* s = m.part(role); s != nullptr) {
        *to = static_cast<prog::ValueId>(p.inputs.size());
        p.inputs.push_back(prog::input_of(*s, rows_per));
      }
    p.ops.emplace_back(op);
    result = static_cast<prog::ValueId>(p.inputs.size());
  }
  p.outputs = {{"out", Elem::f32, {m.n, m.k}, result}};
  Context context;
  return as<uint32_t>(run_rows(p, std::max(height / p.row_multiple, int64_t{1}) * p.row_multiple, 0, made.source, context)[0]);
}

// A cut at a multiple of `step`, or -1 where there is none within the axis.
int64_t cut_at(std::mt19937& random, int64_t size, int64_t step) {
  const int64_t most = step == 0 ? 0 : (size - 1) / step;
  return most < 1 ? -1 : step * (1 + static_cast<int64_t>(random() % static_cast<uint64_t>(most)));
}

TEST(Region, AnyPartIsThatPartOfTheWhole) {
  std::mt19937 random(11);
  int cut = 0;
  for (const Kind& kind : kinds)
    for (int round = 0; round < 24; ++round) {
      const ir::Scheme scheme = *ir::parse_scheme(kind.scheme);
      const bool whole_groups = scheme.weight.two_level() || scheme.weight.scale == ir::ScaleValues::e8m0;  // sizes that their producers allow
      const int64_t n = 8 * (1 + static_cast<int64_t>(random() % 12)), k = (whole_groups ? 32 : 8) * (1 + static_cast<int64_t>(random() % 12));
      Made made;
      make(kind, n, k, static_cast<uint32_t>(random()), made);
      const std::vector<uint32_t> all = values(made, made.module, 8);
      // Two bounds along each axis: three parts, of which the first and the last of the rows are one region.
      ir::Region inner = ir::all_of(made.module), outer = inner;
      const int64_t row = cut_at(random, n, ir::grain_of(made.module, 0).exact), col = cut_at(random, k, ir::grain_of(made.module, 1).exact);
      if (row > 0) inner.rows = {{row, n}};
      if (row > 0) outer.rows = {{0, row}};
      if (col > 0) inner.cols = {col, k};
      if (row > 2 && ir::grain_of(made.module, 0).whole == 1) outer.rows = {{0, 1}, {2, row}};
      SCOPED_TRACE(fmt::format("{} {}x{} at {}, {}", kind.scheme, n, k, row, col));
      for (const ir::Region& g : {inner, outer}) {
        const std::optional<ir::Module> part = ir::region_of(made.module, g, ir::common_block(made.module, {inner, outer}));
        ASSERT_TRUE(part);
        std::vector<uint32_t> want;
        for (const ir::Range& r : g.rows)
          for (int64_t i = r.begin; i < r.end; ++i) want.insert(want.end(), all.begin() + i * k + g.cols.begin, all.begin() + i * k + g.cols.end);
        for (const int64_t height : {3, 16, 1000}) EXPECT_EQ(values(made, *part, height), want) << "height " << height;
      }
      cut += row > 0 || col > 0 ? 1 : 0;
    }
  EXPECT_GT(cut, 150);
}

TEST(Region, WhatIsOneNumberIsNotTakenApart) {
  struct Case {
    const char* scheme;
    int64_t at;
    const char* by;
  };
  for (const auto& [scheme, at, by] :
       {Case{"nvfp4", 24, "groups of 16"}, {"mxfp8", 48, "groups of 32"}, {"int4_g16", 20, "word"}, {"int3_g32_asym", 16, "word"}}) {
    SCOPED_TRACE(scheme);
    const std::string name = scheme;
    const Kind* kind = std::find_if(std::begin(kinds), std::end(kinds), [&name](const Kind& x) { return x.scheme == name; });
    Made made;
    make(*kind, 16, 96, 3, made);
    const ir::Grain grain = ir::grain_of(made.module, 1);
    EXPECT_NE(at % grain.exact, 0);
    EXPECT_NE(grain.by.find(by), std::string::npos) << grain.by;
  }
  Made ordered;
  make(kinds[6], 16, 64, 3, ordered);
  ordered.module.scheme->features.actorder = true;
  EXPECT_EQ(ir::grain_of(ordered.module, 1).exact, 0);
  EXPECT_EQ(ir::grain_of(ordered.module, 0).exact, 1);
}

// A matrix that holds three modules, which lie below each other: taken apart each has its rows, put together they are the matrix again.
TEST(Parts, TakenApartAndPutTogetherAgain) {
  std::mt19937 random(12);
  int smaller_blocks = 0;
  for (const Kind& kind : kinds)
    for (int round = 0; round < 12; ++round) {
      Made probe;
      make(kind, 96, 96, 1, probe);
      const int64_t step = ir::grain_of(probe.module, 0).exact, k = 96;
      std::vector<arch::Module> members;
      int64_t n = 0;
      for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        const int64_t rows = step * (1 + static_cast<int64_t>(random() % static_cast<uint64_t>(std::max<int64_t>(48 / step, 1))));
        members.push_back({.path = name, .kind = arch::Kind::linear, .n = rows, .k = k, .fused = "qkv_proj"});
        n += rows;
      }
      Made made;
      make(kind, n, k, static_cast<uint32_t>(random()), made);
      ir::Checkpoint c;
      c.topology.family = arch::find_family("llama");
      c.topology.modules = {arch::fused(members)};
      made.module.path = c.topology.modules[0].path;
      made.module.topology = 0;
      c.modules = {made.module};
      SCOPED_TRACE(fmt::format("{} {} + {} + {} rows", kind.scheme, members[0].n, members[1].n, members[2].n));
      const std::vector<uint32_t> all = values(made, made.module, 8);
      std::vector<pass::Reformed> done;
      std::vector<pass::SmallerBlocks> smaller;
      Diagnostics diag;
      for (int twice = 0; twice < 2; ++twice) {
        ASSERT_TRUE(pass::separate(c, {.projections = true}, done, smaller, diag)) << diag.all().front().found;
        ASSERT_EQ(done.size(), 1U);
        ASSERT_EQ(c.modules.size(), 3U);
        std::vector<uint32_t> parts;
        for (size_t i = 0; i < 3; ++i) {
          EXPECT_EQ(c.modules[i].path, members[i].path);
          EXPECT_EQ(c.modules[i].n, members[i].n);
          EXPECT_EQ(c.modules[i].topology, static_cast<int>(i));
          const std::vector<uint32_t> part = values(made, c.modules[i], 5);
          parts.insert(parts.end(), part.begin(), part.end());
        }
        EXPECT_EQ(parts, all);
      }
      smaller_blocks += smaller.empty() ? 0 : 1;
      Context context;
      StreamSurveyor surveyor(made.source, context);
      done.clear();
      for (int twice = 0; twice < 2; ++twice) {
        const Result<bool> joined = pass::join(c, {.projections = true}, surveyor, done, diag);
        ASSERT_TRUE(joined.ok() && *joined) << diag.all().front().found;
        ASSERT_EQ(done.size(), 1U);
        ASSERT_EQ(c.modules.size(), 1U);
        EXPECT_EQ(c.modules[0].path, "qkv_proj");
        EXPECT_EQ(c.topology.modules[0].parts.size(), 3U);
        for (const int64_t height : {3, 16, 1000}) EXPECT_EQ(values(made, c.modules[0], height), all) << "height " << height;
      }
    }
  EXPECT_GT(smaller_blocks, 4);
}

TEST(Parts, WhatDiffersIsNotPutTogether) {
  const auto joined = [](const char* first, const char* second, float scale, std::string& why) {
    Made made;
    ir::Checkpoint c;
    c.topology.family = arch::find_family("llama");
    for (const char* scheme : {first, second}) {
      const Kind* kind = std::find_if(std::begin(kinds), std::end(kinds), [scheme](const Kind& x) { return std::string_view(x.scheme) == scheme; });
      make(*kind, 16, 96, 3, made);
      made.module.path = c.modules.empty() ? "gate_proj" : "up_proj";
      made.module.topology = static_cast<int>(c.modules.size());
      for (ir::Stored& s : made.module.parts)
        if (s.view.dims == std::array<int64_t, 2>{1, 1}) s.value = c.modules.empty() ? 1.0 : static_cast<double>(scale);
      c.topology.modules.push_back({.path = made.module.path, .kind = arch::Kind::linear, .n = 16, .k = 96, .fused = "gate_up_proj"});
      c.modules.push_back(made.module);
    }
    Context context;
    StreamSurveyor surveyor(made.source, context);
    std::vector<pass::Reformed> done;
    Diagnostics diag;
    const Result<bool> ok = pass::join(c, {.projections = true}, surveyor, done, diag);
    if (ok.ok() && *ok) return true;
    EXPECT_TRUE(diag.has("form-inexpressible"));
    EXPECT_EQ(c.modules.size(), 2U);
    why = diag.all().front().found;
    return false;
  };
  std::string why;
  EXPECT_TRUE(joined("nvfp4", "nvfp4", 1, why));
  EXPECT_TRUE(joined("fp8_tensor", "fp8_tensor", 1, why));
  EXPECT_FALSE(joined("nvfp4", "nvfp4", 2, why));
  EXPECT_NE(why.find("one global for the whole matrix"), std::string::npos) << why;
  EXPECT_FALSE(joined("fp8_tensor", "fp8_tensor", 2, why));
  EXPECT_NE(why.find("one scale for the whole matrix"), std::string::npos) << why;
  EXPECT_FALSE(joined("fp8_channel", "bf16", 1, why));
  EXPECT_NE(why.find("gate_proj is fp8_channel, up_proj is plain numbers"), std::string::npos) << why;
}

}  // namespace
}  // namespace qb
