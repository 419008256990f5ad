// A primary's Hello judged by a secondary on another host: which hosts pair.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "arch/cpuid.h"
#include "daemon/config.h"
#include "daemon/hello_facts.h"

namespace romulus::daemon {
namespace {

using ::testing::HasSubstr;

// A host that has x86-64-v2, what kernels need beside it, and the bits of leaf 7 in `ebx7`.
std::vector<arch::CpuidEntry> Host(uint32_t ebx7) {
  return {{.function = 0, .eax = 7, .ebx = 0x756e6547, .ecx = 0x6c65746e, .edx = 0x49656e69},
          {.function = 1, .ecx = 0x81b82201, .edx = 0x178bfbff},
          {.function = 7, .flags = arch::kCpuidIndexSignificant, .ebx = ebx7},
          {.function = 0x80000000, .eax = 0x80000008},
          {.function = 0x80000001, .ecx = 1, .edx = 0x20100800},
          {.function = 0x80000008, .eax = ebx7 != 0 ? 0x302eu : 0x3028u}};
}

romulus::v1::Config Config(const std::string& cpu_model) {
  romulus::v1::Config config;
  config.set_name("vm");
  config.set_uuid("5c3f9a52-7a0e-4f0b-9d0c-2f6b1c7f1e11");
  config.set_node_name("a");
  if (!cpu_model.empty()) config.mutable_guest()->set_cpu_model(cpu_model);
  return config;
}

// The reply of a host with `secondary` to the guest of a host with `primary`.
romulus::v1::HelloReply Judge(const std::vector<arch::CpuidEntry>& primary,
                              const romulus::v1::Config& primary_config,
                              const std::vector<arch::CpuidEntry>& secondary,
                              const romulus::v1::Config& secondary_config) {
  wire::HelloInput hello;
  hello.machine = IdentityOf(primary_config).value();
  hello.node_name = "b";
  hello.current_term = Term(1);
  hello.stream_term = Term(2);
  hello.max_frame_bytes = kMaxFrameBytes;
  const arch::CpuidSpec spec{
      .model = arch::ParseCpuModel(primary_config.guest().cpu_model()).value(),
      .tsc_deadline_timer = true};
  const std::vector<arch::CpuidEntry> guest = arch::BuildGuestCpuid(primary, spec, 0).value();
  for (const arch::CpuidEntry& e : guest) {
    hello.cpuid.push_back({e.function, e.index, e.flags, e.eax, e.ebx, e.ecx, e.edx});
  }
  HostFacts host;
  host.supported_cpuid = secondary;
  host.tsc_deadline_timer = true;
  return JudgeHello(wire::BuildHello(hello), secondary_config, HelloFacts{}, host);
}

constexpr uint32_t kAvx512f = 1u << 16;

TEST(DaemonHello, ARicherPrimaryPairsByASharedModel) {
  const auto reply = Judge(Host(kAvx512f), Config("x86-64-v2"), Host(0), Config("x86-64-v2"));
  EXPECT_TRUE(reply.accepted()) << reply.detail();
  EXPECT_TRUE(Judge(Host(0), Config("x86-64-v2"), Host(kAvx512f), Config("x86-64-v2")).accepted());
}

TEST(DaemonHello, WithoutAModelTheMissingFeatureIsNamed) {
  const auto reply = Judge(Host(kAvx512f), Config(""), Host(0), Config(""));
  EXPECT_FALSE(reply.accepted());
  EXPECT_THAT(reply.detail(), HasSubstr("avx512f"));
  EXPECT_TRUE(Judge(Host(kAvx512f), Config(""), Host(kAvx512f), Config("")).accepted());
}

TEST(DaemonHello, TheModelMustBeTheSameOnBothNodes) {
  const auto reply = Judge(Host(0), Config("x86-64-v2"), Host(0), Config(""));
  EXPECT_EQ(reply.reason(), romulus::v1::REFUSAL_REASON_DEVICES) << reply.detail();
}

}  // namespace
}  // namespace romulus::daemon
