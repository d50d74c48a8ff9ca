#include <algorithm>
#include <cstdlib>

#include "host/mpi.h"

namespace qb::host {
namespace {

int number_of(const char* variable) {
  const char* const text = std::getenv(variable);
  return text == nullptr ? 0 : std::atoi(text);  // 0 where it is no number
}

}  // namespace

int launched_processes() {
  // Open MPI; MPICH, Intel MPI and srun --mpi=pmi2; srun --mpi=pmix, which leaves a rank and no size.
  const int pmix = std::getenv("PMIX_RANK") == nullptr ? 0 : number_of("SLURM_STEP_NUM_TASKS");
  return std::max({1, number_of("OMPI_COMM_WORLD_SIZE"), number_of("PMI_SIZE"), pmix});
}

}  // namespace qb::host
