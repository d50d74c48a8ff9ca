#include "cli/ranks.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "cli/command.h"
#include "host/mpi.h"

namespace qb::cli {
namespace {

std::unique_ptr<host::Communicator> world;

}  // namespace

Result<void> join_ranks() {
  if (host::launched_processes() < 2) return {};
  QB_ASSIGN(world, host::mpi_world());
  return {};
}

void leave_ranks() {
  world.reset();
}

host::Communicator* ranks() {
  return world.get();
}

bool is_speaker() {
  return world == nullptr || world->rank() == 0;
}

void end_ranks(std::string_view command, const Error& error) {
  const std::string text = fmt::format("quantbridge {}: rank {} of {}: {}\n", command, world->rank(), world->size(), escape(error.what));
  std::fwrite(text.data(), 1, text.size(), stderr);
  std::fflush(stderr);
  world->abort(exit_code_of(error));
  std::abort();
}

}  // namespace qb::cli
