# Kill and protect again: one run where the guest changes sides each time, one where one process stays.
# By hand: cycles.py --build FOLDER --count 200.
foreach(victim primary secondary)
  add_test(NAME e2e/cycles_${victim}
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_CURRENT_LIST_DIR}/cycles.py --build ${CMAKE_BINARY_DIR}
            --count 16 --victim ${victim})
  set_tests_properties(e2e/cycles_${victim} PROPERTIES LABELS e2e TIMEOUT 300)
endforeach()
