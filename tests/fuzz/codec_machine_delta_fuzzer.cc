// First byte even: three bytes say how long the state is, then comes a hostile delta, then what the
// state was before, half of what is left each. Odd: two states after each other, which must come
// back from what is said of them.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "absl/strings/string_view.h"
#include "codec/machine_delta.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::codec {
namespace {

constexpr Dialect kNewest(kNewestProtocol);

void Hostile(absl::string_view data) {
  if (data.size() < 4) return;
  v1::EpochCommit commit;
  uint32_t bytes = 0;
  for (int i = 0; i < 3; ++i)
    bytes = bytes << 8 | static_cast<uint8_t>(data[static_cast<size_t>(i)]);
  commit.set_machine_bytes(bytes);
  const absl::string_view rest = data.substr(3);
  commit.set_machine_delta(std::string(rest.substr(0, rest.size() / 2)));
  MachineDeltaReader reader;
  reader.Keep(std::string(rest.substr(rest.size() / 2)));
  const absl::StatusOr<std::string> state = reader.Take(commit, kNewest);
  if (state.ok() && !commit.machine_delta().empty() && state->size() != bytes) std::abort();
}

void RoundTrip(absl::string_view data) {
  const size_t first = data.size() / 2;
  MachineDeltaWriter writer;
  MachineDeltaReader reader;
  for (const absl::string_view said : {data.substr(0, first), data.substr(first), data}) {
    v1::EpochCommit commit;
    writer.Put(std::string(said), kNewest, &commit);
    absl::StatusOr<std::string> heard = reader.Take(commit, kNewest);
    if (!heard.ok() || *heard != said) std::abort();
    reader.Keep(*std::move(heard));
  }
}

}  // namespace
}  // namespace romulus::codec

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const absl::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0) {
    romulus::codec::Hostile(rest);
  } else {
    romulus::codec::RoundTrip(rest);
  }
  return 0;
}
