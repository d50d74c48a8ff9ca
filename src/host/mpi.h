// Ranks as processes that a launcher has started (mpirun, srun). The build picks mpi.cc, or no_mpi.cc where there is no MPI. Part of the program, not of the
// library: who links the library does not need MPI.
#pragma once

#include "base/result.h"
#include "host/communicator.h"

namespace qb::host {

// How many processes a launcher has started with this one, by what it leaves in the environment; 1: none that we know.
int launched_processes();

bool has_mpi();  // in this program
// All processes of the launch; to be asked for once, by the thread that will use it, and destroyed before the program ends. Errors: invalid_argument where
// there is no MPI in this program.
Result<std::unique_ptr<Communicator>> mpi_world();

}  // namespace qb::host
