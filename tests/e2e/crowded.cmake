# A secondary with more connections than it can have. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/crowded
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/crowded.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/crowded PROPERTIES LABELS e2e TIMEOUT 300)
