// Registers a dialect: QB_DIALECT(awq) = {...}; the build's manifest finds the line.
#pragma once

#include "dialect/dialect.h"

#define QB_DIALECT(stem)               \
  extern const Dialect dialect_##stem; \
  const Dialect dialect_##stem
