romulus_test(epoch_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/output_gate_test.cc ${CMAKE_CURRENT_LIST_DIR}/governor_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/frame_gate_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/checkpoint_test.cc ${CMAKE_CURRENT_LIST_DIR}/checkpoint_loop_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/page_copier_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/disk_log_test.cc ${CMAKE_CURRENT_LIST_DIR}/log_advice_test.cc
          ${CMAKE_CURRENT_LIST_DIR}/staging_pool_test.cc
  DEPS romulus_epoch romulus_test_support)
