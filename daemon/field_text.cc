#include "daemon/field_text.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/text_format.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status.h"
#include "daemon/clean_text.h"

namespace romulus::daemon {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

// No value that anybody wrote is longer: a configuration is not, nor a message of control.
constexpr size_t kMaxValueBytes = 4u << 20;

// `index`: -1 unless the field is a list.
std::string ValueText(const Message& message, const FieldDescriptor* field, int index) {
  std::string text;
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
    google::protobuf::TextFormat::PrintFieldValueToString(message, field, index, &text);
    return text;
  }
  const google::protobuf::Reflection* reflection = message.GetReflection();
  text = index < 0 ? reflection->GetString(message, field)
                   : reflection->GetRepeatedString(message, field, index);
  return CleanText(text, kMaxValueBytes);
}

// The message of a list's type, for elements that are not there.
const Message* Prototype(const Message& message, const FieldDescriptor* field) {
  return message.GetReflection()->GetMessageFactory()->GetPrototype(field->message_type());
}

}  // namespace

absl::StatusOr<std::string> FieldText(const Message& message, absl::string_view path) {
  const auto error = [path](absl::string_view part, absl::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat("'", path, "': ", part, " ", what));
  };
  const Message* at = &message;
  bool is_there = true;
  const std::vector<std::string> parts = absl::StrSplit(path, '.');
  for (size_t i = 0; i < parts.size(); ++i) {
    const FieldDescriptor* field = at->GetDescriptor()->FindFieldByName(parts[i]);
    if (field == nullptr) return error(parts[i], "is no field");
    if (field->is_map()) return error(parts[i], "is a map, no single value");
    int index = -1;
    if (field->is_repeated()) {
      if (i + 1 == parts.size() || !absl::SimpleAtoi(parts[++i], &index) || index < 0) {
        return error(field->name(), "is a list: a position must follow");
      }
      is_there = is_there && index < at->GetReflection()->FieldSize(*at, field);
    }
    const bool is_last = i + 1 == parts.size();
    if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
      if (!is_last) return error(field->name(), "has no fields");
      return is_there ? ValueText(*at, field, index) : "";
    }
    if (is_last) return error(field->name(), "has fields, and is no single value");
    at = index < 0  ? &at->GetReflection()->GetMessage(*at, field)
         : is_there ? &at->GetReflection()->GetRepeatedMessage(*at, field, index)
                    : Prototype(*at, field);
  }
  return error("an empty path", "is no field");  // StrSplit gives one part at least
}

absl::StatusOr<std::string> FieldLines(const Message& message,
                                       const std::vector<std::string>& paths) {
  std::string lines;
  for (const std::string& path : paths) {
    ROMULUS_ASSIGN_OR_RETURN(const std::string text, FieldText(message, path));
    absl::StrAppend(&lines, text, "\n");
  }
  return lines;
}

}  // namespace romulus::daemon
