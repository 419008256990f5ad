# Planned hand-overs, few here; `switchover.py --rounds 50 --kills 50` by hand. Needs /dev/kvm, one also etcd-server.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
foreach(arbiter "" "--etcd")
  string(REPLACE "--" "_" suffix "${arbiter}")
  add_test(NAME e2e/switchover${suffix}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/switchover.py --build ${CMAKE_BINARY_DIR}
            --rounds 4 --kills 4 ${arbiter})
  set_tests_properties(e2e/switchover${suffix} PROPERTIES LABELS e2e TIMEOUT 600 SKIP_RETURN_CODE 77)
endforeach()
