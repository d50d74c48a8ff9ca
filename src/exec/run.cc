#include "exec/run.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <numeric>
#include <optional>
#include <set>
#include <system_error>
#include <thread>

#include "exec/buffer.h"
#include "exec/compiled.h"
#include "exec/file_writer.h"
#include "exec/patterns.h"
#include "exec/schedule.h"
#include "host/host.h"

namespace qb {
namespace {

class Runner {
 public:
  Runner(std::span<const PlannedFile> files, const Schedule& schedule, Source& source, OutputDirectory& out, bool checksums, Context& context)
      : schedule_(schedule), source_(source), out_(out), context_(context), outputs_(files.size()) {
    for (size_t f = 0; f < files.size(); ++f) {
      for (const prog::Program& p : files[f].programs)
        for (const prog::Output& o : p.outputs) outputs_[f].push_back(&o);
      writers_.emplace_back(files[f], schedule.files[f], checksums, context_.isa);
      progress_.total += schedule.files[f].bytes_in + schedule.files[f].bytes;
      if (schedule.files[f].tasks == 0) progress_.done += schedule.files[f].bytes_in + schedule.files[f].bytes;
    }
  }

  Result<void> run() {
    std::vector<std::thread> threads;
    for (int t = 1; t < schedule_.threads; ++t) {
      try {
        threads.emplace_back([this] { work(); });
      } catch (const std::system_error&) {
        break;  // the system has no more threads for us: the ones that there are do the work
      }
    }
    work();
    for (std::thread& t : threads) t.join();
    if (error_) return *error_;
    progress_.done = progress_.total;
    if (context_.progress) context_.progress(progress_);
    return {};
  }

  // In the order of the files.
  std::vector<std::string> not_finite() const {
    std::vector<std::string> names;
    for (const auto& [file, tensor] : not_finite_) names.push_back(outputs_[file][tensor]->name);
    return names;
  }

 private:
  struct Room {
    Buffer outputs, scratch;
  };

  void fail(Error error) {
    {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::move(error);
    }
    failed_ = true;
    for (FileWriter& w : writers_) {
      if (w.checksums() != nullptr) w.checksums()->abandon();
    }
  }

  void work() {
    Room room;
    while (const Task* task = next()) {
      if (auto r = run(*task, room); !r) return fail(r.error());
      host::sample_memory();
      report(*task);
    }
  }

  // Tasks in order; the file of the first one is opened under the lock, since the others need it too.
  const Task* next() {
    std::optional<Error> trouble;
    const Task* task = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (failed_ || next_ == schedule_.tasks.size()) return nullptr;
      if (context_.stop()) {
        trouble = Error{Errc::cancelled, "interrupted"};
      } else {
        task = &schedule_.tasks[next_++];
        if (task->file >= opened_) {  // files between are finished
          opened_ = task->file + 1;
          if (auto r = writers_[task->file].open(out_); !r) trouble = r.error();
        }
      }
    }
    if (!trouble) return task;
    fail(*trouble);
    return nullptr;
  }

  Result<void> run(const Task& task, Room& room) {
    FileWriter& writer = writers_[task.file];
    QB_TRY(task.apart ? run_rows(task, room, writer) : run_batch(task, room, writer));
    return writer.task_done() ? writer.finish() : Result<void>{};
  }

  // Neighbours in the file: one batch of reads, one write.
  Result<void> run_batch(const Task& task, Room& room, FileWriter& writer) {
    const ScheduledFile& file = schedule_.files[task.file];
    const std::span<const Item> items(file.items.data() + task.first_item, task.items);
    QB_ASSIGN(std::byte* const data, room.outputs.at_least(task.end - task.begin));
    const auto place = [&](size_t tensor, int64_t begin) { return data + (file.tensors[tensor].begin + static_cast<uint64_t>(begin) - task.begin); };
    // The blocks hold pointers into `spans`, which therefore must not move.
    std::deque<std::vector<std::span<std::byte>>> spans;
    std::deque<BlockRun> blocks;
    uint64_t scratch_bytes = 0;
    for (const Item& item : items) {
      if (item.moves) continue;
      const Compiled& c = file.programs[item.program];
      auto& outputs = spans.emplace_back();
      for (size_t o = 0; o < c.program->outputs.size(); ++o) outputs.emplace_back(place(item.tensor + o, 0), file.tensors[item.tensor + o].bytes);
      blocks.emplace_back(c, RowRange{0, c.program->rows}, outputs);
      scratch_bytes += blocks.back().scratch_bytes();
    }
    QB_ASSIGN(std::byte * scratch, room.scratch.at_least(scratch_bytes));
    Requests requests(source_);
    size_t block = 0;
    for (const Item& item : items) {
      if (item.moves) {
        QB_TRY(request_bytes(file.programs[item.program], item, place(item.tensor, item.begin), requests));
      } else {
        QB_TRY(blocks[block].request(scratch, requests));
        scratch += blocks[block++].scratch_bytes();
      }
    }
    QB_TRY(requests.flush());
    for (BlockRun& b : blocks) QB_TRY(b.compute(source_, context_));
    for (const Item& item : items) {
      const Compiled& c = file.programs[item.program];
      if (item.moves) {
        pass(task.file, item.tensor, static_cast<uint64_t>(item.begin), {place(item.tensor, item.begin), static_cast<size_t>(item.end - item.begin)});
      } else {
        for (size_t o = 0; o < c.program->outputs.size(); ++o)
          pass(task.file, item.tensor + o, 0, {place(item.tensor + o, 0), file.tensors[item.tensor + o].bytes});
      }
    }
    return writer.write(task.begin, {data, task.end - task.begin});
  }

  static Result<void> request_bytes(const Compiled& c, const Item& item, std::byte* to, Requests& requests) {
    const prog::Input& in = c.program->inputs[static_cast<size_t>(c.source_of(c.program->outputs[item.output]))];
    const uint64_t from = in.offset + static_cast<uint64_t>(in.view.offset) / 8 + static_cast<uint64_t>(item.begin);
    return requests.add(in.file, from, {to, static_cast<size_t>(item.end - item.begin)});
  }

  // Some rows of a large program: its outputs lie apart in the file.
  Result<void> run_rows(const Task& task, Room& room, FileWriter& writer) {
    const ScheduledFile& file = schedule_.files[task.file];
    const Item& item = file.items[task.first_item];
    const Compiled& c = file.programs[item.program];
    const RowRange rows{item.begin, item.end};
    const size_t outputs = c.program->outputs.size();
    uint64_t bytes = 0;
    for (size_t o = 0; o < outputs; ++o) bytes += aligned(c.slice(o, rows).bytes);
    QB_ASSIGN(std::byte * data, room.outputs.at_least(bytes));
    std::vector<std::span<std::byte>> spans;
    for (size_t o = 0; o < outputs; ++o) {
      const uint64_t size = c.slice(o, rows).bytes;
      spans.emplace_back(data, size);
      data += aligned(size);
    }
    BlockRun block(c, rows, spans);
    QB_ASSIGN(std::byte* const scratch, room.scratch.at_least(block.scratch_bytes()));
    Requests requests(source_);
    QB_TRY(block.request(scratch, requests));
    QB_TRY(requests.flush());
    QB_TRY(block.compute(source_, context_));
    for (size_t o = 0; o < outputs; ++o) {
      const uint64_t offset = c.slice(o, rows).offset;
      pass(task.file, item.tensor + o, offset, spans[o]);
      QB_TRY(writer.write(file.tensors[item.tensor + o].begin + offset, spans[o]));
    }
    return {};
  }

  // What every piece of an output goes through on its way to the file. Abandoned hashes need no word here: whoever abandoned them has the error.
  void pass(size_t file, size_t tensor, uint64_t offset, std::span<const std::byte> bytes) {
    FileWriter& writer = writers_[file];
    if (writer.checksums() != nullptr) writer.checksums()->add(tensor, offset, bytes);
    const Elem dtype = outputs_[file][tensor]->dtype;
    const uint64_t width = std::max(bits(dtype) / 8, 1), skip = (width - offset % width) % width;
    if (bytes.size() < skip || all_finite(bytes.data() + skip, dtype, static_cast<int64_t>((bytes.size() - skip) / width), context_.isa)) return;
    const std::lock_guard lock(mutex_);
    not_finite_.emplace(file, tensor);
  }

  void report(const Task& task) {
    const ScheduledFile& file = schedule_.files[task.file];
    uint64_t bytes = 0;
    for (size_t i = task.first_item; i < task.first_item + task.items; ++i) {
      const Item& item = file.items[i];
      const Compiled& c = file.programs[item.program];
      const RowRange rows{item.begin, item.end};
      if (item.moves) {
        bytes += 2 * static_cast<uint64_t>(item.end - item.begin);
      } else if (c.program->rows > 0) {
        bytes += c.output_bytes(rows) + c.input_bytes() / static_cast<uint64_t>(c.program->rows) * static_cast<uint64_t>(item.end - item.begin);
      }
    }
    const std::unique_lock lock(progress_mutex_);
    progress_.done = std::min(progress_.done + bytes, progress_.total);
    const auto now = std::chrono::steady_clock::now();
    if (!context_.progress || now - last_report_ < std::chrono::milliseconds(100)) return;
    last_report_ = now;
    context_.progress(progress_);
  }

  const Schedule& schedule_;
  Source& source_;
  OutputDirectory& out_;
  Context& context_;
  std::vector<std::vector<const prog::Output*>> outputs_;  // by file and tensor
  std::deque<FileWriter> writers_;

  std::mutex mutex_;                                // of what next(), fail() and pass() change
  std::set<std::pair<size_t, size_t>> not_finite_;  // file and tensor
  size_t next_ = 0, opened_ = 0;
  std::optional<Error> error_;
  std::atomic<bool> failed_{false};

  std::mutex progress_mutex_;
  Progress progress_;
  std::chrono::steady_clock::time_point last_report_{};
};

}  // namespace

std::vector<int> share_files(std::span<const PlannedFile> files, const std::vector<bool>& finished, int ranks) {
  std::vector<size_t> order(files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return files[a].bytes > files[b].bytes; });
  std::vector<uint64_t> bytes(static_cast<size_t>(ranks), 0);
  std::vector<int> rank(files.size(), 0);
  for (const size_t f : order) {
    const auto least = std::min_element(bytes.begin(), bytes.end());
    rank[f] = static_cast<int>(least - bytes.begin());
    *least += finished[f] ? 0 : files[f].bytes + 1;
  }
  return rank;
}

Result<RunReport> run_plan(std::span<const PlannedFile> files, Source& source, OutputDirectory& out, bool checksums, Context& context,
                           const std::vector<bool>& others) {
  const auto of_others = [&others](size_t f) { return !others.empty() && others[f]; };
  std::vector<bool> finished;
  for (size_t f = 0; f < files.size(); ++f) finished.push_back(of_others(f) || out.finished(files[f].name));
  QB_ASSIGN(const Schedule schedule, make_schedule(files, finished, context.limits));
  Runner runner(files, schedule, source, out, checksums, context);
  QB_TRY(runner.run());
  RunReport report;
  report.not_finite = runner.not_finite();
  for (size_t i = 0; i < schedule.files.size(); ++i) {
    if (of_others(i)) continue;
    const ScheduledFile& f = schedule.files[i];
    report.bytes_in += f.bytes_in;
    report.bytes_out += f.bytes;
    report.bytes_copied_unchanged += f.bytes_unchanged;
    report.tensors += static_cast<int64_t>(f.tensors.size());
  }
  return report;
}

}  // namespace qb
