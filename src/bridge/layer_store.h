// What calibration has made so far, layer by layer, in the directory OUT.calibration beside an output that is not there yet.
//
// Goal: a run that was killed goes on where it was: each layer is a safetensors file that is there whole or not at all, with the digest of the job it belongs
// to. Non-goal: an archive. The directory goes when the output is there, or when the run is interrupted by its user; after an error it stays.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "io/directory_source.h"
#include "pass/overlay.h"

namespace qb {

class LayerStore {
 public:
  struct Tensor {
    TensorInfo info;  // file and offset are not used
    std::vector<std::byte> bytes;
  };

  // Makes the directory for `out`, or goes on with one whose digest is the same; anything else in it is thrown away. `first_file`: the number of its first file
  // for readers of the overlay. Errors: io (another process works there: says so), exists (a directory of that name which is none of ours).
  static Result<std::unique_ptr<LayerStore>> open(const std::filesystem::path& out, std::string digest, FileId first_file);

  bool has(const std::string& name) const { return files_.contains(name); }
  bool resumed() const { return resumed_; }
  // Written, synced, and part of the overlay from now on. Not while somebody reads. Errors: io, out_of_space.
  Result<void> write(const std::string& name, const std::vector<Tensor>& tensors);
  const pass::Overlay& overlay() const { return overlay_; }
  std::shared_ptr<Source> source() const { return source_; }
  void remove();

 private:
  LayerStore() = default;
  // False: it is not of this job, or not whole.
  Result<bool> add(const std::string& name);

  std::filesystem::path path_;
  Fd lock_;
  std::shared_ptr<DirectorySource> source_;
  std::map<std::string, FileId> files_;
  FileId first_file_ = 0;
  pass::Overlay overlay_;
  bool resumed_ = false;
};

}  // namespace qb
