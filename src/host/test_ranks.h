// Ranks as threads of one process, for tests: what MPI does, without a launcher.
#pragma once

#include <barrier>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "host/communicator.h"

namespace qb::host {

class ThreadRank final : public Communicator {
 public:
  // Where the ranks of a group meet.
  struct Board {
    explicit Board(int count) : size(count), meet(count), parts(static_cast<size_t>(count)), groups(static_cast<size_t>(count)) {}
    int size;
    std::barrier<> meet;
    std::vector<std::span<const std::byte>> parts;
    std::vector<int> groups;
    std::mutex mutex;
    std::map<int, std::shared_ptr<Board>> children;
  };
  ThreadRank(std::shared_ptr<Board> board, int rank) : board_(std::move(board)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return board_->size; }
  void gather(std::span<const std::byte> mine, std::span<std::byte> all) override {
    board_->parts[static_cast<size_t>(rank_)] = mine;
    board_->meet.arrive_and_wait();
    for (size_t r = 0, at = 0; r < board_->parts.size(); ++r, at += mine.size()) {
      if (board_->parts[r].size() != mine.size()) std::abort();  // ranks do not do the same
      if (!mine.empty()) std::memcpy(all.data() + at, board_->parts[r].data(), mine.size());
    }
    board_->meet.arrive_and_wait();
  }
  void broadcast(std::span<std::byte> bytes) override {
    board_->parts[static_cast<size_t>(rank_)] = bytes;
    board_->meet.arrive_and_wait();
    if (rank_ != 0 && !bytes.empty()) std::memcpy(bytes.data(), board_->parts[0].data(), bytes.size());
    board_->meet.arrive_and_wait();
  }
  std::unique_ptr<Communicator> split(int group) override {
    board_->groups[static_cast<size_t>(rank_)] = group;
    board_->meet.arrive_and_wait();
    int count = 0, before = 0;
    for (size_t r = 0; r < board_->groups.size(); ++r) {
      if (board_->groups[r] != group) continue;
      ++count;
      before += static_cast<int>(r) < rank_ ? 1 : 0;
    }
    std::shared_ptr<Board> child;
    {
      const std::lock_guard lock(board_->mutex);
      std::shared_ptr<Board>& made = board_->children[group];
      if (made == nullptr) made = std::make_shared<Board>(count);
      child = made;
    }
    board_->meet.arrive_and_wait();
    if (rank_ == 0) board_->children.clear();
    board_->meet.arrive_and_wait();
    return std::make_unique<ThreadRank>(std::move(child), before);
  }
  [[noreturn]] void abort(int) override { std::abort(); }

 private:
  std::shared_ptr<Board> board_;
  int rank_;
};

// f(communicator) on each of `count` ranks; returns when all are done.
inline void run_ranks(int count, const std::function<void(Communicator&)>& f) {
  const auto board = std::make_shared<ThreadRank::Board>(count);
  std::vector<std::thread> threads;
  for (int r = 0; r < count; ++r)
    threads.emplace_back([&f, board, r] {
      ThreadRank rank(board, r);
      f(rank);
    });
  for (std::thread& t : threads) t.join();
}

}  // namespace qb::host
