#include "host/mpi.h"

#include <mpi.h>

#include <cstdlib>

namespace qb::host {
namespace {

class Mpi final : public Communicator {
 public:
  // `world`: MPI ends with it. Other communicators have to be gone by then.
  Mpi(MPI_Comm comm, bool world) : comm_(comm), world_(world) {
    MPI_Comm_rank(comm, &rank_);
    MPI_Comm_size(comm, &size_);
  }
  Mpi(const Mpi&) = delete;
  Mpi& operator=(const Mpi&) = delete;
  ~Mpi() override {
    if (world_) {
      MPI_Finalize();
    } else {
      MPI_Comm_free(&comm_);
    }
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    const auto count = static_cast<int>(mine.size());
    MPI_Allgather(mine.data(), count, MPI_BYTE, all.data(), count, MPI_BYTE, comm_);
  }
  void broadcast(std::span<std::byte> bytes) override { MPI_Bcast(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, 0, comm_); }
  std::unique_ptr<Communicator> split(int group) override {
    MPI_Comm part = MPI_COMM_NULL;
    MPI_Comm_split(comm_, group, rank_, &part);
    return std::make_unique<Mpi>(part, false);
  }
  [[noreturn]] void abort(int exit_code) override {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::abort();
  }

 private:
  MPI_Comm comm_;
  bool world_;
  int rank_ = 0, size_ = 1;
};

}  // namespace

bool has_mpi() {
  return true;
}

// Errors keep MPI's own handler, which says what it was and ends the job.
Result<std::unique_ptr<Communicator>> mpi_world() {
  int provided = 0;
  if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided) != MPI_SUCCESS || provided < MPI_THREAD_FUNNELED)
    return Error{Errc::invalid_argument, "MPI cannot be started in a program that has threads"};
  return std::unique_ptr<Communicator>(std::make_unique<Mpi>(MPI_COMM_WORLD, true));
}

}  // namespace qb::host
