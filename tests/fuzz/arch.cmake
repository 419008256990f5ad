if(ROMULUS_BUILD_FUZZERS)
  add_executable(arch_fuzz_seeds ${CMAKE_CURRENT_LIST_DIR}/arch_fuzz_seeds.cc)
  target_link_libraries(arch_fuzz_seeds PRIVATE romulus_flags romulus_devices romulus_arch romulus_state)
  target_include_directories(arch_fuzz_seeds PRIVATE ${PROJECT_SOURCE_DIR}/tests)
endif()

romulus_fuzz(arch_loader_fuzzer SEEDS arch_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/arch_loader_fuzzer.cc DEPS romulus_arch romulus_memory)
romulus_fuzz(arch_devices_fuzzer SEEDS arch_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/arch_devices_fuzzer.cc DEPS romulus_devices romulus_state)
