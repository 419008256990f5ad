romulus_test(wire_grpc_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_grpc_test.cc
  DEPS romulus_wire romulus_replica romulus_proto_wire)
romulus_test(wire_tls_link_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_tls_test.cc
  DEPS romulus_wire)
target_compile_definitions(wire_tls_link_test PRIVATE ROMULUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
romulus_test(wire_attended_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_attended_test.cc
  DEPS romulus_wire)
