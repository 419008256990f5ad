romulus_test(disk_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_file_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_stamp_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/disk_watched_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/disk_block_device_test.cc
  DEPS romulus_disk PkgConfig::XXHASH absl::strings absl::str_format)
romulus_test(disk_files_test LABEL unit TIMEOUT 240
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_audit_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_crash_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/disk_damage_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_files_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/disk_journal_test.cc ${CMAKE_CURRENT_LIST_DIR}/disk_kill_test.cc
  DEPS romulus_replica romulus_disk romulus_epoch PkgConfig::XXHASH absl::strings)
target_compile_definitions(disk_files_test PRIVATE
  ROMULUS_GOLDEN_FOLDER="${CMAKE_CURRENT_LIST_DIR}/golden")
