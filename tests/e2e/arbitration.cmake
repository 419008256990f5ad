# Two daemons and a real etcd. Needs /dev/kvm and etcd-server.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/arbitration
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/arbitration.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/arbitration PROPERTIES LABELS e2e TIMEOUT 300 SKIP_RETURN_CODE 77)
