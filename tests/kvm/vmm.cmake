foreach(name vmm_exit_witness_test vmm_machine_test vmm_state_test vmm_vcpu_thread_test vmm_virtio_test)
  romulus_test(${name} LABEL kvm TIMEOUT 240
    SOURCES ${CMAKE_CURRENT_LIST_DIR}/${name}.cc
    DEPS romulus_vmm)
  add_dependencies(${name} guest_ledger guest_registers)
  target_compile_definitions(${name} PRIVATE LEDGER_ELF="${CMAKE_BINARY_DIR}/guests/ledger.elf"
    GUESTS="${CMAKE_BINARY_DIR}/guests/")
endforeach()
