#include "exec/run.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <mutex>

#include "base/diagnostics.h"
#include "base/json.h"
#include "exec/schedule.h"
#include "exec/test_support.h"
#include "io/directory.h"
#include "io/safetensors.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

using namespace test;

// An output directory in memory: what was written, where, and in which order files were finished.
class MemoryOutput final : public OutputDirectory {
 public:
  class File final : public OutputFile {
   public:
    File(MemoryOutput& out, std::string name) : out_(out), name_(std::move(name)) {}
    Result<void> reserve(uint64_t size) override {
      const std::lock_guard lock(out_.mutex_);
      if (out_.full) return Error{Errc::out_of_space, "no space left"};
      out_.files[name_].assign(size, std::byte{0xEE});
      return {};
    }
    Result<void> write(uint64_t offset, std::span<const std::byte> bytes) override {
      const std::lock_guard lock(out_.mutex_);
      Bytes& f = out_.files[name_];
      EXPECT_LE(offset + bytes.size(), f.size());
      EXPECT_FALSE(header_) << "data after the header";
      if (offset == 0) header_ = true;
      written_ += bytes.size();
      ++out_.writes;
      std::copy(bytes.begin(), bytes.end(), f.begin() + static_cast<int64_t>(offset));
      return {};
    }
    void write_back(uint64_t, uint64_t) override {}
    Result<void> finish() override {
      const std::lock_guard lock(out_.mutex_);
      EXPECT_EQ(written_, out_.files[name_].size()) << name_ << ": every byte once";
      EXPECT_TRUE(header_);
      out_.done.push_back(name_);
      return {};
    }

   private:
    MemoryOutput& out_;
    std::string name_;
    uint64_t written_ = 0;
    bool header_ = false;
  };

  Start start() const override { return Start::fresh; }
  const std::filesystem::path& path() const override { return path_; }
  bool finished(std::string_view file) const override { return std::find(before.begin(), before.end(), file) != before.end(); }
  Result<std::unique_ptr<OutputFile>> open(std::string_view file) override { return std::unique_ptr<OutputFile>(new File(*this, std::string(file))); }
  Result<void> write_file(std::string_view, std::string_view) override { return {}; }
  Result<void> commit() override { return {}; }

  std::map<std::string, Bytes> files;
  std::vector<std::string> done, before;
  int64_t writes = 0;
  bool full = false;

 private:
  std::mutex mutex_;
  std::filesystem::path path_ = "out.partial";
};

// A model of many shapes: small and large, copied and computed, with neighbours in every combination.
std::vector<prog::Program> model(Memory& m) {
  std::vector<prog::Program> all;
  const auto copy = [&](std::string name, Elem e, int64_t rows, int64_t cols, FileId file) {
    prog::Program p;
    p.rows = rows;
    const auto seed = static_cast<uint32_t>(all.size());
    p.inputs = {m.add(name, e, rows, cols, random_bytes(static_cast<uint64_t>(rows * cols * bits(e) / 8), seed), 1, file)};
    p.ops = {prog::Copy{0}};
    p.outputs = {{name, e, {rows, cols}, 1}};
    all.push_back(std::move(p));
  };
  const auto fp8 = [&](std::string name, int64_t n, int64_t k) {
    const ir::QuantType type{Elem::e4m3, ir::ScaleValues::any, {1, 0}};
    const recipe::Recipe* r = recipe::find_recipe(type, recipe::Numerics::llm_compressor);
    ASSERT_NE(r, nullptr);
    prog::Program p;
    p.rows = n;
    p.inputs = {m.add(name, Elem::bf16, n, k, bf16_weights(n * k, static_cast<uint32_t>(all.size())))};
    p.ops = {prog::Quantize{std::string(r->name), type, 0}};
    p.outputs = {{name, Elem::e4m3, {n, k}, 1}, {name + "_scale", r->scale_elem(Elem::bf16), {n, 1}, 2}};
    all.push_back(std::move(p));
  };
  const auto nvfp4 = [&](std::string name, int64_t n, int64_t k) {
    const ir::QuantType type{Elem::e2m1, ir::ScaleValues::e4m3, {1, 16}};
    const recipe::Recipe* r = recipe::find_recipe(type, recipe::Numerics::modelopt);
    ASSERT_NE(r, nullptr);
    prog::Program p;
    p.rows = n;
    p.row_multiple = recipe::row_multiple(*r, type);
    p.inputs = {m.add(name, Elem::bf16, n, k, bf16_weights(n * k, static_cast<uint32_t>(all.size())))};
    p.reductions = {{prog::ReduceKind::absmax, {p.inputs[0]}}};
    p.ops = {prog::Quantize{std::string(r->name), type, 0, 0}};
    p.outputs = {{name, Elem::u8, {n, k / 2}, 1}, {name + "_scale", Elem::e4m3, {n, k / 16}, 2}, {name + "_scale_2", Elem::f32, {}, 3}};
    all.push_back(std::move(p));
  };
  copy("embed", Elem::bf16, 700, 512, 0);
  copy("norm", Elem::bf16, 1, 511, 1);
  copy("odd", Elem::u8, 3, 7, 0);
  copy("empty", Elem::f32, 0, 4, 0);
  fp8("up", 600, 384);
  copy("norm2", Elem::bf16, 1, 33, 0);
  fp8("tiny", 3, 16);
  nvfp4("down", 256, 512);
  nvfp4("small", 16, 32);
  copy("big", Elem::f32, 900, 256, 1);
  fp8("head", 1500, 256);
  copy("scalar", Elem::f32, 1, 1, 0);
  return all;
}

struct Ran {
  MemoryOutput out;
  Result<RunReport> report{RunReport{}};
};

void run(Ran& ran, std::span<const PlannedFile> files, Memory& m, int threads, uint64_t budget, bool checksums = true) {
  Context context;
  context.limits = {budget, threads};
  ran.report = run_plan(files, m, ran.out, checksums, context);
}

TEST(RunPlan, ThreadsAndBudgetsDoNotChangeAByte) {
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  ASSERT_GT(files.size(), 2u);
  Ran first;
  run(first, files, m, 1, 512u << 20);
  ASSERT_TRUE(first.report.ok()) << first.report.error().what;
  EXPECT_EQ(first.out.done.size(), files.size());
  for (int threads : {1, 2, 7}) {
    for (uint64_t budget : {uint64_t{64} << 20, uint64_t{1} << 20, uint64_t{100'000}, uint64_t{12'000}}) {
      SCOPED_TRACE(testing::Message() << threads << " threads, " << budget << " bytes");
      Ran ran;
      run(ran, files, m, threads, budget);
      ASSERT_TRUE(ran.report.ok()) << ran.report.error().what;
      EXPECT_TRUE(ran.out.files == first.out.files);
      EXPECT_EQ(ran.report->bytes_out, first.report->bytes_out);
    }
  }
  // What run_plan writes is what execute makes, and the header says where.
  Context context;
  uint64_t total = 0, in = 0, unchanged = 0;
  int64_t tensors = 0;
  for (const PlannedFile& f : files) {
    const Bytes& written = first.out.files.at(f.name);
    uint64_t length = 0;
    std::memcpy(&length, written.data(), 8);
    uint64_t at = 8 + length;
    Json header;
    JsonError error;
    ASSERT_TRUE(parse_json({reinterpret_cast<const char*>(written.data()) + 8, length}, header, error)) << error.what;
    Json sums;
    ASSERT_TRUE(parse_json(string_at(header["__metadata__"], "quantbridge.checksums"), sums, error)) << error.what;
    for (const prog::Program& p : f.programs) {
      for (const prog::Input& i : p.inputs) in += i.bytes;
      const auto outputs = run_whole(p, m, context);
      for (size_t o = 0; o < outputs.size(); ++o, ++tensors) {
        const std::string& name = p.outputs[o].name;
        EXPECT_EQ(header[name]["data_offsets"][0].get<uint64_t>(), at - 8 - length) << name;
        ASSERT_LE(at + outputs[o].size(), written.size());
        EXPECT_TRUE(std::equal(outputs[o].begin(), outputs[o].end(), written.begin() + static_cast<int64_t>(at))) << name;
        at += outputs[o].size();
        total += outputs[o].size();
        if (std::holds_alternative<prog::Copy>(p.ops[0])) unchanged += outputs[o].size();
        EXPECT_EQ(string_at(sums, name).size(), 16u) << name;
      }
    }
    EXPECT_EQ(at, written.size());
    EXPECT_EQ(sums.size() + 1, header.size());
  }
  EXPECT_EQ(first.report->bytes_out, total);
  EXPECT_EQ(first.report->bytes_in, in);
  EXPECT_EQ(first.report->bytes_copied_unchanged, unchanged);
  EXPECT_EQ(first.report->tensors, tensors);
}

TEST(RunPlan, ChecksumsAreXxh3) {
  Memory m;
  prog::Program p;
  p.inputs = {m.add("w", Elem::u8, 1, 3, {std::byte{'a'}, std::byte{'b'}, std::byte{'c'}})};
  p.ops = {prog::Copy{0}};
  p.outputs = {{"w", Elem::u8, {3}, 1}};
  prog::Program none;
  none.rows = 0;
  none.inputs = {m.add("none", Elem::u8, 0, 1, {})};
  none.ops = {prog::Copy{0}};
  none.outputs = {{"none", Elem::u8, {0}, 1}};
  Ran ran;
  run(ran, plan_files({p, none}, 1 << 20), m, 1, 1 << 20);
  ASSERT_TRUE(ran.report.ok());
  const Bytes& f = ran.out.files.at("model.safetensors");
  const std::string text(reinterpret_cast<const char*>(f.data()), f.size());
  EXPECT_NE(text.find(R"(\"w\":\"78af5f94892f3950\")"), std::string::npos) << text;     // XXH3-64 of abc, seed 0
  EXPECT_NE(text.find(R"(\"none\":\"2d06800538d394c2\")"), std::string::npos) << text;  // and of nothing
  Ran plain;
  run(plain, plan_files({p}, 1 << 20), m, 1, 1 << 20, false);
  const Bytes& g = plain.out.files.at("model.safetensors");
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(g.data()), g.size()).find("checksums"), std::string::npos);
}

TEST(RunPlan, AFileOfNothingIsStillAFile) {
  Memory m;
  Ran ran;
  run(ran, plan_files({}, 1), m, 4, 1 << 20);
  ASSERT_TRUE(ran.report.ok());
  EXPECT_EQ(ran.out.done, std::vector<std::string>{"model.safetensors"});
}

TEST(RunPlan, ResumesBehindFinishedFiles) {
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  Ran whole, rest;
  run(whole, files, m, 2, 4 << 20);
  rest.out.before = {files[0].name, files[2].name};
  const uint64_t before = m.bytes_read.load();
  run(rest, files, m, 2, 4 << 20);
  ASSERT_TRUE(rest.report.ok());
  EXPECT_LT(m.bytes_read.load() - before, before);
  EXPECT_EQ(rest.out.files.size(), files.size() - 2);
  for (const auto& [name, bytes] : rest.out.files) EXPECT_TRUE(bytes == whole.out.files.at(name)) << name;
  EXPECT_EQ(rest.report->bytes_in, whole.report->bytes_in);
  EXPECT_EQ(rest.report->bytes_out, whole.report->bytes_out);
  EXPECT_EQ(rest.report->tensors, whole.report->tensors);
}

TEST(RunPlan, AnErrorStopsEveryThread) {
  for (int threads : {1, 2, 7}) {
    Memory m;
    const auto files = plan_files(model(m), 1'000'000);
    m.fail_at = files[1].programs[0].inputs[0].offset + 5;
    Ran ran;
    run(ran, files, m, threads, 200'000);
    ASSERT_FALSE(ran.report.ok());
    EXPECT_EQ(ran.report.error().what, "the disk is on fire");
    m.fail_at = 0;
    Ran full;
    full.out.full = true;
    run(full, files, m, threads, 200'000);
    ASSERT_FALSE(full.report.ok());
    EXPECT_EQ(full.report.error().code, Errc::out_of_space);
  }
}

TEST(RunPlan, ARowBeyondTheBudgetIsRefusedBeforeAnythingIsWritten) {
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  Ran ran;
  run(ran, files, m, 2, 1000);
  ASSERT_FALSE(ran.report.ok());
  EXPECT_EQ(ran.report.error().code, Errc::out_of_memory);
  EXPECT_NE(ran.report.error().what.find("budget"), std::string::npos) << ran.report.error().what;
  EXPECT_TRUE(ran.out.files.empty());
}

TEST(RunPlan, CancellationAndProgress) {
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  for (int threads : {1, 3}) {
    std::atomic<bool> stop{false};
    Context context;
    context.limits = {100'000, threads};
    context.cancelled = &stop;
    Progress last;
    int calls = 0;
    context.progress = [&](const Progress& p) {
      EXPECT_GE(p.done, last.done);
      EXPECT_LE(p.done, p.total);
      last = p;
      ++calls;
      stop = true;  // with the first word of progress
    };
    MemoryOutput out;
    auto r = run_plan(files, m, out, true, context);
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().code, Errc::cancelled);
    EXPECT_LT(out.done.size(), files.size());
    EXPECT_GE(calls, 1);
  }
  Context context;
  Progress last;
  context.progress = [&](const Progress& p) { last = p; };
  MemoryOutput out;
  auto r = run_plan(files, m, out, true, context);
  ASSERT_TRUE(r.ok());
  EXPECT_EQ(last.done, last.total);
  EXPECT_EQ(last.total, r->bytes_in + r->bytes_out);
}

TEST(RunPlan, NeighbouringCopiesBecomeFewReadsAndWrites) {
  Memory m;
  std::vector<prog::Program> programs;
  for (int i = 0; i < 1000; ++i) {
    prog::Program p;
    p.inputs = {m.add("w" + std::to_string(i), Elem::u8, 1, 1000, random_bytes(1000, static_cast<uint32_t>(i)))};
    p.ops = {prog::Copy{0}};
    p.outputs = {{p.inputs[0].tensor, Elem::u8, {1000}, 1}};
    programs.push_back(std::move(p));
  }
  Ran ran;
  run(ran, plan_files(std::move(programs), 1 << 30), m, 1, 64 << 20);
  ASSERT_TRUE(ran.report.ok());
  EXPECT_EQ(m.calls.load(), 1);
  EXPECT_EQ(ran.out.writes, 2);  // data and header
}

TEST(RunPlan, WritesARealDirectoryThatReadsBack) {
  namespace fs = std::filesystem;
  const fs::path base = fs::path(testing::TempDir()) / ("qb_run_test_" + std::to_string(::getpid()));
  fs::remove_all(base);
  fs::create_directories(base / "in");
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  uint64_t bytes = 0;
  for (const PlannedFile& f : files) bytes += f.bytes;
  Ran expected;
  run(expected, files, m, 1, 64 << 20);
  {
    auto out = OutputDirectory::create(base / "out", base / "in", false, "test", bytes);
    ASSERT_TRUE(out.ok()) << out.error().what;
    Context context;
    context.limits = {1 << 20, 3};
    auto r = run_plan(files, m, **out, true, context);
    ASSERT_TRUE(r.ok()) << r.error().what;
    ASSERT_TRUE((*out)->write_file("config.json", "{}").ok());
    ASSERT_TRUE((*out)->write_file("model.safetensors.index.json", index_document(files)).ok());
    auto committed = (*out)->commit();
    ASSERT_TRUE(committed.ok()) << committed.error().what;
  }
  Diagnostics diag;
  auto package = open_directory(base / "out", diag);
  ASSERT_TRUE(package.ok()) << package.error().what;
  EXPECT_TRUE(diag.ok()) << (diag.all().empty() ? "" : diag.all()[0].code);
  int64_t tensors = 0;
  for (const PlannedFile& f : files) {
    std::ifstream in(base / "out" / f.name, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(in)), {});
    const Bytes& want = expected.out.files.at(f.name);
    EXPECT_TRUE(text.size() == want.size() && std::memcmp(text.data(), want.data(), want.size()) == 0) << f.name;
    for (const prog::Program& p : f.programs) tensors += static_cast<int64_t>(p.outputs.size());
  }
  EXPECT_EQ(static_cast<int64_t>(package->tensors.size()), tensors);
  fs::remove_all(base);
}

TEST(Schedule, KeepsToTheBudget) {
  Memory m;
  const auto files = plan_files(model(m), 1'000'000);
  for (int threads : {1, 4}) {
    for (uint64_t budget : {uint64_t{12'000}, uint64_t{100'000}, uint64_t{1} << 20, uint64_t{64} << 20}) {
      auto s = make_schedule(files, std::vector<bool>(files.size(), false), {budget, threads});
      ASSERT_TRUE(s.ok()) << s.error().what;
      EXPECT_LE(s->thread_bytes * static_cast<uint64_t>(s->threads), budget);
      for (const Task& t : s->tasks) {
        const ScheduledFile& f = s->files[t.file];
        uint64_t bytes = t.apart ? 0 : t.end - t.begin;
        for (size_t i = t.first_item; i < t.first_item + t.items; ++i) {
          const Item& item = f.items[i];
          if (item.moves) continue;
          const Compiled& c = f.programs[item.program];
          bytes += c.working_set(item.end - item.begin);
          if (t.apart) bytes += c.output_bytes({item.begin, item.end});
        }
        EXPECT_LE(bytes, s->thread_bytes);
      }
    }
  }
}

TEST(PlanFiles, SplitsInOrder) {
  Memory m;
  auto programs = model(m);
  const size_t count = programs.size();
  const auto files = plan_files(programs, 500'000);
  size_t at = 0;
  for (size_t f = 0; f < files.size(); ++f) {
    uint64_t bytes = 0;
    for (const prog::Program& p : files[f].programs) {
      EXPECT_EQ(p, programs[at++]);
      for (const prog::Output& o : p.outputs) bytes += prog::output_bytes(o);
    }
    EXPECT_EQ(bytes, files[f].bytes);
    EXPECT_TRUE(bytes <= 500'000 || files[f].programs.size() == 1);
  }
  EXPECT_EQ(at, count);
  EXPECT_EQ(files[0].name, "model-00001-of-0000" + std::to_string(files.size()) + ".safetensors");
  const auto one = plan_files(programs, UINT64_MAX);
  ASSERT_EQ(one.size(), 1u);
  EXPECT_EQ(one[0].name, "model.safetensors");
  EXPECT_EQ(index_document(one), "");
}

TEST(IndexDocument, IsSorted) {
  std::vector<PlannedFile> files(2);
  files[0] = {"model-00001-of-00002.safetensors", {prog::Program{}}, {}, 7};
  files[1] = {"model-00002-of-00002.safetensors", {prog::Program{}}, {}, 5};
  files[0].programs[0].outputs = {{"b", Elem::u8, {7}, 0}};
  files[1].programs[0].outputs = {{"c", Elem::u8, {1}, 0}, {"a", Elem::u8, {4}, 0}};
  EXPECT_EQ(index_document(files), R"({
  "metadata": {
    "total_size": 12
  },
  "weight_map": {
    "a": "model-00002-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors",
    "c": "model-00002-of-00002.safetensors"
  }
}
)");
}

}  // namespace
}  // namespace qb
