# A network card of a pair of daemons, one of which is killed. Needs /dev/kvm, and root or user namespaces.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/echo_failover
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/echo_failover.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/echo_failover PROPERTIES LABELS e2e TIMEOUT 300 SKIP_RETURN_CODE 77)
