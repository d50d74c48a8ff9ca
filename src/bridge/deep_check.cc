#include "bridge/deep_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <limits>
#include <map>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "base/json.h"
#include "bridge/check.h"
#include "bridge/judge.h"
#include "exec/execute.h"
#include "ir/stack.h"
#include "ir/verify.h"
#include "pass/repair.h"
#include "pass/settle.h"

namespace qb {
namespace {

struct Task {
  const TensorInfo* tensor;
  Subject subject;       // of nothing: bytes alone
  std::string expected;  // its checksum; empty: not known
  bool of_tied = false;  // the embedding table or a head that should be the same
};

class DeepCheck {
 public:
  DeepCheck(Session& s, Context& context, const Together& together) : s_(s), context_(context), together_(together) {}

  Result<uint64_t> run() {
    StreamSurveyor surveyor(*s_.package.source, context_);
    QB_TRY(together_.or_end(pass::settle(s_.checkpoint, surveyor, s_.diag)));
    const size_t common = s_.diag.all().size();
    QB_TRY(together_.or_end(read_own()));
    pool_problems(together_.world, common, s_.diag);
    if (together_.rank() == 0) QB_TRY(together_.or_end(exactness()));
    uint64_t bytes = done_;
    if (together_.world != nullptr) together_.world->sum(std::span(&bytes, 1));
    return bytes;
  }

 private:
  Result<void> read_own() {
    plan();
    keep_own();
    std::vector<std::thread> threads;
    const auto work = [&] {
      Buffer buffer;
      for (size_t i = next_++; i < tasks_.size() && !failed_; i = next_++)
        if (const Result<void> r = one(i, buffer); !r) fail(r.error());
    };
    for (int t = 1; t < context_.limits.threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& t : threads) t.join();
    if (failed_) return *error_;
    for (const auto& [module, range] : ranges_)
      if (range.code.part != nullptr) judge_range(s_.package, range.code, range.codes, range.unit, found_[range.task]);
    for (const auto& [task, found] : found_)
      for (const Problem& p : found.all()) s_.diag.add(p);
    tied();
    return {};
  }

  // Of several processes this one's tensors: of a module all, so that what they say together is seen, and as many bytes as the others have.
  void keep_own() {
    if (together_.size() == 1) return;
    std::map<const ir::Module*, int> owners;
    std::vector<Task> own;
    uint64_t at = 0, bytes = 0;
    for (Task& t : tasks_) {
      const double part = total_ == 0 ? 0 : static_cast<double>(at) / static_cast<double>(total_);
      at += t.tensor->bytes;
      int owner = std::min(static_cast<int>(part * together_.size()), together_.size() - 1);
      if (t.of_tied)
        owner = 0;
      else if (t.subject.module != nullptr)
        owner = owners.try_emplace(t.subject.module, owner).first->second;
      if (owner != together_.rank()) continue;
      bytes += t.tensor->bytes;
      own.push_back(std::move(t));
    }
    tasks_ = std::move(own);
    total_ = bytes;
  }

  // Every tensor that belongs to a module or has a checksum.
  void plan() {
    std::unordered_map<std::string_view, Subject> subjects;
    for (const ir::Module& m : s_.checkpoint.modules) {
      for (const ir::Stored& part : m.parts) subjects.try_emplace(part.tensor, Subject{&m, &part});
      for (const ir::Transform& t : m.transforms) subjects.try_emplace(t.matrix.tensor, Subject{&m, &t.matrix});
    }
    std::vector<Json> sums(s_.package.files.size());
    for (FileId id = 0; id < sums.size(); ++id)
      for (const auto& [key, value] : s_.package.files[id].metadata) {
        JsonError error;
        if (key == "quantbridge.checksums" && !parse_json(value, sums[id], error, 4)) sums[id] = Json();
      }
    const TiedHead tied = tied_head(s_.checkpoint);
    for (const TensorInfo& t : s_.package.tensors) {
      Task task{.tensor = &t, .subject = {}, .expected = {}};
      if (const auto it = subjects.find(t.name); it != subjects.end()) task.subject = it->second;
      if (sums[t.file].is_object()) task.expected = string_at(sums[t.file], t.name);
      if (task.subject.part == nullptr && task.expected.empty()) continue;
      task.of_tied = task.subject.part != nullptr && (task.subject.part == tied.head || task.subject.part == tied.table);
      total_ += t.bytes;
      tasks_.push_back(std::move(task));
    }
    std::sort(tasks_.begin(), tasks_.end(),
              [](const Task& a, const Task& b) { return std::pair(a.tensor->file, a.tensor->offset) < std::pair(b.tensor->file, b.tensor->offset); });
  }

  void fail(const Error& e) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = e;
    failed_ = true;
  }

  void advance(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    done_ += bytes;
    if (context_.progress) context_.progress({done_, total_});
  }

  Result<prog::SurveyResult> survey(const prog::Survey& q) {
    StreamSurveyor surveyor(*s_.package.source, context_);
    return surveyor.ask(q);
  }

  Result<void> one(size_t index, Buffer& buffer) {
    const Task& t = tasks_[index];
    ScanQuestion q{.tensor = t.tensor->name, .file = t.tensor->file, .offset = t.tensor->offset, .bytes = t.tensor->bytes};
    if (t.subject.part != nullptr) q = question_of(t.subject, s_.checkpoint.topology.head);
    q.checksum = !t.expected.empty() || t.of_tied;
    QB_ASSIGN(const ScanResult r, scan(q, *s_.package.source, context_, buffer, [&](uint64_t bytes) { advance(bytes); }));
    Diagnostics found;
    if (!t.expected.empty() && r.checksum != t.expected)
      found.report("checksum-mismatch", {.file = s_.package.file_name(t.tensor->file), .tensor = t.tensor->name}, r.checksum, escape(t.expected));
    if (t.subject.part != nullptr) QB_TRY(numbers(t.subject, q, r, found));
    const std::lock_guard lock(mutex_);
    if (t.of_tied) tied_.emplace_back(t.subject, r.checksum);
    if (!found.all().empty()) found_.emplace(index, std::move(found));
    note_range(t.subject, q, r, index);
    return {};
  }

  Result<void> numbers(const Subject& subject, const ScanQuestion& q, const ScanResult& r, Diagnostics& found) {
    const ir::Stored& part = *subject.part;
    prog::SurveyResult numbers = r.numbers;
    if (q.ask == ScanQuestion::Ask::none && info(part.elem).is_float && bits(part.elem) >= 8 && !part.value) {  // only a part of the tensor, or a sparse one
      Result<prog::SurveyResult> surveyed = survey({.kind = prog::SurveyKind::floats, .input = prog::input_of(part, 1)});
      if (!surveyed && surveyed.error().code == Errc::bad_input) {
        found.report("sparse-mask-invalid", {.file = s_.package.file_name(part.mask.file), .tensor = part.mask.tensor, .module = subject.module->path},
                     surveyed.error().what, "a bit for each number that is stored");
        return {};
      }
      if (!surveyed) return surveyed.error();
      numbers = *surveyed;
    }
    judge_numbers(s_.package, subject, numbers, found);
    judge_codes(s_.package, subject, r, found);
    const bool vanish = numbers.zero > 0 || (numbers.subnormal > 0 && numbers.least < std::numeric_limits<float>::min());
    if (part.role == ir::Role::scale && !part.value && vanish) QB_TRY(dead(subject, found));
    if (const std::optional<ir::Stored> rest = padding_of(part); rest) QB_TRY(padding(subject, *rest, found));
    return {};
  }

  // Scales that vanish matter where their codes are not zero.
  Result<void> dead(const Subject& subject, Diagnostics& found) {
    const ir::Module& m = *subject.module;
    const ir::Stored* code = m.part(ir::Role::code);
    if (code == nullptr || !m.scheme) return {};
    const ir::QuantType type = ir::stored_type(m);
    QB_ASSIGN(const prog::SurveyResult r, survey({.kind = prog::SurveyKind::dead_codes,
                                                  .input = prog::input_of(*subject.part, type.block.rows),
                                                  .second = {prog::input_of(*code, 1)},
                                                  .type = type}));
    const Place place = place_of(s_.package, subject);
    if (r.dead > 0) found.report("block-scale-zero", place, fmt::format("{} blocks with a zero scale and codes that are not zero", r.dead), "positive scales");
    if (r.subnormal > 0)
      found.report("scale-denormal", place, fmt::format("{} scales below 1.2e-38 over codes that are not zero", r.subnormal), "normal numbers");
    return {};
  }

  Result<void> padding(const Subject& subject, const ir::Stored& rest, Diagnostics& found) {
    const bool integers = is_integer_code(rest.elem);
    if (!integers && rest.elem != Elem::u8) return {};
    QB_ASSIGN(const prog::SurveyResult r, survey({.kind = integers ? prog::SurveyKind::integers : prog::SurveyKind::floats, .input = prog::input_of(rest, 1)}));
    // Zero bits are the least code in offset binary; as bytes they are counted as exponents, 2^-127.
    const double least = !integers ? 0x1p-127 : rest.view.offset_binary ? double(1 << (bits(rest.elem) - 1)) : 0;
    const bool zeros =
        least == 0 ? r.zero == r.count : r.nan == 0 && r.zero == 0 && r.least == least && r.largest == least && (!integers || r.negative == r.count);
    if (!zeros) found.report("padding-not-zero", place_of(s_.package, subject), fmt::format("{} numbers of padding, not all zero", r.count), "zeros");
    return {};
  }

  // What a weight's codes and its scales say together, once both were read.
  struct Range {
    Subject code;
    ScanResult codes;
    bool unit = false;
    size_t task = 0;
  };
  void note_range(const Subject& subject, const ScanQuestion& q, const ScanResult& r, size_t task) {
    if (subject.part == nullptr || !subject.module->scheme) return;
    const ir::Stored& part = *subject.part;
    if (part.role == ir::Role::code && q.channels && (part.elem == Elem::e4m3 || part.elem == Elem::e5m2)) {
      Range& range = ranges_[subject.module];
      range.code = subject;
      range.codes = r;
      range.task = task;
    } else if (part.role == ir::Role::scale) {
      const bool one = part.value ? *part.value == 1 : r.numbers.count > 0 && r.numbers.least == 1 && r.numbers.largest == 1 && r.numbers.zero == 0;
      if (one) ranges_[subject.module].unit = true;
    }
  }

  // A head beside tied embeddings is the same bytes, by their checksums.
  void tied() {
    if (tied_.size() != 2 || tied_[0].second == tied_[1].second || s_.diag.has("tied-head-differs")) return;
    report_tied_head(s_);
  }

  // A fused group whose second-level scales differ: whether every block scale can be rescaled to the largest without rounding.
  Result<void> exactness() {
    StreamSurveyor surveyor(*s_.package.source, context_);
    for (const ir::FusedMismatch& f : ir::fused_mismatches(s_.checkpoint)) {
      if (f.role != ir::Role::global) continue;
      QB_ASSIGN(const double error, pass::reconcile_error(s_.checkpoint, f, surveyor));
      for (Problem& p : s_.diag.all()) {
        if (p.code != "fused-scale-mismatch" || p.module != ir::fused_name(s_.checkpoint, f)) continue;
        p.cls = error == 0 ? ProblemClass::repairable : ProblemClass::inconsistent;
        p.repair = error == 0 ? Repair::exact : Repair::lossy;
      }
    }
    return {};
  }

  Session& s_;
  Context& context_;
  const Together& together_;
  std::vector<Task> tasks_;
  std::mutex mutex_;  // of all below that is no atomic
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<bool> failed_{false};
  std::optional<Error> error_;
  std::map<size_t, Diagnostics> found_;  // by task
  std::map<const ir::Module*, Range> ranges_;
  std::vector<std::pair<Subject, std::string>> tied_;
  uint64_t total_ = 0;
};

}  // namespace

Result<uint64_t> deep_check(Session& s, Context& context, const Together& together) {
  return DeepCheck(s, context, together).run();
}

}  // namespace qb
