# A fence command under the daemon's system call filter. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/fence
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/fence.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/fence PROPERTIES LABELS e2e TIMEOUT 300 SKIP_RETURN_CODE 77)
