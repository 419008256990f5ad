romulus_test(devices_test LABEL unit
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/devices_platform_test.cc
    ${CMAKE_CURRENT_LIST_DIR}/devices_serial_test.cc ${CMAKE_CURRENT_LIST_DIR}/net_announce_test.cc
  DEPS romulus_devices romulus_state)
