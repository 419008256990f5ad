romulus_test(base_test LABEL unit
             SOURCES ${CMAKE_CURRENT_LIST_DIR}/base_cond_var_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/base_cpu_affinity_test.cc
                     ${CMAKE_CURRENT_LIST_DIR}/base_work_mark_test.cc
             DEPS romulus_base)
