#include "cli/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace qb::cli {
namespace {

std::atomic<bool> flag{false};
std::atomic<int> signal_number{0};

void on_signal(int number) {
  int none = 0;
  if (!signal_number.compare_exchange_strong(none, number)) _exit(128 + number);
  flag = true;  // last: whoever sees it also sees the number
}

}  // namespace

void catch_interrupts() {
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
}
const std::atomic<bool>& interrupted() {
  return flag;
}
int interrupted_by() {
  return signal_number;
}

}  // namespace qb::cli
