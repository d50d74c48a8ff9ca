// The public object over sessions and jobs.
#include "quantbridge/bridge.h"

#include <fmt/format.h>

#include <map>

#include "bridge/job.h"
#include "bridge/rotate.h"
#include "exec/execute.h"
#include "host/host.h"

namespace qb {

struct Bridge::State {
  Session session;
  std::vector<Problem> problems;
};

namespace {

std::string joined(const Diagnostics& diag) {
  std::string out;
  for (const Problem& p : diag.all())
    if (p.severity == Severity::error)
      out += fmt::format("{}{}: {}: found {}, expected {}", out.empty() ? "" : "\n", p.code, escape(p.tensor.empty() ? p.module : p.tensor), escape(p.found),
                         escape(p.expected));
  return out;
}

void set_up(Context& context, const Budget& budget) {
  context.limits.memory_budget = budget.memory;
  context.limits.threads = budget.threads > 0 ? budget.threads : host::processors();
  context.isa = host::detect_isa();
}

Result<pass::Form> form_of(const char* option, const std::string& word, const char* joined) {
  const std::map<std::string, pass::Form> words = pass::form_words(joined);
  const auto it = words.find(word);
  if (it == words.end()) return Error{Errc::invalid_argument, fmt::format("{} '{}' is not as-is, separate or {}", option, word, joined)};
  return it->second;
}

Result<JobOptions> job_options(const Target& t) {
  JobOptions job;
  const Dialect* dialect = find_dialect(t.dialect);
  if (dialect == nullptr || dialect->write == nullptr) return Error{Errc::invalid_argument, fmt::format("unknown dialect '{}'", t.dialect)};
  job.to = t.dialect;
  job.repair = t.repair;
  job.stored = t.stored;
  QB_ASSIGN(job.forms.projections, form_of("projections", t.projections, "fused"));
  QB_ASSIGN(job.forms.experts, form_of("experts", t.experts, "stacked"));
  if (!t.dense_dtype.empty()) {
    job.dense_dtype = elem_from_name(t.dense_dtype);
    if (job.dense_dtype != Elem::bf16 && job.dense_dtype != Elem::f16 && job.dense_dtype != Elem::f32)
      return Error{Errc::invalid_argument, fmt::format("dense_dtype '{}' is not bf16, f16 or f32", t.dense_dtype)};
  }
  if (t.scheme.empty() && t.quantization.empty()) return job;
  if (!t.scheme.empty() && !t.quantization.empty()) return Error{Errc::invalid_argument, "a scheme and a configuration: one of them says what is made"};
  if (!t.scheme.empty()) {
    QB_ASSIGN(job.quantize, pass::quantize_options(t.scheme, t.numerics, t.recipe, t.dialect));
  } else {
    QB_ASSIGN(pass::QuantConfig config, pass::parse_quant_config(t.quantization));
    QB_ASSIGN(job.quantize, pass::quantize_options(std::move(config), t.numerics, t.dialect));
  }
  std::vector<std::string>& ignore = job.quantize->config.ignore;
  ignore.insert(ignore.end(), t.ignore.begin(), t.ignore.end());
  job.quantize->regex = host::compile_regex;
  return job;
}

// The session as the job wants it.
Result<Session> prepared(const Session& s, const JobOptions& options, Context& context) {
  Session out = s;
  if (!options.quantize) return out;
  QB_ASSIGN(const bool done, rotate(out, options.quantize->config.rotation(), context));
  return done ? Result<Session>(std::move(out)) : Error{Errc::bad_input, joined(out.diag)};
}

Result<Job> plan(const Session& s, const JobOptions& options, Context& context) {
  Job job;
  Diagnostics diag;
  if (!plan_job(s, options, context, job, diag)) return Error{Errc::bad_input, joined(diag)};
  return job;
}

}  // namespace

Bridge::Bridge(std::unique_ptr<State> state) : state_(std::move(state)) {}
Bridge::Bridge(Bridge&&) noexcept = default;
Bridge& Bridge::operator=(Bridge&&) noexcept = default;
Bridge::~Bridge() = default;

Result<Bridge> Bridge::open(const std::string& path) {
  QB_ASSIGN(Session session, open_session(path));
  auto state = std::make_unique<State>(State{std::move(session), {}});
  state->problems.assign(state->session.diag.all().begin(), state->session.diag.all().end());
  return Bridge(std::move(state));
}

const std::vector<Problem>& Bridge::problems() const {
  return state_->problems;
}
bool Bridge::ok() const {
  return state_->session.readable && state_->session.diag.ok();
}

Summary Bridge::summary() const {
  const Session& s = state_->session;
  const ir::Checkpoint& c = s.checkpoint;
  Summary out;
  if (s.dialect != nullptr) out.dialect = std::string(s.dialect->name);
  out.quant_algo = c.quant_algo;
  if (c.topology.family != nullptr) out.family = std::string(c.topology.family->name);
  out.producer = c.producer.version.empty() ? c.producer.name : c.producer.name + " " + c.producer.version;
  out.tensors = static_cast<int64_t>(s.package.tensors.size());
  for (const TensorInfo& t : s.package.tensors) out.bytes += t.bytes;
  std::map<std::string, int> schemes;
  for (const ir::Module& m : c.modules) {
    if (m.parts.empty()) continue;
    ++out.modules;
    for (const ir::Stored& p : m.parts)
      if (p.role == ir::Role::code || p.role == ir::Role::bias || p.role == ir::Role::plain) out.parameters += p.view.dims[0] * p.view.dims[1];
    if (!m.scheme) continue;
    ++out.quantized_modules;
    ++schemes[to_string(*m.scheme)];
  }
  for (const auto& [scheme, count] : schemes) out.schemes.push_back(scheme);
  if (c.kv) out.kv_cache = to_string(*c.kv);
  return out;
}

Result<void> Bridge::for_each_tensor(const Target& target, const std::function<bool(const Tensor&)>& take, const Budget& budget) const {
  QB_ASSIGN(const JobOptions options, job_options(target));
  Context context;
  set_up(context, budget);
  QB_ASSIGN(const Session session, prepared(state_->session, options, context));
  QB_ASSIGN(const Job job, plan(session, options, context));
  std::vector<std::byte> buffer;
  for (const PlannedFile& file : job.files)
    for (const prog::Program& p : file.programs) {
      uint64_t bytes = 0;
      for (const prog::Output& o : p.outputs) bytes += prog::output_bytes(o);
      buffer.resize(bytes);
      QB_TRY(execute(p, source_of(session, job), buffer, context));
      uint64_t at = 0;
      for (const prog::Output& o : p.outputs) {
        const uint64_t size = prog::output_bytes(o);
        const std::string dtype(info(o.dtype).safetensors);
        if (!take({o.name, dtype, o.shape, std::span(buffer).subspan(at, size)})) return {};
        at += size;
      }
    }
  return {};
}

Result<void> Bridge::write(const Target& target, const std::string& out, const Budget& budget) const {
  QB_ASSIGN(const JobOptions options, job_options(target));
  Context context;
  set_up(context, budget);
  QB_ASSIGN(const Session session, prepared(state_->session, options, context));
  QB_ASSIGN(const Job job, plan(session, options, context));
  Result<JobReport> report = write_job(session, job, out, false, options.checksums, context);
  if (!report) return report.error();
  return {};
}

}  // namespace qb
