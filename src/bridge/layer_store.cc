#include "bridge/layer_store.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

namespace qb {
namespace {

namespace fs = std::filesystem;

constexpr const char* digest_key = "quantbridge.calibration";
constexpr std::string_view suffix = ".safetensors", unfinished = ".part";
constexpr size_t keep_open = 64;

bool is_ours(const fs::path& name) {
  const std::string& text = name.native();
  return text == "lock" || text.ends_with(suffix) || text.ends_with(unfinished);
}

}  // namespace

Result<std::unique_ptr<LayerStore>> LayerStore::open(const fs::path& out, std::string digest, FileId first_file) {
  std::unique_ptr<LayerStore> s(new LayerStore);
  s->path_ = without_slashes(out).native() + ".calibration";
  s->first_file_ = first_file;
  s->overlay_.digest = std::move(digest);
  std::error_code ec;
  fs::create_directory(s->path_, ec);
  if (ec) return system_error("create", s->path_.native(), ec.value());
  std::vector<fs::path> found;
  for (fs::directory_iterator it(s->path_, ec), end; !ec && it != end; it.increment(ec)) {
    if (!is_ours(it->path().filename()))
      return Error{Errc::exists, fmt::format("{} exists and is no interrupted calibration; move it away or give another output directory", s->path_.native())};
    if (it->path().filename() != "lock") found.push_back(it->path());
  }
  if (ec) return system_error("list", s->path_.native(), ec.value());
  QB_ASSIGN(s->lock_, lock_file(s->path_ / "lock", "another process calibrates for this output"));
  Fd dir(::open(s->path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!dir) return system_error("open", s->path_.native(), errno);
  s->source_ = std::make_shared<DirectorySource>(std::move(dir), s->path_.native(), keep_open);
  std::sort(found.begin(), found.end());
  for (const fs::path& p : found) {
    bool whole = false;
    if (p.native().ends_with(suffix)) {
      QB_ASSIGN(whole, s->add(p.filename().native()));
    }
    if (!whole && !fs::remove(p, ec) && ec) return system_error("remove", p.native(), ec.value());
    s->resumed_ |= whole;
  }
  return s;
}

Result<bool> LayerStore::add(const std::string& name) {
  QB_ASSIGN(const FileId file, source_->open(name));
  const uint64_t size = source_->size(file);
  std::byte length_bytes[8]{};
  Diagnostics diag;
  SafetensorsHeader header;
  uint64_t length = 0;
  if (size < sizeof length_bytes) return false;
  const ReadRequest first{file, 0, length_bytes};
  QB_TRY(source_->read(std::span(&first, 1)));
  if (!parse_header_length(length_bytes, size, name, length, diag)) return false;
  std::vector<std::byte> json(length);
  const ReadRequest rest{file, sizeof length_bytes, json};
  QB_TRY(source_->read(std::span(&rest, 1)));
  if (!parse_safetensors_header(json, size, name, first_file_ + file, header, diag)) return false;
  if (std::find(header.metadata.begin(), header.metadata.end(), std::pair<std::string, std::string>(digest_key, overlay_.digest)) == header.metadata.end())
    return false;
  files_.emplace(name, file);
  for (TensorInfo& t : header.tensors) {
    if (t.dtype == Elem::f32 && t.bytes == sizeof(float)) {
      float value = 0;
      const ReadRequest one{file, t.offset, std::as_writable_bytes(std::span(&value, 1))};
      QB_TRY(source_->read(std::span(&one, 1)));
      overlay_.scalars[t.name] = static_cast<double>(value);
    }
    overlay_.tensors.insert_or_assign(t.name, std::move(t));
  }
  return true;
}

Result<void> LayerStore::write(const std::string& name, const std::vector<Tensor>& tensors) {
  std::vector<TensorInfo> infos;
  for (const Tensor& t : tensors) infos.push_back(t.info);
  const std::string header = write_safetensors_header(infos, {{digest_key, overlay_.digest}});
  const fs::path part = path_ / (name + std::string(unfinished));
  Fd fd(::open(part.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0666));
  if (!fd) return system_error("create", part.native(), errno);
  QB_TRY(write_at(fd.get(), 0, std::as_bytes(std::span(header)), part.native()));
  uint64_t at = header.size();
  for (const Tensor& t : tensors) {
    QB_TRY(write_at(fd.get(), at, t.bytes, part.native()));
    at += t.bytes.size();
  }
  QB_TRY(sync_fd(fd.get(), part.native()));
  std::error_code ec;
  fs::rename(part, path_ / name, ec);
  if (ec) return system_error("rename", part.native(), ec.value());
  QB_TRY(sync_path(path_));
  QB_ASSIGN(const bool whole, add(name));
  return whole ? Result<void>() : Error{Errc::io, fmt::format("{} is not what was written to it", (path_ / name).native())};
}

void LayerStore::remove() {
  std::error_code ec;
  fs::remove_all(path_, ec);
}

}  // namespace qb
