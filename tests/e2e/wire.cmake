romulus_test(wire_grpc_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_grpc_test.cc
  DEPS romulus_wire romulus_replica romulus_proto_wire)
