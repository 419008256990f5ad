romulus_test(second_path_test LABEL e2e
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/second_path_test.cc
  DEPS romulus_daemon)
# Two daemons that hear each other on two paths, either of which is cut. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/second_path
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/second_path.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/second_path PROPERTIES LABELS e2e TIMEOUT 600)
