// convert: the same checkpoint in another dialect.
#include <fmt/format.h>

#include "cli/command.h"
#include "cli/job_command.h"

namespace qb::cli {
namespace {

struct Options : JobCommandOptions {
  std::string dtype, repair = "exact";
  bool stored = false;
};

int run(const Options& o) {
  JobOptions job;
  Limits limits;
  if (!parse_job_options("convert", o, job, limits)) return exit_usage;
  if (!o.dtype.empty()) {
    if (o.to != "dense") {
      print_err("quantbridge convert: --dtype goes with --to dense\n");
      return exit_usage;
    }
    job.dense_dtype = elem_from_name(o.dtype);
  }
  if (o.stored && o.to != "dense") {
    print_err("quantbridge convert: --stored goes with --to dense\n");
    return exit_usage;
  }
  job.stored = o.stored;
  job.repair = o.repair == "none" ? Repair::none : o.repair == "exact" ? Repair::exact : Repair::lossy;
  return run_job("convert", o, job, limits);
}

std::function<int()> setup(CLI::App& app) {
  auto o = std::make_shared<Options>();
  add_job_options(app, *o);
  app.add_option("--to", o->to, "modelopt, compressed_tensors, hf_fp8, hf_mxfp4, awq, gptq, dense")->required()->type_name("DIALECT");
  app.add_option("--dtype", o->dtype, "dense: format of the dequantized weights (default: the checkpoint's)")->check(CLI::IsMember({"bf16", "f16", "f32"}));
  app.add_flag("--stored", o->stored, "dense: the bare dequantized matrices, without what pre-scales and low-rank parts add");
  app.add_option("--repair", o->repair, "exact: repairs that change no dequantized value; lossy: those that round or guess, too; none: refuse what needs one")
      ->check(CLI::IsMember({"none", "exact", "lossy"}))
      ->capture_default_str();
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(convert) = {
    .name = "convert", .summary = "Write a checkpoint in another dialect; weights keep their codes",
    .examples = "Examples:\n  quantbridge convert ./Llama-NVFP4 ./Llama-NVFP4-ct --to compressed_tensors\n"
                "  quantbridge convert ./Llama-FP8 ./Llama-f32 --to dense --dtype f32\n  quantbridge convert ./in ./out --to modelopt --dry-run",
    .rank = 3, .setup = setup};
// clang-format on

}  // namespace qb::cli
