# What listens, with each configuration of config/. Needs /dev/kvm and a network namespace.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/listening
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/listening.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/listening PROPERTIES LABELS e2e TIMEOUT 300 SKIP_RETURN_CODE 77)
