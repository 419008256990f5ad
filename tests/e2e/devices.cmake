# romulusd's virtio devices, driven by guests of tests/guests. Needs /dev/kvm and a network namespace.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
add_test(NAME e2e/devices
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/devices.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/devices PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
