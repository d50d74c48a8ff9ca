#include "cli/runtime_options.h"

#include <fmt/format.h>

#include "base/json.h"
#include "bridge/rotate.h"
#include "cli/command.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "host/host.h"
#include "host/mpi.h"

namespace qb::cli {
namespace {

int threads_of(const ModelOptions& o) {
  return o.threads > 0 ? o.threads : host::processors();
}

}  // namespace

void add_model_options(CLI::App& app, ModelOptions& o, bool need_path) {
  app.add_option("PATH", o.path, "checkpoint directory")->required(need_path);
  app.add_option("--activations", o.activations, "as-stored: quantized as the scheme says; bf16, f32: weight-only")
      ->check(CLI::IsMember({"as-stored", "bf16", "f32"}))
      ->capture_default_str();
  app.add_flag("--reference", o.reference, "the reference kernels, float32 throughout");
  app.add_option("--kv-cache-dtype", o.kv_cache_dtype,
                 "auto: bfloat16, or E4M3 where the checkpoint's keys and values are quantized to it; f32: twice the memory, no rounding but that")
      ->check(CLI::IsMember({"auto", "f32"}))
      ->capture_default_str();
  app.add_option("--prefer", o.prefer, "kernel to prefer where it is legal (name or pattern)")->type_name("K");
  app.add_option("--deny", o.deny, "kernel not to use (name or pattern)")->type_name("K");
  add_profile_option(app, o.profile);
  add_run_quantization(app, o.quantization);
  app.add_option("--memory-budget", o.memory_budget, "buffers while loading: what is above the weights that stay")->capture_default_str()->type_name("SIZE");
  app.add_option("--threads", o.threads, "threads (default: all processors)")->check(CLI::Range(1, 1024));
  app.add_flag("--json", o.common.json, "one JSON object on stdout");
  app.add_flag("--quiet", o.common.quiet, "no progress, no timings");
}

void add_rank_options(CLI::App& app, ModelOptions& o) {
  app.add_option("--tp", o.ranks.tp, "N processes share each matrix: mpirun -n N quantbridge ...")->check(CLI::Range(1, 1024))->type_name("N");
  app.add_option("--ep", o.ranks.ep, "N processes share the experts, some whole ones each")->check(CLI::Range(1, 1024))->type_name("N");
}

Result<RuntimeOptions> runtime_options(const ModelOptions& o) {
  RuntimeOptions r;
  r.threads = threads_of(o);
  r.model.reference = o.reference;
  r.model.linear.cpu = host::this_cpu();
  r.model.linear.policy = {.prefer = o.prefer, .deny = o.deny, .reference = o.reference, .profile = nullptr};
  // Ranks must choose the same kernels, whatever each has measured.
  if (ranks() == nullptr) {
    QB_ASSIGN(r.model.linear.policy.profile, find_profile(o.profile, r.model.linear.cpu));
  }
  r.model.linear.inputs = o.activations == "f32" ? kernel::Inputs::f32 : o.activations == "bf16" ? kernel::Inputs::bf16 : kernel::Inputs::as_scheme;
  r.model.wide_kv = o.kv_cache_dtype == "f32";
  r.model.quantized_kv = o.activations == "as-stored";
  r.world = ranks();
  r.ranks = o.ranks;
  return r;
}

void add_run_quantization(CLI::App& app, QuantizationOptions& o) {
  add_quantization_options(app, o, "--quantization", "quantize while loading, or other activations for quantized weights (docs/quantization.md)", "NAME|JSON");
}

bool apply_quantization(std::string_view command, const QuantizationOptions& o, const CommonOptions& common, Session& session, Context& context, int& code) {
  if (!o.given()) return true;
  const Result<pass::QuantizeOptions> options = agree(ranks(), quantization(o, "modelopt"));
  if (!options) {
    code = fail(command, options.error(), common);
    return false;
  }
  if (!session.readable) return true;
  const Result<bool> rotated = agree(ranks(), rotate(session, options->config.rotation(), context));
  if (!rotated) {
    code = fail(command, rotated.error(), common);
    return false;
  }
  Diagnostics own;
  const bool done = *rotated && pass::quantize(session.checkpoint, *options, own);
  for (const Problem& p : own.all()) session.diag.add(p);
  if (done) return true;
  if (common.json)
    print_json(envelope(command, false, session.diag.all()));
  else
    print_problems(session.diag.all());
  code = exit_problems;
  return false;
}

std::optional<Session> open_model(std::string_view command, const ModelOptions& o, const std::string& path, Context& context, int& code) {
  context.limits.threads = threads_of(o);
  if (!parse_size(o.memory_budget, context.limits.memory_budget) || context.limits.memory_budget == 0) {
    print_err(fmt::format("quantbridge {}: --memory-budget '{}' is no size: write 64MiB\n", command, escape(o.memory_budget)));
    code = exit_usage;
    return std::nullopt;
  }
  context.isa = host::detect_isa();
  context.cancelled = &interrupted();
  const auto failed = [&](const Error& error) {
    code = fail(command, error, o.common);
    return std::nullopt;
  };
  if (!arch::is_sound(o.ranks)) return failed({Errc::invalid_argument, "of --tp and --ep one is a multiple of the other"});
  if (o.ranks.count() > 1 && !host::has_mpi()) return failed(host::mpi_world().error());
  if (const Result<void> fit = check_world(ranks(), o.ranks); !fit) return failed(fit.error());
  Result<Session> session = agree(ranks(), open_session(path));
  if (!session) return failed(session.error());
  if (!apply_quantization(command, o.quantization, o.common, *session, context, code)) return std::nullopt;
  return std::move(*session);
}

std::unique_ptr<Runtime> load_model(std::string_view command, const ModelOptions& o, const std::string& path, int64_t context_tokens, Context& context,
                                    int& code) {
  Result<RuntimeOptions> options = runtime_options(o);
  if (!options) {
    code = fail(command, options.error(), o.common);
    return nullptr;
  }
  options->context = context_tokens;
  std::optional<Session> session = open_model(command, o, path, context, code);
  if (!session) return nullptr;
  const std::vector<Problem> problems(session->diag.all().begin(), session->diag.all().end());
  Result<std::unique_ptr<Runtime>> runtime = agree(ranks(), Runtime::load(std::move(*session), *options, context));
  if (!runtime) {
    if (!o.common.json) print_problems(problems);
    code = fail(command, runtime.error(), o.common, problems);
    return nullptr;
  }
  if (!o.common.json && !o.common.quiet) print_problems(problems);
  return std::move(*runtime);
}

}  // namespace qb::cli
