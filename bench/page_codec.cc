// Encodes recorded pairs of pages (record_pairs) as page records, by each version of the diff that
// this processor can run, and with XBZRLE; says bytes per page and encoded GB/s of guest pages.
//
//   page_codec [--json FILE] [--seconds 0.5] ledger.pairs linux.pairs ...
//
// Of one run: the versions take turns, rounds of them, and the median round counts. Passes over a
// whole corpus are bound by the memory that it comes from; so each round encodes a small group of
// its pairs again and again as well, which stay in the processor's cache and tell what the encoder
// itself costs. A page that is too long for XBZRLE counts 4096 bytes, as its sender sends it whole.
// Record heads (8 bytes here, 8 there) are left out of both. Decoding is checked for every pair
// before anything is measured. Then what compression makes of
// whole pages and of changes, record heads and all.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "body_compression.h"
#include "codec/page_encoding.h"
#include "page_codec.pb.h"
#include "page_pairs.h"
#include "report_json.h"
#include "xbzrle.h"

namespace romulus::bench {
namespace {

using Clock = std::chrono::steady_clock;
constexpr codec::Dialect kDialect(codec::kNewestProtocol);
using Pairs = std::span<const PagePair>;
constexpr size_t kRounds = 9;
// 512 KiB: fits the second level of the cache; fewer would be learned by heart (branches).
constexpr size_t kGroupPairs = 64;
constexpr std::array<absl::string_view, 4> kNames = {"portable", "avx2", "avx512", "xbzrle"};
constexpr size_t kXbzrle = kNames.size() - 1;

absl::StatusOr<std::vector<PagePair>> Load(const std::string& path) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  const std::streamoff size = in.tellg();
  if (!in || size <= 0 || size % std::streamoff{sizeof(PagePair)} != 0) {
    return absl::InvalidArgumentError(path + " is not a file of page pairs");
  }
  std::vector<PagePair> pairs(static_cast<size_t>(size) / sizeof(PagePair));
  in.seekg(0);
  in.read(static_cast<char*>(static_cast<void*>(pairs.data())), size);
  if (!in) return absl::DataLossError("cannot read " + path);
  return pairs;
}

size_t XbzrleBytes(const PagePair& pair, std::array<std::byte, kPageSize>* buffer) {
  return EncodeXbzrle(pair.now, pair.before, *buffer).value_or(kPageSize);
}

// Bytes of all pairs by one encoder.
size_t EncodeAll(Pairs pairs, size_t encoder) {
  size_t bytes = 0;
  if (encoder == kXbzrle) {
    std::array<std::byte, kPageSize> buffer;
    for (const PagePair& pair : pairs) bytes += XbzrleBytes(pair, &buffer);
    return bytes;
  }
  std::string body;
  body.reserve(2 * codec::kMaxRecordBytes);
  for (const PagePair& pair : pairs) {
    body.clear();
    codec::AppendPage(static_cast<codec::DiffVersion>(encoder), kDialect, Gfn(1), pair.now,
                      pair.before.data(), &body);
    bytes += body.size() - codec::kRecordHeadBytes;
  }
  return bytes;
}

size_t ZeroBefore(Pairs pairs) {
  return static_cast<size_t>(std::count_if(pairs.begin(), pairs.end(), [](const PagePair& pair) {
    return pair.before == std::array<std::byte, kPageSize>{};
  }));
}

absl::Status CheckDecoding(const std::vector<PagePair>& pairs) {
  const memory::MemoryLayout layout = *memory::MemoryLayout::ForMib(16);
  std::array<std::byte, kPageSize> buffer;
  for (size_t i = 0; i < pairs.size(); ++i) {
    std::string body;
    codec::AppendPage(kDialect, Gfn(1), pairs[i].now, pairs[i].before.data(), &body);
    codec::PageRecordReader reader(body, layout, kDialect);
    ROMULUS_ASSIGN_OR_RETURN(const codec::PageRecord record, reader.Next());
    auto page = pairs[i].before;
    codec::DecodePage(record, pairs[i].before, page);
    auto other = pairs[i].before;
    const auto used = EncodeXbzrle(pairs[i].now, pairs[i].before, buffer);
    const bool decoded = !used.has_value() || DecodeXbzrle(std::span(buffer).first(*used), other);
    if (page != pairs[i].now || !decoded || (used.has_value() && other != pairs[i].now)) {
      return absl::InternalError(absl::StrCat("pair ", i, " does not decode to itself"));
    }
  }
  return absl::OkStatus();
}

// Of guest pages, encoded again and again for so long.
double BytesPerSecond(Pairs pairs, size_t encoder, double seconds) {
  const auto began = Clock::now();
  std::chrono::duration<double> took{};
  size_t passes = 0;
  do {
    EncodeAll(pairs, encoder);
    ++passes;
    took = Clock::now() - began;
  } while (took.count() < seconds);
  return static_cast<double>(passes * pairs.size() * kPageSize) / took.count();
}

// Of the rounds, which are spread over the corpus.
Pairs Group(Pairs pairs, size_t round) {
  const size_t size = std::min(kGroupPairs, pairs.size());
  return pairs.subspan((pairs.size() - size) * round / (kRounds - 1), size);
}

double Median(std::array<double, kRounds> values) {
  std::nth_element(values.begin(), values.begin() + kRounds / 2, values.end());
  return values[kRounds / 2];
}

std::vector<CodecRow> Measure(const std::string& corpus, Pairs pairs, double seconds) {
  std::vector<size_t> encoders;
  for (const codec::DiffVersion version : codec::kDiffVersions) {
    if (codec::CanRun(version)) encoders.push_back(static_cast<size_t>(version));
  }
  encoders.push_back(kXbzrle);
  std::vector<std::array<double, kRounds>> rates(encoders.size());
  std::vector<std::array<double, kRounds>> cached(encoders.size());
  for (size_t round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < encoders.size(); ++i) {
      rates[i][round] = BytesPerSecond(pairs, encoders[i], seconds / kRounds);
      cached[i][round] = BytesPerSecond(Group(pairs, round), encoders[i], seconds / kRounds);
    }
  }
  const size_t zero_before = ZeroBefore(pairs);
  std::vector<CodecRow> rows(encoders.size());
  for (size_t i = 0; i < encoders.size(); ++i) {
    rows[i].set_corpus(corpus);
    rows[i].set_encoder(std::string(kNames[encoders[i]]));
    rows[i].set_pairs(pairs.size());
    rows[i].set_zero_before(zero_before);
    rows[i].set_bytes_per_page(static_cast<double>(EncodeAll(pairs, encoders[i])) /
                               static_cast<double>(pairs.size()));
    rows[i].set_gb_per_s(Median(rates[i]) / 1e9);
    rows[i].set_cached_gb_per_s(Median(cached[i]) / 1e9);
  }
  return rows;
}

absl::Status Run(const std::vector<std::string>& files, double seconds, const std::string& json) {
  CodecReport report;
  std::vector<CompressionRow> compression;
  std::printf("%-28s %-9s %6s %11s %11s %7s %8s %6s %9s %6s\n", "corpus", "encoder", "pairs",
              "zero before", "bytes/page", "ratio", "GB/s", "ratio", "in cache", "ratio");
  for (const std::string& file : files) {
    ROMULUS_ASSIGN_OR_RETURN(const std::vector<PagePair> pairs, Load(file));
    ROMULUS_RETURN_IF_ERROR(CheckDecoding(pairs));
    const std::vector<CodecRow> rows = Measure(file.substr(file.rfind('/') + 1), pairs, seconds);
    const CodecRow& peer = rows.back();
    for (const CodecRow& row : rows) {
      std::printf("%-28s %-9s %6zu %11zu %11.1f %7.2f %8.2f %6.2f %9.2f %6.2f\n",
                  row.corpus().c_str(), row.encoder().c_str(), pairs.size(),
                  size_t{row.zero_before()}, row.bytes_per_page(),
                  row.bytes_per_page() / std::max(peer.bytes_per_page(), 1e-9), row.gb_per_s(),
                  row.gb_per_s() / peer.gb_per_s(), row.cached_gb_per_s(),
                  row.cached_gb_per_s() / peer.cached_gb_per_s());
      *report.add_rows() = row;
    }
    for (const CompressionRow& row : MeasureCompression(rows[0].corpus(), pairs, seconds / 4)) {
      compression.push_back(row);
      *report.add_compression() = row;
    }
  }
  PrintCompression(compression);
  return json.empty() ? absl::OkStatus() : WriteJson(report, json);
}

}  // namespace
}  // namespace romulus::bench

int main(int argc, char** argv) {
  std::vector<std::string> files;
  std::string json;
  double seconds = 2;
  CLI::App app{"Speed and size of page records beside XBZRLE, on recorded pages"};
  app.add_option("files", files, "of record_pairs")->required()->check(CLI::ExistingFile);
  app.add_option("--seconds", seconds, "per encoder and corpus, and once more in cache");
  app.add_option("--json", json, "write the results here");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = romulus::bench::Run(files, seconds, json);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
