// The table of problems: one row each, by the layer that finds it. docs/problems.md is generated from it.
#include "base/diagnostics.h"

namespace qb {
namespace {

using enum ProblemClass;
constexpr Repair none = Repair::none, exact = Repair::exact;

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
    {"checksum-mismatch", damaged, none, "A tensor's bytes are not those that were written: its checksum differs.", "They do not look.",
     "Fetch the file again."},

    // arch, dialect: configuration
    {"config-invalid", damaged, none, "A key of a document has a value that makes no sense.", "They fail somewhere else.", "Correct the key."},
    {"config-shape-mismatch", inconsistent, none, "config.json asks for other sizes than the tensors have.",
     "They fail with a shape message, or read beyond a tensor.", "Write the tensors' sizes into config.json."},
    {"config-disagree", inconsistent, exact, "Two documents of one checkpoint contradict each other; the tensors settle it.",
     "vLLM believes one, SGLang the other.", "Convert: the output says the same in both documents."},
    {"family-unsupported", unsupported, none, "The model family is not one whose modules are known.", "-", "See README for the families that are read."},
    {"algorithm-unsupported", unsupported, none, "The quantization algorithm, or a part of it, is not read yet.",
     "Many load such layers as unquantized, without an error.", "See README for the algorithms that are read."},
    {"pattern-invalid", damaged, none, "A pattern of an ignore or targets list does not compile.", "They fail, or skip it.", "Correct the pattern."},
    {"group-size-mismatch", inconsistent, exact, "The config names another group size than the scales have.",
     "They compute garbage or fail with a shape message.", "Convert: the output has the group size of the scales."},

    // dialect: names and lists
    {"ignore-ghost", suspicious, none, "An entry of the ignore list names no module of this checkpoint.",
     "Nothing, or a substring rule makes it hit another module.", "Drop the entry."},
    {"ignore-fused-name", inconsistent, exact, "An entry names a fused module (qkv_proj); the tensors are stored as its parts.",
     "Engines with other rules expect scales for the parts.", "Convert: the output names the parts."},
    {"ignore-prefix", inconsistent, exact, "An entry has a prefix that the tensors do not have.", "Engines expect scales for a plain module.",
     "Convert: the output has the tensors' names."},
    {"ignore-container", inconsistent, exact, "An entry names a container of modules without a wildcard.",
     "Substring rules also hit layers.10 for layers.1; exact rules hit nothing.", "Convert: the output names each module."},
    {"ignore-incomplete", inconsistent, exact, "lm_head is stored as plain numbers and no ignore entry says so.", "They expect scales for it.",
     "Convert: the output lists it."},
    {"layer-unquantized", suspicious, none, "A linear is stored as plain numbers although the config says that it is quantized.",
     "Silently unquantized, or an error about missing scales.", "Check that it was meant; convert writes it into the ignore list."},
    {"excluded-but-quantized", inconsistent, exact, "A module is quantized although an ignore entry names it; its tensors decide.",
     "They read packed bytes as plain numbers, or drop the scales.", "Convert: the output lists only unquantized modules."},
    {"targets-overlap", inconsistent, exact, "Two groups of targets claim one module with equal right and different schemes.",
     "The order of the names decides, silently.", "Convert: the output has one group for each module."},
    {"targets-miss", inconsistent, exact, "A quantized module that no target names; its tensors show its scheme.",
     "They leave it unquantized and drop its scales.", "Convert: the output names it."},

    // dialect: tensors
    {"module-missing", damaged, none, "A module that the model must have is not in the checkpoint.", "Some leave it at random values.",
     "Fetch the checkpoint again; a part of it is missing."},
    {"tensor-unclaimed", inconsistent, none, "A tensor that no module of the model explains.", "They ignore it, or warn.",
     "Find out what it is; nothing is dropped silently here."},
    {"weight-missing", damaged, none, "Scales are there, their weight is not.", "They start with a random or zero weight.",
     "Fetch the checkpoint again; a part of it is missing."},
    {"scale-missing", damaged, none, "A quantized weight without its scale.", "They assume 1.0, or fail.",
     "Fetch the checkpoint again, or quantize the original model anew."},
    {"input-scale-missing", damaged, none, "Activations are quantized with stored scales, and this one is absent.", "Uninitialised memory, 0 or 1.",
     "Calibrate again."},
    {"input-scale-unused", suspicious, none, "An activation scale that the weight-only algorithm has no use for.", "vLLM discards it.",
     "Nothing; it is left out of conversions."},
    {"dtype-unexpected", damaged, none, "A tensor has another dtype than its role in this algorithm allows.", "They read the bytes as something else, or fail.",
     "Check which tool wrote the checkpoint, and whether its labels are right."},
    {"weight-shape", damaged, none, "A weight's shape does not fit its scales and the config.", "They fail, or read across rows.",
     "Fetch the checkpoint again, or quantize the original model anew."},
    {"packed-shape-mismatch", inconsistent, exact, "The stored shape of packed codes is not the one that the codes, their scales and config.json have.",
     "They cut the weight, or fail.", "Convert: the output has the shape of the codes."},
    {"scale-shape", damaged, none, "A scale's shape does not fit its weight.", "They fail, or broadcast it wrongly.",
     "Fetch the checkpoint again, or quantize the original model anew."},
    {"group-order-invalid", damaged, none, "The stored order of groups (g_idx) names a group that has no scale.", "They read beyond the scales, or fail.",
     "Fetch the checkpoint again, or quantize the original model anew."},
    {"bias-shape", damaged, none, "A bias does not have one float for each output.", "They fail.", "Fetch the checkpoint again."},
    {"prescale-unexpected", inconsistent, none, "A pre_quant_scale beside an algorithm that has none.",
     "They drop it: the layer's inputs are then scaled wrongly.", "Ask the producer which algorithm was meant."},
    {"tied-embedding-quantized", suspicious, none, "The embedding table is quantized and is also the head.",
     "Some use the codes without the scale in the head.", "Check the output; an unquantized embedding is safer."},
    {"tied-head-differs", inconsistent, none, "tie_word_embeddings is true and another lm_head.weight is stored.", "Some take one, some the other.",
     "Correct tie_word_embeddings or remove lm_head.weight."},

    // dialect: KV cache
    {"kv-scale-name", repairable, exact, "A KV scale under a name that is not this dialect's own.", "They drop it to 1.0 with a log line at most.",
     "Convert: the output has the usual names."},
    {"kv-scale-unclaimed", inconsistent, none, "A KV scale that belongs to no attention module of the model.", "They drop it with a log line.",
     "Find out which module it belongs to."},
    {"kv-scale-missing", damaged, none, "A layer has one of its two KV scales.", "They use one value for both, or 1.0.", "Calibrate again."},
    {"kv-scale-duplicate", inconsistent, none, "A layer has one KV scale under two names.", "They keep whichever they read last.", "Remove one of the two."},
    {"kv-scales-absent", suspicious, none, "The KV cache is announced as FP8 and no scales are stored; 1.0 is used.", "They use 1.0.",
     "Nothing if it was meant (cast recipes); else calibrate."},
    {"kv-scale-uncalibrated", suspicious, none, "A KV scale of exactly 1/448: an amax of 1 that nobody measured.", "Keys and values above 1 saturate.",
     "Calibrate again, or drop the KV scheme."},
    {"kv-scale-large", suspicious, none, "A KV scale so large that it may be an amax stored in place of amax/448.", "Nearly all keys and values round to zero.",
     "Check the value with the producer."},

    // ir, bridge: numbers
    {"scale-nan", damaged, none, "A scale is NaN.", "NaN logits.", "Quantize the original model anew."},
    {"scale-inf", damaged, none, "A scale is infinite.", "Infinite or NaN logits.", "Quantize the original model anew."},
    {"scale-zero", damaged, none, "A scale is zero.", "A layer of zeros, or a division by zero.", "Quantize the original model anew."},
    {"block-scale-zero", suspicious, none, "A block scale is zero while its codes are not: those weights vanish.", "They compute with zeros.",
     "Compare with the original model."},
    {"scale-negative", suspicious, none, "A scale is negative; no producer writes such.", "They use it, or its absolute value.",
     "Compare with the original model."},
    {"code-nan", damaged, none, "A weight holds NaN codes.", "NaN logits.", "Quantize the original model anew."},
    {"weight-not-finite", damaged, none, "A plain weight holds NaN or infinity.", "NaN logits.", "Fetch the checkpoint again."},
    {"fused-scale-mismatch", inconsistent, none, "Second-level scales differ between modules that engines fuse into one matrix.",
     "vLLM takes the largest and leaves the block scales: the others come out wrong.",
     "Kept apart in conversions. For engines that fuse, bring the scales together."},
    {"fused-input-scale-mismatch", repairable, none, "Modules that read the same input have different activation scales.", "They take the largest.",
     "Kept apart in conversions."},
    {"module-unexplained", inconsistent, none, "A weight with neither a scheme nor a reason for having none.", "Silently unquantized.",
     "Report it: this should not happen."},

    // pass, dialect: requests
    {"scheme-inexpressible", unsupported, none, "The target dialect has no way to say what these modules are.", "-", "Choose another dialect."},
    {"calibration-needed", unsupported, none, "Static activation scales have to be measured on data.", "-",
     "Choose weight-only or run-time activation scales."},
    {"recipe-missing", unsupported, none, "No recipe makes this scheme under these numerics.", "-", "See `quantize --list`."},
    {"already-quantized", unsupported, none, "The checkpoint is quantized already.", "-", "Take the original model, or convert --to dense first."},
    {"group-does-not-divide", unsupported, none, "A linear's inputs are no whole number of groups.", "They refuse.", "Leave it out with --ignore."},
    {"nothing-to-quantize", unsupported, none, "No linear is left to quantize.", "-", "Check the ignore rules."},
};

}  // namespace

std::span<const ProblemKind> problem_kinds() {
  return kinds;
}

}  // namespace qb
