# A daemon under a service manager: notifications, watchdog, clean stop. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/service
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/service.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/service PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
