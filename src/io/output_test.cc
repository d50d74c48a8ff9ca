#include "io/output.h"

#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <functional>
#include <random>
#include <thread>

#include "io/journal.h"
#include "io/rename.h"
#include "io/test_directory.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Names = std::set<std::string>;
using Start = OutputDirectory::Start;

struct Fixture : testing::Test {
  TestDirectory d;
  fs::path in = d / "in";
  fs::path out = d / "out";
  Fixture() { put(in / "config.json", "{}"); }

  Result<std::unique_ptr<OutputDirectory>> create(bool force = false, std::string_view job = "job", uint64_t bytes = 1000) {
    return OutputDirectory::create(out, in, force, job, bytes);
  }
  std::unique_ptr<OutputDirectory> must_create(bool force = false, std::string_view job = "job") {
    auto r = create(force, job);
    EXPECT_TRUE(r.ok()) << r.error().what;
    return r.ok() ? std::move(*r) : nullptr;
  }
  // The error's code, or nothing.
  std::optional<Errc> refusal(const fs::path& to, bool force = false) {
    const auto r = OutputDirectory::create(to, in, force, "job", 1000);
    if (r.ok()) return std::nullopt;
    EXPECT_FALSE(r.error().what.empty());
    return r.error().code;
  }
  // As a killed process leaves it: `finished` files, one unfinished, no lock.
  void leave_partial(const Names& finished, std::string_view job = "job") {
    const pid_t child = fork();
    if (child == 0) {
      auto dir = OutputDirectory::create(out, in, false, job, 1000);
      if (!dir.ok()) _exit(1);
      for (const std::string& name : finished) {
        if (!(*dir)->write_file(name, "data of " + name).ok()) _exit(1);
      }
      auto torn = (*dir)->open("torn");
      const std::string text = "half";
      if (!torn.ok() || !(*torn)->write(0, std::as_bytes(std::span(text))).ok()) _exit(1);
      kill(getpid(), SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
  }
};
using OutputDirectoryTest = Fixture;

TEST_F(OutputDirectoryTest, AppearsWholeOnCommit) {
  const mode_t old = umask(027);
  {
    auto dir = must_create();
    EXPECT_EQ(dir->start(), Start::fresh);
    ASSERT_TRUE(dir->write_file("config.json", "{}\n").ok());
    auto file = dir->open("sub/model.safetensors");
    ASSERT_TRUE(file.ok());
    ASSERT_TRUE((*file)->reserve(10).ok());
    const std::string text = "01234";
    ASSERT_TRUE((*file)->write(5, std::as_bytes(std::span(text))).ok());
    ASSERT_TRUE((*file)->write(0, std::as_bytes(std::span(text))).ok());
    (*file)->write_back(0, 10);
    EXPECT_FALSE(dir->finished("sub/model.safetensors"));
    ASSERT_TRUE((*file)->finish().ok());
    EXPECT_TRUE(dir->finished("sub/model.safetensors"));
    put(dir->path() / "copied.txt", "by others");
    EXPECT_FALSE(fs::exists(out));
    EXPECT_TRUE(fs::exists(d / "out.partial"));
    ASSERT_TRUE(dir->commit().ok());
  }
  umask(old);
  EXPECT_EQ(tree(out), (Names{"config.json", "copied.txt", "sub/model.safetensors"}));
  EXPECT_EQ(get(out / "sub/model.safetensors"), "0123401234");
  EXPECT_EQ(fs::status(out).permissions(), fs::perms(0750));
  EXPECT_EQ(fs::status(out / "config.json").permissions(), fs::perms(0640));
  EXPECT_FALSE(fs::exists(d / "out.partial"));
  EXPECT_EQ(refusal(out), Errc::exists);
  EXPECT_EQ(get(out / "config.json"), "{}\n");
}

TEST_F(OutputDirectoryTest, WithoutCommitNothingIsLeft) {
  { ASSERT_TRUE(must_create()->write_file("x", "y").ok()); }
  EXPECT_EQ(tree(d), Names{"in/config.json"});
  EXPECT_FALSE(fs::exists(d / "out.partial"));
}

TEST_F(OutputDirectoryTest, ForceSwaps) {
  put(out / "old.txt", "old");
  EXPECT_EQ(refusal(out), Errc::exists);
  {
    auto dir = must_create(true);
    ASSERT_TRUE(dir->write_file("new.txt", "new").ok());
    EXPECT_EQ(get(out / "old.txt"), "old") << "until the commit";
    ASSERT_TRUE(dir->commit().ok());
  }
  EXPECT_EQ(tree(out), Names{"new.txt"});
  EXPECT_FALSE(fs::exists(d / "out.partial"));
  { ASSERT_TRUE(must_create(true)->write_file("x", "y").ok()); }
  EXPECT_EQ(tree(out), Names{"new.txt"}) << "a failed run leaves OUT as it was";
  fs::remove_all(out);
  ASSERT_TRUE(must_create(true)->commit().ok()) << "nothing to replace";
  EXPECT_TRUE(fs::is_empty(out));
}

TEST_F(OutputDirectoryTest, AnOutputThatAppearsMeanwhileIsNotReplaced) {
  auto dir = must_create();
  ASSERT_TRUE(dir->write_file("new.txt", "new").ok());
  fs::create_directory(out);
  const Result<void> done = dir->commit();
  ASSERT_FALSE(done.ok());
  EXPECT_EQ(done.error().code, Errc::exists);
  EXPECT_TRUE(fs::is_empty(out));
}

TEST_F(OutputDirectoryTest, StaysAwayFromTheInput) {
  EXPECT_EQ(refusal(in, true), Errc::invalid_argument);
  EXPECT_EQ(refusal(in / ".." / "in", true), Errc::invalid_argument);
  EXPECT_EQ(refusal(in / "", true), Errc::invalid_argument);
  EXPECT_EQ(refusal(in / "sub"), Errc::invalid_argument);
  EXPECT_EQ(refusal(d, true), Errc::invalid_argument) << "OUT contains IN";
  fs::create_directory_symlink(in, d / "link");
  EXPECT_EQ(refusal(d / "link", true), Errc::invalid_argument);
  EXPECT_EQ(refusal(d / "link" / "sub"), Errc::invalid_argument);
  EXPECT_EQ(refusal(d / "inside"), std::nullopt) << "a common prefix of names is no containment";
  put(d / "blobs/1", "weights");
  fs::create_symlink("../blobs/1", in / "model.safetensors");
  EXPECT_EQ(refusal(d / "blobs", true), Errc::invalid_argument) << "replacing it would delete the input's bytes";
  EXPECT_EQ(get(in / "model.safetensors"), "weights");
  fs::rename(in, d / "x.partial");
  in = d / "x.partial";
  EXPECT_EQ(refusal(d / "x"), Errc::invalid_argument);
  EXPECT_EQ(get(in / "config.json"), "{}");
}

TEST_F(OutputDirectoryTest, OddPaths) {
  EXPECT_EQ(refusal("/", true), Errc::invalid_argument);
  EXPECT_EQ(refusal("", true), Errc::invalid_argument);
  EXPECT_EQ(refusal(d / "no" / "parent"), Errc::not_found);
  put(d / "file", "x");
  EXPECT_EQ(refusal(d / "file", true), Errc::exists);
  EXPECT_EQ(get(d / "file"), "x");
  fs::create_symlink("nowhere", d / "dangling");
  EXPECT_EQ(refusal(d / "dangling", true), Errc::exists);
  // Links in the parent, trailing slashes, relative paths.
  fs::create_directory(d / "real");
  fs::create_directory_symlink("real", d / "parent");
  auto linked = OutputDirectory::create(d / "parent" / "o1" / "" / "", in, false, "job", 1);
  ASSERT_TRUE(linked.ok()) << linked.error().what;
  ASSERT_TRUE((*linked)->commit().ok());
  EXPECT_TRUE(fs::is_directory(d / "real" / "o1"));
  const fs::path before = fs::current_path();
  fs::current_path(d / "real");
  auto relative = OutputDirectory::create("o2/", in, false, "job", 1);
  fs::current_path(before);
  ASSERT_TRUE(relative.ok()) << relative.error().what;
  ASSERT_TRUE((*relative)->commit().ok());
  EXPECT_TRUE(fs::is_directory(d / "real" / "o2"));
  // A link to a directory: what it leads to is replaced, the link stays.
  fs::create_directory_symlink("real/o2", d / "to");
  auto through = OutputDirectory::create(d / "to", in, true, "job", 1);
  ASSERT_TRUE(through.ok()) << through.error().what;
  ASSERT_TRUE((*through)->write_file("f", "x").ok());
  ASSERT_TRUE((*through)->commit().ok());
  EXPECT_TRUE(fs::is_symlink(d / "to"));
  EXPECT_EQ(tree(d / "real" / "o2"), Names{"f"});
}

TEST_F(OutputDirectoryTest, NamesStayInside) {
  auto dir = must_create();
  for (const char* name : {"", ".", "..", "../x", "/etc/x", "a/../../b", "a/", "a//b"}) {
    EXPECT_FALSE(dir->open(name).ok()) << name;
  }
}

TEST_F(OutputDirectoryTest, ForeignPartialDirectoriesAreLeftAlone) {
  put(d / "out.partial/precious.txt", "mine");
  EXPECT_EQ(refusal(out, true), Errc::exists);
  EXPECT_EQ(tree(d / "out.partial"), Names{"precious.txt"});
  fs::remove_all(d / "out.partial");
  fs::create_directory_symlink(in, d / "out.partial");
  EXPECT_EQ(refusal(out, true), Errc::exists) << "a link to the input";
  EXPECT_EQ(tree(in), Names{"config.json"});
  fs::remove(d / "out.partial");
  put(d / "out.partial", "a file");
  EXPECT_EQ(refusal(out), Errc::exists);
  fs::remove(d / "out.partial");
  fs::create_directory(d / "out.partial");
  EXPECT_EQ(refusal(out), std::nullopt) << "an empty one is a run that was cut off at once";
}

TEST_F(OutputDirectoryTest, OneProcessAtATime) {
  auto first = must_create();
  ASSERT_TRUE(first->write_file("a", "1").ok());
  const auto second = create();
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, Errc::io);
  EXPECT_NE(second.error().what.find("locked"), std::string::npos) << second.error().what;
  ASSERT_TRUE(first->commit().ok());
  EXPECT_EQ(get(out / "a"), "1");
}

TEST_F(OutputDirectoryTest, ResumesTheSameJob) {
  leave_partial({"a", "b c%\n", "sub/c"});
  EXPECT_FALSE(fs::exists(out));
  {
    auto dir = must_create();
    EXPECT_EQ(dir->start(), Start::resumed);
    EXPECT_TRUE(dir->finished("a"));
    EXPECT_TRUE(dir->finished("b c%\n"));
    EXPECT_TRUE(dir->finished("sub/c"));
    EXPECT_FALSE(dir->finished("torn"));
    EXPECT_FALSE(fs::exists(dir->path() / "torn"));
    ASSERT_TRUE(dir->write_file("torn", "whole").ok());
    ASSERT_TRUE(dir->commit().ok());
  }
  EXPECT_EQ(tree(out), (Names{"a", "b c%\n", "sub/c", "torn"}));
  EXPECT_EQ(get(out / "sub/c"), "data of sub/c");
}

TEST_F(OutputDirectoryTest, ChangedFilesAreNotKept) {
  leave_partial({"a", "b", "c"});
  put(d / "out.partial/files/a", "data of A");  // same size, later
  fs::resize_file(d / "out.partial/files/b", 3);
  auto dir = must_create();
  EXPECT_EQ(dir->start(), Start::resumed);
  EXPECT_FALSE(dir->finished("a"));
  EXPECT_FALSE(dir->finished("b"));
  EXPECT_TRUE(dir->finished("c"));
  EXPECT_EQ(tree(dir->path()), Names{"c"});
}

TEST_F(OutputDirectoryTest, RestartsForAnotherJobOrADamagedJournal) {
  leave_partial({"a"});
  {
    auto dir = must_create(false, "another");
    EXPECT_EQ(dir->start(), Start::restarted);
    EXPECT_FALSE(dir->finished("a"));
    EXPECT_TRUE(fs::is_empty(dir->path()));
  }
  leave_partial({"a", "b"});
  const std::string journal = get(d / "out.partial/journal");
  for (size_t n = 0; n <= journal.size(); ++n) {
    put(d / "out.partial/journal", journal.substr(0, n));
    const auto content = Journal::read(d / "out.partial/journal");
    if (!content) continue;
    for (const auto& [name, state] : content->files) {
      EXPECT_TRUE(name == "a" || name == "b");
      EXPECT_EQ(state.bytes, 9U) << "a torn line is no line";
    }
  }
}

TEST_F(OutputDirectoryTest, SpaceIsCheckedBeforeWriting) {
  struct statvfs v {};
  ASSERT_EQ(statvfs(fs::path(d).c_str(), &v), 0);
  const uint64_t all = static_cast<uint64_t>(v.f_blocks) * v.f_frsize;
  const auto r = create(false, "job", all + 1);
  ASSERT_FALSE(r.ok());
  EXPECT_EQ(r.error().code, Errc::out_of_space);
  EXPECT_NE(r.error().what.find(std::to_string(all + 1)), std::string::npos) << r.error().what;
  EXPECT_FALSE(fs::exists(d / "out.partial"));
  leave_partial({"a"});
  EXPECT_FALSE(create(false, "job", all + 100).ok());
  EXPECT_EQ(must_create()->start(), Start::resumed) << "what was finished is not thrown away for a lack of space";
}

TEST_F(OutputDirectoryTest, AFullDiskIsNamed) {
  signal(SIGXFSZ, SIG_IGN);
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old), 0);
  auto dir = must_create();
  auto file = dir->open("model.safetensors");
  ASSERT_TRUE(file.ok());
  const rlimit small{4096, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const Result<void> reserved = (*file)->reserve(1 << 20);
  const std::string text(8192, 'x');
  const Result<void> written = (*file)->write(0, std::as_bytes(std::span(text)));
  setrlimit(RLIMIT_FSIZE, &old);
  ASSERT_FALSE(reserved.ok());
  EXPECT_EQ(reserved.error().code, Errc::out_of_space);
  ASSERT_FALSE(written.ok());
  EXPECT_EQ(written.error().code, Errc::out_of_space);
  EXPECT_NE(written.error().what.find("model.safetensors"), std::string::npos) << written.error().what;
}

// Writers are killed at random moments, under force as well. OUT is always absent or whole, of the old or of the new generation.
// A writer asks for each step through a pipe, so that it dies in the step that was drawn, however fast or slow this machine is at the moment.
TEST_F(OutputDirectoryTest, KilledWritersNeverLeaveHalfAnOutput) {
  constexpr int files = 6;
  constexpr size_t steps = files * 3 + 1;  // each file is opened, written and finished; the last step puts all in place
  const auto write_all = [&](int generation, const std::function<void()>& step) {
    auto dir = OutputDirectory::create(out, in, true, "generation " + std::to_string(generation), 6000);
    if (!dir.ok()) return false;
    for (int i = 0; i < files; ++i) {
      const std::string name = "f" + std::to_string(i);
      if ((*dir)->finished(name)) continue;
      step();
      auto file = (*dir)->open(name);
      const std::string text(1000, static_cast<char>('a' + generation % 26));
      if (!file.ok() || !(*file)->reserve(text.size()).ok()) return false;
      step();
      for (size_t at = 0; at < text.size(); at += 100) {
        if (!(*file)->write(at, std::as_bytes(std::span(text)).subspan(at, 100)).ok()) return false;
      }
      step();
      if (!(*file)->finish().ok()) return false;
    }
    step();
    return (*dir)->commit().ok();
  };
  const auto at_once = [] {};
  const auto begin = std::chrono::steady_clock::now();
  ASSERT_TRUE(write_all(0, at_once));
  const auto usual = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - begin).count();
  std::mt19937 random(4);
  unsigned killed = 0;
  unsigned before_the_last = 0;
  for (int generation = 1; generation <= 60; ++generation) {
    int ask[2];  // the writer waits for a byte before each step
    ASSERT_EQ(pipe(ask), 0);
    const pid_t child = fork();
    if (child == 0) {
      close(ask[1]);
      const bool done = write_all(generation, [&] {
        char go = 0;
        if (read(ask[0], &go, 1) != 1) _exit(2);  // the test is gone
      });
      _exit(done ? 0 : 1);
    }
    close(ask[0]);
    const size_t allowed = random() % 3 == 0 ? steps : random() % steps;
    before_the_last += allowed < steps ? 1 : 0;
    const std::string bytes_to_go(allowed, '.');
    ASSERT_EQ(write(ask[1], bytes_to_go.data(), allowed), static_cast<ssize_t>(allowed));
    std::this_thread::sleep_for(std::chrono::microseconds(random() % static_cast<unsigned>(usual + usual / 4 + 1)));
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(ask[1]);
    killed += WIFSIGNALED(status) ? 1 : 0;
    EXPECT_TRUE(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
    ASSERT_TRUE(fs::exists(out));
    Names names;
    std::set<char> bytes;
    for (const std::string& name : tree(out)) {
      const std::string text = get(out / name);
      names.insert(name);
      EXPECT_EQ(text.size(), 1000U);
      bytes.insert(text.begin(), text.end());
    }
    EXPECT_EQ(names.size(), static_cast<size_t>(files));
    EXPECT_EQ(bytes.size(), 1U) << "two generations mixed";
    if (generation % 3 == 0) {
      auto again = create(true, "generation " + std::to_string(generation));
      ASSERT_TRUE(again.ok()) << again.error().what;
      again->reset();
      ASSERT_TRUE(write_all(generation, at_once));
      EXPECT_EQ(get(out / "f0")[0], 'a' + generation % 26);
      EXPECT_FALSE(fs::exists(d / "out.partial"));
    }
  }
  EXPECT_GE(killed, before_the_last);
  EXPECT_GT(before_the_last, 20U);
}

TEST_F(OutputDirectoryTest, WhatAFallbackLeftBehindComesBack) {
  // As a crash leaves it between the two renames of a file system without RENAME_EXCHANGE.
  leave_partial({"a"});
  put(d / "out.partial/old/old.txt", "old");
  { ASSERT_TRUE(must_create(true)->write_file("x", "y").ok()); }
  EXPECT_EQ(tree(out), Names{"old.txt"});
  EXPECT_EQ(refusal(out), Errc::exists);
}

TEST(Rename, WithAndWithoutFlags) {
  for (const RenameFlags flags : {RenameFlags::tried, RenameFlags::lacking}) {
    TestDirectory d;
    put(d / "new/f", "new");
    put(d / "old/f", "old");
    const Result<void> taken = rename_new(d / "new", d / "old", flags);
    ASSERT_FALSE(taken.ok());
    EXPECT_EQ(taken.error().code, Errc::exists);
    ASSERT_TRUE(rename_over(d / "new", d / "old", d / "kept", flags).ok());
    EXPECT_EQ(get(d / "old/f"), "new");
    EXPECT_EQ(get(d / (fs::exists(d / "kept") ? "kept/f" : "new/f")), "old");
    ASSERT_TRUE(rename_new(d / "old", d / "third", flags).ok());
    EXPECT_EQ(get(d / "third/f"), "new");
    ASSERT_TRUE(rename_over(d / "third", d / "fourth", d / "none", flags).ok()) << "nothing to replace";
    EXPECT_EQ(get(d / "fourth/f"), "new");
    EXPECT_FALSE(rename_over(d / "absent", d / "fourth", d / "kept2", flags).ok());
    EXPECT_EQ(get(d / "fourth/f"), "new") << "put back";
  }
}

}  // namespace
}  // namespace qb
