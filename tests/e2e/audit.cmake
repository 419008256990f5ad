# A replica's memory that is damaged from outside is found and mended. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/audit
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/audit.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/audit PROPERTIES LABELS e2e TIMEOUT 600)
