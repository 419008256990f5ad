# Mutual TLS: who is let in, who is not, and what a change of the files does. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/tls
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/tls.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/tls PROPERTIES LABELS e2e TIMEOUT 600)
