# Taps and network cards in a network namespace of the test's own. Skipped where there can be none.
romulus_test(tap_test LABEL e2e SOURCES ${CMAKE_CURRENT_LIST_DIR}/tap_test.cc
             DEPS romulus_devices romulus_memory romulus_state)
romulus_test(nic_test LABEL e2e SOURCES ${CMAKE_CURRENT_LIST_DIR}/nic_test.cc
             DEPS romulus_daemon romulus_devices romulus_memory romulus_state)
