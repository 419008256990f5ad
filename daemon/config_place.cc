#include "daemon/config_place.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"

namespace romulus::daemon {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

ConfigPlace::ConfigPlace(const Message& message, const Tree* tree, std::string file,
                         std::vector<ConfigError>* errors)
    : message_(&message), tree_(tree), file_(std::move(file)), errors_(errors) {}

const FieldDescriptor* ConfigPlace::Find(const std::string& field) const {
  const FieldDescriptor* found = message_->GetDescriptor()->FindFieldByName(field);
  ROMULUS_CHECK(found != nullptr);
  return found;
}

ConfigPlace ConfigPlace::Sub(const std::string& field, int index) const {
  const FieldDescriptor* descriptor = Find(field);
  ConfigPlace sub = *this;
  const google::protobuf::Reflection* reflection = message_->GetReflection();
  sub.message_ = index < 0 ? &reflection->GetMessage(*message_, descriptor)
                           : &reflection->GetRepeatedMessage(*message_, descriptor, index);
  sub.tree_ = nullptr;
  sub.name_ =
      index < 0 ? absl::StrCat(name_, field, ".") : absl::StrCat(name_, field, "[", index, "].");
  if (tree_ != nullptr && (index >= 0 || Has(field))) {
    sub.tree_ = tree_->GetTreeForNested(descriptor, index);
    if (const Location at = tree_->GetLocation(descriptor, index); at.line >= 0) sub.location_ = at;
  }
  return sub;
}

bool ConfigPlace::Has(const std::string& field) const {
  return message_->GetReflection()->HasField(*message_, Find(field));
}

uint64_t ConfigPlace::Number(const std::string& field) const {
  const FieldDescriptor* descriptor = Find(field);
  ROMULUS_CHECK(descriptor->cpp_type() == FieldDescriptor::CPPTYPE_UINT32);
  return message_->GetReflection()->GetUInt32(*message_, descriptor);
}

void ConfigPlace::Error(const std::string& field, const std::string& message, int index) const {
  Location at = location_;
  if (tree_ != nullptr) {
    // The tree knows the elements of a repeated field, not the field; asking for it throws.
    const FieldDescriptor* descriptor = Find(field);
    if (descriptor->is_repeated() == (index >= 0)) {
      if (const Location exact = tree_->GetLocation(descriptor, index); exact.line >= 0) at = exact;
    }
  }
  ConfigError error;
  error.file = file_;
  error.line = at.line + 1;
  error.column = at.line < 0 ? 0 : at.column + 1;
  error.field = absl::StrCat(name_, field);
  error.message = message;
  errors_->push_back(std::move(error));
}

}  // namespace romulus::daemon
