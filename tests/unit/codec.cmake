romulus_test(codec_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/codec_compression_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_compression_choice_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_disk_records_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_frame_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_page_diff_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_machine_delta_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_page_encoding_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_previous_cache_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/codec_epoch_encoder_test.cc
  DEPS romulus_codec romulus_epoch romulus_proto PkgConfig::XXHASH PkgConfig::ZSTD)
