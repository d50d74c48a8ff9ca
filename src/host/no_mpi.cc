#include "host/mpi.h"

namespace qb::host {

bool has_mpi() {
  return false;
}

Result<std::unique_ptr<Communicator>> mpi_world() {
  return Error{Errc::invalid_argument,
               "several processes need MPI, and this program was built without it: install it (Debian: libopenmpi-dev, openmpi-bin) and build again"};
}

}  // namespace qb::host
