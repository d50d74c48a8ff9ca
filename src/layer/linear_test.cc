// What stands around a linear's kernel, against its definition.
#include "layer/linear.h"

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

}  // namespace
}  // namespace qb::layer
