romulus_test(disk_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_file_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_stamp_test.cc
  DEPS romulus_disk PkgConfig::XXHASH absl::strings absl::str_format)
