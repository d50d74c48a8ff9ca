#include "host/threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace qb::host {
namespace {

// About 20 us of pauses: longer than the gap between two linears of a decode step, shorter than what a user would notice as a busy idle machine.
constexpr int spins = 4000;
constexpr int64_t most_parts = 8;            // of a thread's share: fine enough to even out, coarse enough to read memory in long runs
constexpr size_t ahead = size_t{256} << 10;  // of expected bytes to a thread: a part of a second-level cache

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// The parts of a thread's share that nobody has begun, under the number of their job: job << 16 | parts.
struct alignas(64) Share {
  std::atomic<uint64_t> ticket{0};

  // Takes a part; returns how many there were, 0 for none, also when a newer job has come.
  int64_t take(uint64_t job) {
    uint64_t t = ticket.load(std::memory_order_relaxed);
    while (t >> 16 == (job & (~uint64_t{0} >> 16)) && (t & 0xFFFFU) != 0) {
      if (ticket.compare_exchange_weak(t, t - 1, std::memory_order_acq_rel, std::memory_order_relaxed)) return static_cast<int64_t>(t & 0xFFFFU);
    }
    return 0;
  }
};

// What is expected. Readers may see the bytes of one hint with the number of another: then they prefetch what nobody needs.
struct Expected {
  std::atomic<uint64_t> number{0};
  std::atomic<const std::byte*> bytes{nullptr};
  std::atomic<size_t> size{0};
};

// A thread's way through its share of it.
class Prefetch {
 public:
  Prefetch(const Expected& expected, size_t thread, size_t threads) : expected_(expected), thread_(thread), threads_(threads) {}

  // A few lines, or a pause when there is nothing to bring.
  void step() {
    if (const uint64_t n = expected_.number.load(std::memory_order_acquire); n != number_) {
      number_ = n;
      const size_t size = expected_.size.load(std::memory_order_relaxed), begin = size / threads_ * thread_;
      at_ = expected_.bytes.load(std::memory_order_relaxed) + begin;
      left_ = std::min(size / threads_, ahead) / bytes_in_step;
    }
    if (left_ == 0) return pause();
    --left_;
    for (size_t i = 0; i < bytes_in_step; i += 64) __builtin_prefetch(at_ + i, 0, 2);
    at_ += bytes_in_step;
  }

 private:
  static constexpr size_t bytes_in_step = 256;
  const Expected& expected_;
  size_t thread_, threads_;
  uint64_t number_ = 0;
  const std::byte* at_ = nullptr;
  size_t left_ = 0;
};

}  // namespace

// A job is published by raising `generation`. Its parts are split into a share for each thread; who has none left takes from the others, so that a thread that
// the system keeps from running holds up nobody: the caller waits for parts, not for threads. What a job is may only be read by who has taken a part of it,
// for it stays until all parts are done.
//
// Both ends spin first. A worker that sleeps says so in `sleeping` before it looks at `generation` a last time under the mutex, so the caller, which raises
// `generation` first and reads `sleeping` afterwards (both sequentially consistent), cannot miss it.
struct ThreadPool::State {
  explicit State(int threads) : shares(static_cast<size_t>(threads)) {}

  std::vector<Share> shares;
  std::atomic<uint64_t> generation{0};
  std::atomic<int64_t> left{0};  // parts that are not done
  std::atomic<int> sleeping{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};
  // The job.
  const std::function<void(int)>* each = nullptr;                 // one part for each thread, or
  const std::function<void(int64_t, int64_t)>* ranges = nullptr;  // parts of a range
  int64_t parts = 1, count = 0, grain = 1;                        // of one share; of the range
  std::mutex mutex;
  std::condition_variable wake, done;
  std::vector<std::thread> workers;
  int spin = spins;
  Expected expected;
  Prefetch callers{expected, 0, shares.size()};

  uint64_t await(uint64_t seen, Prefetch& meanwhile) {
    for (int i = 0; i < spin; ++i) {
      if (const uint64_t g = generation.load(std::memory_order_acquire); g != seen) return g;
      meanwhile.step();
    }
    std::unique_lock lock(mutex);
    sleeping.fetch_add(1);
    wake.wait(lock, [&] { return generation.load() != seen; });
    sleeping.fetch_sub(1);
    return generation.load();
  }

  void publish() {
    const uint64_t job = generation.load(std::memory_order_relaxed) + 1;
    left.store(parts * static_cast<int64_t>(shares.size()), std::memory_order_relaxed);
    for (Share& s : shares) s.ticket.store(job << 16 | static_cast<uint64_t>(parts), std::memory_order_release);
    generation.store(job);
    if (sleeping.load() == 0) return;
    { const std::lock_guard lock(mutex); }  // a worker between its last look and its wait holds the mutex
    wake.notify_all();
  }

  void do_part(int64_t part) const {
    if (each != nullptr) return (*each)(static_cast<int>(part));
    const int64_t grains = count / grain + (count % grain != 0 ? 1 : 0), all = parts * static_cast<int64_t>(shares.size());
    const int64_t begin = grains * part / all * grain, end = std::min(grains * (part + 1) / all * grain, count);
    if (begin < end) (*ranges)(begin, end);
  }

  // Does parts of the job until none is left: first the own share, then the neighbours'.
  void help(uint64_t job, size_t index) {
    int64_t finished = 0;
    for (size_t i = 0; i < shares.size(); ++i) {
      const size_t owner = (index + i) % shares.size();
      while (const int64_t n = shares[owner].take(job)) {
        do_part(static_cast<int64_t>(owner + 1) * parts - n);
        ++finished;
      }
    }
    if (finished > 0 && left.fetch_sub(finished) == finished && caller_sleeps.load()) {
      { const std::lock_guard lock(mutex); }
      done.notify_one();
    }
  }

  void work(size_t index) {
    uint64_t seen = 0;
    Prefetch meanwhile(expected, index, shares.size());
    for (;;) {
      seen = await(seen, meanwhile);
      if (stop.load()) return;
      help(seen, index);
    }
  }

  void run() {
    publish();
    help(generation.load(std::memory_order_relaxed), 0);
    for (int i = 0; i < spin; ++i) {
      if (left.load(std::memory_order_acquire) == 0) return;
      callers.step();
    }
    std::unique_lock lock(mutex);
    caller_sleeps.store(true);
    done.wait(lock, [&] { return left.load() == 0; });
    caller_sleeps.store(false);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>(std::max(threads, 1))) {
  // More threads than processors: whoever spins keeps the one it waits for from running.
  if (threads > static_cast<int>(std::thread::hardware_concurrency())) state_->spin = 0;
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get(), i] { s->work(static_cast<size_t>(i)); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->parts = 0;
  state_->publish();
  for (std::thread& t : state_->workers) t.join();
}

void ThreadPool::expect(std::span<const std::byte> next) {
  Expected& e = state_->expected;
  e.bytes.store(next.data(), std::memory_order_relaxed);
  e.size.store(next.size(), std::memory_order_relaxed);
  e.number.fetch_add(1, std::memory_order_release);
}

int ThreadPool::size() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::run(const std::function<void(int)>& f) {
  if (state_->workers.empty()) return f(0);
  state_->each = &f;
  state_->parts = 1;
  state_->run();
  state_->each = nullptr;
}

void ThreadPool::ranges(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& f) {
  if (count <= 0) return;
  const int64_t grains = count / grain + (count % grain != 0 ? 1 : 0);
  if (size() == 1 || grains == 1) return f(0, count);
  state_->ranges = &f;
  state_->parts = std::clamp<int64_t>(grains / size(), 1, most_parts);
  state_->count = count;
  state_->grain = grain;
  state_->run();
}

}  // namespace qb::host
