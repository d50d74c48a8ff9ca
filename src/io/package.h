// A checkpoint as a container hands it over: documents by name, one tensor index over all its files, and a Source for the bytes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/json_fwd.h"
#include "io/safetensors.h"
#include "io/source.h"

namespace qb {

struct PackageFile {
  std::string name;  // as the index names it, relative to the checkpoint
  uint64_t size = 0;
  Metadata metadata;  // of its safetensors header
};

class Package {
 public:
  std::vector<PackageFile> files;   // FileId is the position
  std::vector<TensorInfo> tensors;  // sorted by name, names unique
  std::shared_ptr<Source> source;

  const Json* document(std::string_view name) const;  // config.json, hf_quant_config.json, quantize_config.json, generation_config.json; null when absent
  void set_document(std::string name, std::shared_ptr<const Json> value);
  const TensorInfo* tensor(std::string_view name) const;  // null when absent
  std::string_view file_name(FileId id) const { return files[id].name; }

  // Files beside the weights. Which of them an output gets is in io/directory.h.
  std::vector<std::string> other_files;    // tokenizer, templates, licences, *.py: copied
  std::vector<std::string> foreign_files;  // other weights (*.bin, *.gguf, consolidated*, original/): named, not copied

 private:
  std::vector<std::pair<std::string, std::shared_ptr<const Json>>> documents_;
};

}  // namespace qb
