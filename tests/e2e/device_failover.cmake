# Disks and network cards of a pair of daemons, one or both of which are killed. Needs /dev/kvm; the echo also
# root or user namespaces.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/echo_failover
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/echo_failover.py --build ${CMAKE_BINARY_DIR})
add_test(NAME e2e/disk_failover
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/disk_failover.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/echo_failover e2e/disk_failover PROPERTIES LABELS e2e TIMEOUT 300
  SKIP_RETURN_CODE 77)
