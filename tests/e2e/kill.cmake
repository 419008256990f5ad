# kill -9 of the primary at random moments. Fifty rounds; a fifth of them where a sanitizer slows all down.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
set(rounds 50)
if(ROMULUS_SANITIZER)
  set(rounds 10)
endif()
add_test(NAME e2e/kill_primary
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/kill_primary.py --build ${CMAKE_BINARY_DIR}
          --rounds ${rounds})
set_tests_properties(e2e/kill_primary PROPERTIES LABELS e2e TIMEOUT 600)
add_test(NAME e2e/demo
  COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/demo.py --build ${CMAKE_BINARY_DIR} --seconds 2)
set_tests_properties(e2e/demo PROPERTIES LABELS e2e TIMEOUT 120)
