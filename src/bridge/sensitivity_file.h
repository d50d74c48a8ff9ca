// What was measured of a model's sensitivity so far, in one JSON file, so that another question about the same model and data needs no forward pass, and a run
// that was killed goes on where it was.
//
// The file is replaced as a whole whenever something is added. It belongs to a digest of everything that the numbers depend on besides module and scheme (the
// source's files, the samples, the program's version): one of another digest is begun anew. Non-goal: several processes writing it.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "base/result.h"

namespace qb {

class SensitivityFile {
 public:
  struct Seen {
    std::optional<double> error;       // relative, of what the layer gives
    std::optional<double> divergence;  // at the output
  };
  enum class Start : uint8_t { fresh, resumed, restarted };  // restarted: there was one of another digest, which is gone with the first save

  // An empty path: nothing is kept. Errors: exists (the file is none of ours), io.
  static Result<SensitivityFile> open(std::filesystem::path path, std::string digest);

  Start start() const { return start_; }
  Seen seen(const std::string& group, const std::string& scheme) const;
  Seen& at(const std::string& group, const std::string& scheme) { return groups_[group][scheme]; }
  // Of whole mixtures, by a name of the caller's.
  std::optional<double> mixture(const std::string& name) const;
  void set_mixture(const std::string& name, double divergence) { mixtures_[name] = divergence; }
  // Errors: io, out_of_space.
  Result<void> save() const;

 private:
  std::filesystem::path path_;
  std::string digest_;
  Start start_ = Start::fresh;
  std::map<std::string, std::map<std::string, Seen>> groups_;
  std::map<std::string, double> mixtures_;
};

}  // namespace qb
