# This build and what the previous release said once; with that release itself: tests/skew.
find_package(ZLIB REQUIRED)
romulus_test(skew_replay_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/skew_replay_test.cc
             DEPS romulus_wire romulus_replica romulus_state romulus_proto ZLIB::ZLIB)
romulus_test(codec_dialect_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_dialect_test.cc
             DEPS romulus_codec romulus_proto)
foreach(test skew_replay_test codec_dialect_test)
  target_compile_definitions(${test} PRIVATE ROMULUS_RECORDED_FOLDER="${PROJECT_SOURCE_DIR}/tests/skew/recorded")
endforeach()
