# A secondary slower than its primary: the guest is slowed, caps hold, nothing is lost. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/slow_secondary
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/slow_secondary.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/slow_secondary PROPERTIES LABELS e2e TIMEOUT 300)
# A thin link is compressed for, loopback is not.
add_test(NAME e2e/thin_link
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/thin_link.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/thin_link PROPERTIES LABELS e2e TIMEOUT 300)
add_test(NAME e2e/slow_disk
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/slow_devices.py --build ${CMAKE_BINARY_DIR} disk)
add_test(NAME e2e/slow_frames
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/slow_devices.py --build ${CMAKE_BINARY_DIR} frames)
set_tests_properties(e2e/slow_disk e2e/slow_frames PROPERTIES LABELS e2e TIMEOUT 300 SKIP_RETURN_CODE 77)
# It measures the daemon's memory: what ASan keeps of freed memory must not count (256 MiB by default).
set_property(TEST e2e/slow_secondary PROPERTY ENVIRONMENT_MODIFICATION
  ASAN_OPTIONS=string_append::quarantine_size_mb=8)
