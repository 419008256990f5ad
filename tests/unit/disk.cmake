romulus_test(disk_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_file_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_stamp_test.cc
  DEPS romulus_disk PkgConfig::XXHASH absl::strings absl::str_format)
romulus_test(disk_files_test LABEL unit TIMEOUT 240
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_crash_test.cc
  DEPS romulus_replica romulus_disk romulus_epoch absl::strings)
