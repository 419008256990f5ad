#include "codec/dialect.h"

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "codec/frame.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "romulus/v1/since.pb.h"

namespace romulus::codec {
namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageLite;
using google::protobuf::Reflection;

uint32_t FirstVersionOf(FrameKind kind) {
  switch (kind) {
    case FrameKind::kEpochDisks:
    case FrameKind::kDiskSyncBegin:
    case FrameKind::kDiskBlocks:
    case FrameKind::kDiskHashRequest:
    case FrameKind::kDiskHashes:
    case FrameKind::kDiskSyncEnd:
      return 2;
    case FrameKind::kHandOver:
    case FrameKind::kHandOverRefusal:
      return 4;
    case FrameKind::kEpochAudit:
      return 5;
    case FrameKind::kHello:
    case FrameKind::kHelloReply:
    case FrameKind::kHeartbeat:
    case FrameKind::kSyncBegin:
    case FrameKind::kSyncPages:
    case FrameKind::kSyncEnd:
    case FrameKind::kEpochPages:
    case FrameKind::kEpochCommit:
    case FrameKind::kEpochAbort:
    case FrameKind::kAck:
    case FrameKind::kGoodbye:
      return 1;
  }
  return kNewestProtocol + 1;  // a number without a name: nobody's
}

// What is generated from our definitions has the full runtime.
Message* Full(MessageLite* message) {
  auto* full = dynamic_cast<Message*>(message);
  ROMULUS_CHECK(full != nullptr);
  return full;
}

// Null: the field has no enum value that is newer; of a number without a name nothing is known (and
// Reflection::GetEnum would make a descriptor for each, and keep it). Values of repeated enums have
// no `since`.
const EnumValueDescriptor* NewerValue(const Message& message, const FieldDescriptor& field,
                                      uint32_t version) {
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_ENUM || field.is_repeated()) return nullptr;
  const int number = message.GetReflection()->GetEnumValue(message, &field);
  const EnumValueDescriptor* value = field.enum_type()->FindValueByNumber(number);
  if (value == nullptr) return nullptr;
  return value->options().GetExtension(v1::value_since) > version ? value : nullptr;
}

// Messages nest no deeper than their definitions, which name none of themselves.
void RemoveNewer(Message* message, uint32_t version) {
  const Reflection& reflection = *message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection.ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->options().GetExtension(v1::since) > version) {
      reflection.ClearField(message, field);
    } else if (const auto* value = NewerValue(*message, *field, version); value != nullptr) {
      reflection.SetEnumValue(message, field, value->options().GetExtension(v1::instead));
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!field->is_repeated()) {
        RemoveNewer(reflection.MutableMessage(message, field), version);
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        RemoveNewer(reflection.MutableRepeatedMessage(message, field, i), version);
      }
    }
  }
}

}  // namespace

std::string RangeText(const ProtocolRange& range) {
  return range.oldest == range.newest ? absl::StrCat(range.oldest)
                                      : absl::StrCat(range.oldest, " to ", range.newest);
}

bool Dialect::Has(FrameKind kind) const { return FirstVersionOf(kind) <= version_; }

void Dialect::Serialize(const MessageLite& body, std::string* into) const {
  if (version_ >= kNewestProtocol) {
    ROMULUS_CHECK(body.AppendToString(into));
    return;
  }
  const std::unique_ptr<MessageLite> older(body.New());
  older->CheckTypeAndMergeFrom(body);
  RemoveNewer(Full(older.get()), version_);
  ROMULUS_CHECK(older->AppendToString(into));
}

bool Dialect::Parse(absl::string_view bytes, MessageLite* into) const {
  if (bytes.size() > INT32_MAX ||
      !into->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return false;
  }
  if (version_ < kNewestProtocol) RemoveNewer(Full(into), version_);
  return true;
}

}  // namespace romulus::codec
