// A folder of its own for one test, removed with what is in it.
#ifndef ROMULUS_TESTS_SUPPORT_TEMP_FOLDER_H_
#define ROMULUS_TESTS_SUPPORT_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "base/check.h"

namespace romulus::testing {

class TempFolder {
 public:
  TempFolder() : path_(::testing::TempDir() + "romulus-XXXXXX") {
    ROMULUS_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string Path(const std::string& name) const { return path_ + "/" + name; }
  // A sparse file of zeros.
  std::string MakeFile(const std::string& name, uint64_t size) const {
    std::ofstream(Path(name)).close();
    std::filesystem::resize_file(Path(name), size);
    return Path(name);
  }

 private:
  std::string path_;
};

inline std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void WriteAll(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << text;
}

}  // namespace romulus::testing

#endif  // ROMULUS_TESTS_SUPPORT_TEMP_FOLDER_H_
