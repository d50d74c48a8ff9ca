#include "io/directory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <random>
#include <thread>

#include "base/json.h"
#include "io/directory_source.h"
#include "io/test_directory.h"

namespace qb {
namespace {

namespace fs = std::filesystem;
using Names = std::vector<std::string>;

struct Opened {
  Diagnostics diag;
  Package package;
  std::string codes() const {
    std::string all;
    for (const Problem& p : diag.all()) all += (all.empty() ? "" : " ") + p.code;
    return all;
  }
};

Opened open_all(const fs::path& path) {
  Opened o;
  Result<Package> package = open_directory(path, o.diag);
  EXPECT_TRUE(package.ok()) << package.error().what;
  if (package.ok()) o.package = std::move(*package);
  return o;
}

std::string contents(const Package& package, std::string_view tensor) {
  const TensorInfo* t = package.tensor(tensor);
  if (t == nullptr) return "absent";
  std::string out(t->bytes, '?');
  const ReadRequest request{t->file, t->offset, std::as_writable_bytes(std::span(out))};
  const Result<void> done = package.source->read({&request, 1});
  return done.ok() ? out : done.error().what;
}

class Broken : public testing::TestWithParam<std::string> {};

TEST_P(Broken, GetsItsClass) {
  const fs::path path = fs::path(QB_TEST_DATA) / "broken" / GetParam();
  Json expected;
  JsonError error;
  ASSERT_TRUE(parse_json(get(path / "expected_problem.json"), expected, error)) << error.what;
  const Opened o = open_all(path);
  ProblemClass worst{};
  ASSERT_TRUE(o.diag.worst(worst));
  EXPECT_EQ(to_string(worst), string_at(expected, "class")) << o.codes();
  EXPECT_FALSE(o.diag.ok());
  // An overlap leaves a hole elsewhere; every other fault is one problem.
  EXPECT_TRUE(o.diag.all().size() == 1 || o.diag.has("tensor-overlap")) << o.codes();
  const Json* where = find(expected, "where");
  ASSERT_NE(where, nullptr);
  const std::string_view file = where->is_string() ? where->get_ref<const std::string&>() : string_at(*where, "file");
  std::set<std::string> named;
  for (const Problem& p : o.diag.all()) {
    EXPECT_TRUE(file.empty() || p.code == "shard-missing" || p.file == file) << p.file;
    named.insert(p.tensor);
  }
  const Json* tensors = find(*where, "tensors");
  if (tensors == nullptr) return;
  EXPECT_TRUE(std::any_of(tensors->begin(), tensors->end(), [&](const Json& t) { return named.contains(t.get_ref<const std::string&>()); }));
}

INSTANTIATE_TEST_SUITE_P(Containers, Broken,
                         testing::Values("st_dtype_unknown", "st_duplicate_key", "st_header_beyond_file", "st_header_huge", "st_hole", "st_name_not_utf8",
                                         "st_overlap", "st_shape_overflow", "st_size_mismatch", "st_trailing_bytes", "st_truncated", "index_missing_shard",
                                         "index_path_traversal", "index_tensor_twice", "config_missing", "config_invalid_json", "config_deeply_nested"),
                         [](const auto& each) { return each.param; });

TEST(Broken, TheIndexDecidesBetweenTwoCopies) {
  const Opened o = open_all(fs::path(QB_TEST_DATA) / "broken" / "index_tensor_twice");
  const TensorInfo* t = o.package.tensor("model.layers.0.self_attn.q_proj.weight_scale_2");
  ASSERT_NE(t, nullptr);
  EXPECT_EQ(o.package.file_name(t->file), "model-00002-of-00002.safetensors");
}

TEST(OpenDirectory, SortsFilesIntoKinds) {
  TestDirectory d;
  put(d / "config.json", "{\"a\":1}");
  put(d / "generation_config.json", "{\"b\":2}");
  put(d / "model.safetensors", weights({{"x", 3}, {"a", 2}}));
  for (const char* name : {"tokenizer.json", "modeling.py", "assets/logo.png", "LICENSE", ".gitattributes"}) put(d / name, "text");
  for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.safetensors", "consolidated.00.pth", "m.gguf", "onnx/m.onnx",
                           "x.pt", "original/params.json", "adapter_model.safetensors"}) {
    put(d / name, "weights");
  }
  for (const char* name : {".git/config", ".cache/huggingface/x", "assets/.cache/y"}) put(d / name, "skipped");
  fs::create_directory_symlink("/", d / "everything");
  ASSERT_EQ(mkfifo((d / "pipe").c_str(), 0600), 0);
  const Names others{".gitattributes", "LICENSE", "assets/logo.png", "config.json", "generation_config.json", "modeling.py", "tokenizer.json"};
  const Names foreign{"adapter_model.safetensors",
                      "consolidated.00.pth",
                      "consolidated.safetensors",
                      "everything/",
                      "m.gguf",
                      "onnx/m.onnx",
                      "original/",
                      "pipe",
                      "pytorch_model.bin",
                      "pytorch_model.bin.index.json",
                      "x.pt"};
  const fs::path before = fs::current_path();
  fs::current_path(d);
  for (const fs::path& spelling : {fs::path(d), fs::path(d) / "", fs::path("."), fs::path("./"), fs::path(d) / "." / "assets" / ".."}) {
    const Opened o = open_all(spelling);
    EXPECT_EQ(o.codes(), "") << spelling;
    EXPECT_EQ(o.package.other_files, others) << spelling;
    EXPECT_EQ(o.package.foreign_files, foreign) << spelling;
    ASSERT_EQ(o.package.files.size(), 1U);
    EXPECT_EQ(o.package.files[0].name, "model.safetensors");
    EXPECT_EQ(o.package.files[0].metadata, (Metadata{{"format", "pt"}}));
    ASSERT_NE(o.package.document("config.json"), nullptr);
    EXPECT_NE(o.package.document("generation_config.json"), nullptr);
    EXPECT_EQ(o.package.document("hf_quant_config.json"), nullptr);
    ASSERT_EQ(o.package.tensors.size(), 2U);
    EXPECT_EQ(o.package.tensors[0].name, "a");
    EXPECT_EQ(contents(o.package, "x"), "xxx");
  }
  fs::current_path(before);
}

TEST(OpenDirectory, FollowsLinksLikeACacheSnapshot) {
  TestDirectory d;
  put(d / "blobs/111", "{}");
  put(d / "blobs/222", weights({{"a", 5}}));
  put(d / "blobs/333", R"({"weight_map":{"a":"model-1.safetensors"}})");
  put(d / "blobs/444", "tokens");
  const fs::path snapshot = d / "snapshots/abc";
  fs::create_directories(snapshot);
  for (const auto& [name, blob] :
       {std::pair{"config.json", "111"}, {"model-1.safetensors", "222"}, {"model.safetensors.index.json", "333"}, {"tokenizer.json", "444"}}) {
    fs::create_symlink(fs::path("../../blobs") / blob, snapshot / name);
  }
  fs::create_directory_symlink(snapshot, d / "link");
  for (const fs::path& path : {snapshot, d / "link"}) {
    const Opened o = open_all(path);
    EXPECT_EQ(o.codes(), "");
    EXPECT_EQ(contents(o.package, "a"), "aaaaa");
    EXPECT_EQ(o.package.other_files, (Names{"config.json", "tokenizer.json"}));
    ASSERT_TRUE(copy_other_files(path, o.package, d / "out", Names{"config.json"}).ok());
  }
  EXPECT_EQ(get(d / "out/tokenizer.json"), "tokens");
  EXPECT_FALSE(fs::is_symlink(d / "out/tokenizer.json"));

  fs::remove(d / "blobs/222");
  fs::remove(d / "blobs/444");
  const Opened o = open_all(snapshot);
  EXPECT_EQ(o.codes(), "shard-missing");
  EXPECT_NE(o.diag.all()[0].found.find("blobs/222"), std::string::npos) << o.diag.all()[0].found;
  const Result<void> copied = copy_other_files(snapshot, o.package, d / "out2", {});
  ASSERT_FALSE(copied.ok());
  EXPECT_NE(copied.error().what.find("tokenizer.json"), std::string::npos);
}

TEST(OpenDirectory, PathsThatCannotBeRead) {
  TestDirectory d;
  put(d / "file", "x");
  Diagnostics diag;
  const Result<Package> absent = open_directory(d / "nowhere", diag);
  ASSERT_FALSE(absent.ok());
  EXPECT_EQ(absent.error().code, Errc::not_found);
  EXPECT_NE(absent.error().what.find("nowhere"), std::string::npos);
  const Result<Package> file = open_directory(d / "file", diag);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.error().what.find("is not a directory"), std::string::npos);
  EXPECT_TRUE(diag.all().empty());
}

TEST(OpenDirectory, Documents) {
  TestDirectory d;
  EXPECT_EQ(open_all(d).codes(), "config-missing weights-missing");
  put(d / "model.safetensors", weights({{"a", 1}}));
  put(d / "config.json", "[1]");
  put(d / "hf_quant_config.json", R"({"a":1,"a":2})");
  EXPECT_EQ(open_all(d).codes(), "json-invalid json-duplicate-key");
  fs::remove(d / "hf_quant_config.json");
  fs::create_symlink("gone", d / "hf_quant_config.json");
  EXPECT_EQ(open_all(d).codes(), "json-invalid document-unreadable") << "a dropped quantization config would change what the weights mean";
  fs::remove(d / "hf_quant_config.json");
  fs::remove(d / "config.json");
  ASSERT_EQ(mkfifo((d / "config.json").c_str(), 0600), 0);
  EXPECT_EQ(open_all(d).codes(), "document-unreadable") << "a pipe does not block";
  fs::remove(d / "config.json");
  put(d / "config.json", "{}");
  fs::resize_file(d / "config.json", (64 << 20) + 1);
  const Opened o = open_all(d);
  EXPECT_EQ(o.codes(), "json-too-large");
  EXPECT_EQ(o.diag.all()[0].file, "config.json");
}

TEST(OpenDirectory, WeightFiles) {
  TestDirectory d;
  put(d / "config.json", "{}");
  fs::create_directory(d / "model.safetensors");
  EXPECT_EQ(open_all(d).codes(), "shard-unreadable");
  fs::remove(d / "model.safetensors");
  put(d / "model.safetensors", "");
  EXPECT_EQ(open_all(d).codes(), "file-truncated");
  put(d / "model.safetensors", std::string(8, '\0'));
  EXPECT_EQ(open_all(d).codes(), "header-invalid-json");
  put(d / "model.safetensors", "1234");
  EXPECT_EQ(open_all(d).codes(), "file-truncated");
  const std::string good = weights({{"a", 100}, {"b", 10}});
  put(d / "model.safetensors.index.json", R"({"weight_map":{"a":"sub/x.safetensors","b":"sub/x.safetensors"}})");
  put(d / "sub/x.safetensors", good);
  const Opened o = open_all(d);
  EXPECT_EQ(o.codes(), "");
  EXPECT_EQ(contents(o.package, "b"), "bbbbbbbbbb");
  EXPECT_EQ(o.package.foreign_files, Names{"model.safetensors"}) << "the index decides which files count";
  for (size_t n = 0; n < good.size(); ++n) {
    put(d / "sub/x.safetensors", good.substr(0, n));
    EXPECT_FALSE(open_all(d).diag.ok()) << n;
  }
}

TEST(OpenDirectory, MoreShardsThanFilesMayBeOpen) {
  TestDirectory d;
  put(d / "config.json", "{}");
  std::string index = "{\"weight_map\":{";
  for (int i = 0; i < 300; ++i) {
    const std::string name = "t" + std::to_string(i);
    put(d / (name + ".safetensors"), weights({{name, 7}}));
    index += (i == 0 ? "\"" : ",\"") + name + "\":\"" + name + ".safetensors\"";
  }
  put(d / "model.safetensors.index.json", index + "}}");
  rlimit old{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
  const rlimit few{64, old.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  const Opened o = open_all(d);
  EXPECT_EQ(o.codes(), "");
  EXPECT_EQ(o.package.tensors.size(), 300U);
  EXPECT_EQ(contents(o.package, "t0"), "ttttttt");
  EXPECT_EQ(contents(o.package, "t299"), "ttttttt");
  put(d / "t299.safetensors", "other");
  EXPECT_NE(contents(o.package, "t299").find("was replaced while it was read"), std::string::npos) << contents(o.package, "t299");
  setrlimit(RLIMIT_NOFILE, &old);
}

struct OpenSource {
  explicit OpenSource(const fs::path& path, size_t keep = 16) : source(Fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)), path.native(), keep) {}
  DirectorySource source;
};

TEST(DirectorySource, RandomBatchesAgainstTheBytes) {
  TestDirectory d;
  std::mt19937 random(3);
  std::vector<std::string> files;
  for (int i = 0; i < 3; ++i) {
    std::string text(600'000, '\0');
    for (char& c : text) c = static_cast<char>(random());
    put(d / std::to_string(i), text);
    files.push_back(std::move(text));
  }
  OpenSource opened(d, 2);
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(opened.source.open(std::to_string(i)).ok());
  const auto batch = [&](unsigned seed) {
    std::mt19937 rng(seed);
    for (int round = 0; round < 40; ++round) {
      const size_t n = rng() % 400;
      std::vector<std::string> into(n);
      std::vector<ReadRequest> requests;
      for (std::string& s : into) {
        const auto file = static_cast<FileId>(rng() % 3);
        const size_t offset = rng() % files[file].size();
        const size_t most = rng() % 20 == 0 ? 200'000 : 300;
        s.resize(rng() % std::min(files[file].size() - offset + 1, most));
        requests.push_back({file, offset, std::as_writable_bytes(std::span(s))});
      }
      const Result<void> done = opened.source.read(requests);
      ASSERT_TRUE(done.ok()) << done.error().what;
      for (size_t i = 0; i < n; ++i) ASSERT_EQ(into[i], files[requests[i].file].substr(requests[i].offset, into[i].size()));
    }
  };
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) threads.emplace_back(batch, t);
  for (std::thread& t : threads) t.join();
}

TEST(DirectorySource, RefusesWhatIsNotThere) {
  TestDirectory d;
  put(d / "f", std::string(1000, 'x'));
  OpenSource opened(d);
  EXPECT_FALSE(opened.source.open("g").ok());
  ASSERT_TRUE(opened.source.open("f").ok());
  std::string s(10, ' ');
  const auto read = [&](FileId file, uint64_t offset) {
    const ReadRequest r{file, offset, std::as_writable_bytes(std::span(s))};
    const Result<void> done = opened.source.read({&r, 1});
    return done.ok() ? "" : done.error().what;
  };
  EXPECT_EQ(read(0, 990), "");
  EXPECT_NE(read(0, 991).find("beyond its end at 1000"), std::string::npos);
  EXPECT_NE(read(0, ~0ULL - 3), "");
  EXPECT_NE(read(1, 0), "");
  fs::resize_file(d / "f", 500);
  EXPECT_EQ(read(0, 100), "");
  const std::string shrunk = read(0, 495);
  EXPECT_NE(shrunk.find("/f shrank while it was read: it ends at 500"), std::string::npos) << shrunk;
  EXPECT_NE(read(0, 900).find("shrank"), std::string::npos);
}

TEST(CopyOtherFiles, RealFilesWithModesFromTheUmask) {
  TestDirectory d;
  put(d / "in/config.json", "{}");
  put(d / "in/model.safetensors", weights({{"a", 1}}));
  const std::string large(3'000'001, 'z');
  put(d / "in/big.txt", large);
  put(d / "in/sub/dir/run.py", "print()");
  fs::permissions(d / "in/sub/dir/run.py", fs::perms::owner_all);
  const Opened o = open_all(d / "in");
  const mode_t old = umask(027);
  ASSERT_TRUE(copy_other_files(d / "in", o.package, d / "out", Names{"config.json"}).ok());
  umask(old);
  EXPECT_EQ(tree(d / "out"), (std::set<std::string>{"big.txt", "sub/dir/run.py"}));
  EXPECT_EQ(get(d / "out/big.txt"), large);
  EXPECT_EQ(fs::status(d / "out/sub/dir/run.py").permissions(), fs::perms(0640));
}

}  // namespace
}  // namespace qb
