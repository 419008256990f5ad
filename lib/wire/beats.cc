#include "wire/beats.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/types.h"

namespace romulus::wire {
namespace {

// A sender beats once per interval, and once more when something changes. After a time in which one
// of the two was stopped, what has queued up comes at once.
constexpr double kBeatsPerInterval = 8;
constexpr double kBurst = 1024;

std::string Quoted(absl::string_view said) {
  return absl::StrCat("'", absl::CHexEscape(said.substr(0, 80)), "'");
}

// Terms beyond these would make ours overflow.
bool TermsFit(const v1::Beat& beat) {
  const uint64_t most = std::max({beat.term(), beat.asks_release_term(), beat.released_term(),
                                  beat.lineage().promoted_term(), beat.lineage().covers_term(),
                                  beat.lineage().shared_term()});
  return most <= kMaxPeerTerm.value();
}

}  // namespace

BeatReader::BeatReader(BeatReaderOptions options)
    : options_(std::move(options)), allowance_(kBurst) {}

absl::Status BeatReader::Refuse(BeatFault fault, absl::Status why) {
  fault_ = fault;
  return why;
}

bool BeatReader::MayCome(uint64_t now_ns) {
  const uint64_t since_ns = now_ns - std::min(now_ns, allowed_at_ns_);
  allowed_at_ns_ = std::max(now_ns, allowed_at_ns_);
  const double more = kBeatsPerInterval * static_cast<double>(since_ns) /
                      static_cast<double>(std::max<uint64_t>(options_.interval_ns, 1));
  allowance_ = std::min(kBurst, allowance_ + more) - 1;
  return allowance_ >= 0;
}

absl::StatusOr<v1::Beat> BeatReader::Take(absl::string_view bytes, uint64_t now_ns) {
  if (!MayCome(now_ns)) {
    return Refuse(BeatFault::kFlood, absl::ResourceExhaustedError("too many beats"));
  }
  if (bytes.size() > kMaxBeatBytes) {
    return Refuse(BeatFault::kOversized,
                  absl::InvalidArgumentError(absl::StrCat("a beat of ", bytes.size(), " bytes")));
  }
  v1::Beat beat;
  if (!beat.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return Refuse(BeatFault::kMalformed, absl::InvalidArgumentError("not a beat"));
  }
  if (beat.vm_uuid() != options_.vm_uuid) {
    return Refuse(BeatFault::kWrongVm,
                  absl::PermissionDeniedError(absl::StrCat("vm uuid: ", Quoted(beat.vm_uuid()),
                                                           ", not ", options_.vm_uuid)));
  }
  if (beat.node_name() == options_.node_name) {
    return Refuse(
        BeatFault::kSameName,
        absl::PermissionDeniedError(absl::StrCat(
            "another node is called '", options_.node_name,
            "', as this one: each needs its own --node (or the address is this node's)")));
  }
  if (beat.node_name() != options_.peer_name) {
    return Refuse(BeatFault::kUnknownNode,
                  absl::PermissionDeniedError(absl::StrCat("node ", Quoted(beat.node_name()),
                                                           ", not '", options_.peer_name, "'")));
  }
  if (beat.incarnation() == 0 || !TermsFit(beat) || !v1::BeatMode_IsValid(beat.mode()) ||
      beat.mode() == v1::BEAT_MODE_UNSPECIFIED || !v1::Holds_IsValid(beat.holds())) {
    return Refuse(BeatFault::kMalformed, absl::InvalidArgumentError("a beat that no node says"));
  }
  if ((proven() && beat.incarnation() != incarnation_) || beat.sequence() <= sequence_) {
    return Refuse(BeatFault::kReplayed, absl::InvalidArgumentError(absl::StrCat(
                                            "beat ", beat.sequence(), " after ", sequence_)));
  }
  incarnation_ = beat.incarnation();
  sequence_ = beat.sequence();
  return beat;
}

}  // namespace romulus::wire
