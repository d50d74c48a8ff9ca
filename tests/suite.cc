#include "suite.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>

#include "arch/joined.h"
#include "arch/match.h"
#include "exec/context.h"
#include "host/host.h"
#include "num/codec.h"
#include "num/elem.h"

namespace qb::suite {
namespace fs = std::filesystem;

// ---- files ----------------------------------------------------------------------------------------------------------------------------------------------

std::string read_bytes(const Path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const Path& file, std::string_view bytes) {
  std::ofstream out(file, std::ios::binary);
  out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

Json read_document(const Path& file) {
  Json out;
  JsonError error;
  if (!fs::exists(file) || !parse_json(read_bytes(file), out, error)) return nullptr;
  return out;
}

namespace {

std::vector<Path> safetensors_in(const Path& dir) {
  std::vector<Path> files;
  for (const fs::directory_entry& e : fs::directory_iterator(dir))
    if (e.path().extension() == ".safetensors") files.push_back(e.path());
  std::sort(files.begin(), files.end());
  return files;
}

// Header as JSON and where the data begin; false for anything that is no safetensors file.
bool read_header(std::string_view bytes, Json& header, size_t& data) {
  uint64_t length = 0;
  if (bytes.size() < 8) return false;
  std::memcpy(&length, bytes.data(), 8);
  if (length > bytes.size() - 8) return false;
  JsonError error;
  data = 8 + static_cast<size_t>(length);
  return parse_json(bytes.substr(8, static_cast<size_t>(length)), header, error) && header.is_object();
}

std::string with_header(const Json& header, std::string_view data) {
  std::string text = dump_json(header, -1);
  while (text.size() % 8 != 0) text += ' ';
  const uint64_t length = text.size();
  std::string out(8, '\0');
  std::memcpy(out.data(), &length, 8);
  out += text;
  out += data;
  return out;
}

}  // namespace

Weights read_weights(const Path& dir) {
  Weights out;
  for (const Path& file : safetensors_in(dir)) {
    const std::string bytes = read_bytes(file);
    Json header;
    size_t data = 0;
    if (!read_header(bytes, header, data)) continue;
    std::vector<std::pair<size_t, std::string>> order;
    for (auto it = header.begin(); it != header.end(); ++it) {
      if (it.key() == "__metadata__") {
        for (auto m = it->begin(); m != it->end(); ++m) out.metadata[file.filename()][m.key()] = m->get<std::string>();
        continue;
      }
      const auto begin = (*it)["data_offsets"][0].get<size_t>(), end = (*it)["data_offsets"][1].get<size_t>();
      if (begin > end || end > bytes.size() - data) continue;
      out.tensors[it.key()] = {(*it)["dtype"].get<std::string>(), (*it)["shape"].get<std::vector<int64_t>>(), bytes.substr(data + begin, end - begin)};
      order.emplace_back(begin, it.key());
    }
    std::stable_sort(order.begin(), order.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (auto& [offset, name] : order) out.order.push_back(std::move(name));
  }
  return out;
}

void write_weights(const Path& file, const Weights& weights) {
  Json header = Json::object();
  std::string data;
  for (const std::string& name : weights.order) {
    const Tensor& t = weights.tensors.at(name);
    header[name] = {{"dtype", t.dtype}, {"shape", t.shape}, {"data_offsets", {data.size(), data.size() + t.bytes.size()}}};
    data += t.bytes;
  }
  write_bytes(file, with_header(header, data));
}

int drop_metadata(const Path& dir, std::string_view key) {
  int had = 0;
  for (const Path& file : safetensors_in(dir)) {
    const std::string bytes = read_bytes(file);
    Json header;
    size_t data = 0;
    if (!read_header(bytes, header, data) || !header.contains("__metadata__") || !header["__metadata__"].contains(std::string(key))) continue;
    header["__metadata__"].erase(std::string(key));
    write_bytes(file, with_header(header, std::string_view(bytes).substr(data)));
    ++had;
  }
  return had;
}

std::string describe(const Tensor& t) {
  return fmt::format("{} [{}]", t.dtype, fmt::join(t.shape, ","));
}

std::vector<double> values(const Tensor& t) {
  const std::optional<Elem> elem = elem_from_safetensors(t.dtype);
  std::vector<double> out;
  if (!elem) return out;
  const size_t width = static_cast<size_t>(bits(*elem)) / 8;
  for (size_t at = 0; at + width <= t.bytes.size(); at += width) {
    uint32_t u = 0;
    std::memcpy(&u, t.bytes.data() + at, std::min<size_t>(width, 4));
    out.push_back(*elem == Elem::f32    ? std::bit_cast<float>(u)
                  : *elem == Elem::bf16 ? decode_bf16(static_cast<uint16_t>(u))
                  : *elem == Elem::f16  ? decode_f16(static_cast<uint16_t>(u))
                                        : static_cast<double>(u));
  }
  return out;
}

// ---- fixtures -------------------------------------------------------------------------------------------------------------------------------------------

Path root() {
  const char* set = getenv("QUANTBRIDGE_FIXTURES");
  return set != nullptr && *set != '\0' ? Path(set) : Path(QB_TEST_DATA) / "fixtures";
}

namespace {

std::string from_base64(std::string_view text) {
  constexpr std::string_view digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  uint32_t bits = 0;
  int have = 0;
  for (const char c : text.substr(0, text.find('='))) {
    bits = bits << 6 | static_cast<uint32_t>(digits.find(c));
    have += 6;
    if (have >= 8) out += static_cast<char>(bits >> (have -= 8) & 0xff);
  }
  return out;
}

// What tools/fixture_delta.py took apart.
std::string joined(const Path& file) {
  const Json delta = read_document(file);
  const std::string base = read_bytes(file.parent_path() / delta["from"].get<std::string>());
  std::string out;
  for (const Json& piece : delta["pieces"])
    out += piece.is_string() ? from_base64(piece.get<std::string>()) : base.substr(piece[0].get<size_t>(), piece[1].get<size_t>());
  return out;
}

// The directory itself, or where some of its files are stored as differences, a whole copy of it that lasts as long as the process.
Path whole(const Path& dir) {
  const auto is_delta = [](const fs::directory_entry& e) { return e.path().extension() == ".delta"; };
  if (!fs::is_directory(dir) || std::none_of(fs::directory_iterator(dir), fs::directory_iterator(), is_delta)) return dir;
  static const Scratch scratch;
  const Path out = scratch / dir.filename().string();
  fs::create_directories(out);
  for (const fs::directory_entry& e : fs::directory_iterator(dir)) {
    if (is_delta(e))
      write_bytes(out / e.path().stem(), joined(e.path()));
    else
      fs::copy(e.path(), out / e.path().filename(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  }
  return out;
}

}  // namespace

Fixture fixture_at(const Path& dir) {
  Fixture f;
  f.path = whole(dir);
  f.name = (dir.parent_path().filename() / dir.filename()).string();
  f.config = read_document(dir / "config.json");
  const Json file = read_document(dir / "hf_quant_config.json");
  if (file.is_object() && file.contains("quantization")) f.quant = file["quantization"];
  f.expected = read_document(dir / (fs::exists(dir / "expected_problem.json") ? "expected_problem.json" : "expected.json"));
  return f;
}

std::vector<Fixture> fixtures(std::string_view folder) {
  std::vector<Fixture> out;
  std::vector<Path> dirs{root() / folder};
  if (folder == "broken" && dirs.front() == Path(QB_TEST_DATA) / "fixtures" / "broken") dirs.push_back(Path(QB_TEST_DATA) / "broken");
  for (const Path& dir : dirs) {
    if (!fs::is_directory(dir)) continue;
    for (const fs::directory_entry& e : fs::directory_iterator(dir))
      if (e.is_directory()) out.push_back(fixture_at(e.path()));
  }
  std::sort(out.begin(), out.end(), [](const Fixture& a, const Fixture& b) { return a.name < b.name; });
  return out;
}

// ---- scope ----------------------------------------------------------------------------------------------------------------------------------------------

namespace {

Json quantization_config(const Fixture& f) {
  if (const Json* q = f.config.is_object() ? find(f.config, "quantization_config") : nullptr; q != nullptr && q->is_object()) return *q;
  return nullptr;
}

bool empty(const Json& object, const char* key) {
  const Json* v = find(object, key);
  return v == nullptr || v->is_null() || (v->is_object() && v->empty()) || (v->is_array() && v->empty());
}

std::string strategy_of(const Json& args) {
  if (const std::string_view s = string_at(args, "strategy"); !s.empty()) return std::string(s);
  return int_at(args, "group_size", 0) > 0 ? "group" : "tensor";
}

bool is_dynamic(const Json& args) {
  return bool_at(args, "dynamic", false);
}
bool is_local(const Json& args) {
  return string_at(args, "dynamic") == "local";
}

bool is_fp8(const Json& args) {
  return string_at(args, "type") == "float" && int_at(args, "num_bits", 0) == 8 && string_at(args, "scale_dtype") != "torch.uint8";
}
bool is_nvfp4(const Json& args) {
  return string_at(args, "type") == "float" && int_at(args, "num_bits", 0) == 4 && strategy_of(args) == "tensor_group" && int_at(args, "group_size", 0) == 16;
}

bool is_mx(const Json& args) {
  return string_at(args, "type") == "float" && strategy_of(args) == "group" && int_at(args, "group_size", 0) == 32 &&
         string_at(args, "scale_dtype") == "torch.uint8";
}

bool is_integer(const Json& args) {
  const int64_t bits = int_at(args, "num_bits", 8);
  return string_at(args, "type", "int") == "int" && bits >= 2 && bits <= 8;
}

bool one_of(std::string_view word, std::initializer_list<std::string_view> list) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// Why a group of config_groups is out of scope; empty when it is in.
std::string group_trouble(const Json& group, std::string format) {
  if (const std::string_view own = string_at(group, "format"); !own.empty()) format = own;
  if (!one_of(format, {"float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mxfp8-quantized", "int-quantized",
                       "pack-quantized", "dense"}))
    return "format " + format;
  if (!empty(group, "output_activations")) {
    const Json& output = group["output_activations"];
    if (is_dynamic(output) || strategy_of(output) != "tensor" || !(is_fp8(output) || is_integer(output))) return "output activations";
  }
  if (empty(group, "weights")) return "no weights";
  const Json& w = group["weights"];
  const Json input = empty(group, "input_activations") ? Json() : group["input_activations"];
  if (!bool_at(w, "symmetric", true) && !is_integer(w)) return "asymmetric";
  if (is_mx(w)) return input.is_null() || (is_mx(input) && is_dynamic(input)) ? "" : "activations of MX";
  if (is_nvfp4(w)) return input.is_null() || (is_nvfp4(input) && is_local(input)) ? "" : "activations of NVFP4";
  if (!one_of(strategy_of(w), {"tensor", "channel", "group", "block"}) || !(is_fp8(w) || (is_integer(w) && strategy_of(w) != "block")))
    return "weights " + dump_json(w, -1);
  if (input.is_null()) return "";
  if (!is_fp8(input) && !(is_integer(w) && is_integer(input))) return "activations " + dump_json(input, -1);
  if (is_dynamic(input) ? one_of(strategy_of(input), {"tensor", "token", "group"}) : strategy_of(input) == "tensor") return "";
  return "activations " + dump_json(input, -1);
}

Scope modelopt_scope(const Fixture& f) {
  const Json q = quantization_config(f);
  const auto word = [&](const char* key) {
    if (f.quant.is_object() && !string_at(f.quant, key).empty()) return std::string(string_at(f.quant, key));
    return q.is_object() ? std::string(string_at(q, key)) : std::string();
  };
  const std::string algo = word("quant_algo"), kv = word("kv_cache_quant_algo");
  if (algo.empty() && kv.empty()) return {false, "no algorithm"};
  return {true, algo + (kv.empty() ? "" : " kv")};
}

Scope compressed_scope(const Json& q) {
  std::string why(string_at(q, "format"));
  const std::string sparsity(empty(q, "sparsity_config") ? "dense" : string_at(q["sparsity_config"], "format", "dense"));
  if (!one_of(sparsity, {"dense", "sparse-24-bitmask", "sparse-bitmask"})) return {false, "sparse"};
  std::string transforms;
  if (!empty(q, "transform_config") && !empty(q["transform_config"], "config_groups")) {
    for (const Json& group : q["transform_config"]["config_groups"])
      for (const Json& apply : group["apply"]) {
        const std::string_view location = string_at(apply, "location");
        if (!one_of(location, {"weight_input", "weight_output", "input", "output"})) return {false, "transforms"};
        if (!location.starts_with("weight")) transforms = " online transforms";
      }
    if (transforms.empty()) transforms = " transforms";
  }
  if (!empty(q, "config_groups")) {
    const std::string format = why;
    if (string_at(q, "quantization_status", "compressed") != "compressed") why += " uncompressed";
    for (const Json& group : q["config_groups"])
      if (std::string trouble = group_trouble(group, format); !trouble.empty()) return {false, trouble};
  } else if (empty(q, "kv_cache_scheme") && sparsity == "dense") {
    return {false, "nothing quantized"};
  }
  if (sparsity != "dense") why += (why.empty() ? "" : " ") + sparsity;
  why += transforms;
  if (!empty(q, "kv_cache_scheme")) {
    const Json& kv = q["kv_cache_scheme"];
    if (!is_fp8(kv) || is_dynamic(kv) || !one_of(strategy_of(kv), {"tensor", "attn_head"})) return {false, "KV " + dump_json(kv, -1)};
    why += " kv";
  }
  return {true, why};
}

}  // namespace

const Fixture* base_of(const std::vector<Fixture>& bases, const std::vector<Weights>& weights, const Fixture& f, const Weights& w) {
  for (size_t i = 0; i < bases.size(); ++i) {
    if (string_at(bases[i].config, "model_type") != string_at(f.config, "model_type")) continue;
    const std::set<std::string> mine = linears(w), theirs = linears(weights[i]);
    bool same = mine == theirs && !mine.empty();
    for (const auto& [name, tensor] : weights[i].tensors) {
      const size_t dot = name.rfind('.');
      if (!same || mine.contains(name.substr(0, dot))) continue;
      const auto it = w.tensors.find(name);
      same = it != w.tensors.end() && it->second == tensor;
    }
    if (same) return &bases[i];
  }
  return nullptr;
}

Scope scope_of(const Fixture& f) {
  if (!f.config.is_object()) return {false, "no config.json"};
  const Json* text = find(f.config, "text_config");
  const std::string family(string_at(text != nullptr && text->is_object() ? *text : f.config, "model_type"));
  if (!one_of(family, {"llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "phi3", "deepseek_v2", "deepseek_v3", "gemma2", "gemma3_text",
                       "gpt_oss"}))
    return {false, "family " + family};
  const Json q = quantization_config(f);
  const std::string method(q.is_object() ? string_at(q, "quant_method") : "");
  if (method == "compressed-tensors") return compressed_scope(q);
  if (method == "modelopt" || (method.empty() && f.quant.is_object())) return modelopt_scope(f);
  if (method == "fp8") return {true, empty(q, "weight_block_size") ? "fp8 tensor" : "fp8 tiles"};
  if (method == "mxfp4") return {true, "mxfp4 stacks"};
  if (method == "awq" && int_at(q, "bits", 4) == 4 && one_of(string_at(q, "version", "gemm"), {"gemm", "gemv"})) return {true, "awq"};
  const Json beside = q.is_null() ? read_document(f.path / "quantize_config.json") : Json();
  if (method == "gptq" || beside.is_object()) {
    const Json& args = q.is_null() ? beside : q;
    const std::string format(string_at(args, "checkpoint_format", "gptq"));
    const int64_t bits = int_at(args, "bits", 0);
    if (!one_of(format, {"gptq", "gptq_v2", "gptq_p"}) || bits < 2 || bits > 8) return {false, "format " + format};
    return {true, fmt::format("{} {}{}", format, bits, bool_at(args, "desc_act", false) ? " ordered" : "")};
  }
  if (q.is_null()) return {true, "dense"};
  return {false, "quant_method " + method};
}

// ---- what documents mean --------------------------------------------------------------------------------------------------------------------------------

std::set<std::string> linears(const Weights& w) {
  std::set<std::string> out;
  for (const auto& [name, tensor] : w.tensors)
    for (const std::string_view suffix : {".weight", ".weight_packed"})
      if (name.ends_with(suffix) && tensor.shape.size() == 2 && tensor.dtype != "F64" && !name.ends_with("embed_tokens" + std::string(suffix)))
        out.insert(name.substr(0, name.size() - suffix.size()));
  return out;
}

namespace {

std::set<std::string> matched(const Json& object, const char* key, const std::set<std::string>& paths, bool shell) {
  std::set<std::string> out;
  const Json* list = find(object, key);
  if (list == nullptr || !list->is_array()) return out;
  for (const Json& e : *list) {
    const Result<NameRule> rule = shell ? NameRule::shell(e.get<std::string>()) : NameRule::compressed_tensors(e.get<std::string>(), host::compile_regex);
    for (const std::string& path : paths)
      if (rule.ok() && rule->match(path, arch::Kind::linear) != NameRule::How::no) out.insert(path);
  }
  return out;
}

// Numbers and words of QuantizationArgs that change what is computed.
std::string canonical(const Json& args) {
  if (args.is_null()) return "none";
  if (args.is_string()) return args.get<std::string>();
  const auto value = [&](const char* key) { return args.contains(key) ? dump_json(args[key], -1) : "null"; };
  return fmt::format("{}{} {} group {} block {} dynamic {}{}", string_at(args, "type", "int"), int_at(args, "num_bits", 8), strategy_of(args),
                     strategy_of(args).ends_with("group") ? value("group_size") : "null", value("block_structure"),
                     is_local(args)     ? "local"
                     : is_dynamic(args) ? "yes"
                                        : "no",
                     bool_at(args, "symmetric", true) ? "" : " asymmetric");
}

}  // namespace

std::string hf_fp8_meaning(const Fixture& f, const Weights& w) {
  const Json q = quantization_config(f);
  std::string text = fmt::format("{} {} {}", string_at(q, "activation_scheme"), string_at(q, "scale_fmt", "float"),
                                 q.contains("weight_block_size") ? dump_json(q["weight_block_size"], -1) : "null");
  for (const std::string& path : linears(w)) {
    const auto it = w.tensors.find(path + ".weight");
    if (it != w.tensors.end() && it->second.dtype == "F8_E4M3") text += " " + path;
  }
  return text;
}

std::string packed_meaning(const Fixture& f) {
  const Json q = quantization_config(f);
  return fmt::format("{} {} {} {} sym {} order {} zeros {}", string_at(q, "quant_method"), int_at(q, "bits", 0), int_at(q, "group_size", 0),
                     string_at(q, "checkpoint_format", string_at(q, "version")), bool_at(q, "sym", true), bool_at(q, "desc_act", false),
                     bool_at(q, "zero_point", true));
}

ModelOptMeaning modelopt_file_meaning(const Fixture& f, const Weights& w) {
  if (!f.quant.is_object()) return {"absent", "", {}};
  return {std::string(string_at(f.quant, "quant_algo")), std::string(string_at(f.quant, "kv_cache_quant_algo")),
          matched(f.quant, "exclude_modules", linears(w), true)};
}

ModelOptMeaning modelopt_embedded_meaning(const Fixture& f, const Weights& w) {
  const Json q = quantization_config(f);
  if (!q.is_object()) return {"absent", "", {}};
  return {std::string(string_at(q, "quant_algo")), empty(q, "kv_cache_scheme") ? "" : canonical(q["kv_cache_scheme"]), matched(q, "ignore", linears(w), true)};
}

CompressedMeaning compressed_meaning(const Fixture& f, const Weights& w) {
  CompressedMeaning out;
  const Json q = quantization_config(f);
  if (!q.is_object()) return out;
  const std::set<std::string> all = linears(w);
  out.ignored = matched(q, "ignore", all, false);
  out.kv = empty(q, "kv_cache_scheme") ? "none" : canonical(q["kv_cache_scheme"]);
  if (empty(q, "config_groups")) return out;
  std::map<std::string, std::pair<NameRule::How, std::string>> best;  // of each linear: exact names come before patterns, these before classes
  for (const Json& g : q["config_groups"]) {
    const std::string_view own = string_at(g, "format");
    const std::string text = fmt::format("{} | {} | {}", own.empty() ? string_at(q, "format") : own, canonical(g["weights"]),
                                         canonical(empty(g, "input_activations") ? Json() : g["input_activations"]));
    for (const Json& target : g["targets"]) {
      const Result<NameRule> rule = NameRule::compressed_tensors(target.get<std::string>(), host::compile_regex);
      for (const std::string& path : all) {
        const NameRule::How how = rule.ok() ? rule->match(path, arch::Kind::linear) : NameRule::How::no;
        if (how == NameRule::How::no || out.ignored.contains(path)) continue;
        const std::pair mine{how, target.get<std::string>()};
        if (const auto it = best.find(path); it != best.end() && it->second < mine) continue;
        best[path] = mine;
        out.schemes[path] = text;
      }
    }
  }
  return out;
}

// ---- running --------------------------------------------------------------------------------------------------------------------------------------------

Scratch::Scratch() {
  // Outputs are synced, which costs nothing in memory.
  std::string pattern = (access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : testing::TempDir()) + "quantbridge-XXXXXX";
  const char* made = mkdtemp(pattern.data());
  if (made == nullptr) ADD_FAILURE() << "no directory " << pattern;
  path_ = made != nullptr ? made : pattern;
}

Scratch::~Scratch() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::set<std::string> Outcome::codes() const {
  std::set<std::string> out;
  for (const Problem& p : diag.all()) out.insert(p.code);
  return out;
}

std::string Outcome::text() const {
  std::string out = error;
  for (const Problem& p : diag.all())
    out += fmt::format("\n  {} {} [{}]: {} {}: found {}, expected {}", to_string(p.severity), p.code, to_string(p.cls), escape(p.tensor), escape(p.module),
                       escape(p.found), escape(p.expected));
  return out;
}

JobOptions to_dialect(std::string dialect) {
  JobOptions options;
  options.to = std::move(dialect);
  return options;
}

Outcome convert(const Path& in, const Path& out, const JobOptions& options, const Limits& limits) {
  Outcome result;
  Result<Session> session = open_session(in);
  if (!session) {
    result.error = session.error().what;
    return result;
  }
  result.readable = session->readable;
  Context context;
  context.limits = limits;
  context.isa = host::detect_isa();
  Job job;
  if (!plan_job(*session, options, context, job, result.diag)) return result;
  for (const Export::Lost& l : job.plan.lost) result.lost.push_back(l.what);
  for (const Export::SchemeChange& c : job.plan.scheme_changes) result.changes.push_back(fmt::format("{} to {}", c.from, c.to));
  result.repairs = job.repairs;
  Result<JobReport> report = write_job(*session, job, out, false, options.checksums, context);
  if (!report) result.error = report.error().what;
  result.written = report.ok();
  return result;
}

void same_bytes(const Path& want, const Path& got) {
  const Weights a = read_weights(want), b = read_weights(got);
  for (const auto& [name, tensor] : a.tensors) {
    ASSERT_TRUE(b.tensors.contains(name)) << name << " is missing";
    EXPECT_EQ(describe(b.tensors.at(name)), describe(tensor)) << name;
    EXPECT_TRUE(b.tensors.at(name).bytes == tensor.bytes) << name << ": other bytes";
  }
  EXPECT_EQ(b.tensors.size(), a.tensors.size());
}

FormsThere::FormsThere(const arch::Topology& t) {
  for (const arch::Module& m : t.modules) {
    fused |= !m.parts.empty() && m.kind != arch::Kind::expert;
    stacked |= m.kind == arch::Kind::expert;
  }
  separate = !arch::fusable(t.modules).empty();
  experts = !arch::stackable(t.modules).empty();
}

std::vector<pass::Forms> FormsThere::others() const {
  using pass::Form;
  const auto other = [](bool joined, bool apart) { return joined ? Form::separate : apart ? Form::joined : Form::as_is; };
  const pass::Forms both{other(fused, separate), other(stacked, experts)};
  std::vector<pass::Forms> out;
  if (both.projections != Form::as_is) out.push_back({both.projections, Form::as_is});
  if (both.experts != Form::as_is) out.push_back({Form::as_is, both.experts});
  if (out.size() == 2) out.push_back(both);
  return out;
}

Kind kind_of(const Session& s) {
  Kind out;
  for (const ir::Module& m : s.checkpoint.modules)
    if (m.scheme) out.schemes.insert(to_string(*m.scheme) + (m.stack.experts > 0 ? " in stacks" : ""));
  if (s.checkpoint.kv) out.kv = to_string(*s.checkpoint.kv);
  return out;
}

std::string Kind::text() const {
  return fmt::format("{}{}", schemes.empty() ? "none" : fmt::format("{}", fmt::join(schemes, " + ")), kv.empty() ? "" : " " + kv);
}

std::optional<Path> checkpoint_at(const std::string& name) {
  for (const Path& folder : {root(), Path(QB_TEST_DATA) / "fixtures"})
    if (std::filesystem::exists(folder / name / "config.json")) return folder / name;
  return std::nullopt;
}

Path calibration_ids(const Fixture& base, const Scratch& scratch) {
  Weights ids = read_weights(Path(QB_TEST_DATA) / "calibration");
  const Json* text = find(base.config, "text_config");
  const int64_t vocab = int_at(text != nullptr ? *text : base.config, "vocab_size", 0);
  Tensor& t = ids.tensors.at("input_ids");
  for (size_t at = 0; at < t.bytes.size(); at += 8) {
    int64_t id = 0;
    std::memcpy(&id, t.bytes.data() + at, 8);
    id %= vocab;
    std::memcpy(t.bytes.data() + at, &id, 8);
  }
  Path file = scratch / "ids.safetensors";
  write_weights(file, ids);
  return file;
}

}  // namespace qb::suite
