// What stands around a linear's kernel, against its definition.
#include "layer/linear.h"

#include <algorithm>
#include <cmath>

#include "exec/test_support.h"
#include "host/host.h"

namespace qb::layer {
namespace {

using namespace test;

constexpr int64_t n = 6, k = 4, block = 2, tokens = 3;

ir::Stored stored(Memory& memory, const char* name, ir::Role role, Elem elem, int64_t rows, int64_t cols, const Bytes& bytes) {
  const prog::Input in = memory.add(name, elem, rows, cols, bytes);
  return {.role = role,
          .tensor = name,
          .file = in.file,
          .offset = in.offset,
          .bytes = in.bytes,
          .container = elem,
          .elem = elem,
          .shape = {rows, cols},
          .view = in.view};
}

// Every block times the matrix over the divisor, or times its transpose.
std::vector<double> mapped(const std::vector<double>& x, const std::vector<double>& matrix, bool transposed, double divisor) {
  std::vector<double> out(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t p = i % block;
    for (size_t q = 0; q < block; ++q) out[i] += x[i - p + q] * (transposed ? matrix[p * block + q] : matrix[q * block + p]) / divisor;
  }
  return out;
}

TEST(Linear, TransformsInputsFirstAndOutputsLast) {
  const std::vector<float> w = random_floats(n * k, 1, -1, 1), b = random_floats(n, 2, -1, 1), x = random_floats(tokens * k, 3, -1, 1);
  const std::vector<double> matrix{1, 2, -3, 5};
  for (const bool inputs : {false, true})
    for (const bool outputs : {false, true})
      for (const bool transposed : {false, true}) {
        Memory memory;
        ir::Module m{.path = "m", .kind = arch::Kind::linear, .n = n, .k = k};
        m.parts.push_back(stored(memory, "m.weight", ir::Role::code, Elem::f32, n, k, bytes_of(w)));
        m.parts.push_back(stored(memory, "m.bias", ir::Role::bias, Elem::f32, n, 1, bytes_of(b)));
        const ir::Stored shared = stored(memory, "m.t", ir::Role::plain, Elem::f64, block, block, bytes_of(matrix));
        if (inputs) m.transforms.push_back({.of_outputs = false, .transposed = transposed, .divisor = 4, .matrix = shared});
        if (outputs) m.transforms.push_back({.of_outputs = true, .transposed = !transposed, .divisor = 1, .matrix = shared});
        host::Arena arena;
        host::ThreadPool pool(2);
        Context context;
        LinearOptions options{.cpu = host::this_cpu(), .inputs = kernel::Inputs::f32};
        options.policy.reference = true;
        auto linear = Linear::load(m, memory, arena, options, context);
        ASSERT_TRUE(linear.ok()) << linear.error().what;
        std::vector<std::byte> workspace(linear->workspace_bytes(tokens));
        std::vector<float> y(static_cast<size_t>(tokens * n));
        linear->run(x.data(), tokens, y.data(), workspace, pool);
        for (int64_t t = 0; t < tokens; ++t) {
          std::vector<double> in(x.begin() + t * k, x.begin() + (t + 1) * k), out(n);
          if (inputs) in = mapped(in, matrix, transposed, 4);
          for (int64_t i = 0; i < n; ++i) {
            out[static_cast<size_t>(i)] = static_cast<double>(b[static_cast<size_t>(i)]);
            for (int64_t j = 0; j < k; ++j) out[static_cast<size_t>(i)] += static_cast<double>(w[static_cast<size_t>(i * k + j)]) * in[static_cast<size_t>(j)];
          }
          if (outputs) out = mapped(out, matrix, !transposed, 1);
          for (int64_t i = 0; i < n; ++i) EXPECT_NEAR(y[static_cast<size_t>(t * n + i)], out[static_cast<size_t>(i)], 2e-6);
        }
      }
}

TEST(Linear, LoadsASharedMatrixOnce) {
  Memory memory;
  ir::Module m{.path = "m", .kind = arch::Kind::linear, .n = n, .k = k};
  m.parts.push_back(stored(memory, "m.weight", ir::Role::code, Elem::f32, n, k, bytes_of(random_floats(n * k, 1, -1, 1))));
  const ir::Stored shared = stored(memory, "m.t", ir::Role::plain, Elem::f64, block, block, bytes_of(std::vector<double>{1, 2, 3, 5}));
  m.transforms.push_back({.of_outputs = false, .transposed = false, .divisor = 1, .matrix = shared});
  host::Arena arena;
  Context context;
  Rotations rotations;
  LinearOptions options{.cpu = host::this_cpu(), .inputs = kernel::Inputs::f32};
  options.rotations = &rotations;
  const auto first = Linear::load(m, memory, arena, options, context), second = Linear::load(m, memory, arena, options, context);
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->bytes() - second->bytes(), rotations.bytes());
  EXPECT_EQ(rotations.bytes(), 4 * sizeof(double));
}

// A module with codes, scales and zero points of any bytes that mean numbers.
ir::Module quantized_module(Memory& memory, std::string_view text, int64_t rows, int64_t cols, uint32_t seed) {
  const auto scheme = ir::parse_scheme(text);
  EXPECT_TRUE(scheme.ok()) << text;
  const ir::QuantType& type = scheme->weight;
  ir::Module m{.path = "m", .kind = arch::Kind::linear, .n = rows, .k = cols, .scheme = *scheme};
  if (type.plain()) {
    const std::vector<float> w = random_floats(rows * cols, seed, -1, 1);
    std::vector<uint16_t> halves(w.size());
    std::transform(w.begin(), w.end(), halves.begin(), encode_f16);
    m.scheme.reset();
    m.parts.push_back(stored(memory, "m.weight", ir::Role::code, type.code, rows, cols, type.code == Elem::f32 ? bytes_of(w) : bytes_of(halves)));
    return m;
  }
  const int64_t per = bits(type.code) == 4 && !is_integer_code(type.code) ? 2 : 1;
  Bytes codes = random_bytes(static_cast<uint64_t>(rows * cols / per), seed);
  const Elem elem = is_integer_code(type.code) ? Elem::i8 : type.code;
  const int least = is_integer_code(type.code) ? 1 << (bits(type.code) - 1) : 0;
  for (std::byte& c : codes) {
    if (least != 0) c = static_cast<std::byte>(std::to_integer<int>(c) % (2 * least) - least);
    if (type.code == Elem::e4m3 && (c & std::byte{0x7F}) == std::byte{0x7F}) c = std::byte{0x7E};
  }
  m.parts.push_back(stored(memory, "m.weight", ir::Role::code, elem, rows, cols, codes));
  const ir::Block b = type.block;
  const int64_t down = b.rows == 0 ? 1 : (rows + b.rows - 1) / b.rows, across = b.cols == 0 ? 1 : (cols + b.cols - 1) / b.cols;
  m.parts.push_back(stored(memory, "m.scale", ir::Role::scale, Elem::f32, down, across, bytes_of(random_floats(down * across, seed + 1, 0.5F, 2))));
  if (type.zero != ir::Zero::none) {
    Bytes zeros = random_bytes(static_cast<uint64_t>(down * across), seed + 2);
    for (std::byte& z : zeros) z = static_cast<std::byte>(std::to_integer<int>(z) % (2 * least) - least);
    m.parts.push_back(stored(memory, "m.zero", ir::Role::zero, Elem::i8, down, across, zeros));
  }
  return m;
}

// Tiles that are no panels, groups that are no whole units, columns in an order of their own: what is moved and repeated while it is loaded gives what the
// reference gives, which reads rows as they are stored.
TEST(Linear, LoadsEveryBlockIntoPanels) {
  constexpr int64_t rows = 50;
  constexpr int32_t cols = 60;
  for (const std::string_view text :
       {"f32", "f16", "fp8_24x20", "fp8_128x128", "fp8_16x6:fp8_token", "fp8_g10:fp8_g10", "fp4_g20", "fp4_7x12", "int4_g10_asym", "int4_g20_asym+actorder",
        "int4_g20:int8_token_asym+actorder", "int8_g6:int8_token", "int8_20x12_asym", "int3_channel_asym"}) {
    for (const bool uneven : {false, true}) {
      Memory memory;
      ir::Module m = quantized_module(memory, text, rows, cols, 7);
      const bool ordered = m.scheme && m.scheme->features.actorder;
      if (uneven && !ordered) continue;
      if (ordered) {
        std::vector<int32_t> order(cols);
        for (int32_t j = 0; j < cols; ++j) {
          const int32_t spread = j * 7 % cols / m.scheme->weight.block.cols;
          order[static_cast<size_t>(j)] = uneven ? (j % 7 == 0 ? 2 : j % 2) : spread;
        }
        m.parts.push_back(stored(memory, "m.order", ir::Role::order, Elem::i32, 1, cols, bytes_of(order)));
      }
      for (const kernel::Inputs inputs : {kernel::Inputs::as_scheme, kernel::Inputs::f32}) {
        std::vector<std::vector<float>> y;
        for (const bool reference : {true, false}) {
          host::Arena arena;
          host::ThreadPool pool(2);
          Context context;
          LinearOptions options{.cpu = host::this_cpu(), .inputs = inputs};
          options.policy.reference = reference;
          auto linear = Linear::load(m, memory, arena, options, context);
          ASSERT_TRUE(linear.ok()) << text << ": " << linear.error().what;
          EXPECT_EQ(linear->plan().code_layout == ir::Layout::rows, reference || uneven) << text;
          for (const int64_t count : {1, 3, 40}) {
            const std::vector<float> x = random_floats(count * cols, 3, -1, 1);
            std::vector<std::byte> workspace(linear->workspace_bytes(count));
            std::vector<float> out(static_cast<size_t>(count * rows));
            linear->run(x.data(), count, out.data(), workspace, pool);
            y.push_back(std::move(out));
          }
        }
        for (size_t i = 0; i < 3; ++i) {
          float most = 0;
          for (const float v : y[i]) most = std::max(most, std::fabs(v));
          // Of the largest output: every sum is within (k + 8) 2^-24 of terms that are not much larger together.
          for (size_t j = 0; j < y[i].size(); ++j) EXPECT_NEAR(y[i][j], y[i + 3][j], 3e-5F * most) << text << ' ' << i << ' ' << j;
        }
      }
    }
  }
}

// Behind any linear, one gives the bits that it gives alone: what both make of the inputs is shared where it is the same, and made anew where it is not.
// Whether they share a loop or not: also weights whose last panel is not whole, and those in the middle of one thread's rows.
TEST(Linear, SeveralGiveWhatEachGives) {
  constexpr int64_t cols = 64;
  const std::vector<std::string_view> schemes{
      "f32", "int8_channel:int8_token", "int8_channel:int8_token_asym", "int4_g32:int8_token", "fp8_channel:fp8_token", "int8_channel"};
  Memory memory;
  host::Arena arena;
  host::ThreadPool one(1), three(3);
  Context context;
  std::vector<Linear> linears;
  for (size_t i = 0; i < 2 * schemes.size(); ++i) {
    const ir::Module m = quantized_module(memory, schemes[i / 2], i % 2 == 0 ? 50 : 192, cols, static_cast<uint32_t>(7 + i));
    auto linear = Linear::load(m, memory, arena, {.cpu = host::this_cpu()}, context);
    ASSERT_TRUE(linear.ok()) << linear.error().what;
    linears.push_back(std::move(*linear));
  }
  for (const int64_t count : {1, 3, 40}) {
    const std::vector<float> x = random_floats(count * cols, 3, -1, 1);
    size_t most = 0;
    for (const Linear& l : linears) most = std::max(most, l.workspace_bytes(count));
    std::vector<std::byte> workspace(most);
    const auto alone = [&](const Linear& l) {
      std::vector<float> y(static_cast<size_t>(count * l.n()));
      l.run(x.data(), count, y.data(), workspace, one);
      return y;
    };
    for (const Linear& a : linears)
      for (const Linear& b : linears) {
        const Linear* const all[] = {&a, &b, &b, &a, &a, &a, &a, &a, &b};
        std::vector<std::vector<float>> y;
        std::vector<Linear::Product> products;
        for (const Linear* l : all) y.emplace_back(static_cast<size_t>(count * l->n()));
        for (size_t i = 0; i < y.size(); ++i) products.push_back({all[i], y[i].data()});
        Linear::run(products, x.data(), count, workspace, three);
        for (size_t i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], alone(*all[i])) << count << ' ' << i;
      }
  }
}

}  // namespace
}  // namespace qb::layer
