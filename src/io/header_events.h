// The JSON part of a safetensors header, event by event: structure only. Whether the byte ranges make sense is decided in safetensors.cc.
//
// Include this in .cc files only. Stricter than the reference implementation, which lets the last of two equal names win and takes a tensor written as an
// array.
#pragma once

#include <string>
#include <vector>

#include "base/json_sax.h"
#include "io/safetensors.h"

namespace qb {

struct RawTensor {
  TensorInfo info;  // offset: begin, bytes: end, both as the header says them
  std::string unknown_dtype;
  bool shape_too_large = false;  // a dimension above 2^63-1
};

class HeaderEvents : public JsonHandler {
 public:
  explicit HeaderEvents(FileId file) : file_(file) {}

  bool null();
  bool boolean(bool) { return value("a boolean"); }
  bool number_integer(number_integer_t) { return value("a negative number"); }
  bool number_unsigned(number_unsigned_t v);
  bool number_float(number_float_t, const string_t&) { return value("a number that is no unsigned 64-bit integer"); }
  bool string(string_t& v);
  bool start_object(size_t);
  bool key(string_t& v);
  bool end_object();
  bool start_array(size_t);
  bool end_array();

  std::vector<RawTensor> tensors;
  Metadata metadata;

  // The first error of structure. `code` is empty when the text itself is no JSON; then error() says why.
  struct Fault {
    std::string code, tensor, found, expected;
  };
  const Fault& fault() const { return fault_; }

 private:
  enum class State : uint8_t {
    start,
    header,
    before_tensor,
    tensor,
    before_metadata,
    metadata,
    metadata_value,
    dtype,
    before_shape,
    shape,
    before_offsets,
    offsets,
    skip,
    done
  };
  enum Field : uint8_t { has_dtype = 1, has_shape = 2, has_offsets = 4 };

  bool fault(std::string_view code, std::string found, std::string expected);
  bool value(std::string_view found);  // a value that no state but `skip` takes
  bool enter_skipped();
  std::string_view wanted() const;
  bool field(Field f, State next, std::string_view name);

  FileId file_;
  State state_ = State::start;
  int skipped_depth_ = 0;
  int fields_ = 0;
  int offsets_ = 0;
  bool metadata_seen_ = false;
  Fault fault_;
};

}  // namespace qb
