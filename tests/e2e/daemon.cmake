# Refusals, clean stops, pause and fencing of a pair of daemons on loopback. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/daemon_manners
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/daemon_manners.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/daemon_manners PROPERTIES LABELS e2e TIMEOUT 300)
