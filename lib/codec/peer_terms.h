// Terms in the bodies that a peer sends; frame headers are judged by FrameReader. Pure; any thread.
#ifndef ROMULUS_CODEC_PEER_TERMS_H_
#define ROMULUS_CODEC_PEER_TERMS_H_

#include "absl/status/status.h"
#include "romulus/v1/replication.pb.h"

namespace romulus::codec {

// InvalidArgument, naming the field, if a term is beyond kMaxPeerTerm: nothing of such a message
// may be believed.
absl::Status CheckTerms(const romulus::v1::Hello& hello);
absl::Status CheckTerms(const romulus::v1::HelloReply& reply);
absl::Status CheckTerms(const romulus::v1::Goodbye& goodbye);

}  // namespace romulus::codec

#endif  // ROMULUS_CODEC_PEER_TERMS_H_
