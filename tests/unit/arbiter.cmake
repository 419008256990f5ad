romulus_test(arbiter_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/arbiter_command_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/arbiter_etcd_test.cc
  DEPS romulus_arbiter romulus_proto romulus_proto_etcd romulus_daemon_base)
