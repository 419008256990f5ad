// How a serialized machine state travels in an EpochCommit: whole, or as what changed since the
// state of the epoch before it on the same stream, of which a halted guest has some ten words. The
// delta is a row of page records (page_encoding.h): the state, filled up with zeros, seen as pages
// from GFN 0 on. What the older state does not reach is zero in it.
//
// Both sides keep the last state that was committed; each side's is forgotten when epochs begin
// anew (a stream, a full sync). machine_digest is of the whole state, so a delta on a wrong one is
// found. Values, one thread at a time.
#ifndef ROMULUS_CODEC_MACHINE_DELTA_H_
#define ROMULUS_CODEC_MACHINE_DELTA_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "codec/dialect.h"

namespace romulus::v1 {
class EpochCommit;
}

namespace romulus::codec {

// The first version of the protocol that has deltas (dialect.h).
inline constexpr uint32_t kMachineDeltaSince = 6;

class MachineDeltaWriter {
 public:
  void Reset() { before_.clear(); }

  // Sets machine or machine_delta and machine_bytes, whichever is shorter and in the dialect, and
  // machine_digest.
  void Put(const std::string& state, const Dialect& dialect, v1::EpochCommit* commit);

 private:
  // Filled up to whole pages. Kept from epoch to epoch, since their memory is.
  std::string before_;  // empty: none
  std::string now_;
};

class MachineDeltaReader {
 public:
  void Reset() { before_.clear(); }

  // The serialized state; its digest is the caller's to check. `dialect`: of the stream. Errors:
  // InvalidArgument for a delta that is not well-formed, is not of the announced size, does not
  // name its pages in ascending order, or comes before any whole state.
  absl::StatusOr<std::string> Take(const v1::EpochCommit& commit, const Dialect& dialect) const;
  // `state`, from Take(), was committed: the next delta is on it.
  void Keep(std::string state);

 private:
  std::string before_;  // filled up to whole pages; empty: none
};

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_MACHINE_DELTA_H_
