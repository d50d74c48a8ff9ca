#include "exec/schedule.h"

#include <algorithm>

#include "exec/buffer.h"

namespace qb {
namespace {

// A thread with less than this spends its time in system calls: fewer threads share a small budget.
constexpr uint64_t least_share = 64u << 10;

Result<ScheduledFile> compile_file(const PlannedFile& planned) {
  ScheduledFile file;
  file.programs.reserve(planned.programs.size());
  for (const prog::Program& p : planned.programs) {
    QB_ASSIGN(Compiled c, compile(p));
    for (const prog::Output& o : p.outputs) {
      const uint64_t bytes = prog::output_bytes(o);
      file.tensors.push_back({file.bytes, bytes});
      file.bytes += bytes;
      if (const prog::ValueId v = c.source_of(o); c.is_input(v) && !p.inputs[static_cast<size_t>(v)].changed()) file.bytes_unchanged += bytes;
    }
    file.bytes_in += c.input_bytes();
    file.programs.push_back(std::move(c));
  }
  return file;
}

// Buffers that the smallest block of a program needs.
uint64_t least_bytes(const Compiled& c) {
  if (c.moves_bytes) return 0;
  const int64_t rows = c.least_rows();
  uint64_t outputs = 0;
  for (size_t o = 0; o < c.program->outputs.size(); ++o) outputs += aligned(c.slice(o, {0, rows}).bytes);
  return c.working_set(rows) + outputs;
}

class Cutter {
 public:
  Cutter(ScheduledFile& file, uint32_t index, uint64_t thread_bytes, std::vector<Task>& tasks)
      : file_(file), index_(index), room_(thread_bytes), block_(std::min(default_block, thread_bytes)), tasks_(tasks) {}

  void run() {
    open();
    uint32_t tensor = 0;
    for (size_t p = 0; p < file_.programs.size(); ++p) {
      const Compiled& c = file_.programs[p];
      program_ = static_cast<uint32_t>(p);
      if (c.moves_bytes) {
        for (uint32_t o = 0; o < c.program->outputs.size(); ++o) move(tensor + o, o);
      } else {
        compute(c, tensor);
      }
      tensor += static_cast<uint32_t>(c.program->outputs.size());
    }
    // A file of nothing is still a file.
    if (file_.tasks == 0 || file_.items.size() > task_.first_item) close();
  }

 private:
  void open() {
    task_ = Task{.file = index_, .first_item = file_.items.size(), .begin = at_, .end = at_};
    scratch_ = 0;
  }
  void close() {
    task_.items = file_.items.size() - task_.first_item;
    task_.end = at_;
    tasks_.push_back(task_);
    ++file_.tasks;
    open();
  }
  uint64_t size() const { return at_ - task_.begin; }

  void move(uint32_t tensor, uint32_t output) {
    const uint64_t bytes = file_.tensors[tensor].bytes;
    for (uint64_t done = 0; done < bytes || bytes == 0;) {
      if (size() >= block_ || size() + scratch_ >= room_) close();
      const uint64_t take = std::min({bytes - done, block_ - size(), room_ - size() - scratch_});
      file_.items.push_back({program_, tensor, output, true, static_cast<int64_t>(done), static_cast<int64_t>(done + take)});
      done += take;
      at_ += take;
      if (bytes == 0) break;
    }
  }

  void compute(const Compiled& c, uint32_t tensor) {
    const int64_t rows = c.program->rows;
    const uint64_t outputs = c.output_bytes({0, rows}), scratch = c.working_set(rows);
    const bool small = outputs <= block_ / 4 && c.input_bytes() <= block_ / 4 && scratch <= room_ / 4;
    if (small) {
      if (size() + outputs > block_ || size() + outputs + scratch_ + scratch > room_) close();
      file_.items.push_back({program_, tensor, 0, false, 0, rows});
      at_ += outputs;
      scratch_ += scratch;
      return;
    }
    if (file_.items.size() > task_.first_item) close();
    // Each output starts at its own cache line in the thread's buffer.
    const uint64_t padding = buffer_alignment * c.program->outputs.size();
    const int64_t height = std::max(c.block_rows(block_, room_ > padding ? room_ - padding : 0, true), c.least_rows());
    for (int64_t begin = 0; begin == 0 || begin < rows; begin += std::max<int64_t>(height, 1)) {
      file_.items.push_back({program_, tensor, 0, false, begin, std::min(begin + height, rows)});
      task_.apart = true;
      close();
    }
    at_ += outputs;
    open();
  }

  ScheduledFile& file_;
  uint32_t index_, program_ = 0;
  uint64_t room_, block_, at_ = 0, scratch_ = 0;
  std::vector<Task>& tasks_;
  Task task_;
};

}  // namespace

Result<Schedule> make_schedule(std::span<const PlannedFile> files, const std::vector<bool>& skip, const Limits& limits) {
  Schedule s;
  const Compiled* widest = nullptr;
  uint64_t least = 0;
  bool reduces = false;
  for (const PlannedFile& planned : files) {
    QB_ASSIGN(ScheduledFile file, compile_file(planned));
    s.files.push_back(std::move(file));
  }
  for (const ScheduledFile& file : s.files) {
    for (const Compiled& c : file.programs) {
      reduces = reduces || !c.program->reductions.empty();
      const uint64_t bytes = least_bytes(c);
      if (bytes > least) least = bytes, widest = &c;
    }
  }
  // A quarter stays for the reductions, which stream their tensors in blocks of their own.
  const uint64_t usable = reduces ? limits.memory_budget - limits.memory_budget / 4 : limits.memory_budget;
  if (widest != nullptr && least > usable) return widest->does_not_fit(usable, true);
  s.threads = static_cast<int>(std::clamp<uint64_t>(usable / std::max(least, least_share), 1, static_cast<uint64_t>(std::max(limits.threads, 1))));
  s.thread_bytes = std::max<uint64_t>(usable / static_cast<uint64_t>(s.threads), 1);
  for (size_t f = 0; f < s.files.size(); ++f) {
    if (!skip[f]) Cutter(s.files[f], static_cast<uint32_t>(f), s.thread_bytes, s.tasks).run();
  }
  s.threads = static_cast<int>(std::clamp<uint64_t>(s.tasks.size(), 1, static_cast<uint64_t>(s.threads)));
  return s;
}

}  // namespace qb
