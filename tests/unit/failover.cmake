romulus_test(failover_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/failover_arbiter_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_diagram_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_detector_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_promoter_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_lineage_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_role_arbiter_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_role_machine_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_role_secondary_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_second_path_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_switchover_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/failover_two_nodes_test.cc
  DEPS romulus_failover)
target_compile_definitions(failover_test PRIVATE ROMULUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
