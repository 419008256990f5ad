# A daemon under a service manager: notifications, watchdog, clean stop. Needs /dev/kvm.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(name service stop)
  add_test(NAME e2e/${name}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/${name}.py --build ${CMAKE_BINARY_DIR})
  set_tests_properties(e2e/${name} PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()
