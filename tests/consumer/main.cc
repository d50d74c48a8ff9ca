// A program that uses the installed library: says what a checkpoint is, then takes its tensors as another dialect would store them.
#include <quantbridge/bridge.h>

#include <cstdio>

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: consumer CHECKPOINT\n");
    return 2;
  }
  auto bridge = qb::Bridge::open(argv[1]);
  if (!bridge) {
    std::fprintf(stderr, "%s\n", bridge.error().what.c_str());
    return 3;
  }
  for (const qb::Problem& p : bridge->problems()) std::fprintf(stderr, "%s: %s, expected %s\n", p.code.c_str(), p.found.c_str(), p.expected.c_str());
  if (!bridge->ok()) return 1;

  const qb::Summary summary = bridge->summary();
  std::printf("dialect %s, family %s, %lld tensors\n", summary.dialect.c_str(), summary.family.c_str(), static_cast<long long>(summary.tensors));

  qb::Target target;
  target.dialect = "compressed_tensors";
  target.scheme = "fp8_channel:fp8_token";
  size_t tensors = 0, bytes = 0;
  auto done = bridge->for_each_tensor(target, [&](const qb::Tensor& t) {
    ++tensors;
    bytes += t.bytes.size();
    return true;
  });
  if (!done) {
    std::fprintf(stderr, "%s\n", done.error().what.c_str());
    return 1;
  }
  std::printf("as %s: %zu tensors, %zu bytes\n", target.dialect.c_str(), tensors, bytes);
  return tensors > 0 ? 0 : 1;
}
