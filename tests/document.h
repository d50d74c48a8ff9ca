// Pages of docs/ that are made from tables: a test compares them, and its program writes them with --write.
#pragma once

#include <gtest/gtest.h>

#include <string_view>

#include "suite.h"

namespace qb::suite {

inline Path document(std::string_view name) {
  return Path(QB_SOURCE_DIR) / "docs" / name;
}

inline int run_document_tests(int argc, char** argv, std::string_view name, std::string (*generate)()) {
  for (int i = 1; i < argc; ++i)
    if (std::string_view(argv[i]) == "--write") {
      write_bytes(document(name), generate());
      return 0;
    }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}

}  // namespace qb::suite
