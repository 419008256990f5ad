#include "devices/cmos.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "base/status.h"

namespace romulus::devices {
namespace {

enum Register : uint8_t {
  kSeconds = 0,
  kMinutes = 2,
  kHours = 4,
  kWeekday = 6,  // Sunday is 1
  kDay = 7,
  kMonth = 8,
  kYear = 9,
  kControlA = 0x0a,
  kControlB = 0x0b,
  kControlC = 0x0c,
  kControlD = 0x0d,
  kCentury = 0x32,
};

constexpr uint8_t kUpdateInProgress = 0x80;  // control A, read-only
constexpr uint8_t kSet = 0x80;               // control B: the guest sets the clock
constexpr uint8_t kBinary = 0x04;
constexpr uint8_t k24Hours = 0x02;
constexpr uint8_t kAfternoon = 0x80;  // in the hours, without k24Hours
constexpr uint8_t kValid = 0x80;      // control D: the battery is good

constexpr int64_t kNsPerSecond = 1'000'000'000;
// UIP rises this long before the seconds do (data sheet, "update cycle").
constexpr int64_t kUpdateNoticeNs = 244'000;
// The latest time that nanoseconds in 64 bits can tell: in the year 2262.
constexpr int64_t kMaxGuestNs = INT64_MAX - kNsPerSecond;

constexpr uint32_t kStateVersion = 1;
struct CmosState {
  uint8_t index = 0;
  uint8_t control_a = 0;
  uint8_t control_b = 0;
  uint8_t reserved[5] = {};
  int64_t offset_ns = 0;
  int64_t last_ns = 0;
  std::array<uint8_t, Cmos::kBytes> bytes = {};
};
static_assert(sizeof(CmosState) == 24 + Cmos::kBytes);

bool IsTimeRegister(uint8_t index) {
  return index == kSeconds || index == kMinutes || index == kHours ||
         (index >= kWeekday && index <= kYear) || index == kCentury;
}

uint8_t Encode(int value, uint8_t control_b) {
  if ((control_b & kBinary) != 0) return static_cast<uint8_t>(value);
  return static_cast<uint8_t>(value / 10 << 4 | value % 10);
}

int Decode(uint8_t value, uint8_t control_b) {
  if ((control_b & kBinary) != 0) return value;
  return (value >> 4) * 10 + (value & 0x0f);
}

}  // namespace

int64_t SystemWallClock::NowUnixNs() const {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return int64_t{now.tv_sec} * kNsPerSecond + now.tv_nsec;
}

int64_t Cmos::GuestNowNs() const {
  int64_t now_ns = 0;
  if (__builtin_add_overflow(clock_.NowUnixNs(), offset_ns_, &now_ns)) now_ns = last_ns_;
  last_ns_ = std::clamp<int64_t>(now_ns, last_ns_, kMaxGuestNs);
  return last_ns_;
}

void Cmos::Read(uint64_t offset, std::span<std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (std::byte& byte : data) {
    // The index port is write-only.
    byte = offset == 1 ? std::byte{ReadRegister()} : std::byte{0xff};
    ++offset;
  }
}

void Cmos::Write(uint64_t offset, std::span<const std::byte> data) {
  absl::MutexLock lock(&mutex_);
  for (const std::byte byte : data) {
    if (offset == 0) index_ = static_cast<uint8_t>(byte) & 0x7f;  // bit 7 masks NMIs on a PC
    if (offset == 1) WriteRegister(static_cast<uint8_t>(byte));
    ++offset;
  }
}

uint8_t Cmos::ReadRegister() {
  if (IsTimeRegister(index_)) {
    // While the guest sets the clock it sees what it wrote.
    if ((control_b_ & kSet) != 0) return bytes_[index_];
    return TimeRegister(index_, GuestNowNs());
  }
  switch (index_) {
    case kControlA: {
      const bool updating =
          GuestNowNs() % kNsPerSecond >= kNsPerSecond - kUpdateNoticeNs && (control_b_ & kSet) == 0;
      return static_cast<uint8_t>(control_a_ | (updating ? kUpdateInProgress : 0));
    }
    case kControlB:
      return control_b_;
    case kControlC:
      return 0;  // no interrupt ever
    case kControlD:
      return kValid;
    default:
      return bytes_[index_];
  }
}

uint8_t Cmos::TimeRegister(uint8_t index, int64_t now_ns) const {
  const absl::CivilSecond now =
      absl::ToCivilSecond(absl::FromUnixSeconds(now_ns / kNsPerSecond), absl::UTCTimeZone());
  switch (index) {
    case kSeconds:
      return Encode(now.second(), control_b_);
    case kMinutes:
      return Encode(now.minute(), control_b_);
    case kHours: {
      if ((control_b_ & k24Hours) != 0) return Encode(now.hour(), control_b_);
      const int hour = now.hour() % 12 == 0 ? 12 : now.hour() % 12;
      return static_cast<uint8_t>(Encode(hour, control_b_) | (now.hour() >= 12 ? kAfternoon : 0));
    }
    case kWeekday:  // absl counts from Monday, 0
      return Encode((static_cast<int>(absl::GetWeekday(now)) + 1) % 7 + 1, control_b_);
    case kDay:
      return Encode(now.day(), control_b_);
    case kMonth:
      return Encode(now.month(), control_b_);
    case kYear:
      return Encode(static_cast<int>(now.year() % 100), control_b_);
    default:
      return Encode(static_cast<int>(now.year() / 100), control_b_);
  }
}

void Cmos::WriteRegister(uint8_t value) {
  if (IsTimeRegister(index_)) {
    if ((control_b_ & kSet) != 0) {
      bytes_[index_] = value;
    } else {
      // Without SET one register changes at a time; the others keep what they show.
      LatchTime();
      bytes_[index_] = value;
      SetTimeFromBytes();
    }
    return;
  }
  switch (index_) {
    case kControlA:
      control_a_ = value & 0x7f;
      return;
    case kControlB: {
      const bool was_setting = (control_b_ & kSet) != 0;
      const bool is_setting = (value & kSet) != 0;
      if (is_setting && !was_setting) LatchTime();
      control_b_ = value;
      if (was_setting && !is_setting) SetTimeFromBytes();
      return;
    }
    case kControlC:
    case kControlD:
      return;  // read-only
    default:
      bytes_[index_] = value;
  }
}

void Cmos::LatchTime() {
  const int64_t now_ns = GuestNowNs();
  for (const uint8_t index :
       {kSeconds, kMinutes, kHours, kWeekday, kDay, kMonth, kYear, kCentury}) {
    bytes_[index] = TimeRegister(index, now_ns);
  }
}

void Cmos::SetTimeFromBytes() {
  int hour = Decode(bytes_[kHours] & (control_b_ & k24Hours ? 0xff : 0x7f), control_b_);
  if ((control_b_ & k24Hours) == 0) {
    hour = hour % 12 + ((bytes_[kHours] & kAfternoon) != 0 ? 12 : 0);
  }
  // absl normalizes values out of range: whatever the guest wrote is some time.
  const absl::CivilSecond set(
      Decode(bytes_[kCentury], control_b_) * 100 + Decode(bytes_[kYear], control_b_),
      Decode(bytes_[kMonth], control_b_), Decode(bytes_[kDay], control_b_), hour,
      Decode(bytes_[kMinutes], control_b_), Decode(bytes_[kSeconds], control_b_));
  const int64_t seconds = absl::ToUnixSeconds(absl::FromCivil(set, absl::UTCTimeZone()));
  const int64_t guest_ns =
      std::clamp<int64_t>(seconds, 0, kMaxGuestNs / kNsPerSecond) * kNsPerSecond;
  // Guest time is in [0, kMaxGuestNs], so only a host clock before 1970 could overflow here.
  offset_ns_ = guest_ns - std::max<int64_t>(clock_.NowUnixNs(), 0);
  last_ns_ = guest_ns;  // the guest may turn its clock back
}

absl::Status Cmos::Save(state::MachineState& out) const {
  absl::MutexLock lock(&mutex_);
  out.PutStruct(name(), 0, kStateVersion,
                CmosState{.index = index_,
                          .control_a = control_a_,
                          .control_b = control_b_,
                          .offset_ns = offset_ns_,
                          .last_ns = GuestNowNs(),
                          .bytes = bytes_});
  return absl::OkStatus();
}

absl::Status Cmos::Restore(state::MachineState& in) {
  ROMULUS_ASSIGN_OR_RETURN(const auto saved, in.TakeStruct<CmosState>(name(), 0, kStateVersion));
  const auto zero = [](uint8_t byte) { return byte == 0; };
  if (saved.index > 0x7f || (saved.control_a & kUpdateInProgress) != 0 || saved.last_ns < 0 ||
      saved.last_ns > kMaxGuestNs ||
      !std::all_of(std::begin(saved.reserved), std::end(saved.reserved), zero)) {
    return absl::InvalidArgumentError(absl::StrCat(name(), ": a register has impossible bits"));
  }
  absl::MutexLock lock(&mutex_);
  index_ = saved.index;
  control_a_ = saved.control_a;
  control_b_ = saved.control_b;
  offset_ns_ = saved.offset_ns;
  last_ns_ = saved.last_ns;
  // A host whose own clock is behind would make the guest's stand still until it has caught up: the
  // guest's goes on from where it was, ahead of this host's by a little more than it was.
  int64_t resumed_ns = 0;
  const int64_t host_ns = clock_.NowUnixNs();
  if (!__builtin_add_overflow(host_ns, offset_ns_, &resumed_ns) && resumed_ns < last_ns_ &&
      host_ns >= 0) {
    offset_ns_ = last_ns_ - host_ns;
  }
  bytes_ = saved.bytes;
  return absl::OkStatus();
}

}  // namespace romulus::devices
