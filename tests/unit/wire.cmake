romulus_test(wire_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_compression_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_disk_sync_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_full_sync_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_handshake_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_link_rate_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_loopback_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_sender_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/wire_session_test.cc
  DEPS romulus_wire romulus_replica)
romulus_test(wire_beats_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_beats_test.cc
  DEPS romulus_wire)
romulus_test(wire_tls_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_tls_test.cc
  DEPS romulus_wire)
target_compile_definitions(wire_tls_test PRIVATE ROMULUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
romulus_test(wire_polling_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_polling_test.cc
  DEPS romulus_wire)
