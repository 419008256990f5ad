# A pair of daemons on loopback with a hostile link between them. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/hostile_link
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/hostile_link.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/hostile_link PROPERTIES LABELS e2e TIMEOUT 300)
