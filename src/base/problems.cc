// The table of problems: one row each, by the layer that finds it. docs/problems.md is generated from it.
#include "base/diagnostics.h"

namespace qb {
namespace {

using enum ProblemClass;
constexpr Repair none = Repair::none;

constexpr ProblemKind kinds[] = {
    // base and io: documents
    {"config-missing", damaged, none, "The directory has no config.json: nothing says which architecture the tensors belong to.",
     "Every engine stops with a message about config.json.", "Download config.json from where the checkpoint came from."},
    {"json-invalid", damaged, none, "A JSON document cannot be parsed, or it is not an object. None of its keys are used.",
     "Every engine stops with the message of its JSON parser.", "Download the file again, or correct it at the byte that is named."},
    {"json-too-deep", damaged, none, "A JSON document nests more deeply than any real configuration: parsing it could exhaust a stack.",
     "Python's parser stops with a RecursionError; others may crash.", "Replace the file by the original."},
    {"json-duplicate-key", damaged, none, "One object of a JSON document holds a key twice. Which value counts depends on the parser.",
     "Python takes the last value and says nothing.", "Delete one of the two after comparing them with the original."},
    {"json-too-large", damaged, none, "A JSON document is larger than any real one, so it is not read.", "Engines read it whole into memory.",
     "Replace the file by the original."},
    {"document-unreadable", environment, none, "A document of the checkpoint exists and cannot be read.", "Every engine stops.",
     "Check the permissions of the file and, in a cache of links, that the link's target is there."},

    // io: safetensors files
    {"header-too-large", damaged, none, "The header's length field is above the 100,000,000 bytes that the format allows.",
     "The safetensors library refuses the file (header too large).", "Download the file again; its first eight bytes are wrong."},
    {"header-beyond-file", damaged, none, "The header's length field points behind the end of the file.",
     "The safetensors library refuses the file (invalid header length).", "Download the file again; it is cut off or its first eight bytes are wrong."},
    {"header-invalid-json", damaged, none, "The header is not the JSON that the safetensors format asks for.", "The safetensors library refuses the file.",
     "Download the file again or write it anew with the tool that made it."},
    {"header-duplicate-key", damaged, none, "The header holds a name twice, with two byte ranges: nothing says which one is meant.",
     "The safetensors library refuses the file if the ranges then leave a hole, and else takes the last.", "Write the file anew with the tool that made it."},
    {"header-not-utf8", damaged, none, "The header holds bytes that are not UTF-8.", "The safetensors library refuses the file.",
     "Download the file again or write it anew with the tool that made it."},
    {"dtype-unknown", unsupported, none, "A tensor has a dtype that is not known here, so neither its size nor its values are.",
     "The safetensors library refuses the file, unless the dtype is one of its FNUZ formats for AMD's first FP8 hardware.",
     "Convert the tensor to a dtype of the format, or use the tool that wrote it. A dtype of the same size is not guessed."},
    {"tensor-shape-overflow", damaged, none, "The product of a tensor's dimensions, or its size in bytes, exceeds 63 bits.",
     "The safetensors library refuses the file.", "Download the file again or write it anew with the tool that made it."},
    {"tensor-size-mismatch", damaged, none, "A tensor's dtype and shape ask for another number of bytes than its offsets give.",
     "The safetensors library refuses the file.", "Download the file again or write it anew with the tool that made it."},
    {"tensor-overlap", damaged, none, "Two tensors of one file claim the same bytes.", "The safetensors library refuses the file.",
     "Write the file anew with the tool that made it."},
    {"tensor-hole", damaged, none, "Bytes before or between two tensors belong to no tensor. Bytes may have been inserted, so that later offsets are wrong.",
     "The safetensors library refuses the file.", "Download the file again or write it anew with the tool that made it."},
    {"file-truncated", damaged, none, "The file ends before the last byte that its header describes.", "The safetensors library refuses the file.",
     "Download the file again."},
    {"file-trailing-bytes", damaged, none, "Bytes follow the last tensor; the format forbids them.",
     "The safetensors library refuses the file (not fully covered).", "Download the file again; two files may have been appended to each other."},

    // io: directories and the shard index
    {"weights-missing", damaged, none, "The directory has neither model.safetensors.index.json nor model.safetensors.",
     "Engines look for other weight files or stop.", "Download the weights, or convert them to safetensors with the tool that made them."},
    {"shard-missing", damaged, none, "The index names a file that is not there.", "Engines stop, or leave the weights of that file uninitialised.",
     "Download the missing file."},
    {"shard-unreadable", environment, none, "A file of weights exists and cannot be read.", "Every engine stops.",
     "Check the permissions of the file and, in a cache of links, that the link's target is there."},
    {"index-invalid", damaged, none, "model.safetensors.index.json is valid JSON and has no weight_map of names to file names.",
     "Engines stop with a KeyError.", "Download the index again."},
    {"index-path-traversal", damaged, none, "The index names a file outside the checkpoint's directory. It is not opened.",
     "Some loaders open whatever is named.", "Do not use this checkpoint before you know who wrote its index."},
    {"index-tensor-missing", damaged, none, "The index places a tensor in a file that does not hold it.",
     "Engines leave the weight uninitialised or stop with a KeyError.", "Download the index and the shards again, all from one revision."},
    {"index-tensor-unlisted", inconsistent, none, "A shard holds a tensor that the index does not list.",
     "Engines that go by shards load it, engines that go by the index do not.", "Download the index and the shards again, all from one revision."},
    {"tensor-duplicate", inconsistent, none, "One name stands in two shards. The values may differ.", "Engines keep the one that they read last.",
     "Delete the copy that the index does not name, or download all shards again from one revision."},
};

}  // namespace

std::span<const ProblemKind> problem_kinds() {
  return kinds;
}

}  // namespace qb
