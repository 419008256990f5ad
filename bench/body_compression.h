// What compressing makes of bodies of page records, of recorded pages: how small, and how fast.
#ifndef ROMULUS_BENCH_BODY_COMPRESSION_H_
#define ROMULUS_BENCH_BODY_COMPRESSION_H_

#include <string>
#include <vector>

#include "page_codec.pb.h"
#include "page_pairs.h"

namespace romulus::bench {

// By both methods, of whole pages (as in a full sync) and of changes (as in epochs), in bodies as
// they are sent. Each is decompressed and compared once.
std::vector<CompressionRow> MeasureCompression(const std::string& corpus,
                                               const std::vector<PagePair>& pairs, double seconds);

void PrintCompression(const std::vector<CompressionRow>& rows);

}  // namespace romulus::bench

#endif  // ROMULUS_BENCH_BODY_COMPRESSION_H_
