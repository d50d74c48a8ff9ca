#include "host/cpu.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "host/host.h"

namespace qb::host {
namespace {

class Variable {
 public:
  Variable() {
    if (const char* before = std::getenv(name)) had_ = true, before_ = before;
  }
  ~Variable() { had_ ? ::setenv(name, before_.c_str(), 1) : ::unsetenv(name); }
  static void set(const char* value) { ::setenv(name, value, 1); }
  static void clear() { ::unsetenv(name); }

 private:
  static constexpr const char* name = "QUANTBRIDGE_ISA";
  bool had_ = false;
  std::string before_;
};

TEST(Cpu, TheVariableCapsAndNeverRaises) {
  const Variable restore;
  Variable::clear();
  const Feature all = this_cpu().features;
  const struct {
    const char* word;
    Feature most;
    Isa isa;
  } caps[] = {{"generic", Feature::none, Isa::generic},
              {"avx2", Feature::avx2, Isa::avx2},
              {"avx_vnni", Feature::avx2 | Feature::avx_vnni, Isa::avx2},
              {"avx512", Feature::avx2 | Feature::avx_vnni | Feature::avx512 | Feature::avx512_vnni, Isa::avx512},
              {"avx512_bf16", Feature::avx2 | Feature::avx_vnni | Feature::avx512 | Feature::avx512_vnni | Feature::avx512_bf16, Isa::avx512},
              {"riscv", all, Isa::avx512}};
  for (const auto& c : caps) {
    Variable::set(c.word);
    const Feature f = this_cpu().features;
    EXPECT_TRUE(covers(c.most, f)) << c.word;
    EXPECT_TRUE(covers(all, f)) << c.word;
    EXPECT_EQ(static_cast<uint32_t>(f), static_cast<uint32_t>(all) & static_cast<uint32_t>(c.most)) << c.word;
    EXPECT_LE(detect_isa(), c.isa);
    EXPECT_EQ(detect_isa() == Isa::avx512, covers(f, Feature::avx512));
    EXPECT_EQ(detect_isa() != Isa::generic, covers(f, Feature::avx2));
  }
}

TEST(Cpu, DescriptionsAreReadOrRefused) {
  const auto cpu = read_cpu(R"({"name": "x", "features": ["avx2", "avx512"], "other_features": ["amx_fp16"], "cores": 3, "clock_ghz": 2.5, "read_gbs": 20})");
  ASSERT_TRUE(cpu.ok()) << cpu.error().what;
  EXPECT_EQ(cpu->name, "x");
  EXPECT_EQ(cpu->features, Feature::avx2 | Feature::avx512);
  EXPECT_EQ(cpu->other, std::vector<std::string>{"amx_fp16"});
  EXPECT_EQ(cpu->cores, 3);
  EXPECT_EQ(cpu->clock_ghz, 2.5);
  EXPECT_EQ(cpu->read_gbs, 20);
  const std::string rest = R"("cores": 1, "clock_ghz": 1, "read_gbs": 1})";
  for (const std::string& wrong : std::vector<std::string>{
           "", "[]", "{}", R"({"features": [], )" + rest, R"({"name": "x", "features": ["avx3"], )" + rest, R"({"name": "x", "features": ["avx512"], )" + rest,
           R"({"name": "x", "features": ["avx2", "avx512_vnni"], )" + rest, R"({"name": "x", "features": ["avx_vnni"], )" + rest,
           R"({"name": "x", "features": ["avx2", "amx_int8"], )" + rest, R"({"name": "x", "features": "avx2", )" + rest, R"({"name": "x", "speed": 1, )" + rest,
           R"({"name": "x", "cores": 0, "clock_ghz": 1, "read_gbs": 1})", R"({"name": "x", "cores": 1.5, "clock_ghz": 1, "read_gbs": 1})",
           R"({"name": "x", "cores": 1, "clock_ghz": -1, "read_gbs": 1})", R"({"name": "x", "cores": 1, "clock_ghz": 1})"}) {
    EXPECT_FALSE(read_cpu(wrong).ok()) << wrong;
  }
}

TEST(Cpu, Names) {
  EXPECT_EQ(to_string(Feature::none), "generic");
  EXPECT_EQ(to_string(Feature::avx2 | Feature::avx_vnni), "avx2+avx_vnni");
  EXPECT_EQ(to_string(Feature::avx512 | Feature::avx512_bf16), "avx512+avx512_bf16");
  EXPECT_GE(this_cpu().cores, 1);
  for (const Cpu& c : known_cpus()) {
    // Every wider set contains the narrower ones.
    EXPECT_TRUE(!covers(c.features, Feature::avx512_bf16) || covers(c.features, Feature::avx512)) << c.name;
    EXPECT_TRUE(!covers(c.features, Feature::avx512) || covers(c.features, Feature::avx2)) << c.name;
    EXPECT_TRUE(!covers(c.features, Feature::amx_bf16) || covers(c.features, Feature::avx512_bf16)) << c.name;
    EXPECT_TRUE(!covers(c.features, Feature::amx_int8) || covers(c.features, Feature::avx512_vnni)) << c.name;
    EXPECT_TRUE(!covers(c.features, Feature::avx_vnni) || covers(c.features, Feature::avx2)) << c.name;
  }
}

}  // namespace
}  // namespace qb::host
