romulus_test(replica_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/replica_assembler_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_compression_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_console_tail_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_disks_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_store_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_session_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/replica_promotion_race_test.cc
  DEPS romulus_replica romulus_codec romulus_epoch romulus_proto)
