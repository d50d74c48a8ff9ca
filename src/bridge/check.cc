#include "bridge/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/json.h"
#include "exec/execute.h"
#include "ir/stack.h"
#include "ir/verify.h"
#include "pass/repair.h"
#include "pass/settle.h"
#include "pass/shard.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace qb {
namespace {

constexpr uint64_t block_bytes = 4u << 20;

std::string index_text(int64_t i, const ir::Stored& s) {
  const int64_t cols = s.view.dims[1];
  return i < 0 || cols <= 0 ? "" : fmt::format(" at [{}, {}]", i / cols, i % cols);
}

// tied embeddings with a head of its own: equal bytes are harmless.
Result<bool> same_bytes(const Session& s, const ir::Stored& a, const ir::Stored& b, uint64_t limit) {
  if (a.bytes != b.bytes || a.container != b.container || a.shape != b.shape) return false;
  std::vector<std::byte> x, y;
  for (uint64_t at = 0; at < std::min(a.bytes, limit); at += block_bytes) {
    const uint64_t n = std::min({block_bytes, a.bytes - at, limit - at});
    x.resize(n);
    y.resize(n);
    const ReadRequest requests[] = {{a.file, a.offset + at, x}, {b.file, b.offset + at, y}};
    QB_TRY(s.package.source->read(requests));
    if (std::memcmp(x.data(), y.data(), n) != 0) return false;
  }
  return true;
}

// What one stored part shows when all of it is read.
void judge(const Session& s, const ir::Module& m, const ir::Stored& part, const prog::SurveyResult& r, Diagnostics& diag) {
  const Place place{.file = s.package.file_name(part.file), .tensor = part.tensor, .module = m.path};
  const std::string at = index_text(r.first_bad, part);
  if (part.role == ir::Role::scale) {
    if (part.value) return;  // a scalar: the verifier has judged it
    if (r.nan > 0) diag.report("scale-nan", place, fmt::format("{} of {} scales are NaN{}", r.nan, r.count, at), "positive numbers");
    if (r.inf > 0) diag.report("scale-inf", place, fmt::format("{} of {} scales are infinite{}", r.inf, r.count, at), "positive finite numbers");
    if (r.negative > 0) diag.report("scale-negative", place, fmt::format("{} of {} scales are negative{}", r.negative, r.count, at), "positive numbers");
    constexpr double implausible = 1e4;  // weights of trained models stay below 1000
    const bool e4m3 = m.scheme && m.scheme->weight.code == Elem::e4m3 && part.form == ir::ScaleForm::multiply;
    if (e4m3 && r.nan + r.inf == 0 && r.largest * 448 > implausible)
      diag.report("scale-implausible", place, fmt::format("a scale of {}: weights up to {}", r.largest, r.largest * 448),
                  "scales that give weights as trained models have");
    return;
  }
  if (r.nan == 0 && r.inf == 0) return;
  const char* code = m.scheme && part.role == ir::Role::code ? "code-nan" : "weight-not-finite";
  diag.report(code, place, fmt::format("{} NaN and {} infinite of {}{}", r.nan, r.inf, r.count, at), "finite numbers");
}

struct Task {
  const ir::Module* module;
  const ir::Stored* part;
};

class DeepCheck {
 public:
  DeepCheck(Session& s, Context& context) : s_(s), context_(context) {}

  Result<uint64_t> run() {
    StreamSurveyor surveyor(*s_.package.source, context_);
    QB_TRY(pass::settle(s_.checkpoint, surveyor, s_.diag));
    std::vector<Task> tasks;
    for (const ir::Module& m : s_.checkpoint.modules)
      for (const ir::Stored& part : m.parts) {
        tasks.push_back({&m, &part});
        total_ += part.bytes;
      }
    std::sort(tasks.begin(), tasks.end(),
              [](const Task& a, const Task& b) { return std::pair(a.part->file, a.part->offset) < std::pair(b.part->file, b.part->offset); });
    std::vector<std::thread> threads;
    const auto work = [&] {
      for (size_t i = next_++; i < tasks.size() && !failed_; i = next_++) one(tasks[i]);
    };
    for (int t = 1; t < context_.limits.threads; ++t) threads.emplace_back(work);
    work();
    for (std::thread& t : threads) t.join();
    if (failed_) return *error_;
    QB_TRY(exactness());
    QB_TRY(checksums());
    return done_.load();
  }

 private:
  void fail(const Error& e) {
    const std::lock_guard lock(mutex_);
    if (!error_) error_ = e;
    failed_ = true;
  }

  Result<prog::SurveyResult> survey(const prog::Survey& q) {
    StreamSurveyor surveyor(*s_.package.source, context_);
    return surveyor.ask(q);
  }

  void one(const Task& t) {
    if (context_.stop()) return fail({Errc::cancelled, "interrupted"});
    const ir::Stored& part = *t.part;
    Diagnostics found;
    if (part.elem != Elem::e2m1 && info(part.elem).is_float) {
      Result<prog::SurveyResult> r = survey({.kind = prog::SurveyKind::floats, .input = prog::input_of(part, 1)});
      if (!r && r.error().code == Errc::bad_input) {
        found.report("sparse-mask-invalid", {.file = s_.package.file_name(part.mask.file), .tensor = part.mask.tensor, .module = t.module->path},
                     r.error().what, "a bit for each number that is stored");
      } else if (!r) {
        return fail(r.error());
      } else {
        judge(s_, *t.module, part, *r, found);
        if (part.role == ir::Role::scale && !part.value && r->zero > 0)
          if (!dead(*t.module, part, found)) return;
      }
    }
    done_ += part.bytes;
    const std::lock_guard lock(mutex_);
    for (const Problem& p : found.all()) s_.diag.add(p);
    if (context_.progress) context_.progress({done_, total_});
  }

  // Zero scales matter where their codes are not zero.
  bool dead(const ir::Module& m, const ir::Stored& scale, Diagnostics& found) {
    const ir::Stored& code = *m.part(ir::Role::code);
    const ir::QuantType type = ir::stored_type(m);
    Result<prog::SurveyResult> r =
        survey({.kind = prog::SurveyKind::dead_codes, .input = prog::input_of(scale, type.block.rows), .second = {prog::input_of(code, 1)}, .type = type});
    if (!r) {
      fail(r.error());
      return false;
    }
    if (r->dead > 0)
      found.report("block-scale-zero", {.file = s_.package.file_name(scale.file), .tensor = scale.tensor, .module = m.path},
                   fmt::format("{} blocks with a zero scale and codes that are not zero", r->dead), "positive scales");
    return true;
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

  // Checksums that this program wrote into the headers.
  Result<void> checksums() {
    std::vector<std::byte> buffer(block_bytes);
    for (FileId id = 0; id < s_.package.files.size(); ++id) {
      for (const auto& [key, value] : s_.package.files[id].metadata) {
        if (key != "quantbridge.checksums") continue;
        Json sums;
        JsonError error;
        if (!parse_json(value, sums, error, 4)) continue;
        for (auto it = sums.begin(); it != sums.end(); ++it) {
          const TensorInfo* t = s_.package.tensor(it.key());
          if (t == nullptr || t->file != id || !it->is_string()) continue;
          if (context_.stop()) return Error{Errc::cancelled, "interrupted"};
          QB_ASSIGN(const std::string sum, hash(*t, buffer));
          if (sum != it->get_ref<const std::string&>())
            s_.diag.report("checksum-mismatch", {.file = s_.package.file_name(id), .tensor = t->name}, sum, escape(it->get_ref<const std::string&>()));
        }
      }
    }
    return {};
  }

  Result<std::string> hash(const TensorInfo& t, std::vector<std::byte>& buffer) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (uint64_t at = 0; at < t.bytes; at += block_bytes) {
      const std::span<std::byte> part = std::span(buffer).first(std::min(block_bytes, t.bytes - at));
      const ReadRequest request{t.file, t.offset + at, part};
      QB_TRY(s_.package.source->read(std::span(&request, 1)));
      XXH3_64bits_update(&state, part.data(), part.size());
    }
    return fmt::format("{:016x}", XXH3_64bits_digest(&state));
  }

  Session& s_;
  Context& context_;
  std::mutex mutex_;
  std::atomic<size_t> next_{0};
  std::atomic<uint64_t> done_{0};
  std::atomic<bool> failed_{false};
  std::optional<Error> error_;
  uint64_t total_ = 0;
};

}  // namespace

Result<void> check_tied_head(Session& s, bool deep) {
  if (!s.checkpoint.topology.tied_embeddings) return {};
  const ir::Stored *head = nullptr, *table = nullptr;
  for (const ir::Module& m : s.checkpoint.modules) {
    if (m.path == s.checkpoint.topology.head) head = m.part(ir::Role::code);
    if (m.kind == arch::Kind::embedding && table == nullptr) table = m.part(ir::Role::code);
  }
  if (head == nullptr || table == nullptr) return {};
  QB_ASSIGN(const bool same, same_bytes(s, *head, *table, deep ? head->bytes : 64u << 10));
  if (!same)
    s.diag.report("tied-head-differs", {.file = s.package.file_name(head->file), .tensor = head->tensor, .module = s.checkpoint.topology.head},
                  "other numbers than " + table->tensor, "the same, or tie_word_embeddings false");
  return {};
}

void check_cuts(Session& s, arch::Ranks ranks) {
  if (s.readable && ranks.count() > 1) pass::check_cuts(s.checkpoint, ranks, s.diag);
}

Result<CheckReport> check_session(Session& s, bool deep, Context& context) {
  CheckReport report;
  report.tensors = static_cast<int64_t>(s.package.tensors.size());
  for (const ir::Module& m : s.checkpoint.modules) report.modules += m.parts.empty() ? 0 : 1;
  for (const auto& [name, fact] : s.facts.scalars) report.bytes_read += fact.bits.size();
  if (!s.readable) return report;
  if (!deep) return report;
  if (!s.diag.has("tied-head-differs")) QB_TRY(check_tied_head(s, true));
  DeepCheck check(s, context);
  QB_ASSIGN(report.bytes_read, check.run());
  return report;
}

}  // namespace qb
