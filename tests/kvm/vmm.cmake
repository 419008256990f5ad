romulus_test(vmm_machine_test LABEL kvm TIMEOUT 240
  SOURCES ${CMAKE_CURRENT_LIST_DIR}/vmm_machine_test.cc
  DEPS romulus_vmm)
add_dependencies(vmm_machine_test guest_ledger)
target_compile_definitions(vmm_machine_test PRIVATE LEDGER_ELF="${CMAKE_BINARY_DIR}/guests/ledger.elf")
