#include "body_compression.h"

#include <chrono>
#include <cstdio>

#include "base/check.h"
#include "codec/compression.h"
#include "codec/frame.h"
#include "codec/page_encoding.h"

namespace romulus::bench {
namespace {

using Clock = std::chrono::steady_clock;

// Page records, cut into bodies as the encoder does.
std::vector<std::string> BodiesOf(const std::vector<PagePair>& pairs, bool whole) {
  std::vector<std::string> bodies(1);
  for (size_t i = 0; i < pairs.size(); ++i) {
    if (bodies.back().size() >= codec::kPageBodyBytes) bodies.emplace_back();
    codec::AppendPage(codec::Dialect(codec::kNewestProtocol), Gfn(i), pairs[i].now,
                      whole ? nullptr : pairs[i].before.data(), &bodies.back());
  }
  return bodies;
}

// Of all `bytes`, again and again for so long, in MB/s.
template <typename Work>
double Speed(size_t bytes, double seconds, const Work& work) {
  const auto began = Clock::now();
  std::chrono::duration<double> took{};
  size_t passes = 0;
  do {
    work();
    ++passes;
    took = Clock::now() - began;
  } while (took.count() < seconds);
  return static_cast<double>(passes * bytes) / took.count() / 1e6;
}

}  // namespace

std::vector<CompressionRow> MeasureCompression(const std::string& corpus,
                                               const std::vector<PagePair>& pairs, double seconds) {
  std::vector<CompressionRow> rows;
  for (const bool whole : {true, false}) {
    const std::vector<std::string> bodies = BodiesOf(pairs, whole);
    size_t raw_bytes = 0;
    for (const std::string& body : bodies) raw_bytes += body.size();
    for (const codec::Compression method : {codec::Compression::kLz4, codec::Compression::kZstd}) {
      codec::Compressor compressor;
      codec::Decompressor decompressor;
      std::vector<std::string> packed(bodies.size());
      std::string room(2 * codec::kPageBodyBytes, '\0');
      std::string raw(2 * codec::kPageBodyBytes, '\0');
      size_t wire_bytes = 0;
      for (size_t i = 0; i < bodies.size(); ++i) {
        const size_t taken = compressor.Compress(method, bodies[i], room.data(), room.size());
        ROMULUS_CHECK(taken > 0 || bodies[i].empty());
        packed[i].assign(room, 0, taken);
        ROMULUS_CHECK(
            decompressor.Decompress(method, packed[i], raw.data(), bodies[i].size()).ok());
        ROMULUS_CHECK(raw.compare(0, bodies[i].size(), bodies[i]) == 0);
        wire_bytes += taken;
      }
      CompressionRow& row = rows.emplace_back();
      row.set_corpus(corpus);
      row.set_records(whole ? "whole" : "changes");
      row.set_method(std::string(codec::CompressionName(method)));
      row.set_bytes(raw_bytes);
      row.set_ratio(static_cast<double>(wire_bytes) / static_cast<double>(raw_bytes));
      row.set_compress_mb_per_s(Speed(raw_bytes, seconds, [&] {
        for (const std::string& body : bodies) {
          compressor.Compress(method, body, room.data(), room.size());
        }
      }));
      row.set_decompress_mb_per_s(Speed(raw_bytes, seconds, [&] {
        for (size_t i = 0; i < bodies.size(); ++i) {
          decompressor.Decompress(method, packed[i], raw.data(), bodies[i].size()).IgnoreError();
        }
      }));
    }
  }
  return rows;
}

void PrintCompression(const std::vector<CompressionRow>& rows) {
  std::printf("\n%-28s %-8s %-6s %10s %7s %14s %16s\n", "corpus", "records", "method", "bytes",
              "ratio", "compress MB/s", "decompress MB/s");
  for (const CompressionRow& row : rows) {
    std::printf("%-28s %-8s %-6s %10zu %7.3f %14.0f %16.0f\n", row.corpus().c_str(),
                row.records().c_str(), row.method().c_str(), static_cast<size_t>(row.bytes()),
                row.ratio(), row.compress_mb_per_s(), row.decompress_mb_per_s());
  }
}

}  // namespace romulus::bench
