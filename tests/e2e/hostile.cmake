# A hostile primary on a live secondary's port, over real sockets.
romulus_test(wire_hostile_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/wire_hostile_test.cc
  DEPS romulus_wire romulus_replica romulus_proto_wire)
