// The machine that a bench's figures came from.
#ifndef ROMULUS_BENCH_DESCRIBE_HOST_H_
#define ROMULUS_BENCH_DESCRIBE_HOST_H_

#include <sys/utsname.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace romulus::bench {

// Processor, cores, kernel, KVM flavour.
inline std::string DescribeHost() {
  std::string model = "unknown processor";
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    if (absl::StartsWith(line, "model name")) {
      model = line.substr(line.find(':') + 2);
      break;
    }
  }
  utsname kernel{};
  ::uname(&kernel);
  const bool pvm = std::filesystem::exists("/sys/module/kvm_pvm");
  return absl::StrCat(model, ", ", std::thread::hardware_concurrency(), " cores, Linux ",
                      kernel.release, pvm ? ", kvm-pvm" : "");
}

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_DESCRIBE_HOST_H_
