// convert: the same checkpoint in another dialect.
#include <fmt/format.h>

#include <algorithm>

#include "arch/parallel.h"
#include "cli/command.h"
#include "cli/job_command.h"

namespace qb::cli {
namespace {

struct Options : JobCommandOptions {
  std::string dtype, repair = "exact";
  bool stored = false;
  int64_t rank = -1;
  arch::Ranks ranks;
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
  if (!arch::is_sound(o.ranks) || (o.ranks.count() > 1) != (o.rank >= 0) || o.rank >= o.ranks.count()) {
    print_err("quantbridge convert: --tp N or --ep N goes with --rank R, which counts from 0 to N - 1; with both, one is a multiple of the other\n");
    return exit_usage;
  }
  job.ranks = o.ranks;
  job.rank = std::max<int64_t>(o.rank, 0);
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
  app.add_option("--tp", o->ranks.tp, "write the part of one of N tensor-parallel ranks")->check(CLI::Range(1, 1024))->type_name("N");
  app.add_option("--ep", o->ranks.ep, "write the part of one of N expert-parallel ranks: whole experts")->check(CLI::Range(1, 1024))->type_name("N");
  app.add_option("--rank", o->rank, "which rank's, from 0 on")->check(CLI::Range(0, 1023))->type_name("R");
  return [o] { return run(*o); };
}

}  // namespace

// clang-format off
QB_COMMAND(convert) = {
    .name = "convert", .summary = "Write a checkpoint in another dialect; weights keep their codes",
    .examples = "Examples:\n  quantbridge convert ./Llama-NVFP4 ./Llama-NVFP4-ct --to compressed_tensors\n"
                "  quantbridge convert ./Llama-FP8 ./Llama-f32 --to dense --dtype f32\n  quantbridge convert ./in ./out --to modelopt --dry-run\n"
                "  quantbridge convert ./Llama-FP8 ./Llama-FP8-rank1 --to modelopt --tp 4 --rank 1\n"
                "  quantbridge convert ./gpt-oss-20b ./gpt-oss-20b-ct --to compressed_tensors --experts separate\n"
                "  quantbridge convert ./gpt-oss-20b/original ./gpt-oss-20b-hf --to hf_mxfp4",
    .rank = 3, .setup = setup, .together = true};
// clang-format on

}  // namespace qb::cli
