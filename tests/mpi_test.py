"""Processes that an MPI launcher starts: a shared model gives the tokens of one process, a shared conversion its bytes; a rank that fails ends all, and says why."""
import filecmp, json, os, shutil, subprocess, sys, tempfile
from pathlib import Path

BINARY, SOURCE = os.environ["QUANTBRIDGE"], Path(os.environ["QUANTBRIDGE_SOURCE"])
FIXTURES = SOURCE / "tests/data/fixtures"
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1",
               "OMPI_MCA_btl_base_warn_component_unused": "0"}
failures = []


def run(ranks, *args, **more):
    launch = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
    return subprocess.run([*launch, BINARY, *map(str, args)], capture_output=True, text=True, timeout=300, env=ENVIRONMENT, **more)


def check(what, ok, r):
    if not ok:
        failures.append(what)
        print(f"FAILED {what}: exit {r.returncode}, stdout {r.stdout[-300:]!r}, stderr {r.stderr[-600:]!r}")


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def same_files(a, b):
    return files(a) == files(b) and all(filecmp.cmp(a / n, b / n, shallow=False) for n in files(a))


def shares_a_model(tmp):
    model = FIXTURES / "modelopt/llama-nvfp4-kv_fp8"
    args = ["run", model, "--ids", "5,6,7,8", "-n", "8", "--reference"]
    mixture = ["run", FIXTURES / "base/qwen3_moe_window_tiny", "--ids", "5,6,7,8", "-n", "8", "--reference"]
    for line, ranks, option in ((args, 2, "--tp"), (mixture, 3, "--tp"), (mixture, 2, "--ep")):
        one, many = run(1, *line, "--json"), run(ranks, *line, option, ranks, "--json")
        check(f"{option} {ranks} gives the tokens of one", many.returncode == 0 and json.loads(many.stdout)["ids"] == json.loads(one.stdout)["ids"], many)
    r = run(3, *args, "--tp", "3")
    check("more ranks than heads", r.returncode == 1 and "share-uneven" in r.stderr and r.stderr.count("quantbridge run:") == 1, r)
    r = run(2, "run", model, "--prompt", "-", "-n", "4", "--tp", 2, "--quiet", input="abc")
    check("the prompt comes from the standard input of one", r.returncode == 0 and r.stdout.count("\n") == run(
        1, "run", model, "--prompt", "-", "-n", "4", "--quiet", input="abc").stdout.count("\n"), r)
    r = run(2, *args)
    check("processes that are not told to share", r.returncode != 0 and "--tp 2" in r.stderr and r.stderr.count("quantbridge run:") == 1, r)
    r = run(1, *args, "--tp", "2")
    check("ranks that were not started", r.returncode == 2 and ("mpirun -n 2" in r.stderr or "without MPI" in r.stderr), r)
    r = run(2, "run", tmp / "none", "--ids", "1", "--tp", "2")
    check("a model that is not there is said once", r.returncode != 0 and r.stderr.count("quantbridge run:") == 1, r)
    r = run(2, "inspect", model)
    check("work for one", r.returncode != 0 and "work for one" in r.stderr, r)


def shares_a_conversion(tmp):
    source = tmp / "in"
    subprocess.run([sys.executable, SOURCE / "tools/make_synthetic.py", source, "--size", "6MB", "--dialect", "modelopt-nvfp4", "--shard-size", "1MB"],
                   check=True, stdout=subprocess.DEVNULL)
    args = ["--to", "compressed_tensors", "--max-shard-size", "700kB"]
    one = run(1, "convert", source, tmp / "one", *args, "--json")
    many = run(3, "convert", source, tmp / "three", *args, "--json")
    check("three processes write the bytes of one", many.returncode == 0 and same_files(tmp / "one", tmp / "three"), many)
    keys = ("tensors", "bytes_in", "bytes_out", "bytes_copied_unchanged")
    check("the report is about all", [json.loads(one.stdout)[k] for k in keys] == [json.loads(many.stdout)[k] for k in keys], many)
    check("nothing is left beside it", not (tmp / "three.partial").exists(), many)
    again = run(2, "convert", source, tmp / "three", *args)
    check("an output that is there is said once", again.returncode == 2 and again.stderr.count("quantbridge convert:") == 1, again)
    deep = run(3, "check", "--deep", tmp / "three", "--json")
    alone = run(1, "check", "--deep", tmp / "three", "--json")
    check("three check what one does", deep.returncode == 0 and json.loads(deep.stdout)["checked"] == json.loads(alone.stdout)["checked"], deep)
    # A damaged byte is found whoever reads it.
    shard = sorted((tmp / "three").glob("*.safetensors"))[1]
    with open(shard, "r+b") as f:
        f.seek(-100, 2)
        byte = f.read(1)
        f.seek(-100, 2)
        f.write(bytes([byte[0] ^ 1]))
    deep = run(3, "check", "--deep", tmp / "three", "--json")
    codes = [p["code"] for p in json.loads(deep.stdout)["problems"]]
    check("damage is found by any of them", deep.returncode == 1 and codes.count("checksum-mismatch") == 1, deep)


def shares_a_quantization(tmp):
    """What is measured, and by how much weights change, does not depend on who does it."""
    dense, ids = FIXTURES / "base/llama_small", SOURCE / "tests/data/calibration/ids.safetensors"
    for name, source, more in (("static", dense, ["--scheme", "NVFP4_DEFAULT_CFG", "--kv", "fp8", "--calibrate", ids]),
                               ("requantized", FIXTURES / "modelopt/llama-nvfp4-kv_fp8", ["--scheme", "fp8_channel:fp8_token"])):
        args = [*more, "--max-shard-size", "60kB", "--json"]
        one, many = run(1, "quantize", source, tmp / f"{name}-one", *args), run(3, "quantize", source, tmp / f"{name}-three", *args)
        check(f"{name}: three processes write the bytes of one", many.returncode == 0 and same_files(tmp / f"{name}-one", tmp / f"{name}-three"), many)
        check(f"{name}: and report the same", many.returncode == 0 and json.loads(one.stdout)["scheme_changes"] == json.loads(many.stdout)["scheme_changes"], many)
        check(f"{name}: in several files", len(list((tmp / f"{name}-three").glob("*.safetensors"))) > 2, many)
    r = run(2, "quantize", dense, tmp / "none", "--scheme", "NVFP4_DEFAULT_CFG", "--calibrate", tmp / "nowhere.txt")
    check("no samples is said once", r.returncode == 3 and r.stderr.count("nowhere.txt") == 1 and not (tmp / "none").exists(), r)
    r = run(2, "quantize", dense, tmp / "none", "--scheme", "NVFP4_DEFAULT_CFG", "--to", "awq", "--calibrate", ids)
    check("what cannot be written is not measured, and said once", r.returncode == 1 and r.stderr.count("self_attn.q_proj") == 1, r)


def main():
    if shutil.which("mpirun") is None:
        print("skipped: there is no mpirun")
        return 77
    probe = run(1, "run", "x", "--ids", "1", "--tp", "2")
    if "without it" in probe.stderr:
        print("skipped: this program was built without MPI")
        return 77
    with tempfile.TemporaryDirectory() as name:
        shares_a_model(Path(name))
        shares_a_conversion(Path(name))
        shares_a_quantization(Path(name))
    return 1 if failures else 0


sys.exit(main())
