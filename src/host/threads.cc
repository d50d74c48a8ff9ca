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

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

// A job is published by raising `generation`; each worker that sees it runs its share and lowers `running`. Both ends spin first. A worker that sleeps says so
// in `sleeping` before it looks at `generation` a last time under the mutex, so the caller, which raises `generation` first and reads `sleeping` afterwards
// (both sequentially consistent), cannot miss it.
struct ThreadPool::State {
  std::atomic<uint64_t> generation{0};
  std::atomic<int> running{0};
  std::atomic<int> sleeping{0};
  std::atomic<bool> caller_sleeps{false};
  std::atomic<bool> stop{false};
  const std::function<void(int)>* job = nullptr;  // written before `generation` is raised
  std::mutex mutex;
  std::condition_variable wake, done;
  std::vector<std::thread> workers;
  int spin = spins;

  uint64_t await(uint64_t seen) {
    for (int i = 0; i < spin; ++i) {
      if (const uint64_t g = generation.load(std::memory_order_acquire); g != seen) return g;
      pause();
    }
    std::unique_lock lock(mutex);
    sleeping.fetch_add(1);
    wake.wait(lock, [&] { return generation.load() != seen; });
    sleeping.fetch_sub(1);
    return generation.load();
  }

  void publish() {
    generation.fetch_add(1);
    if (sleeping.load() == 0) return;
    { const std::lock_guard lock(mutex); }  // a worker between its last look and its wait holds the mutex
    wake.notify_all();
  }

  void work(int index) {
    uint64_t seen = 0;
    for (;;) {
      seen = await(seen);
      if (stop.load()) return;
      (*job)(index);
      if (running.fetch_sub(1) == 1 && caller_sleeps.load()) {
        { const std::lock_guard lock(mutex); }
        done.notify_one();
      }
    }
  }

  void join() {
    for (int i = 0; i < spin; ++i) {
      if (running.load(std::memory_order_acquire) == 0) return;
      pause();
    }
    std::unique_lock lock(mutex);
    caller_sleeps.store(true);
    done.wait(lock, [&] { return running.load() == 0; });
    caller_sleeps.store(false);
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  // More threads than processors: whoever spins keeps the one it waits for from running.
  if (threads > static_cast<int>(std::thread::hardware_concurrency())) state_->spin = 0;
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([s = state_.get(), i] { s->work(i); });
}

ThreadPool::~ThreadPool() {
  state_->stop.store(true);
  state_->publish();
  for (std::thread& t : state_->workers) t.join();
}

int ThreadPool::size() const {
  return static_cast<int>(state_->workers.size()) + 1;
}

void ThreadPool::run(const std::function<void(int)>& f) {
  if (state_->workers.empty()) return f(0);
  state_->job = &f;
  state_->running.store(static_cast<int>(state_->workers.size()));
  state_->publish();
  f(0);
  state_->join();
}

void ThreadPool::ranges(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& f) {
  if (count <= 0) return;
  const int64_t grains = count / grain + (count % grain != 0 ? 1 : 0), n = std::min<int64_t>(size(), grains);
  if (n == 1) return f(0, count);
  run([&](int i) {
    if (i >= n) return;
    const int64_t begin = grains * i / n * grain, end = std::min(grains * (i + 1) / n * grain, count);
    if (begin < end) f(begin, end);
  });
}

}  // namespace qb::host
