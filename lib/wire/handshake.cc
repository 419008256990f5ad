#include "wire/handshake.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace romulus::wire {
namespace {

using romulus::v1::Hello;
using romulus::v1::HelloReply;

// Bounds on what a hostile Hello can make us look at or repeat.
constexpr int kMaxCpuidLeaves = 1024;
constexpr int kMaxCapabilities = 256;
constexpr int kMaxMemoryRegions = 64;
constexpr int kMaxDisks = 16;
constexpr int kMaxDevices = 64;
constexpr size_t kMaxQuotedBytes = 64;

// A peer's text, fit for a log line.
std::string Quoted(absl::string_view text) {
  std::string quoted = "'";
  for (char c : text.substr(0, kMaxQuotedBytes)) {
    quoted.push_back(c >= ' ' && c <= '~' && c != '\'' ? c : '?');
  }
  absl::StrAppend(&quoted, text.size() > kMaxQuotedBytes ? "...'" : "'");
  return quoted;
}

std::string Named(const std::vector<memory::Region>& memory) {
  if (memory.empty()) return "none";
  return absl::StrJoin(memory, " + ", [](std::string* out, const memory::Region& region) {
    absl::StrAppend(out, region.size_bytes, " bytes at 0x", absl::Hex(region.gpa.value()));
  });
}

std::vector<memory::Region> MemoryOf(const Hello& hello) {
  std::vector<memory::Region> regions;
  uint64_t offset = 0;
  for (const auto& region : hello.memory()) {
    regions.push_back({Gpa(region.gpa()), region.size_bytes(), offset});
    offset += region.size_bytes();
  }
  return regions;
}

bool SameMemory(const std::vector<memory::Region>& a, const std::vector<memory::Region>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const memory::Region& x, const memory::Region& y) {
                      return x.gpa == y.gpa && x.size_bytes == y.size_bytes;
                    });
}

struct Refusal {
  romulus::v1::RefusalReason reason = romulus::v1::REFUSAL_REASON_UNSPECIFIED;
  std::string detail;
};

Term NewestDiskTerm(const HelloJudge& judge) {
  Term newest;
  for (const DiskCopy& disk : judge.disks) newest = std::max(newest, disk.term);
  return newest;
}

std::string DifferentDevices(const Hello& hello, const MachineIdentity& own) {
  constexpr absl::string_view kNone = "nothing";
  const size_t theirs = static_cast<size_t>(std::min(hello.devices_size(), kMaxDevices));
  for (size_t i = 0; i < std::max(theirs, own.devices.size()); ++i) {
    const absl::string_view a =
        i < theirs ? absl::string_view(hello.devices(static_cast<int>(i))) : kNone;
    const absl::string_view b = i < own.devices.size() ? absl::string_view(own.devices[i]) : kNone;
    if (a != b) {
      return absl::StrCat("devices: ", Quoted(a), " on the primary, ", Quoted(b), " here");
    }
  }
  return absl::StrCat("devices: digest ", absl::Hex(hello.machine_digest(), absl::kZeroPad16),
                      " on the primary, ", absl::Hex(own.machine_digest, absl::kZeroPad16),
                      " here; compare the guest sections of both configurations");
}

Refusal JudgeMachine(const Hello& hello, const MachineIdentity& own) {
  if (hello.vm_name() != own.vm_name) {
    return {romulus::v1::REFUSAL_REASON_VM,
            absl::StrCat("vm name: the primary protects ", Quoted(hello.vm_name()),
                         ", this node is configured for ", Quoted(own.vm_name))};
  }
  if (hello.vm_uuid() != own.vm_uuid) {
    return {romulus::v1::REFUSAL_REASON_VM,
            absl::StrCat("vm uuid: ", Quoted(hello.vm_uuid()), " on the primary, ",
                         Quoted(own.vm_uuid), " here")};
  }
  if (hello.vcpu_count() != own.vcpu_count) {
    return {
        romulus::v1::REFUSAL_REASON_CPU,
        absl::StrCat("vcpus: ", hello.vcpu_count(), " on the primary, ", own.vcpu_count, " here")};
  }
  if (hello.memory_size() > kMaxMemoryRegions || !SameMemory(MemoryOf(hello), own.memory)) {
    return {romulus::v1::REFUSAL_REASON_MEMORY,
            absl::StrCat("memory: ",
                         hello.memory_size() > kMaxMemoryRegions
                             ? absl::StrCat(hello.memory_size(), " regions")
                             : Named(MemoryOf(hello)),
                         " on the primary, ", Named(own.memory), " here")};
  }
  if (hello.machine_digest() != own.machine_digest) {
    return {romulus::v1::REFUSAL_REASON_DEVICES, DifferentDevices(hello, own)};
  }
  return {};
}

absl::string_view RoleWords(romulus::v1::DiskCopyRole role) {
  return role == romulus::v1::DISK_COPY_ROLE_PRIMARY ? "a primary's copy" : "a replica";
}

std::string Called(const DiskCopy& disk) {
  return disk.path.empty() ? Quoted(disk.name)
                           : absl::StrCat(Quoted(disk.name), " (", disk.path, ")");
}

Refusal JudgeDisk(const Hello& hello, const romulus::v1::DiskCopy& theirs, const DiskCopy& own) {
  const auto refuse = [&](auto... why) {
    return Refusal{romulus::v1::REFUSAL_REASON_DISKS,
                   absl::StrCat("disk ", Called(own), ": ", why..., "; nothing was overwritten")};
  };
  if (theirs.disk() != own.disk || theirs.name() != own.name) {
    return refuse("disk ", theirs.disk(), " of the primary is ", Quoted(theirs.name()),
                  ", and this is disk ", own.disk,
                  " here: make both configurations name the same "
                  "disks in the same order");
  }
  if (theirs.size_bytes() != own.size_bytes) {
    return refuse(theirs.size_bytes(), " bytes on the primary, ", own.size_bytes,
                  " here: give this node an image of the same size (`truncate -s ",
                  theirs.size_bytes(), "` of a new file will do: its content is copied)");
  }
  // Nothing is known of it, or it is known to be worth nothing.
  if (own.role == romulus::v1::DISK_COPY_ROLE_UNSPECIFIED ||
      own.role == romulus::v1::DISK_COPY_ROLE_SYNCING) {
    return {};
  }
  if (own.term <= Term(theirs.covers_term()) || hello.overwrite_disks()) return {};
  if (!own.unusable.empty()) {
    return refuse("this node's copy is a replica of term ", own.term.value(),
                  " that cannot be used as it is (", own.unusable,
                  "), and the primary's disks hold what this node had in term ",
                  theirs.covers_term(),
                  " at most: it may be the last that is left of what was acked. Mend it, or, if "
                  "this copy is not wanted, start the primary with `--overwrite-peer`");
  }
  return refuse("this node's copy is newer: it is ", RoleWords(own.role), " of term ",
                own.term.value(), ", and the primary's disks hold what this node had in term ",
                theirs.covers_term(),
                " at most. Start this node as the primary (`romulusd run --role primary`) and the "
                "other as the secondary, or, if this copy is not wanted, start the primary with "
                "`--overwrite-peer`");
}

Refusal JudgeDisks(const Hello& hello, const HelloJudge& judge) {
  if (hello.disks_size() > kMaxDisks ||
      static_cast<size_t>(hello.disks_size()) != judge.disks.size()) {
    return {romulus::v1::REFUSAL_REASON_DISKS,
            absl::StrCat("disks: the primary replicates ", hello.disks_size(), ", this node ",
                         judge.disks.size(), ": make both configurations name the same disks")};
  }
  for (size_t i = 0; i < judge.disks.size(); ++i) {
    Refusal refusal = JudgeDisk(hello, hello.disks(static_cast<int>(i)), judge.disks[i]);
    if (!refusal.detail.empty()) return refusal;
  }
  // The copies' terms rise too; the primary hears ours with the refusal, and comes again.
  if (const Term newest = NewestDiskTerm(judge); Term(hello.term()) <= newest) {
    return {romulus::v1::REFUSAL_REASON_DISKS,
            absl::StrCat("disks: the stream would be of term ", hello.term(),
                         ", and the copies here are of term ", newest.value(), " already")};
  }
  return {};
}

Refusal JudgeHost(const Hello& hello, const HelloJudge& judge) {
  if (hello.cpuid_size() > kMaxCpuidLeaves) {
    return {romulus::v1::REFUSAL_REASON_CPU,
            absl::StrCat("cpuid: ", hello.cpuid_size(), " leaves, at most ", kMaxCpuidLeaves)};
  }
  if (judge.missing_cpu_features) {
    std::vector<CpuidLeaf> leaves;
    for (const auto& leaf : hello.cpuid()) {
      leaves.push_back({leaf.function(), leaf.index(), leaf.flags(), leaf.eax(), leaf.ebx(),
                        leaf.ecx(), leaf.edx()});
    }
    const std::vector<std::string> missing = judge.missing_cpu_features(leaves, hello.tsc_khz());
    if (!missing.empty()) {
      return {
          romulus::v1::REFUSAL_REASON_CPU,
          absl::StrCat("cpu: the guest sees what this host lacks: ", absl::StrJoin(missing, ", "))};
    }
  }
  if (hello.required_capabilities_size() > kMaxCapabilities) {
    return {romulus::v1::REFUSAL_REASON_CAPABILITY,
            absl::StrCat("capabilities: ", hello.required_capabilities_size(), " named, at most ",
                         kMaxCapabilities)};
  }
  if (judge.has_capability) {
    std::vector<std::string> missing;
    for (const std::string& name : hello.required_capabilities()) {
      if (!judge.has_capability(name)) missing.push_back(Quoted(name));
    }
    if (!missing.empty()) {
      return {romulus::v1::REFUSAL_REASON_CAPABILITY,
              absl::StrCat("capabilities: this host's KVM lacks ", absl::StrJoin(missing, ", "))};
    }
  }
  return {};
}

// Both run a guest: the one that the other was promoted over ends (P3); two of which neither was
// are an operator's to choose from.
Refusal JudgeOtherPrimary(const Hello& hello, const HelloJudge& judge) {
  const std::string detail = absl::StrCat("role: this node is not a secondary",
                                          judge.role_detail.empty() ? "" : ": ", judge.role_detail);
  switch (JudgeLineages(judge.lineage, LineageFrom(hello.lineage()))) {
    case Newer::kFirst:
      return {romulus::v1::REFUSAL_REASON_TERM,
              absl::StrCat(detail, "; its guest was promoted over the one there")};
    case Newer::kSecond:
      return {romulus::v1::REFUSAL_REASON_ROLE, detail};  // ours is about to stop
    case Newer::kNeither:
      break;
  }
  return {romulus::v1::REFUSAL_REASON_TWO_PRIMARIES, detail};
}

// A build that knows no ranges names one version.
codec::ProtocolRange ProtocolsOf(const Hello& hello) {
  return {hello.protocol_version(),
          std::max(hello.protocol_version(), hello.newest_protocol_version())};
}

Refusal Judge(const Hello& hello, const HelloJudge& judge) {
  if (codec::NewestCommon(ProtocolsOf(hello), judge.protocols) == 0) {
    return {
        romulus::v1::REFUSAL_REASON_PROTOCOL_VERSION,
        absl::StrCat("protocol version: ", codec::RangeText(ProtocolsOf(hello)),
                     " on the primary (build ", Quoted(hello.build()), "), ",
                     codec::RangeText(judge.protocols), " here (build ", Quoted(judge.build), ")")};
  }
  // Whose guest it is comes before all about terms: another VM's terms mean nothing here.
  if (Refusal refusal = JudgeMachine(hello, judge.machine); !refusal.detail.empty()) return refusal;
  if (hello.node_name() == judge.node_name) {
    return {romulus::v1::REFUSAL_REASON_VM,
            absl::StrCat("node name: both nodes are called ", Quoted(judge.node_name))};
  }
  if (judge.holds == romulus::v1::HOLDS_GUEST) return JudgeOtherPrimary(hello, judge);
  if (!judge.plays_secondary) {
    return {romulus::v1::REFUSAL_REASON_ROLE,
            absl::StrCat("role: this node is not a secondary",
                         judge.role_detail.empty() ? "" : ": ", judge.role_detail)};
  }
  // Two daemons that took the stream from each other would both hold their output for ever. One
  // that was started again need not wait for long: the one before it is not heard any more.
  if (judge.heard_instance != 0 && hello.instance() != judge.heard_instance) {
    return {romulus::v1::REFUSAL_REASON_BUSY,
            absl::StrCat("another daemon, at ", judge.heard_from,
                         ", is the primary here, and is heard. If two hosts are called node ",
                         Quoted(hello.node_name()),
                         ", or two daemons were started: stop the one that is not wanted, or give "
                         "it a node of its own (--node)")};
  }
  if (Term(hello.term()) < judge.newest_term || Term(hello.term()) < Term(1)) {
    return {romulus::v1::REFUSAL_REASON_TERM,
            absl::StrCat("term: the stream would be of term ", hello.term(), ", term ",
                         judge.newest_term.value(), " has begun")};
  }
  if (Refusal refusal = JudgeDisks(hello, judge); !refusal.detail.empty()) return refusal;
  return JudgeHost(hello, judge);
}

void PutDisk(const DiskCopy& disk, romulus::v1::DiskCopy* into) {
  into->set_disk(disk.disk);
  into->set_name(disk.name);
  into->set_size_bytes(disk.size_bytes);
  into->set_role(disk.role);
  into->set_term(disk.term.value());
  into->set_epoch(disk.epoch.value());
  into->set_all_zero(disk.all_zero);
  into->set_covers_term(disk.covers_term.value());
}

}  // namespace

romulus::v1::Hello BuildHello(const HelloInput& input) {
  Hello hello;
  hello.set_protocol_version(input.protocols.oldest);
  hello.set_newest_protocol_version(input.protocols.newest);
  hello.set_measure_link(input.measure_link);
  hello.set_vm_name(input.machine.vm_name);
  hello.set_vm_uuid(input.machine.vm_uuid);
  hello.set_node_name(input.node_name);
  hello.set_term(input.stream_term.value());
  hello.set_current_term(input.current_term.value());
  *hello.mutable_lineage() = LineageToProto(input.lineage);
  hello.set_vcpu_count(input.machine.vcpu_count);
  for (const memory::Region& region : input.machine.memory) {
    auto* added = hello.add_memory();
    added->set_gpa(region.gpa.value());
    added->set_size_bytes(region.size_bytes);
  }
  for (const CpuidLeaf& leaf : input.cpuid) {
    auto* added = hello.add_cpuid();
    added->set_function(leaf.function);
    added->set_index(leaf.index);
    added->set_flags(leaf.flags);
    added->set_eax(leaf.eax);
    added->set_ebx(leaf.ebx);
    added->set_ecx(leaf.ecx);
    added->set_edx(leaf.edx);
  }
  hello.set_tsc_khz(input.tsc_khz);
  for (const std::string& name : input.required_capabilities) {
    hello.add_required_capabilities(name);
  }
  hello.set_build(input.build);
  hello.set_machine_digest(input.machine.machine_digest);
  hello.set_max_frame_bytes(input.max_frame_bytes);
  for (const std::string& device : input.machine.devices) hello.add_devices(device);
  for (const DiskCopy& disk : input.disks) PutDisk(disk, hello.add_disks());
  hello.set_overwrite_disks(input.overwrite_disks);
  hello.set_instance(input.instance);
  return hello;
}

romulus::v1::Lineage LineageToProto(const Lineage& lineage) {
  romulus::v1::Lineage message;
  message.set_promoted_term(lineage.promoted.value());
  message.set_covers_term(lineage.covers.value());
  message.set_shared_term(lineage.shared.value());
  return message;
}

Lineage LineageFrom(const romulus::v1::Lineage& lineage) {
  return {Term(lineage.promoted_term()), Term(lineage.covers_term()), Term(lineage.shared_term())};
}

romulus::v1::HelloReply EvaluateHello(const Hello& hello, const HelloJudge& judge) {
  Refusal refusal = Judge(hello, judge);
  HelloReply reply;
  reply.set_protocol_version(refusal.detail.empty()
                                 ? codec::NewestCommon(ProtocolsOf(hello), judge.protocols)
                                 : judge.protocols.oldest);
  reply.set_oldest_protocol_version(judge.protocols.oldest);
  reply.set_newest_protocol_version(judge.protocols.newest);
  reply.set_node_name(judge.node_name);
  reply.set_build(judge.build);
  reply.set_term(judge.newest_term.value());
  reply.set_max_frame_bytes(judge.max_frame_bytes);
  reply.set_accepted(refusal.detail.empty());
  reply.set_reason(refusal.reason);
  if (refusal.reason != romulus::v1::REFUSAL_REASON_VM &&
      refusal.reason != romulus::v1::REFUSAL_REASON_PROTOCOL_VERSION) {
    reply.set_holds(judge.holds);
    *reply.mutable_lineage() = LineageToProto(judge.lineage);
  }
  if (reply.accepted() || refusal.reason == romulus::v1::REFUSAL_REASON_DISKS) {
    for (const DiskCopy& disk : judge.disks) PutDisk(disk, reply.add_disks());
    reply.set_term(std::max(judge.newest_term, NewestDiskTerm(judge)).value());
  }
  reply.set_detail(std::move(refusal.detail));
  return reply;
}

absl::Status StatusOf(const HelloReply& reply) {
  if (reply.accepted()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("node ", Quoted(reply.node_name()),
                                                    " refused (", RefusalReasonName(reply.reason()),
                                                    "): ", reply.detail()));
}

absl::string_view RefusalReasonName(romulus::v1::RefusalReason reason) {
  switch (reason) {
    case romulus::v1::REFUSAL_REASON_PROTOCOL_VERSION:
      return "protocol_version";
    case romulus::v1::REFUSAL_REASON_VM:
      return "vm";
    case romulus::v1::REFUSAL_REASON_MEMORY:
      return "memory";
    case romulus::v1::REFUSAL_REASON_CPU:
      return "cpu";
    case romulus::v1::REFUSAL_REASON_CAPABILITY:
      return "capability";
    case romulus::v1::REFUSAL_REASON_TERM:
      return "term";
    case romulus::v1::REFUSAL_REASON_BUSY:
      return "busy";
    case romulus::v1::REFUSAL_REASON_ROLE:
      return "role";
    case romulus::v1::REFUSAL_REASON_DEVICES:
      return "devices";
    case romulus::v1::REFUSAL_REASON_DISKS:
      return "disks";
    case romulus::v1::REFUSAL_REASON_TWO_PRIMARIES:
      return "two_primaries";
    default:
      return "unspecified";
  }
}

}  // namespace romulus::wire
