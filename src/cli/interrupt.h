// SIGINT and SIGTERM become a flag that long work polls; a second one ends the process at once.
#pragma once

#include <atomic>

namespace qb::cli {

void catch_interrupts();
const std::atomic<bool>& interrupted();
int interrupted_by();  // the signal; 0: none

}  // namespace qb::cli
