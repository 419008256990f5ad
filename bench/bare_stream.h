// What a gRPC stream carries that does nothing but carry: messages from one side, read and dropped
// by the other. The bound that shipping epochs is held against.
#ifndef ROMULUS_BENCH_BARE_STREAM_H_
#define ROMULUS_BENCH_BARE_STREAM_H_

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "absl/status/status.h"

namespace romulus::bench {

// Runs in the child: reads streams until stdin closes. Prints its port on stdout.
absl::Status ServeBareStream();

// Connects, calls `connected`, sends messages of `message_bytes`, parts of `source` one after the
// other without copying them, until `done` says so, and waits until all were read. Same transport
// arguments as a link's.
// Errors: Unavailable, if the peer is lost or has read less.
absl::Status SendBareStream(const std::string& address, std::span<const std::byte> source,
                            size_t message_bytes, const std::function<void()>& connected,
                            const std::function<bool(uint64_t sent_bytes)>& done);

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_BARE_STREAM_H_
