// Encodes recorded pairs of pages (record_pairs) as page records, by each version of the diff that
// this processor can run, and with XBZRLE; says bytes per page and encoded GB/s of guest pages.
//
//   page_codec [--json FILE] [--seconds 0.5] ledger.pairs linux.pairs ...
//
// Of one run: the versions take turns, rounds of them, and the median round counts. A page that is
// too long for XBZRLE counts 4096 bytes, as its sender sends it whole. Record heads (8 bytes here,
// 8 there) are left out of both. Decoding is checked for every pair before anything is measured.
// Then what compression makes of whole pages and of changes, record heads and all.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
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
constexpr int kRounds = 9;
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
size_t EncodeAll(const std::vector<PagePair>& pairs, size_t encoder) {
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
    codec::AppendPage(static_cast<codec::DiffVersion>(encoder), Gfn(1), pair.now,
                      pair.before.data(), &body);
    bytes += body.size() - codec::kRecordHeadBytes;
  }
  return bytes;
}

absl::Status CheckDecoding(const std::vector<PagePair>& pairs) {
  const memory::MemoryLayout layout = *memory::MemoryLayout::ForMib(16);
  std::array<std::byte, kPageSize> buffer;
  for (size_t i = 0; i < pairs.size(); ++i) {
    std::string body;
    codec::AppendPage(Gfn(1), pairs[i].now, pairs[i].before.data(), &body);
    codec::PageRecordReader reader(body, layout);
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

std::vector<CodecRow> Measure(const std::string& corpus, const std::vector<PagePair>& pairs,
                              double seconds) {
  std::vector<size_t> encoders;
  for (const codec::DiffVersion version : codec::kDiffVersions) {
    if (codec::CanRun(version)) encoders.push_back(static_cast<size_t>(version));
  }
  encoders.push_back(kXbzrle);
  std::vector<std::vector<double>> rates(encoders.size());
  std::vector<CodecRow> rows(encoders.size());
  for (int round = 0; round < kRounds; ++round) {
    for (size_t i = 0; i < encoders.size(); ++i) {
      const auto began = Clock::now();
      std::chrono::duration<double> took{};
      size_t passes = 0;
      size_t bytes = 0;
      do {
        bytes = EncodeAll(pairs, encoders[i]);
        ++passes;
        took = Clock::now() - began;
      } while (took.count() < seconds / kRounds);
      rates[i].push_back(static_cast<double>(passes * pairs.size() * kPageSize) / took.count());
      rows[i].set_bytes_per_page(static_cast<double>(bytes) / static_cast<double>(pairs.size()));
    }
  }
  for (size_t i = 0; i < encoders.size(); ++i) {
    std::nth_element(rates[i].begin(), rates[i].begin() + kRounds / 2, rates[i].end());
    rows[i].set_corpus(corpus);
    rows[i].set_encoder(std::string(kNames[encoders[i]]));
    rows[i].set_pairs(pairs.size());
    rows[i].set_gb_per_s(rates[i][kRounds / 2] / 1e9);
  }
  return rows;
}

absl::Status Run(const std::vector<std::string>& files, double seconds, const std::string& json) {
  CodecReport report;
  std::vector<CompressionRow> compression;
  std::printf("%-28s %-9s %8s %11s %8s %12s %12s\n", "corpus", "encoder", "pairs", "bytes/page",
              "GB/s", "speed ratio", "size ratio");
  for (const std::string& file : files) {
    ROMULUS_ASSIGN_OR_RETURN(const std::vector<PagePair> pairs, Load(file));
    ROMULUS_RETURN_IF_ERROR(CheckDecoding(pairs));
    const std::vector<CodecRow> rows = Measure(file.substr(file.rfind('/') + 1), pairs, seconds);
    const CodecRow& peer = rows.back();
    for (const CodecRow& row : rows) {
      std::printf("%-28s %-9s %8zu %11.1f %8.2f %12.2f %12.2f\n", row.corpus().c_str(),
                  row.encoder().c_str(), pairs.size(), row.bytes_per_page(), row.gb_per_s(),
                  row.gb_per_s() / peer.gb_per_s(),
                  row.bytes_per_page() / std::max(peer.bytes_per_page(), 1e-9));
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
  app.add_option("--seconds", seconds, "per encoder and corpus");
  app.add_option("--json", json, "write the results here");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = romulus::bench::Run(files, seconds, json);
  if (!status.ok()) std::cerr << status << "\n";
  return status.ok() ? 0 : 1;
}
