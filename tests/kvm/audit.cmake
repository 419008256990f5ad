romulus_test(kvm_audit_test LABEL kvm TIMEOUT 600 SOURCES ${CMAKE_CURRENT_LIST_DIR}/audit_test.cc
  DEPS romulus_vmm romulus_epoch romulus_replica romulus_codec romulus_test_support)
add_dependencies(kvm_audit_test guest_ledger)
target_compile_definitions(kvm_audit_test PRIVATE LEDGER_ELF="${CMAKE_BINARY_DIR}/guests/ledger.elf")
