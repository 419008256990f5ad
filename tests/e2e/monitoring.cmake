# A real Prometheus on a pair of daemons. Needs /dev/kvm, etcd-server, prometheus and a network namespace.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/monitoring
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/monitoring.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/monitoring PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
