#include "io/directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <set>

#include "base/json.h"
#include "io/directory_source.h"
#include "io/reporter.h"
#include "io/shard_index.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t max_document = 64 << 20;
constexpr std::string_view single_file = "model.safetensors";

// A quarter of the files that this process may have open: the rest belongs to the outputs and to the caller.
size_t files_to_keep_open() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 64;
  return std::clamp<size_t>(static_cast<size_t>(limit.rlim_cur) / 4, 1, 1024);
}

bool exists(int dir, const std::string& name) {
  struct stat st {};
  return fstatat(dir, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) == 0;
}

// Caches of links lose their targets when a download is interrupted.
std::string absence(int dir, const std::string& name) {
  std::array<char, 4096> target{};
  const ssize_t n = readlinkat(dir, name.c_str(), target.data(), target.size());
  return n > 0 ? fmt::format("a link to {}, which is not there", std::string_view(target.data(), static_cast<size_t>(n))) : "no such file";
}

enum class Found : uint8_t { text, absent, bad };

Found read_text(int dir, const std::string& name, uint64_t most, std::string& out, Diagnostics& diag) {
  const Fd fd = open_for_reading(dir, name);
  if (!fd && (errno == ENOENT || errno == ENOTDIR)) return Found::absent;
  const auto unreadable = [&](std::string_view found) {
    diag.report("document-unreadable", {.file = name}, std::string(found), "a readable file");
    return Found::bad;
  };
  struct stat st {};
  if (!fd || fstat(fd.get(), &st) != 0) return unreadable(system_error("open", name, errno).what);
  if (!S_ISREG(st.st_mode)) return unreadable("not a file");
  const auto size = static_cast<uint64_t>(st.st_size);
  if (size > most) {
    diag.report("json-too-large", {.file = name}, fmt::format("{} bytes", size), fmt::format("at most {} bytes", most));
    return Found::bad;
  }
  out.resize(size);
  const int64_t n = read_at(fd.get(), 0, std::as_writable_bytes(std::span(out)));
  if (n < 0) return unreadable(system_error("read", name, errno).what);
  out.resize(static_cast<size_t>(n));
  return Found::text;
}

void read_document(int dir, const std::string& name, Package& package, Diagnostics& diag) {
  std::string text;
  switch (read_text(dir, name, max_document, text, diag)) {
    case Found::bad:
      return;
    case Found::absent:
      if (name == "config.json") {
        diag.report("config-missing", {.file = name}, absence(dir, name), "config.json beside the weights");
      } else if (exists(dir, name)) {
        diag.report("document-unreadable", {.file = name}, absence(dir, name), "a readable file");
      }
      return;
    case Found::text:
      break;
  }
  auto value = std::make_shared<Json>();
  JsonError error;
  if (!parse_json(text, *value, error)) {
    diag.report(error.code, {.file = name}, error.what, "a JSON object");
  } else if (!value->is_object()) {
    diag.report("json-invalid", {.file = name}, fmt::format("JSON of the type {}", value->type_name()), "a JSON object");
  } else {
    package.set_document(name, std::move(value));
  }
}

// The framework that wrote a file, as transformers 4 wants to know it.
void check_format(const Metadata& metadata, const std::string& name, Diagnostics& diag) {
  constexpr std::array known{"pt", "tf", "flax", "mlx", "np"};
  const auto format = std::find_if(metadata.begin(), metadata.end(), [](const auto& entry) { return entry.first == "format"; });
  if (metadata.empty() || (format != metadata.end() && std::find(known.begin(), known.end(), format->second) != known.end())) return;
  diag.report("metadata-format-unknown", {.file = name}, format == metadata.end() ? "metadata without a format" : "format " + format->second,
              "pt, tf, flax, mlx or np");
}

// True: the header gave every tensor.
bool read_header(DirectorySource& source, FileId id, const std::string& name, Package& package, Diagnostics& diag) {
  const uint64_t size = source.size(id);
  const auto read = [&](uint64_t offset, std::span<std::byte> into) {
    const ReadRequest request{id, offset, into};
    const Result<void> done = source.read({&request, 1});
    if (!done) diag.report("shard-unreadable", {.file = name}, done.error().what, "a readable file");
    return done.ok();
  };
  std::array<std::byte, 8> first{};
  const std::span<std::byte> field = std::span(first).first(static_cast<size_t>(std::min<uint64_t>(size, 8)));
  uint64_t length = 0;
  if (!read(0, field) || !parse_header_length(field, size, name, length, diag)) return false;
  std::vector<std::byte> json(static_cast<size_t>(length));
  if (!read(8, json)) return false;
  SafetensorsHeader header;
  const bool ok = parse_safetensors_header(json, size, name, id, header, diag);
  if (ok) check_format(header.metadata, name, diag);
  package.files[id].metadata = std::move(header.metadata);
  package.tensors.insert(package.tensors.end(), std::make_move_iterator(header.tensors.begin()), std::make_move_iterator(header.tensors.end()));
  return ok;
}

IndexedFile open_shard(int dir, DirectorySource& source, const std::string& name, Package& package, Diagnostics& diag) {
  const Result<FileId> id = source.open(name);
  if (!id) {
    if (id.error().code == Errc::not_found) {
      diag.report("shard-missing", {.file = name}, absence(dir, name), fmt::format("the file that {} names", shard_index_name));
    } else {
      diag.report("shard-unreadable", {.file = name}, id.error().what, "a readable file");
    }
    return {};
  }
  package.files.push_back({name, source.size(*id), {}});
  return {*id, read_header(source, *id, name, package, diag)};
}

// Returns the names of the weight files.
std::set<std::string> read_weights(int dir, DirectorySource& source, Package& package, Diagnostics& diag) {
  std::string text;
  const std::string index_name(shard_index_name);
  const Found found = read_text(dir, index_name, safetensors_max_header, text, diag);
  if (found == Found::bad) return {};
  if (found == Found::absent && exists(dir, index_name)) {
    diag.report("document-unreadable", {.file = index_name}, absence(dir, index_name), "a readable file");
    return {};
  }
  if (found == Found::absent) {
    const std::string name(single_file);
    if (!exists(dir, name)) {
      diag.report("weights-missing", {}, "neither model.safetensors nor model.safetensors.index.json", "weights in safetensors files");
      return {};
    }
    const IndexedFile file = open_shard(dir, source, name, package, diag);
    merge_tensors(package, nullptr, {&file, 1}, diag);
    return {name};
  }
  ShardIndex index;
  if (!parse_shard_index(text, index, diag)) return {};
  text = {};
  std::vector<IndexedFile> files;
  for (const std::string& name : index.files) files.push_back(open_shard(dir, source, name, package, diag));
  merge_tensors(package, &index, files, diag);
  return {index.files.begin(), index.files.end()};
}

bool is_foreign(const fs::path& name) {
  static const std::set<std::string, std::less<>> extensions{".bin",  ".pt",      ".pth", ".gguf",      ".onnx", ".safetensors",
                                                             ".ckpt", ".msgpack", ".h5",  ".onnx_data", ".npz"};
  const std::string file = name.filename().native();
  return file.starts_with("consolidated") || file.ends_with(".bin.index.json") || file.ends_with(".safetensors.index.json") ||
         extensions.contains(name.extension().native());
}

// What lies beside the weights. Links to directories are not entered: they could lead anywhere and in circles.
Result<void> list_others(const fs::path& root, const std::set<std::string>& weights, Package& package) {
  std::error_code ec;
  fs::recursive_directory_iterator it(root, fs::directory_options::skip_permission_denied, ec);
  for (; !ec && it != fs::recursive_directory_iterator(); it.increment(ec)) {
    const fs::path name = it->path().lexically_relative(root);
    const std::string base = name.filename().native();
    std::error_code none;
    const bool link = it->is_symlink(none);
    if (it->is_directory(none)) {
      const bool skipped = base == ".git" || base == ".cache";
      const bool foreign = link || base == "original";
      if (skipped || foreign) it.disable_recursion_pending();
      if (foreign && !skipped) package.foreign_files.push_back(name.native() + "/");
      continue;
    }
    if (weights.contains(name.native()) || name == shard_index_name) continue;
    // A link without its target counts as a file, so that copying it fails and says so.
    const bool file = it->is_regular_file(none) || (link && !it->exists(none));
    (file && !is_foreign(name) ? package.other_files : package.foreign_files).push_back(name.native());
  }
  if (ec) return system_error("list", root.native(), ec.value());
  std::sort(package.other_files.begin(), package.other_files.end());
  std::sort(package.foreign_files.begin(), package.foreign_files.end());
  return {};
}

Result<void> copy_file(int from_dir, const fs::path& from, const std::string& name, const fs::path& to, std::span<std::byte> buffer) {
  const Fd in = open_for_reading(from_dir, name);
  const std::string in_name = (from / name).native();
  struct stat st {};
  if (!in || fstat(in.get(), &st) != 0) return system_error("open", in_name, errno);
  if (!S_ISREG(st.st_mode)) return Error{Errc::io, fmt::format("cannot copy {}: it is not a file", escape(in_name))};
  const fs::path out_path = to / name;
  std::error_code ec;
  fs::create_directories(out_path.parent_path(), ec);
  if (ec) return system_error("create", out_path.parent_path().native(), ec.value());
  const Fd out(open(out_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!out) return system_error("create", out_path.native(), errno);
  for (uint64_t at = 0;;) {
    const int64_t n = read_at(in.get(), at, buffer);
    if (n < 0) return system_error("read", in_name, errno);
    if (n == 0) break;
    QB_TRY(write_at(out.get(), at, buffer.first(static_cast<size_t>(n)), out_path.native()));
    at += static_cast<uint64_t>(n);
  }
  return sync_fd(out.get(), out_path.native());
}

}  // namespace

Result<Package> open_directory(const fs::path& path, Diagnostics& diag) {
  Fd dir(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir && errno == ENOTDIR) {
    return Error{Errc::not_found,
                 fmt::format("{} is not a directory; give the directory that holds config.json and the safetensors files", escape(path.native()))};
  }
  if (!dir) return system_error("open", path.native(), errno);
  const int fd = dir.get();
  Package package;
  for (const char* name : {"config.json", "hf_quant_config.json", "quantize_config.json", "generation_config.json"}) read_document(fd, name, package, diag);
  auto source = std::make_shared<DirectorySource>(std::move(dir), path.native(), files_to_keep_open());
  const std::set<std::string> weights = read_weights(fd, *source, package, diag);
  package.source = source;
  // Somebody's home directory is not walked for the sake of a wrong path.
  if (!package.files.empty() || package.document("config.json") != nullptr) QB_TRY(list_others(path, weights, package));
  return package;
}

Result<void> copy_other_files(const fs::path& from, const Package& in, const fs::path& to, std::span<const std::string> skip) {
  const Fd dir(open(from.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return system_error("open", from.native(), errno);
  std::vector<std::byte> buffer(1 << 20);
  for (const std::string& name : in.other_files) {
    if (std::find(skip.begin(), skip.end(), name) == skip.end()) QB_TRY(copy_file(dir.get(), from, name, to, buffer));
  }
  return {};
}

}  // namespace qb
