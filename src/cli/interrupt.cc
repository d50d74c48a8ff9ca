#include "cli/interrupt.h"

#include <unistd.h>

#include <csignal>

namespace qb::cli {
namespace {

std::atomic<bool> flag{false};
std::atomic<int> signal_number{0};

void on_signal(int number) {
  if (flag.exchange(true)) _exit(128 + number);
  signal_number = number;
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
