# A console that cannot be written: the guest waits, and nothing is lost. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/console_full
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/console_full.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/console_full PROPERTIES LABELS e2e TIMEOUT 300)
