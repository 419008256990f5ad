romulus_test(hostile_guest_test LABEL kvm TIMEOUT 300
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/hostile_guest_test.cc
  DEPS romulus_vmm)
add_dependencies(hostile_guest_test guest_hostile)
target_compile_definitions(hostile_guest_test PRIVATE
  HOSTILE_ELF="${CMAKE_BINARY_DIR}/guests/hostile.elf" LEDGER_ELF="")
