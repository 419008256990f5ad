if(ROMULUS_BUILD_FUZZERS)
  add_executable(virtio_fuzz_seeds ${CMAKE_CURRENT_LIST_DIR}/virtio_fuzz_seeds.cc)
  target_link_libraries(virtio_fuzz_seeds PRIVATE romulus_flags romulus_base)
  target_include_directories(virtio_fuzz_seeds PRIVATE ${PROJECT_SOURCE_DIR}/tests)
endif()

romulus_fuzz(virtio_fuzzer SEEDS virtio_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/virtio_fuzzer.cc DEPS romulus_devices romulus_memory romulus_state)
