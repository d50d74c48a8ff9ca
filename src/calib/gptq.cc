// GPTQ: columns are rounded one after the other, and what is lost at each is made up for by those that are still to come.
//
// Source: Frantar et al., arXiv 2210.17323, as llm-compressor 0.14 computes it: H = x^T x; columns without inputs count as 1 and their weights as 0; a
// hundredth of the mean of the diagonal is added to it; U is the upper Cholesky factor of H^-1. Column i of a row w becomes q(w_i), and the columns behind it
// lose (w_i - q(w_i)) / U_ii * U_i. Scales and zero points are the recipe's, of the weights as they were. Order: `gptq` takes columns by the sums of their
// squares, the largest first, and leaves groups as they lie; `gptq_in_order` takes them as they lie; `gptq_group_order` makes groups of columns in that order,
// so that a checkpoint has to say which column is in which group (act-order, desc_act).
//
// U comes from H itself: with J turning the order of rows and columns round and J H J = L L^T, U = J L^-1 J. That is one factorization in place of the three
// steps of the producer, and nothing is squared on the way. Blocks of 128 columns as there: within one, columns change one by one; those behind it all at once.
#include <Eigen/Cholesky>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "calib/algorithm.h"
#include "calib/rounding.h"

namespace qb::calib {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr int64_t block = 128, rows_together = 8;
constexpr float damping = 0.01F, most_damping = 1.0F;

enum class Order : uint8_t { by_size, as_they_lie, by_size_in_groups };

// What all weights that read the same inputs share.
struct Plan {
  std::vector<int32_t> columns;  // in the order in which they are rounded
  std::vector<bool> dead;        // by their own numbers
  Matrix u;                      // [k, k], upper
};

Result<Plan> plan_of(Statistics& inputs, Order order) {
  const int64_t k = inputs.width();
  std::vector<float> products = inputs.take_products();
  const auto at = [&](int64_t i, int64_t j) -> float { return products[static_cast<size_t>(i < j ? i * k + j : j * k + i)]; };
  Plan p;
  p.columns.resize(static_cast<size_t>(k));
  p.dead.resize(static_cast<size_t>(k));
  std::iota(p.columns.begin(), p.columns.end(), 0);
  double sum = 0;
  for (int64_t i = 0; i < k; ++i) {
    float& diagonal = products[static_cast<size_t>(i * k + i)];
    if (diagonal == 0) {
      p.dead[static_cast<size_t>(i)] = true;
      diagonal = 1;
    }
    sum += static_cast<double>(diagonal);
  }
  if (!std::isfinite(sum)) return Error{Errc::bad_input, "what flows into it is not finite"};
  if (order != Order::as_they_lie) std::stable_sort(p.columns.begin(), p.columns.end(), [&](int32_t a, int32_t b) { return at(a, a) > at(b, b); });
  const float mean = static_cast<float>(sum / static_cast<double>(k));
  // Rounding may have made it indefinite by more than the damping: then there is more of it.
  for (float damp = damping; damp <= most_damping; damp *= 10) {
    Matrix a(k, k);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j <= i; ++j)
        a(i, j) = at(p.columns[static_cast<size_t>(k - 1 - i)], p.columns[static_cast<size_t>(k - 1 - j)]) + (i == j ? damp * mean : 0.0F);
    const Eigen::LLT<Eigen::Ref<Matrix>> factor(a);
    if (factor.info() != Eigen::Success) continue;
    products = {};
    p.u = Matrix::Identity(k, k);
    // Some columns at once, which begin at the diagonal: how much the solver packs aside follows the machine's caches, and would be all of both matrices.
    for (int64_t at_column = 0; at_column < k; at_column += block) {
      auto columns = p.u.block(at_column, at_column, k - at_column, std::min(block, k - at_column));
      a.bottomRightCorner(k - at_column, k - at_column).triangularView<Eigen::Lower>().solveInPlace(columns);
    }
    std::reverse(p.u.data(), p.u.data() + k * k);
    return p;
  }
  return Error{Errc::bad_input, "the products of its inputs have no Cholesky factor"};
}

// Rounds some rows of a weight. All columns are in the order of the plan.
class Rows {
 public:
  Rows(const Weight& w, const Plan& plan, const Made& made, const std::vector<float>& scales, const std::vector<int32_t>& groups, Isa isa)
      : w_(w),
        plan_(plan),
        scales_(scales),
        groups_(groups),
        zeros_(made.zeros),
        isa_(isa),
        per_row_(static_cast<int64_t>(scales.size()) / w.n),
        low_(-static_cast<float>(1 << (bits(w.type.code) - 1))) {}

  // `x`: [count, k] numbers from row `first` on, overwritten; codes: [count, k].
  void round(int64_t first, int64_t count, float* x, std::byte* codes) const {
    const int64_t k = w_.k;
    std::vector<float> errors(static_cast<size_t>(count * block));
    for (int64_t begin = 0; begin < k; begin += block) {
      const int64_t end = std::min(begin + block, k);
      for (int64_t i = begin; i < end; ++i)
        for (int64_t r = 0; r < count; ++r) {
          float* const row = x + r * k;
          const auto [code, value] = rounded(first + r, i, row[i]);
          const float error = (row[i] - value) / plan_.u(i, i);
          codes[r * k + i] = static_cast<std::byte>(code);
          errors[static_cast<size_t>(r * block + i - begin)] = -error;
          add_product({.y = row + i,
                       .y_row = k,
                       .e = &errors[static_cast<size_t>(r * block + i - begin)],
                       .e_row = 1,
                       .e_depth = 1,
                       .u = &plan_.u(i, i),
                       .u_row = k,
                       .rows = 1,
                       .depth = 1,
                       .columns = end - i},
                      isa_);
        }
      if (end < k)
        add_product({.y = x + end,
                     .y_row = k,
                     .e = errors.data(),
                     .e_row = block,
                     .e_depth = 1,
                     .u = &plan_.u(begin, end),
                     .u_row = k,
                     .rows = count,
                     .depth = end - begin,
                     .columns = k - end},
                    isa_);
    }
  }

 private:
  Rounded rounded(int64_t row, int64_t i, float x) const {
    const auto at = static_cast<size_t>(row * per_row_ + groups_[static_cast<size_t>(i)]);
    return nearest(x, scales_[at], zeros_.empty() ? 0.0F : static_cast<float>(static_cast<int8_t>(zeros_[at])), low_, w_.recipe->scale_elem(w_.elem));
  }

  const Weight& w_;
  const Plan& plan_;
  const std::vector<float>& scales_;
  const std::vector<int32_t>& groups_;
  const std::vector<std::byte>& zeros_;
  Isa isa_;
  int64_t per_row_;
  float low_;
};

Made solve_one(const Weight& w, const Plan& plan, Order order, const Tools& tools) {
  const int64_t k = w.k, group = w.type.block.cols == 0 ? k : w.type.block.cols;
  const size_t width = static_cast<size_t>(bits(w.elem)) / 8;
  const bool regroup = order == Order::by_size_in_groups && w.type.block.cols != 0;
  Made made;
  if (regroup) {
    std::vector<std::byte> moved(w.numbers.size());
    for (int64_t r = 0; r < w.n; ++r)
      for (int64_t j = 0; j < k; ++j)
        std::copy_n(w.numbers.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r * k + plan.columns[static_cast<size_t>(j)]) * width), width,
                    moved.begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(r * k + j) * width));
    made = make(w, moved.data(), 0, tools.isa);
  } else {
    made = make(w, w.numbers.data(), 0, tools.isa);
  }
  const Elem elem = w.recipe->scale_elem(w.elem);
  std::vector<float> scales(made.scales.size() / static_cast<size_t>(bits(elem) / 8));
  widen(made.scales.data(), elem, static_cast<int64_t>(scales.size()), scales.data());
  std::vector<int32_t> groups(static_cast<size_t>(k));  // of columns in the order of the plan
  for (int64_t j = 0; j < k; ++j) groups[static_cast<size_t>(j)] = static_cast<int32_t>((regroup ? j : int64_t{plan.columns[static_cast<size_t>(j)]}) / group);
  if (regroup) {
    made.order.resize(static_cast<size_t>(k));
    for (int64_t j = 0; j < k; ++j) made.order[static_cast<size_t>(plan.columns[static_cast<size_t>(j)])] = groups[static_cast<size_t>(j)];
  }
  const Rows rows(w, plan, made, scales, groups, tools.isa);
  tools.pool.ranges(w.n, rows_together, [&](int64_t begin, int64_t end) {
    std::vector<float> x(static_cast<size_t>(rows_together * k)), plain(static_cast<size_t>(k));
    std::vector<std::byte> codes(static_cast<size_t>(rows_together * k));
    for (int64_t first = begin; first < end; first += rows_together) {
      const int64_t count = std::min(rows_together, end - first);
      for (int64_t r = 0; r < count; ++r) {
        widen(w.numbers.data() + static_cast<size_t>((first + r) * k) * width, w.elem, k, plain.data());
        for (int64_t j = 0; j < k; ++j) {
          const auto column = static_cast<size_t>(plan.columns[static_cast<size_t>(j)]);
          x[static_cast<size_t>(r * k + j)] = plan.dead[column] ? 0.0F : plain[column];
        }
      }
      rows.round(first, count, x.data(), codes.data());
      for (int64_t r = 0; r < count; ++r)
        for (int64_t j = 0; j < k; ++j)
          made.codes[static_cast<size_t>((first + r) * k + plan.columns[static_cast<size_t>(j)])] = codes[static_cast<size_t>(r * k + j)];
    }
  });
  return made;
}

template <Order order>
Result<std::vector<Made>> solve(std::span<const Weight> weights, Statistics& inputs, const Tools& tools) {
  QB_ASSIGN(const Plan plan, plan_of(inputs, order));
  std::vector<Made> out;
  for (const Weight& w : weights) out.push_back(solve_one(w, plan, order, tools));
  return out;
}

std::string_view refuses(const ir::QuantType& t) noexcept {
  const bool integers = is_integer_code(t.code) && t.scale == ir::ScaleValues::any && t.block.rows == 1;
  return integers ? "" : "integers with a scale for each row or group";
}
std::string_view refuses_rows(const ir::QuantType& t) noexcept {
  return refuses(t).empty() && t.block.cols > 0 ? "" : "integers with a scale for each group";
}

constexpr std::string_view producer = "arXiv 2210.17323; llm-compressor 0.14, GPTQModifier";

constexpr Algorithm gptq(std::string_view name, std::string_view (*refused)(const ir::QuantType&) noexcept,
                         Result<std::vector<Made>> (*solves)(std::span<const Weight>, Statistics&, const Tools&)) {
  return {.name = name, .source = producer, .numerics = std::nullopt, .kind = Algorithm::Kind::codes, .products = true, .refuses = refused, .solve = solves};
}

}  // namespace

QB_ALGORITHM(gptq) = gptq("gptq", refuses, solve<Order::by_size>);
QB_ALGORITHM(gptq_in_order) = gptq("gptq_in_order", refuses, solve<Order::as_they_lie>);
QB_ALGORITHM(gptq_group_order) = gptq("gptq_group_order", refuses_rows, solve<Order::by_size_in_groups>);

}  // namespace qb::calib
