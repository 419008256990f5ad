# Several folders each: the audit goes through all stations.
romulus_test(audit_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/audit_auditor_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/audit_disk_auditor_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/audit_pair_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/audit_replica_test.cc
  DEPS romulus_wire romulus_replica romulus_epoch romulus_devices romulus_test_support)
