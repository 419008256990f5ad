# The agent for Pacemaker. Needs /dev/kvm, resource-agents and for ocf-tester libxml2-utils; no cluster.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(judge "" "--tester")
  string(REPLACE "--" "_" suffix "${judge}")
  add_test(NAME e2e/pacemaker${suffix}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/pacemaker.py --build ${CMAKE_BINARY_DIR} ${judge})
  set_tests_properties(e2e/pacemaker${suffix} PROPERTIES LABELS e2e TIMEOUT 1800 SKIP_RETURN_CODE 77)
endforeach()
