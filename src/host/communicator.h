// What ranks that share one model say to each other. Ranks are processes (mpi.h), or threads of a test (test_ranks.h); a second library is one more file.
//
// Everything here is collective: each rank calls the same functions in the same order with buffers of the same size, from one thread. Nothing hangs on timing:
// sums are added in the order of the ranks and have the same bits on every rank. Errors of the transport end the job, all of its ranks, with a message:
// there is nothing that one rank could do about them. Rejected: the transport's own reductions, whose order is theirs; sums that travel a ring, which would
// save bandwidth beyond some ranks and add as many waits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace qb::host {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // What every rank has, in the order of the ranks: all.size() is size() times mine.size(), which is below 2 GiB.
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> all) = 0;
  // What rank 0 has; less than 2 GiB.
  virtual void broadcast(std::span<std::byte> bytes) = 0;
  // The ranks that name the same group, in their order.
  virtual std::unique_ptr<Communicator> split(int group) = 0;
  // Ends all ranks of the job, wherever they are.
  [[noreturn]] virtual void abort(int exit_code) = 0;

  // Each number becomes its sum over the ranks, added in double in the order of the ranks.
  void sum(std::span<double> numbers);
  void sum(std::span<float> numbers);
  void sum(std::span<uint64_t> numbers);  // below 2^53
  // Texts of any length, in the order of the ranks.
  std::vector<std::string> gather_text(std::string_view mine);
  void broadcast_text(std::string& text);

 private:
  template <class T>
  void add_up(std::span<T> numbers);
  std::vector<std::byte> space_;  // of sums, kept
};

}  // namespace qb::host
