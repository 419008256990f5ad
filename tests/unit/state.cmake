romulus_test(state_test LABEL unit SOURCES ${CMAKE_CURRENT_LIST_DIR}/state_machine_state_test.cc
             DEPS romulus_state romulus_proto)
