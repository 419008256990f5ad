# A guest with a disk on a pair of daemons. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/disks
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/disks.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/disks PROPERTIES LABELS e2e TIMEOUT 600)
# Disks that are refused, and side files that cannot be written. Needs /dev/kvm.
add_test(NAME e2e/disk_input
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/disk_input.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/disk_input PROPERTIES LABELS e2e TIMEOUT 600)
