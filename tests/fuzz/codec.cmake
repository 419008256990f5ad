if(ROMULUS_BUILD_FUZZERS)
  add_executable(codec_fuzz_seeds ${CMAKE_CURRENT_LIST_DIR}/codec_fuzz_seeds.cc)
  target_link_libraries(codec_fuzz_seeds PRIVATE romulus_flags romulus_codec romulus_epoch romulus_proto)
  target_include_directories(codec_fuzz_seeds PRIVATE ${PROJECT_SOURCE_DIR}/tests)
endif()

romulus_fuzz(codec_frame_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_frame_fuzzer.cc DEPS romulus_codec)
romulus_fuzz(codec_page_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_page_fuzzer.cc DEPS romulus_codec)
romulus_fuzz(codec_machine_state_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_machine_state_fuzzer.cc DEPS romulus_state romulus_proto)
romulus_fuzz(codec_machine_delta_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_machine_delta_fuzzer.cc DEPS romulus_codec romulus_proto)
romulus_fuzz(codec_audit_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_audit_fuzzer.cc DEPS romulus_codec romulus_epoch)
romulus_fuzz(codec_disk_fuzzer SEEDS codec_fuzz_seeds
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_disk_fuzzer.cc DEPS romulus_codec romulus_epoch)
