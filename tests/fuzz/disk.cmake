if(ROMULUS_BUILD_FUZZERS)
  add_executable(disk_fuzz_seeds ${CMAKE_CURRENT_LIST_DIR}/disk_fuzz_seeds.cc)
  target_link_libraries(disk_fuzz_seeds PRIVATE romulus_flags romulus_replica romulus_disk)
  target_include_directories(disk_fuzz_seeds PRIVATE ${PROJECT_SOURCE_DIR}/tests)
endif()

romulus_fuzz(disk_stamp_fuzzer SEEDS disk_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_stamp_fuzzer.cc DEPS romulus_disk PkgConfig::XXHASH)
romulus_fuzz(disk_journal_fuzzer SEEDS disk_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/disk_journal_fuzzer.cc
  DEPS romulus_replica romulus_disk PkgConfig::XXHASH)
