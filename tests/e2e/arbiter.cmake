# Real etcd servers on loopback.
romulus_test(arbiter_e2e_test LABEL e2e TIMEOUT 300
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/arbiter_etcd_e2e_test.cc
  DEPS romulus_arbiter romulus_daemon_base)
