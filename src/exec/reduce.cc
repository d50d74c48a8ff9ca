// Reductions, shared: the first thread that asks for one starts it, whoever asks while it runs takes blocks of it instead of waiting idle.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <condition_variable>
#include <iterator>
#include <optional>

#include "base/diagnostics.h"
#include "exec/context.h"
#include "exec/stream.h"
#include "host/host.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

void add_key(const prog::Input& in, std::string& key) {
  const ir::View& v = in.view;
  fmt::format_to(std::back_inserter(key), "{}:{}:{}:{},{}:{},{}:{},{},{}:{},{}(", in.file, in.offset, static_cast<int>(in.elem), v.dims[0], v.dims[1],
                 v.stride[0], v.stride[1], v.offset, v.piece, v.next_piece, in.times, in.plus);
  for (const prog::Input& by : in.by) add_key(by, key);
  if (!in.joined.empty()) fmt::format_to(std::back_inserter(key), "{}{}:", in.join.along, in.join.turns ? "t" : "");
  for (const prog::Input& part : in.joined) add_key(part, key);
  key += ");";
}

// Equal keys: equal numbers. The tensor's name is for messages only.
std::string key_of(const prog::Reduction& r) {
  std::string key;
  for (const prog::Input& in : r.over) add_key(in, key);
  return key;
}

constexpr uint64_t largest_block = 4u << 20;

}  // namespace

struct Context::Entry {
  std::vector<Stream> streams;
  std::vector<std::string> names;
  int64_t total = 0;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};

  std::mutex mutex;
  std::condition_variable changed;
  int64_t done = 0;  // blocks
  float largest = 0;
  std::optional<Error> error;

  Result<float> take(int64_t index, Source& source, Buffer& buffer, const prog::Reduction& r, Isa vectors) const {
    for (size_t i = 0; i < streams.size(); ++i) {
      if (index >= streams[i].blocks()) {
        index -= streams[i].blocks();
        continue;
      }
      QB_ASSIGN(const Stream::Block block, streams[i].read(index, source, buffer));
      const float x = recipe::absmax(block.data, r.over[i].elem, block.count, vectors);
      if (std::isnan(x)) {
        return Error{Errc::bad_input,
                     fmt::format("tensor '{}' holds a NaN between elements {} and {}: it has no absmax, so it cannot be quantized; repair the weights",
                                 escape(names[i]), block.first, block.first + block.count - 1)};
      }
      return x;
    }
    return 0.0F;
  }
};

Result<float> Context::reduce(const prog::Reduction& r, Source& source) {
  std::shared_ptr<Entry> entry;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Entry>& slot = reductions_[key_of(r)];
    if (slot == nullptr) {
      slot = std::make_shared<Entry>();
      // Each thread may hold one block besides the buffers of its rows, which leave a quarter of the budget for this.
      const uint64_t share = limits.memory_budget / static_cast<uint64_t>(std::max(limits.threads, 1)) / 4;
      for (const prog::Input& in : r.over) {
        slot->names.push_back(in.tensor);
        slot->streams.emplace_back(in, std::min(share, largest_block));
        slot->total += slot->streams.back().blocks();
        const uint64_t need = slot->streams.back().block_bytes();
        if (need > std::max(share, buffer_alignment)) {
          slot->error =
              Error{Errc::out_of_memory, fmt::format("tensor '{}': one row for its absmax needs {} bytes of buffers, a thread may have {}; raise the budget",
                                                     escape(in.tensor), need, share)};
          slot->failed = true;
        }
      }
    }
    entry = slot;
  }
  Entry& e = *entry;
  Buffer buffer;
  while (!e.failed.load(std::memory_order_relaxed)) {
    const int64_t index = e.next.fetch_add(1, std::memory_order_relaxed);
    if (index >= e.total) break;
    Result<float> x = stop() ? Result<float>(Error{Errc::cancelled, "interrupted"}) : e.take(index, source, buffer, r, isa);
    host::sample_memory();
    const std::lock_guard lock(e.mutex);
    if (!x) {
      if (!e.error) e.error = x.error();
      e.failed = true;
      e.changed.notify_all();
    } else {
      e.largest = std::max(e.largest, *x);
      if (++e.done == e.total) e.changed.notify_all();
    }
  }
  std::unique_lock lock(e.mutex);
  e.changed.wait(lock, [&] { return e.error.has_value() || e.done == e.total; });
  if (e.error) return *e.error;
  return e.largest;
}

}  // namespace qb
