#include "disk/stamp.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/xxh3.h"
#include "disk/stamp_proto.h"

namespace romulus::disk {
namespace {

constexpr uint32_t kFormat = 1;
constexpr absl::string_view kHead =
    "# Whose copy of the disk beside it this is. romulusd writes it; do not edit.\n";
constexpr absl::string_view kSumPrefix = "# xxh3 ";

std::string SumLine(absl::string_view text) {
  return absl::StrFormat("%s%016x\n", kSumPrefix, XXH3_64bits(text.data(), text.size()));
}

v1::DiskStamp::Mode ToProto(Mode mode) {
  switch (mode) {
    case Mode::kNever:
      return v1::DiskStamp::MODE_UNSPECIFIED;
    case Mode::kPrimarySolo:
      return v1::DiskStamp::MODE_PRIMARY_SOLO;
    case Mode::kPrimaryProtected:
      return v1::DiskStamp::MODE_PRIMARY_PROTECTED;
    case Mode::kSecondary:
      return v1::DiskStamp::MODE_SECONDARY;
    case Mode::kSyncing:
      return v1::DiskStamp::MODE_SYNCING;
  }
  return v1::DiskStamp::MODE_UNSPECIFIED;
}

absl::StatusOr<Mode> FromProto(v1::DiskStamp::Mode mode) {
  switch (mode) {
    case v1::DiskStamp::MODE_PRIMARY_SOLO:
      return Mode::kPrimarySolo;
    case v1::DiskStamp::MODE_PRIMARY_PROTECTED:
      return Mode::kPrimaryProtected;
    case v1::DiskStamp::MODE_SECONDARY:
      return Mode::kSecondary;
    case v1::DiskStamp::MODE_SYNCING:
      return Mode::kSyncing;
    default:
      return absl::DataLossError("it says no mode that is known");
  }
}

// What the parser has to say goes nowhere: the checksum has said already that these are our bytes.
class Silent final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int, google::protobuf::io::ColumnNumber, const std::string&) override {}
};

bool IsPrimary(Mode mode) { return mode == Mode::kPrimarySolo || mode == Mode::kPrimaryProtected; }

bool IsDisk(Mode mode) { return mode != Mode::kNever && mode != Mode::kSyncing; }

std::string Describe(const Stamp& stamp) {
  return absl::StrCat(ModeName(stamp.mode), " in term ", stamp.term.value());
}

}  // namespace

absl::string_view ModeName(Mode mode) {
  constexpr absl::string_view kNames[] = {"never", "primary_solo", "primary_protected", "secondary",
                                          "syncing"};
  return kNames[static_cast<size_t>(mode)];
}

v1::DiskStamp MessageOf(const Stamp& stamp) {
  v1::DiskStamp message;
  message.set_format(kFormat);
  message.set_vm_uuid(stamp.vm_uuid);
  message.set_disk_name(stamp.disk_name);
  message.set_size_bytes(stamp.size_bytes);
  message.set_node(stamp.node);
  message.set_mode(ToProto(stamp.mode));
  message.set_term(stamp.term.value());
  message.set_epoch(stamp.epoch.value());
  message.set_covers_term(stamp.covers_term.value());
  message.set_is_volatile(stamp.is_volatile);
  message.set_journal_id(stamp.journal_id);
  message.set_is_clean(stamp.is_clean);
  message.set_inode(stamp.inode);
  message.set_mtime_ns(stamp.mtime_ns);
  message.set_boot_id(stamp.boot_id);
  message.set_promoted_term(stamp.lineage.promoted.value());
  message.set_promotion_covers_term(stamp.lineage.covers.value());
  message.set_shared_term(stamp.lineage.shared.value());
  return message;
}

absl::StatusOr<Stamp> StampOf(const v1::DiskStamp& message) {
  if (message.format() > kFormat) {
    return absl::UnimplementedError(absl::StrCat(
        "its format is ", message.format(), ", of a newer romulusd; this one knows ", kFormat));
  }
  if (message.format() == 0) return absl::DataLossError("it is malformed");
  Stamp stamp;
  const absl::StatusOr<Mode> mode = FromProto(message.mode());
  if (!mode.ok()) return mode.status();
  stamp.mode = *mode;
  for (const uint64_t term : {message.term(), message.covers_term(), message.promoted_term(),
                              message.promotion_covers_term(), message.shared_term()}) {
    if (Term(term) > kMaxPeerTerm) return absl::DataLossError("its term cannot be");
  }
  stamp.term = Term(message.term());
  stamp.epoch = EpochId(message.epoch());
  stamp.covers_term = Term(message.covers_term());
  stamp.is_volatile = message.is_volatile();
  stamp.journal_id = message.journal_id();
  stamp.vm_uuid = message.vm_uuid();
  stamp.node = message.node();
  stamp.disk_name = message.disk_name();
  stamp.size_bytes = message.size_bytes();
  stamp.is_clean = message.is_clean();
  stamp.inode = message.inode();
  stamp.mtime_ns = message.mtime_ns();
  stamp.boot_id = message.boot_id();
  stamp.lineage = {Term(message.promoted_term()), Term(message.promotion_covers_term()),
                   Term(message.shared_term())};
  return stamp;
}

std::string FormatStamp(const Stamp& stamp) {
  std::string body;
  google::protobuf::TextFormat::PrintToString(MessageOf(stamp), &body);
  const std::string text = absl::StrCat(kHead, body);
  return absl::StrCat(text, SumLine(text));
}

absl::StatusOr<Stamp> ParseStamp(absl::string_view text) {
  if (text.size() > kMaxStampBytes) return absl::DataLossError("it is too large");
  const size_t sum_at = text.rfind(kSumPrefix);
  if (sum_at == absl::string_view::npos || (sum_at > 0 && text[sum_at - 1] != '\n')) {
    return absl::DataLossError("it does not end with a checksum");
  }
  if (text.substr(sum_at) != SumLine(text.substr(0, sum_at))) {
    return absl::DataLossError("its checksum is wrong: it was edited or is damaged");
  }
  v1::DiskStamp message;
  google::protobuf::TextFormat::Parser parser;
  Silent silent;
  parser.RecordErrorsTo(&silent);
  parser.SetRecursionLimit(8);
  parser.AllowUnknownField(true);  // a newer format is to be recognized as one
  const bool parsed = parser.ParseFromString(std::string(text.substr(0, sum_at)), &message);
  if (!parsed && message.format() <= kFormat) return absl::DataLossError("it is malformed");
  return StampOf(message);
}

Comparison CompareStamps(const Stamp& first, const Stamp& second) {
  const Stamp* const stamps[] = {&first, &second};
  if (!IsDisk(first.mode) && !IsDisk(second.mode)) {
    return {-1, absl::StrCat("neither is known to be a whole disk: one is ", ModeName(first.mode),
                             ", the other ", ModeName(second.mode))};
  }
  for (int i = 0; i < 2; ++i) {
    if (!IsDisk(stamps[1 - i]->mode)) {
      return {i, absl::StrCat("the other is no whole disk: ", ModeName(stamps[1 - i]->mode))};
    }
  }
  for (int i = 0; i < 2; ++i) {
    const Stamp& newer = *stamps[i];
    const Stamp& older = *stamps[1 - i];
    if (newer.term <= older.term) continue;
    if (IsPrimary(newer.mode) && IsPrimary(older.mode) && newer.covers_term < older.term) {
      return {i, absl::StrCat("its term is higher, ", newer.term.value(), " against ",
                              older.term.value(),
                              "; but the guest ran on both: what it wrote on the other in term ",
                              older.term.value(), " is not in it")};
    }
    return {i, absl::StrCat("its term is higher: ", Describe(newer), " against ", Describe(older))};
  }
  if (IsPrimary(first.mode) && IsPrimary(second.mode)) {
    return {-1, absl::StrCat("the guest ran on both in term ", first.term.value(),
                             ": nobody can know which one is wanted")};
  }
  for (int i = 0; i < 2; ++i) {
    if (IsPrimary(stamps[i]->mode)) {
      return {i, absl::StrCat("the guest ran on it in term ", first.term.value(),
                              ", the other only followed")};
    }
    if (!IsPrimary(stamps[1 - i]->mode) && stamps[i]->epoch > stamps[1 - i]->epoch) {
      return {i, absl::StrCat("its epoch is higher: ", stamps[i]->epoch.value(), " against ",
                              stamps[1 - i]->epoch.value())};
    }
  }
  return {-1, "they are equally new"};
}

}  // namespace romulus::disk
