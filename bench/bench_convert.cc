// How fast conversion is, as ratios to what the machine can do in the same minute, on the same file system, from the same page cache.
//
// (a) moved: a byte-preserving run_plan against copy_file_range + fdatasync of the same file.
// (b) fp8_channel, int8_channel: BF16 quantized against the slower of (read the input) and (write the output bytes + fdatasync).
// (c) the recipes alone, one thread on a block that stays in the cache, against a plain read of memory with one thread: bytes of input for bytes read.
// The two sides of a pair take turns in going first, after a pause: disks with a write cache or a burst allowance slow down whoever comes second. The median
// and the spread of the ratio are printed. The input is read once before each measurement, so it comes from memory. Both start without the output file.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <random>
#include <thread>

#include "base/diagnostics.h"
#include "exec/run.h"
#include "host/host.h"
#include "host/probe.h"
#include "io/directory.h"
#include "io/output.h"
#include "num/codec.h"
#include "recipe/recipe.h"

namespace qb {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void die(const std::string& what) {
  fmt::print(stderr, "bench_convert: {}\n", what);
  std::exit(1);
}
template <class T>
T must(Result<T> r) {
  if (!r.ok()) die(r.error().what);
  return std::move(*r);
}
void must(Result<void> r) {
  if (!r.ok()) die(r.error().what);
}

double seconds(const std::function<void()>& f) {
  const auto begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

class Fd {
 public:
  Fd(const fs::path& path, int flags) : fd_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (fd_ < 0) die("cannot open " + path.string());
  }
  ~Fd() { ::close(fd_); }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

constexpr size_t chunk = 8 << 20;

void read_through(const fs::path& path) {
  const Fd fd(path, O_RDONLY);
  std::vector<char> buffer(chunk);
  while (::read(fd.get(), buffer.data(), buffer.size()) > 0) {
  }
}

void copy_durably(const fs::path& from, const fs::path& to) {
  const Fd in(from, O_RDONLY), out(to, O_WRONLY | O_CREAT | O_TRUNC);
  ssize_t n = 0;
  while ((n = ::copy_file_range(in.get(), nullptr, out.get(), nullptr, 1 << 30, 0)) > 0) {
  }
  if (n < 0 || ::fdatasync(out.get()) != 0) die("copy_file_range failed");
}

void write_durably(const fs::path& to, uint64_t bytes) {
  static const std::vector<char> data(1 << 20, 'x');
  const Fd out(to, O_WRONLY | O_CREAT | O_TRUNC);
  if (::posix_fallocate(out.get(), 0, static_cast<off_t>(bytes)) != 0) die("no space");
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t n = ::write(out.get(), data.data(), std::min<uint64_t>(data.size(), bytes - done));
    if (n <= 0) die("write failed");
    ::sync_file_range(out.get(), static_cast<off_t>(done), n, SYNC_FILE_RANGE_WRITE);  // the fastest durable write we know: nothing left for the end
    done += static_cast<uint64_t>(n);
  }
  if (::fdatasync(out.get()) != 0) die("fdatasync failed");
}

// Layers of a usual shape: large matrices between small vectors, near normal weights.
std::vector<TensorInfo> make_model(const fs::path& dir, uint64_t bytes) {
  std::vector<TensorInfo> tensors;
  const auto add = [&tensors](const std::string& name, int64_t rows, int64_t cols) {
    const uint64_t at = tensors.empty() ? 0 : tensors.back().offset + tensors.back().bytes;
    TensorInfo t{.name = name, .dtype = Elem::bf16, .shape = {rows, cols}, .file = 0, .offset = at, .bytes = static_cast<uint64_t>(rows * cols * 2)};
    tensors.push_back(t);
    return at + t.bytes;
  };
  uint64_t at = 0;
  for (int layer = 0; at < bytes; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    add(prefix + "input_layernorm.weight", 1, 2048);
    for (const char* name : {"self_attn.q_proj.weight", "self_attn.o_proj.weight"}) add(prefix + name, 2048, 2048);
    for (const char* name : {"mlp.gate_proj.weight", "mlp.up_proj.weight"}) add(prefix + name, 5632, 2048);
    at = add(prefix + "mlp.down_proj.weight", 2048, 5632);
  }
  const std::string header = write_safetensors_header(tensors, {});
  std::ofstream out(dir / "model.safetensors", std::ios::binary);
  out << header;
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  std::vector<uint16_t> weights(chunk / 2);
  for (uint16_t& w : weights) w = encode_bf16(normal(random));
  for (uint64_t done = 0; done < at; done += chunk) {
    out.write(reinterpret_cast<const char*>(weights.data()), static_cast<std::streamsize>(std::min<uint64_t>(chunk, at - done)));
  }
  std::ofstream(dir / "config.json") << "{}";
  if (!out.flush()) die("cannot write the model");
  for (TensorInfo& t : tensors) t.offset += header.size();
  return tensors;
}

prog::Input input(const TensorInfo& t) {
  const int64_t n = t.shape[0], k = t.shape[1];
  return {t.name, t.file, t.offset, t.bytes, t.dtype, {{n, k}, {k * 16, 16}, 0}, 1};
}

std::vector<prog::Program> moved(const std::vector<TensorInfo>& tensors) {
  std::vector<prog::Program> programs;
  for (const TensorInfo& t : tensors) {
    programs.push_back({.inputs = {input(t)}, .reductions = {}, .ops = {prog::Copy{0}}, .outputs = {{t.name, t.dtype, t.shape, 1}}, .rows = t.shape[0]});
  }
  return programs;
}

const recipe::Recipe& recipe_of(const ir::QuantType& type, recipe::Numerics numerics = recipe::Numerics::llm_compressor) {
  const recipe::Recipe* r = recipe::find_recipe(type, numerics);
  if (r == nullptr) die("no recipe for " + ir::to_string(type));
  return *r;
}

// By channel, in bytes.
std::vector<prog::Program> quantized(const std::vector<TensorInfo>& tensors, const ir::QuantType& channel) {
  const recipe::Recipe& r = recipe_of(channel);
  std::vector<prog::Program> programs = moved(tensors);
  for (prog::Program& p : programs) {
    if (p.rows == 1) continue;
    const std::string name = p.outputs[0].name;
    p.ops = {prog::Quantize{std::string(r.name), channel, 0}};
    p.outputs = {{name, is_integer_code(channel.code) ? Elem::i8 : channel.code, p.outputs[0].shape, 1},
                 {name + "_scale", r.scale_elem(Elem::bf16), {p.rows, 1}, 2}};
  }
  return programs;
}

struct Setting {
  fs::path base, in;
  int threads, repeats;
  bool checksums;
};

RunReport convert(const Setting& s, const std::vector<PlannedFile>& files, Source& source) {
  Context context;
  context.limits.threads = s.threads;
  context.isa = host::detect_isa();
  auto out = must(OutputDirectory::create(s.base / "out", s.in, true, "bench", files[0].bytes));
  const RunReport report = must(run_plan(files, source, *out, s.checksums, context));
  must(out->commit());
  return report;
}

void compare(std::string_view name, int repeats, uint64_t bytes, const std::function<double()>& ours, const std::function<double()>& limit) {
  std::vector<double> ratios, mine, theirs;
  for (int i = 0; i < repeats; ++i) {
    if (i % 2 == 0) theirs.push_back(limit());
    mine.push_back(ours());
    if (i % 2 != 0) theirs.push_back(limit());
    ratios.push_back(theirs.back() / mine.back());
  }
  for (auto* v : {&ratios, &mine, &theirs}) std::sort(v->begin(), v->end());
  const auto middle = ratios.size() / 2;
  fmt::print("{:<13} ratio {:.2f} ({:.2f} .. {:.2f})  ours {:.2f} s, limit {:.2f} s, {:.2f} GB/s of input, {} repeats\n", name, ratios[middle], ratios.front(),
             ratios.back(), mine[middle], theirs[middle], static_cast<double>(bytes) / mine[middle] / 1e9, repeats);
}

ir::QuantType type_of(const char* scheme) {
  return must(ir::parse_scheme(scheme)).weight;
}

void compute_alone(int repeats) {
  constexpr int64_t rows = 512, k = 2048;  // 2 MiB
  constexpr int rounds = 16;
  const Isa isa = host::detect_isa();
  std::vector<uint16_t> weights(rows * k);
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0.0F, 0.02F);
  for (uint16_t& w : weights) w = encode_bf16(normal(random));
  std::vector<std::byte> memory(size_t{256} << 20, std::byte{1}), codes(weights.size()), scales(weights.size());
  const auto both = {recipe::Numerics::llm_compressor, recipe::Numerics::modelopt};
  for (const char* scheme : {"fp8_channel", "int8_channel", "nvfp4"}) {
    for (const recipe::Numerics numerics : both) {
      const ir::QuantType type = type_of(scheme);
      const recipe::Recipe& r = recipe_of(type, numerics);
      std::byte global[4];
      const recipe::Args args{.weights = weights.data(),
                              .source = Elem::bf16,
                              .rows = rows,
                              .k = k,
                              .n = rows,
                              .amax = 0.1F,
                              .type = type,
                              .codes = codes.data(),
                              .scales = scales.data(),
                              .global = type.two_level() ? global : nullptr,
                              .isa = isa};
      std::vector<double> ratios, rates;
      for (int i = 0; i < repeats; ++i) {
        const auto timed = [](const std::function<void()>& f) {
          const double begin = host::thread_seconds();
          f();
          return host::thread_seconds() - begin;
        };
        const double read = static_cast<double>(memory.size()) / timed([&] { host::read_bytes(memory, isa); });
        const double made = static_cast<double>(rounds * rows * k * 2) / timed([&] {
                              for (int round = 0; round < rounds; ++round) r.run(args);
                            });
        ratios.push_back(made / read);
        rates.push_back(made * 1e-9);
      }
      for (auto* v : {&ratios, &rates}) std::sort(v->begin(), v->end());
      const auto middle = ratios.size() / 2;
      fmt::print("{:<27} alone, one thread: {:.2f} of a plain read ({:.2f} .. {:.2f}), {:.1f} GB/s of input\n", r.name, ratios[middle], ratios.front(),
                 ratios.back(), rates[middle]);
    }
  }
}

int run(int argc, char** argv) {
  if (argc < 2) die("usage: bench_convert DIRECTORY [MEGABYTES=2000] [THREADS=all] [REPEATS=7] [CHECKSUMS=1]");
  const auto number = [&](int i, int fallback) { return argc > i ? std::atoi(argv[i]) : fallback; };
  Setting s{fs::path(argv[1]) / "bench_convert", {}, number(3, host::processors()), number(4, 7), number(5, 1) != 0};
  s.in = s.base / "in";
  fs::remove_all(s.base);
  fs::create_directories(s.in);
  const auto tensors = make_model(s.in, static_cast<uint64_t>(number(2, 2000)) * 1000 * 1000);
  Diagnostics diag;
  const Package package = must(open_directory(s.in, diag));
  if (!diag.ok()) die("the model is not sound");
  const fs::path model = s.in / "model.safetensors", copy = s.base / "copy";
  const uint64_t bytes = fs::file_size(model);
  fmt::print("{} bytes, {} threads, checksums {}\n", bytes, s.threads, s.checksums ? "on" : "off");
  const auto fresh = [&] {
    fs::remove_all(s.base / "out");
    fs::remove(copy);
    ::sync();
    std::this_thread::sleep_for(std::chrono::seconds(2));
    read_through(model);
  };

  const auto move_files = plan_files(moved(tensors), UINT64_MAX);
  compare(
      "moved", s.repeats, bytes, [&] { return fresh(), seconds([&] { convert(s, move_files, *package.source); }); },
      [&] { return fresh(), seconds([&] { copy_durably(model, copy); }); });

  for (const char* scheme : {"fp8_channel", "int8_channel"}) {
    const auto files = plan_files(quantized(tensors, type_of(scheme)), UINT64_MAX);
    compare(
        scheme, s.repeats, bytes, [&] { return fresh(), seconds([&] { convert(s, files, *package.source); }); },
        [&] {
          fresh();
          const double read = seconds([&] { read_through(model); });
          return std::max(read, seconds([&] { write_durably(copy, files[0].bytes); }));
        });
  }
  compute_alone(s.repeats);
  fmt::print("peak anonymous memory {} MiB\n", host::peak_anonymous() >> 20);
  fs::remove_all(s.base);
  return 0;
}

}  // namespace
}  // namespace qb

int main(int argc, char** argv) {
  return qb::run(argc, argv);
}
