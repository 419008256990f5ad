# What romulusctl tells of two daemons: events, a screen, a page. Needs /dev/kvm, python3-pyte and chromium.
# The interpreter is Debian's, as its pyte is.
add_test(NAME e2e/ctl
  COMMAND /usr/bin/python3 ${CMAKE_CURRENT_LIST_DIR}/ctl.py --build ${CMAKE_BINARY_DIR})
set_tests_properties(e2e/ctl PROPERTIES LABELS e2e TIMEOUT 600)
