# A primary that is started again after its secondary was promoted. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/stale_primary
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/stale_primary.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/stale_primary PROPERTIES LABELS e2e TIMEOUT 600)
