// Result<T> (public) and the two macros that keep code that returns it short.
#pragma once

#include "quantbridge/result.h"

#define QB_CONCAT_(a, b) a##b
#define QB_CONCAT(a, b) QB_CONCAT_(a, b)
// Returns the error of `expr` from the enclosing function.
#define QB_TRY(expr)                                    \
  do {                                                  \
    if (auto qb_r = (expr); !qb_r) return qb_r.error(); \
  } while (false)
// `lhs` gets the value of `expr`, or the enclosing function returns its error.
#define QB_ASSIGN(lhs, expr) QB_ASSIGN_(QB_CONCAT(qb_result_, __LINE__), lhs, expr)
#define QB_ASSIGN_(tmp, lhs, expr) \
  auto tmp = (expr);               \
  if (!tmp) return tmp.error();    \
  lhs = std::move(*tmp)
